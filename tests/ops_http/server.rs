//! The built server as a process of its own, and a client that speaks bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longer than anything here takes on a machine that works.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const READ: &str = "key-that-reads";
pub const LOCK: &str = "key-that-locks";
pub const WRITE: &str = "key-that-writes";

#[derive(Default)]
struct Log {
    text: Mutex<String>,
    grown: Condvar,
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    log: Arc<Log>,
    pub port: u16,
    pub folder: Arc<TempDir>,
}

/// A server to be started.
pub struct Setup {
    folder: Arc<TempDir>,
    variables: Vec<(String, String)>,
}

impl Setup {
    /// Any free port of 127.0.0.1, the memory store, three keys in a configuration file.
    pub fn new() -> Setup {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let setup = Setup {
            folder,
            variables: Vec::new(),
        };
        setup
            .conf(&format!(
                "RESOURCE_READ={READ}\nRESOURCE_READ_LOCK={LOCK}\nRESOURCE_WRITE={WRITE}\n"
            ))
            .with("HTTP_HOST", "127.0.0.1")
            .with("HTTP_PORT", "0")
            .with("HTTP_WORKERS", "2")
            .with("STORE", "memory")
    }

    /// The same folder, so the same database, as another server's.
    pub fn beside(server: &Server) -> Setup {
        Setup {
            folder: server.folder.clone(),
            ..Setup::new()
        }
    }

    pub fn with(mut self, name: &str, value: &str) -> Setup {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn sqlite(self) -> Setup {
        let path = self.folder.path().join("resources.db");
        let path = path.to_str().unwrap().to_owned();
        self.with("STORE", "sqlite").with("SQLITE_PATH", &path)
    }

    pub fn tls(self) -> Setup {
        let (cert, key) = (data("cert.pem"), data("key.pem"));
        self.with("TLS_CERT_FILE", cert.to_str().unwrap())
            .with("TLS_KEY_FILE", key.to_str().unwrap())
    }

    pub fn conf(self, text: &str) -> Setup {
        std::fs::write(self.folder.path().join("server.conf"), text).unwrap();
        self
    }

    pub fn conf_path(&self) -> PathBuf {
        self.folder.path().join("server.conf")
    }

    pub fn start(self) -> Server {
        let conf = self.conf_path();
        let mut child = Command::new(env!("CARGO_BIN_EXE_small-resource-server"))
            .env_clear()
            .env("CONFIG_FILE", &conf)
            .envs(self.variables)
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().unwrap();
        let lines = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut text = lines.text.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
                lines.grown.notify_all();
            }
        });
        let mut server = Server {
            child,
            log,
            port: 0,
            folder: self.folder,
        };
        server.wait_for_log("listens on");
        server.port = server.port_in_log();
        eventually("the server is ready", || {
            let mut probe = TcpStream::connect(server.address()).ok()?;
            probe.set_read_timeout(Some(PATIENCE)).ok()?;
            // Plain text at a TLS port is answered with an alert: it serves.
            probe.write_all(b"GET /ready HTTP/1.0\r\n\r\n").ok()?;
            let mut answer = Vec::new();
            let _ = probe.read_to_end(&mut answer);
            let ready = answer.starts_with(b"HTTP/1.") && answer[9..].starts_with(b"200");
            (ready || answer.first() == Some(&0x15)).then_some(())
        });
        server
    }
}

pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/tls")
        .join(name)
}

/// Polls until it is so.
#[track_caller]
pub fn eventually<T>(what: &str, mut so: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = so() {
            return value;
        }
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Server {
    pub fn start() -> Server {
        Setup::new().start()
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    fn port_in_log(&self) -> u16 {
        let log = self.log();
        let at = log.find("listens on").unwrap();
        let line = log[at..].lines().next().unwrap();
        line.rsplit(':').next().unwrap().trim().parse().unwrap()
    }

    pub fn log(&self) -> String {
        self.log.text.lock().unwrap().clone()
    }

    /// Waits until the log contains this.
    #[track_caller]
    pub fn wait_for_log(&self, wanted: &str) {
        let text = self.log.text.lock().unwrap();
        let (text, waited) = self
            .log
            .grown
            .wait_timeout_while(text, PATIENCE, |text| !text.contains(wanted))
            .unwrap();
        assert!(!waited.timed_out(), "no {wanted:?} in the log:\n{text}");
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }

    #[track_caller]
    pub fn wait_for_end(&mut self) -> ExitStatus {
        eventually("the server ends", || self.child.try_wait().unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What its process has used since it was started.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // After the name, which may have anything in it, the 12th and 13th are user and system time.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks = fields.split(' ').skip(11).take(2);
        let ticks: f64 = ticks.map(|field| field.parse::<f64>().unwrap()).sum();
        ticks / rustix::param::clock_ticks_per_second() as f64
    }

    pub fn connect(&self) -> Client<TcpStream> {
        Client::new(connect(self.address()).unwrap())
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.connect().ask(method, path, headers, body)
    }

    pub fn create(&self, name: &str) {
        let body = format!("{{\"name\":\"{name}\"}}");
        let answer = self.ask("POST", "/resource", &[("x-api-key", WRITE)], &body);
        assert_eq!(answer.status, 201, "{answer:?}");
    }

    /// Takes the lock and returns the ticket.
    #[track_caller]
    pub fn lock(&self, name: &str) -> String {
        let path = format!("/resource/{name}/main/lock");
        let answer = self.ask("PUT", &path, &[("x-api-key", LOCK)], "");
        assert_eq!(answer.json()["locked"], true, "{answer:?}");
        answer.header("X-Ticket").unwrap().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}

/// Ends the other threads of a test, also when an assertion fails in this one.
pub struct StopWhenDropped<'a>(pub &'a AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One connection.
pub struct Client<S> {
    pub stream: S,
    unread: Vec<u8>,
}

/// An answer, as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header whose name is written exactly so.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (n, value) = line.split_once(": ")?;
            (n == name).then_some(value)
        })
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or("").to_owned()
    }

    /// An error as the contract has it: JSON, and header names in title case.
    #[track_caller]
    pub fn assert_error(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, self.code().as_str()),
            (status, code),
            "{self:?}"
        );
        assert_eq!(
            self.header("Content-Type"),
            Some("application/json"),
            "{self:?}"
        );
        assert!(
            self.json()["error"].as_str().unwrap().len() > 10,
            "{self:?}"
        );
        for line in self.head.lines().skip(1) {
            let first = line.chars().next().unwrap();
            assert!(first.is_ascii_uppercase(), "{line:?} in {self:?}");
        }
    }
}

impl<S: Read + Write> Client<S> {
    pub fn new(stream: S) -> Client<S> {
        Client {
            stream,
            unread: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self.stream.flush().unwrap();
    }

    #[track_caller]
    pub fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        self.send(request(method, path, headers, body));
        self.answer().unwrap()
    }

    /// The next answer.
    pub fn answer(&mut self) -> io::Result<Answer> {
        self.answer_to(false)
    }

    pub fn answer_to(&mut self, is_head: bool) -> io::Result<Answer> {
        let head = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                let rest = self.unread.split_off(at + 4);
                let head = std::mem::replace(&mut self.unread, rest);
                break String::from_utf8(head[..at].to_vec()).unwrap();
            }
            self.read_some()?;
        };
        let status = head[9..12].parse().unwrap();
        let length = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, length)| length.parse().unwrap());
        let length = if is_head { 0 } else { length };
        while self.unread.len() < length {
            self.read_some()?;
        }
        let rest = self.unread.split_off(length);
        let body = std::mem::replace(&mut self.unread, rest);
        Ok(Answer { status, head, body })
    }

    fn read_some(&mut self) -> io::Result<()> {
        let mut space = [0; 16_384];
        let n = self.stream.read(&mut space)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.unread.extend_from_slice(&space[..n]);
        Ok(())
    }

    /// Whether a part of an answer has come.
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Everything that comes until the server closes the connection.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = std::mem::take(&mut self.unread);
        self.stream.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// The server closes the connection, in order, without another word.
    #[track_caller]
    pub fn assert_closed(&mut self) {
        let rest = self.rest().unwrap();
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    (text + "\r\n" + body).into_bytes()
}

pub fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|part| part == wanted)
}

/// Writes a file in one step, as a tool that renews certificates or keys does.
pub fn replace_file(path: &Path, text: impl AsRef<[u8]>) {
    let beside = path.with_extension("new");
    File::create(&beside)
        .unwrap()
        .write_all(text.as_ref())
        .unwrap();
    std::fs::rename(&beside, path).unwrap();
}
