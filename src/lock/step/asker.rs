//! The caller of a command: the ticket that it has in this lock (by `X-Ticket`, by its idempotency key, or from
//! an earlier copy of its request), and what it may do.

use super::{Step, TicketStatus};
use crate::lock::command::{Death, LockOptions, LockRequest, PresentedTicket, Refusal, RequestId};
use crate::lock::names::{FencingToken, Mode, Owner};
use crate::lock::queue::{Seq, Waiter};
use crate::lock::rows::{EndReason, EndedRow, KeyRow, TicketRow};

impl Step<'_> {
    pub(super) fn status_of(&self, presented: PresentedTicket) -> TicketStatus {
        let ticket = match presented {
            PresentedTicket::Absent => return TicketStatus::NoTicket,
            PresentedTicket::Malformed => return TicketStatus::Dead(None),
            PresentedTicket::Ticket(ticket) => ticket,
        };
        if let Some(token) = self.state.token_of(ticket) {
            return TicketStatus::Holder(token);
        }
        match self.state.queue_ref().and_then(|q| q.with_ticket(ticket)) {
            Some(seq) => TicketStatus::Waiting(seq),
            None => {
                let ended = self.state.ended.get(ticket, self.now.mono);
                TicketStatus::Dead(ended.map(|ended| ended.reason))
            }
        }
    }

    /// The ticket that an earlier copy of a relayed request made, if it is alive or remembered. The flag, as in
    /// [`Step::by_key`], is always true.
    pub(super) fn by_copy(&self, asked: &LockRequest) -> Option<(TicketStatus, bool)> {
        let made = PresentedTicket::Ticket(asked.fresh);
        match asked.options.relayed.then(|| self.status_of(made))? {
            TicketStatus::NoTicket | TicketStatus::Dead(None) => None,
            known => Some((known, true)),
        }
    }

    /// Whether an earlier copy of this relayed request made this place. Its client was not told the ticket.
    pub(super) fn is_copy(&self, seq: Seq, asked: &LockRequest) -> bool {
        let made = |w: &Waiter| w.row.key.is_none() && w.row.ticket == asked.fresh;
        asked.options.relayed && self.waiter(seq).is_some_and(made)
    }

    /// The live ticket with this idempotency key, and whether the request that made it asked for the same.
    pub(super) fn by_key(&self, options: &LockOptions) -> Option<(TicketStatus, bool)> {
        let key = options.key.as_ref()?;
        let same = |row: &TicketRow| {
            let made = row.key.as_ref();
            made.is_some_and(|made| is_same(row.owner.as_ref(), made, options))
        };
        if let Some(lease) = self.state.leases.with_key(key) {
            return Some((TicketStatus::Holder(lease.token), same(&lease.row)));
        }
        let seq = self.state.queue_ref()?.with_key(key)?;
        Some((TicketStatus::Waiting(seq), same(&self.waiter(seq)?.row)))
    }

    /// The refusal of a request whose idempotency key made a ticket that has ended.
    pub(super) fn by_ended_key(&self, options: &LockOptions) -> Option<Refusal> {
        let key = options.key.as_ref()?;
        let ended = self.state.ended.with_key(key, self.now.mono)?;
        let (made, owner) = ended.attempt()?;
        Some(match is_same(owner.as_ref(), made, options) {
            true => ended.refusal(),
            false => Refusal::KeyReused,
        })
    }

    /// Refuses a request with a dead ticket.
    pub(super) fn answer_dead(
        &mut self,
        request: RequestId,
        presented: PresentedTicket,
        death: Death,
    ) {
        let ended = |ticket| self.state.ended.get(ticket, self.now.mono);
        let ended = presented.ticket().and_then(ended);
        let refusal = ended.map_or(Refusal::Dead(death), EndedRow::refusal);
        self.refuse(request, refusal);
    }

    /// Whether this near waiter may be granted now: it is next in line and fits the current leases. The lock
    /// need not be reserved for it yet, because it may have become near in this step.
    pub(super) fn may_take(&self, seq: Seq) -> bool {
        let next = self.state.reserved.or_else(|| self.state.first_near());
        next == Some(seq) && self.state.admits_waiter(seq)
    }

    /// Whether a request without a place may be granted this mode now: no near waiter is ahead of it.
    pub(super) fn is_open_to(&self, mode: Mode) -> bool {
        self.state.admits(mode) && self.state.first_near().is_none()
    }

    pub(super) fn is_shared(&self, token: FencingToken) -> bool {
        let lease = self.state.leases.get(token);
        lease.is_some_and(|lease| lease.row.mode == Mode::Shared)
    }

    /// Whether a write with a ticket that ended this way counts as a write without a ticket.
    pub(super) fn writes_as_nobody(&self, death: Death) -> bool {
        self.terms.profile.spent_ticket_writes_as_nobody()
            && matches!(death, None | Some(EndReason::Released))
    }
}

/// Whether a request asks for the same owner, `ttl` and mode as the one that made a ticket with its key.
fn is_same(owner: Option<&Owner>, made: &KeyRow, options: &LockOptions) -> bool {
    owner == options.owner.as_ref() && made.ttl == options.ttl && made.mode == options.mode()
}
