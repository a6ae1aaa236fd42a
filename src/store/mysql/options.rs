//! How to reach the server, and how each connection is set up.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use mysql_async::{Opts, OptsBuilder, SslOpts};

use tokio::net::{UdpSocket, lookup_host};

use super::error::Fault;
use super::settings::WAIT_TIMEOUT_SECONDS;
use crate::lock::Profile;

/// Where the database is, and the limits and times of this instance.
#[derive(Clone)]
pub struct Options {
    pub host: String,
    pub port: u16,
    /// Name of the database, which is created when absent.
    pub database: String,
    pub user: String,
    pub password: String,
    /// How many connections read at once. Writing, heartbeats and opening have one each in addition.
    pub pool_size: usize,
    pub tls: Tls,
    /// The longest that any call may take, migrations excepted.
    pub timeout: Duration,
    /// How long an instance may be without a heartbeat before another one takes over.
    pub instance_lease: Duration,
    /// The profile that the operator set. `None`: adopting the PHP server's database records [`Profile::Php`].
    pub adopt: Option<Profile>,
    /// Where this instance takes requests from other instances; `None`: it takes none.
    pub peers: Option<PeerPort>,
}

/// Where an instance takes requests from other instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerPort {
    /// Host name or address; `None`: the local address of the connection to the database.
    pub host: Option<String>,
    pub port: u16,
    pub is_tls: bool,
}

/// Encryption of the connections to the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    #[default]
    Off,
    /// Encrypted; the server's certificate is not checked.
    Required,
    /// Encrypted, and the server's certificate must be signed by an authority of this PEM file, or by a public
    /// one when there is no file.
    Verified {
        ca_file: Option<PathBuf>,
        /// The certificate must also be for the host.
        host: bool,
    },
}

/// Prefix of an address at which TLS is spoken.
pub(super) const TLS_SCHEME: &str = "tls://";

/// The driver's own packet limit, bytes: as large as any packet may be, because the server's
/// `max_allowed_packet` is what is checked.
const PACKET_BYTES_MAX: usize = 1 << 30;

impl Options {
    /// The address that other instances are told: host and port, after [`TLS_SCHEME`] if TLS is spoken there.
    ///
    /// # Errors
    /// [`Fault::Away`]: the local address is not known.
    pub(super) async fn peer_address(&self) -> Result<Option<String>, Fault> {
        let Some(peers) = &self.peers else {
            return Ok(None);
        };
        let host = match &peers.host {
            Some(host) => host.clone(),
            None => self.local_address().await?.to_string(),
        };
        let scheme = if peers.is_tls { TLS_SCHEME } else { "" };
        let place = host_and_port(&host, peers.port);
        Ok(Some(format!("{scheme}{place}")))
    }

    /// The local address from which this machine reaches the database. Nothing is sent: connecting a UDP socket
    /// only picks a route.
    async fn local_address(&self) -> Result<IpAddr, Fault> {
        let away = |error: std::io::Error| Fault::Away(format!("no way to {}: {error}", self.host));
        let found = self.addresses().await?.into_iter().next();
        let to = found.ok_or_else(|| Fault::Away(format!("{} has no address", self.host)))?;
        let from: SocketAddr = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(from).await.map_err(away)?;
        socket.connect(to).await.map_err(away)?;
        Ok(socket.local_addr().map_err(away)?.ip())
    }

    /// All addresses that the host's name leads to now.
    pub(super) async fn addresses(&self) -> Result<Vec<SocketAddr>, Fault> {
        let host = &self.host;
        let found = lookup_host((host.as_str(), self.port)).await;
        let found =
            found.map_err(|e| Fault::Away(format!("the host {host:?} is not found: {e}")))?;
        Ok(found.collect())
    }

    /// `MYSQL_HOST:MYSQL_PORT`, for messages. Without the address that the name led to: a message that names another
    /// one at each attempt would be logged at each.
    pub(super) fn place(&self) -> String {
        host_and_port(&self.host, self.port)
    }

    /// The driver's options for a connection to this address; without a database if its name is empty.
    pub(super) fn driver(&self, address: SocketAddr) -> Opts {
        let database = Some(&self.database).filter(|name| !name.is_empty());
        let ssl = match &self.tls {
            Tls::Off => None,
            Tls::Required => Some(
                SslOpts::default()
                    .with_danger_accept_invalid_certs(true)
                    .with_danger_skip_domain_validation(true),
            ),
            Tls::Verified { ca_file, host } => {
                let roots = ca_file.iter().map(|file| file.clone().into()).collect();
                Some(
                    SslOpts::default()
                        .with_root_certs(roots)
                        .with_disable_built_in_roots(ca_file.is_some())
                        .with_danger_tls_hostname_override(Some(self.host.clone()))
                        .with_danger_skip_domain_validation(!host),
                )
            }
        };
        OptsBuilder::default()
            .ip_or_hostname(address.ip().to_string())
            .tcp_port(address.port())
            .user(Some(&self.user))
            .pass(Some(&self.password))
            .db_name(database)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(10)))
            // A socket path that the server reports may belong to another machine, or bypass TLS.
            .prefer_socket(false)
            .max_allowed_packet(Some(PACKET_BYTES_MAX))
            .wait_timeout(Some(WAIT_TIMEOUT_SECONDS))
            .stmt_cache_size(0)
            .ssl_opts(ssl)
            .into()
    }

    pub(super) fn lease_ms(&self) -> u64 {
        u64::try_from(self.instance_lease.as_millis()).unwrap_or(u64::MAX)
    }
}

fn host_and_port(host: &str, port: u16) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(host) => format!("[{host}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    }
}

impl fmt::Debug for Options {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("database", &self.database)
            .field("user", &self.user)
            .field("pool_size", &self.pool_size)
            .field("tls", &self.tls)
            .field("timeout", &self.timeout)
            .field("instance_lease", &self.instance_lease)
            .field("adopt", &self.adopt)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}
