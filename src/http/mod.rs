//! The HTTP side: what clients send becomes one message to a resource, and its reply one answer.
//!
//! | file | what it holds |
//! |---|---|
//! | `paths` | which paths there are, and what stands in them |
//! | `routes` | which path and method leads to which handler; 404, 405 |
//! | `handlers` | one short function per route |
//! | `request` | a request, and what is known of it from the first |
//! | `query`, `conditions`, `body` | parsing the rest of it |
//! | `headers` | the names of our own headers |
//! | `auth` | keys and the rights they carry |
//! | `respond` | replies of a resource as HTTP answers |
//! | `errors` | every refusal with its status and code: the one place that knows both |
//! | `middleware` | around every route: request ids, metrics, access log; rate limit, connections that are to close |
//! | `openapi` | the description of all this for programs |
//! | `asked`, `wire` | the JSON bodies that clients send, and those of answers |
//! | `time` | the times in them |
//! | `server` | starts the workers |
//! | `worker` | what the handlers of one worker share |
//! | `acceptor` | an accepted connection before HTTP |
//! | `connection` | the stream under HTTP: slow heads, what is read ahead |
//! | `connection_limit` | how many connections may be open |
//! | `page` | the operator's page |
//! | `limit` | the rate limit's counters |
//! | `client` | the client's address behind proxies |
//! | `policy` | what may change while the server runs |
//! | `tls` | TLS, and replacing its certificate |

pub mod acceptor;
pub mod asked;
pub mod auth;
pub mod body;
pub mod client;
pub mod conditions;
pub mod connection;
pub mod connection_limit;
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
pub mod respond;
pub mod routes;
pub mod server;
pub mod time;
pub mod tls;
pub mod wire;
pub mod worker;
