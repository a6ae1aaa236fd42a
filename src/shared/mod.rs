//! What handlers and actors share, whichever resource they work for.
//!
//! | file | what it holds |
//! |---|---|
//! | `server_state` | settings, clock, counters: one for each server |
//! | `gate` | whether this instance may answer at all |
//! | `members` | with whom the store is shared, and whom of them this instance can reach |
//! | `slots` | which names this instance answers for itself |
//! | `untaken` | grants that nobody took, of names that have left |
//! | `liveness` | whether what everybody needs still runs |
//! | `cache_budget` | how much data all resources together keep in memory |
//! | `audit_log` | one log line per change of state, within limits |
//! | `event_feed` | what happens, for whoever follows it |
//! | `history` | the last leases of each name |
//! | `lost_tickets` | tickets of ephemeral names that are gone |
//! | `caller` | who sent a request, for those lines |

pub mod audit_log;
pub mod cache_budget;
pub mod caller;
pub mod event_feed;
pub mod gate;
pub mod history;
pub mod liveness;
pub mod lost_tickets;
pub mod members;
pub mod server_state;
pub mod slots;
pub mod untaken;
