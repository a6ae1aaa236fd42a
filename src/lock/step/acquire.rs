//! Asking for the lock: a grant, a place in the queue, or another mode for a holder.

use super::{Standing, Step};
use crate::lock::command::{Death, Event, LockRequest, Patience, Refusal, RequestId, Wish};
use crate::lock::leases::Lease;
use crate::lock::names::{FencingToken, Millis, Mode};
use crate::lock::queue::{Parked, Purpose, Seq, TicketDelivery, Waiter, fresh_row};

impl Step<'_> {
    pub(super) fn acquire(&mut self, asked: LockRequest) {
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
    pub(super) fn come_again(&mut self, request: RequestId) {
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
        let parks = asked.patience.deadline().is_some();
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
            if asked.wish.relayed && asked.patience.deadline().is_some() {
                self.store_waiter(seq);
            }
            self.queue_up(seq, (request, since), asked.patience, ended);
        }
    }

    /// A new place at the end of the queue, or a refusal when it is full.
    pub(super) fn enqueue(
        &mut self,
        request: RequestId,
        waiter: Waiter,
        open: bool,
    ) -> Option<Seq> {
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
        let parked = patience.deadline().map(|until| Parked {
            until,
            purpose,
            ended,
        });
        self.state.queue_mut().open(seq, request, parked);
        if matches!(patience, Patience::Never | Patience::Poll) {
            self.answer_queued(request.0, seq, ended);
        }
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
