//! The whole server when its database fails, and several servers on one database: real processes of the
//! binary, a real database server, and bytes held back on the way where a fault needs it.
//!
//! Run with `scripts/with-mariadb cargo test --test outage`. What the store does by itself is in
//! `tests/mysql`.

mod documents;
mod failover;
mod instance;
mod opening;
mod outages;
mod php;
mod private;
mod reads;
mod settings;
mod several;
#[path = "../support/mod.rs"]
mod support;
mod takeover;
mod versions;

use std::sync::{Mutex, MutexGuard, PoisonError};

use support::wait;

/// Tests that look at how much a process does, or that stop one for longer than its lease, take turns:
/// together they would only slow each other down.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
