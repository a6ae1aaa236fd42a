//! The leases of one lock: none or one for most locks, several where the lock is shared or has slots.
//!
//! With several leases a look-up or change takes logarithmic time, so that it stays cheap with 10,000 readers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::command::RequestId;
use super::names::{FencingToken, IdempotencyKey, Millis, Mode, Ticket, Ttl, WallMillis};
use super::rows::{HolderRow, TicketRow};

/// One live lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    // ---- persisted ----
    /// The ticket that holds the lease. Its `ttl` is the one that renewals use.
    pub(super) row: TicketRow,
    pub(super) token: FencingToken,
    pub(super) acquired_at: WallMillis,
    /// The `ttl` in the store. A restart runs it anew, so it is never shorter than the rest of the lease or
    /// than what an answer on its way promises: otherwise the restart would end the lease early.
    pub(super) stored_ttl: Option<Ttl>,
    // ---- in memory only; times are on the monotonic clock ----
    /// The client knows its ticket from elsewhere than the answers to this grant. If the grant is taken back,
    /// the ticket then returns to the queue.
    pub(super) told: bool,
    /// The requests whose answers tell of the grant. If all of them turn out undelivered, the grant is taken
    /// back. Empty once the client has shown in another way that it knows of the grant.
    pub(super) unconfirmed: Vec<RequestId>,
    /// Since when it runs: it begins when its holder is answered (`docs/protocol.md`, "Lease"). `None`: the
    /// answers are on their way, and it will begin with `stored_ttl`.
    pub(super) since: Option<Millis>,
    /// The last millisecond in which it certainly holds. `None`: it does not expire, or has not begun.
    pub(super) expires: Option<Millis>,
    /// When its ticket was last presented. `None`: not since a restart.
    pub(super) seen: Option<Millis>,
    /// Address of the client that last asked with its ticket.
    pub(super) client: Option<IpAddr>,
}

impl Lease {
    /// The row for the lease's current state.
    pub(super) fn holder_row(&self) -> HolderRow {
        HolderRow {
            ticket: TicketRow {
                ttl: self.stored_ttl,
                ..self.row.clone()
            },
            token: self.token,
            acquired_at: self.acquired_at,
        }
    }

    /// The first millisecond in which the lease is over. `None`: it does not expire, or has not begun.
    fn end(&self) -> Option<Millis> {
        self.expires.map(|last| last + 1)
    }

    fn has_key(&self, key: &IdempotencyKey) -> bool {
        self.row.key.as_ref().is_some_and(|k| k.key == *key)
    }
}

/// All leases of one lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Leases {
    /// One lease, or none: most locks need no index.
    Single(Option<Lease>),
    /// Two leases or more, with indexes. There are fewer only within a step, before [`Leases::shrink`].
    Many {
        by_token: BTreeMap<FencingToken, Lease>,
        by_ticket: BTreeMap<Ticket, FencingToken>,
        by_key: BTreeMap<IdempotencyKey, FencingToken>,
        /// By [`Lease::unconfirmed`].
        by_request: BTreeMap<RequestId, FencingToken>,
        /// By [`Lease::end`].
        ends: BTreeSet<(Millis, FencingToken)>,
    },
}

impl Default for Leases {
    fn default() -> Leases {
        Leases::Single(None)
    }
}

impl Leases {
    pub fn len(&self) -> usize {
        match self {
            Leases::Single(lease) => usize::from(lease.is_some()),
            Leases::Many { by_token, .. } => by_token.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In the order of their tokens, which is the order of their grants.
    pub fn iter(&self) -> impl Iterator<Item = &Lease> {
        let (one, many) = match self {
            Leases::Single(lease) => (lease.as_ref(), None),
            Leases::Many { by_token, .. } => (None, Some(by_token)),
        };
        let many = many.into_iter().flat_map(BTreeMap::values);
        one.into_iter().chain(many)
    }

    /// The lease with the lowest token. It is stored in the head row, the others in rows of their own.
    pub fn first(&self) -> Option<&Lease> {
        match self {
            Leases::Single(lease) => lease.as_ref(),
            Leases::Many { by_token, .. } => by_token.values().next(),
        }
    }

    /// The mode, which is the same for all leases. `None`: there is no lease.
    pub fn mode(&self) -> Option<Mode> {
        self.first().map(|lease| lease.row.mode)
    }

    pub fn get(&self, token: FencingToken) -> Option<&Lease> {
        match self {
            Leases::Single(lease) => lease.as_ref().filter(|lease| lease.token == token),
            Leases::Many { by_token, .. } => by_token.get(&token),
        }
    }

    pub fn with_ticket(&self, ticket: Ticket) -> Option<&Lease> {
        match self {
            Leases::Single(lease) => lease.as_ref().filter(|lease| lease.row.ticket == ticket),
            Leases::Many {
                by_token,
                by_ticket,
                ..
            } => by_token.get(by_ticket.get(&ticket)?),
        }
    }

    pub fn with_key(&self, key: &IdempotencyKey) -> Option<&Lease> {
        match self {
            Leases::Single(lease) => lease.as_ref().filter(|lease| lease.has_key(key)),
            Leases::Many {
                by_token, by_key, ..
            } => by_token.get(by_key.get(key)?),
        }
    }

    /// The lease that the answer to this request tells of ([`Lease::unconfirmed`]).
    pub fn with_request(&self, request: RequestId) -> Option<&Lease> {
        match self {
            Leases::Single(lease) => lease
                .as_ref()
                .filter(|lease| lease.unconfirmed.contains(&request)),
            Leases::Many {
                by_token,
                by_request,
                ..
            } => by_token.get(by_request.get(&request)?),
        }
    }

    /// Whether this lease is stored in the head row. Otherwise it has a row of its own.
    pub fn is_in_head(&self, token: FencingToken) -> bool {
        self.first().is_some_and(|first| first.token == token)
    }

    /// The lease that expires next: the first millisecond in which it is over, and its token.
    pub fn next_end(&self) -> Option<(Millis, FencingToken)> {
        match self {
            Leases::Single(lease) => lease.as_ref().and_then(|l| Some((l.end()?, l.token))),
            Leases::Many { ends, .. } => ends.first().copied(),
        }
    }

    /// Changes a lease and keeps the indexes up to date. `None`: there is no such lease.
    pub fn change<T>(
        &mut self,
        token: FencingToken,
        change: impl FnOnce(&mut Lease) -> T,
    ) -> Option<T> {
        if let Leases::Single(lease) = self {
            return lease.as_mut().filter(|l| l.token == token).map(change);
        }
        let mut lease = self.take(token)?;
        let changed = change(&mut lease);
        self.put(lease);
        Some(changed)
    }

    /// Removes a lease: to end it, or to put it back with changes.
    pub fn take(&mut self, token: FencingToken) -> Option<Lease> {
        match self {
            Leases::Single(lease) => lease.take_if(|lease| lease.token == token),
            Leases::Many {
                by_token,
                by_ticket,
                by_key,
                by_request,
                ends,
            } => {
                let lease = by_token.remove(&token)?;
                by_ticket.remove(&lease.row.ticket);
                if let Some(row) = &lease.row.key {
                    by_key.remove(&row.key);
                }
                for request in &lease.unconfirmed {
                    by_request.remove(request);
                }
                if let Some(end) = lease.end() {
                    ends.remove(&(end, token));
                }
                Some(lease)
            }
        }
    }

    pub fn put(&mut self, lease: Lease) {
        match self {
            Leases::Single(single) => match single.take() {
                None => *single = Some(lease),
                Some(first) => {
                    *self = Leases::Many {
                        by_token: BTreeMap::new(),
                        by_ticket: BTreeMap::new(),
                        by_key: BTreeMap::new(),
                        by_request: BTreeMap::new(),
                        ends: BTreeSet::new(),
                    };
                    self.put(first);
                    self.put(lease);
                }
            },
            Leases::Many {
                by_token,
                by_ticket,
                by_key,
                by_request,
                ends,
            } => {
                let token = lease.token;
                by_ticket.insert(lease.row.ticket, token);
                if let Some(row) = &lease.row.key {
                    by_key.insert(row.key.clone(), token);
                }
                by_request.extend(lease.unconfirmed.iter().map(|request| (*request, token)));
                ends.extend(lease.end().map(|end| (end, token)));
                by_token.insert(token, lease);
            }
        }
    }

    /// Drops the indexes when fewer than two leases are left.
    pub fn shrink(&mut self) {
        if let Leases::Many { by_token, .. } = self
            && by_token.len() < 2
        {
            let last = by_token.pop_first();
            *self = Leases::Single(last.map(|(_, lease)| lease));
        }
    }

    /// Whether the indexes match the leases, and exist only for two or more. For the invariants.
    pub fn is_consistent(&self) -> bool {
        let mut expected = Leases::default();
        self.iter().for_each(|lease| expected.put(lease.clone()));
        *self == expected
    }
}
