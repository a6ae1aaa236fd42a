//! Lock requests: a grant, a place in the queue, or a change of mode for a holder.

use super::{Step, TicketStatus};
use crate::lock::command::{
    Death, Event, LockOptions, LockRequest, PresentedTicket, Refusal, RequestId, WaitPolicy,
};
use crate::lock::leases::Lease;
use crate::lock::names::{FencingToken, Mode};
use crate::lock::queue::{Open, Seq, TicketDelivery, Waiter};

impl Step<'_> {
    pub(super) fn acquire(&mut self, asked: LockRequest) {
        self.come_again(asked.request);
        if asked.options.mode == Some(Mode::Shared) && self.state.options.slots > 1 {
            return self.refuse(asked.request, Refusal::ModeNotOffered);
        }
        match self.status_of(asked.presented) {
            TicketStatus::Holder(token) => self.keep(token, asked, None),
            TicketStatus::Waiting(seq) => self.ask_with_ticket(seq, asked),
            TicketStatus::NoTicket => self.ask_anew(asked, None),
            TicketStatus::Dead(ended) => self.ask_anew(asked, ended),
        }
    }

    /// Sets `place` and `since` of a request that comes again because its document is loaded.
    pub(super) fn come_again(&mut self, request: RequestId) {
        let (now, terms) = (self.now.mono, self.terms);
        let queue = self.state.queue.as_mut();
        let came = queue.and_then(|queue| queue.come_again(request, now, terms));
        if let Some((seq, since)) = came {
            (self.place, self.since) = (Some(seq), since);
        }
    }

    /// A request without a live ticket: an earlier copy or its idempotency key leads to one, or a new one is made.
    fn ask_anew(&mut self, asked: LockRequest, ended: Death) {
        if let Some(seq) = self.place {
            return self.continue_loaded(seq, asked, ended);
        }
        match self.by_copy(&asked).or_else(|| self.by_key(&asked.options)) {
            Some((TicketStatus::Dead(death), _)) => {
                let made = PresentedTicket::Ticket(asked.fresh);
                return self.answer_dead(asked.request, made, death);
            }
            Some((_, false)) => {
                return self.refuse(asked.request, Refusal::KeyReused);
            }
            Some((TicketStatus::Waiting(seq), true)) if self.is_copy(seq, &asked) => {
                let asked = repeated(asked);
                self.present_waiter(seq, Some(&asked.options));
                // The client was not told the ticket yet: if this request vanishes, the place goes with it, as
                // if no copy had come before.
                if let Some(waiter) = self.state.queue_mut().get_mut(seq) {
                    waiter.delivery = TicketDelivery::NotSent;
                }
                return self.take_or_wait(seq, asked, ended);
            }
            Some((TicketStatus::Holder(token), true)) => {
                // A retry repeats the first request. It must not undo changes made since.
                return self.keep(token, repeated(asked), ended);
            }
            Some((TicketStatus::Waiting(seq), true)) => {
                return self.ask_again(seq, repeated(asked), ended);
            }
            Some(_) | None => {}
        }
        if let Some(refusal) = self.by_ended_key(&asked.options) {
            return self.refuse(asked.request, refusal);
        }
        let open = self.is_open_to(asked.options.mode());
        if open && asked.policy != WaitPolicy::Loading {
            let waiter = Waiter::fresh(asked.fresh, self.state.next_seq, asked.options, None);
            self.state.next_seq += 1;
            self.grant(waiter, Some((asked.request, ended)));
        } else if asked.policy == WaitPolicy::Never {
            self.answer_locked(asked.request, None);
        } else {
            self.take_place(asked, ended, open);
        }
    }

    /// Takes a new place in the queue. `open`: the lock can be granted to this request once its document is
    /// loaded, so the limit of waiters does not apply.
    #[inline(never)]
    fn take_place(&mut self, asked: LockRequest, ended: Death, open: bool) {
        let relayed = asked.options.relayed;
        let wall = Some(self.now.wall);
        let mut waiter = Waiter::fresh(asked.fresh, self.state.next_seq, asked.options, wall);
        if asked.policy == WaitPolicy::Loading {
            // The document may turn out not to exist. The request is then refused and its place must go, too,
            // even with an idempotency key, which otherwise keeps a place.
            waiter.delivery = TicketDelivery::NotSent;
        }
        let Some(seq) = self.enqueue(asked.request, waiter, open) else {
            return;
        };
        let parks = asked.policy.deadline().is_some();
        let confirmed = |w: &Waiter| w.delivery == TicketDelivery::Confirmed;
        if (relayed && parks) || self.waiter(seq).is_some_and(confirmed) {
            self.store_waiter(seq);
        }
        self.queue_up(seq, asked.request, asked.policy, ended);
    }

    /// Continues a request whose document is loaded and which took a place before.
    fn continue_loaded(&mut self, seq: Seq, asked: LockRequest, ended: Death) {
        let loaded = asked.policy != WaitPolicy::Loading;
        if loaded && self.waiter(seq).is_some_and(|w| w.row.key.is_some()) {
            self.state.queue_mut().confirm(seq);
            self.store_waiter(seq);
        }
        self.take_or_wait(seq, asked, ended);
    }

    fn ask_with_ticket(&mut self, seq: Seq, asked: LockRequest) {
        let leaves = matches!(asked.policy, WaitPolicy::UntilThenLeave(_));
        let mode = self.waiter(seq).map(|w| w.row.mode);
        if asked.options.mode.is_some() && asked.options.mode != mode {
            self.present_waiter(seq, None);
            self.refuse(asked.request, Refusal::ModeDiffers);
        } else if leaves {
            self.present_waiter(seq, None);
            self.refuse(asked.request, Refusal::WaitsAlready);
        } else {
            self.ask_again(seq, asked, None);
        }
    }

    /// A request with a waiting ticket, or with its idempotency key.
    fn ask_again(&mut self, seq: Seq, asked: LockRequest, ended: Death) {
        self.present_waiter(seq, Some(&asked.options));
        self.take_or_wait(seq, asked, ended);
    }

    fn take_or_wait(&mut self, seq: Seq, asked: LockRequest, ended: Death) {
        let request = asked.request;
        if asked.policy != WaitPolicy::Loading && self.may_take(seq) {
            if let Some(waiter) = self.state.queue_mut().remove(seq) {
                self.grant(waiter, Some((request, ended)));
            }
        } else if asked.policy == WaitPolicy::Never {
            self.answer_locked(request, None);
        } else {
            if asked.options.relayed && asked.policy.deadline().is_some() {
                self.store_waiter(seq);
            }
            self.queue_up(seq, request, asked.policy, ended);
        }
    }

    /// Adds a place at the end of the queue. `None`: refused, because it is full and the lock not `open` to this.
    pub(super) fn enqueue(
        &mut self,
        request: RequestId,
        waiter: Waiter,
        open: bool,
    ) -> Option<Seq> {
        if !open && self.state.waiting() >= self.terms.waiters_max {
            self.refuse(request, Refusal::TooManyWaiters);
            return None;
        }
        let seq = waiter.row.seq;
        self.state.next_seq = seq + 1;
        let queue = self.state.queue_mut();
        queue.insert(waiter, self.now.mono, self.terms);
        Some(seq)
    }

    fn queue_up(&mut self, seq: Seq, request: RequestId, policy: WaitPolicy, ended: Death) {
        let open = Open {
            request,
            since: self.since,
            policy,
            writes: false,
            ended,
        };
        self.state.queue_mut().open(seq, open);
        if policy != WaitPolicy::Loading {
            self.announce(seq, request);
        }
        if policy == WaitPolicy::Poll {
            self.answer_queued(request, seq, ended);
        }
    }

    /// A lock request of the holder, perhaps for another mode.
    #[inline(never)]
    fn keep(&mut self, token: FencingToken, asked: LockRequest, ended: Death) {
        let (request, options) = (asked.request, asked.options);
        if asked.policy == WaitPolicy::Loading {
            return self.touch_holder(token);
        }
        let mode = self.state.leases.get(token).map(|lease| lease.row.mode);
        let changes = options.mode.filter(|wanted| Some(*wanted) != mode);
        let may_promote = self.state.leases.len() == 1 && self.state.delay_until.is_none();
        if changes == Some(Mode::Exclusive) && !may_promote {
            // Refused at once, even with a wait: two holders that wait for each other would wait for ever.
            self.touch_holder(token);
            return self.answer_locked(request, Some(token));
        }
        self.present_holder(token, (options.ttl, false), Some(request), options.client);
        let token = match changes {
            Some(Mode::Exclusive) => self.promote(token),
            Some(Mode::Shared) => {
                self.demote(token);
                token
            }
            None => token,
        };
        self.answer_granted(request, token, None, ended);
    }

    /// Changes the only lease from shared to exclusive, ahead of the queue. Returns its new token.
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

    /// Changes a lease from exclusive to shared. It keeps its token.
    fn demote(&mut self, token: FencingToken) {
        let share = |lease: &mut Lease| lease.row.mode = Mode::Shared;
        if self.state.leases.change(token, share).is_some() {
            self.change_lease(token);
            let view = self.view(token);
            self.out.events.extend(view.map(Event::Demoted));
        }
    }
}

/// The request without the `ttl` and mode of a retry: the ticket has those of the first request.
fn repeated(asked: LockRequest) -> LockRequest {
    LockRequest {
        options: LockOptions {
            ttl: None,
            mode: None,
            ..asked.options
        },
        ..asked
    }
}
