//! Permission to change data or to delete the resource: for a holder, or for anybody while the lock is free.
//! Also [`Command::Touch`](crate::lock::Command::Touch).

use super::{Step, TicketStatus};
use crate::lock::command::{Answer, LockOptions, PresentedTicket, Refusal, RequestId, WaitPolicy};
use crate::lock::names::{Mode, Ticket};
use crate::lock::queue::{Open, Seq, Waiter};

impl Step<'_> {
    #[inline(never)]
    pub(super) fn touch(&mut self, request: RequestId, presented: PresentedTicket) {
        let live = match self.status_of(presented) {
            TicketStatus::Holder(token) => {
                self.touch_holder(token);
                true
            }
            TicketStatus::Waiting(seq) => {
                self.present_waiter(seq, None);
                true
            }
            TicketStatus::NoTicket | TicketStatus::Dead(_) => false,
        };
        self.answer(request, Answer::Touched { live });
    }

    #[inline(never)]
    pub(super) fn write(
        &mut self,
        request: RequestId,
        presented: PresentedTicket,
        fresh: Ticket,
        policy: WaitPolicy,
    ) {
        self.come_again(request);
        let loading = policy == WaitPolicy::Loading;
        let policy = match loading || self.terms.profile.refused_write_waits() {
            true => policy,
            false => WaitPolicy::Never,
        };
        match self.status_of(presented) {
            TicketStatus::Holder(token) if loading => self.touch_holder(token),
            TicketStatus::Holder(token) if self.is_shared(token) => {
                self.touch_holder(token);
                self.refuse(request, Refusal::NotExclusive);
            }
            TicketStatus::Holder(token) => {
                self.present_holder(token, (None, false), Some(request), None);
                self.answer(request, Answer::Writable { token: Some(token) });
            }
            TicketStatus::Waiting(seq) => {
                self.write_waiting(seq, request, policy);
            }
            TicketStatus::Dead(death) if !self.writes_as_nobody(death) => {
                self.answer_dead(request, presented, death);
            }
            TicketStatus::NoTicket | TicketStatus::Dead(_) => match self.place {
                Some(seq) if loading => self.park_write(seq, request, policy),
                Some(seq) => self.write_on(seq, request, policy),
                None => self.write_ticketless(request, fresh, policy),
            },
        }
    }

    /// A write with a waiting ticket: granted the lock if the ticket is next in line, else parked or refused.
    fn write_waiting(&mut self, seq: Seq, request: RequestId, policy: WaitPolicy) {
        self.present_waiter(seq, None);
        if policy == WaitPolicy::Loading {
            return self.park_write(seq, request, policy);
        }
        if self.waiter(seq).is_some_and(|w| w.row.mode == Mode::Shared) {
            self.refuse(request, Refusal::NotExclusive);
        } else if self.may_take(seq) {
            self.park_write(seq, request, WaitPolicy::Forever);
            if let Some(waiter) = self.state.queue_mut().remove(seq) {
                self.grant(waiter, None);
            }
        } else if policy.deadline().is_some() {
            self.park_write(seq, request, policy);
        } else {
            self.answer_locked(request, None);
        }
    }

    /// A write without a ticket: allowed only while the lock is free, and takes no lock.
    fn write_ticketless(&mut self, request: RequestId, fresh: Ticket, policy: WaitPolicy) {
        let free = !self.state.is_locked();
        let loading = policy == WaitPolicy::Loading;
        if free && !loading {
            return self.answer(request, Answer::Writable { token: None });
        }
        let may_wait = free || self.terms.profile.refused_write_waits();
        if !may_wait || (policy.deadline().is_none() && !loading) {
            return self.answer_locked(request, None);
        }
        let seq = self.state.next_seq;
        let mut waiter = Waiter::fresh(fresh, seq, LockOptions::default(), None);
        waiter.ticketless_write = true;
        if let Some(seq) = self.enqueue(request, waiter, free) {
            self.park_write(seq, request, policy);
        }
    }

    /// Continues a write without a ticket that took a place before and whose document is loaded.
    fn write_on(&mut self, seq: Seq, request: RequestId, policy: WaitPolicy) {
        let allowed = self.may_take(seq);
        if !allowed && policy.deadline().is_some() {
            return self.park_write(seq, request, policy);
        }
        self.pass_over(seq);
        self.state.queue_mut().remove(seq);
        match allowed {
            true => self.answer(request, Answer::Writable { token: None }),
            false => self.answer_locked(request, None),
        }
    }

    /// Attaches the request of a write to its place. It waits there as long as `policy` says, if at all.
    fn park_write(&mut self, seq: Seq, request: RequestId, policy: WaitPolicy) {
        let open = Open {
            request,
            since: self.since,
            policy,
            writes: true,
            ended: None,
        };
        self.state.queue_mut().open(seq, open);
    }

    #[inline(never)]
    pub(super) fn delete(&mut self, request: RequestId, presented: PresentedTicket) {
        let allowed = match self.status_of(presented) {
            TicketStatus::Holder(token) if self.is_shared(token) => {
                self.touch_holder(token);
                return self.refuse(request, Refusal::NotExclusive);
            }
            TicketStatus::Holder(_) => true,
            TicketStatus::Waiting(seq) => {
                self.present_waiter(seq, None);
                if self.waiter(seq).is_some_and(|w| w.row.mode == Mode::Shared) {
                    return self.refuse(request, Refusal::NotExclusive);
                }
                self.may_take(seq)
            }
            TicketStatus::Dead(death) if !self.writes_as_nobody(death) => {
                return self.answer_dead(request, presented, death);
            }
            TicketStatus::NoTicket | TicketStatus::Dead(_) => !self.state.is_locked(),
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
}
