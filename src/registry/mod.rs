//! The registry: which actor serves a name, and how a handler reaches it.
//!
//! | file | what it holds |
//! |---|---|
//! | `actor` | finds, starts and replaces the actor of a name |
//! | `dormant` | held resources that were not used for a while and have no actor |
//! | `client` | how handlers reach a resource: cached addresses, retries of `Moved` |
//! | `lock_counts` | counts held locks and waiters |
//! | `listing` | pages of resources: committed rows overlaid by what live actors know |

pub mod actor;
pub mod client;
mod dormant;
pub mod listing;
pub mod lock_counts;
