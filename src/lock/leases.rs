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
    // ---- in memory only ----
    /// The client knows its ticket from elsewhere than the answers to this grant. If the grant is taken back,
    /// the ticket then returns to the queue.
    pub(super) told: bool,
    pub(super) clock: LeaseClock,
    /// When its ticket was last presented, on the monotonic clock. `None`: not since a restart.
    pub(super) seen: Option<Millis>,
    /// Address of the client that last asked with its ticket.
    pub(super) client: Option<IpAddr>,
}

/// Whether a lease runs already: it begins when its holder is answered (`docs/protocol.md`, "Lease"). Times are
/// on the monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LeaseClock {
    /// Granted, and the answers to these requests are on their way. The lease will begin with `stored_ttl`.
    Answering(Vec<RequestId>),
    Running {
        since: Millis,
        /// The last millisecond in which the lease certainly holds. `None`: does not expire.
        expires: Option<Millis>,
        /// The requests whose answers told of the grant. If all of them turn out undelivered, the grant is taken
        /// back. Empty once the client has shown in another way that it knows of the grant.
        unconfirmed: Vec<RequestId>,
    },
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
        match &self.clock {
            LeaseClock::Running { expires, .. } => expires.map(|last| last + 1),
            LeaseClock::Answering(_) => None,
        }
    }

    /// The requests whose answers tell of the grant.
    pub(super) fn telling(&self) -> &[RequestId] {
        match &self.clock {
            LeaseClock::Answering(requests) => requests,
            LeaseClock::Running { unconfirmed, .. } => unconfirmed,
        }
    }

    fn has_key(&self, key: &IdempotencyKey) -> bool {
        self.row.key.as_ref().is_some_and(|k| k.key == *key)
    }
}

/// All leases of one lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::large_enum_variant,
    reason = "most locks have one lease, which must not cost an allocation"
)]
pub enum Leases {
    /// One lease, or none.
    Single(Option<Lease>),
    Many(Box<ManyLeases>),
}

impl Default for Leases {
    fn default() -> Leases {
        Leases::Single(None)
    }
}

/// Two leases or more, with indexes. There are fewer only within a step, before [`Leases::shrink`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ManyLeases {
    by_token: BTreeMap<FencingToken, Lease>,
    by_ticket: BTreeMap<Ticket, FencingToken>,
    by_key: BTreeMap<IdempotencyKey, FencingToken>,
    /// By the requests of [`Lease::telling`].
    by_request: BTreeMap<RequestId, FencingToken>,
    /// By [`Lease::end`].
    ends: BTreeSet<(Millis, FencingToken)>,
}

impl Leases {
    pub fn len(&self) -> usize {
        match self {
            Leases::Single(lease) => usize::from(lease.is_some()),
            Leases::Many(many) => many.by_token.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In the order of their tokens, which is the order of their grants.
    pub fn iter(&self) -> impl Iterator<Item = &Lease> {
        let (one, many) = match self {
            Leases::Single(lease) => (lease.as_ref(), None),
            Leases::Many(many) => (None, Some(many)),
        };
        let many = many.into_iter().flat_map(|many| many.by_token.values());
        one.into_iter().chain(many)
    }

    /// The lease with the lowest token. It is stored in the head row, the others in rows of their own.
    pub fn first(&self) -> Option<&Lease> {
        match self {
            Leases::Single(lease) => lease.as_ref(),
            Leases::Many(many) => many.by_token.values().next(),
        }
    }

    /// The mode, which is the same for all leases. `None`: there is no lease.
    pub fn mode(&self) -> Option<Mode> {
        self.first().map(|lease| lease.row.mode)
    }

    pub fn get(&self, token: FencingToken) -> Option<&Lease> {
        match self {
            Leases::Single(lease) => lease.as_ref().filter(|lease| lease.token == token),
            Leases::Many(many) => many.by_token.get(&token),
        }
    }

    pub fn with_ticket(&self, ticket: Ticket) -> Option<&Lease> {
        match self {
            Leases::Single(lease) => lease.as_ref().filter(|lease| lease.row.ticket == ticket),
            Leases::Many(many) => many.by_token.get(many.by_ticket.get(&ticket)?),
        }
    }

    pub fn with_key(&self, key: &IdempotencyKey) -> Option<&Lease> {
        match self {
            Leases::Single(lease) => lease.as_ref().filter(|lease| lease.has_key(key)),
            Leases::Many(many) => many.by_token.get(many.by_key.get(key)?),
        }
    }

    /// The lease that the answer to this request tells of ([`Lease::telling`]).
    pub fn with_request(&self, request: RequestId) -> Option<&Lease> {
        match self {
            Leases::Single(lease) => lease
                .as_ref()
                .filter(|lease| lease.telling().contains(&request)),
            Leases::Many(many) => many.by_token.get(many.by_request.get(&request)?),
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
            Leases::Many(many) => many.ends.first().copied(),
        }
    }

    /// Changes a lease and keeps the indexes up to date. `None`: there is no such lease.
    pub fn change<T>(
        &mut self,
        token: FencingToken,
        change: impl FnOnce(&mut Lease) -> T,
    ) -> Option<T> {
        match self {
            Leases::Single(lease) => lease.as_mut().filter(|l| l.token == token).map(change),
            Leases::Many(many) => {
                let mut lease = many.take(token)?;
                let changed = change(&mut lease);
                many.put(lease);
                Some(changed)
            }
        }
    }

    /// Removes a lease: to end it, or to put it back with changes.
    pub fn take(&mut self, token: FencingToken) -> Option<Lease> {
        match self {
            Leases::Single(lease) => lease.take_if(|lease| lease.token == token),
            Leases::Many(many) => many.take(token),
        }
    }

    pub fn put(&mut self, lease: Lease) {
        match self {
            Leases::Many(many) => many.put(lease),
            Leases::Single(single) => match single.take() {
                None => *single = Some(lease),
                Some(first) => {
                    let mut many = Box::<ManyLeases>::default();
                    many.put(first);
                    many.put(lease);
                    *self = Leases::Many(many);
                }
            },
        }
    }

    /// Drops the indexes when fewer than two leases are left.
    pub fn shrink(&mut self) {
        let Leases::Many(many) = self else {
            return;
        };
        if many.by_token.len() < 2 {
            let last = many.by_token.pop_first();
            *self = Leases::Single(last.map(|(_, lease)| lease));
        }
    }

    /// Whether the indexes match the leases, and exist only for two or more. For the invariants.
    pub fn is_consistent(&self) -> bool {
        let Leases::Many(many) = self else {
            return true;
        };
        let mut expected = ManyLeases::default();
        many.by_token.values().for_each(|l| expected.put(l.clone()));
        **many == expected && many.by_token.len() > 1
    }
}

impl ManyLeases {
    fn put(&mut self, lease: Lease) {
        let token = lease.token;
        self.by_ticket.insert(lease.row.ticket, token);
        if let Some(key) = &lease.row.key {
            self.by_key.insert(key.key.clone(), token);
        }
        for request in lease.telling() {
            self.by_request.insert(*request, token);
        }
        self.ends.extend(lease.end().map(|end| (end, token)));
        self.by_token.insert(token, lease);
    }

    fn take(&mut self, token: FencingToken) -> Option<Lease> {
        let lease = self.by_token.remove(&token)?;
        self.by_ticket.remove(&lease.row.ticket);
        if let Some(key) = &lease.row.key {
            self.by_key.remove(&key.key);
        }
        for request in lease.telling() {
            self.by_request.remove(request);
        }
        if let Some(end) = lease.end() {
            self.ends.remove(&(end, token));
        }
        Some(lease)
    }
}
