//! The shell around the lock core: actors that own state, and what they share.
//!
//! ```text
//! http worker ──► Registry ──► ResourceActor ──► Persistence ──► store
//!                 name→address  core, data, timer  group commit
//!             ◄──────────────── answer, once durable ◄──────────
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `messages` | what handlers ask a resource, and what it answers |
//! | `registry` | finds, starts and replaces the actor of a name |
//! | `resource` | one named resource: its queue, its data, its timer |
//! | `sleepers` | what is kept of held resources that nobody has used for a while |
//! | `persistence` | the only writer: batches snapshots, opens and reopens the store |
//! | `start` | the registry and the persistence actor, started and known to each other |
//! | `commits` | what waits for the persistence actor |
//! | `shell` | what they share: clock, gate, settings, counters |
//! | `gate` | whether this instance may answer at all |
//! | `events` | one log line per change of state, within limits |
//! | `caller` | who sent a request, for those lines |
//! | `listing` | pages of resources: committed rows overlaid by what live actors know |
//! | `board` | what a live resource shows of itself without being asked |
//! | `window` | what a live resource shows of a document without being asked |
//! | `budget` | how much data all resources together keep in memory |
//! | `router` | how an HTTP worker reaches a resource: cached addresses, retries of `Moved` |

pub mod board;
pub mod budget;
pub mod caller;
pub mod commits;
pub mod events;
pub mod gate;
pub mod listing;
pub mod messages;
pub mod persistence;
pub mod registry;
pub mod resource;
pub mod router;
pub mod shell;
pub mod sleepers;
pub mod start;
pub mod window;

pub use caller::Caller;
pub use gate::{Closed, Gate};
pub use messages::{Op, Reply};
pub use router::Router;
pub use shell::{Clock, Shell};
