//! One command applied to a lock. Every transition a lock can make is in this file.

use std::net::IpAddr;

use super::command::{
    Answer, Command, Death, Event, Grant, HolderView, LockRequest, Outcome, Patience,
    PresentedTicket, Refusal, RequestId, Wish,
};
#[cfg(debug_assertions)]
use super::invariants;
use super::leases::{Lease, LeaseClock};
use super::names::{FencingToken, Millis, Mode, Now, Ticket, TicketId, Ttl};
use super::queue::{Due, Parked, Purpose, Queue, Seq, TicketDelivery, Waiter, fresh_row};
use super::rows::{EndReason, EndedMore, Forced, TicketRow};
use super::state::{LockState, later};
use super::terms::Terms;

/// What a presented ticket is to this lock.
enum Standing {
    Nobody,
    Holder(FencingToken),
    Waiting(Seq),
    Dead(Death),
}

/// One command on its way through the lock.
struct Step<'a> {
    state: &'a mut LockState,
    terms: &'a Terms,
    now: Now,
    /// When the request in hand came first, and the place that it took then.
    since: Millis,
    place: Option<Seq>,
    out: Outcome,
}

impl LockState {
    /// Applies one command at `now` (milliseconds on the monotonic clock; never less than before).
    /// Whatever time alone has done until then happens first. The answers may leave only when the
    /// changes are durable.
    pub fn apply(&mut self, terms: &Terms, now: Now, command: Command) -> Outcome {
        #[cfg(debug_assertions)]
        let before = invariants::Before::of(self, &command);
        let mut step = Step {
            state: self,
            terms,
            now,
            since: now.mono,
            place: None,
            out: Outcome::default(),
        };
        step.pass_time();
        match command {
            Command::Acquire(asked) => step.acquire(asked),
            Command::Touch { request, presented } => step.touch(request, presented),
            Command::Write {
                request,
                presented,
                fresh,
                release,
                patience,
            } => step.write(request, presented, fresh, release, patience),
            Command::Renew {
                request,
                presented,
                ttl,
                exact,
            } => step.renew(request, presented, ttl, exact),
            Command::Unlock { request, presented } => step.unlock(request, presented),
            Command::ForceUnlock {
                request,
                token,
                forced,
            } => step.force_unlock(request, token, &forced),
            Command::RemoveWaiter {
                request,
                waiter,
                forced,
            } => step.remove_waiter(request, waiter, &forced),
            Command::Delete { request, presented } => step.delete(request, presented),
            Command::Vanished { request } => step.vanished(request),
            Command::Tick => {}
        }
        step.hand_off();
        let outcome = step.out;
        if self.queue_ref().is_some_and(Queue::is_empty) {
            self.queue = None;
        }
        self.leases.shrink();
        #[cfg(debug_assertions)]
        if let Err(broken) = invariants::check_cheap(self, terms, now)
            .and_then(|()| before.check(self, now, &outcome))
        {
            panic!("invariant broken: {broken}");
        }
        outcome
    }

    /// The answer of this request went out to a connection that was still there: the lease that it tells of runs
    /// from now on, and a ticket in the queue is on its way to its client. Nobody is to be told of that, and
    /// nothing to be stored.
    pub fn delivered(&mut self, terms: &Terms, now: Now, request: RequestId) {
        let lease = self.leases.with_request(request);
        match lease.map(|lease| (lease.token, &lease.clock)) {
            Some((token, LeaseClock::Answering(_))) => self.start_lease(terms, now.mono, token),
            _ => self.close(terms, now.mono, request, true),
        }
        #[cfg(debug_assertions)]
        if let Err(broken) = invariants::check_cheap(self, terms, now) {
            panic!("invariant broken: {broken}");
        }
    }

    /// The holder is being answered: from now on its lease runs.
    fn start_lease(&mut self, terms: &Terms, now: Millis, token: FencingToken) {
        let Some(lease) = self.leases.get(token) else {
            return;
        };
        let expires = self.expiry(terms, lease.stored_ttl, now, now);
        self.leases.change(token, |lease| {
            if let LeaseClock::Answering(told) = &mut lease.clock {
                lease.clock = LeaseClock::Running {
                    since: now,
                    expires,
                    unconfirmed: std::mem::take(told),
                };
            }
        });
    }

    fn close(&mut self, terms: &Terms, now: Millis, request: RequestId, delivered: bool) {
        if let Some(queue) = &mut self.queue {
            queue.close(request, delivered, now, &terms.limits);
        }
    }
}

// Not inlined where it says so: see "What a request weighs" in docs/architecture.md.
impl Step<'_> {
    fn answer(&mut self, request: RequestId, answer: Answer) {
        self.out.answers.push((request, answer));
    }

    fn refuse(&mut self, request: RequestId, refusal: Refusal) {
        self.answer(request, Answer::Refused(refusal));
    }

    fn change_head(&mut self) {
        let head = self.state.head();
        self.out.changes.head = Some(head);
    }

    /// This lease has to be stored as it is now.
    fn change_lease(&mut self, token: FencingToken) {
        if self.state.leases.is_in_head(token) {
            return self.change_head();
        }
        if let Some(lease) = self.state.leases.get(token) {
            self.out.changes.hold(lease.holder_row());
        }
    }

    /// This lease, which was stored in the head row or not, is none any more.
    fn change_ended(&mut self, lease: &Lease, was_in_head: bool) {
        let holding = &mut self.out.changes.holding;
        if !was_in_head {
            holding.insert(lease.row.ticket, None);
            return;
        }
        if let Some(next) = self.state.leases.first() {
            holding.insert(next.row.ticket, None);
        }
        self.change_head();
    }

    // ---- time -------------------------------------------------------------------------------------

    /// Carries out what was due until now, in the order in which it was due.
    fn pass_time(&mut self) {
        let now = self.now.mono;
        while let Some(at) = self.state.deadline().filter(|at| *at <= now) {
            let ends = self.state.leases.next_end();
            if let Some((_, token)) = ends.filter(|(end, _)| *end == at) {
                self.end_lease(token, EndReason::Expired, None);
            } else if self.state.delay_until == Some(at) {
                self.state.delay_until = None;
                self.change_head();
            } else {
                match self.state.queue_mut().pop_due(now, &self.terms.limits) {
                    Some(Due::WaitOver(request)) => self.wait_over(request),
                    Some(Due::WentFar(seq)) => self.pass_over(seq),
                    Some(Due::Dropped(seq)) => {
                        self.leave(seq);
                        self.out.events.push(Event::WaiterDropped);
                    }
                    None => break,
                }
            }
            self.hand_off();
        }
    }

    /// A reservation ends when its ticket is not near any more.
    fn pass_over(&mut self, seq: Seq) {
        self.state.reserved.take_if(|reserved| *reserved == seq);
    }

    #[inline(never)]
    fn wait_over(&mut self, request: RequestId) {
        let Some((seq, parked)) = self.state.queue_mut().unpark(request) else {
            return;
        };
        match parked.purpose {
            Purpose::Lock { leaves: false } => self.answer_queued(request, seq, parked.ended),
            Purpose::Lock { leaves: true } => {
                self.close(request, false);
                if self.waiter(seq).is_some_and(|w| !w.has_open_requests()) {
                    self.leave_for_good(seq);
                }
                self.answer_locked(request, None);
            }
            Purpose::Write { .. } => {
                let ticketless_write = self.waiter(seq).is_some_and(|w| w.ticketless_write);
                if ticketless_write {
                    self.state.queue_mut().remove(seq);
                } else {
                    self.close(request, true);
                }
                self.answer_locked(request, None);
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
        if let Some(token) = self.state.token_of(ticket) {
            return Standing::Holder(token);
        }
        match self.state.queue_ref().and_then(|q| q.with_ticket(ticket)) {
            Some(seq) => Standing::Waiting(seq),
            None => Standing::Dead(self.state.ended.reason(ticket, self.now.mono)),
        }
    }

    /// The ticket that an earlier copy of a relayed request made, as far as it is known.
    fn by_copy(&self, asked: &LockRequest) -> Option<(Standing, bool)> {
        let made = PresentedTicket::Ticket(asked.fresh);
        match asked.wish.relayed.then(|| self.standing(made))? {
            Standing::Nobody | Standing::Dead(None) => None,
            known => Some((known, true)),
        }
    }

    /// Whether an earlier copy of this request made this place, of which its client was told nothing.
    fn is_copy(&self, seq: Seq, asked: &LockRequest) -> bool {
        let made = |w: &Waiter| w.row.key.is_none() && w.row.ticket == asked.fresh;
        asked.wish.relayed && self.waiter(seq).is_some_and(made)
    }

    /// The live ticket that this attempt made, and whether the same was asked then.
    fn by_key(&self, wish: &Wish) -> Option<(Standing, bool)> {
        let key = wish.key.as_ref()?;
        let same = |row: &TicketRow| {
            let asked = row.key.as_ref();
            row.owner == wish.owner
                && asked.is_some_and(|k| k.ttl == wish.ttl && k.mode == wish.mode())
        };
        if let Some(lease) = self.state.leases.with_key(key) {
            return Some((Standing::Holder(lease.token), same(&lease.row)));
        }
        let seq = self.state.queue_ref()?.with_key(key)?;
        Some((Standing::Waiting(seq), same(&self.waiter(seq)?.row)))
    }

    /// The answer to an attempt whose ticket has ended.
    fn by_ended_key(&self, wish: &Wish) -> Option<Answer> {
        let now = self.now.mono;
        let (ticket, more) = self.state.ended.with_key(wish.key.as_ref()?, now)?;
        let same = more.attempt.as_ref().is_some_and(|attempt| {
            attempt.owner == wish.owner
                && attempt.key.ttl == wish.ttl
                && attempt.key.mode == wish.mode()
        });
        Some(match same {
            true => self.dead(ticket, self.state.ended.reason(ticket, now)),
            false => Answer::Refused(Refusal::KeyReused),
        })
    }

    /// What a dead ticket is told.
    fn dead(&self, ticket: Ticket, death: Death) -> Answer {
        match self.state.ended.forced(ticket, self.now.mono) {
            Some(forced) => Answer::Refused(Refusal::DeadByForce(Box::new(forced.clone()))),
            None => Answer::Refused(Refusal::Dead(death)),
        }
    }

    fn answer_dead(&mut self, request: RequestId, presented: PresentedTicket, death: Death) {
        let answer = match presented {
            PresentedTicket::Ticket(ticket) => self.dead(ticket, death),
            PresentedTicket::Absent | PresentedTicket::Malformed => {
                Answer::Refused(Refusal::Dead(death))
            }
        };
        self.answer(request, answer);
    }

    /// Whether this waiter, which is near, may be granted now: the lock is reserved for it, or could have
    /// been had it been near before.
    fn may_take(&self, seq: Seq) -> bool {
        let next = self.state.reserved.or_else(|| self.state.first_near());
        next == Some(seq) && self.state.admits_waiter(seq)
    }

    /// Whether somebody without a place may be granted now: nobody near is ahead.
    fn is_open_to(&self, mode: Mode) -> bool {
        self.state.admits(mode) && self.state.first_near().is_none()
    }

    /// Whether data may be changed without a ticket: nobody holds, and nobody is next in line.
    fn is_free(&self) -> bool {
        !self.state.is_locked()
    }

    // ---- asking for the lock ----------------------------------------------------------------------

    fn acquire(&mut self, asked: LockRequest) {
        self.come_again(asked.request);
        if asked.wish.mode == Some(Mode::Shared) && self.state.options.slots > 1 {
            return self.refuse(asked.request, Refusal::ModeNotOffered);
        }
        match self.standing(asked.presented) {
            Standing::Holder(token) => self.keep(token, asked, None),
            Standing::Waiting(seq) => self.ask_with_ticket(seq, asked),
            Standing::Nobody => self.ask_anew(asked, None),
            Standing::Dead(ended) => self.ask_anew(asked, ended),
        }
    }

    /// Finds the place that a request has from when it came first, and when that was.
    fn come_again(&mut self, request: RequestId) {
        let (now, limits) = (self.now.mono, &self.terms.limits);
        let queue = self.state.queue.as_mut();
        let came = queue.and_then(|queue| queue.come_again(request, now, limits));
        if let Some((seq, since)) = came {
            (self.place, self.since) = (Some(seq), since);
        }
    }

    /// Without a live ticket: the idempotency key may know one, else a new one is made.
    fn ask_anew(&mut self, asked: LockRequest, ended: Death) {
        if let Some(seq) = self.place {
            return self.go_on(seq, asked, ended);
        }
        match self.by_copy(&asked).or_else(|| self.by_key(&asked.wish)) {
            Some((Standing::Dead(death), _)) => {
                let dead = self.dead(asked.fresh, death);
                return self.answer(asked.request, dead);
            }
            Some((_, false)) => {
                return self.refuse(asked.request, Refusal::KeyReused);
            }
            Some((Standing::Waiting(seq), true)) if self.is_copy(seq, &asked) => {
                let asked = repeated(asked);
                self.present_waiter(seq, Some(&asked.wish));
                // Gone with its request, as if that had come once.
                if let Some(waiter) = self.state.queue_mut().get_mut(seq) {
                    waiter.delivery = TicketDelivery::NotSent;
                }
                return self.take_or_wait(seq, asked, ended);
            }
            Some((Standing::Holder(token), true)) => {
                // A retry repeats what was asked then; it must not undo what was changed since.
                return self.keep(token, repeated(asked), ended);
            }
            Some((Standing::Waiting(seq), true)) => {
                return self.ask_again(seq, repeated(asked), ended);
            }
            Some(_) | None => {}
        }
        if let Some(answer) = self.by_ended_key(&asked.wish) {
            return self.answer(asked.request, answer);
        }
        let open = self.is_open_to(asked.wish.mode());
        if open && asked.patience != Patience::Loading {
            let client = asked.wish.client;
            let row = fresh_row(asked.fresh, self.state.next_seq, asked.wish, None);
            self.state.next_seq += 1;
            let mut waiter = Waiter::new(row, false);
            waiter.client = client;
            let told = (asked.request, self.since, ended);
            self.grant(waiter, Some(told));
        } else if asked.patience == Patience::Never {
            self.answer_locked(asked.request, None);
        } else {
            self.take_place(asked, ended, open);
        }
    }

    /// `open`: the lock could be had now, so that the queue is not full whoever is in it.
    #[inline(never)]
    fn take_place(&mut self, asked: LockRequest, ended: Death, open: bool) {
        let (client, relayed) = (asked.wish.client, asked.wish.relayed);
        let wall = Some(self.now.wall);
        let row = fresh_row(asked.fresh, self.state.next_seq, asked.wish, wall);
        let mut waiter = Waiter::new(row, false);
        waiter.client = client;
        if asked.patience == Patience::Loading {
            // The place is gone with its request if there is nothing to wait for.
            waiter.delivery = TicketDelivery::NotSent;
        }
        let Some(seq) = self.enqueue(asked.request, waiter, open) else {
            return;
        };
        let parks = deadline_of(asked.patience).is_some();
        let confirmed = |w: &Waiter| w.delivery == TicketDelivery::Confirmed;
        if (relayed && parks) || self.waiter(seq).is_some_and(confirmed) {
            self.store_waiter(seq);
        }
        let request = (asked.request, self.since);
        self.queue_up(seq, request, asked.patience, ended);
    }

    /// What the answer needs is loaded; the place was taken before.
    fn go_on(&mut self, seq: Seq, asked: LockRequest, ended: Death) {
        let loaded = asked.patience != Patience::Loading;
        if loaded && self.waiter(seq).is_some_and(|w| w.row.key.is_some()) {
            self.state.queue_mut().confirm(seq);
            self.store_waiter(seq);
        }
        self.take_or_wait(seq, asked, ended);
    }

    fn ask_with_ticket(&mut self, seq: Seq, asked: LockRequest) {
        let leaves = matches!(asked.patience, Patience::UntilThenLeave(_));
        let mode = self.waiter(seq).map(|w| w.row.mode);
        if asked.wish.mode.is_some() && asked.wish.mode != mode {
            self.present_waiter(seq, None);
            self.refuse(asked.request, Refusal::ModeDiffers);
        } else if leaves {
            self.present_waiter(seq, None);
            self.refuse(asked.request, Refusal::WaitsAlready);
        } else {
            self.ask_again(seq, asked, None);
        }
    }

    /// With a waiting ticket, or its key.
    fn ask_again(&mut self, seq: Seq, asked: LockRequest, ended: Death) {
        self.present_waiter(seq, Some(&asked.wish));
        self.take_or_wait(seq, asked, ended);
    }

    fn take_or_wait(&mut self, seq: Seq, asked: LockRequest, ended: Death) {
        let (request, since) = (asked.request, self.since);
        if asked.patience != Patience::Loading && self.may_take(seq) {
            if let Some(waiter) = self.state.queue_mut().remove(seq) {
                self.grant(waiter, Some((request, since, ended)));
            }
        } else if asked.patience == Patience::Never {
            self.answer_locked(request, None);
        } else {
            if asked.wish.relayed && deadline_of(asked.patience).is_some() {
                self.store_waiter(seq);
            }
            self.queue_up(seq, (request, since), asked.patience, ended);
        }
    }

    /// A new place at the end of the queue, or a refusal when it is full.
    fn enqueue(&mut self, request: RequestId, waiter: Waiter, open: bool) -> Option<Seq> {
        if !open && self.state.waiting() >= self.terms.limits.waiters_max {
            self.refuse(request, Refusal::TooManyWaiters);
            return None;
        }
        let seq = waiter.row.seq;
        self.state.next_seq = seq + 1;
        let (now, limits) = (self.now.mono, &self.terms.limits);
        self.state.queue_mut().insert(waiter, now, limits);
        Some(seq)
    }

    fn queue_up(
        &mut self,
        seq: Seq,
        request: (RequestId, Millis),
        patience: Patience,
        ended: Death,
    ) {
        let purpose = Purpose::Lock {
            leaves: matches!(patience, Patience::UntilThenLeave(_)),
        };
        let parked = deadline_of(patience).map(|until| Parked {
            until,
            purpose,
            ended,
        });
        self.state.queue_mut().open(seq, request, parked);
        if matches!(patience, Patience::Never | Patience::Poll) {
            self.answer_queued(request.0, seq, ended);
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

    /// `except`: the asker's own lease.
    fn answer_locked(&mut self, request: RequestId, except: Option<FencingToken>) {
        let by = self.state.locked_by(self.terms, self.now, except);
        self.refuse(request, Refusal::Locked(Box::new(by)));
    }

    fn store_waiter(&mut self, seq: Seq) {
        if let Some(waiter) = self.state.queue_mut().get_mut(seq)
            && !waiter.stored
            && !waiter.ticketless_write
        {
            waiter.stored = true;
            let row = waiter.row.clone();
            self.out.changes.wait(row);
        }
    }

    /// A waiting ticket was presented: its client is alive and knows it.
    fn present_waiter(&mut self, seq: Seq, wish: Option<&Wish>) {
        let (now, limits) = (self.now.mono, &self.terms.limits);
        let queue = self.state.queue_mut();
        queue.confirm(seq);
        queue.touch(seq, now, limits);
        if let (Some(waiter), Some(wish)) = (queue.get_mut(seq), wish) {
            waiter.client = wish.client.or(waiter.client);
            if wish.ttl.is_some() && waiter.row.ttl != wish.ttl {
                waiter.row.ttl = wish.ttl;
                waiter.stored = false;
            }
        }
        self.store_waiter(seq);
    }

    // ---- leases -----------------------------------------------------------------------------------

    /// Makes a lease of a waiter that is in the queue no more. Answers everyone who waited with its
    /// ticket, and the request that asks now.
    fn grant(&mut self, waiter: Waiter, asking: Option<(RequestId, Millis, Death)>) {
        self.state.token = self.state.token.next();
        self.state.reserved = None;
        if waiter.stored {
            self.out.changes.leave(waiter.row.ticket);
        }
        let mut told: Vec<(RequestId, Millis, Death)> = asking.into_iter().collect();
        let mut writes: Vec<(RequestId, bool)> = Vec::new();
        for (request, since, parked) in waiter.parked() {
            match parked.purpose {
                Purpose::Write { release } => writes.push((request, release)),
                Purpose::Lock { .. } => told.push((request, since, parked.ended)),
            }
        }
        let answering = told.iter().map(|(request, ..)| *request);
        let answering = answering.chain(writes.iter().map(|(request, _)| *request));
        let token = self.state.token;
        self.state.leases.put(Lease {
            told: waiter.delivery == TicketDelivery::Confirmed,
            stored_ttl: waiter.row.ttl,
            clock: LeaseClock::Answering(answering.collect()),
            row: waiter.row,
            token,
            acquired_at: self.now.wall,
            seen: Some(self.now.mono),
            client: waiter.client,
        });
        self.change_lease(token);
        if self.state.leases.len() > 1 {
            // The highest token is in the head row.
            self.change_head();
        }
        if let Some(view) = self.view(token) {
            self.out.events.push(Event::Granted(view));
        }
        for (request, since, ended) in told {
            let waited_ms = self.now.mono - since;
            self.answer_granted(request, token, Some(waited_ms), ended);
        }
        for (request, release) in writes {
            self.allow_write(request, token, release);
        }
    }

    fn view(&self, token: FencingToken) -> Option<HolderView> {
        let lease = self.state.leases.get(token)?;
        Some(self.state.view(self.terms, self.now, lease))
    }

    /// `waited_ms`: of a grant that this request was there for.
    fn answer_granted(
        &mut self,
        request: RequestId,
        token: FencingToken,
        waited_ms: Option<Millis>,
        ended: Death,
    ) {
        let Some(lease) = self.state.leases.get(token) else {
            return;
        };
        let grant = Grant {
            ticket: lease.row.ticket,
            holder: self.state.view(self.terms, self.now, lease),
            ttl: self.state.told_ttl(self.terms, self.now.mono, lease),
            waited_ms: waited_ms.unwrap_or(0),
            new: waited_ms.is_some(),
            ended,
        };
        self.answer(request, Answer::Granted(Box::new(grant)));
    }

    /// The holder asked again, perhaps for another mode.
    #[inline(never)]
    fn keep(&mut self, token: FencingToken, asked: LockRequest, ended: Death) {
        let (request, wish) = (asked.request, asked.wish);
        if asked.patience == Patience::Loading {
            return self.touch_holder(token);
        }
        let mode = self.state.leases.get(token).map(|lease| lease.row.mode);
        let changes = wish.mode.filter(|wanted| Some(*wanted) != mode);
        let alone = self.state.leases.len() == 1 && self.state.delay_until.is_none();
        if changes == Some(Mode::Exclusive) && !alone {
            // At once, whatever it would wait: two that wait for each other would wait for ever.
            self.touch_holder(token);
            return self.answer_locked(request, Some(token));
        }
        self.present_holder(token, Some((wish.ttl, false)), Some(request), wish.client);
        let token = match changes {
            Some(Mode::Exclusive) => self.promote(token),
            Some(Mode::Shared) => self.demote(token),
            None => token,
        };
        self.answer_granted(request, token, None, ended);
    }

    /// The only holder gets the lock to itself, past whoever waits. Says its new token.
    fn promote(&mut self, from: FencingToken) -> FencingToken {
        let Some(mut lease) = self.state.leases.take(from) else {
            return from;
        };
        let token = self.state.token.next();
        self.state.token = token;
        self.state.reserved = None;
        lease.token = token;
        lease.row.mode = Mode::Exclusive;
        self.state.leases.put(lease);
        self.change_head();
        if let Some(holder) = self.view(token) {
            self.out.events.push(Event::Promoted { from, holder });
        }
        token
    }

    /// An exclusive holder lets others share, and keeps its token.
    fn demote(&mut self, token: FencingToken) -> FencingToken {
        let share = |lease: &mut Lease| lease.row.mode = Mode::Shared;
        if self.state.leases.change(token, share).is_some() {
            self.change_lease(token);
            let view = self.view(token);
            self.out.events.extend(view.map(Event::Demoted));
        }
        token
    }

    /// The holder showed its ticket with lock intent: its expiry becomes the later of what it was and
    /// now + TTL (contract, "TTL"), or, where it asks for that, exactly now + TTL.
    ///
    /// While no answer has told it of the grant, it cannot know that it holds: then the answer to this
    /// request, if the core hears what becomes of it (`tracked`), is one more that may tell it.
    fn present_holder(
        &mut self,
        token: FencingToken,
        renewal: Option<(Option<Ttl>, bool)>,
        tracked: Option<RequestId>,
        client: Option<IpAddr>,
    ) {
        let now = self.now.mono;
        let (ttl, exact) = renewal.unwrap_or_default();
        let Some(mut lease) = self.state.leases.take(token) else {
            return;
        };
        if ttl.is_some() {
            lease.row.ttl = ttl;
        }
        lease.told = true;
        lease.seen = Some(now);
        lease.client = client.or(lease.client);
        let (since, old) = match lease.clock {
            // What the answers on their way promise.
            LeaseClock::Answering(_) => {
                let promised = self.state.expiry(self.terms, lease.stored_ttl, now, now);
                (now, promised)
            }
            LeaseClock::Running { since, expires, .. } => (since, expires),
        };
        let renewed = self.state.expiry(self.terms, lease.row.ttl, since, now);
        let expires = if exact { renewed } else { later(old, renewed) };
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
        self.state.leases.put(lease);
        if stale {
            self.change_lease(token);
        }
    }

    /// Ends a lease for a reason that its holder may ask for later. What becomes of the lock then is for
    /// [`Step::hand_off`] to say.
    fn end_lease(&mut self, token: FencingToken, reason: EndReason, forced: Option<&Forced>) {
        let Some(holder) = self.view(token) else {
            return;
        };
        let was_in_head = self.state.leases.is_in_head(token);
        let Some(lease) = self.state.leases.take(token) else {
            return;
        };
        self.remember(&lease.row, reason, forced);
        let delay_ms = self.state.options.lock_delay_ms();
        let delays = delay_ms > 0 && reason != EndReason::Released;
        if delays {
            self.state.delay_until = Some(self.now.mono + delay_ms);
            self.state.reserved = None;
        }
        self.change_ended(&lease, was_in_head);
        if delays && !was_in_head {
            self.change_head();
        }
        self.out.events.push(Event::Ended { reason, holder });
    }

    fn remember(&mut self, row: &TicketRow, reason: EndReason, forced: Option<&Forced>) {
        let more = (row.key.is_some() || forced.is_some()).then(|| EndedMore {
            attempt: row.attempt(),
            forced: forced.cloned(),
        });
        let now = self.now.mono;
        self.state.ended.forget(now);
        let forget_at = now + self.terms.limits.ended_ms;
        let ended = &mut self.state.ended;
        let row = ended.remember(row.ticket, reason, more, forget_at);
        self.out.changes.end(row);
    }

    /// Gives what can be had now to the near waiters, first to last, as far as they can have it beside each
    /// other: at once to one whose request waits; for one whose request does not, the lock is reserved. So it
    /// wakes exactly those that can be granted now, and nobody past one who cannot.
    fn hand_off(&mut self) {
        while let Some(seq) = self.state.reserved.or_else(|| self.state.first_near()) {
            let waits = self.waiter(seq).is_some_and(Waiter::is_parked);
            if !self.state.admits_waiter(seq) {
                match self.state.reserved.take() {
                    Some(_) => continue,
                    None => return,
                }
            }
            if !waits {
                self.state.reserved = Some(seq);
                return;
            }
            let Some(waiter) = self.state.queue_mut().remove(seq) else {
                return;
            };
            self.state.reserved = None;
            if waiter.ticketless_write {
                for (request, ..) in waiter.parked() {
                    self.answer(request, Answer::Writable { token: None });
                }
            } else {
                self.grant(waiter, None);
            }
        }
    }

    // ---- what holders do --------------------------------------------------------------------------

    #[inline(never)]
    fn touch(&mut self, request: RequestId, presented: PresentedTicket) {
        let live = match self.standing(presented) {
            Standing::Holder(token) => {
                self.touch_holder(token);
                true
            }
            Standing::Waiting(seq) => {
                self.present_waiter(seq, None);
                true
            }
            Standing::Nobody | Standing::Dead(_) => false,
        };
        self.answer(request, Answer::Touched { live });
    }

    /// A sign of life that is not answered with the lease: it proves nothing about an undelivered grant.
    fn touch_holder(&mut self, token: FencingToken) {
        let Some(lease) = self.state.leases.get(token) else {
            return;
        };
        if matches!(lease.clock, LeaseClock::Running { .. }) {
            return self.present_holder(token, None, None, None);
        }
        let now = self.now.mono;
        self.state.leases.change(token, |lease| {
            lease.told = true;
            lease.seen = Some(now);
        });
    }

    #[inline(never)]
    fn write(
        &mut self,
        request: RequestId,
        presented: PresentedTicket,
        fresh: Ticket,
        release: bool,
        patience: Patience,
    ) {
        self.come_again(request);
        let since = self.since;
        let loading = patience == Patience::Loading;
        let patience = match loading || self.terms.rules.refused_write_waits {
            true => patience,
            false => Patience::Never,
        };
        match self.standing(presented) {
            Standing::Holder(token) if loading => self.touch_holder(token),
            Standing::Holder(token) if self.is_shared(token) => {
                self.touch_holder(token);
                self.refuse(request, Refusal::NotExclusive);
            }
            Standing::Holder(token) => {
                self.present_holder(token, None, Some(request), None);
                self.allow_write(request, token, release);
            }
            Standing::Waiting(seq) => {
                self.write_waiting(seq, (request, since), release, patience);
            }
            Standing::Dead(death) if !self.writes_as_nobody(death) => {
                self.answer_dead(request, presented, death);
            }
            Standing::Nobody | Standing::Dead(_) => match self.place {
                Some(seq) if loading => self.park_write(seq, (request, since), patience),
                Some(seq) => self.write_on(seq, (request, since), patience),
                None => self.write_ticketless((request, since), fresh, patience),
            },
        }
    }

    fn is_shared(&self, token: FencingToken) -> bool {
        let lease = self.state.leases.get(token);
        lease.is_some_and(|lease| lease.row.mode == Mode::Shared)
    }

    fn writes_as_nobody(&self, death: Death) -> bool {
        self.terms.rules.spent_ticket_writes_as_nobody
            && matches!(death, None | Some(EndReason::Released))
    }

    /// A write by the holder, in this step.
    fn allow_write(&mut self, request: RequestId, token: FencingToken, release: bool) {
        let lease = self.state.leases.get(token).map(|lease| lease.token);
        if lease.is_none() && self.state.is_held() {
            // An earlier write of this ticket released its slot in this very step.
            return self.answer_locked(request, None);
        }
        self.answer(request, Answer::Writable { token: lease });
        if release || self.terms.rules.write_releases {
            self.end_lease(token, EndReason::Released, None);
        }
    }

    fn write_waiting(
        &mut self,
        seq: Seq,
        request: (RequestId, Millis),
        release: bool,
        patience: Patience,
    ) {
        self.present_waiter(seq, None);
        if patience == Patience::Loading {
            return self.state.queue_mut().open(seq, request, None);
        }
        let parked = |until| Parked {
            until,
            purpose: Purpose::Write { release },
            ended: None,
        };
        if self.waiter(seq).is_some_and(|w| w.row.mode == Mode::Shared) {
            self.refuse(request.0, Refusal::NotExclusive);
        } else if self.may_take(seq) {
            let queue = self.state.queue_mut();
            queue.open(seq, request, Some(parked(None)));
            if let Some(waiter) = queue.remove(seq) {
                self.grant(waiter, None);
            }
        } else if let Some(until) = deadline_of(patience) {
            let queue = self.state.queue_mut();
            queue.open(seq, request, Some(parked(until)));
        } else {
            self.answer_locked(request.0, None);
        }
    }

    /// A write without a ticket: only while the lock is free; it leaves no lock.
    fn write_ticketless(
        &mut self,
        request: (RequestId, Millis),
        fresh: Ticket,
        patience: Patience,
    ) {
        let free = self.is_free();
        let loading = patience == Patience::Loading;
        if free && !loading {
            return self.answer(request.0, Answer::Writable { token: None });
        }
        let may_wait = free || self.terms.rules.refused_write_waits;
        if !may_wait || (deadline_of(patience).is_none() && !loading) {
            return self.answer_locked(request.0, None);
        }
        let row = fresh_row(fresh, self.state.next_seq, Wish::default(), None);
        if let Some(seq) = self.enqueue(request.0, Waiter::new(row, true), free) {
            self.park_write(seq, request, patience);
        }
    }

    /// What a write without a ticket needs to know is loaded; its place was taken before.
    fn write_on(&mut self, seq: Seq, request: (RequestId, Millis), patience: Patience) {
        if self.may_take(seq) {
            self.pass_over(seq);
            self.state.queue_mut().remove(seq);
            self.answer(request.0, Answer::Writable { token: None });
        } else if deadline_of(patience).is_some() {
            self.park_write(seq, request, patience);
        } else {
            self.pass_over(seq);
            self.state.queue_mut().remove(seq);
            self.answer_locked(request.0, None);
        }
    }

    fn park_write(&mut self, seq: Seq, request: (RequestId, Millis), patience: Patience) {
        let parked = deadline_of(patience).map(|until| Parked {
            until,
            purpose: Purpose::Write { release: false },
            ended: None,
        });
        self.state.queue_mut().open(seq, request, parked);
    }

    #[inline(never)]
    fn renew(
        &mut self,
        request: RequestId,
        presented: PresentedTicket,
        ttl: Option<Ttl>,
        exact: bool,
    ) {
        match self.standing(presented) {
            Standing::Holder(token) => {
                self.present_holder(token, Some((ttl, exact)), None, None);
                if let Some(lease) = self.state.leases.get(token) {
                    let view = self.state.view(self.terms, self.now, lease);
                    let answer = Answer::Renewed {
                        ttl: self.state.told_ttl(self.terms, self.now.mono, lease),
                        expires_at: view.expires_at,
                        expires_in_ms: view.expires_in_ms,
                        token: view.token,
                    };
                    self.answer(request, answer);
                }
            }
            Standing::Waiting(seq) => {
                self.present_waiter(seq, None);
                self.refuse(request, Refusal::NotHolder);
            }
            Standing::Dead(death) => self.answer_dead(request, presented, death),
            Standing::Nobody => self.refuse(request, Refusal::TicketMissing),
        }
    }

    fn unlock(&mut self, request: RequestId, presented: PresentedTicket) {
        let answer = match self.standing(presented) {
            Standing::Holder(token) => {
                self.end_lease(token, EndReason::Released, None);
                Answer::Unlocked { dead: None }
            }
            Standing::Waiting(seq) => {
                if let Some(row) = self.waiter(seq).map(|w| w.row.clone()) {
                    self.remember(&row, EndReason::Released, None);
                }
                self.leave(seq);
                Answer::Unlocked { dead: None }
            }
            Standing::Dead(death) if self.terms.rules.dead_unlock_succeeds => {
                Answer::Unlocked { dead: Some(death) }
            }
            Standing::Dead(Some(EndReason::Released)) => Answer::Unlocked { dead: None },
            Standing::Dead(death) => return self.answer_dead(request, presented, death),
            Standing::Nobody => Answer::Refused(Refusal::TicketMissing),
        };
        self.answer(request, answer);
    }

    #[inline(never)]
    fn force_unlock(&mut self, request: RequestId, token: Option<FencingToken>, forced: &Forced) {
        let leases = self.state.leases.iter().map(|lease| lease.token);
        let ended: Vec<FencingToken> = leases
            .filter(|lease| token.is_none_or(|token| token == *lease))
            .collect();
        if token.is_some() && ended.is_empty() {
            return self.refuse(request, Refusal::OtherLease);
        }
        let views = ended.iter().filter_map(|token| self.view(*token)).collect();
        self.answer(request, Answer::Forced(views));
        for token in ended {
            self.end_lease(token, EndReason::ForcedOff, Some(forced));
        }
    }

    /// A retry finds the ticket among those that were ended by force.
    #[inline(never)]
    fn remove_waiter(&mut self, request: RequestId, waiter: TicketId, forced: &Forced) {
        let queue = self.state.queue_ref();
        let told = queue.and_then(|queue| {
            let mut places = queue.iter().filter(|(_, place)| !place.ticketless_write);
            places.find(|(_, place)| place.row.ticket.id() == waiter)
        });
        let Some((seq, row)) = told.map(|(seq, place)| (seq, place.row.clone())) else {
            let answer = match self.state.ended.was_forced(waiter, self.now.mono) {
                true => Answer::WaiterRemoved(false),
                false => Answer::Refused(Refusal::NotWaiting),
            };
            return self.answer(request, answer);
        };
        self.remember(&row, EndReason::ForcedOff, Some(forced));
        let (owner, mode) = (row.owner, row.mode);
        self.out.events.push(Event::WaiterRemoved { owner, mode });
        self.leave_with(
            seq,
            &Answer::Refused(Refusal::DeadByForce(Box::new(forced.clone()))),
        );
        self.answer(request, Answer::WaiterRemoved(true));
    }

    #[inline(never)]
    fn delete(&mut self, request: RequestId, presented: PresentedTicket) {
        let allowed = match self.standing(presented) {
            Standing::Holder(token) if self.is_shared(token) => {
                self.touch_holder(token);
                return self.refuse(request, Refusal::NotExclusive);
            }
            Standing::Holder(_) => true,
            Standing::Waiting(seq) => {
                self.present_waiter(seq, None);
                if self.waiter(seq).is_some_and(|w| w.row.mode == Mode::Shared) {
                    return self.refuse(request, Refusal::NotExclusive);
                }
                self.may_take(seq)
            }
            Standing::Dead(death) if !self.writes_as_nobody(death) => {
                return self.answer_dead(request, presented, death);
            }
            Standing::Nobody | Standing::Dead(_) => self.is_free(),
        };
        if !allowed {
            return self.answer_locked(request, None);
        }
        for waiting in self.state.queue_mut().parked_requests() {
            self.refuse(waiting, Refusal::NoResource);
        }
        self.state.queue = None;
        self.state.reserved = None;
        self.state.delay_until = None;
        self.state.leases = Default::default();
        self.answer(request, Answer::Deletable);
    }

    // ---- what became of answers -------------------------------------------------------------------

    fn close(&mut self, request: RequestId, delivered: bool) {
        self.state
            .close(self.terms, self.now.mono, request, delivered);
    }

    #[inline(never)]
    fn vanished(&mut self, request: RequestId) {
        let lease = self.state.leases.with_request(request);
        if let Some(token) = lease.map(|lease| lease.token) {
            return self.untell(token, request);
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

    /// The answer to this request did not tell of the lease.
    fn untell(&mut self, token: FencingToken, request: RequestId) {
        let untold = self.state.leases.change(token, |lease| {
            let (LeaseClock::Answering(told)
            | LeaseClock::Running {
                unconfirmed: told, ..
            }) = &mut lease.clock;
            told.retain(|id| *id != request);
            told.is_empty()
        });
        if untold == Some(true) {
            self.take_back(token);
        }
    }

    /// Leaves the queue; a reservation for it goes on to the next.
    fn leave(&mut self, seq: Seq) {
        self.leave_with(
            seq,
            &Answer::Refused(Refusal::Dead(Some(EndReason::Released))),
        );
    }

    /// As [`Step::leave`]; requests that wait with it are told this.
    fn leave_with(&mut self, seq: Seq, told: &Answer) {
        let Some(waiter) = self.state.queue_mut().remove(seq) else {
            return;
        };
        if waiter.stored {
            self.out.changes.leave(waiter.row.ticket);
        }
        for (request, ..) in waiter.parked() {
            self.answer(request, told.clone());
        }
        self.pass_over(seq);
    }

    /// The wait of a request that asked for no place is over. A late copy of it must not queue anew.
    fn leave_for_good(&mut self, seq: Seq) {
        let row = self.waiter(seq).map(|w| w.row.clone());
        if let Some(row) = row.filter(|row| row.key.is_some()) {
            self.remember(&row, EndReason::Released, None);
        }
        self.leave(seq);
    }

    /// A grant that nobody was there to take. One with an idempotency key stays for the retry; a ticket
    /// that its client knew goes back to its place, near from now on; any other vanishes.
    fn take_back(&mut self, token: FencingToken) {
        let now = self.now;
        let lease = self.state.leases.get(token);
        if lease.is_some_and(|lease| lease.row.key.is_some()) {
            return self.state.start_lease(self.terms, now.mono, token);
        }
        let was_in_head = self.state.leases.is_in_head(token);
        let Some(lease) = self.state.leases.take(token) else {
            return;
        };
        self.out.events.push(Event::TakenBack(token));
        self.change_ended(&lease, was_in_head);
        if lease.told {
            let mut row = lease.row;
            row.queued_at.get_or_insert(now.wall);
            self.out.changes.wait(row.clone());
            let mut waiter = Waiter::known(row);
            waiter.client = lease.client;
            self.state
                .queue_mut()
                .insert(waiter, now.mono, &self.terms.limits);
        }
    }
}

/// As its first copy: what was asked then stands in the ticket.
fn repeated(asked: LockRequest) -> LockRequest {
    LockRequest {
        wish: Wish {
            ttl: None,
            mode: None,
            ..asked.wish
        },
        ..asked
    }
}

impl Wish {
    fn mode(&self) -> Mode {
        self.mode.unwrap_or_default()
    }
}

/// How long a request with this patience may be parked: `None`, not at all; `Some(None)`, without limit.
fn deadline_of(patience: Patience) -> Option<Option<Millis>> {
    match patience {
        Patience::Never | Patience::Poll | Patience::Loading => None,
        Patience::Until(at) | Patience::UntilThenLeave(at) => Some(Some(at)),
        Patience::Forever => Some(None),
    }
}
