//! Lock changes in the journal format of version 2.0.0. Only read, when a database of that version is opened.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::lock::rows::{EndedRow, HeadRow, HolderRow, KeyRow, TicketRow};
use crate::lock::{
    EndReason, FencingToken, IdempotencyKey, Mode, Owner, Seconds, Ticket, WallMillis,
};
use crate::store::snapshot::LockChanges;

#[derive(Deserialize)]
pub(super) struct LockChangesV1 {
    head: Option<HeadRowV1>,
    waiting: BTreeMap<Ticket, Option<TicketRowV1>>,
    ended: Vec<EndedRowV1>,
}

#[derive(Deserialize)]
struct HeadRowV1 {
    token: FencingToken,
    holder: Option<HolderRowV1>,
}

#[derive(Deserialize)]
struct HolderRowV1 {
    ticket: TicketRowV1,
    acquired_at: WallMillis,
}

#[derive(Deserialize)]
struct TicketRowV1 {
    ticket: Ticket,
    seq: u64,
    owner: Option<Owner>,
    ttl: Option<Seconds>,
    key: Option<KeyRowV1>,
}

#[derive(Deserialize)]
struct KeyRowV1 {
    key: IdempotencyKey,
    ttl: Option<Seconds>,
}

#[derive(Deserialize)]
struct EndedRowV1 {
    n: u64,
    ticket: Ticket,
    reason: EndReason,
}

impl From<TicketRowV1> for TicketRow {
    fn from(row: TicketRowV1) -> TicketRow {
        TicketRow {
            ticket: row.ticket,
            seq: row.seq,
            owner: row.owner,
            ttl: row.ttl.map(Into::into),
            mode: Mode::Exclusive,
            reason: None,
            queued_at: None,
            key: row.key.map(|row| {
                Box::new(KeyRow {
                    key: row.key,
                    ttl: row.ttl.map(Into::into),
                    mode: Mode::Exclusive,
                })
            }),
        }
    }
}

impl From<HeadRowV1> for HeadRow {
    fn from(row: HeadRowV1) -> HeadRow {
        let holder = |holder: HolderRowV1| HolderRow {
            ticket: holder.ticket.into(),
            token: row.token,
            acquired_at: holder.acquired_at,
        };
        HeadRow {
            token: row.token,
            delayed: false,
            holder: row.holder.map(holder).map(Box::new),
        }
    }
}

impl From<LockChangesV1> for LockChanges {
    fn from(changes: LockChangesV1) -> LockChanges {
        let ended = |row: EndedRowV1| EndedRow {
            n: row.n,
            ticket: row.ticket,
            reason: row.reason,
            more: None,
        };
        let waiting = changes.waiting.into_iter();
        LockChanges {
            head: changes.head.map(Into::into),
            holding: BTreeMap::new(),
            waiting: waiting.map(|(t, row)| (t, row.map(Into::into))).collect(),
            ended: changes.ended.into_iter().map(ended).collect(),
        }
    }
}
