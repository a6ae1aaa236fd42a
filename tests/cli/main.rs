//! `lock` and the other verbs of a client, with real processes: commands that are stopped, killed, forced off and left
//! behind, and a server that is paused under them.

mod session;
#[path = "../support/mod.rs"]
mod support;

mod loss;
mod queue;
mod running;
mod terminal;
mod verbs;
