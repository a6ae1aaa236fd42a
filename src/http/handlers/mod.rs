//! One short function per route: it reads the request, sends one message and maps the reply to an answer.

pub mod data;
pub mod events;
pub mod history;
pub mod locks;
pub mod resources;
pub mod status;
