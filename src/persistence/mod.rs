//! The persistence actor, the only writer of the store. Stores everything that was handed in during the last commit as
//! one transaction (group commit), and opens the store again when it was lost.
//!
//! | file | what it holds |
//! |---|---|
//! | `messages` | messages to the actor |
//! | `queue` | commits merged per name into batches, one transaction after another |
//! | `handle` | how a resource actor reaches the persistence actor |
//! | `actor` | the state of the actor, and how it ends |
//! | `commit` | group commit; checkpoints and past leases beside it |
//! | `opening` | opens the store, and opens it again when it was lost |
//! | `sharing` | gives slots of names and takes them over, if several instances share the store |
//! | `shares` | how many slots each instance should have |
//! | `reads` | loads, documents and listings |

pub mod actor;
mod commit;
pub mod handle;
pub mod messages;
mod opening;
pub mod queue;
mod reads;
pub mod shares;
mod sharing;
