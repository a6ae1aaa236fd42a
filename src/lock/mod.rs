//! The lock core: who holds a resource, who waits for it, and what ends a lease.
//!
//! Everything here is pure. Time, fresh ticket ids and the settings come in as arguments. Effects (answers,
//! rows to store, the next deadline) go out as values. No code here uses a runtime, a clock, a socket or a
//! database, so the same code runs in the actors, in the property tests and in the model checker.
//!
//! Neighbours: `resource` sends commands and carries out their outcome; `store` keeps the rows.
//!
//! | file | what it holds |
//! |---|---|
//! | `names` | names, tickets, tokens: types that cannot hold a bad value |
//! | `terms` | the two compatibility profiles, and the limits |
//! | `command` | the commands to a lock, its answers and events |
//! | `rows` | the rows that are stored |
//! | `queue` | who waits, in which order, and who is near |
//! | `leases` | who holds: none, one or several leases |
//! | `ended` | ended tickets, and why they ended |
//! | `state` | the lock itself: its fields, how it is restored and shown |
//! | `suspend` | what stays in memory of a held lock whose state was unloaded |
//! | `step/` | one command applied to the lock: every state transition |
//! | `invariants` | the rules that must never break, as predicates |

pub mod command;
mod ended;
pub mod invariants;
mod leases;
pub mod names;
mod queue;
pub mod rows;
pub mod state;
mod step;
mod suspend;
pub mod terms;

pub use command::{
    Answer, Command, LockOptions, LockRequest, Outcome, PresentedTicket, Refusal, RequestId,
    WaitPolicy,
};
pub use names::{
    FencingToken, IdempotencyKey, KeyName, Millis, Mode, Now, Owner, Reason, ResourceName,
    ResourceOptions, Seconds, Selector, Ticket, TicketId, Ttl, WallMillis,
};
pub use rows::EndReason;
pub use state::LockState;
pub use suspend::SuspendedLease;
pub use terms::{Profile, Terms};
