//! Ended tickets: remembered for a while, so that a client that comes back learns why its ticket ended.

use std::collections::{BTreeMap, VecDeque};

use super::command::Refusal;
use super::names::{IdempotencyKey, Millis, Ticket, TicketId};
use super::rows::{ENDED_MAX, EndReason, EndedMore, EndedRow, Forced};

/// The ended tickets of one resource, oldest first, at most [`ENDED_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ended {
    /// The number of the next row.
    next: u64,
    entries: VecDeque<Entry>,
    /// What else is remembered of some of the entries; empty for most locks.
    more: BTreeMap<Ticket, EndedMore>,
    /// At most the earliest `forget_at` in `entries`; 0 if empty. Cached: `entries` is cold memory.
    all_until: Millis,
}

/// An ended ticket with all that is remembered of it, after its resource was removed too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LostTicket {
    pub ticket: Ticket,
    pub reason: EndReason,
    pub more: Option<EndedMore>,
    /// Until when it is remembered, on the monotonic clock.
    pub forget_at: Millis,
}

impl LostTicket {
    /// The refusal of a request that presents this ticket.
    pub fn refusal(self) -> Refusal {
        match self.more.and_then(|more| more.forced) {
            Some(forced) => Refusal::DeadByForce(Box::new(forced)),
            None => Refusal::Dead(Some(self.reason)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Entry {
    ticket: Ticket,
    reason: EndReason,
    forget_at: Millis,
}

impl Ended {
    /// Restores the stored rows, to be remembered until `forget_at`. Their time starts anew: only a wall clock,
    /// which is not trusted, could tell how long ago they ended, and remembering them for longer does no harm.
    pub fn restore(mut rows: Vec<EndedRow>, forget_at: Millis) -> Ended {
        rows.sort_by_key(|row| row.n);
        let mut ended = Ended {
            next: rows.last().map_or(0, |row| row.n + 1),
            all_until: if rows.is_empty() { 0 } else { forget_at },
            ..Ended::default()
        };
        for row in rows {
            if let Some(more) = row.more {
                ended.more.insert(row.ticket, *more);
            }
            ended.entries.push_back(Entry {
                ticket: row.ticket,
                reason: row.reason,
                forget_at,
            });
        }
        ended
    }

    /// Remembers an ended ticket, and forgets the oldest one if there are [`ENDED_MAX`]. Returns the row to store.
    pub fn remember(&mut self, ended: LostTicket) -> EndedRow {
        let LostTicket {
            ticket,
            reason,
            more,
            forget_at,
        } = ended;
        let n = self.next;
        self.next += 1;
        if self.entries.is_empty() {
            self.all_until = forget_at;
        }
        if self.entries.len() as u64 == ENDED_MAX {
            self.pop();
        }
        self.entries.push_back(Entry {
            ticket,
            reason,
            forget_at,
        });
        if let Some(more) = &more {
            self.more.insert(ticket, more.clone());
        }
        EndedRow {
            n,
            ticket,
            reason,
            more: more.map(Box::new),
        }
    }

    fn pop(&mut self) {
        let entry = self.entries.pop_front();
        // Without anything in `more`, the entry need not be read: it is cold memory.
        if !self.more.is_empty()
            && let Some(entry) = entry
        {
            self.more.remove(&entry.ticket);
        }
    }

    fn entry(&self, ticket: Ticket, now: Millis) -> Option<&Entry> {
        let mut entries = self.entries.iter().rev();
        entries.find(|e| e.ticket == ticket && now <= e.forget_at)
    }

    /// Why this ticket ended, if it is still remembered at `now`.
    pub fn reason(&self, ticket: Ticket, now: Millis) -> Option<EndReason> {
        self.entry(ticket, now).map(|e| e.reason)
    }

    /// Who ended this ticket by force and why, if that is still remembered at `now`.
    pub fn forced(&self, ticket: Ticket, now: Millis) -> Option<&Forced> {
        let more = self.more.get(&ticket)?;
        self.entry(ticket, now)?;
        more.forced.as_ref()
    }

    /// Whether a ticket with this id was ended by force and is still remembered at `now`.
    pub fn was_forced(&self, id: TicketId, now: Millis) -> bool {
        let mut forced = self
            .entries
            .iter()
            .filter(|e| e.reason == EndReason::ForcedOff && now <= e.forget_at);
        forced.any(|e| e.ticket.id() == id)
    }

    /// The ended ticket that was made by a request with this idempotency key, if it is still remembered at
    /// `now`.
    pub fn with_key(&self, key: &IdempotencyKey, now: Millis) -> Option<(Ticket, &EndedMore)> {
        let of_key = |more: &EndedMore| more.attempt.as_ref().is_some_and(|a| a.key.key == *key);
        let (ticket, more) = self.more.iter().find(|(_, more)| of_key(more))?;
        self.entry(*ticket, now).map(|_| (*ticket, more))
    }

    /// All tickets in memory, also those past their `forget_at`.
    pub fn tickets(&self) -> impl Iterator<Item = Ticket> + '_ {
        self.entries.iter().map(|e| e.ticket)
    }

    /// The tickets that are remembered at `now`.
    pub fn remembered(&self, now: Millis) -> impl Iterator<Item = LostTicket> {
        let entries = self.entries.iter().filter(move |e| now <= e.forget_at);
        entries.map(|e| LostTicket {
            ticket: e.ticket,
            reason: e.reason,
            more: self.more.get(&e.ticket).cloned(),
            forget_at: e.forget_at,
        })
    }

    /// Removes the entries that are past their `forget_at`.
    pub fn forget(&mut self, now: Millis) {
        if self.all_until >= now {
            return;
        }
        while self.entries.front().is_some_and(|e| e.forget_at < now) {
            self.pop();
        }
        self.all_until = self.entries.front().map_or(0, |e| e.forget_at);
    }
}
