//! The settings, as the rest of the program sees them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use serde::Deserialize;

use super::{Origins, Secret};
use crate::lock::{Limits, Profile};

/// Everything the server was told. Made by [`Settings::load`] or, from given values, by
/// [`Settings::from_pairs`]; both check it as a whole.
#[derive(Clone, Debug)]
pub struct Settings {
    pub http: HttpSettings,
    pub keys: KeySettings,
    pub store: StoreSettings,
    pub peers: PeerSettings,
    pub lock: LockSettings,
    pub capacity: CapacitySettings,
    pub shutdown: ShutdownSettings,
    /// `RUST_LOG`: the filter that `env_logger` takes.
    pub log_filter: String,
    /// `ACCESS_LOG`: one line per request besides one per change.
    pub access_log: bool,
    /// Where each variable came from, and which file was read.
    pub origins: Origins,
}

/// Where and how requests are taken.
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
    /// `TLS_CERT_FILE` and `TLS_KEY_FILE`; `None` is plain HTTP.
    pub tls: Option<TlsFiles>,
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

/// Both files exist, were readable at the start and hold what their names say, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, the server's own certificate first.
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// The keys accepted for each right: the current one first, then its `*_PREVIOUS` while keys rotate.
/// None of them is empty. Without `api`, `read`, `read_lock` and `write` hold at least one each, `admin` may be empty.
#[derive(Clone, Debug)]
pub struct KeySettings {
    /// `API_KEY`: reads, locks and writes. With it, the four below are empty.
    pub api: Option<Secret>,
    /// `KEYS_FILE`.
    pub scoped: Vec<ScopedKey>,
    pub read: Vec<Secret>,
    pub read_lock: Vec<Secret>,
    pub write: Vec<Secret>,
    pub admin: Vec<Secret>,
}

/// What a key of `KEYS_FILE` allows; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyRight {
    Read,
    ReadLock,
    Write,
    Admin,
}

/// One entry of `KEYS_FILE`. Entries of the same key add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopedKey {
    /// For log lines and events.
    pub name: String,
    /// Of the key.
    pub sha256: [u8; 32],
    pub right: KeyRight,
    /// Names that begin with one of them, byte for byte; an empty one: all.
    pub prefixes: Vec<String>,
    /// From this moment on it is unknown.
    pub expires: Option<SystemTime>,
}

/// Where state is kept.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// `STORE`.
    pub kind: StoreKind,
    /// `STORE_TIMEOUT_SECONDS`: after this long without a commit a change is answered 503.
    pub timeout: Duration,
    /// `LISTING_TIMEOUT_SECONDS`: a listing that takes longer is given up.
    pub listing_timeout: Duration,
    /// `INSTANCE_LEASE_SECONDS`: how long an instance that gives no sign keeps its names.
    pub instance_lease: Duration,
}

/// How instances on one database reach each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSettings {
    /// `PEER_PORT`: 0 means any free port.
    pub port: u16,
    /// `ADVERTISE_ADDRESS`: the host, and the port if there is one.
    pub advertise: Option<(String, Option<u16>)>,
}

#[derive(Clone, Debug)]
pub enum StoreKind {
    Mysql(MysqlSettings),
    /// `SQLITE_PATH`.
    Sqlite {
        path: PathBuf,
    },
    /// Nothing outlives the process.
    Memory,
}

impl StoreKind {
    /// As `STORE` spells it.
    pub fn name(&self) -> &'static str {
        match self {
            StoreKind::Mysql(_) => "mysql",
            StoreKind::Sqlite { .. } => "sqlite",
            StoreKind::Memory => "memory",
        }
    }
}

/// How to reach MySQL or MariaDB.
#[derive(Clone, Debug)]
pub struct MysqlSettings {
    /// `MYSQL_HOST`: a host name or an IP address, without a port.
    pub host: String,
    /// `MYSQL_PORT`.
    pub port: u16,
    /// `MYSQL_DATABASE`: 1 to 64 characters; quote it in SQL.
    pub database: String,
    /// `MYSQL_USER`.
    pub user: String,
    /// `MYSQL_PASSWORD`; may be empty.
    pub password: Secret,
    /// `MYSQL_POOL_SIZE`: connections at most.
    pub pool_size: usize,
    /// `MYSQL_TLS` and `MYSQL_TLS_CA_FILE`.
    pub tls: MysqlTls,
}

/// Protection of the connection to the database, each stronger than the one before it. Where `ca` is
/// `None`, the public certificate authorities are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MysqlTls {
    /// Plain text.
    Off,
    /// Encrypted; whoever answers is believed.
    Required,
    /// Encrypted; the certificate must come from a trusted authority, for whatever host name.
    VerifyCa { ca: Option<PathBuf> },
    /// As `VerifyCa`, and the certificate must be for `MYSQL_HOST`.
    VerifyIdentity { ca: Option<PathBuf> },
}

/// How locks behave.
#[derive(Clone, Debug)]
pub struct LockSettings {
    /// `COMPATIBILITY`; `None` when unset: then the database decides.
    pub compatibility: Option<Profile>,
    /// `LOCK_WAIT_SECONDS`: how long a request without `?wait=` waits. At most `wait_max`.
    pub wait: Duration,
    /// `MAX_WAIT_SECONDS`: the largest `?wait=` that is accepted.
    pub wait_max: Duration,
    /// `CLAIM_SECONDS`, `TICKET_TTL_SECONDS`, `MAX_LEASE_SECONDS` and `MAX_WAITERS_PER_RESOURCE`.
    pub limits: Limits,
}

/// How much is kept in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapacitySettings {
    /// `MAX_WAITERS`: waiting tickets over all resources.
    pub waiters_max: usize,
    /// `MAX_SELECTORS`: selectors of one resource.
    pub selectors_max: usize,
    /// `HISTORY_PER_RESOURCE`: past leases kept of each name; 0: none.
    pub history_per_resource: usize,
    /// `DATA_CACHE_BYTES`: selector data kept in memory.
    pub data_cache_bytes: u64,
}

/// What happens between SIGTERM and the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownSettings {
    /// `SHUTDOWN_DELAY_SECONDS`: how long requests are still taken after `/ready` turned to 503.
    pub delay: Duration,
    /// `SHUTDOWN_SECONDS`: how long requests in flight may take to finish.
    pub timeout: Duration,
}
