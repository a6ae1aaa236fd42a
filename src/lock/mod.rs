//! The lock core: who holds a resource, who waits for it, and what ends a lease.
//!
//! Everything here is pure. Time, fresh ticket ids and the settings come in as arguments; what is to be
//! done (answers, rows to store, the next deadline) goes out as values. Nothing here knows a runtime, a
//! clock, a socket or a database, which is why the same code runs under the actors, under the property
//! tests and under the model checker.
//!
//! Neighbours: `resource` feeds commands and carries out the outcome; `store` keeps the rows.
//!
//! | file | what it holds |
//! |---|---|
//! | `names` | names, tickets, tokens: types that cannot hold a bad value |
//! | `terms` | the two compatibility profiles as data, and the limits |
//! | `command` | what can be asked, what is answered |
//! | `rows` | what has to be stored |
//! | `queue` | who waits, in which order, and who is near |
//! | `leases` | who holds: nobody, one, or several |
//! | `ended` | why tickets ended |
//! | `state` | the lock itself: what it is, how it is stored and shown |
//! | `suspend` | a held lock that is out of memory while its lease runs |
//! | `step/` | one command applied to the lock: every transition there is |
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
    Answer, Command, LockRequest, Outcome, Patience, PresentedTicket, Refusal, RequestId, Wish,
};
pub use ended::LostTicket;
pub use names::{
    FencingToken, IdempotencyKey, KeyName, Millis, Mode, Now, Owner, Reason, ResourceName,
    ResourceOptions, Seconds, Selector, Ticket, TicketId, Ttl, WallMillis,
};
pub use rows::EndReason;
pub use state::LockState;
pub use suspend::{Expiry, SuspendedLease};
pub use terms::{Limits, Profile, Rules, Terms};
