//! The end of a lease or a place: by its own client, or by force.

use super::{Step, TicketStatus};
use crate::lock::command::{Answer, PresentedTicket, Refusal, RequestId};
use crate::lock::names::{FencingToken, TicketId};
use crate::lock::rows::{EndReason, Forced};

impl Step<'_> {
    pub(super) fn unlock(&mut self, request: RequestId, presented: PresentedTicket) {
        let answer = match self.status_of(presented) {
            TicketStatus::Holder(token) => {
                self.end_lease(token, EndReason::Released, None);
                Answer::Unlocked { dead: None }
            }
            TicketStatus::Waiting(seq) => {
                if let Some(row) = self.waiter(seq).map(|w| w.row.clone()) {
                    self.remember(&row, EndReason::Released, None);
                }
                self.end_place(seq, EndReason::Released, None);
                Answer::Unlocked { dead: None }
            }
            TicketStatus::Dead(death) if self.terms.profile.dead_unlock_succeeds() => {
                Answer::Unlocked { dead: Some(death) }
            }
            TicketStatus::Dead(Some(EndReason::Released)) => Answer::Unlocked { dead: None },
            TicketStatus::Dead(death) => return self.answer_dead(request, presented, death),
            TicketStatus::NoTicket => Answer::Refused(Refusal::TicketMissing),
        };
        self.answer(request, answer);
    }

    #[inline(never)]
    pub(super) fn force_unlock(
        &mut self,
        request: RequestId,
        token: Option<FencingToken>,
        forced: &Forced,
    ) {
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

    /// Ends a waiting ticket. A retry of this command finds the ticket among those ended by force, and succeeds.
    #[inline(never)]
    pub(super) fn remove_waiter(&mut self, request: RequestId, waiter: TicketId, forced: &Forced) {
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
        self.end_place(seq, EndReason::ForcedOff, Some(forced));
        self.answer(request, Answer::WaiterRemoved(true));
    }
}
