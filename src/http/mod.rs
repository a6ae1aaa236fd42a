//! The HTTP side: a client's request becomes one message to a resource, and the reply becomes one answer.
//!
//! | file | what it holds |
//! |---|---|
//! | `paths` | the routes, and how a path is split into segments |
//! | `routes` | the handler of each path and method; 404, 405 |
//! | `handlers` | one short function per route |
//! | `request` | a request with its caller, key and route |
//! | `query`, `conditions`, `body` | parsing its query, conditional headers and body |
//! | `headers` | the names of this API's headers |
//! | `auth` | keys and the rights they carry |
//! | `respond` | a resource's replies as HTTP answers |
//! | `errors` | every refusal with its status and code: the only place that knows both |
//! | `middleware` | around every route: request id, metrics, access log, rate limit, closing of connections |
//! | `openapi` | the OpenAPI document |
//! | `request_bodies`, `response_bodies` | the JSON bodies of requests, and of answers |
//! | `time` | times in JSON bodies |
//! | `server` | starts the workers |
//! | `worker` | state that the handlers of one worker share |
//! | `acceptor` | an accepted connection before HTTP |
//! | `connection` | the stream under HTTP: time-outs and read-ahead limits |
//! | `connection_limits` | how many connections may be open, and how long they may take |
//! | `page` | the operator's page |
//! | `limit` | counters of the rate limit |
//! | `client_address` | the client's address behind proxies |
//! | `policy` | settings that may change while the server runs |
//! | `tls` | TLS, and replacing its certificate |

pub mod acceptor;
pub mod auth;
pub mod body;
pub mod client_address;
pub mod conditions;
pub mod connection;
pub mod connection_limits;
pub mod errors;
pub mod handlers;
pub mod headers;
pub mod limit;
pub mod middleware;
pub mod openapi;
pub mod page;
pub mod paths;
pub mod policy;
pub mod query;
pub mod request;
pub mod request_bodies;
pub mod respond;
pub mod response_bodies;
pub mod routes;
pub mod server;
pub mod time;
pub mod tls;
pub mod worker;
