//! The HTTP contract, sentence by sentence, against a real server on a port and a store of its own per
//! test. `harness` starts servers, `client` speaks bytes to them; the other files are one theme each.
//!
//! Every test runs against every store: `cargo test --test api sqlite::` picks one. Those against MySQL
//! need a server, see `database`.

#[macro_use]
mod harness;
mod client;
// Shared with the tests of that store, which use more of it.
#[allow(dead_code)]
#[path = "../mysql/database.rs"]
mod database;

mod bad_input;
mod bundle;
mod create;
mod delete;
mod force_unlock;
mod get;
mod headers;
mod idempotency;
mod keys;
mod listing;
mod lock;
mod names;
mod php_profile;
mod put;
mod reading;
mod renew;
mod restart;
mod sleep;
mod status;
mod tickets;
mod unlock;
mod waiting;
