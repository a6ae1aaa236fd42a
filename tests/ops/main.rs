//! What people who run the server see of it: metrics, log lines, listings that show what is stuck, the
//! OpenAPI document. Each test runs the built program in a process of its own, since that has the log.

mod session;
#[path = "../support/mod.rs"]
mod support;

mod dashboard;
mod holders;
mod logs;
mod metrics;
mod openapi;
mod operation;
mod page;
mod request_ids;
