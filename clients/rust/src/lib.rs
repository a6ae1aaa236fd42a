//! A client of the small-resource-server.

#![forbid(unsafe_code)]
