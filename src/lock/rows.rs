//! What has to be stored for a lock to outlive its process. Stores write these rows; the core reads them
//! back with [`super::LockState::restore`].
//!
//! They can be serialised, for stores that keep changes one after another: the order of variants and fields
//! is part of that form.

use serde::{Deserialize, Serialize};

use super::command::EndReason;
use super::names::{FencingToken, IdempotencyKey, Owner, Seconds, Ticket, WallMillis};

/// One change to the stored rows of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    Head(HeadRow),
    /// A waiting ticket was told, or changed.
    Waiting(TicketRow),
    /// A waiting ticket is none any more.
    NotWaiting(Ticket),
    Ended(EndedRow),
}

/// The lock itself: one row per resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeadRow {
    /// The highest token granted so far.
    pub token: FencingToken,
    /// Boxed: a change is handed on several times, and most are smaller.
    pub holder: Option<Box<HolderRow>>,
}

/// The lease in the head row. Its token is the head's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HolderRow {
    pub ticket: TicketRow,
    pub acquired_at: WallMillis,
}

/// A live ticket, waiting or holding.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TicketRow {
    pub ticket: Ticket,
    /// Arrival order within the resource.
    pub seq: u64,
    pub owner: Option<Owner>,
    pub ttl: Option<Seconds>,
    pub key: Option<KeyRow>,
}

/// The attempt that made a ticket, so that its retry finds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyRow {
    pub key: IdempotencyKey,
    /// The `ttl` as asked then, whatever a renewal made of it since.
    pub ttl: Option<Seconds>,
}

/// Why a ticket ended. `n` counts the ended tickets of a resource and is given out once; a store forgets those
/// that [`EndedRow::is_outlived_by`] a later one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndedRow {
    pub n: u64,
    pub ticket: Ticket,
    pub reason: EndReason,
}

/// How many ended tickets a resource remembers.
pub const ENDED_MAX: u64 = 64;

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
    /// In any order.
    pub waiting: Vec<TicketRow>,
    /// In any order.
    pub ended: Vec<EndedRow>,
}

impl LockRows {
    /// What the stored rows look like after `change`; the reference that stores are measured against.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Head(head) => self.head = head.clone(),
            Change::Waiting(row) => {
                self.waiting.retain(|w| w.ticket != row.ticket);
                self.waiting.push(row.clone());
            }
            Change::NotWaiting(ticket) => self.waiting.retain(|w| w.ticket != *ticket),
            Change::Ended(row) => {
                let newest = self.ended.iter().map(|e| e.n).fold(row.n, u64::max);
                self.ended.push(row.clone());
                self.ended.retain(|e| !e.is_outlived_by(newest));
            }
        }
    }
}
