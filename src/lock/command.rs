//! The commands to a lock, and their answers, refusals and events.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::names::{
    FencingToken, IdempotencyKey, Millis, Mode, Now, Owner, Reason, Ticket, TicketId, Ttl,
    WallMillis,
};
use super::rows::{EndReason, Forced, LockChanges, TicketRow};

/// Id of an open request, unique in this process.
pub type RequestId = u64;

/// The ticket that a request presents in `X-Ticket`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PresentedTicket {
    /// No ticket.
    Absent,
    /// Text in the form of a ticket, live or not.
    Ticket(Ticket),
    /// Text that no ticket of this server can be.
    Malformed,
}

impl PresentedTicket {
    /// The ticket, unless it is absent or malformed.
    pub fn ticket(self) -> Option<Ticket> {
        match self {
            PresentedTicket::Ticket(ticket) => Some(ticket),
            PresentedTicket::Absent | PresentedTicket::Malformed => None,
        }
    }
}

/// Why a ticket ended. `None`: the ticket is unknown, or its end is no longer remembered.
pub type Death = Option<EndReason>;

/// What a request does while the lock is someone else's. Times are on the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitPolicy {
    /// `queue=0`: take no place, and be refused at once.
    Never,
    /// Take a place, and be answered at once.
    Poll,
    /// Take a place, and be answered when granted, at the latest at this time.
    Until(Millis),
    /// `queue=0` with a wait: take a place, and if not granted by this time, leave it and be refused.
    UntilThenLeave(Millis),
    /// Take a place, and be answered when granted, however long that takes.
    Forever,
    /// First pass of a request whose document is being loaded: take a place or renew the lease, grant nothing,
    /// and answer only a refusal. The same request follows once the document is loaded, or
    /// [`Command::Vanished`] does.
    Loading,
}

impl WaitPolicy {
    /// Until when the request may be parked. `None`: not at all. `Some(None)`: without limit.
    pub(super) fn deadline(self) -> Option<Option<Millis>> {
        match self {
            WaitPolicy::Never | WaitPolicy::Poll | WaitPolicy::Loading => None,
            WaitPolicy::Until(at) | WaitPolicy::UntilThenLeave(at) => Some(Some(at)),
            WaitPolicy::Forever => Some(None),
        }
    }
}

/// What a lock request asks for, besides how it waits ([`WaitPolicy`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LockOptions {
    pub owner: Option<Owner>,
    pub ttl: Option<Ttl>,
    /// `None`: the mode of the live ticket that is presented, else exclusive.
    pub mode: Option<Mode>,
    pub reason: Option<Reason>,
    pub key: Option<IdempotencyKey>,
    pub client: Option<IpAddr>,
    /// Another instance passed this request on and chose the ticket to make, so that a copy of the request finds
    /// that ticket. The place is stored as soon as it is taken.
    pub relayed: bool,
}

impl LockOptions {
    pub(super) fn mode(&self) -> Mode {
        self.mode.unwrap_or_default()
    }
}

/// A request for the lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LockRequest {
    pub request: RequestId,
    pub presented: PresentedTicket,
    /// The ticket to use if this request makes one.
    pub fresh: Ticket,
    pub options: LockOptions,
    pub policy: WaitPolicy,
}

/// One command to a lock. `request` is the open request to answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Lock, and GET `lock=1`: keep the lock, take it, or queue for it.
    Acquire(LockRequest),
    /// Keep the place or renew the lease of the presented ticket, and nothing else: never takes a lock or a
    /// place. For requests with lock intent that are refused for another reason (GET `lock=1` that ends in
    /// 404; a request that is refused for load).
    Touch {
        request: RequestId,
        presented: PresentedTicket,
    },
    /// May this caller change data now? In the profile whose refused writes wait, `policy` says how long.
    /// A write without a live ticket then waits in a place whose ticket is `fresh`, which no client is told.
    Write {
        request: RequestId,
        presented: PresentedTicket,
        fresh: Ticket,
        policy: WaitPolicy,
    },
    Renew {
        request: RequestId,
        presented: PresentedTicket,
        ttl: Option<Ttl>,
        /// The lease ends exactly one TTL from now, even if it would have lasted longer.
        exact: bool,
    },
    Unlock {
        request: RequestId,
        presented: PresentedTicket,
    },
    /// End all leases, or only the lease with this token.
    ForceUnlock {
        request: RequestId,
        token: Option<FencingToken>,
        forced: Box<Forced>,
    },
    /// End somebody else's waiting ticket.
    RemoveWaiter {
        request: RequestId,
        waiter: TicketId,
        forced: Box<Forced>,
    },
    /// May this caller delete the resource now? If so, parked requests get [`Refusal::NoResource`].
    Delete {
        request: RequestId,
        presented: PresentedTicket,
    },
    /// The client of this request disconnected, before the answer was sent or before it was delivered.
    Vanished { request: RequestId },
    /// Time passed: carry out what is due.
    Tick,
}

impl Command {
    /// The ticket of the command's request.
    pub fn presented(&self) -> PresentedTicket {
        match self {
            Command::Acquire(LockRequest { presented, .. })
            | Command::Touch { presented, .. }
            | Command::Write { presented, .. }
            | Command::Renew { presented, .. }
            | Command::Unlock { presented, .. }
            | Command::Delete { presented, .. } => *presented,
            _ => PresentedTicket::Absent,
        }
    }
}

/// A lease as anybody may see it. Never contains the ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderView {
    pub owner: Option<Owner>,
    pub reason: Option<Reason>,
    pub mode: Mode,
    pub acquired_at: WallMillis,
    /// `None`: does not expire. While the answer to the grant is being delivered, the TTL counts from now.
    pub expires_at: Option<WallMillis>,
    /// Time left until then, in ms, by the monotonic clock.
    pub expires_in_ms: Option<Millis>,
    pub token: FencingToken,
    /// When its ticket took its place in the queue. `None`: it was granted without waiting.
    pub queued_at: Option<WallMillis>,
    /// When its ticket was last presented. `None`: not since a restart.
    pub renewed_at: Option<WallMillis>,
    pub client: Option<IpAddr>,
}

impl HolderView {
    /// The lease with these stored values, which ends at `expires` on the monotonic clock.
    pub fn new(
        row: &TicketRow,
        token: FencingToken,
        acquired_at: WallMillis,
        expires: Option<Millis>,
        now: Now,
    ) -> HolderView {
        HolderView {
            owner: row.owner.clone(),
            reason: row.reason.clone(),
            mode: row.mode,
            acquired_at,
            expires_at: expires.map(|at| now.wall_at(at)),
            expires_in_ms: expires.map(|at| at.saturating_sub(now.mono)),
            token,
            queued_at: row.queued_at,
            renewed_at: None,
            client: None,
        }
    }
}

/// A place in the queue as anybody may see it. Never contains the ticket.
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

/// Whether a live ticket holds or waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// With the fencing token of its lease.
    Holder(FencingToken),
    /// With its position in the queue; 1 is next in line.
    Waiting(usize),
}

impl Role {
    /// The fencing token of a holder's lease.
    pub fn token(self) -> Option<FencingToken> {
        match self {
            Role::Holder(token) => Some(token),
            Role::Waiting(_) => None,
        }
    }
}

/// A lease as its holder sees it: the answer to a lock request that was granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub ticket: Ticket,
    pub holder: HolderView,
    /// TTL of the lease. Zero: does not expire.
    pub ttl: Ttl,
    /// Time from the arrival of this request to the grant, in ms. 0 if the ticket held the lock already.
    pub waited_ms: Millis,
    /// `true`: the lock was granted to this request. `false`: its ticket held the lock already.
    pub new: bool,
    /// Why the dead ticket that this request presented had ended, if it presented one and the reason is known.
    pub ended: Death,
}

/// Why the lock or the resource refuses a request. `http/errors.rs` gives each its status and code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The lock is someone else's, and the caller did not want to wait.
    Locked {
        /// The first lease that is not the caller's. `None`: nobody else holds.
        holder: Option<Box<HolderView>>,
        /// The lock is reserved for a waiter, or for nobody while the lock-delay runs.
        reserved: bool,
    },
    /// A waiting ticket asked for something that only a holder may do.
    NotHolder,
    /// A shared holder or waiter asked to change data, which takes the exclusive mode.
    NotExclusive,
    /// The shared mode was asked of a resource with several slots.
    ModeNotOffered,
    /// A waiting ticket asked for a mode other than its own.
    ModeDiffers,
    /// A waiting ticket was presented with `queue=0` and a wait.
    WaitsAlready,
    /// The presented ticket has ended or is unknown.
    Dead(Death),
    /// The presented ticket was ended by force, and it is still known by whom and why.
    DeadByForce(Box<Forced>),
    TicketMissing,
    /// The idempotency key was used with another owner, `ttl` or mode.
    KeyReused,
    TooManyWaiters,
    /// Force-unlock named a fencing token that is not the token of a live lease.
    OtherLease,
    /// The ticket to remove from the queue does not wait.
    NotWaiting,
    /// The resource does not exist, or was deleted while this request waited.
    NoResource,
    /// A resource of this name exists already.
    Exists,
    /// The resource has no document at this selector.
    NoSelector,
    /// The condition of a write does not hold.
    ConditionFailed,
    /// The resource has this many selectors already, which is the most it can have.
    TooManySelectors(usize),
    /// The document is larger than the store can hold.
    TooLargeToStore,
    /// The store rejected the change for its content.
    NotStored,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The ticket holds the lock.
    Granted(Box<Grant>),
    /// The ticket waits: ask again with it. `position` 1 is next in line.
    Queued {
        ticket: Ticket,
        position: usize,
        ended: Death,
    },
    /// The write may happen now, with the changes of this step. `token`: that of the caller's lease, if it has one.
    Writable {
        token: Option<FencingToken>,
    },
    /// The resource may be deleted now, with the changes of this step.
    Deletable,
    Renewed {
        ttl: Ttl,
        expires_at: Option<WallMillis>,
        expires_in_ms: Option<Millis>,
        token: FencingToken,
    },
    /// `dead`: the ticket had ended before, and the profile answers that with success all the same.
    Unlocked {
        dead: Option<Death>,
    },
    /// The answer to [`Command::Touch`]. `live`: the ticket holds or waits.
    Touched {
        live: bool,
    },
    /// The leases that were forced off, as they were before.
    Forced(Vec<HolderView>),
    /// `true`: the waiting ticket was ended now. `false`: it had been ended by force before.
    WaiterRemoved(bool),
    Refused(Refusal),
}

impl Answer {
    /// Whether the core must be told if this answer was delivered: by
    /// [`LockState::delivered`](super::LockState::delivered) or by [`Command::Vanished`].
    pub fn is_tracked(&self) -> bool {
        matches!(
            self,
            Answer::Granted(_) | Answer::Queued { .. } | Answer::Writable { .. }
        )
    }
}

/// The outcome of one command, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The answers to send once `changes` are durable.
    pub answers: Vec<(RequestId, Answer)>,
    /// The rows to store.
    pub changes: LockChanges,
    /// The changes of leases and places.
    pub events: Vec<Event>,
}

impl Outcome {
    /// Whether there is no answer, no row to store and no event.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.changes.is_empty() && self.events.is_empty()
    }
}

/// One change of a lease or a place, for the log, metrics, history and event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Granted(HolderView),
    /// The only holder changed from shared to exclusive. Its lease has a new token.
    Promoted {
        from: FencingToken,
        holder: HolderView,
    },
    /// A holder changed from exclusive to shared. Its lease keeps its token.
    Demoted(HolderView),
    /// `forced`: who forced the lease off, and why. Boxed: most leases end otherwise.
    Ended {
        reason: EndReason,
        holder: HolderView,
        forced: Option<Box<Forced>>,
    },
    /// No answer to the grant could be delivered, so the grant was taken back.
    TakenBack(FencingToken),
    /// A lock request took a place in the queue and was not granted at once.
    Queued {
        request: RequestId,
        row: Box<TicketRow>,
        position: usize,
    },
    /// A place in the queue ended. Released: its client unlocked, its wait with `queue=0` was over, or it is gone.
    /// Expired: its ticket was not presented for `TICKET_TTL_SECONDS`. Forced off: by [`Command::RemoveWaiter`].
    PlaceEnded {
        reason: EndReason,
        owner: Option<Owner>,
        mode: Mode,
        forced: Option<Box<Forced>>,
    },
}
