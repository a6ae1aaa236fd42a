//! A lock server over HTTP. Its parts, which are called rooms:
//!
//! | room | what it is for |
//! |---|---|
//! | [`lock`] | the lock core: who holds, who waits, when a lease ends. Pure functions |
//! | [`store`] | rows that outlive the process: memory, SQLite, MySQL |
//! | `resource` | one named resource: an actor around the core, its data and its timer |
//! | `registry` | finds, starts and retires resource actors; routes requests to them |
//! | `persistence` | the only writer: group commit, opening and reopening the store |
//! | `shared` | used by all of them: clock, gate, limits, cache budget, audit log |
//! | `cluster` | several instances on one database: requests are passed on to the one that owns the name |
//! | `http` | routes, handlers, wire types, errors |
//! | `metrics` | metrics for operators; the other rooms write to it |
//! | [`config`] | settings as types, where each came from, validation |
//! | `app` | builds, runs and stops the server |
//! | `reload` | SIGHUP and changed files: settings that take effect without a restart |
//! | `logging` | the log, whose filter can be replaced |
//! | [`cli`] | the command line |
//!
//! Dependencies point one way: `http -> cluster -> registry -> resource -> lock`, and
//! `resource -> persistence -> store -> lock`'s plain types.
//! Nothing in `lock` imports anything but std, serde and thiserror's derive. `tests/structure.rs` keeps
//! the rule.

#![forbid(unsafe_code)]

pub mod app;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod http;
pub mod lock;
pub mod logging;
pub mod metrics;
pub mod persistence;
pub mod registry;
pub mod reload;
pub mod resource;
pub mod shared;
pub mod store;
