//! The server as a process on a network: what it refuses before routing, TLS, settings that change while
//! it runs, limits, and how it ends.

mod early;
mod java;
mod limits;
mod memory;
mod open_files;
mod reload;
mod shutdown;
mod stalled_log;
mod stalled_thread;
#[path = "../support/mod.rs"]
mod support;
mod team_keys;
mod tls;
