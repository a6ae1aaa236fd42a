//! The ended tickets of ephemeral resources that are gone, which left no rows. In memory only, and bounded.

use std::collections::{HashMap, VecDeque};

use crate::lock::rows::EndedRow;
use crate::lock::{Millis, ResourceName, Ticket};
use crate::store::shrink::shrink_if_sparse;

/// Maximum number of tickets that are remembered; beyond it the oldest are forgotten.
const TICKETS_MAX: usize = 65_536;

#[derive(Default)]
pub struct LostTickets {
    /// Each ticket with the last millisecond in which it is remembered.
    by_name: HashMap<ResourceName, Vec<(EndedRow, Millis)>>,
    /// For each call of [`LostTickets::add`] the name, the number of tickets, and when the last may be forgotten.
    order: VecDeque<(ResourceName, usize, Millis)>,
    tickets: usize,
}

impl LostTickets {
    /// Remembers the tickets of a resource that is gone.
    pub fn add(&mut self, name: &ResourceName, lost: Vec<(EndedRow, Millis)>, now: Millis) {
        let Some(last) = lost.iter().map(|(_, until)| *until).max() else {
            return;
        };
        while self.order.front().is_some_and(|(.., until)| *until < now) {
            self.forget_first();
        }
        self.tickets += lost.len();
        self.order.push_back((name.clone(), lost.len(), last));
        self.by_name.entry(name.clone()).or_default().extend(lost);
        while self.tickets > TICKETS_MAX {
            self.forget_first();
        }
    }

    /// This ticket of a resource that is gone, if it is still remembered.
    pub fn get(&self, name: &ResourceName, ticket: Ticket, now: Millis) -> Option<EndedRow> {
        let mut lost = self.by_name.get(name)?.iter().rev();
        lost.find(|(row, until)| row.ticket == ticket && now <= *until)
            .map(|(row, _)| row.clone())
    }

    /// Takes the tickets of this name, oldest first: a new resource has to remember them now.
    pub fn take(&mut self, name: &ResourceName, now: Millis) -> Vec<(EndedRow, Millis)> {
        let Some(mut lost) = self.by_name.remove(name) else {
            return Vec::new();
        };
        self.tickets -= lost.len();
        self.order.retain(|(of, ..)| of != name);
        lost.retain(|(_, until)| now <= *until);
        lost
    }

    fn forget_first(&mut self) {
        let Some((name, count, _)) = self.order.pop_front() else {
            return;
        };
        if let Some(lost) = self.by_name.get_mut(&name) {
            let count = count.min(lost.len());
            lost.drain(..count);
            self.tickets -= count;
            if lost.is_empty() {
                self.by_name.remove(&name);
            }
        }
        shrink_if_sparse(&mut self.by_name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::EndReason;

    fn lost(bits: u128, until: Millis) -> (EndedRow, Millis) {
        let row = EndedRow {
            n: 0,
            ticket: Ticket::from_bits(bits),
            reason: EndReason::Expired,
            more: None,
        };
        (row, until)
    }

    #[test]
    fn lost_tickets_are_remembered_until_their_time_and_no_more_than_fit() {
        let mut tickets = LostTickets::default();
        let name = |n: usize| ResourceName::parse(&n.to_string()).unwrap();
        tickets.add(&name(0), vec![lost(1, 10), lost(2, 20)], 0);
        assert!(tickets.get(&name(0), Ticket::from_bits(1), 10).is_some());
        assert!(tickets.get(&name(0), Ticket::from_bits(1), 11).is_none());
        assert_eq!(tickets.take(&name(0), 15), [lost(2, 20)]);
        assert_eq!((tickets.tickets, tickets.order.len()), (0, 0));
        for n in 0..=TICKETS_MAX {
            tickets.add(&name(n), vec![lost(n as u128, 100)], 1);
        }
        assert!(tickets.take(&name(0), 1).is_empty(), "the oldest had to go");
        assert_eq!(tickets.tickets, TICKETS_MAX);
        tickets.take(&name(1), 1);
        tickets.add(&name(0), vec![lost(7, 200)], 150);
        assert_eq!((tickets.tickets, tickets.by_name.len()), (1, 1));
    }
}
