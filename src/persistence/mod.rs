//! The only writer: takes what was handed in while a commit was under way and stores it as one transaction
//! (group commit), and opens the store again when it was lost.
//!
//! | file | what it holds |
//! |---|---|
//! | `messages` | what it is asked, and what it tells |
//! | `queue` | commits merged per name into batches, one transaction after another |
//! | `handle` | how a resource actor reaches it |
//! | `actor` | what it has in hand, how it ends |
//! | `commit` | what waits becomes one transaction; checkpointing beside it |
//! | `opening` | the store is opened, watched, lost and opened again |
//! | `sharing` | slots of names that are given and taken over, where several instances share the store |
//! | `shares` | how many slots each should have |
//! | `history` | past leases on their way to the store |
//! | `reads` | loads, documents and listings |

pub mod actor;
mod commit;
pub mod handle;
mod history;
pub mod messages;
mod opening;
pub mod queue;
mod reads;
pub mod shares;
mod sharing;
