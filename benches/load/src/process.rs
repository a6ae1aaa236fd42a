//! The servers under test: started on free ports in a folder of their own, ended with their guard, and what
//! they cost as the kernel counts it.

use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::KEY;

/// How long a server may take to start, or to end.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(2);
/// `/proc` counts CPU time in hundredths of a second on every Linux machine.
const TICKS_PER_SECOND: f64 = 100.0;

pub type Result<T> = std::result::Result<T, String>;

/// A running server; killed when it is dropped.
pub struct Server {
    child: Child,
    log: PathBuf,
    pub address: String,
    /// The process of the database that it stores in, where that is on this machine.
    pub database: Option<u32>,
    /// Where it takes requests from other instances, if it does.
    pub peer_port: Option<u16>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn spawn(mut command: Command, log: PathBuf) -> Result<Server> {
        let output = File::create(&log).map_err(|e| e.to_string())?;
        let errors = output.try_clone().map_err(|e| e.to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|e| format!("{command:?}: {e}"))?;
        Ok(Server {
            child,
            log,
            address: String::new(),
            database: None,
            peer_port: None,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it the orderly way and waits for that.
    pub fn stop(mut self) -> Result<()> {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        sent.map_err(|e| e.to_string())?;
        let ended = wait_for(|| matches!(self.child.try_wait(), Ok(Some(_))));
        ended.then_some(()).ok_or("it did not stop".to_owned())
    }

    fn failed(&mut self, what: &str) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(8).collect();
        format!("{what}; the end of its log, newest first: {lines:#?}")
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

fn wait_for(mut done: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if done() {
            return true;
        }
        sleep(PAUSE);
    }
    false
}

/// Which store a server of ours uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Memory,
    Sqlite,
    Mysql,
}

impl Store {
    pub fn name(self) -> &'static str {
        match self {
            Store::Memory => "memory",
            Store::Sqlite => "SQLite",
            Store::Mysql => "MySQL",
        }
    }
}

/// What servers are started from.
#[derive(Clone)]
pub struct Bench {
    pub binary: PathBuf,
    pub folder: PathBuf,
    pub mysql: Option<Mysql>,
    /// The binary of an earlier version.
    pub earlier: Option<PathBuf>,
}

/// The database server that was started for us.
#[derive(Clone, Debug)]
pub struct Mysql {
    pub host: String,
    pub port: String,
    pub user: String,
    pub password: String,
}

impl Mysql {
    /// From `mysql://user:password@host:port`.
    pub fn parse(url: &str) -> Option<Mysql> {
        let rest = url.strip_prefix("mysql://")?;
        let (login, place) = rest.rsplit_once('@')?;
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let place = place.split('/').next()?;
        let (host, port) = place.split_once(':').unwrap_or((place, "3306"));
        Some(Mysql {
            host: host.to_owned(),
            port: port.to_owned(),
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    /// What the command-line client prints for these statements.
    pub fn query(&self, sql: &str) -> Result<String> {
        let mut tried = String::new();
        for client in ["mariadb", "mysql"] {
            let output = Command::new(client)
                .args(["--no-defaults", "--batch", "--skip-column-names"])
                .args(["--host", &self.host, "--port", &self.port])
                .args(["--protocol", "TCP", "--user", &self.user])
                .args(["--execute", sql])
                .env("MYSQL_PWD", &self.password)
                .output();
            match output {
                Ok(output) if output.status.success() => {
                    return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
                }
                Ok(output) => return Err(String::from_utf8_lossy(&output.stderr).into_owned()),
                Err(error) => tried = format!("{client}: {error}"),
            }
        }
        Err(tried)
    }

    /// Its process, where it runs on this machine.
    fn process(&self) -> Option<u32> {
        let file = self.query("SELECT @@pid_file").ok()?;
        fs::read_to_string(file.trim()).ok()?.trim().parse().ok()
    }
}

impl Bench {
    /// A server of ours that is ready. `place` names its database or file: the same place, the same data.
    pub fn start(&self, store: Store, place: &str) -> Result<Server> {
        self.start_instance(store, place, place)
    }

    /// Another one on the same database. `log`: the name of its log.
    pub fn start_beside(&self, place: &str, log: &str) -> Result<Server> {
        self.start_instance(Store::Mysql, place, log)
    }

    fn start_instance(&self, store: Store, place: &str, log: &str) -> Result<Server> {
        let mut command = Command::new(&self.binary);
        command
            .current_dir(&self.folder)
            .env_clear()
            .envs(std::env::var("BENCH_LOG").map(|level| ("RUST_LOG", level)))
            .envs([("CONFIG_FILE", "/dev/null"), ("HTTP_PORT", "0")])
            .envs([("HTTP_HOST", "127.0.0.1"), ("RESOURCE_WRITE", KEY)])
            .envs([("RESOURCE_READ", "bench-read")])
            .envs([("RESOURCE_READ_LOCK", "bench-read-lock")]);
        let mut peer_port = None;
        match store {
            Store::Memory => command.env("STORE", "memory"),
            Store::Sqlite => command
                .env("STORE", "sqlite")
                .env("SQLITE_PATH", self.folder.join(format!("{place}.db"))),
            Store::Mysql => {
                let mysql = self.mysql.as_ref().ok_or("there is no MySQL")?;
                let port = *peer_port.insert(free_port()?);
                command
                    .env("PEER_PORT", port.to_string())
                    .env("STORE", "mysql")
                    .envs([("MYSQL_HOST", &mysql.host), ("MYSQL_PORT", &mysql.port)])
                    .envs([("MYSQL_USER", &mysql.user)])
                    .envs([("MYSQL_PASSWORD", &mysql.password)])
                    .env("MYSQL_DATABASE", format!("bench_{place}"))
            }
        };
        let mut server = Server::spawn(command, self.folder.join(format!("{log}.log")))?;
        server.peer_port = peer_port;
        if let (Store::Mysql, Some(mysql)) = (store, &self.mysql) {
            server.database = mysql.process();
        }
        let ready = wait_for(|| {
            if server.address.is_empty() {
                let log = fs::read_to_string(&server.log).unwrap_or_default();
                server.address = listens_on(&log).unwrap_or_default();
            }
            is_ready(&server.address) || server.has_ended()
        });
        if ready && !server.has_ended() {
            return Ok(server);
        }
        Err(server.failed("the server did not become ready"))
    }

    /// The same of the earlier version. `None`: there is no such binary.
    pub fn start_earlier(&self, store: Store) -> Result<Option<Server>> {
        let start = |binary: &PathBuf| {
            let earlier = Bench {
                binary: binary.clone(),
                ..self.clone()
            };
            let place = match store {
                Store::Mysql => "earlier_mysql",
                Store::Memory | Store::Sqlite => "earlier",
            };
            earlier.start(store, place)
        };
        self.earlier.as_ref().map(start).transpose()
    }

    /// One member, its data beside that of the others, everything else as it comes.
    pub fn start_etcd(&self, binary: &Path) -> Result<Server> {
        let mut command = Command::new(binary);
        let (client, peer) = (free_port()?, free_port()?);
        let url = format!("http://127.0.0.1:{client}");
        let peer_url = format!("http://127.0.0.1:{peer}");
        command
            .arg("--data-dir")
            .arg(self.folder.join("etcd"))
            .args(["--listen-client-urls", &url])
            .args(["--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer_url])
            .args(["--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}")]);
        self.started(command, "etcd", client)
    }

    /// Every change is on disk before it is answered.
    pub fn start_redis(&self, binary: &Path) -> Result<Server> {
        let mut command = Command::new(binary);
        let port = free_port()?;
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .args(["--save", "", "--dir"])
            .arg(&self.folder);
        self.started(command, "redis", port)
    }

    fn started(&self, command: Command, name: &str, port: u16) -> Result<Server> {
        let mut server = Server::spawn(command, self.folder.join(format!("{name}.log")))?;
        server.address = format!("127.0.0.1:{port}");
        let address = server.address.clone();
        if wait_for(|| server.has_ended() || answers(name, &address)) && !server.has_ended() {
            return Ok(server);
        }
        Err(server.failed(&format!("{name} did not start")))
    }
}

fn listens_on(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("listens on http://")?;
    rest.split_once('\n')
        .map(|(line, _)| line.trim().to_owned())
}

/// One request over a connection of its own, and whether the answer starts like this.
fn probe(address: &str, request: &str, expected: &str) -> io::Result<bool> {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(request.as_bytes())?;
    let mut start = vec![0; expected.len()];
    stream.read_exact(&mut start)?;
    Ok(start == expected.as_bytes())
}

fn is_ready(address: &str) -> bool {
    let request = "GET /ready HTTP/1.1\r\nHost: bench\r\n\r\n";
    !address.is_empty() && probe(address, request, "HTTP/1.1 200").unwrap_or(false)
}

fn answers(peer: &str, address: &str) -> bool {
    let request = match peer {
        "redis" => ("PING\r\n", "+PONG"),
        _ => (
            "GET /health HTTP/1.1\r\nHost: bench\r\n\r\n",
            "HTTP/1.1 200",
        ),
    };
    probe(address, request.0, request.1).unwrap_or(false)
}

fn free_port() -> Result<u16> {
    let bound = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    bound
        .map(|address| address.port())
        .map_err(|e| e.to_string())
}

/// CPU seconds that a process has used, in user and kernel mode.
pub fn cpu_seconds(pid: u32) -> f64 {
    cpu_seconds_of(&fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default())
}

/// The same from the text of a `stat` file, of a process or a thread.
pub fn cpu_seconds_of(stat: &str) -> f64 {
    // The name in parentheses may hold anything; the fields after it are numbers.
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks = fields.split(' ').skip(11).take(2);
    ticks.filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}

/// Bytes of memory that a process has resident.
pub fn resident_bytes(pid: u32) -> u64 {
    status_bytes(pid, "VmRSS:")
}

/// The most bytes of memory that a process had resident at any time.
pub fn peak_bytes_of(pid: u32) -> u64 {
    status_bytes(pid, "VmHWM:")
}

fn status_bytes(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
