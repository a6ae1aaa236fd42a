//! Why tickets ended: remembered for a while, so that a client that comes back learns what happened.

use std::collections::VecDeque;

use super::command::EndReason;
use super::names::{Millis, Ticket};
use super::rows::{ENDED_MAX, EndedRow};

/// The ended tickets of one resource, oldest first, at most [`ENDED_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ended {
    next: u64,
    entries: VecDeque<Entry>,
    /// There is nothing to forget before this time; 0 where there is nothing. Known without a look at the
    /// entries, which are seldom at hand.
    all_until: Millis,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Entry {
    ticket: Ticket,
    reason: EndReason,
    forget_at: Millis,
}

impl Ended {
    /// The rows as loaded. Their time runs anew: how long ago they ended is not known without trusting a
    /// wall clock, and remembering for longer harms nobody.
    pub fn restore(mut rows: Vec<EndedRow>, forget_at: Millis) -> Ended {
        rows.sort_by_key(|row| row.n);
        Ended {
            next: rows.last().map_or(0, |row| row.n + 1),
            all_until: if rows.is_empty() { 0 } else { forget_at },
            entries: rows
                .into_iter()
                .map(|row| Entry {
                    ticket: row.ticket,
                    reason: row.reason,
                    forget_at,
                })
                .collect(),
        }
    }

    pub fn remember(&mut self, ticket: Ticket, reason: EndReason, forget_at: Millis) -> EndedRow {
        let n = self.next;
        self.next += 1;
        if self.entries.is_empty() {
            self.all_until = forget_at;
        }
        if self.entries.len() as u64 == ENDED_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry {
            ticket,
            reason,
            forget_at,
        });
        EndedRow { n, ticket, reason }
    }

    /// Why this ticket ended, if it is still remembered at `now`.
    pub fn reason(&self, ticket: Ticket, now: Millis) -> Option<EndReason> {
        self.entries
            .iter()
            .rev()
            .find(|e| e.ticket == ticket && now <= e.forget_at)
            .map(|e| e.reason)
    }

    /// All that are remembered, whether or not anybody may still ask.
    pub fn tickets(&self) -> impl Iterator<Item = Ticket> + '_ {
        self.entries.iter().map(|e| e.ticket)
    }

    /// Lets go of what nobody may ask for any more.
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
