//! What has to be stored for a lock to outlive its process. Stores write these rows; the core reads them
//! back with [`super::LockState::restore`].
//!
//! They can be serialised, for stores that keep changes one after another: the order of variants and fields
//! is part of that form.

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

/// One change to the stored rows of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    Head(HeadRow),
    /// A lease beside the one in the head row began, or changed.
    Holding(Box<HolderRow>),
    /// A lease beside the one in the head row is none any more.
    NotHolding(Ticket),
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
    pub key: Option<KeyRow>,
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
            key: key.clone(),
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

impl LockRows {
    /// What the stored rows look like after `change`; the reference that stores are measured against.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Head(head) => self.head = head.clone(),
            Change::Holding(row) => {
                self.holding
                    .retain(|h| h.ticket.ticket != row.ticket.ticket);
                self.holding.push(HolderRow::clone(row));
            }
            Change::NotHolding(ticket) => self.holding.retain(|h| h.ticket.ticket != *ticket),
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
