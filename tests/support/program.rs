//! The built binary as a process: it has a log, and can be signalled, paused, killed and started again.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::client::Client;
use super::setup::Setup;
use super::{DEADLINE, eventually, until};

/// A process of the binary, and its client. Killed when dropped; its log is shown when the test failed.
pub struct Program {
    client: Client,
    setup: Setup,
    running: Option<Running>,
    /// Over all its lives.
    log: Arc<Log>,
}

struct Running {
    child: Child,
    reader: JoinHandle<()>,
}

#[derive(Default)]
struct Log {
    said: Mutex<Said>,
    grew: Condvar,
}

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    /// The process that wrote it has closed it.
    ended: bool,
}

impl Deref for Program {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Setup {
    /// Starts a process; it serves when this returns.
    pub fn start(&self) -> Program {
        let program = self.launch();
        program.until_it_serves();
        program
    }

    /// Starts a process; it listens when this returns.
    pub fn launch(&self) -> Program {
        let mut program = Program {
            client: Client::at(SocketAddr::from(([127, 0, 0, 1], 0))),
            setup: self.clone(),
            running: None,
            log: Arc::default(),
        };
        program.launch_again();
        program
    }
}

impl Program {
    /// The memory store, four keys, defaults.
    pub fn new() -> Program {
        Setup::new().start()
    }

    /// After its end, on the same store; it listens when this returns.
    pub fn launch_again(&mut self) {
        assert!(self.running.is_none(), "it runs");
        let mut child = self
            .setup
            .command()
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let begin = {
            let mut said = self.log.lock();
            said.ended = false;
            said.lines.len()
        };
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = self.log.clone();
        let reader = std::thread::spawn(move || log.read(stderr));
        self.running = Some(Running { child, reader });
        let line = self.log.wait_for(begin, &["listens on http"]);
        let address = line.trim().rsplit('/').next().unwrap();
        let client = Client::at(address.parse().expect("an address"));
        self.client = match self.setup.is_patient {
            true => client.patient(),
            false => client,
        };
    }

    /// After its end, on the same store; it serves when this returns.
    pub fn start_again(&mut self) {
        self.launch_again();
        self.until_it_serves();
    }

    /// Another one with the same settings on the same store; it listens when this returns.
    pub fn launch_beside(&self) -> Program {
        self.setup.launch()
    }

    /// With these settings besides, where it is started again.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Also where it speaks TLS.
    fn until_it_serves(&self) {
        until("the program serves", || {
            let Ok(mut probe) = TcpStream::connect(self.address()) else {
                return false;
            };
            probe.set_read_timeout(Some(DEADLINE)).unwrap();
            let asked = probe.write_all(b"GET /ready HTTP/1.0\r\n\r\n");
            let mut answer = Vec::new();
            let _ = probe.read_to_end(&mut answer);
            let is_ready = answer.starts_with(b"HTTP/1.") && answer[9..].starts_with(b"200");
            // Plain text at a TLS port is answered with an alert.
            asked.is_ok() && (is_ready || answer.first() == Some(&0x15))
        });
    }

    // ---- the process ------------------------------------------------------------------------------------

    fn child(&self) -> &Child {
        &self.running.as_ref().expect("a running program").child
    }

    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child()), signal).expect("the program is there");
    }

    /// Returns when all of its threads stand still: the system tells one, which tells the others when it gets to it.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let threads = format!("/proc/{}/task", self.pid());
        until("all of its threads stand still", || {
            let mut threads = std::fs::read_dir(&threads).unwrap();
            threads.all(|thread| {
                let state = std::fs::read_to_string(thread.unwrap().path().join("stat"));
                // The state follows the name, which stands in brackets. A thread may have ended meanwhile.
                state.is_ok_and(|state| state.rsplit(')').next().unwrap().starts_with(" T"))
            })
        });
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    pub fn is_running(&mut self) -> bool {
        let running = self.running.as_mut();
        running.is_some_and(|running| running.child.try_wait().unwrap().is_none())
    }

    /// As `kill -9`: it has no time for anything.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _may_have_ended = running.child.kill();
            running.child.wait().unwrap();
            running.reader.join().unwrap();
        }
    }

    /// SIGTERM, and an orderly end.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.end();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// Its end, which comes by itself.
    #[track_caller]
    pub fn end(&mut self) -> ExitStatus {
        let child = &mut self.running.as_mut().expect("a running program").child;
        let status = eventually("the program ends", || child.try_wait().unwrap());
        let running = self.running.take().unwrap();
        running.reader.join().unwrap();
        status
    }

    /// Processor time used so far.
    pub fn processor_time(&self) -> Duration {
        let stat = self.proc("stat");
        // After the name, which may have anything in it, the 12th and 13th are user and system time.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks = fields.split(' ').skip(11).take(2);
        let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
        // Linux counts in hundredths of a second here, whatever its own ticks are.
        Duration::from_millis(ticks * 10)
    }

    /// Memory in use, in bytes.
    pub fn memory(&self) -> u64 {
        let status = self.proc("status");
        let mut lines = status.lines();
        let line = lines.find(|line| line.starts_with("VmRSS:")).unwrap();
        let kilobytes = line.split_whitespace().nth(1).unwrap();
        kilobytes.parse::<u64>().unwrap() * 1024
    }

    /// A file of `/proc/PID`.
    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.pid())).unwrap()
    }

    // ---- its log ----------------------------------------------------------------------------------------

    /// Everything logged so far.
    pub fn log(&self) -> String {
        self.lines().join("\n")
    }

    pub fn lines(&self) -> Vec<String> {
        self.log.lock().lines.clone()
    }

    /// The last logged line that contains all of these.
    pub fn line(&self, parts: &[&str]) -> Option<String> {
        self.log.lock().find(0, parts)
    }

    /// Waits for that line.
    #[track_caller]
    pub fn logged(&self, parts: &[&str]) -> String {
        self.log.wait_for(0, parts)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("log of {}:\n{}", self.client.address(), self.log());
        }
    }
}

impl Said {
    fn find(&self, from: usize, parts: &[&str]) -> Option<String> {
        let is_wanted = |line: &&String| parts.iter().all(|part| line.contains(part));
        self.lines[from..].iter().rfind(is_wanted).cloned()
    }
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, from: impl BufRead) {
        for line in from.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            self.lock().lines.push(line);
            self.grew.notify_all();
        }
        self.lock().ended = true;
        self.grew.notify_all();
    }

    #[track_caller]
    fn wait_for(&self, from: usize, parts: &[&str]) -> String {
        let start = Instant::now();
        let mut said = self.lock();
        loop {
            if let Some(line) = said.find(from, parts) {
                return line;
            }
            let left = DEADLINE.saturating_sub(start.elapsed());
            let is_hopeless = said.ended || left.is_zero();
            let log = || said.lines.join("\n");
            assert!(!is_hopeless, "never logged: {parts:?}\n{}", log());
            let waited = self.grew.wait_timeout(said, left);
            said = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
