//! Columns that the tables of both SQL stores have.

use crate::lock::{ResourceOptions, Seconds};

/// The columns of a live ticket. Three tables have them: head rows (`resource_lock`), further leases
/// (`resource_holding`) and waiting tickets (`resource_ticket`).
macro_rules! ticket_columns {
    () => {
        "ticket, seq, owner, ttl_ms, mode, reason, queued_at, attempt, attempt_ttl_ms, attempt_mode"
    };
}

pub(super) use ticket_columns;

/// The options in these columns. The last three are `NULL` where a resource has the default.
pub(super) fn options(
    timeout: Seconds,
    slots: Option<u16>,
    lock_delay: Option<u8>,
    ephemeral: Option<bool>,
) -> ResourceOptions {
    let plain = ResourceOptions::plain(timeout);
    ResourceOptions {
        timeout,
        slots: slots.unwrap_or(plain.slots),
        lock_delay: lock_delay.unwrap_or(plain.lock_delay),
        ephemeral: ephemeral.unwrap_or(plain.ephemeral),
    }
}
