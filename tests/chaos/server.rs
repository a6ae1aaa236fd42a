//! The built binary as processes that can be killed, paused and started again.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::wire::{self, Wire};

/// Only what never comes is waited for so long.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub const KEY: &str = "key-to-write";
pub const ADMIN: &str = "key-to-force";

/// What a server wrote to its log, over all its lives.
pub type Log = Arc<Mutex<Vec<String>>>;

/// One instance: its settings, and its process while it has one.
pub struct Instance {
    settings: Vec<(String, String)>,
    folder: std::path::PathBuf,
    running: Option<(Child, SocketAddr)>,
    pub log: Log,
}

impl Instance {
    pub fn new(folder: &std::path::Path, settings: &[(&str, String)]) -> Instance {
        let common = [
            ("HTTP_HOST", "127.0.0.1"),
            ("HTTP_PORT", "0"),
            ("HTTP_WORKERS", "2"),
            ("RESOURCE_READ", "key-to-read"),
            ("RESOURCE_READ_LOCK", "key-to-lock"),
            ("RESOURCE_WRITE", KEY),
            ("RESOURCE_ADMIN", ADMIN),
            ("SHUTDOWN_SECONDS", "2"),
        ];
        let common = common
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()));
        let given = settings
            .iter()
            .map(|(name, value)| (name.to_string(), value.clone()));
        Instance {
            settings: common.chain(given).collect(),
            folder: folder.to_owned(),
            running: None,
            log: Log::default(),
        }
    }

    pub fn address(&self) -> Option<SocketAddr> {
        self.running.as_ref().map(|(_, address)| *address)
    }

    /// Returns when it listens.
    pub fn start(&mut self) -> SocketAddr {
        let binary = env!("CARGO_BIN_EXE_small-resource-server");
        let mut child = Command::new(binary)
            .env_clear()
            .envs(self.settings.iter().cloned())
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (listens, listening) = mpsc::channel();
        let log = self.log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("listens on http://") {
                    let _ = listens.send(address.trim().parse().unwrap());
                }
                log.lock().unwrap().push(line);
            }
        });
        let Ok(address) = listening.recv_timeout(DEADLINE) else {
            let _ = child.kill();
            panic!(
                "the server does not listen:\n{}",
                self.log.lock().unwrap().join("\n")
            );
        };
        self.running = Some((child, address));
        address
    }

    /// Of the running process.
    pub fn pid(&self) -> u32 {
        let (child, _) = self.running.as_ref().expect("a running server");
        child.id()
    }

    fn signal(&self, signal: Signal) {
        if let Some((child, _)) = &self.running {
            let pid = Pid::from_raw(child.id() as i32).unwrap();
            kill_process(pid, signal).expect("the server is there");
        }
    }

    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, until the process has ended by itself.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        if let Some((mut child, _)) = self.running.take() {
            let status = child.wait().unwrap();
            assert!(status.success(), "an orderly end: {status}");
        }
    }

    pub fn is_ready(&self) -> bool {
        self.address().is_some_and(|address| {
            let ask = wire::request("GET", "/ready", &[], "");
            let answer = Wire::default().exchange(address, &ask, Duration::from_secs(1), None);
            answer.is_ok_and(|answer| answer.status == 200)
        })
    }

    /// Lines of the log that should never be there.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.log.lock().unwrap();
        let bad = |line: &&String| line.contains("panicked") || line.contains("invariant");
        log.iter().filter(bad).cloned().collect()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for a condition that comes by itself.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
