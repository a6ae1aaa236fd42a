//! Several instances on one database: each answers for a part of the names, and passes requests for the others on to
//! whoever does, so that a client needs not know which one that is.
//!
//! What crosses is the request that a resource is asked and its reply, not HTTP: keys, bodies and limits are checked
//! where the client is connected, and its answer is made there. A request that came from another instance is never
//! passed on again.
//!
//! | file | what it holds |
//! |---|---|
//! | `door` | the handlers' door: here, or there |
//! | `place` | who answers for a name |
//! | `forwarded` | a request that waits, is passed on, or changes hands |
//! | `gather` | questions about names of all instances |
//! | `hold` | for how long a request waits for an instance |
//! | `events` | events of all, read as one stream |
//! | `links` | the connections of one worker |
//! | `link` | the asking end of a connection between two instances |
//! | `serve` | the other end |
//! | `reach` | whether the other instances answer |
//! | `connection` | a connection until both ends know each other |
//! | `tls` | TLS between the two, where the one that is asked has a certificate |
//! | `wire` | what crosses, in frames; the proof that both have the same database |
//! | `crossing` | tests: what crosses is what this version of the protocol says |

pub mod connection;
#[cfg(test)]
mod crossing;
pub mod door;
pub mod events;
mod forwarded;
mod gather;
mod hold;
pub mod link;
mod links;
mod place;
pub mod reach;
pub mod serve;
pub mod tls;
pub mod wire;
