//! The stored rows of a lock, by which it outlives its process. Stores write and read them; the core restores a
//! lock from them with [`super::LockState::restore`].
//!
//! The journal stores them serialised. The order of fields is part of that format.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::names::{
    FencingToken, IdempotencyKey, KeyName, Millis, Mode, Owner, Reason, Ticket, Ttl, WallMillis,
};

/// Why a ticket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EndReason {
    Released,
    Expired,
    ForcedOff,
}

impl EndReason {
    /// The `code` of a 403, and the value of `X-Ticket-Ended`.
    pub fn code(self) -> &'static str {
        match self {
            EndReason::Released => "ticket_released",
            EndReason::Expired => "lease_expired",
            EndReason::ForcedOff => "lease_forced_off",
        }
    }
}

/// The head row of a lock: one for each resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeadRow {
    /// The highest token granted so far.
    pub token: FencingToken,
    /// The lock-delay runs: the lock is granted to nobody.
    pub delayed: bool,
    /// The lease with the lowest token. Other leases have rows of their own; most locks have none.
    ///
    /// Boxed: changes are moved several times, and most are smaller than this row.
    pub holder: Option<Box<HolderRow>>,
}

/// One lease: in the head row, or in a row of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HolderRow {
    pub ticket: TicketRow,
    pub token: FencingToken,
    pub acquired_at: WallMillis,
}

/// A live ticket, waiting or holding.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TicketRow {
    pub ticket: Ticket,
    /// Arrival number within the resource.
    pub seq: u64,
    pub owner: Option<Owner>,
    pub ttl: Option<Ttl>,
    pub mode: Mode,
    pub reason: Option<Reason>,
    /// When the ticket took its place in the queue. `None`: it did not wait, or an earlier version stored it.
    pub queued_at: Option<WallMillis>,
    /// Boxed: most tickets have none.
    pub key: Option<Box<KeyRow>>,
}

/// The idempotency key of the request that made a ticket, so that a retry finds the ticket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyRow {
    pub key: IdempotencyKey,
    /// The `ttl` and mode that the request asked for. Those of the ticket may have changed since.
    pub ttl: Option<Ttl>,
    pub mode: Mode,
}

/// One ended ticket. A store deletes the rows for which [`EndedRow::is_outlived_by`] holds of a newer row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndedRow {
    /// Number within the resource, in the order in which its tickets ended; used once.
    pub n: u64,
    pub ticket: Ticket,
    pub reason: EndReason,
    /// Boxed: most tickets have none.
    pub more: Option<Box<EndedMore>>,
}

/// What is remembered of some ended tickets besides the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndedMore {
    /// The idempotency key that made the ticket, and its owner: a late copy of the request must not take the lock.
    pub attempt: Option<(KeyRow, Option<Owner>)>,
    pub forced: Option<Forced>,
}

/// Who ended somebody else's lease or place in the queue, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Forced {
    pub reason: Reason,
    /// Name of the key that the caller presented.
    pub by: KeyName,
}

/// How many ended tickets a resource remembers at most.
pub const ENDED_MAX: u64 = 64;
/// How long a resource remembers an ended ticket.
pub const ENDED_MS: Millis = 300_000;

impl EndedRow {
    /// Whether this row is no longer among the newest [`ENDED_MAX`] once there is a row with the number `n`.
    pub fn is_outlived_by(&self, n: u64) -> bool {
        n.saturating_sub(self.n) >= ENDED_MAX
    }
}

/// All stored rows of one lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LockRows {
    pub head: HeadRow,
    /// All leases but the one in the head row, in any order.
    pub holding: Vec<HolderRow>,
    /// In any order.
    pub waiting: Vec<TicketRow>,
    /// In any order.
    pub ended: Vec<EndedRow>,
}

/// The changed rows of one lock: the output of a step, and the content of batches and of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockChanges {
    pub head: Option<HeadRow>,
    /// Leases with rows of their own: added or changed (`Some`) and removed (`None`).
    pub holding: BTreeMap<Ticket, Option<HolderRow>>,
    /// Waiting tickets added or changed (`Some`) and removed (`None`).
    pub waiting: BTreeMap<Ticket, Option<TicketRow>>,
    /// In the order of their numbers.
    pub ended: Vec<EndedRow>,
}

impl LockChanges {
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// How many rows are changed.
    pub fn rows(&self) -> usize {
        usize::from(self.head.is_some())
            + self.holding.len()
            + self.waiting.len()
            + self.ended.len()
    }

    /// Adds or changes a lease that is not in the head row.
    pub fn hold(&mut self, row: HolderRow) {
        self.holding.insert(row.ticket.ticket, Some(row));
    }

    /// Adds or changes a waiting ticket.
    pub fn wait(&mut self, row: TicketRow) {
        self.waiting.insert(row.ticket, Some(row));
    }

    /// Removes a waiting ticket.
    pub fn leave(&mut self, ticket: Ticket) {
        self.waiting.insert(ticket, None);
    }

    /// Adds a newer ended ticket, and drops those that are no longer among the newest [`ENDED_MAX`].
    pub fn end(&mut self, row: EndedRow) {
        self.ended.push(row);
        if let [oldest, .., newest] = &self.ended[..]
            && oldest.is_outlived_by(newest.n)
        {
            let newest = newest.n;
            let outlived = self.ended.partition_point(|e| e.is_outlived_by(newest));
            self.ended.drain(..outlived);
        }
    }

    /// Adds later changes: storing the result has the same effect as storing both in turn.
    pub fn merge(&mut self, later: &LockChanges) {
        if later.head.is_some() {
            self.head.clone_from(&later.head);
        }
        for (ticket, row) in &later.holding {
            self.holding.insert(*ticket, row.clone());
        }
        for (ticket, row) in &later.waiting {
            self.waiting.insert(*ticket, row.clone());
        }
        for row in &later.ended {
            self.end(row.clone());
        }
    }

    /// Applies these changes to rows read from a store. The rows may contain the changes already.
    pub fn overlay(&self, rows: &mut LockRows) {
        if let Some(head) = &self.head {
            rows.head.clone_from(head);
        }
        rows.holding
            .retain(|row| !self.holding.contains_key(&row.ticket.ticket));
        rows.holding
            .extend(self.holding.values().flatten().cloned());
        rows.waiting
            .retain(|row| !self.waiting.contains_key(&row.ticket));
        rows.waiting
            .extend(self.waiting.values().flatten().cloned());
        let known = |n| self.ended.binary_search_by_key(&n, |row| row.n).is_ok();
        rows.ended.retain(|row| !known(row.n));
        rows.ended.extend(self.ended.iter().cloned());
        if let Some(newest) = rows.ended.iter().map(|row| row.n).max() {
            rows.ended.retain(|row| !row.is_outlived_by(newest));
        }
    }
}
