//! Several instances on one database. Each instance answers for a part of the names and passes requests for other
//! names on to the instance that answers for them, so that a client may ask any instance.
//!
//! Instances exchange resource requests and replies, not HTTP: the instance that the client is connected to checks
//! keys, bodies and limits, and makes the HTTP answer. A request that came from another instance is never passed on
//! again.
//!
//! | file | what it holds |
//! |---|---|
//! | `client` | how handlers reach a resource, in this instance or another |
//! | `destination` | which instance answers for a name |
//! | `forwarded` | a request that waits, is passed on, or whose slot moves meanwhile |
//! | `gather` | questions about many names, asked of all instances |
//! | `hold` | how long a request is held until an instance answers for its name |
//! | `events` | the events of all instances as one stream |
//! | `links` | one worker's connections to the other instances |
//! | `link` | the asking end of a connection |
//! | `serve` | the answering end of a connection |
//! | `reachability` | whether the other instances can be reached |
//! | `connection` | opening a connection: TCP, TLS where it is configured, handshake |
//! | `tls` | TLS between instances, where the asked instance has a certificate |
//! | `wire` | the handshake, the frames and the types of the messages |
//! | `crossing` | tests: the messages have the form of this version of the protocol |

pub mod client;
pub mod connection;
#[cfg(test)]
mod crossing;
mod destination;
pub mod events;
mod forwarded;
mod gather;
mod hold;
pub mod link;
mod links;
pub mod reachability;
pub mod serve;
pub mod tls;
pub mod wire;
