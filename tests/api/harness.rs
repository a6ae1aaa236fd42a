//! Starts the server as the binary does, in this process, on a free port and a store of its own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use small_resource_server::app::App;
use small_resource_server::config::Settings;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::client::{Answer, Call, Connection, until};
use crate::database::Database;

pub const READ: &str = "key-to-read";
pub const LOCK: &str = "key-to-lock";
pub const WRITE: &str = "key-to-write";
pub const ADMIN: &str = "key-to-force";

/// A well-formed ticket that no server ever gave out.
pub const STRANGE_TICKET: &str = "0123456789abcdef0123456789abcdef";

/// How long resources that nobody uses stay in memory: every test sees some leave it.
const RETIREMENT: Duration = Duration::from_millis(200);

/// The stores that every test runs against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Store {
    Memory,
    Sqlite,
    Mysql,
}

/// Each function becomes one test per store.
macro_rules! api_tests {
    ($($(#[doc = $doc:literal])* fn $name:ident($store:ident) $body:block)*) => {
        $($(#[doc = $doc])* fn $name($store: crate::harness::Store) $body)*

        mod memory {
            $(#[test] fn $name() { super::$name(crate::harness::Store::Memory) })*
        }

        mod sqlite {
            $(#[test] fn $name() { super::$name(crate::harness::Store::Sqlite) })*
        }

        mod mysql {
            $(#[test] fn $name() {
                if !crate::database::Database::is_skipped() {
                    super::$name(crate::harness::Store::Mysql)
                }
            })*
        }
    };
}

/// As `api_tests`, for the stores that outlive the process.
macro_rules! durable_tests {
    ($($(#[doc = $doc:literal])* fn $name:ident($store:ident) $body:block)*) => {
        $($(#[doc = $doc])* fn $name($store: crate::harness::Store) $body)*

        mod sqlite {
            $(#[test] fn $name() { super::$name(crate::harness::Store::Sqlite) })*
        }

        mod mysql {
            $(#[test] fn $name() {
                if !crate::database::Database::is_skipped() {
                    super::$name(crate::harness::Store::Mysql)
                }
            })*
        }
    };
}

/// Where a server keeps its state; removed at the end.
enum Place {
    Memory,
    Folder(TempDir),
    Database(Database),
    /// Another server's.
    Shared,
}

impl Place {
    fn new(store: Store) -> Place {
        match store {
            Store::Memory => Place::Memory,
            Store::Mysql => Place::Database(Database::new().expect("no test of MySQL is left out")),
            Store::Sqlite => Place::Folder(TempDir::new().expect("a temporary folder")),
        }
    }

    fn settings(&self) -> Vec<(String, String)> {
        match self {
            Place::Memory | Place::Shared => pairs(&[("STORE", "memory")]),
            Place::Database(database) => {
                let options = database.options();
                pairs(&[
                    ("STORE", "mysql"),
                    ("MYSQL_HOST", &options.host),
                    ("MYSQL_PORT", &options.port.to_string()),
                    ("MYSQL_DATABASE", &options.database),
                    ("MYSQL_USER", &options.user),
                    ("MYSQL_PASSWORD", &options.password),
                    ("MYSQL_POOL_SIZE", "2"),
                    // A machine that stalls must not end it.
                    ("INSTANCE_LEASE_SECONDS", "30"),
                ])
            }
            Place::Folder(folder) => {
                let path = folder.path().join("resources.db");
                let path = path.to_str().expect("a path in UTF-8");
                pairs(&[("STORE", "sqlite"), ("SQLITE_PATH", path)])
            }
        }
    }
}

fn pairs(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

/// The settings of a test: those given win over these.
fn settings(place: &Place, given: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut all = pairs(&[
        ("HTTP_HOST", "127.0.0.1"),
        ("HTTP_PORT", "0"),
        ("HTTP_WORKERS", "1"),
        ("SHUTDOWN_SECONDS", "5"),
        ("STORE_TIMEOUT_SECONDS", "60"),
        // A machine that stalls for seconds must not change who is near.
        ("CLAIM_SECONDS", "600"),
        ("TICKET_TTL_SECONDS", "600"),
        ("RESOURCE_READ", READ),
        ("RESOURCE_READ_LOCK", LOCK),
        ("RESOURCE_WRITE", WRITE),
        ("RESOURCE_ADMIN", ADMIN),
    ]);
    all.extend(place.settings());
    // Of two values for one name the later one counts.
    all.extend(pairs(given));
    all
}

/// A running server. Dropped, it is stopped and everything it stored is removed.
pub struct Server {
    address: SocketAddr,
    running: Option<Running>,
    place: Place,
}

struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Server {
    pub fn start(store: Store) -> Server {
        Server::start_with(store, &[])
    }

    pub fn start_with(store: Store, given: &[(&str, &str)]) -> Server {
        let place = Place::new(store);
        let (address, running) = launch(settings(&place, given));
        let server = Server {
            address,
            running: Some(running),
            place,
        };
        if store == Store::Mysql {
            server.until_it_serves();
        }
        server
    }

    /// Stops, and starts again on the same store.
    pub fn restart_with(&mut self, given: &[(&str, &str)]) {
        self.stop();
        self.start_again(given);
    }

    /// On the same store, after `stop`.
    pub fn start_again(&mut self, given: &[(&str, &str)]) {
        let (address, running) = launch(settings(&self.place, given));
        self.address = address;
        self.running = Some(running);
        self.until_it_serves();
    }

    /// A database may be ours a moment after the server listens.
    pub fn until_it_serves(&self) {
        until("the server is ready", || {
            self.call("GET", "/ready").send().status == 200
        });
    }

    /// Another server on the same store.
    pub fn start_beside(&self) -> Server {
        let (address, running) = launch(settings(&self.place, &[]));
        Server {
            address,
            running: Some(running),
            place: Place::Shared,
        }
    }

    /// Stops, and goes on as the built program in a process of its own, which can be killed.
    pub fn restart_as_program(&mut self, given: &[(&str, &str)]) -> Program {
        self.stop();
        let program = Program::start(settings(&self.place, given));
        self.address = program.address;
        program
    }

    /// Asks the server to stop, without waiting until it has.
    pub fn begin_stop(&mut self) -> Option<JoinHandle<()>> {
        let running = self.running.take()?;
        let _ = running.stop.send(());
        Some(running.thread)
    }

    pub fn stop(&mut self) {
        let ended = self.begin_stop().map(JoinHandle::join);
        let panicked = matches!(ended, Some(Err(_)));
        assert!(!panicked || std::thread::panicking(), "the server panicked");
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn connect(&self) -> Connection {
        Connection::to(self.address)
    }

    // ---- a verb per route; `path` is `name/selector`, escaped as it is to be sent ---------------------

    /// Any request, with the key that may write.
    pub fn call(&self, method: &str, target: &str) -> Call {
        Call::new(self.address, method, target).key(WRITE)
    }

    pub fn create(&self, name: &str, timeout: u32) -> Call {
        let body = json!({"name": name, "timeout": timeout});
        self.call("POST", "/resource").body(body.to_string())
    }

    /// GET with lock intent, as it is the default.
    pub fn get(&self, path: &str) -> Call {
        self.call("GET", &format!("/resource/{path}"))
    }

    pub fn read(&self, path: &str) -> Call {
        self.get(path).query("lock=0")
    }

    pub fn put(&self, path: &str, data: &str) -> Call {
        self.call("PUT", &format!("/resource/{path}")).body(data)
    }

    pub fn lock(&self, path: &str) -> Call {
        self.call("PUT", &format!("/resource/{path}/lock"))
    }

    pub fn unlock(&self, path: &str, ticket: &str) -> Call {
        self.call("POST", &format!("/resource/{path}/unlock"))
            .ticket(ticket)
    }

    pub fn renew(&self, path: &str, ticket: &str) -> Call {
        self.call("PUT", &format!("/resource/{path}/renew"))
            .ticket(ticket)
    }

    pub fn delete(&self, path: &str) -> Call {
        self.call("DELETE", &format!("/resource/{path}"))
    }

    pub fn describe(&self, name: &str) -> Call {
        self.call("GET", &format!("/resource/{name}"))
    }

    pub fn force_unlock(&self, name: &str) -> Call {
        self.call("POST", &format!("/resource/{name}/force-unlock"))
            .key(ADMIN)
            .body(r#"{"reason":"the test says so"}"#)
    }

    // ---- what tests do all the time ---------------------------------------------------------------------

    /// A resource without a timeout, with `{"v":1}` at selector `s`.
    pub fn prepare(&self, name: &str) {
        self.create(name, 0).expect(201);
        self.put(&format!("{name}/s"), r#"{"v":1}"#).expect(204);
    }

    /// Takes the lock, which must be free; the ticket and the fencing token.
    pub fn hold(&self, path: &str) -> (String, u64) {
        let answer = self.lock(path).expect(200);
        assert_eq!(answer.json()["locked"], true, "{answer:?}");
        (answer.ticket(), answer.token())
    }

    /// Joins the queue without waiting; the lock must be taken.
    pub fn queue(&self, path: &str) -> String {
        let answer = self.lock(path).expect(200);
        assert_eq!(answer.json()["locked"], false, "{answer:?}");
        answer.ticket()
    }

    /// A request that waits for the lock; it is in the queue when this returns.
    pub fn wait(&self, path: &str) -> Connection {
        let name = path.split('/').next().unwrap();
        let before = self.waiting(name);
        let waiter = self.lock(path).query("wait=60").open();
        until("the waiter queues", || self.waiting(name) > before);
        waiter
    }

    pub fn described(&self, name: &str) -> Value {
        self.describe(name).expect(200).json()
    }

    pub fn waiting(&self, name: &str) -> u64 {
        self.described(name)["waiting"].as_u64().unwrap()
    }

    pub fn is_locked(&self, name: &str) -> bool {
        self.described(name)["locked"].as_bool().unwrap()
    }

    /// When the lease expires that holds now.
    pub fn expires_at(&self, name: &str) -> SystemTime {
        time(&self.described(name)["holder"]["expiresAt"])
    }

    /// The data at a selector, as text.
    pub fn data(&self, path: &str) -> String {
        let answer = self.read(path).expect(200);
        answer.json()["data"].as_str().unwrap().to_owned()
    }

    /// The names of all resources.
    pub fn names(&self) -> Vec<String> {
        let listing = self.call("GET", "/resource").expect(200).json();
        let resources = listing["resources"].as_array().unwrap();
        let name = |resource: &Value| resource["name"].as_str().unwrap().to_owned();
        resources.iter().map(name).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The built program, on a port that was free a moment ago. Dropped, it is killed.
pub struct Program {
    address: SocketAddr,
    child: Child,
}

impl Program {
    fn start(settings: Vec<(String, String)>) -> Program {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = port.expect("a free port");
        let folder = TempDir::new().expect("a temporary folder");
        let child = Command::new(env!("CARGO_BIN_EXE_small-resource-server"))
            .env_clear()
            .envs(settings)
            .env("HTTP_PORT", address.port().to_string())
            .env("RUST_LOG", "warn")
            .current_dir(folder.path())
            .spawn()
            .expect("the program starts");
        let program = Program { address, child };
        until("the program serves", || {
            let connected = TcpStream::connect(address).is_ok();
            connected && Call::new(address, "GET", "/ready").send().status == 200
        });
        program
    }

    /// As `kill -9`: it has no time for anything.
    pub fn kill(mut self) {
        self.child.kill().expect("a running program");
        self.child.wait().expect("an end");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(pairs: Vec<(String, String)>) -> (SocketAddr, Running) {
    let settings = Settings::from_pairs(pairs, None).expect("settings");
    let (started, address) = mpsc::channel();
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        actix_rt::System::new().block_on(async move {
            let app = App::build_retiring(settings, RETIREMENT).await;
            let app = app.expect("the server starts");
            started.send(app.address()).unwrap();
            let stopped = async {
                let _ = stopped.await;
                "the end of the test"
            };
            app.run_until(stopped).await.expect("an orderly end");
        });
    });
    let address = address.recv().expect("the server started");
    (address, Running { stop, thread })
}

/// A time as the server writes it.
pub fn time(value: &Value) -> SystemTime {
    humantime::parse_rfc3339(value.as_str().expect("a time")).expect("a time")
}

/// Two times that the server works out for one moment are less than this apart; those that a test waits
/// for are more.
pub const CLEARLY: Duration = Duration::from_millis(50);

/// A holder's answer to lock: the parts that both places carry agree.
pub fn check_granted(answer: &Answer) {
    let body = answer.json();
    assert_eq!(body["locked"], true, "{answer:?}");
    assert_eq!(body["ticket"], answer.ticket());
    assert_eq!(body["fencingToken"], answer.token());
}
