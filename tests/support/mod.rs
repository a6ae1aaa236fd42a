//! What every test of a running server is made of: one server, one client, one database, one proxy.
//!
//! - [`Setup`]: the settings of a server to be, on a store and in a folder of its own. `Setup::new()` is the
//!   memory store, any free port and four keys; `Setup::on(store)` has times that no slow machine reaches;
//!   `.with(name, value)`, `.sqlite()`, `.mysql(&options)`, `.tls()`, `.conf(text)` change it.
//! - [`Server`] runs in this process: `Server::start(store)`, `Server::start_with(store, settings)`, `stop`,
//!   `restart_with`, `start_beside`, `restart_as_program`.
//! - [`Program`] is the built binary as a process: `Setup::start` (ready), `Setup::launch` (listening),
//!   `Setup::output(arguments)` (to its end); `logged`, `signal`, `pause`, `kill`, `stop`, `start_again`.
//! - [`Client`]: a verb per endpoint, each a [`Call`] that `send`s, `expect`s a status or is `refused`. Server
//!   and Program are clients of themselves: `server.lock("name/selector").owner("me").granted().ticket()`.
//! - [`Connection`]: bytes on a connection that can be left in every way; `Call::open`, `Client::connect`.
//!   Every [`Answer`] is held against what is promised of every answer, unless it was asked for unchecked.
//! - [`Database`]: a database of its own on the server that `TEST_MYSQL_URL` leads to. [`Proxy`] stands before it
//!   and holds bytes back. [`wait`] runs their futures where a test has no runtime.
//! - [`server_settings`]: for tests that put a server together from its parts, without HTTP.
//! - [`until`] and [`eventually`] wait for what comes by itself; [`skip`] says that a test was left out, and why.

#![allow(dead_code, unused_imports, reason = "each binary uses a part of it")]

mod client;
mod database;
mod group;
mod program;
mod proxy;
mod server;
mod settings;
mod setup;
mod snapshots;
mod threads;

use std::future::Future;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

pub use client::{Answer, Call, Client, Connection, find, is_ticket, request};
pub use database::{
    Database, admin, heartbeat, join, members, options, slots_of, take_all, take_over,
};
pub use group::ControlGroup;
pub use program::Program;
pub use proxy::{Proxy, State, free_port};
pub use server::Server;
pub use settings::server_settings;
pub use setup::{ADMIN, KEYS, LOCK, READ, Setup, Store, WRITE, certificate_file, replace_file};
pub use snapshots::{created, granted, serve, token};
pub use threads::{StoppedThread, serving_threads};

/// Nothing in these tests takes this long unless it is broken.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A well-formed ticket that no server ever gave out.
pub const STRANGE_TICKET: &str = "0123456789abcdef0123456789abcdef";

/// Waits until the condition holds; tests end here when it never does.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    eventually(what, || condition().then_some(()));
}

/// Asks until there is a value.
#[track_caller]
pub fn eventually<T>(what: &str, mut value: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = value() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ends the other threads of a test, also when an assertion fails in this one.
pub struct StopWhenDropped<'a>(pub &'a AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a future to its end, in a test that has no runtime. Proxies live on this runtime too.
pub fn wait<T>(work: impl Future<Output = T>) -> T {
    runtime().block_on(work)
}

fn runtime() -> &'static Handle {
    static RUNTIME: OnceLock<Handle> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            sender.send(runtime.handle().clone()).unwrap();
            runtime.block_on(std::future::pending::<()>());
        });
        receiver.recv().unwrap()
    })
}

/// Says that this test is left out, and why: at once, and in the file that `TEST_SKIPS` names, whose lines
/// `scripts/test` counts at its end.
pub fn skip(why: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED: {}: {why}\n", thread.name().unwrap_or("a test"));
    eprint!("{line}");
    let Some(path) = std::env::var_os("TEST_SKIPS") else {
        return;
    };
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path);
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("TEST_SKIPS names a file that can be written");
}
