//! What has to be stored for a lock to outlive its process. Stores write these rows; the core reads them
//! back with [`super::LockState::restore`].

use super::command::EndReason;
use super::names::{FencingToken, IdempotencyKey, Owner, Seconds, Ticket, WallMillis};

/// One change to the stored rows of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Head(HeadRow),
    /// A waiting ticket was told, or changed.
    Waiting(TicketRow),
    /// A waiting ticket is none any more.
    NotWaiting(Ticket),
    Ended(EndedRow),
}

/// The lock itself: one row per resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeadRow {
    /// The highest token granted so far.
    pub token: FencingToken,
    pub holder: Option<HolderRow>,
}

/// The lease in the head row. Its token is the head's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HolderRow {
    pub ticket: TicketRow,
    pub acquired_at: WallMillis,
}

/// A live ticket, waiting or holding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TicketRow {
    pub ticket: Ticket,
    /// Arrival order within the resource.
    pub seq: u64,
    pub owner: Option<Owner>,
    pub ttl: Option<Seconds>,
    pub key: Option<KeyRow>,
}

/// The attempt that made a ticket, so that its retry finds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRow {
    pub key: IdempotencyKey,
    /// The `ttl` as asked then, whatever a renewal made of it since.
    pub ttl: Option<Seconds>,
}

/// Why a ticket ended. `n` counts the ended tickets of a resource; a store keeps the row in the place
/// `n % ENDED_MAX`, so that the newest ones overwrite the oldest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndedRow {
    pub n: u64,
    pub ticket: Ticket,
    pub reason: EndReason,
}

/// How many ended tickets a resource remembers.
pub const ENDED_MAX: u64 = 64;

impl EndedRow {
    /// The place this row is kept in, 0 to `ENDED_MAX - 1`.
    pub fn slot(&self) -> u8 {
        (self.n % ENDED_MAX) as u8
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
                self.ended.retain(|e| e.slot() != row.slot());
                self.ended.push(row.clone());
            }
        }
    }
}
