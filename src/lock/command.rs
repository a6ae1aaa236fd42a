//! What can be asked of a lock, and what is answered.

use serde::{Deserialize, Serialize};

use super::names::{FencingToken, IdempotencyKey, Millis, Owner, Seconds, Ticket, WallMillis};
use super::rows::Change;

/// Id of an open request, unique in this process.
pub type RequestId = u64;

/// Which ticket a request presents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PresentedTicket {
    /// None.
    Absent,
    /// One that looks like ours.
    Ticket(Ticket),
    /// Some text that can never have been ours.
    Malformed,
}

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

/// Why a ticket is dead: the reason when it is still known.
pub type Death = Option<EndReason>;

/// What to do while the lock is someone else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Patience {
    /// `queue=0`: refuse at once and take no place.
    Never,
    /// Take a place and answer at once.
    Poll,
    /// Take a place and answer when granted, at the latest at this instant.
    Until(Millis),
    /// Take a place and answer when granted, however long that takes.
    Forever,
}

/// One thing to do to a lock. `request` names who is to be answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// GET `lock=1` and `lock`: keep, take or queue for the lock.
    Acquire {
        request: RequestId,
        presented: PresentedTicket,
        /// The id of the ticket to make if one has to be made.
        fresh: Ticket,
        owner: Option<Owner>,
        ttl: Option<Seconds>,
        key: Option<IdempotencyKey>,
        patience: Patience,
    },
    /// A live ticket was presented with lock intent, and nothing else is wanted: keep its place, renew
    /// its lease. Takes no lock and no place. (GET `lock=1` that ends in 404; a request that is refused
    /// for load.)
    Touch {
        request: RequestId,
        presented: PresentedTicket,
    },
    /// May this caller change data now? In a profile whose refused writes wait, `patience` says how long
    /// and `fresh` is the id of the ticket, told to nobody, that holds the place meanwhile.
    Write {
        request: RequestId,
        presented: PresentedTicket,
        fresh: Ticket,
        /// `?unlock=1`: release in the same step.
        release: bool,
        patience: Patience,
    },
    Renew {
        request: RequestId,
        presented: PresentedTicket,
        ttl: Option<Seconds>,
    },
    Unlock {
        request: RequestId,
        presented: PresentedTicket,
    },
    /// End whatever lease there is, or only the one with this token.
    ForceUnlock {
        request: RequestId,
        token: Option<FencingToken>,
    },
    /// May this caller delete the resource now? If so every waiter is answered [`Answer::Gone`].
    Delete {
        request: RequestId,
        presented: PresentedTicket,
    },
    /// The client of this request is gone: before it was answered, or before the answer reached it.
    Vanished { request: RequestId },
    /// The answer of this request went out to a connection that was still there.
    Delivered { request: RequestId },
    /// Time passed; nothing else happened.
    Tick,
}

impl Command {
    /// The ticket that comes with it, where one may come.
    pub fn presented(&self) -> Option<PresentedTicket> {
        match self {
            Command::Acquire { presented, .. }
            | Command::Touch { presented, .. }
            | Command::Write { presented, .. }
            | Command::Renew { presented, .. }
            | Command::Unlock { presented, .. }
            | Command::Delete { presented, .. } => Some(*presented),
            Command::ForceUnlock { .. }
            | Command::Vanished { .. }
            | Command::Delivered { .. }
            | Command::Tick => None,
        }
    }
}

/// What a lease looks like from outside. Never a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderView {
    pub owner: Option<Owner>,
    pub acquired_at: WallMillis,
    /// `None`: does not expire. While the grant is on its way to the client: counted from now.
    pub expires_at: Option<WallMillis>,
    pub token: FencingToken,
}

/// A grant as its holder sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub ticket: Ticket,
    pub holder: HolderView,
    /// The lease's TTL in seconds; 0: does not expire.
    pub ttl: Seconds,
    /// True when this request made the lease, false when it found its holder.
    pub new: bool,
    /// Why the ticket that was presented instead had ended, if that is known.
    pub ended: Death,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The lock is this ticket's.
    Granted(Box<Grant>),
    /// Not yet: retry with this ticket. `position` 1 is next in line.
    Queued {
        ticket: Ticket,
        position: usize,
        ended: Death,
    },
    /// Someone else's, and the caller did not want to wait. `None`: reserved for a waiter.
    Locked(Option<HolderView>),
    /// The write may happen now, in this very step. The token when the caller holds the lock (or held it
    /// until this step released it).
    Writable {
        token: Option<FencingToken>,
    },
    /// The resource may be deleted now, in this very step.
    Deletable,
    Renewed {
        ttl: Seconds,
        expires_at: Option<WallMillis>,
        token: FencingToken,
    },
    /// `dead`: the ticket had ended before, and the profile does not mind.
    Unlocked {
        dead: Option<Death>,
    },
    /// Nothing was changed; says whether the ticket is alive.
    Touched {
        live: bool,
    },
    /// How the lease looked that was forced off; `None` when there was none.
    Forced(Option<HolderView>),
    /// A waiting ticket asked for something only a holder can have.
    NotHolder,
    /// A dead or unknown ticket.
    Dead(Death),
    TicketMissing,
    KeyReused,
    TooManyWaiters,
    /// Force-unlock named a lease that does not hold.
    OtherLease,
    /// The resource was deleted while this request waited.
    Gone,
}

impl Answer {
    /// Whether the core has to hear what became of this answer: [`Command::Delivered`] or
    /// [`Command::Vanished`].
    pub fn is_tracked(&self) -> bool {
        matches!(
            self,
            Answer::Granted(_) | Answer::Queued { .. } | Answer::Writable { .. }
        )
    }
}

/// Everything that follows from one command, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Who is to be told what, once `changes` are durable.
    pub answers: Vec<(RequestId, Answer)>,
    /// What has to be stored.
    pub changes: Vec<Change>,
    /// What happened, for log lines and metrics.
    pub events: Vec<Event>,
}

impl Outcome {
    /// Nobody is answered and nothing has to be stored or told.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.changes.is_empty() && self.events.is_empty()
    }
}

/// Something worth a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Granted(HolderView),
    Ended {
        reason: EndReason,
        holder: HolderView,
    },
    /// A grant found its client gone and was taken back.
    TakenBack(FencingToken),
    /// A waiting ticket was not presented for too long.
    WaiterDropped,
}
