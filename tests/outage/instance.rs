//! One process of the server.

use std::fs::DirEntry;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use small_resource_server::store::mysql::Options;

use crate::support::{Answer, Call, DEADLINE, until};

const BINARY: &str = env!("CARGO_BIN_EXE_small-resource-server");
pub const WRITE: &str = "key-to-write";

/// `INSTANCE_LEASE_SECONDS` of the tests: room for a busy machine to be late with a heartbeat.
pub const LEASE: Duration = Duration::from_secs(3);
/// `STORE_TIMEOUT_SECONDS` of the tests.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// An answer that takes longer is not bounded by any of the two, whatever else the machine does.
pub const BOUND: Duration = Duration::from_secs(20);

/// Its log so far, and whether it has ended.
#[derive(Default)]
struct Log {
    lines: Vec<String>,
    ended: bool,
}

#[derive(Default)]
struct SharedLog {
    log: Mutex<Log>,
    grew: Condvar,
}

/// A running server. Killed when dropped.
pub struct Instance {
    child: Child,
    log: Arc<SharedLog>,
    address: SocketAddr,
}

/// The settings that make the binary use this database.
pub fn environment(options: &Options) -> Vec<(&'static str, String)> {
    vec![
        ("HTTP_HOST", "127.0.0.1".into()),
        ("HTTP_PORT", "0".into()),
        ("HTTP_WORKERS", "1".into()),
        ("SHUTDOWN_SECONDS", "5".into()),
        ("RESOURCE_READ", "key-to-read".into()),
        ("RESOURCE_READ_LOCK", "key-to-lock".into()),
        ("RESOURCE_WRITE", WRITE.into()),
        ("STORE", "mysql".into()),
        ("MYSQL_HOST", options.host.clone()),
        ("MYSQL_PORT", options.port.to_string()),
        ("MYSQL_DATABASE", options.database.clone()),
        ("MYSQL_USER", options.user.clone()),
        ("MYSQL_PASSWORD", options.password.clone()),
        ("STORE_TIMEOUT_SECONDS", STORE_TIMEOUT.as_secs().to_string()),
        ("INSTANCE_LEASE_SECONDS", LEASE.as_secs().to_string()),
        ("TICKET_TTL_SECONDS", "3000".into()),
        ("CLAIM_SECONDS", "3000".into()),
        ("CONFIG_FILE", "/dev/null".into()),
    ]
}

fn command(options: &Options, given: &[(&str, &str)]) -> Command {
    let mut command = Command::new(BINARY);
    command.env_clear().stdin(Stdio::null());
    command
        .envs(environment(options))
        .envs(given.iter().copied());
    command
}

/// The library beneath the command `faketime`, which itself leaves its child behind when it is killed.
fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?;
    let library = |entry: DirEntry| entry.path().join("faketime/libfaketimeMT.so.1");
    folders
        .filter_map(Result::ok)
        .map(library)
        .find(|file| file.exists())
}

/// Runs the binary to its end.
pub fn run(options: &Options, arguments: &[&str]) -> Output {
    let mut command = command(options, &[]);
    command.args(arguments).output().unwrap()
}

impl Instance {
    pub fn start(options: &Options) -> Instance {
        Instance::start_with(options, &[])
    }

    pub fn start_with(options: &Options, given: &[(&str, &str)]) -> Instance {
        Instance::launch(command(options, given))
    }

    /// Under another wall clock; `offset` as `faketime` takes it. `None`: there is no `faketime` here.
    pub fn start_at(options: &Options, offset: &str) -> Option<Instance> {
        let Some(library) = faketime() else {
            eprintln!("skipped: the package faketime is not installed");
            return None;
        };
        let clocks = [
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME", offset),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        let instance = Instance::launch(command(options, &clocks));
        let first = instance.log().swap_remove(0);
        let today = humantime::format_rfc3339(std::time::SystemTime::now()).to_string();
        assert!(
            !first.contains(&today[..10]),
            "the clock is not another one: {first}"
        );
        Some(instance)
    }

    fn launch(mut command: Command) -> Instance {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(SharedLog::default());
        let shared = log.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                shared.with(|log| log.lines.push(line));
            }
            shared.with(|log| log.ended = true);
        });
        let mut instance = Instance {
            child,
            log,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        };
        let line = instance.logged("listens on http://");
        let (_, address) = line.split_once("http://").unwrap();
        instance.address = address.trim().parse().unwrap();
        instance
    }

    // ---- the process ---------------------------------------------------------------------------------------

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn wake(&self) {
        self.signal(Signal::CONT);
    }

    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub fn end(mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < DEADLINE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Processor time used so far.
    pub fn processor_time(&self) -> Duration {
        let stat = self.proc("stat");
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = fields.split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        // Linux counts in hundredths of a second here, whatever its own ticks are.
        Duration::from_millis(ticks * 10)
    }

    /// Memory in use, in bytes.
    pub fn memory(&self) -> u64 {
        let status = self.proc("status");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let kilobytes = line.split_whitespace().nth(1).unwrap();
        kilobytes.parse::<u64>().unwrap() * 1024
    }

    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.child.id());
        std::fs::read_to_string(path).unwrap()
    }

    // ---- its log --------------------------------------------------------------------------------------------

    pub fn log(&self) -> Vec<String> {
        self.log.with(|log| log.lines.clone())
    }

    /// The first line with this text, as soon as there is one.
    pub fn logged(&self, text: &str) -> String {
        let start = Instant::now();
        let mut log = self.log.lock();
        loop {
            if let Some(line) = log.lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = DEADLINE.saturating_sub(start.elapsed());
            let hopeless = log.ended || left.is_zero();
            assert!(!hopeless, "never logged: {text}\n{}", log.lines.join("\n"));
            let waited = self.log.grew.wait_timeout(log, left);
            log = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    // ---- requests ------------------------------------------------------------------------------------------

    pub fn call(&self, method: &str, target: &str) -> Call {
        Call::new(self.address, method, target).key(WRITE)
    }

    pub fn create(&self, name: &str, timeout: u32) -> Call {
        let body = json!({"name": name, "timeout": timeout});
        self.call("POST", "/resource").body(body.to_string())
    }

    pub fn read(&self, path: &str) -> Call {
        self.call("GET", &format!("/resource/{path}?lock=0"))
    }

    pub fn put(&self, path: &str, data: &str) -> Call {
        self.call("PUT", &format!("/resource/{path}")).body(data)
    }

    pub fn lock(&self, path: &str) -> Call {
        self.call("PUT", &format!("/resource/{path}/lock"))
    }

    pub fn unlock(&self, path: &str, ticket: &str) -> Call {
        self.call("PUT", &format!("/resource/{path}/unlock"))
            .ticket(ticket)
    }

    pub fn renew(&self, path: &str, ticket: &str) -> Call {
        self.call("PUT", &format!("/resource/{path}/renew"))
            .ticket(ticket)
    }

    pub fn describe(&self, name: &str) -> Call {
        self.call("GET", &format!("/resource/{name}"))
    }

    /// What the gate says: 200, or 503 with the reason.
    pub fn ready(&self) -> Answer {
        self.call("GET", "/ready").no_key().send()
    }

    pub fn is_ready(&self) -> bool {
        self.ready().status == 200
    }

    pub fn becomes_ready(&self) {
        until("the instance is ready", || self.is_ready());
    }

    pub fn becomes_standby(&self) {
        until("the instance stands by", || {
            let answer = self.ready();
            answer.status == 503 && answer.code() == "standby"
        });
    }

    /// Serves its database, having been asked in turn until it does.
    pub fn serving(options: &Options) -> Instance {
        let instance = Instance::start(options);
        instance.becomes_ready();
        instance
    }

    // ---- what tests do all the time ----------------------------------------------------------------------

    pub fn prepare(&self, name: &str) {
        self.prepare_encoded(name, name);
    }

    /// `encoded`: the name as it stands in a path.
    pub fn prepare_encoded(&self, name: &str, encoded: &str) {
        settled(&self.create(name, 0));
        assert_eq!(
            settled(&self.put(&format!("{encoded}/s"), r#"{"v":1}"#)).status,
            204
        );
    }

    /// The ticket and the fencing token of a grant, made under an idempotency key.
    pub fn hold(&self, path: &str, body: &str) -> (String, u64) {
        let key = uuid::Uuid::new_v4().to_string();
        let answer = settled(&self.lock(path).idempotency_key(&key).body(body));
        assert_eq!(answer.json()["locked"], true, "{answer:?}");
        (answer.ticket(), answer.token())
    }

    pub fn queue(&self, path: &str) -> String {
        let key = uuid::Uuid::new_v4().to_string();
        let answer = settled(&self.lock(path).idempotency_key(&key));
        assert_eq!(answer.json()["locked"], false, "{answer:?}");
        answer.ticket()
    }

    pub fn described(&self, name: &str) -> Value {
        let answer = settled(&self.describe(name));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    pub fn data(&self, path: &str) -> String {
        let answer = settled(&self.read(path));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["data"].as_str().unwrap().to_owned()
    }

    /// Lives, says why it does not serve, and answers every route 503 in bounded time.
    pub fn refuses(&self, codes: &[&str]) {
        let check = |answer: &Answer| {
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(codes.contains(&answer.code().as_str()), "{answer:?}");
        };
        self.call("GET", "/health").no_key().expect(200);
        check(&self.ready());
        for call in self.every_route() {
            let start = Instant::now();
            check(&call.send());
            assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
        }
    }

    pub fn every_route(&self) -> Vec<Call> {
        let ticket = "0123456789abcdef0123456789abcdef";
        vec![
            self.create("another", 0),
            self.describe("printer"),
            self.call("GET", "/resource"),
            self.read("printer/s"),
            self.call("GET", "/resource/printer/s"),
            self.lock("printer/s"),
            self.lock("printer/s").query("wait=30"),
            self.put("printer/s", "2"),
            self.renew("printer/s", ticket),
            self.unlock("printer/s", ticket),
            self.call("DELETE", "/resource/printer/s"),
            self.call("DELETE", "/resource/printer"),
        ]
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _may_have_ended = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of {}:\n{}", self.address, self.log().join("\n"));
        }
    }
}

impl SharedLog {
    fn lock(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Log) -> T) -> T {
        let result = use_it(&mut self.lock());
        self.grew.notify_all();
        result
    }
}

/// The first answer that is not 503. What a busy machine makes late is asked for again; so the call must be
/// one that may happen twice.
pub fn settled(call: &Call) -> Answer {
    let start = Instant::now();
    loop {
        let answer = call.send();
        if answer.status != 503 {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "still refused: {answer:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// While `during` lasts, the process does little, says little, and needs no more memory than before.
pub fn stays_calm(instance: &Instance, during: Duration) {
    let (time, lines) = (instance.processor_time(), instance.log().len());
    let memory = instance.memory();
    std::thread::sleep(during);
    let used = instance.processor_time() - time;
    assert!(
        used < during / 2,
        "{used:?} of processor time in {during:?}"
    );
    let more = instance.memory().saturating_sub(memory);
    assert!(more < 32 << 20, "{more} bytes more");
    let said = instance.log()[lines..].to_vec();
    assert!(said.len() < 20, "{said:#?}");
}
