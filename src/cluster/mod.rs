//! Several instances on one database: one of them is active, and every other one passes requests on to it, so that
//! a client needs not know which one that is.
//!
//! What crosses is the request that a resource is asked and its reply, not HTTP: keys, bodies and limits are checked
//! where the client is connected, and its answer is made there. A request that came from another instance is never
//! passed on again.
//!
//! | file | what it holds |
//! |---|---|
//! | `door` | the handlers' door: here, or there; held while nobody is active |
//! | `events` | events of either, read alike |
//! | `link` | the asking end of a connection between two instances |
//! | `serve` | the other end |
//! | `reach` | whether the active instance answers |
//! | `connection` | a connection until both ends know each other |
//! | `tls` | TLS between the two, where the active one has a certificate |
//! | `wire` | what crosses, in frames; the proof that both have the same database |
//! | `crossing` | tests: what crosses is what this version of the protocol says |

pub mod connection;
#[cfg(test)]
mod crossing;
pub mod door;
pub mod events;
pub mod link;
pub mod reach;
pub mod serve;
pub mod tls;
pub mod wire;
