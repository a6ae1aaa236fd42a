//! The HTTP side: what clients send becomes one message to a resource, and its reply one answer.
//!
//! | file | what it holds |
//! |---|---|
//! | `routes` | which path and method leads where; 404, 405 |
//! | `handlers` | one short function per route |
//! | `request` | parsing: names, query, headers, bodies |
//! | `auth` | keys and the rights they carry |
//! | `respond` | replies of a resource as HTTP answers |
//! | `errors` | every refusal with its status and code: the one place that knows both |
//! | `wire` | the JSON bodies |
//! | `server` | sockets, workers, limits of a connection |
//! | `unread` | request bodies that an answer does not wait for |

pub mod auth;
pub mod errors;
pub mod handlers;
pub mod request;
pub mod respond;
pub mod routes;
pub mod server;
mod unread;
pub mod wire;
