//! Places in the queue: stored, told to the client, and left.

use super::Step;
use crate::lock::command::{Answer, Death, Event, LockOptions, Refusal, RequestId};
use crate::lock::names::FencingToken;
use crate::lock::queue::{Purpose, Seq, Waiter};
use crate::lock::rows::EndReason;

/// To requests that are parked with a place that is left or dropped.
const RELEASED: Answer = Answer::Refused(Refusal::Dead(Some(EndReason::Released)));

impl Step<'_> {
    pub(super) fn waiter(&self, seq: Seq) -> Option<&Waiter> {
        self.state.queue_ref().and_then(|queue| queue.get(seq))
    }

    /// A waiting ticket was presented, so its client is alive and knows the ticket. `options`: those of a lock
    /// request; its `ttl` becomes the ticket's.
    pub(super) fn present_waiter(&mut self, seq: Seq, options: Option<&LockOptions>) {
        let (now, limits) = (self.now.mono, &self.terms.limits);
        let queue = self.state.queue_mut();
        queue.confirm(seq);
        queue.touch(seq, now, limits);
        if let (Some(waiter), Some(options)) = (queue.get_mut(seq), options) {
            waiter.client = options.client.or(waiter.client);
            if options.ttl.is_some() && waiter.row.ttl != options.ttl {
                waiter.row.ttl = options.ttl;
                waiter.stored = false;
            }
        }
        self.store_waiter(seq);
    }

    /// Stores the waiter's row, unless that is stored already or the place is that of a ticketless write.
    pub(super) fn store_waiter(&mut self, seq: Seq) {
        if let Some(waiter) = self.state.queue_mut().get_mut(seq)
            && !waiter.stored
            && !waiter.ticketless_write
        {
            waiter.stored = true;
            let row = waiter.row.clone();
            self.out.changes.wait(row);
        }
    }

    /// Reports a place that a lock request took, once.
    pub(super) fn announce(&mut self, seq: Seq, request: RequestId) {
        let queue = self.state.queue_mut();
        if let Some(waiter) = queue.get_mut(seq).filter(|waiter| !waiter.announced) {
            waiter.announced = true;
            let row = Box::new(waiter.row.clone());
            self.out.events.push(Event::Queued {
                request,
                row,
                position: queue.position(seq),
            });
        }
    }

    /// Answers with the place in the queue, and stores the ticket: a ticket that a client is told must be
    /// durable.
    pub(super) fn answer_queued(&mut self, request: RequestId, seq: Seq, ended: Death) {
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

    /// Refuses because the lock is held. `except`: the caller's own lease, which is not named as the holder.
    pub(super) fn answer_locked(&mut self, request: RequestId, except: Option<FencingToken>) {
        let by = self.state.locked_by(self.terms, self.now, except);
        self.refuse(request, Refusal::Locked(Box::new(by)));
    }

    /// Answers a parked request whose wait is over.
    #[inline(never)]
    pub(super) fn wait_over(&mut self, request: RequestId) {
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
            Purpose::Write => {
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

    /// Ends the reservation if it is for this place, which is no longer near or is gone.
    pub(super) fn pass_over(&mut self, seq: Seq) {
        self.state.reserved.take_if(|reserved| *reserved == seq);
    }

    /// Removes the place of a client that left it.
    pub(super) fn leave(&mut self, seq: Seq) {
        if let Some(waiter) = self.waiter(seq).filter(|waiter| waiter.announced) {
            let (owner, mode) = waiter.row.owner_and_mode();
            self.out.events.push(Event::WaiterLeft { owner, mode });
        }
        self.remove_place(seq, &RELEASED);
    }

    /// Removes a place that was not presented for too long.
    pub(super) fn drop_place(&mut self, seq: Seq) {
        if let Some(waiter) = self.waiter(seq) {
            let (owner, mode) = waiter.row.owner_and_mode();
            self.out.events.push(Event::WaiterDropped { owner, mode });
        }
        self.remove_place(seq, &RELEASED);
    }

    /// Removes a place; `told` is the answer to the requests that are parked with it. If the lock was reserved for
    /// it, the next hand-off chooses anew.
    pub(super) fn remove_place(&mut self, seq: Seq, told: &Answer) {
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

    /// Removes the place of a `queue=0` request whose wait is over. If the request had an idempotency key, the
    /// ticket is remembered as ended, so that a late copy of the request does not queue again.
    fn leave_for_good(&mut self, seq: Seq) {
        let row = self.waiter(seq).map(|w| w.row.clone());
        if let Some(row) = row.filter(|row| row.key.is_some()) {
            self.remember(&row, EndReason::Released, None);
        }
        self.leave(seq);
    }
}
