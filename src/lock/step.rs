//! One command applied to a lock. Every transition a lock can make is in this file.

use super::command::{
    Answer, Command, Death, EndReason, Event, Grant, Outcome, Patience, PresentedTicket, RequestId,
};
use super::names::{FencingToken, IdempotencyKey, Millis, Now, Owner, Seconds, Ticket};
use super::queue::{Due, Parked, Purpose, Seq, TicketDelivery, Waiter, fresh_row};
use super::rows::{Change, TicketRow};
use super::state::{Lease, LeaseClock, Lock, LockState, waiter_timeouts};
use super::terms::Terms;

/// What a presented ticket is to this lock.
enum Standing {
    Nobody,
    Holder,
    Waiting(Seq),
    Dead(Death),
}

/// A request for the lock, taken apart.
struct LockRequest {
    request: RequestId,
    fresh: Ticket,
    owner: Option<Owner>,
    ttl: Option<Seconds>,
    key: Option<IdempotencyKey>,
    patience: Patience,
}

pub(super) struct Step<'a> {
    state: &'a mut LockState,
    terms: &'a Terms,
    now: Now,
    out: Outcome,
}

impl<'a> Step<'a> {
    pub fn new(state: &'a mut LockState, terms: &'a Terms, now: Now) -> Self {
        Step {
            state,
            terms,
            now,
            out: Outcome::default(),
        }
    }

    pub fn run(mut self, command: Command) -> Outcome {
        self.pass_time();
        match command {
            Command::Acquire {
                request,
                presented,
                fresh,
                owner,
                ttl,
                key,
                patience,
            } => self.acquire(
                presented,
                LockRequest {
                    request,
                    fresh,
                    owner,
                    ttl,
                    key,
                    patience,
                },
            ),
            Command::Touch { request, presented } => self.touch(request, presented),
            Command::Write {
                request,
                presented,
                fresh,
                release,
                patience,
            } => self.write(request, presented, fresh, release, patience),
            Command::Renew {
                request,
                presented,
                ttl,
            } => self.renew(request, presented, ttl),
            Command::Unlock { request, presented } => self.unlock(request, presented),
            Command::ForceUnlock { request, token } => self.force_unlock(request, token),
            Command::Delete { request, presented } => self.delete(request, presented),
            Command::Vanished { request } => self.vanished(request),
            Command::Delivered { request } => self.delivered(request),
            Command::Tick => {}
        }
        self.out
    }

    fn answer(&mut self, request: RequestId, answer: Answer) {
        self.out.answers.push((request, answer));
    }

    fn change_head(&mut self) {
        let head = self.state.head();
        self.out.changes.push(Change::Head(head));
    }

    // ---- time -------------------------------------------------------------------------------------

    /// Carries out what was due until now, in the order in which it was due.
    fn pass_time(&mut self) {
        let now = self.now.mono;
        while let Some(at) = self.state.deadline().filter(|at| *at <= now) {
            if self.state.lease_deadline() == Some(at) {
                self.end_lease(EndReason::Expired);
                self.hand_off();
                continue;
            }
            match self
                .state
                .queue_mut()
                .pop_due(now, waiter_timeouts(self.terms))
            {
                Some(Due::WaitOver(request)) => self.wait_over(request),
                Some(Due::WentFar(seq)) => self.pass_over(seq),
                Some(Due::Dropped(seq)) => {
                    self.leave(seq);
                    self.out.events.push(Event::WaiterDropped);
                }
                None => break,
            }
        }
    }

    /// A reservation ends when its ticket is not near any more.
    fn pass_over(&mut self, seq: Seq) {
        if self.state.lock == Lock::Reserved(seq) {
            self.hand_off();
        }
    }

    fn wait_over(&mut self, request: RequestId) {
        let Some((seq, parked)) = self.state.queue_mut().unpark(request) else {
            return;
        };
        match parked.purpose {
            Purpose::Lock => self.answer_queued(request, seq, parked.ended),
            Purpose::Write { .. } => {
                let ticketless_write = self.waiter(seq).is_some_and(|w| w.ticketless_write);
                if ticketless_write {
                    self.state.queue_mut().remove(seq);
                } else {
                    self.close(request, true);
                }
                self.answer_locked(request);
            }
        }
    }

    // ---- who is asking ----------------------------------------------------------------------------

    fn waiter(&self, seq: Seq) -> Option<&Waiter> {
        self.state.queue_ref().and_then(|queue| queue.get(seq))
    }

    fn standing(&self, presented: PresentedTicket) -> Standing {
        let ticket = match presented {
            PresentedTicket::Absent => return Standing::Nobody,
            PresentedTicket::Malformed => return Standing::Dead(None),
            PresentedTicket::Ticket(ticket) => ticket,
        };
        if self.state.token_of(ticket).is_some() {
            return Standing::Holder;
        }
        match self.state.queue_ref().and_then(|q| q.with_ticket(ticket)) {
            Some(seq) => Standing::Waiting(seq),
            None => Standing::Dead(self.state.ended.reason(ticket, self.now.mono)),
        }
    }

    /// The live ticket that this key made, and whether the same was asked then.
    fn by_key(&self, asked: &LockRequest) -> Option<(Standing, bool)> {
        let key = asked.key.as_ref()?;
        let same = |row: &TicketRow| {
            row.owner == asked.owner && row.key.as_ref().is_some_and(|k| k.ttl == asked.ttl)
        };
        if let Some(lease) = self.state.lease()
            && lease.row.key.as_ref().is_some_and(|k| k.key == *key)
        {
            return Some((Standing::Holder, same(&lease.row)));
        }
        let seq = self.state.queue_ref()?.with_key(key)?;
        Some((Standing::Waiting(seq), same(&self.waiter(seq)?.row)))
    }

    fn may_take(&self, seq: Seq) -> bool {
        match self.state.lock {
            Lock::Free => true,
            Lock::Reserved(reserved) => reserved == seq,
            Lock::Held(_) => false,
        }
    }

    // ---- asking for the lock ----------------------------------------------------------------------

    fn acquire(&mut self, presented: PresentedTicket, asked: LockRequest) {
        match self.standing(presented) {
            Standing::Holder => self.keep(asked.request, asked.ttl, None),
            Standing::Waiting(seq) => self.ask_again(seq, asked, None),
            Standing::Nobody => self.ask_anew(asked, None),
            Standing::Dead(ended) => self.ask_anew(asked, ended),
        }
    }

    /// Without a live ticket: the idempotency key may know one, else a new one is made.
    fn ask_anew(&mut self, asked: LockRequest, ended: Death) {
        match self.by_key(&asked) {
            Some((_, false)) => return self.answer(asked.request, Answer::KeyReused),
            Some((Standing::Holder, true)) => return self.keep(asked.request, None, ended),
            Some((Standing::Waiting(seq), true)) => {
                // A retry repeats what was asked then; it must not undo a `ttl` given since.
                let asked = LockRequest { ttl: None, ..asked };
                return self.ask_again(seq, asked, ended);
            }
            Some(_) | None => {}
        }
        let row = fresh_row(
            asked.fresh,
            self.state.next_seq,
            asked.owner,
            asked.ttl,
            asked.key,
        );
        let waiter = Waiter::new(row, false);
        if self.state.lock == Lock::Free {
            self.state.next_seq += 1;
            self.grant(waiter, &[(asked.request, ended)]);
        } else if asked.patience == Patience::Never {
            self.answer_locked(asked.request);
        } else if let Some(seq) = self.enqueue(asked.request, waiter) {
            if self
                .waiter(seq)
                .is_some_and(|w| w.delivery == TicketDelivery::Confirmed)
            {
                self.store_waiter(seq);
            }
            self.queue_up(seq, asked.request, asked.patience, ended);
        }
    }

    /// With a waiting ticket.
    fn ask_again(&mut self, seq: Seq, asked: LockRequest, ended: Death) {
        self.present_waiter(seq, asked.ttl);
        if self.may_take(seq) {
            if let Some(waiter) = self.state.queue_mut().remove(seq) {
                self.grant(waiter, &[(asked.request, ended)]);
            }
        } else if asked.patience == Patience::Never {
            self.answer_locked(asked.request);
        } else {
            self.queue_up(seq, asked.request, asked.patience, ended);
        }
    }

    /// A new place at the end of the queue, or a refusal when it is full.
    fn enqueue(&mut self, request: RequestId, waiter: Waiter) -> Option<Seq> {
        if self.state.waiting() >= self.terms.limits.waiters_max {
            self.answer(request, Answer::TooManyWaiters);
            return None;
        }
        let seq = waiter.row.seq;
        self.state.next_seq = seq + 1;
        let (now, waiter_timeouts) = (self.now.mono, waiter_timeouts(self.terms));
        self.state.queue_mut().insert(waiter, now, waiter_timeouts);
        Some(seq)
    }

    fn queue_up(&mut self, seq: Seq, request: RequestId, patience: Patience, ended: Death) {
        match deadline_of(patience) {
            Some(until) => {
                let parked = Parked {
                    until,
                    purpose: Purpose::Lock,
                    ended,
                };
                self.state.queue_mut().open(seq, request, Some(parked));
            }
            None => {
                self.state.queue_mut().open(seq, request, None);
                self.answer_queued(request, seq, ended);
            }
        }
    }

    /// Tells a place in the queue; from then on the ticket is durable.
    fn answer_queued(&mut self, request: RequestId, seq: Seq, ended: Death) {
        self.store_waiter(seq);
        let queue = self.state.queue_mut();
        let position = queue.position(seq);
        if let Some(ticket) = queue.get(seq).map(|w| w.row.ticket) {
            self.answer(
                request,
                Answer::Queued {
                    ticket,
                    position,
                    ended,
                },
            );
        }
    }

    fn answer_locked(&mut self, request: RequestId) {
        let holder = self.state.holder(self.terms, self.now);
        self.answer(request, Answer::Locked(holder));
    }

    fn store_waiter(&mut self, seq: Seq) {
        if let Some(waiter) = self.state.queue_mut().get_mut(seq)
            && !waiter.stored
            && !waiter.ticketless_write
        {
            waiter.stored = true;
            let row = waiter.row.clone();
            self.out.changes.push(Change::Waiting(row));
        }
    }

    /// A waiting ticket was presented: its client is alive and knows it.
    fn present_waiter(&mut self, seq: Seq, ttl: Option<Seconds>) {
        let (now, waiter_timeouts) = (self.now.mono, waiter_timeouts(self.terms));
        let queue = self.state.queue_mut();
        queue.confirm(seq);
        queue.touch(seq, now, waiter_timeouts);
        if let Some(waiter) = queue.get_mut(seq)
            && ttl.is_some()
            && waiter.row.ttl != ttl
        {
            waiter.row.ttl = ttl;
            waiter.stored = false;
        }
        self.store_waiter(seq);
    }

    // ---- leases -----------------------------------------------------------------------------------

    /// Makes a lease of a waiter that is in the queue no more. Answers everyone who waited with its
    /// ticket, and the requests in `asking`.
    fn grant(&mut self, waiter: Waiter, asking: &[(RequestId, Death)]) {
        self.state.token = self.state.token.next();
        if waiter.stored {
            let ticket = waiter.row.ticket;
            self.out.changes.push(Change::NotWaiting(ticket));
        }
        let waiting: Vec<(RequestId, Parked)> = waiter.parked().collect();
        let writes: Vec<(RequestId, bool)> = waiting
            .iter()
            .filter_map(|(request, parked)| match parked.purpose {
                Purpose::Write { release } => Some((*request, release)),
                Purpose::Lock => None,
            })
            .collect();
        let locks = waiting
            .iter()
            .filter(|(_, parked)| parked.purpose == Purpose::Lock)
            .map(|(request, parked)| (*request, parked.ended));
        let told: Vec<(RequestId, Death)> = asking.iter().copied().chain(locks).collect();
        let answering = told
            .iter()
            .map(|(request, _)| *request)
            .chain(writes.iter().map(|(request, _)| *request))
            .collect();
        self.state.lock = Lock::Held(Lease {
            told: waiter.delivery == TicketDelivery::Confirmed,
            stored_ttl: waiter.row.ttl,
            row: waiter.row,
            token: self.state.token,
            acquired_at: self.now.wall,
            clock: LeaseClock::Answering(answering),
        });
        self.change_head();
        if let Some(view) = self.state.holder(self.terms, self.now) {
            self.out.events.push(Event::Granted(view));
        }
        for (request, ended) in told {
            self.answer_granted(request, true, ended);
        }
        for (request, release) in writes {
            self.allow_write(request, release);
        }
    }

    fn answer_granted(&mut self, request: RequestId, new: bool, ended: Death) {
        let Some(lease) = self.state.lease() else {
            return;
        };
        let grant = Grant {
            ticket: lease.row.ticket,
            holder: self.state.view(self.terms, self.now, lease),
            ttl: self.state.told_ttl(self.terms, self.now.mono, lease),
            new,
            ended,
        };
        self.answer(request, Answer::Granted(Box::new(grant)));
    }

    /// The holder asked again.
    fn keep(&mut self, request: RequestId, ttl: Option<Seconds>, ended: Death) {
        self.present_holder(ttl, Some(request));
        self.answer_granted(request, false, ended);
    }

    /// The holder showed its ticket with lock intent: its expiry becomes the later of what it was and
    /// now + TTL (contract, "TTL").
    ///
    /// While no answer has told it of the grant, it cannot know that it holds: then the answer to this
    /// request, if the core hears what becomes of it (`tracked`), is one more that may tell it.
    fn present_holder(&mut self, ttl: Option<Seconds>, tracked: Option<RequestId>) {
        let now = self.now.mono;
        let Lock::Held(mut lease) = std::mem::replace(&mut self.state.lock, Lock::Free) else {
            return;
        };
        if ttl.is_some() {
            lease.row.ttl = ttl;
        }
        lease.told = true;
        let (since, old) = match lease.clock {
            // What the answers on their way promise.
            LeaseClock::Answering(_) => {
                let promised = self.state.expiry(self.terms, lease.stored_ttl, now, now);
                (now, promised)
            }
            LeaseClock::Running { since, expires, .. } => (since, expires),
        };
        let renewed = self.state.expiry(self.terms, lease.row.ttl, since, now);
        let expires = later(old, renewed);
        lease.clock = match (lease.clock, tracked) {
            (LeaseClock::Answering(mut requests), Some(request)) => {
                requests.push(request);
                LeaseClock::Answering(requests)
            }
            _ => LeaseClock::Running {
                since,
                expires,
                unconfirmed: Vec::new(),
            },
        };
        let stale = lease.stored_ttl != lease.row.ttl && expires == renewed;
        if stale {
            lease.stored_ttl = lease.row.ttl;
        }
        self.state.lock = Lock::Held(lease);
        if stale {
            self.change_head();
        }
    }

    /// Ends the lease for a reason that its holder may ask for later. The lock is free afterwards; what
    /// becomes of it is the caller's to say.
    fn end_lease(&mut self, reason: EndReason) {
        let Some(holder) = self.state.holder(self.terms, self.now) else {
            return;
        };
        if let Lock::Held(lease) = std::mem::replace(&mut self.state.lock, Lock::Free) {
            self.remember(lease.row.ticket, reason);
            self.change_head();
            self.out.events.push(Event::Ended { reason, holder });
        }
    }

    fn remember(&mut self, ticket: Ticket, reason: EndReason) {
        let now = self.now.mono;
        self.state.ended.forget(now);
        let forget_at = now + self.terms.limits.ended_ms;
        let row = self.state.ended.remember(ticket, reason, forget_at);
        self.out.changes.push(Change::Ended(row));
    }

    /// Gives a lock that became free, or whose reservation ended, to the first near waiter: at once if a
    /// request of it waits, else it is reserved. Wakes exactly one successor.
    fn hand_off(&mut self) {
        self.state.lock = Lock::Free;
        while self.state.lock == Lock::Free {
            let Some(seq) = self.state.queue_ref().and_then(|q| q.first_near()) else {
                return;
            };
            if self.waiter(seq).is_none_or(|w| w.parked().next().is_none()) {
                self.state.lock = Lock::Reserved(seq);
                return;
            }
            let Some(waiter) = self.state.queue_mut().remove(seq) else {
                return;
            };
            if waiter.ticketless_write {
                for (request, _) in waiter.parked() {
                    self.answer(request, Answer::Writable { token: None });
                }
            } else {
                self.grant(waiter, &[]);
            }
        }
    }

    // ---- what holders do --------------------------------------------------------------------------

    fn touch(&mut self, request: RequestId, presented: PresentedTicket) {
        let live = match self.standing(presented) {
            Standing::Holder => {
                self.touch_holder();
                true
            }
            Standing::Waiting(seq) => {
                self.present_waiter(seq, None);
                self.reserve_if_free();
                true
            }
            Standing::Nobody | Standing::Dead(_) => false,
        };
        self.answer(request, Answer::Touched { live });
    }

    /// A sign of life that is not answered with the lease: it proves nothing about an undelivered grant.
    fn touch_holder(&mut self) {
        match &mut self.state.lock {
            Lock::Held(Lease {
                clock: LeaseClock::Answering(_),
                told,
                ..
            }) => *told = true,
            _ => self.present_holder(None, None),
        }
    }

    /// A waiter that came near again finds a free lock: it is kept for it.
    fn reserve_if_free(&mut self) {
        if self.state.lock == Lock::Free {
            self.hand_off();
        }
    }

    fn write(
        &mut self,
        request: RequestId,
        presented: PresentedTicket,
        fresh: Ticket,
        release: bool,
        patience: Patience,
    ) {
        let patience = if self.terms.rules.refused_write_waits {
            patience
        } else {
            Patience::Never
        };
        match self.standing(presented) {
            Standing::Holder => {
                self.present_holder(None, Some(request));
                self.allow_write(request, release);
                self.reserve_if_free();
            }
            Standing::Waiting(seq) => self.write_waiting(seq, request, release, patience),
            Standing::Dead(death) if !self.writes_as_nobody(death) => {
                self.answer(request, Answer::Dead(death));
            }
            Standing::Nobody | Standing::Dead(_) => {
                self.write_without_ticket(request, fresh, patience)
            }
        }
    }

    fn writes_as_nobody(&self, death: Death) -> bool {
        self.terms.rules.spent_ticket_writes_as_nobody
            && matches!(death, None | Some(EndReason::Released))
    }

    /// A write by the holder, in this step.
    fn allow_write(&mut self, request: RequestId, release: bool) {
        let token = self.state.lease().map(|lease| lease.token);
        self.answer(request, Answer::Writable { token });
        if release || self.terms.rules.write_releases {
            self.end_lease(EndReason::Released);
        }
    }

    fn write_waiting(&mut self, seq: Seq, request: RequestId, release: bool, patience: Patience) {
        self.present_waiter(seq, None);
        if self.may_take(seq) {
            let parked = Parked {
                until: None,
                purpose: Purpose::Write { release },
                ended: None,
            };
            self.state.queue_mut().open(seq, request, Some(parked));
            if let Some(waiter) = self.state.queue_mut().remove(seq) {
                self.grant(waiter, &[]);
                self.reserve_if_free();
            }
        } else if let Some(until) = deadline_of(patience) {
            let parked = Parked {
                until,
                purpose: Purpose::Write { release },
                ended: None,
            };
            self.state.queue_mut().open(seq, request, Some(parked));
        } else {
            self.answer_locked(request);
        }
    }

    /// A write without a ticket: only while the lock is free; it leaves no lock.
    fn write_without_ticket(&mut self, request: RequestId, fresh: Ticket, patience: Patience) {
        if self.state.lock == Lock::Free {
            return self.answer(request, Answer::Writable { token: None });
        }
        let Some(until) = deadline_of(patience) else {
            return self.answer_locked(request);
        };
        let row = fresh_row(fresh, self.state.next_seq, None, None, None);
        if let Some(seq) = self.enqueue(request, Waiter::new(row, true)) {
            let parked = Parked {
                until,
                purpose: Purpose::Write { release: false },
                ended: None,
            };
            self.state.queue_mut().open(seq, request, Some(parked));
        }
    }

    fn renew(&mut self, request: RequestId, presented: PresentedTicket, ttl: Option<Seconds>) {
        match self.standing(presented) {
            Standing::Holder => {
                self.present_holder(ttl, None);
                if let Some(lease) = self.state.lease() {
                    let view = self.state.view(self.terms, self.now, lease);
                    let answer = Answer::Renewed {
                        ttl: self.state.told_ttl(self.terms, self.now.mono, lease),
                        expires_at: view.expires_at,
                        token: view.token,
                    };
                    self.answer(request, answer);
                }
            }
            Standing::Waiting(seq) => {
                self.present_waiter(seq, None);
                self.reserve_if_free();
                self.answer(request, Answer::NotHolder);
            }
            Standing::Dead(death) => self.answer(request, Answer::Dead(death)),
            Standing::Nobody => self.answer(request, Answer::TicketMissing),
        }
    }

    fn unlock(&mut self, request: RequestId, presented: PresentedTicket) {
        let answer = match self.standing(presented) {
            Standing::Holder => {
                self.end_lease(EndReason::Released);
                Answer::Unlocked { dead: None }
            }
            Standing::Waiting(seq) => {
                if let Some(ticket) = self.waiter(seq).map(|w| w.row.ticket) {
                    self.remember(ticket, EndReason::Released);
                }
                self.leave(seq);
                Answer::Unlocked { dead: None }
            }
            Standing::Dead(death) if self.terms.rules.dead_unlock_succeeds => {
                Answer::Unlocked { dead: Some(death) }
            }
            Standing::Dead(Some(EndReason::Released)) => Answer::Unlocked { dead: None },
            Standing::Dead(death) => Answer::Dead(death),
            Standing::Nobody => Answer::TicketMissing,
        };
        self.answer(request, answer);
        self.reserve_if_free();
    }

    fn force_unlock(&mut self, request: RequestId, token: Option<FencingToken>) {
        let holder = self.state.holder(self.terms, self.now);
        if token.is_some() && holder.as_ref().map(|h| h.token) != token {
            return self.answer(request, Answer::OtherLease);
        }
        self.answer(request, Answer::Forced(holder.clone()));
        if holder.is_some() {
            self.end_lease(EndReason::ForcedOff);
            self.hand_off();
        }
    }

    fn delete(&mut self, request: RequestId, presented: PresentedTicket) {
        let allowed = match self.standing(presented) {
            Standing::Holder => true,
            Standing::Waiting(seq) => {
                self.present_waiter(seq, None);
                let allowed = self.may_take(seq);
                self.reserve_if_free();
                allowed
            }
            Standing::Dead(death) if !self.writes_as_nobody(death) => {
                return self.answer(request, Answer::Dead(death));
            }
            Standing::Nobody | Standing::Dead(_) => self.state.lock == Lock::Free,
        };
        if !allowed {
            return self.answer_locked(request);
        }
        for waiting in self.state.queue_mut().parked_requests() {
            self.answer(waiting, Answer::Gone);
        }
        self.state.queue = None;
        self.state.lock = Lock::Free;
        self.answer(request, Answer::Deletable);
    }

    // ---- what became of answers -------------------------------------------------------------------

    fn delivered(&mut self, request: RequestId) {
        let now = self.now.mono;
        let starts = matches!(
            self.state.lease().map(|lease| &lease.clock),
            Some(LeaseClock::Answering(requests)) if requests.contains(&request)
        );
        if starts {
            self.start_lease(now);
        } else {
            self.close(request, true);
        }
    }

    /// The holder is being answered: from now on its lease runs.
    fn start_lease(&mut self, now: Millis) {
        let Lock::Held(mut lease) = std::mem::replace(&mut self.state.lock, Lock::Free) else {
            return;
        };
        if let LeaseClock::Answering(unconfirmed) = lease.clock {
            let expires = self.state.expiry(self.terms, lease.stored_ttl, now, now);
            lease.clock = LeaseClock::Running {
                since: now,
                expires,
                unconfirmed,
            };
        }
        self.state.lock = Lock::Held(lease);
    }

    fn close(&mut self, request: RequestId, delivered: bool) {
        if self.state.queue.is_some() {
            let (now, waiter_timeouts) = (self.now.mono, waiter_timeouts(self.terms));
            self.state
                .queue_mut()
                .close(request, delivered, now, waiter_timeouts);
        }
    }

    fn vanished(&mut self, request: RequestId) {
        if let Lock::Held(lease) = &mut self.state.lock {
            let (LeaseClock::Answering(told)
            | LeaseClock::Running {
                unconfirmed: told, ..
            }) = &mut lease.clock;
            if let Some(index) = told.iter().position(|id| *id == request) {
                told.remove(index);
                if told.is_empty() {
                    self.take_back();
                }
                return;
            }
        }
        let Some(seq) = self.state.queue_ref().and_then(|q| q.with_request(request)) else {
            return;
        };
        self.close(request, false);
        let gone = self.waiter(seq).is_some_and(|waiter| {
            let untold = waiter.delivery == TicketDelivery::NotSent
                || waiter.delivery == TicketDelivery::SentIn(request);
            (untold || waiter.ticketless_write) && !waiter.has_open_requests()
        });
        if gone {
            self.leave(seq);
        }
    }

    /// Leaves the queue; a reservation for it goes on to the next.
    fn leave(&mut self, seq: Seq) {
        let Some(waiter) = self.state.queue_mut().remove(seq) else {
            return;
        };
        if waiter.stored {
            let ticket = waiter.row.ticket;
            self.out.changes.push(Change::NotWaiting(ticket));
        }
        for (request, _) in waiter.parked() {
            self.answer(request, Answer::Dead(Some(EndReason::Released)));
        }
        self.pass_over(seq);
    }

    /// A grant that nobody was there to take. One with an idempotency key stays for the retry; a ticket
    /// that its client knew goes back to its place, near from now on; any other vanishes.
    fn take_back(&mut self) {
        let now = self.now.mono;
        if self
            .state
            .lease()
            .is_some_and(|lease| lease.row.key.is_some())
        {
            return self.start_lease(now);
        }
        let Lock::Held(lease) = std::mem::replace(&mut self.state.lock, Lock::Free) else {
            return;
        };
        self.out.events.push(Event::TakenBack(lease.token));
        self.change_head();
        if lease.told {
            let row = lease.row;
            self.out.changes.push(Change::Waiting(row.clone()));
            let waiter_timeouts = waiter_timeouts(self.terms);
            self.state
                .queue_mut()
                .insert(Waiter::known(row), now, waiter_timeouts);
        }
        self.hand_off();
    }
}

/// How long a request with this patience may be parked: `None`, not at all; `Some(None)`, without limit.
fn deadline_of(patience: Patience) -> Option<Option<Millis>> {
    match patience {
        Patience::Never | Patience::Poll => None,
        Patience::Until(at) => Some(Some(at)),
        Patience::Forever => Some(None),
    }
}

/// The later of two expiries; `None` never comes.
pub(super) fn later(a: Option<Millis>, b: Option<Millis>) -> Option<Millis> {
    Some(a?.max(b?))
}
