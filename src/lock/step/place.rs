//! Places in the queue: stored, told to the client, and left.

use super::Step;
use crate::lock::command::{Answer, Death, Event, LockOptions, Refusal, RequestId, WaitPolicy};
use crate::lock::leases::Lease;
use crate::lock::names::FencingToken;
use crate::lock::queue::{Seq, Waiter};
use crate::lock::rows::{EndReason, Forced};

impl Step<'_> {
    pub(super) fn waiter(&self, seq: Seq) -> Option<&Waiter> {
        self.state.queue_ref().and_then(|queue| queue.get(seq))
    }

    /// A waiting ticket was presented. `options`: those of a lock request, whose `ttl` becomes the ticket's.
    pub(super) fn present_waiter(&mut self, seq: Seq, options: Option<&LockOptions>) {
        let queue = self.state.queue_mut();
        queue.confirm(seq);
        queue.touch(seq, self.now.mono, self.terms);
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

    /// Answers with the place in the queue, and stores the ticket: a ticket that is told must be durable.
    pub(super) fn answer_queued(&mut self, request: RequestId, seq: Seq, ended: Death) {
        self.store_waiter(seq);
        let queue = self.state.queue_mut();
        let position = queue.position(seq);
        if let Some(ticket) = queue.get(seq).map(|w| w.row.ticket) {
            let queued = Answer::Queued {
                ticket,
                position,
                ended,
            };
            self.answer(request, queued);
        }
    }

    /// Refuses because the lock is held. `except`: the caller's own lease, which is not named as the holder.
    pub(super) fn answer_locked(&mut self, request: RequestId, except: Option<FencingToken>) {
        let is_other = |lease: &&Lease| Some(lease.token) != except;
        let holder = self.state.leases.iter().find(is_other);
        let holder = holder.map(|lease| Box::new(self.state.view(self.terms, self.now, lease)));
        let reserved = self.state.is_reserved();
        self.refuse(request, Refusal::Locked { holder, reserved });
    }

    /// Answers a parked request whose wait is over.
    #[inline(never)]
    pub(super) fn wait_over(&mut self, request: RequestId) {
        let Some((seq, parked)) = self.state.queue_mut().unpark(request) else {
            return;
        };
        if parked.writes {
            let ticketless_write = self.waiter(seq).is_some_and(|w| w.ticketless_write);
            if ticketless_write {
                self.state.queue_mut().remove(seq);
            } else {
                self.close(request, true);
            }
        } else if let WaitPolicy::UntilThenLeave(_) = parked.policy {
            self.close(request, false);
            if self.waiter(seq).is_some_and(|w| !w.has_open_requests()) {
                self.leave_for_good(seq);
            }
        } else {
            return self.answer_queued(request, seq, parked.ended);
        }
        self.answer_locked(request, None);
    }

    /// Ends the reservation if it is for this place, which is no longer near or is gone.
    pub(super) fn pass_over(&mut self, seq: Seq) {
        self.state.reserved.take_if(|reserved| *reserved == seq);
    }

    /// Ends a place, its reservation, and the waits of the requests that are parked with it.
    pub(super) fn end_place(&mut self, seq: Seq, reason: EndReason, forced: Option<&Forced>) {
        let Some(waiter) = self.state.queue_mut().remove(seq) else {
            return;
        };
        if waiter.stored {
            self.out.changes.leave(waiter.row.ticket);
        }
        for open in waiter.parked() {
            let refusal = match forced {
                Some(forced) => Refusal::DeadByForce(Box::new(forced.clone())),
                None => Refusal::Dead(Some(EndReason::Released)),
            };
            self.refuse(open.request, refusal);
        }
        if waiter.announced || forced.is_some() {
            self.out.events.push(Event::PlaceEnded {
                reason,
                owner: waiter.row.owner,
                mode: waiter.row.mode,
                forced: forced.cloned().map(Box::new),
            });
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
        self.end_place(seq, EndReason::Released, None);
    }
}
