//! What can be asked of a lock, and what is answered.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::names::{
    FencingToken, IdempotencyKey, Millis, Mode, Owner, Reason, Ticket, TicketId, Ttl, WallMillis,
};
use super::rows::{EndReason, Forced, LockChanges};

/// Id of an open request, unique in this process.
pub type RequestId = u64;

/// Which ticket a request presents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PresentedTicket {
    /// None.
    Absent,
    /// One that looks like ours.
    Ticket(Ticket),
    /// Some text that can never have been ours.
    Malformed,
}

impl PresentedTicket {
    /// One that looks like ours.
    pub fn ticket(self) -> Option<Ticket> {
        match self {
            PresentedTicket::Ticket(ticket) => Some(ticket),
            PresentedTicket::Absent | PresentedTicket::Malformed => None,
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
    /// `queue=0` with a wait: take a place, and leave it with the refusal at this instant.
    UntilThenLeave(Millis),
    /// Take a place and answer when granted, however long that takes.
    Forever,
    /// Take a place, or renew, and neither grant nor answer: what the answer needs is being loaded. The same
    /// request comes again when it is there, or vanishes.
    Loading,
}

impl Patience {
    /// How long the request may be parked: `None`, not at all; `Some(None)`, without limit.
    pub(super) fn deadline(self) -> Option<Option<Millis>> {
        match self {
            Patience::Never | Patience::Poll | Patience::Loading => None,
            Patience::Until(at) | Patience::UntilThenLeave(at) => Some(Some(at)),
            Patience::Forever => Some(None),
        }
    }
}

/// What somebody who asks for the lock wants, besides waiting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Wish {
    pub owner: Option<Owner>,
    pub ttl: Option<Ttl>,
    /// `None`: that of the live ticket, else exclusive.
    pub mode: Option<Mode>,
    pub reason: Option<Reason>,
    pub key: Option<IdempotencyKey>,
    pub client: Option<IpAddr>,
    /// Another instance asks for somebody, and chose the id of the ticket to make: a copy of the request finds
    /// the ticket by it, and its place is stored at once.
    pub relayed: bool,
}

impl Wish {
    pub(super) fn mode(&self) -> Mode {
        self.mode.unwrap_or_default()
    }
}

/// A request for the lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LockRequest {
    pub request: RequestId,
    pub presented: PresentedTicket,
    /// The id of the ticket to make if one has to be made.
    pub fresh: Ticket,
    pub wish: Wish,
    pub patience: Patience,
}

/// One thing to do to a lock. `request` names who is to be answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// GET `lock=1` and `lock`: keep, take or queue for the lock.
    Acquire(LockRequest),
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
        ttl: Option<Ttl>,
        /// The lease ends a TTL from now, also if that is earlier than it would have.
        exact: bool,
    },
    Unlock {
        request: RequestId,
        presented: PresentedTicket,
    },
    /// End all leases there are, or only the one with this token.
    ForceUnlock {
        request: RequestId,
        token: Option<FencingToken>,
        forced: Box<Forced>,
    },
    /// End a waiting ticket that is not the caller's.
    RemoveWaiter {
        request: RequestId,
        waiter: TicketId,
        forced: Box<Forced>,
    },
    /// May this caller delete the resource now? If so every waiter is answered [`Answer::Refused(Refusal::NoResource)`].
    Delete {
        request: RequestId,
        presented: PresentedTicket,
    },
    /// The client of this request is gone: before it was answered, or before the answer reached it.
    Vanished { request: RequestId },
    /// Time passed; nothing else happened.
    Tick,
}

impl Command {
    /// The ticket that comes with it, where one may come.
    pub fn presented(&self) -> Option<PresentedTicket> {
        match self {
            Command::Acquire(LockRequest { presented, .. })
            | Command::Touch { presented, .. }
            | Command::Write { presented, .. }
            | Command::Renew { presented, .. }
            | Command::Unlock { presented, .. }
            | Command::Delete { presented, .. } => Some(*presented),
            Command::ForceUnlock { .. }
            | Command::RemoveWaiter { .. }
            | Command::Vanished { .. }
            | Command::Tick => None,
        }
    }
}

/// What a lease looks like from outside. Never a ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderView {
    pub owner: Option<Owner>,
    pub reason: Option<Reason>,
    pub mode: Mode,
    pub acquired_at: WallMillis,
    /// `None`: does not expire. While the grant is on its way to the client: counted from now.
    pub expires_at: Option<WallMillis>,
    /// What is left until then, by the server's own clock.
    pub expires_in_ms: Option<Millis>,
    pub token: FencingToken,
    /// When it took its place in the queue. `None`: it was granted as it arrived.
    pub queued_at: Option<WallMillis>,
    /// When its ticket was presented last. `None`: not since a restart.
    pub renewed_at: Option<WallMillis>,
    pub client: Option<IpAddr>,
}

/// What a place in the queue looks like from outside. Never a ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceView {
    pub id: TicketId,
    /// 1 is next in line.
    pub position: usize,
    pub owner: Option<Owner>,
    pub reason: Option<Reason>,
    pub mode: Mode,
    pub waiting_since: WallMillis,
    pub last_seen_at: WallMillis,
    pub near: bool,
    pub client: Option<IpAddr>,
}

/// What a live ticket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    Holder,
    /// With its position.
    Waiting(usize),
}

/// A grant as its holder sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub ticket: Ticket,
    pub holder: HolderView,
    /// The lease's TTL; zero: does not expire.
    pub ttl: Ttl,
    /// From the arrival of this request to the grant; 0 for a ticket that held already.
    pub waited_ms: Millis,
    /// True when this request made the lease, false when it found its holder.
    pub new: bool,
    /// Why the ticket that was presented instead had ended, if that is known.
    pub ended: Death,
}

/// Why the lock cannot be had now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedBy {
    /// The first lease of somebody else; `None` while the lock is reserved.
    pub holder: Option<HolderView>,
    /// For a waiter, or for nobody while the lock-delay runs.
    pub reserved: bool,
}

/// Why a request is refused: by the lock, or by the resource that it is of. `http` gives each its status and code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The lock is someone else's, and the caller did not want to wait.
    Locked(Box<LockedBy>),
    /// A waiting ticket asked for something only a holder can have.
    NotHolder,
    /// A holder or waiter of the shared mode asked for what takes an exclusive one.
    NotExclusive,
    /// The shared mode, on a resource with several slots.
    ModeNotOffered,
    /// A waiting ticket asked for another mode than its own.
    ModeDiffers,
    /// A ticket that waits already came with `queue=0` and a wait.
    WaitsAlready,
    /// A dead or unknown ticket.
    Dead(Death),
    /// A dead ticket that was ended by force, where it is known by whom.
    DeadByForce(Box<Forced>),
    TicketMissing,
    KeyReused,
    TooManyWaiters,
    /// Force-unlock named a lease that does not hold.
    OtherLease,
    /// The waiter to remove does not wait.
    NotWaiting,
    /// There is none of this name, or it was deleted while this request waited.
    NoResource,
    /// A resource of this name exists already.
    Exists,
    /// Nothing was ever written there; with the fencing token, where the holder asked.
    NoSelector(Option<FencingToken>),
    /// The condition of a write does not hold; with the fencing token, where the holder asked.
    ConditionFailed(Option<FencingToken>),
    /// The resource has so many, which is the most it can have.
    TooManySelectors(usize),
    /// The store cannot hold the document.
    TooLargeToStore,
    /// The store would not take the change, for what it contains.
    NotStored,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The lock is this ticket's.
    Granted(Box<Grant>),
    /// Not yet: retry with this ticket. `position` 1 is next in line.
    Queued {
        ticket: Ticket,
        position: usize,
        ended: Death,
    },
    /// The write may happen now, in this very step. The token when the caller holds the lock (or held it
    /// until this step released it).
    Writable {
        token: Option<FencingToken>,
    },
    /// The resource may be deleted now, in this very step.
    Deletable,
    Renewed {
        ttl: Ttl,
        expires_at: Option<WallMillis>,
        expires_in_ms: Option<Millis>,
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
    /// How the leases looked that were forced off.
    Forced(Vec<HolderView>),
    /// `false`: this ticket had been ended by force before.
    WaiterRemoved(bool),
    Refused(Refusal),
}

impl Answer {
    /// Whether the core has to hear what became of this answer: [`LockState::delivered`](super::LockState::delivered)
    /// or [`Command::Vanished`].
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
    pub changes: LockChanges,
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
    /// The only holder, shared so far, has the lock to itself now, under a new token.
    Promoted {
        from: FencingToken,
        holder: HolderView,
    },
    /// An exclusive holder lets others share.
    Demoted(HolderView),
    Ended {
        reason: EndReason,
        holder: HolderView,
    },
    /// A grant found its client gone and was taken back.
    TakenBack(FencingToken),
    /// A waiting ticket was not presented for too long.
    WaiterDropped,
    /// A waiting ticket was ended by somebody else.
    WaiterRemoved {
        owner: Option<Owner>,
        mode: Mode,
    },
}
