//! The waiters in order of arrival, and which of them are *near*: a request of theirs is open, or one ended
//! less than `CLAIM_SECONDS` ago (`docs/protocol.md`, "Queue").
//!
//! Every operation that a hand-off needs takes logarithmic time, so that it stays cheap with 10,000 waiters.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use super::command::{Death, LockOptions, RequestId, WaitPolicy};
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

/// An open request of a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Open {
    pub request: RequestId,
    /// When it arrived.
    pub since: Millis,
    /// Parked if this has a deadline. Otherwise its answer is on its way to the client, or its document is being
    /// loaded.
    pub policy: WaitPolicy,
    /// It asks to write, not to lock.
    pub writes: bool,
    /// Why the dead ticket that the request presented had ended. The answer repeats it.
    pub ended: Death,
}

impl Open {
    /// When its wait is over. `None`: it does not wait, or without limit.
    fn until(&self) -> Option<Millis> {
        self.policy.deadline().flatten()
    }
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
    /// Its [`Event::Queued`](super::Event::Queued) was sent. The end of a place without it is no event either, unless
    /// it was ended by force.
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

    /// The requests that wait for the lock, oldest first.
    pub fn parked(&self) -> impl Iterator<Item = &Open> {
        let open = self.open.iter();
        open.filter(|open| open.policy.deadline().is_some())
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

    /// Inserts a waiter without open requests at its place. It counts as seen at `now`.
    pub fn insert(&mut self, mut waiter: Waiter, now: Millis, limits: &Limits) {
        waiter.last_seen = now;
        waiter.presence = Presence::Near(now + limits.claim_ms);
        self.add(waiter);
    }

    /// Adds a waiter, with its open requests, to every index.
    fn add(&mut self, waiter: Waiter) {
        let seq = waiter.row.seq;
        let index = self.order.partition_point(|s| *s < seq);
        self.order.insert(index, seq);
        self.by_ticket.insert(waiter.row.ticket, seq);
        if let Some(row) = &waiter.row.key {
            self.by_key.insert(row.key.clone(), seq);
        }
        for open in &waiter.open {
            self.add_request(seq, open);
        }
        if let TicketDelivery::SentIn(request) = waiter.delivery {
            self.by_request.insert(request, seq);
        }
        self.add_presence(seq, waiter.presence);
        self.waiters.insert(seq, waiter);
    }

    fn add_request(&mut self, seq: Seq, open: &Open) {
        self.by_request.insert(open.request, seq);
        let until = open.until().map(|at| (at, open.request));
        self.waits.extend(until);
    }

    fn add_presence(&mut self, seq: Seq, presence: Presence) {
        match presence {
            Presence::Open | Presence::Near(_) => self.near.insert(seq),
            Presence::Far(_) => self.near.remove(&seq),
        };
        if let Presence::Near(at) | Presence::Far(at) = presence {
            self.due.insert((at, seq));
        }
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
        if let Some(until) = open.until() {
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

    /// Attaches a request to a waiter.
    pub fn open(&mut self, seq: Seq, open: Open) {
        let Some(waiter) = self.waiters.get_mut(&seq) else {
            return;
        };
        waiter.open.push(open);
        self.add_request(seq, &open);
        self.set_presence(seq, Presence::Open);
    }

    /// Ends the wait of this request, and returns the request as it waited. It stays open until its answer has
    /// left.
    pub fn unpark(&mut self, request: RequestId) -> Option<(Seq, Open)> {
        let seq = self.with_request(request)?;
        let waiter = self.waiters.get_mut(&seq)?;
        let open = waiter.open.iter_mut().find(|o| o.request == request)?;
        let parked = *open;
        open.policy = WaitPolicy::Poll;
        self.unschedule_wait(&parked);
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
        let mut open = self.get(seq)?.open.iter();
        let since = open.find(|open| open.request == request)?.since;
        self.close(request, false, now, limits);
        Some((seq, since))
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
        let before = std::mem::replace(&mut waiter.presence, presence);
        if let Presence::Near(at) | Presence::Far(at) = before {
            self.due.remove(&(at, seq));
        }
        self.add_presence(seq, presence);
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
            .flat_map(|waiter| waiter.parked().map(|open| open.request))
            .collect()
    }

    /// Whether the indexes match the waiters exactly. For the invariants.
    pub fn is_consistent(&self) -> bool {
        let mut expected = Queue::default();
        self.waiters
            .values()
            .for_each(|waiter| expected.add(waiter.clone()));
        let is_present =
            |waiter: &Waiter| waiter.open.is_empty() == (waiter.presence != Presence::Open);
        *self == expected && self.waiters.values().all(is_present)
    }
}
