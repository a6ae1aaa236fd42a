//! The actors from inside, without HTTP, on a store that does what a test says: what they do when messages
//! overtake each other, when commits are refused or held up, and when the store is in doubt.

mod bed;
mod closed;
mod documents;
mod leave;
mod liveness;
mod refused;
#[path = "../support/settings.rs"]
mod settings;
mod sleep;
mod store;
