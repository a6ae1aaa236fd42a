//! The lock core, held against the sentences of the model one by one. Each test is named after the claim
//! that it proves; `world` is the harness.

mod arrival;
mod delete;
mod force_unlock;
mod idempotency;
mod lease;
mod modes;
mod php_profile;
mod planted;
mod queue;
mod relayed;
mod restart;
mod sleep;
mod tickets;
mod time;
mod vanished;
mod world;
mod write_rules;
