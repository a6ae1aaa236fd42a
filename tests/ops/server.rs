//! Runs the built program on a free port with the memory store, its log in a file.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Call, Connection, until};

pub const READ: &str = "key-that-reads";
pub const LOCK: &str = "key-that-locks";
pub const WRITE: &str = "key-that-writes";
pub const ADMIN: &str = "key-that-forces";
pub const KEYS: [&str; 4] = [READ, LOCK, WRITE, ADMIN];

pub struct Server {
    address: SocketAddr,
    process: Child,
    folder: TempDir,
}

impl Server {
    /// With these variables besides what it needs.
    pub fn start(variables: &[(&str, &str)]) -> Server {
        let folder = TempDir::new().unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_small-resource-server"))
            .current_dir(folder.path())
            .env_clear()
            .envs([
                ("CONFIG_FILE", "/dev/null"),
                ("STORE", "memory"),
                ("HTTP_HOST", "127.0.0.1"),
                ("HTTP_PORT", "0"),
                ("HTTP_WORKERS", "2"),
                ("RESOURCE_READ", READ),
                ("RESOURCE_READ_LOCK", LOCK),
                ("RESOURCE_WRITE", WRITE),
                ("RESOURCE_ADMIN", ADMIN),
            ])
            .envs(variables.iter().copied())
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let mut server = Server {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            process,
            folder,
        };
        until("it listens", || {
            assert_eq!(server.process.try_wait().unwrap(), None, "{}", server.log());
            server.listening().is_some()
        });
        server.address = server.listening().unwrap();
        server
    }

    fn listening(&self) -> Option<SocketAddr> {
        let log = self.log();
        let (_, rest) = log.split_once("listens on http://")?;
        let (address, _) = rest.split_once('\n')?;
        address.parse().ok()
    }

    /// Everything logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// The last logged line that contains all of these.
    pub fn line(&self, parts: &[&str]) -> Option<String> {
        let log = self.log();
        let is_wanted = |line: &&str| parts.iter().all(|part| line.contains(part));
        log.lines().rev().find(is_wanted).map(str::to_owned)
    }

    /// Waits for that line.
    pub fn logged(&self, parts: &[&str]) -> String {
        until(&format!("a line with {parts:?}"), || {
            self.line(parts).is_some()
        });
        self.line(parts).unwrap()
    }

    pub fn call(&self, method: &str, target: &str) -> Call {
        Call::new(self.address, method, target).key(WRITE)
    }

    pub fn prepare(&self, name: &str) {
        let body = json!({"name": name}).to_string();
        self.call("POST", "/resource").body(body).expect(201);
    }

    pub fn lock(&self, name: &str, owner: &str) -> Call {
        let body = json!({"owner": owner}).to_string();
        self.call("PUT", &format!("/resource/{name}/s/lock"))
            .body(body)
    }

    /// Takes the lock, which must be free; the ticket.
    pub fn hold(&self, name: &str, owner: &str) -> String {
        let answer = self.lock(name, owner).expect(200);
        assert_eq!(answer.json()["locked"], true, "{answer:?}");
        answer.ticket()
    }

    pub fn unlock(&self, name: &str, ticket: &str) {
        let path = format!("/resource/{name}/s/unlock");
        self.call("POST", &path).ticket(ticket).expect(200);
    }

    pub fn described(&self, name: &str) -> Value {
        let path = format!("/resource/{name}");
        self.call("GET", &path).expect(200).json()
    }

    /// A request that waits for the lock; it is in the queue when this returns.
    pub fn wait(&self, name: &str, owner: &str) -> Connection {
        let waiting = || self.described(name)["waiting"].as_u64();
        let before = waiting();
        let waiter = self.lock(name, owner).query("wait=60").open();
        until("the waiter queues", || waiting() > before);
        waiter
    }

    pub fn metrics(&self) -> String {
        let answer = self.call("GET", "/metrics").no_key().expect(200);
        answer.text().to_owned()
    }

    /// Everything that can happen to a lock happens once. The tickets that were given out.
    pub fn session(&self) -> Vec<String> {
        self.prepare("printer");
        let first = self.hold("printer", "first");
        let mut waiter = self.wait("printer", "second");
        let third = self.lock("printer", "third").expect(200).ticket();
        self.unlock("printer", &first);
        let second = waiter.answer().ticket();
        let document = "/resource/printer/s";
        let write = self.call("PUT", document).body("[1]");
        write.clone().ticket(&second).expect(204);
        let forced = self
            .call("POST", "/resource/printer/force-unlock")
            .key(ADMIN)
            .body(r#"{"reason": "its owner went home"}"#)
            .expect(200);
        assert_eq!(forced.json()["forced"], true);
        write.ticket(&second).refused(403, "lease_forced_off");
        let held = self.lock("printer", "third").ticket(&third).expect(200);
        assert_eq!(held.json()["locked"], true, "{held:?}");
        self.call("DELETE", document).ticket(&third).expect(204);
        self.call("GET", "/resource/printer").no_key().expect(401);
        let brief = json!({"ttl": 1}).to_string();
        self.prepare("brief");
        let lease = self.call("PUT", "/resource/brief/s/lock").body(brief);
        let expiring = lease.expect(200).ticket();
        until("the lease expires", || {
            self.described("brief")["locked"] == false
        });
        self.call("DELETE", "/resource/printer")
            .ticket(&third)
            .expect(204);
        vec![first, second, third, expiring]
    }

    /// SIGTERM, and the end.
    pub fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success(), "{}", self.log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
