//! One connection to the server, with our session variables.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Row};

use super::error::{Fault, code};
use super::options::{Options, Tls};
use super::rows::{self, Sets};
use super::server::Server;
use super::settings::{self, set};
use super::sql::Sql;

pub(super) struct Session {
    conn: Conn,
    /// The server's `max_allowed_packet`, bytes.
    pub packet_bytes_max: usize,
    /// When the server last answered on it.
    pub used_at: Instant,
    /// The server that it leads to.
    pub server: Server,
    /// A sentence for each variable that it could not set.
    pub refused: Vec<String>,
}

impl Session {
    /// Connects to the database, which is created when absent.
    pub async fn connect_creating(options: &Options) -> Result<Session, Fault> {
        match Session::connect(options, None, None).await {
            Err(fault) if fault.is(code::UNKNOWN_DATABASE) => {
                let outside = Options {
                    database: String::new(),
                    ..options.clone()
                };
                let mut session = Session::connect(&outside, None, None).await?;
                let mut create = Sql::new("CREATE DATABASE IF NOT EXISTS ");
                create.identifier(&options.database);
                create.push(" CHARACTER SET utf8mb4");
                session.run(create.as_str()).await?;
                session.close().await;
                Session::connect(options, None, None).await
            }
            result => result,
        }
    }

    /// Connects to the database, on a server that agrees with `home`: tries the addresses of the host one after
    /// another, that of `home` first. `read_limit`: how long a statement may run in a session that only reads.
    ///
    /// # Errors
    /// [`Fault::Away`]: no address of the host leads to such a server, or it is read-only.
    pub async fn connect(
        options: &Options,
        home: Option<&Server>,
        read_limit: Option<Duration>,
    ) -> Result<Session, Fault> {
        let mut addresses = options.addresses().await?;
        addresses.sort_by_key(|address| home.is_none_or(|home| home.address != *address));
        // Each address twice: a load balancer may lead to the right one of its servers the second time.
        addresses.extend_from_within(..);
        Session::connect_to_one_of(options, &addresses, home, read_limit).await
    }

    async fn connect_to_one_of(
        options: &Options,
        addresses: &[SocketAddr],
        home: Option<&Server>,
        read_limit: Option<Duration>,
    ) -> Result<Session, Fault> {
        // An address that does not answer must leave time for the others, and the last one time to be named.
        let share = options.timeout.mul_f32(0.9)
            / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        let mut objection = Fault::Away(format!("the host {:?} has no address", options.host));
        for address in addresses {
            match within(share, Session::set_up(options, *address, read_limit)).await {
                Ok(session) => match session.server.objection(home) {
                    None => return Ok(session),
                    Some(text) => objection = Fault::Away(text),
                },
                Err(fault) if fault.is(code::UNKNOWN_DATABASE) => return Err(fault),
                Err(fault) => objection = fault.at(&options.place()),
            }
        }
        Err(objection)
    }

    async fn set_up(
        options: &Options,
        address: SocketAddr,
        read_limit: Option<Duration>,
    ) -> Result<Session, Fault> {
        let connected = Conn::new(options.driver(address)).await;
        let mut conn =
            connected.map_err(|error| Fault::of_connecting(error, options.tls != Tls::Off))?;
        let sets = run(&mut conn, settings::ask().as_str()).await?;
        let has = settings::variables(rows::all(sets.into_iter().flatten())?);
        let packet = has.get("max_allowed_packet").and_then(|v| v.parse().ok());
        let mut session = Session {
            conn,
            packet_bytes_max: packet
                .ok_or_else(|| Fault::Away("the server does not tell max_allowed_packet".into()))?,
            used_at: Instant::now(),
            server: Server::of(address, &has),
            refused: Vec::new(),
        };
        let seconds = options.timeout.as_secs().max(1);
        let changes = settings::changes(&has, seconds, read_limit);
        session.refused = apply(&mut session, &changes).await?;
        Ok(session)
    }

    /// Runs one or more statements. Ends with the first that fails; those before it have taken effect.
    pub async fn run(&mut self, sql: &str) -> Result<Sets, Fault> {
        let sets = run(&mut self.conn, sql).await?;
        self.used_at = Instant::now();
        Ok(sets)
    }

    /// Runs one statement, and returns its rows.
    pub async fn rows<T: FromRow>(&mut self, sql: &str) -> Result<Vec<T>, Fault> {
        rows::all(self.run(sql).await?.into_iter().flatten())
    }

    /// Runs one statement, and returns its only row.
    pub async fn row<T: FromRow>(&mut self, sql: &str) -> Result<T, Fault> {
        rows::last(self.run(sql).await?)
    }

    /// How many rows the last statement changed.
    pub fn changed_rows(&self) -> u64 {
        self.conn.affected_rows()
    }

    pub async fn ping(&mut self) -> Result<(), Fault> {
        self.conn.ping().await?;
        self.used_at = Instant::now();
        Ok(())
    }

    /// Closes the connection, after telling the server.
    pub async fn close(self) {
        if let Err(error) = self.conn.disconnect().await {
            log::debug!("while closing a connection to the database: {error}");
        }
    }
}

async fn run(conn: &mut Conn, sql: &str) -> Result<Sets, Fault> {
    let mut sets = Vec::new();
    let mut result = conn.query_iter(sql).await?;
    loop {
        sets.push(result.collect::<Row>().await?);
        if result.is_empty() {
            break;
        }
    }
    // The driver takes an error of a later statement for the end of the results; only this returns it.
    result.drop_result().await?;
    Ok(sets)
}

/// Does work that may take no longer than `limit`, whatever the server does.
///
/// # Errors
/// Those of `work`; [`Fault::Away`]: it took longer.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(Fault::Away(format!(
            "the database did not answer within {limit:?}"
        ))),
    }
}

/// Pause before repeating a transaction that failed because of another one's lock or a deadlock.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Awaits a future, made anew while other transactions block it. A macro, because the compiler cannot prove that
/// the future of an async closure is `Send`.
macro_rules! retry_while_blocked {
    ($work:expr) => {
        loop {
            match $work.await {
                Err(fault) if fault.is_passing() => {
                    tokio::time::sleep($crate::store::mysql::session::RETRY_PAUSE).await;
                }
                result => break result,
            }
        }
    };
}
pub(super) use retry_while_blocked;

/// Sets the variables that differ. Returns a sentence for each that the account may not set, which stays as it
/// is.
async fn apply(session: &mut Session, changes: &[(String, String)]) -> Result<Vec<String>, Fault> {
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    match session.run(set(changes).as_str()).await {
        Ok(_) => return Ok(Vec::new()),
        Err(fault @ Fault::Server { .. }) if fault.leaves_connection() => {}
        Err(fault) => return Err(fault),
    }
    let mut refused = Vec::new();
    for change in changes {
        match session
            .run(set(std::slice::from_ref(change)).as_str())
            .await
        {
            Ok(_) => {}
            Err(Fault::Server { code, text, .. }) if code != code::DEADLOCK => {
                let (name, value) = change;
                refused.push(format!(
                    "the database does not let this server set {name} to {value} for its sessions: {text}"
                ));
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_silent_leaves_time_for_the_next() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = [silent.local_addr().unwrap(), closed.local_addr().unwrap()];
        drop(closed);
        let options = Options {
            host: "db".into(),
            port: 3306,
            database: "d".into(),
            user: "u".into(),
            password: String::new(),
            pool_size: 1,
            tls: Tls::Off,
            timeout: Duration::from_secs(2),
            instance_lease: Duration::from_secs(4),
            adopt: None,
            peers: None,
        };
        let reached = Session::connect_to_one_of(&options, &addresses, None, None).await;
        let Err(Fault::Away(text)) = reached else {
            panic!("there is no server");
        };
        // The text is the second address's: the first would not have answered at all.
        assert!(text.contains("refused"), "{text}");
        assert!(text.starts_with("db:3306: "), "{text}");
    }
}
