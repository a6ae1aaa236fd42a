//! What has to be stored for a lock to outlive its process. Stores write these rows; the core reads them
//! back with [`super::LockState::restore`].
//!
//! They can be serialised, for stores that keep changes one after another: the order of fields is part of that
//! form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::names::{
    FencingToken, IdempotencyKey, KeyName, Mode, Owner, Reason, Ticket, Ttl, WallMillis,
};

/// Why a ticket ended. The text is the `code` of a 403 and the value of `X-Ticket-Ended`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EndReason {
    Released,
    Expired,
    ForcedOff,
}

impl EndReason {
    pub fn code(self) -> &'static str {
        match self {
            EndReason::Released => "ticket_released",
            EndReason::Expired => "lease_expired",
            EndReason::ForcedOff => "lease_forced_off",
        }
    }
}

/// The lock itself: one row per resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeadRow {
    /// The highest token granted so far.
    pub token: FencingToken,
    /// The lock-delay runs: nobody is granted.
    pub delayed: bool,
    /// The lease that began while there was no other in this row: most locks have no more than one.
    ///
    /// Boxed: a change is handed on several times, and most are smaller.
    pub holder: Option<Box<HolderRow>>,
}

/// A lease.
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
    /// Arrival order within the resource.
    pub seq: u64,
    pub owner: Option<Owner>,
    pub ttl: Option<Ttl>,
    pub mode: Mode,
    pub reason: Option<Reason>,
    /// When it took its place in the queue. `None`: it was granted as it arrived.
    pub queued_at: Option<WallMillis>,
    /// Boxed: most have none.
    pub key: Option<Box<KeyRow>>,
}

/// The attempt that made a ticket, so that its retry finds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyRow {
    pub key: IdempotencyKey,
    /// The `ttl` and mode as asked then, whatever was made of them since.
    pub ttl: Option<Ttl>,
    pub mode: Mode,
}

/// Why a ticket ended. `n` counts the ended tickets of a resource and is given out once; a store forgets those
/// that [`EndedRow::is_outlived_by`] a later one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndedRow {
    pub n: u64,
    pub ticket: Ticket,
    pub reason: EndReason,
    /// Most have nothing to add.
    pub more: Option<Box<EndedMore>>,
}

/// What is remembered of an ended ticket besides its reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndedMore {
    /// The attempt that made it: a late copy of that request must not take the lock anew.
    pub attempt: Option<EndedAttempt>,
    pub forced: Option<Forced>,
}

/// The attempt that made a ticket which has ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndedAttempt {
    pub key: KeyRow,
    pub owner: Option<Owner>,
}

/// Who ended a lease or a place in the queue from above, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Forced {
    pub reason: Reason,
    pub by: KeyName,
}

/// How many ended tickets a resource remembers.
pub const ENDED_MAX: u64 = 64;

impl TicketRow {
    /// The attempt that made this ticket, for when it has ended.
    pub(super) fn attempt(&self) -> Option<EndedAttempt> {
        self.key.as_ref().map(|key| EndedAttempt {
            key: KeyRow::clone(key),
            owner: self.owner.clone(),
        })
    }
}

impl EndedRow {
    /// Whether this row is none of the newest [`ENDED_MAX`] once the row with the number `n` is there.
    pub fn is_outlived_by(&self, n: u64) -> bool {
        n.saturating_sub(self.n) >= ENDED_MAX
    }
}

/// All stored rows of one lock, as they are read back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LockRows {
    pub head: HeadRow,
    /// The leases beside the one in the head row, in any order.
    pub holding: Vec<HolderRow>,
    /// In any order.
    pub waiting: Vec<TicketRow>,
    /// In any order.
    pub ended: Vec<EndedRow>,
}

/// The changed rows of one lock: what a step of the core wants stored, and what batches and the journal carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockChanges {
    pub head: Option<HeadRow>,
    /// Leases beside the one in the head row, begun or changed (`Some`) and ended (`None`).
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

    /// How many rows it touches.
    pub fn rows(&self) -> usize {
        usize::from(self.head.is_some())
            + self.holding.len()
            + self.waiting.len()
            + self.ended.len()
    }

    /// A lease beside the one in the head row began, or changed.
    pub fn hold(&mut self, row: HolderRow) {
        self.holding.insert(row.ticket.ticket, Some(row));
    }

    /// A waiting ticket was told, or changed.
    pub fn wait(&mut self, row: TicketRow) {
        self.waiting.insert(row.ticket, Some(row));
    }

    /// A waiting ticket is none any more.
    pub fn leave(&mut self, ticket: Ticket) {
        self.waiting.insert(ticket, None);
    }

    /// A ticket ended.
    pub fn end(&mut self, row: EndedRow) {
        match self.ended.last() {
            // Out of order only where rows were read in any order.
            Some(last) if last.n > row.n => {
                let place = self.ended.partition_point(|earlier| earlier.n < row.n);
                self.ended.insert(place, row);
            }
            _ => self.ended.push(row),
        }
        if let [oldest, .., newest] = &self.ended[..]
            && oldest.is_outlived_by(newest.n)
        {
            let newest = newest.n;
            let outlived = self.ended.partition_point(|e| e.is_outlived_by(newest));
            self.ended.drain(..outlived);
        }
    }

    /// Adds later changes, so that storing the result equals storing both in turn.
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

    /// What stored rows look like once these changes are stored, too. Harmless where they are already.
    pub fn overlay(&self, rows: &mut LockRows) {
        if let Some(head) = &self.head {
            rows.head.clone_from(head);
        }
        if !self.holding.is_empty() {
            rows.holding
                .retain(|row| !self.holding.contains_key(&row.ticket.ticket));
            rows.holding
                .extend(self.holding.values().flatten().cloned());
        }
        if !self.waiting.is_empty() {
            rows.waiting
                .retain(|row| !self.waiting.contains_key(&row.ticket));
            rows.waiting
                .extend(self.waiting.values().flatten().cloned());
        }
        if !self.ended.is_empty() {
            let mut ended = LockChanges::default();
            let known = |n| self.ended.binary_search_by_key(&n, |row| row.n).is_ok();
            let stored = std::mem::take(&mut rows.ended).into_iter();
            let stored = stored.filter(|row| !known(row.n));
            stored
                .chain(self.ended.iter().cloned())
                .for_each(|row| ended.end(row));
            rows.ended = ended.ended;
        }
    }
}
