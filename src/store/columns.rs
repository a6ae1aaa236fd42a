//! What tables of both SQL stores have in common.

use crate::lock::{ResourceOptions, Seconds};

/// The columns of a live ticket, which are in three tables: of leases in head rows, of other leases, and of waiting
/// tickets.
macro_rules! ticket_columns {
    () => {
        "ticket, seq, owner, ttl_ms, mode, reason, queued_at, attempt, attempt_ttl_ms, attempt_mode"
    };
}

pub(super) use ticket_columns;

/// Of columns of which the last three are `NULL` where they are what most resources have.
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
