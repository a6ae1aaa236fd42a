//! The HTTP contract, sentence by sentence, against a real server on a port and a store of its own per
//! test. `stores` makes one test of each function for every store; the other files are one theme each.
//!
//! Every test runs against every store: `cargo test --test api sqlite::` picks one. Those against MySQL
//! need a server: `scripts/with-mariadb cargo test --test api`.

#[macro_use]
mod stores;
#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod bundle;
mod conditions;
mod create;
mod delete;
mod ephemeral;
mod etags;
mod events;
mod force_unlock;
mod get;
mod headers;
mod history;
mod idempotency;
mod keys;
mod listing;
mod lock;
mod modes;
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
