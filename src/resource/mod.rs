//! One named resource: an actor that owns its lock queue, its data and its timer.
//!
//! | file | what it holds |
//! |---|---|
//! | `messages` | what it is asked, what it answers, what it tells others |
//! | `actor` | its life: loading, at work, retired; one handler for each message |
//! | `requests` | requests in: what has to be known first, what the core is asked |
//! | `loading` | requests whose document has to be read first |
//! | `watchers` | requests that wait for another description or document |
//! | `replies` | what the core says, carried out |
//! | `live` | what the actor has in hand, and its timer |
//! | `open_requests` | requests that are not answered yet |
//! | `documents` | the JSON in memory |
//! | `audit` | what happened, told to log and metrics |
//! | `status` | what listings see without asking |
//! | `dormant` | what it leaves behind when it retires under a lease |

pub mod actor;
mod audit;
mod documents;
pub mod dormant;
mod live;
mod loading;
pub mod messages;
mod open_requests;
mod replies;
mod requests;
pub mod status;
mod watchers;
