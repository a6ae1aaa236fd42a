//! Names: where the actor of a resource is, and how a handler reaches it.
//!
//! | file | what it holds |
//! |---|---|
//! | `messages` | what the registry is asked |
//! | `actor` | finds, starts and replaces the actor of a name |
//! | `dormant` | held resources that nobody has used for a while |
//! | `client` | how handlers reach a resource: cached addresses, retries of `Moved` |
//! | `survey` | which live and dormant resources a listing asks for |
//! | `tally` | how much is held and waited for |
//! | `listing` | pages of resources: committed rows overlaid by what live actors know |

pub mod actor;
pub mod client;
mod dormant;
pub mod listing;
pub mod messages;
pub mod survey;
pub mod tally;
