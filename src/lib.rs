//! A lock server over HTTP. The map of its rooms:
//!
//! | room | what it is for |
//! |---|---|
//! | [`lock`] | the lock core: who holds, who waits, what ends a lease. Pure |
//! | [`store`] | rows that outlive the process: memory, SQLite, MySQL |
//! | `actors` | the shell around the core: registry, one actor per resource, persistence |
//! | `http` | routes, handlers, wire types, errors |
//! | `metrics` | numbers for the people who run it; a leaf that actors and `http` write to |
//! | [`config`] | settings as types, where each came from, validation |
//! | `app` | puts it together: `build`, `port`, `run_until_stopped` |
//! | `reload` | SIGHUP: what changes without a restart |
//! | `slack` | memory that tables keep after a burst |
//! | `logging` | the log, whose filter can change |
//! | [`cli`] | the command line |
//!
//! Dependencies point one way: `http -> actors -> lock`, and `actors -> store -> lock`'s plain types.
//! Nothing in `lock` imports anything but std, serde and thiserror's derive. `tests/structure.rs` keeps
//! the rule.

#![forbid(unsafe_code)]

pub mod actors;
pub mod app;
pub mod cli;
pub mod config;
pub mod http;
pub mod lock;
pub mod logging;
pub mod metrics;
pub mod reload;
mod slack;
pub mod store;
