//! A real server for the tests, a database for each, and a proxy that holds bytes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Row};
use small_resource_server::store::mysql::{MysqlStore, Options, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Long enough for any machine; only what never comes is waited for so long.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A database of its own on the server that `TEST_MYSQL_URL` leads to; dropped with this.
pub struct Database {
    pub name: String,
    opts: Opts,
}

impl Database {
    /// A name that nothing exists under yet. `None`: the tests of this store are skipped, because
    /// `TEST_MYSQL_SKIP` says so.
    pub fn new() -> Option<Database> {
        if std::env::var_os("TEST_MYSQL_SKIP").is_some() {
            eprintln!("skipped: TEST_MYSQL_SKIP is set");
            return None;
        }
        let url = std::env::var("TEST_MYSQL_URL").expect(
            "TEST_MYSQL_URL is not set: run the tests with `scripts/with-mariadb cargo test`, \
             or set TEST_MYSQL_SKIP=1 to leave out what needs MySQL",
        );
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let opts = Opts::from_url(&url).expect("TEST_MYSQL_URL is mysql://user:password@host:port");
        let opts = OptsBuilder::from_opts(opts).prefer_socket(false).into();
        Some(Database { name, opts })
    }

    pub fn options(&self) -> Options {
        Options {
            host: self.opts.ip_or_hostname().to_owned(),
            port: self.opts.tcp_port(),
            database: self.name.clone(),
            user: self.opts.user().unwrap_or_default().to_owned(),
            password: self.opts.pass().unwrap_or_default().to_owned(),
            pool_size: 2,
            tls: Tls::Off,
            timeout: Duration::from_secs(20),
            instance_lease: Duration::from_millis(400),
            adopt: None,
        }
    }

    pub fn store(&self) -> MysqlStore {
        MysqlStore::new(self.options())
    }

    /// A connection of an administrator; in the database if it exists.
    pub async fn admin(&self) -> Conn {
        let mut conn = Conn::new(self.opts.clone()).await.unwrap();
        conn.query_drop("SET NAMES utf8mb4").await.unwrap();
        let _may_not_exist = conn.query_drop(format!("USE {}", self.name)).await;
        conn
    }

    pub async fn run(&self, sql: &str) {
        self.admin().await.query_drop(sql).await.unwrap();
    }

    /// The first column of every row, as text.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let rows: Vec<Row> = self.admin().await.query(sql).await.unwrap();
        rows.into_iter()
            .map(|row| mysql_async::from_row::<(String,)>(row).0)
            .collect()
    }

    pub async fn number(&self, sql: &str) -> u64 {
        let number: Option<u64> = self.admin().await.query_first(sql).await.unwrap();
        number.expect("a row")
    }

    /// Ends every connection to this database.
    pub async fn kill_all(&self) {
        let sql = format!(
            "SELECT CAST(id AS CHAR) FROM information_schema.processlist \
             WHERE db = '{}' AND id <> CONNECTION_ID()",
            self.name
        );
        let mut admin = self.admin().await;
        let ids: Vec<String> = admin.query(sql).await.unwrap();
        assert!(!ids.is_empty());
        for id in ids {
            let _may_be_gone = admin.query_drop(format!("KILL CONNECTION {id}")).await;
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (opts, name) = (self.opts.clone(), self.name.clone());
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let mut conn = Conn::new(opts).await.map_err(std::io::Error::other)?;
                conn.query_drop("SET lock_wait_timeout = 5").await.ok();
                let drop = format!("DROP DATABASE IF EXISTS {name}");
                conn.query_drop(drop).await.map_err(std::io::Error::other)
            })
        });
        if let Ok(Err(error)) = dropping.join() {
            eprintln!("{} stays: {error}", self.name);
        }
    }
}

/// Stands between a store and its server, and holds bytes back when told to. What is held is forwarded
/// later, even when the client has given up: as a network may.
pub struct Proxy {
    address: SocketAddr,
    control: Arc<Control>,
}

struct Control {
    requests_held: watch::Sender<bool>,
    answers_held: watch::Sender<bool>,
    /// New connections are not held, whatever the switches say.
    new_ones_pass: AtomicBool,
    /// Bytes of requests that are let through before they are held.
    allowance: AtomicUsize,
    /// Bytes of requests that are being held back right now.
    held: watch::Sender<usize>,
    /// Bytes of answers that came from the server while they could not be told any more, or were held;
    /// and connections that the server closed.
    unheard: watch::Sender<usize>,
}

impl Proxy {
    pub async fn start(database: &Database) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let control = Arc::new(Control {
            requests_held: watch::Sender::new(false),
            answers_held: watch::Sender::new(false),
            new_ones_pass: AtomicBool::new(false),
            allowance: AtomicUsize::new(0),
            held: watch::Sender::new(0),
            unheard: watch::Sender::new(0),
        });
        let options = database.options();
        let upstream = (options.host, options.port);
        let shared = control.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&upstream).await else {
                    continue;
                };
                let passes = shared.new_ones_pass.load(Ordering::SeqCst);
                let (client_in, client_out) = client.into_split();
                let (server_in, server_out) = server.into_split();
                tokio::spawn(requests(shared.clone(), passes, client_in, server_out));
                tokio::spawn(answers(shared.clone(), passes, server_in, client_out));
            }
        });
        Proxy { address, control }
    }

    /// The store reaches its server through this.
    pub fn between(&self, options: Options) -> Options {
        Options {
            host: "127.0.0.1".into(),
            port: self.address.port(),
            ..options
        }
    }

    pub fn hold_requests(&self, hold: bool) {
        self.control.requests_held.send_replace(hold);
    }

    /// Holds requests as soon as this many more bytes went through.
    pub fn hold_requests_after(&self, bytes: usize) {
        self.control.allowance.store(bytes, Ordering::SeqCst);
        self.hold_requests(true);
    }

    pub fn hold_answers(&self, hold: bool) {
        self.control.answers_held.send_replace(hold);
    }

    pub fn let_new_connections_pass(&self) {
        self.control.new_ones_pass.store(true, Ordering::SeqCst);
    }

    /// Until a request of the store is stuck here.
    pub async fn request_is_held(&self) {
        until(self.control.held.subscribe()).await;
    }

    /// Until the server answered something that the store did not get, or closed a connection.
    pub async fn answer_is_unheard(&self) {
        until(self.control.unheard.subscribe()).await;
    }
}

async fn until(mut count: watch::Receiver<usize>) {
    let reached = count.wait_for(|bytes| *bytes > 0);
    let waited = tokio::time::timeout(DEADLINE, reached).await;
    assert!(waited.expect("nothing came through the proxy").is_ok());
}

async fn released(held: &watch::Sender<bool>) {
    let mut held = held.subscribe();
    let _sender_lives = held.wait_for(|held| !held).await;
}

async fn requests(
    control: Arc<Control>,
    passes: bool,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if *control.requests_held.borrow() && !passes {
            let spend = |left: usize| left.checked_sub(count);
            let (success, failure) = (Ordering::SeqCst, Ordering::SeqCst);
            let allowance = &control.allowance;
            if allowance.fetch_update(success, failure, spend).is_err() {
                allowance.store(0, Ordering::SeqCst);
                control.held.send_modify(|bytes| *bytes += count);
                released(&control.requests_held).await;
            }
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn answers(
    control: Arc<Control>,
    passes: bool,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if *control.answers_held.borrow() && !passes {
            control.unheard.send_modify(|bytes| *bytes += count);
            released(&control.answers_held).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            control.unheard.send_modify(|bytes| *bytes += count);
        }
    }
    control.unheard.send_modify(|bytes| *bytes += 1);
}
