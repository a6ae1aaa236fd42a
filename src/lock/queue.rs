//! The waiters in order of arrival, and which of them are *near*: a request of theirs is open, or one ended
//! less than `CLAIM_SECONDS` ago (`docs/protocol.md`, "Queue").
//!
//! Every operation that a hand-off needs takes logarithmic time, so that it stays cheap with 10,000 waiters.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use super::command::{Death, LockOptions, RequestId, WaitPolicy};
use super::names::{IdempotencyKey, Millis, Ticket, WallMillis};
use super::rows::{KeyRow, TicketRow};
use super::terms::Terms;

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
    /// Parked if this has a deadline. Otherwise its answer is on its way, or its document is being loaded.
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

/// One place in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Waiter {
    pub row: TicketRow,
    pub delivery: TicketDelivery,
    /// The place of a write without a ticket: never told, never stored, and gone with its request.
    pub ticketless_write: bool,
    /// The store has `row`, or the changes of this step contain it.
    pub stored: bool,
    /// Its `Event::Queued` was sent. The end of a place without it is no event either, unless it was forced.
    pub announced: bool,
    /// Address of the client that last asked with this ticket.
    pub client: Option<IpAddr>,
    /// When its ticket was last presented, or its last request ended.
    pub last_seen: Millis,
    open: Vec<Open>,
    /// When it stops being near or, if it is not near, is dropped. `None`: a request is open.
    due: Option<Millis>,
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
        let row = TicketRow {
            ticket,
            seq,
            owner: options.owner,
            ttl,
            mode,
            reason: options.reason,
            queued_at,
            key: options.key.map(|key| Box::new(KeyRow { key, ttl, mode })),
        };
        Waiter {
            client: options.client,
            ..Waiter::new(row)
        }
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
            last_seen: 0,
            open: Vec::new(),
            due: None,
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

    pub fn has_open_requests(&self) -> bool {
        !self.open.is_empty()
    }
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
    /// By [`Waiter::due`].
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
    pub fn insert(&mut self, mut waiter: Waiter, now: Millis, terms: &Terms) {
        waiter.last_seen = now;
        waiter.due = Some(now + terms.claim_ms);
        self.add(waiter, true);
    }

    /// Adds a waiter, with its open requests, to every index.
    fn add(&mut self, waiter: Waiter, near: bool) {
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
        self.near.extend(near.then_some(seq));
        self.due.extend(waiter.due.map(|at| (at, seq)));
        self.waiters.insert(seq, waiter);
    }

    fn add_request(&mut self, seq: Seq, open: &Open) {
        self.by_request.insert(open.request, seq);
        let until = open.until().map(|at| (at, open.request));
        self.waits.extend(until);
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
        if let Some(at) = waiter.due {
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
    pub fn touch(&mut self, seq: Seq, now: Millis, terms: &Terms) {
        if let Some(waiter) = self.waiters.get_mut(&seq) {
            waiter.last_seen = now;
            let due = waiter.open.is_empty().then_some(now + terms.claim_ms);
            self.near.insert(seq);
            self.set_due(seq, due);
        }
    }

    /// Notes that a waiter is near no more. It is dropped when it was not seen for `TICKET_TTL_SECONDS`.
    pub fn set_far(&mut self, seq: Seq, terms: &Terms) {
        if let Some(waiter) = self.waiters.get(&seq) {
            let unseen_ms = terms.ticket_ttl_ms.max(terms.claim_ms);
            let due = Some(waiter.last_seen + unseen_ms);
            self.near.remove(&seq);
            self.set_due(seq, due);
        }
    }

    /// Attaches a request to a waiter.
    pub fn open(&mut self, seq: Seq, open: Open) {
        let Some(waiter) = self.waiters.get_mut(&seq) else {
            return;
        };
        waiter.open.push(open);
        self.add_request(seq, &open);
        self.near.insert(seq);
        self.set_due(seq, None);
    }

    /// Ends the wait of this request, and returns it as it waited. It stays open until its answer has left.
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
        terms: &Terms,
    ) -> Option<(Seq, Millis)> {
        let seq = self.with_request(request)?;
        let mut open = self.get(seq)?.open.iter();
        let since = open.find(|open| open.request == request)?.since;
        self.close(request, false, now, terms);
        Some((seq, since))
    }

    /// Detaches a request. `delivered`: its answer left. A waiter whose last request closes stays near for
    /// `CLAIM_SECONDS` from `now`.
    pub fn close(&mut self, request: RequestId, delivered: bool, now: Millis, terms: &Terms) {
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
            self.touch(seq, now, terms);
        }
    }

    fn set_due(&mut self, seq: Seq, due: Option<Millis>) {
        let Some(waiter) = self.waiters.get_mut(&seq) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut waiter.due, due) {
            self.due.remove(&(before, seq));
        }
        self.due.extend(due.map(|at| (at, seq)));
    }

    /// The waiter that next stops being near or, if it is not near, is dropped, and when.
    pub fn next_due(&self) -> Option<(Millis, Seq)> {
        self.due.first().copied()
    }

    /// The parked request whose wait ends next, and when.
    pub fn next_wait_end(&self) -> Option<(Millis, RequestId)> {
        self.waits.first().copied()
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
        for (seq, waiter) in self.iter() {
            expected.add(waiter.clone(), self.is_near(seq));
        }
        // A waiter with an open request is near, and nothing of it is due.
        let is_kept = |(seq, waiter): (Seq, &Waiter)| match waiter.due {
            Some(_) => waiter.open.is_empty(),
            None => !waiter.open.is_empty() && self.is_near(seq),
        };
        *self == expected && self.iter().all(is_kept)
    }
}
