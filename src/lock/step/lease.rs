//! Leases: granted, renewed, ended, and taken back when no answer was delivered.

use std::net::IpAddr;

use super::{Step, TicketStatus};
use crate::lock::command::{
    Answer, Death, Event, Grant, HolderView, PresentedTicket, Refusal, RequestId, WaitPolicy,
};
use crate::lock::leases::Lease;
use crate::lock::names::{FencingToken, Millis, Ttl};
use crate::lock::queue::{Open, TicketDelivery, Waiter};
use crate::lock::rows::{ENDED_MS, EndReason, EndedMore, EndedRow, Forced, TicketRow};
use crate::lock::state::later;

impl Step<'_> {
    /// Stores the current state of a lease.
    pub(super) fn change_lease(&mut self, token: FencingToken) {
        if self.state.leases.is_in_head(token) {
            return self.change_head();
        }
        if let Some(lease) = self.state.leases.get(token) {
            self.out.changes.hold(lease.holder_row());
        }
    }

    /// Removes a lease and its stored row. If that was the head row, the next lease moves there from its own row.
    fn remove_lease(&mut self, token: FencingToken) -> Option<Lease> {
        let was_in_head = self.state.leases.is_in_head(token);
        let lease = self.state.leases.take(token)?;
        let holding = &mut self.out.changes.holding;
        if !was_in_head {
            holding.insert(lease.row.ticket, None);
            return Some(lease);
        }
        if let Some(next) = self.state.leases.first() {
            holding.insert(next.row.ticket, None);
        }
        self.change_head();
        Some(lease)
    }

    /// Grants the lock to a waiter that was removed from the queue and that `LockState::admits`. Answers all
    /// requests that are parked with its ticket, and the request that asks now (`asking`).
    pub(super) fn grant(&mut self, waiter: Waiter, asking: Option<(RequestId, Death)>) {
        let token = self.state.token.next();
        self.state.token = token;
        self.state.reserved = None;
        if waiter.stored {
            self.out.changes.leave(waiter.row.ticket);
        }
        let asking = asking.map(|(request, ended)| Open {
            request,
            since: self.since,
            policy: WaitPolicy::Poll,
            writes: false,
            ended,
        });
        let parked = waiter.parked().copied();
        let mut told: Vec<Open> = asking.into_iter().chain(parked).collect();
        told.sort_by_key(|open| open.writes);
        self.state.leases.put(Lease {
            told: waiter.delivery == TicketDelivery::Confirmed,
            unconfirmed: told.iter().map(|open| open.request).collect(),
            since: None,
            expires: None,
            stored_ttl: waiter.row.ttl,
            row: waiter.row,
            token,
            acquired_at: self.now.wall,
            seen: Some(self.now.mono),
            client: waiter.client,
        });
        self.change_lease(token);
        if self.state.leases.len() > 1 {
            // The head row has the highest token, so it changes although the new lease has a row of its own.
            self.change_head();
        }
        let view = self.view(token);
        self.out.events.extend(view.map(Event::Granted));
        for open in told {
            let waited_ms = Some(self.now.mono - open.since);
            match open.writes {
                true => self.answer(open.request, Answer::Writable { token: Some(token) }),
                false => self.answer_granted(open.request, token, waited_ms, open.ended),
            }
        }
    }

    /// Answers with the lease. `waited_ms`: how long this request waited; `None` if the ticket held already.
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

    /// The holder presented its ticket with lock intent: the lease now ends at the later of its previous end
    /// and now + TTL (`docs/protocol.md`, "TTL"). `ttl`: a new one. `exact`: the lease ends at exactly now + TTL.
    ///
    /// While no answer to the grant was delivered, the client cannot know that it holds the lock. The answer to
    /// this request then becomes one more that may tell it, if the core learns whether it was delivered
    /// (`tracked`). If not, the lease runs from now on.
    pub(super) fn present_holder(
        &mut self,
        token: FencingToken,
        (ttl, exact): (Option<Ttl>, bool),
        tracked: Option<RequestId>,
        client: Option<IpAddr>,
    ) {
        let now = self.now.mono;
        let Some(mut lease) = self.state.leases.take(token) else {
            return;
        };
        if ttl.is_some() {
            lease.row.ttl = ttl;
        }
        lease.told = true;
        lease.seen = Some(now);
        lease.client = client.or(lease.client);
        let (since, old) = match lease.since {
            Some(since) => (since, lease.expires),
            // The answers on their way promise the stored TTL.
            None => {
                let promised = self.state.expiry(self.terms, lease.stored_ttl, now, now);
                (now, promised)
            }
        };
        let renewed = self.state.expiry(self.terms, lease.row.ttl, since, now);
        let expires = if exact { renewed } else { later(old, renewed) };
        match tracked.filter(|_| lease.since.is_none()) {
            Some(request) => lease.unconfirmed.push(request),
            None => {
                lease.unconfirmed = Vec::new();
                lease.since = Some(since);
                lease.expires = expires;
            }
        }
        let stale = lease.stored_ttl != lease.row.ttl && expires == renewed;
        if stale {
            lease.stored_ttl = lease.row.ttl;
        }
        self.state.leases.put(lease);
        if stale {
            self.change_lease(token);
        }
    }

    /// The holder presented its ticket in a request whose answer does not tell of the lease. This renews a
    /// running lease. It does not start one: the request proves nothing about the delivery of the grant.
    pub(super) fn touch_holder(&mut self, token: FencingToken) {
        let Some(lease) = self.state.leases.get(token) else {
            return;
        };
        if lease.since.is_some() {
            return self.present_holder(token, (None, false), None, None);
        }
        let now = self.now.mono;
        self.state.leases.change(token, |lease| {
            lease.told = true;
            lease.seen = Some(now);
        });
    }

    /// Ends a lease, and remembers the reason. [`Step::hand_off`] grants the lock to the next waiter.
    pub(super) fn end_lease(
        &mut self,
        token: FencingToken,
        reason: EndReason,
        forced: Option<&Forced>,
    ) {
        let Some(holder) = self.view(token) else {
            return;
        };
        let Some(lease) = self.remove_lease(token) else {
            return;
        };
        self.remember(&lease.row, reason, forced);
        let delay_ms = self.state.options.lock_delay_ms();
        if delay_ms > 0 && reason != EndReason::Released {
            self.state.delay_until = Some(self.now.mono + delay_ms);
            self.state.reserved = None;
            self.change_head();
        }
        let forced = forced.cloned().map(Box::new);
        self.out.events.push(Event::Ended {
            reason,
            holder,
            forced,
        });
    }

    /// Remembers an ended ticket, in memory and in the store.
    pub(super) fn remember(&mut self, row: &TicketRow, reason: EndReason, forced: Option<&Forced>) {
        let key = row.key.as_deref().cloned();
        let more = (key.is_some() || forced.is_some()).then(|| {
            Box::new(EndedMore {
                attempt: key.map(|key| (key, row.owner.clone())),
                forced: forced.cloned(),
            })
        });
        let ended = EndedRow {
            n: 0,
            ticket: row.ticket,
            reason,
            more,
        };
        let until = self.now.mono + ENDED_MS;
        let ended = self.state.ended.remember(ended, until);
        self.out.changes.end(ended);
    }

    /// Takes back a grant of which no answer was delivered. With an idempotency key the lease stays, for the
    /// retry. A ticket that its client knew before goes back to its place in the queue, near from now on. Any
    /// other ticket is deleted.
    fn take_back(&mut self, token: FencingToken) {
        let now = self.now;
        let lease = self.state.leases.get(token);
        if lease.is_some_and(|lease| lease.row.key.is_some()) {
            return self.state.start_lease(self.terms, now.mono, token);
        }
        let Some(lease) = self.remove_lease(token) else {
            return;
        };
        self.out.events.push(Event::TakenBack(token));
        if lease.told {
            let mut row = lease.row;
            row.queued_at.get_or_insert(now.wall);
            self.out.changes.wait(row.clone());
            let mut waiter = Waiter::known(row);
            waiter.client = lease.client;
            self.state.queue_mut().insert(waiter, now.mono, self.terms);
        }
    }

    /// The answer to this request was not delivered. If no other answer may tell of the lease, takes it back.
    pub(super) fn untell(&mut self, token: FencingToken, request: RequestId) {
        let is_unknown = self.state.leases.change(token, |lease| {
            lease.unconfirmed.retain(|id| *id != request);
            lease.unconfirmed.is_empty()
        });
        if is_unknown == Some(true) {
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
        match self.status_of(presented) {
            TicketStatus::Holder(token) => {
                self.present_holder(token, (ttl, exact), None, None);
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
            TicketStatus::Waiting(seq) => {
                self.present_waiter(seq, None);
                self.refuse(request, Refusal::NotHolder);
            }
            TicketStatus::Dead(death) => self.answer_dead(request, presented, death),
            TicketStatus::NoTicket => self.refuse(request, Refusal::TicketMissing),
        }
    }
}
