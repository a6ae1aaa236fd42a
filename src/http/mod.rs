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
//! | `openapi` | the description of all this for programs |
//! | `wire` | the JSON bodies |
//! | `time` | the times in them |
//! | `server` | sockets, workers, limits of a connection |
//! | `connection` | the stream under HTTP: slow heads, the dispatcher's own answers |
//! | `refusal` | answers that are given before a request reached a route |
//! | `places` | how many connections may be open |
//! | `front` | around every route: rate limit, connections that are to close |
//! | `http2` | clients that are gone, where the connection does not tell |
//! | `limit` | the rate limit's counters |
//! | `client` | the client's address behind proxies |
//! | `policy` | what may change while the server runs |
//! | `tls` | TLS, and replacing its certificate |

pub mod auth;
pub mod client;
pub mod connection;
pub mod errors;
pub mod front;
pub mod handlers;
mod http2;
pub mod limit;
pub mod observe;
pub mod openapi;
pub mod places;
pub mod policy;
pub mod refusal;
pub mod request;
pub mod respond;
pub mod routes;
pub mod server;
pub mod time;
pub mod tls;
pub mod wire;
