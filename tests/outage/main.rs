//! The whole server when its database fails, and several servers on one database: real processes of the
//! binary, a real database server, and bytes held back on the way where a fault needs it.
//!
//! Run with `scripts/with-mariadb cargo test --test outage`. What the store does by itself is in
//! `tests/mysql`.

#[allow(dead_code, reason = "shared with tests/api, which uses all of it")]
#[path = "../api/client.rs"]
mod client;
#[allow(dead_code, reason = "shared with tests/mysql, which uses all of it")]
#[path = "../mysql/database.rs"]
mod database;
mod documents;
mod instance;
mod opening;
mod outages;
mod php;
mod private;
#[allow(dead_code, reason = "shared with tests/mysql, which uses all of it")]
#[path = "../mysql/proxy.rs"]
mod proxy;
mod settings;
mod takeover;

use std::future::Future;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::runtime::Handle;

/// Runs what the database helpers do, on a thread that also keeps the proxies going.
fn wait<T>(work: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<Handle> = OnceLock::new();
    let handle = RUNTIME.get_or_init(|| {
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
    });
    handle.block_on(work)
}

/// Tests that look at how much a process does, or that stop one for longer than its lease, take turns:
/// together they would only slow each other down.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
