//! Ended tickets: remembered for a while, so that a client that comes back learns why its ticket ended.

use std::collections::VecDeque;

use super::command::Refusal;
use super::names::{IdempotencyKey, Millis, Owner, Ticket, TicketId};
use super::rows::{ENDED_MAX, EndReason, EndedMore, EndedRow, KeyRow};

/// The ended tickets of one resource, oldest first, at most [`ENDED_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ended {
    /// The number of the next row.
    next: u64,
    entries: VecDeque<EndedTicket>,
    /// At most the earliest `forget_at` in `entries`; 0 if empty. Cached: `entries` is cold memory.
    all_until: Millis,
}

/// An ended ticket with all that is remembered of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndedTicket {
    pub ticket: Ticket,
    pub reason: EndReason,
    /// Boxed: most tickets have none.
    pub more: Option<Box<EndedMore>>,
    /// Until when it is remembered, on the monotonic clock.
    pub forget_at: Millis,
}

impl EndedTicket {
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
    /// Restores the stored rows, to be remembered until `forget_at`. Their time starts anew: only a wall clock,
    /// which is not trusted, could tell how long ago they ended, and remembering them for longer does no harm.
    pub fn restore(mut rows: Vec<EndedRow>, forget_at: Millis) -> Ended {
        rows.sort_by_key(|row| row.n);
        let ended = |row: EndedRow| EndedTicket {
            ticket: row.ticket,
            reason: row.reason,
            more: row.more,
            forget_at,
        };
        Ended {
            next: rows.last().map_or(0, |row| row.n + 1),
            all_until: if rows.is_empty() { 0 } else { forget_at },
            entries: rows.into_iter().map(ended).collect(),
        }
    }

    /// Remembers an ended ticket, and forgets the oldest one if there are [`ENDED_MAX`]. Returns the row to store.
    pub fn remember(&mut self, ended: EndedTicket) -> EndedRow {
        let row = EndedRow {
            n: self.next,
            ticket: ended.ticket,
            reason: ended.reason,
            more: ended.more.clone(),
        };
        self.next += 1;
        if self.entries.is_empty() {
            self.all_until = ended.forget_at;
        }
        if self.entries.len() as u64 == ENDED_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(ended);
        row
    }

    /// This ticket, if it is still remembered at `now`.
    pub fn get(&self, ticket: Ticket, now: Millis) -> Option<&EndedTicket> {
        let mut entries = self.entries.iter().rev();
        entries.find(|e| e.ticket == ticket && now <= e.forget_at)
    }

    /// Whether a ticket with this id was ended by force and is still remembered at `now`.
    pub fn was_forced(&self, id: TicketId, now: Millis) -> bool {
        self.remembered(now)
            .any(|e| e.reason == EndReason::ForcedOff && e.ticket.id() == id)
    }

    /// The ended ticket that was made by a request with this idempotency key, if it is still remembered at
    /// `now`.
    pub fn with_key(&self, key: &IdempotencyKey, now: Millis) -> Option<&EndedTicket> {
        self.remembered(now)
            .find(|e| e.attempt().is_some_and(|(made, _)| made.key == *key))
    }

    /// All tickets in memory, also those past their `forget_at`.
    pub fn tickets(&self) -> impl Iterator<Item = Ticket> + '_ {
        self.entries.iter().map(|e| e.ticket)
    }

    /// The tickets that are remembered at `now`.
    pub fn remembered(&self, now: Millis) -> impl Iterator<Item = &EndedTicket> {
        self.entries.iter().filter(move |e| now <= e.forget_at)
    }

    /// Removes the entries that are past their `forget_at`.
    pub fn forget(&mut self, now: Millis) {
        if self.all_until >= now {
            return;
        }
        while self.entries.front().is_some_and(|e| e.forget_at < now) {
            self.entries.pop_front();
        }
        self.all_until = self.entries.front().map_or(0, |e| e.forget_at);
    }
}
