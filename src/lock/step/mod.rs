//! One command applied to a lock. All state transitions of a lock are in this folder.

mod acquire;
mod asker;
mod lease;
mod place;
mod release;
mod write;

use crate::lock::command::{Answer, Command, Death, Outcome, Refusal, RequestId};
#[cfg(debug_assertions)]
use crate::lock::invariants;
use crate::lock::names::{FencingToken, Millis, Now};
use crate::lock::queue::{Queue, Seq, TicketDelivery, Waiter};
use crate::lock::rows::EndReason;
use crate::lock::state::LockState;
use crate::lock::terms::Terms;

/// What a presented ticket is to this lock.
enum TicketStatus {
    /// No ticket was presented.
    NoTicket,
    /// It holds the lease with this token.
    Holder(FencingToken),
    /// It waits in this place.
    Waiting(Seq),
    /// It has ended, is unknown or malformed.
    Dead(Death),
}

/// One command while it is applied.
struct Step<'a> {
    state: &'a mut LockState,
    terms: &'a Terms,
    now: Now,
    /// When the command's request first arrived. Earlier than `now` if its document had to be loaded.
    since: Millis,
    /// The place that it took or had when it first arrived. `None`: this is its first arrival.
    place: Option<Seq>,
    out: Outcome,
}

impl LockState {
    /// Applies one command at `now`, whose monotonic time must never go back. First carries out all that became
    /// due by then: leases that expired, waits and reservations that ended. The answers may be sent only when
    /// the changes are durable.
    ///
    /// # Panics
    ///
    /// In debug builds, if the step breaks a rule of [`invariants`](super::invariants).
    pub fn apply(&mut self, terms: &Terms, now: Now, command: Command) -> Outcome {
        #[cfg(debug_assertions)]
        let (before, asked) = (invariants::before_step(self), command.clone());
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
                policy,
            } => step.write(request, presented, fresh, policy),
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
            .and_then(|()| invariants::check_step(&before, &asked, self, now, &outcome))
        {
            panic!("invariant broken: {broken}");
        }
        outcome
    }

    /// Notes that the answer to this request was sent on a connection that was still open: the lease that it
    /// tells of runs from now on, or the ticket of a place has been sent to its client. Causes no answer, no row
    /// to store and no event.
    pub fn delivered(&mut self, terms: &Terms, now: Now, request: RequestId) {
        let lease = self.leases.with_request(request);
        match lease.map(|lease| (lease.token, lease.since)) {
            Some((token, None)) => self.start_lease(terms, now.mono, token),
            _ => self.close(terms, now.mono, request, true),
        }
        #[cfg(debug_assertions)]
        if let Err(broken) = invariants::check_cheap(self, terms, now) {
            panic!("invariant broken: {broken}");
        }
    }

    /// Lets a lease run from `now` on, unless it runs already: an answer to its grant was sent.
    fn start_lease(&mut self, terms: &Terms, now: Millis, token: FencingToken) {
        let lease = self.leases.get(token);
        let Some(lease) = lease.filter(|lease| lease.since.is_none()) else {
            return;
        };
        let expires = self.expiry(terms, lease.stored_ttl, now, now);
        self.leases.change(token, |lease| {
            lease.since = Some(now);
            lease.expires = expires;
        });
    }

    fn close(&mut self, terms: &Terms, now: Millis, request: RequestId, delivered: bool) {
        if let Some(queue) = &mut self.queue {
            queue.close(request, delivered, now, terms);
        }
    }
}

// `#[inline(never)]` keeps rare branches out of the stack frame of common requests: see "What a request weighs"
// in docs/architecture.md.
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

    /// Carries out all that became due by now, in the order in which it became due. At the same instant places
    /// come before waits, so that a request whose wait ends when a reservation ends still gets the lock.
    fn pass_time(&mut self) {
        let now = self.now.mono;
        while let Some(at) = self.state.deadline().filter(|at| *at <= now) {
            let queue = self.state.queue_ref();
            let lease = self.state.leases.next_end();
            let place = queue.and_then(Queue::next_due);
            let wait = queue.and_then(Queue::next_wait_end);
            if let Some((_, token)) = lease.filter(|(end, _)| *end == at) {
                self.end_lease(token, EndReason::Expired, None);
            } else if self.state.delay_until == Some(at) {
                self.state.delay_until = None;
                self.change_head();
            } else if let Some((_, seq)) = place.filter(|(due, _)| *due == at) {
                self.place_due(seq);
            } else if let Some((_, request)) = wait {
                self.wait_over(request);
            }
            self.hand_off();
        }
    }

    /// A ticket was not presented for so long that it is near no more, or has to go.
    #[inline(never)]
    fn place_due(&mut self, seq: Seq) {
        let queue = self.state.queue_mut();
        if queue.is_near(seq) {
            queue.set_far(seq, self.terms);
            self.pass_over(seq);
        } else {
            self.end_place(seq, EndReason::Expired, None);
        }
    }

    /// Grants the lock to the near waiters in queue order, up to the first one that cannot be granted beside the
    /// current leases. A waiter with a parked request is granted at once. For a waiter without one the lock is
    /// reserved, and nobody behind it is granted.
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
                for open in waiter.parked() {
                    self.answer(open.request, Answer::Writable { token: None });
                }
            } else {
                self.grant(waiter, None);
            }
        }
    }

    fn close(&mut self, request: RequestId, delivered: bool) {
        self.state
            .close(self.terms, self.now.mono, request, delivered);
    }

    /// The client of this request is gone. Its grant is taken back if no other answer may tell of it. Its place
    /// is removed if no client can know the ticket, and no other request with the ticket is open.
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
            let unsent = waiter.delivery == TicketDelivery::NotSent
                || waiter.delivery == TicketDelivery::SentIn(request);
            (unsent || waiter.ticketless_write) && !waiter.has_open_requests()
        });
        if gone {
            self.end_place(seq, EndReason::Released, None);
        }
    }
}
