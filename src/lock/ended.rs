//! Ended tickets: remembered for a while, so that a client that comes back learns why its ticket ended.

use std::collections::VecDeque;

use super::command::Refusal;
use super::names::{IdempotencyKey, Millis, Owner, Ticket, TicketId};
use super::rows::{ENDED_MAX, EndReason, EndedRow, KeyRow};

/// The ended tickets of one resource, oldest first, at most [`ENDED_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ended {
    /// The number of the next row.
    next: u64,
    /// Each with the last millisecond, on the monotonic clock, in which it is remembered.
    entries: VecDeque<(EndedRow, Millis)>,
}

impl EndedRow {
    /// The refusal of a request that presents this ticket.
    pub fn refusal(&self) -> Refusal {
        match self.more.as_ref().and_then(|more| more.forced.as_ref()) {
            Some(forced) => Refusal::DeadByForce(Box::new(forced.clone())),
            None => Refusal::Dead(Some(self.reason)),
        }
    }

    /// The request that made this ticket, if it had an idempotency key.
    pub(super) fn attempt(&self) -> Option<&(KeyRow, Option<Owner>)> {
        self.more.as_ref()?.attempt.as_ref()
    }
}

impl Ended {
    /// Restores the stored rows, to be remembered until `until`. Their time starts anew: only a wall clock,
    /// which is not trusted, could tell how long ago they ended, and remembering them for longer does no harm.
    pub fn restore(mut rows: Vec<EndedRow>, until: Millis) -> Ended {
        rows.sort_by_key(|row| row.n);
        Ended {
            next: rows.last().map_or(0, |row| row.n + 1),
            entries: rows.into_iter().map(|row| (row, until)).collect(),
        }
    }

    /// Remembers an ended ticket until `until`, instead of the oldest if there are too many. Returns the row to store.
    pub fn remember(&mut self, mut row: EndedRow, until: Millis) -> EndedRow {
        row.n = self.next;
        self.next += 1;
        if self.entries.len() as u64 >= ENDED_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back((row.clone(), until));
        row
    }

    /// This ticket, if it is still remembered at `now`.
    pub fn get(&self, ticket: Ticket, now: Millis) -> Option<&EndedRow> {
        let mut entries = self.entries.iter().rev();
        let found = entries.find(|(row, until)| row.ticket == ticket && now <= *until);
        found.map(|(row, _)| row)
    }

    /// Whether a ticket with this id was ended by force and is still remembered at `now`.
    pub fn was_forced(&self, id: TicketId, now: Millis) -> bool {
        self.remembered(now)
            .any(|(row, _)| row.reason == EndReason::ForcedOff && row.ticket.id() == id)
    }

    /// The ended ticket that a request with this idempotency key made, if it is still remembered at `now`.
    pub fn with_key(&self, key: &IdempotencyKey, now: Millis) -> Option<&EndedRow> {
        let has_key = |row: &&EndedRow| row.attempt().is_some_and(|(made, _)| made.key == *key);
        self.remembered(now).map(|(row, _)| row).find(has_key)
    }

    /// All tickets in memory, also those past their time.
    pub fn tickets(&self) -> impl Iterator<Item = Ticket> + '_ {
        self.entries.iter().map(|(row, _)| row.ticket)
    }

    /// The tickets that are remembered at `now`, each with its time.
    pub fn remembered(&self, now: Millis) -> impl Iterator<Item = &(EndedRow, Millis)> {
        self.entries.iter().filter(move |(_, until)| now <= *until)
    }
}
