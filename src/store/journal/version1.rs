//! Lock changes in the journal format of version 2.0.0. Only read, when a database of that version is opened.
//! (In `postcard` a struct and a tuple of its fields have the same bytes.)

use std::collections::BTreeMap;

use crate::lock::rows::{EndedRow, HeadRow, HolderRow, KeyRow, TicketRow};
use crate::lock::{
    EndReason, FencingToken, IdempotencyKey, Mode, Owner, Seconds, Ticket, WallMillis,
};
use crate::store::snapshot::LockChanges;

/// Head row, waiting tickets, ended tickets with their numbers.
pub(super) type LockChangesV1 = (
    Option<HeadV1>,
    BTreeMap<Ticket, Option<TicketV1>>,
    Vec<(u64, Ticket, EndReason)>,
);

/// The highest token; the lease, and since when it is held.
type HeadV1 = (FencingToken, Option<(TicketV1, WallMillis)>);

/// Ticket, number in the queue, owner, TTL; the `Idempotency-Key`, and the TTL of the request that carried it.
type TicketV1 = (
    Ticket,
    u64,
    Option<Owner>,
    Option<Seconds>,
    Option<(IdempotencyKey, Option<Seconds>)>,
);

/// The changes as they are written today.
pub(super) fn changes((head, waiting, ended): LockChangesV1) -> LockChanges {
    let head = head.map(|(token, lease)| HeadRow {
        token,
        delayed: false,
        holder: lease.map(|(ticket, acquired_at)| {
            Box::new(HolderRow {
                ticket: ticket_row(ticket),
                token,
                acquired_at,
            })
        }),
    });
    let waiting = waiting.into_iter();
    let ended = ended.into_iter().map(|(n, ticket, reason)| EndedRow {
        n,
        ticket,
        reason,
        more: None,
    });
    LockChanges {
        head,
        holding: BTreeMap::new(),
        waiting: waiting.map(|(t, row)| (t, row.map(ticket_row))).collect(),
        ended: ended.collect(),
    }
}

fn ticket_row((ticket, seq, owner, ttl, key): TicketV1) -> TicketRow {
    let key = key.map(|(key, ttl)| KeyRow {
        key,
        ttl: ttl.map(Into::into),
        mode: Mode::Exclusive,
    });
    TicketRow {
        ticket,
        seq,
        owner,
        ttl: ttl.map(Into::into),
        mode: Mode::Exclusive,
        reason: None,
        queued_at: None,
        key: key.map(Box::new),
    }
}
