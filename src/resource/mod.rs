//! One named resource: an actor that owns its lock queue, its data and its timer.
//!
//! | file | what it holds |
//! |---|---|
//! | `messages` | requests and replies |
//! | `actor` | the phases of the actor: loading, live, retired; one handler for each message |
//! | `requests` | incoming requests, translated into commands for the lock core |
//! | `loading` | requests whose document has to be read from the store first |
//! | `watchers` | reads, some of which wait until a description or document changes |
//! | `replies` | carries out the core's outcomes: rows to the store, replies to clients |
//! | `live` | the state of a loaded actor, and its timer |
//! | `open_requests` | requests that are not answered yet |
//! | `documents` | the JSON in memory |
//! | `audit` | reports events to the log, the metrics, the history and the event feed |
//! | `status` | the status that listings read without a message to the actor |

pub mod actor;
mod audit;
mod documents;
mod live;
mod loading;
pub mod messages;
mod open_requests;
mod replies;
mod requests;
pub mod status;
mod watchers;
