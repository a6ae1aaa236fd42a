//! A real server in a process of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use small_resource_client::{Client, ClientBuilder, Resource};

include!("../support/example.rs");

/// Whatever is waited for: only a broken program takes that long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A process that runs one of the ignored tests of this very binary.
pub struct Process {
    child: Child,
    pub lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Process {
    pub fn start(test: &str, environment: &[(&str, &str)]) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--ignored", "--nocapture"])
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Process { child, lines }
    }

    /// What follows `word` in the first line that begins with it.
    pub fn wait_for(&mut self, word: &str) -> String {
        let mut lines = self.lines.by_ref().map(Result::unwrap);
        let found = lines.find_map(|line| Some(line.strip_prefix(word)?.trim().to_owned()));
        found.unwrap_or_else(|| panic!("it ended without {word:?}"))
    }

    /// Waits for its end.
    pub fn ended(&mut self) {
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server, and how it is reached.
pub struct Server {
    pub process: Process,
    pub url: String,
}

impl Server {
    pub fn start() -> Server {
        Server::start_with(&[])
    }

    /// With these settings besides.
    pub fn start_with(settings: &[(&str, &str)]) -> Server {
        let mut process = Process::start("serve_in_a_process_of_its_own", settings);
        let url = process.wait_for("serving at ");
        Server { process, url }
    }

    pub fn client(&self, owner: &str) -> Client {
        client(&self.url).owner(owner).build().unwrap()
    }
}

/// What the tests set.
const SETTINGS: [&str; 7] = [
    "HTTP_PORT",
    "MAX_LEASE_SECONDS",
    "MAX_WAIT_SECONDS",
    "SQLITE_PATH",
    "STORE",
    "TLS_CERT_FILE",
    "TLS_KEY_FILE",
];

/// For the ignored test that [`Server`] runs. Ends with the test that started it.
pub fn serve_until_stdin_ends() {
    let settings: Vec<_> = std::env::vars().collect();
    let settings = settings.iter().map(|(name, value)| (&**name, &**value));
    let taken = settings.filter(|(name, _)| SETTINGS.contains(name));
    println!("serving at {}", serve_with(&taken.collect::<Vec<_>>()).0);
    let _ = std::io::stdin().lines().count();
}

pub fn client(url: &str) -> ClientBuilder {
    Client::builder(url).key("example")
}

/// Asks until the description is as wanted.
pub async fn until(client: &Client, name: &str, wanted: impl Fn(Option<&Resource>) -> bool) {
    let seen = async {
        loop {
            let seen = client.describe(name).await.unwrap();
            if wanted(seen.as_ref()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen)
        .await
        .expect("it never came to that");
}
