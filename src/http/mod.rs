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
//! | `observe` | request ids, metrics and the access log, around every request |
//! | `client` | the client's address behind trusted proxies |
//! | `openapi` | the description of all this for programs |
//! | `wire` | the JSON bodies |
//! | `server` | sockets, workers, limits of a connection |

pub mod auth;
pub mod client;
pub mod errors;
pub mod handlers;
pub mod observe;
pub mod openapi;
pub mod request;
pub mod respond;
pub mod routes;
pub mod server;
pub mod wire;
