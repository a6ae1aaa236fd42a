//! The settings, as the rest of the program sees them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use rustls::sign::CertifiedKey;

use super::{Keys, Origins};
use crate::shared::server_state::ServerSettings;
use crate::store::mysql;

/// All settings of the server. Made by [`Settings::load`] or, from given values, by
/// [`Settings::from_pairs`]; both check them as a whole.
#[derive(Clone, Debug)]
pub struct Settings {
    pub http: HttpSettings,
    pub keys: Keys,
    pub store: StoreKind,
    /// `PEER_PORT`: the port for other instances on the same database; 0 means any free port.
    pub peer_port: u16,
    /// `ADVERTISE_ADDRESS`: the host, and the port if it is given, where other instances reach this one.
    pub advertise: Option<(String, Option<u16>)>,
    /// How locks behave, and how much is kept in memory.
    pub server: ServerSettings,
    /// `MAX_WAIT_SECONDS`: the largest `?wait=` that is accepted.
    pub wait_max: Duration,
    /// `SHUTDOWN_DELAY_SECONDS`: how long requests are still taken after `/ready` turned to 503.
    pub shutdown_delay: Duration,
    /// `SHUTDOWN_SECONDS`: how long requests in flight may take to finish.
    pub shutdown_timeout: Duration,
    /// `RUST_LOG`: the filter that `env_logger` takes.
    pub log_filter: String,
    /// `ACCESS_LOG`: a log line for each request, besides the one for each change.
    pub access_log: bool,
    /// Where each variable came from, and which file was read.
    pub origins: Origins,
}

/// Address, limits and timeouts of the HTTP server.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// `HTTP_HOST`: the address listened on.
    pub host: IpAddr,
    /// `HTTP_PORT`: 0 means any free port.
    pub port: u16,
    /// `HTTP_WORKERS`: threads that take requests, 1 to 512.
    pub workers: usize,
    /// `KEEP_ALIVE_SECONDS`: how long an idle connection is kept; zero closes after each answer.
    pub keep_alive: Duration,
    /// `TLS_CERT_FILE`, and the certificate that was read from it with its key; `None` is plain HTTP.
    pub tls: Option<(PathBuf, CertifiedKey)>,
    /// `MAX_BODY_BYTES`: a larger request body is answered 413.
    pub body_bytes_max: usize,
    /// `MAX_CONNECTIONS`: open connections over all workers.
    pub connections_max: usize,
    /// `REQUEST_TIMEOUT_SECONDS`: the time a client has to send a request head.
    pub request_head_timeout: Duration,
    /// `BODY_TIMEOUT_SECONDS`: the time a client has to send a request body.
    pub body_timeout: Duration,
    /// `RATE_LIMIT_PER_SECOND`: requests per second and client; 0 is off.
    pub rate_limit_per_second: u32,
    /// `TRUSTED_PROXIES`: peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl HttpSettings {
    /// The scheme of the server's addresses.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// Where state is kept: `STORE`.
#[derive(Clone, Debug)]
pub enum StoreKind {
    /// The variables that begin with `MYSQL_`. `peers` is not set here: the address for other instances is
    /// known only once this one listens.
    Mysql(mysql::Options),
    /// `SQLITE_PATH`.
    Sqlite { path: PathBuf },
    /// Nothing outlives the process.
    Memory,
}

impl StoreKind {
    /// The value of `STORE`.
    pub fn name(&self) -> &'static str {
        match self {
            StoreKind::Mysql(_) => "mysql",
            StoreKind::Sqlite { .. } => "sqlite",
            StoreKind::Memory => "memory",
        }
    }

    /// `INSTANCE_LEASE_SECONDS`: how long an instance without heartbeats keeps its names. `None`: the store
    /// cannot be shared with other instances.
    pub fn instance_lease(&self) -> Option<Duration> {
        match self {
            StoreKind::Mysql(options) => Some(options.instance_lease),
            StoreKind::Sqlite { .. } | StoreKind::Memory => None,
        }
    }
}
