//! What tables of both SQL stores have in common.

/// The columns of a live ticket, which are in three tables: of leases in head rows, of other leases, and of waiting
/// tickets.
macro_rules! ticket_columns {
    () => {
        "ticket, seq, owner, ttl_ms, mode, reason, queued_at, attempt, attempt_ttl_ms, attempt_mode"
    };
}

pub(super) use ticket_columns;
