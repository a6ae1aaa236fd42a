//! The waiters in order of arrival, and which of them are *near*: a request of theirs is open, or one ended
//! less than `CLAIM_SECONDS` ago (`docs/protocol.md`, "Queue").
//!
//! Every operation that a hand-off needs takes logarithmic time, so that it stays cheap with 10,000 waiters.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use super::command::{Death, LockOptions, RequestId};
use super::names::{IdempotencyKey, Millis, Ticket, WallMillis};
use super::rows::{KeyRow, TicketRow};
use super::terms::Limits;

/// Arrival number of a ticket within its resource. The queue is in this order.
pub type Seq = u64;

/// Whether the client knows its ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TicketDelivery {
    /// No answer with the ticket has left yet.
    NotSent,
    /// An answer with the ticket was sent to this request; it may still turn out undelivered.
    SentIn(RequestId),
    /// The client has presented it, or can find it again by its idempotency key.
    Confirmed,
}

/// What a parked request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    Lock {
        /// `queue=0`: the ticket leaves its place when the wait is over.
        leaves: bool,
    },
    Write,
}

/// The wait of a request: it is answered when the lock is granted, or at `until` (`None`: without limit).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parked {
    pub until: Option<Millis>,
    pub purpose: Purpose,
    /// Why the dead ticket that the request presented had ended. The answer repeats it.
    pub ended: Death,
}

/// An open request of a waiter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Open {
    request: RequestId,
    /// When it arrived.
    since: Millis,
    /// `None`: its answer is on its way to the client, or its document is being loaded.
    parked: Option<Parked>,
}

/// Whether a waiter is near. Times are on the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Presence {
    /// Near: at least one request is open.
    Open,
    /// Near until this time.
    Near(Millis),
    /// Not near. Dropped at this time, unless the ticket is presented before.
    Far(Millis),
}

/// One place in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Waiter {
    pub row: TicketRow,
    pub delivery: TicketDelivery,
    /// The place of a write without a ticket. No client is told its ticket, it is never stored, and it ends with
    /// its request.
    pub ticketless_write: bool,
    /// The store has `row`, or the changes of this step contain it.
    pub stored: bool,
    /// Its [`Event::Queued`](super::Event::Queued) was sent. A place without it is not seen to be left either.
    pub announced: bool,
    /// Address of the client that last asked with this ticket.
    pub client: Option<IpAddr>,
    open: Vec<Open>,
    presence: Presence,
    last_seen: Millis,
}

impl Waiter {
    /// The waiter of a new ticket.
    pub fn fresh(
        ticket: Ticket,
        seq: Seq,
        options: LockOptions,
        queued_at: Option<WallMillis>,
    ) -> Waiter {
        let (ttl, mode) = (options.ttl, options.mode());
        let mut waiter = Waiter::new(TicketRow {
            ticket,
            seq,
            owner: options.owner,
            ttl,
            mode,
            reason: options.reason,
            queued_at,
            key: options.key.map(|key| Box::new(KeyRow { key, ttl, mode })),
        });
        waiter.client = options.client;
        waiter
    }

    fn new(row: TicketRow) -> Waiter {
        let delivery = if row.key.is_some() {
            TicketDelivery::Confirmed
        } else {
            TicketDelivery::NotSent
        };
        Waiter {
            row,
            delivery,
            ticketless_write: false,
            stored: false,
            announced: false,
            client: None,
            open: Vec::new(),
            presence: Presence::Near(0),
            last_seen: 0,
        }
    }

    /// A waiter that is read from the store, or whose grant was taken back: its client knows the ticket.
    pub fn known(row: TicketRow) -> Waiter {
        Waiter {
            delivery: TicketDelivery::Confirmed,
            stored: true,
            announced: true,
            ..Waiter::new(row)
        }
    }

    /// The requests that wait for the lock, oldest first, each with the time of its arrival.
    pub fn parked(&self) -> impl Iterator<Item = (RequestId, Millis, Parked)> + '_ {
        self.open
            .iter()
            .filter_map(|open| Some((open.request, open.since, open.parked?)))
    }

    pub fn is_parked(&self) -> bool {
        self.parked().next().is_some()
    }

    /// When its ticket was last presented, or its last request ended, on the monotonic clock.
    pub fn last_seen(&self) -> Millis {
        self.last_seen
    }

    pub fn has_open_requests(&self) -> bool {
        !self.open.is_empty()
    }
}

/// Something that became due in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The wait of this request is over.
    WaitOver(RequestId),
    /// This waiter is no longer near.
    WentFar(Seq),
    /// This waiter was not seen for `TICKET_TTL_SECONDS` and must be removed.
    Dropped(Seq),
}

/// The waiters of one lock, with indexes by everything that they are looked up by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Queue {
    waiters: BTreeMap<Seq, Waiter>,
    /// The keys of `waiters` in order, to find positions in logarithmic time.
    order: VecDeque<Seq>,
    by_ticket: BTreeMap<Ticket, Seq>,
    by_key: BTreeMap<IdempotencyKey, Seq>,
    /// Open requests, and the request of each [`TicketDelivery::SentIn`].
    by_request: BTreeMap<RequestId, Seq>,
    near: BTreeSet<Seq>,
    /// When each waiter without an open request changes its presence next.
    due: BTreeSet<(Millis, Seq)>,
    /// When the wait of each parked request is over.
    waits: BTreeSet<(Millis, RequestId)>,
}

impl Queue {
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// In queue order.
    pub fn iter(&self) -> impl Iterator<Item = (Seq, &Waiter)> {
        self.waiters.iter().map(|(seq, waiter)| (*seq, waiter))
    }

    pub fn get(&self, seq: Seq) -> Option<&Waiter> {
        self.waiters.get(&seq)
    }

    pub fn get_mut(&mut self, seq: Seq) -> Option<&mut Waiter> {
        self.waiters.get_mut(&seq)
    }

    pub fn with_ticket(&self, ticket: Ticket) -> Option<Seq> {
        self.by_ticket.get(&ticket).copied()
    }

    pub fn with_key(&self, key: &IdempotencyKey) -> Option<Seq> {
        self.by_key.get(key).copied()
    }

    pub fn with_request(&self, request: RequestId) -> Option<Seq> {
        self.by_request.get(&request).copied()
    }

    /// The position of a place: 1 is next in line.
    pub fn position(&self, seq: Seq) -> usize {
        match self.order.binary_search(&seq) {
            Ok(index) | Err(index) => index + 1,
        }
    }

    /// The first waiter that is near.
    pub fn first_near(&self) -> Option<Seq> {
        self.near.first().copied()
    }

    /// The near waiters ahead of this place, in queue order.
    pub fn near_before(&self, seq: Seq) -> impl Iterator<Item = &Waiter> {
        self.near.range(..seq).filter_map(|seq| self.get(*seq))
    }

    pub fn is_near(&self, seq: Seq) -> bool {
        self.near.contains(&seq)
    }

    /// Inserts a waiter at its place. It counts as seen at `now`.
    pub fn insert(&mut self, waiter: Waiter, now: Millis, limits: &Limits) {
        let seq = waiter.row.seq;
        let index = self.order.partition_point(|s| *s < seq);
        self.order.insert(index, seq);
        self.by_ticket.insert(waiter.row.ticket, seq);
        if let Some(row) = &waiter.row.key {
            self.by_key.insert(row.key.clone(), seq);
        }
        self.waiters.insert(seq, waiter);
        self.touch(seq, now, limits);
    }

    /// Removes a waiter together with its open requests.
    pub fn remove(&mut self, seq: Seq) -> Option<Waiter> {
        let waiter = self.waiters.remove(&seq)?;
        if let Ok(index) = self.order.binary_search(&seq) {
            self.order.remove(index);
        }
        self.by_ticket.remove(&waiter.row.ticket);
        if let Some(row) = &waiter.row.key {
            self.by_key.remove(&row.key);
        }
        for open in &waiter.open {
            self.by_request.remove(&open.request);
            self.unschedule_wait(open);
        }
        if let TicketDelivery::SentIn(request) = waiter.delivery {
            self.by_request.remove(&request);
        }
        self.near.remove(&seq);
        if let Presence::Near(at) | Presence::Far(at) = waiter.presence {
            self.due.remove(&(at, seq));
        }
        Some(waiter)
    }

    fn unschedule_wait(&mut self, open: &Open) {
        if let Some(until) = open.parked.and_then(|parked| parked.until) {
            self.waits.remove(&(until, open.request));
        }
    }

    /// Notes that the client knows its ticket: it presented the ticket.
    pub fn confirm(&mut self, seq: Seq) {
        if let Some(waiter) = self.waiters.get_mut(&seq) {
            if let TicketDelivery::SentIn(request) = waiter.delivery {
                self.by_request.remove(&request);
            }
            waiter.delivery = TicketDelivery::Confirmed;
        }
    }

    /// Notes a sign of life at `now`: the waiter is near from then on.
    pub fn touch(&mut self, seq: Seq, now: Millis, limits: &Limits) {
        if let Some(waiter) = self.waiters.get_mut(&seq) {
            waiter.last_seen = now;
            let presence = if waiter.open.is_empty() {
                Presence::Near(now + limits.claim_ms)
            } else {
                Presence::Open
            };
            self.set_presence(seq, presence);
        }
    }

    /// Attaches a request: `parked` until the grant, or `None` while its answer is on its way or its document is
    /// being loaded.
    pub fn open(
        &mut self,
        seq: Seq,
        (request, since): (RequestId, Millis),
        parked: Option<Parked>,
    ) {
        let Some(waiter) = self.waiters.get_mut(&seq) else {
            return;
        };
        waiter.open.push(Open {
            request,
            since,
            parked,
        });
        self.by_request.insert(request, seq);
        if let Some(until) = parked.and_then(|parked| parked.until) {
            self.waits.insert((until, request));
        }
        self.set_presence(seq, Presence::Open);
    }

    /// Ends the wait of this request. The request stays open until its answer has left.
    pub fn unpark(&mut self, request: RequestId) -> Option<(Seq, Parked)> {
        let seq = self.with_request(request)?;
        let waiter = self.waiters.get_mut(&seq)?;
        let open = waiter.open.iter_mut().find(|o| o.request == request)?;
        let parked = open.parked.take()?;
        if let Some(until) = parked.until {
            self.waits.remove(&(until, request));
        }
        Some((seq, parked))
    }

    /// Detaches a request that comes again because its document is loaded. Returns the place that it took or had
    /// the first time, and when it first arrived.
    pub fn come_again(
        &mut self,
        request: RequestId,
        now: Millis,
        limits: &Limits,
    ) -> Option<(Seq, Millis)> {
        let seq = self.with_request(request)?;
        let waiter = self.waiters.get_mut(&seq)?;
        let index = waiter.open.iter().position(|o| o.request == request)?;
        let open = waiter.open.remove(index);
        self.by_request.remove(&request);
        self.touch(seq, now, limits);
        Some((seq, open.since))
    }

    /// Detaches a request. `delivered`: its answer left. A waiter whose last request closes stays near for
    /// `CLAIM_SECONDS` from `now`.
    pub fn close(&mut self, request: RequestId, delivered: bool, now: Millis, limits: &Limits) {
        let Some(seq) = self.by_request.remove(&request) else {
            return;
        };
        let Some(waiter) = self.waiters.get_mut(&seq) else {
            return;
        };
        if delivered && waiter.delivery == TicketDelivery::NotSent {
            waiter.delivery = TicketDelivery::SentIn(request);
            self.by_request.insert(request, seq);
        }
        if let Some(index) = waiter.open.iter().position(|o| o.request == request) {
            let open = waiter.open.remove(index);
            self.unschedule_wait(&open);
            self.touch(seq, now, limits);
        }
    }

    fn set_presence(&mut self, seq: Seq, presence: Presence) {
        let Some(waiter) = self.waiters.get_mut(&seq) else {
            return;
        };
        if let Presence::Near(at) | Presence::Far(at) = waiter.presence {
            self.due.remove(&(at, seq));
        }
        waiter.presence = presence;
        match presence {
            Presence::Open => {
                self.near.insert(seq);
            }
            Presence::Near(at) => {
                self.near.insert(seq);
                self.due.insert((at, seq));
            }
            Presence::Far(at) => {
                self.near.remove(&seq);
                self.due.insert((at, seq));
            }
        }
    }

    /// When [`Queue::pop_due`] next has something to return. `None`: never.
    pub fn deadline(&self) -> Option<Millis> {
        let wait = self.waits.first().map(|(at, _)| *at);
        let due = self.due.first().map(|(at, _)| *at);
        [wait, due].into_iter().flatten().min()
    }

    /// The next thing that is due at `now`. A change from near to far is made here; what else follows is up to
    /// the caller. At the same instant presence comes before waits, so that a request whose wait ends when a
    /// reservation ends still gets the lock.
    pub fn pop_due(&mut self, now: Millis, limits: &Limits) -> Option<Due> {
        let at = self.deadline().filter(|at| *at <= now)?;
        let Some((_, seq)) = self.due.first().copied().filter(|(t, _)| *t == at) else {
            return self
                .waits
                .first()
                .map(|(_, request)| Due::WaitOver(*request));
        };
        let waiter = self.waiters.get(&seq)?;
        if matches!(waiter.presence, Presence::Near(_)) {
            let drop_at = (waiter.last_seen + limits.ticket_ttl_ms).max(at);
            self.set_presence(seq, Presence::Far(drop_at));
            return Some(Due::WentFar(seq));
        }
        Some(Due::Dropped(seq))
    }

    /// All parked requests, in queue order.
    pub fn parked_requests(&self) -> Vec<RequestId> {
        self.waiters
            .values()
            .flat_map(|waiter| waiter.parked().map(|(request, ..)| request))
            .collect()
    }

    /// Whether the indexes match the waiters exactly. For the invariants.
    pub fn is_consistent(&self) -> bool {
        let mut expected = Queue::default();
        for (seq, waiter) in &self.waiters {
            expected.index(*seq, waiter);
            let open = waiter.presence == Presence::Open;
            if waiter.row.seq != *seq || waiter.open.is_empty() == open {
                return false;
            }
        }
        self.order == expected.order
            && self.by_ticket == expected.by_ticket
            && self.by_key == expected.by_key
            && self.by_request == expected.by_request
            && self.near == expected.near
            && self.due == expected.due
            && self.waits == expected.waits
    }

    /// Adds a waiter to every index. It must come after all waiters that are indexed already.
    fn index(&mut self, seq: Seq, waiter: &Waiter) {
        self.order.push_back(seq);
        self.by_ticket.insert(waiter.row.ticket, seq);
        let key = waiter.row.key.as_ref().map(|row| (row.key.clone(), seq));
        self.by_key.extend(key);
        for open in &waiter.open {
            self.by_request.insert(open.request, seq);
            let until = open.parked.and_then(|parked| parked.until);
            self.waits.extend(until.map(|at| (at, open.request)));
        }
        if let TicketDelivery::SentIn(request) = waiter.delivery {
            self.by_request.insert(request, seq);
        }
        match waiter.presence {
            Presence::Open => _ = self.near.insert(seq),
            Presence::Near(at) => {
                self.near.insert(seq);
                self.due.insert((at, seq));
            }
            Presence::Far(at) => _ = self.due.insert((at, seq)),
        }
    }
}
