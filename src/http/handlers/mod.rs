//! One short function per route: extract, convert, one message, map one reply.

pub mod data;
pub mod events;
pub mod history;
pub mod locks;
pub mod resources;
pub mod status;
