//! State that the handlers and actors of all resources share.
//!
//! | file | what it holds |
//! |---|---|
//! | `server_state` | settings, clock, counters: one for each server |
//! | `gate` | whether this instance may answer at all |
//! | `resource_notice`, `registry_notice` | messages without a reply, to a resource actor and to the registry |
//! | `dormant` | what a resource actor leaves behind when it retires while its lease runs |
//! | `members` | the instances that share the store, and which of them this one reaches |
//! | `slots` | which names this instance answers for itself |
//! | `undelivered_grants` | grants whose client was gone after their name had moved to another instance |
//! | `liveness` | whether the vital threads and actors still run |
//! | `cache_budget` | how much data all resources together keep in memory |
//! | `audit_log` | one log line per change of state, within limits |
//! | `event_feed` | events of durable changes, for all who read them |
//! | `history` | the last leases of each name |
//! | `lost_tickets` | ended tickets of ephemeral names that are gone |
//! | `caller` | who sent a request, for log lines |

pub mod audit_log;
pub mod cache_budget;
pub mod caller;
pub mod dormant;
pub mod event_feed;
pub mod gate;
pub mod history;
pub mod liveness;
pub mod lost_tickets;
pub mod members;
pub mod registry_notice;
pub mod resource_notice;
pub mod server_state;
pub mod slots;
pub mod undelivered_grants;
