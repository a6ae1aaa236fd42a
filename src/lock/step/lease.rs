//! Leases: granted, renewed, ended, and taken back when nobody was told.

use std::net::IpAddr;

use super::{Standing, Step};
use crate::lock::command::{
    Answer, Death, Event, Grant, HolderView, PresentedTicket, Refusal, RequestId,
};
use crate::lock::leases::{Lease, LeaseClock};
use crate::lock::names::{FencingToken, Millis, Ttl};
use crate::lock::queue::{Purpose, TicketDelivery, Waiter};
use crate::lock::rows::{EndReason, EndedMore, Forced, TicketRow};
use crate::lock::state::later;

impl Step<'_> {
    /// This lease has to be stored as it is now.
    pub(super) fn change_lease(&mut self, token: FencingToken) {
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

    /// Makes a lease of a waiter that is in the queue no more. Answers everyone who waited with its
    /// ticket, and the request that asks now.
    pub(super) fn grant(&mut self, waiter: Waiter, asking: Option<(RequestId, Millis, Death)>) {
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

    /// `waited_ms`: of a grant that this request was there for.
    pub(super) fn answer_granted(
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

    pub(super) fn view(&self, token: FencingToken) -> Option<HolderView> {
        let lease = self.state.leases.get(token)?;
        Some(self.state.view(self.terms, self.now, lease))
    }

    /// The holder showed its ticket with lock intent: its expiry becomes the later of what it was and
    /// now + TTL (contract, "TTL"), or, where it asks for that, exactly now + TTL.
    ///
    /// While no answer has told it of the grant, it cannot know that it holds: then the answer to this
    /// request, if the core hears what becomes of it (`tracked`), is one more that may tell it.
    pub(super) fn present_holder(
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

    /// A sign of life that is not answered with the lease: it proves nothing about an undelivered grant.
    pub(super) fn touch_holder(&mut self, token: FencingToken) {
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

    /// Ends a lease for a reason that its holder may ask for later. What becomes of the lock then is for
    /// [`Step::hand_off`] to say.
    pub(super) fn end_lease(
        &mut self,
        token: FencingToken,
        reason: EndReason,
        forced: Option<&Forced>,
    ) {
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

    pub(super) fn remember(&mut self, row: &TicketRow, reason: EndReason, forced: Option<&Forced>) {
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

    /// The answer to this request did not tell of the lease.
    pub(super) fn untell(&mut self, token: FencingToken, request: RequestId) {
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

    #[inline(never)]
    pub(super) fn renew(
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
}
