//! The lock of one resource: what it is, how it is stored, how it looks from outside.

use super::command::{Command, HolderView, Outcome, RequestId};
use super::ended::Ended;
#[cfg(debug_assertions)]
use super::invariants;
use super::names::{FencingToken, Millis, Now, Seconds, Ticket, WallMillis};
use super::queue::{Queue, Seq, Waiter, WaiterTimeouts};
use super::rows::{HeadRow, HolderRow, LockRows, TicketRow};
use super::step::Step;
use super::terms::Terms;

/// One live lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The ticket that holds. Its `ttl` is the one that renewals use.
    pub(super) row: TicketRow,
    pub(super) token: FencingToken,
    pub(super) acquired_at: WallMillis,
    /// The client knew its ticket before the answer that tells it of this grant.
    pub(super) told: bool,
    /// The `ttl` in the store: never shorter than what the lease still has to run, nor than what an answer
    /// on its way promises, so that a restart, after which the stored TTL runs anew, cannot end the lease
    /// early.
    pub(super) stored_ttl: Option<Seconds>,
    pub(super) clock: LeaseClock,
}

/// Whether a lease has started (contract, "Lease": it starts when the holder is answered).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LeaseClock {
    /// Granted; the answers to these requests are on their way. Its TTL will be the stored one.
    Answering(Vec<RequestId>),
    Running {
        since: Millis,
        /// The last millisecond in which the lease certainly holds. `None`: does not expire.
        expires: Option<Millis>,
        /// The requests that were told of the grant, as long as nothing else shows that the client knows
        /// of it: when all of them turn out undelivered, the grant is taken back.
        unconfirmed: Vec<RequestId>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Lock {
    Free,
    /// Kept for this waiter as long as it stays near.
    Reserved(Seq),
    Held(Lease),
}

/// The lock, queue and memory of one resource name. Changed by [`LockState::apply`] alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LockState {
    pub(super) timeout: Seconds,
    /// The highest token granted so far.
    pub(super) token: FencingToken,
    pub(super) lock: Lock,
    /// `None` when nobody waits: a million idle locks should not pay for queues.
    pub(super) queue: Option<Box<Queue>>,
    pub(super) ended: Ended,
    pub(super) next_seq: Seq,
}

impl LockState {
    /// A free lock. `floor`: the highest token that any deleted resource reached.
    pub fn new(timeout: Seconds, floor: FencingToken) -> LockState {
        LockState {
            timeout,
            token: floor,
            lock: Lock::Free,
            queue: None,
            ended: Ended::default(),
            next_seq: 1,
        }
    }

    /// The lock as it was stored. A lease gets its full TTL again from `leases_from` on, every waiting
    /// ticket counts as just seen, and a free lock is reserved for the first of them.
    pub fn restore(
        timeout: Seconds,
        rows: LockRows,
        terms: &Terms,
        now: Now,
        leases_from: Millis,
    ) -> LockState {
        let holder_seq = rows.head.holder.as_ref().map_or(0, |h| h.ticket.seq);
        let last_seq = rows.waiting.iter().map(|w| w.seq).max().unwrap_or(0);
        let mut state = LockState {
            next_seq: last_seq.max(holder_seq) + 1,
            ended: Ended::restore(rows.ended, now.mono + terms.limits.ended_ms),
            ..LockState::new(timeout, rows.head.token)
        };
        for row in rows.waiting {
            state
                .queue_mut()
                .insert(Waiter::known(row), now.mono, waiter_timeouts(terms));
        }
        match rows.head.holder {
            Some(holder) => {
                let ttl = holder.ticket.ttl;
                let expires = state.expiry(terms, ttl, leases_from, leases_from);
                state.lock = Lock::Held(Lease {
                    stored_ttl: ttl,
                    row: holder.ticket,
                    token: rows.head.token,
                    acquired_at: holder.acquired_at,
                    told: true,
                    clock: LeaseClock::Running {
                        since: leases_from,
                        expires,
                        unconfirmed: Vec::new(),
                    },
                });
            }
            None => {
                if let Some(seq) = state.queue_ref().and_then(Queue::first_near) {
                    state.lock = Lock::Reserved(seq);
                }
            }
        }
        state
    }

    /// Applies one command at `now` (milliseconds on the monotonic clock; never less than before).
    /// Whatever time alone has done until then happens first. The answers may leave only when the
    /// changes are durable.
    pub fn apply(&mut self, terms: &Terms, now: Now, command: Command) -> Outcome {
        #[cfg(debug_assertions)]
        let before = invariants::Before::of(self, &command);
        let outcome = Step::new(self, terms, now).run(command);
        if self.queue_ref().is_some_and(Queue::is_empty) {
            self.queue = None;
        }
        #[cfg(debug_assertions)]
        if let Err(broken) = invariants::check_cheap(self, terms, now)
            .and_then(|()| before.check(self, now, &outcome))
        {
            panic!("invariant broken: {broken}");
        }
        outcome
    }

    /// When [`Command::Tick`] has something to do, on the monotonic clock.
    pub fn deadline(&self) -> Option<Millis> {
        let lease = self.lease_deadline();
        let queue = self.queue_ref().and_then(Queue::deadline);
        match (lease, queue) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The first millisecond in which the lease is over.
    pub(super) fn lease_deadline(&self) -> Option<Millis> {
        match &self.lock {
            Lock::Held(Lease {
                clock: LeaseClock::Running { expires, .. },
                ..
            }) => expires.map(|last| last + 1),
            _ => None,
        }
    }

    pub fn timeout(&self) -> Seconds {
        self.timeout
    }

    /// The highest token granted so far.
    pub fn token(&self) -> FencingToken {
        self.token
    }

    /// Held, or reserved for a waiter.
    pub fn is_locked(&self) -> bool {
        self.lock != Lock::Free
    }

    pub fn is_held(&self) -> bool {
        self.lease().is_some()
    }

    /// Nothing would be lost or change if this state were read from the store again later.
    pub fn is_idle(&self) -> bool {
        self.lock == Lock::Free && self.queue.is_none()
    }

    pub fn waiting(&self) -> usize {
        self.queue_ref().map_or(0, Queue::len)
    }

    /// The lease as others see it.
    pub fn holder(&self, terms: &Terms, now: Now) -> Option<HolderView> {
        self.lease().map(|lease| self.view(terms, now, lease))
    }

    /// The lease token if this ticket holds the lock, whether or not it waits otherwise.
    pub fn token_of(&self, ticket: Ticket) -> Option<FencingToken> {
        self.lease()
            .filter(|lease| lease.row.ticket == ticket)
            .map(|lease| lease.token)
    }

    /// Holding or waiting.
    pub fn is_live(&self, ticket: Ticket) -> bool {
        self.token_of(ticket).is_some()
            || self
                .queue_ref()
                .is_some_and(|queue| queue.with_ticket(ticket).is_some())
    }

    pub(super) fn lease(&self) -> Option<&Lease> {
        match &self.lock {
            Lock::Held(lease) => Some(lease),
            _ => None,
        }
    }

    pub(super) fn queue_ref(&self) -> Option<&Queue> {
        self.queue.as_deref()
    }

    pub(super) fn queue_mut(&mut self) -> &mut Queue {
        self.queue.get_or_insert_default()
    }

    /// What a renewal without a `ttl` of its own uses.
    pub(super) fn ttl(&self, terms: &Terms, own: Option<Seconds>) -> Seconds {
        own.unwrap_or(if terms.rules.timeout_is_lease_ttl {
            self.timeout
        } else {
            Seconds::ZERO
        })
    }

    /// When a lease with this `ttl` that started at `since` and is renewed at `now` expires.
    pub(super) fn expiry(
        &self,
        terms: &Terms,
        ttl: Option<Seconds>,
        since: Millis,
        now: Millis,
    ) -> Option<Millis> {
        let by_ttl = self.ttl(terms, ttl).limit_ms().map(|ttl| now + ttl);
        let by_limit = terms
            .limits
            .lease_seconds_max
            .limit_ms()
            .map(|max| since + max);
        match (by_ttl, by_limit) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The TTL that the holder is told: its own, cut to what `MAX_LEASE_SECONDS` leaves of the lease, so
    /// that nobody counts on more. Never cut to 0, which would mean "does not expire".
    pub(super) fn told_ttl(&self, terms: &Terms, now: Millis, lease: &Lease) -> Seconds {
        let own = self.ttl(terms, lease.row.ttl);
        let Some(max_ms) = terms.limits.lease_seconds_max.limit_ms() else {
            return own;
        };
        let left_ms = match lease.clock {
            LeaseClock::Answering(_) => max_ms,
            LeaseClock::Running { since, .. } => (since + max_ms).saturating_sub(now),
        };
        let left = Seconds::whole(left_ms).max(Seconds::ONE);
        if own == Seconds::ZERO {
            left
        } else {
            own.min(left)
        }
    }

    pub(super) fn view(&self, terms: &Terms, now: Now, lease: &Lease) -> HolderView {
        let expires = match lease.clock {
            LeaseClock::Answering(_) => self.expiry(terms, lease.stored_ttl, now.mono, now.mono),
            LeaseClock::Running { expires, .. } => expires,
        };
        HolderView {
            owner: lease.row.owner.clone(),
            acquired_at: lease.acquired_at,
            expires_at: expires.map(|at| (now.wall + at).saturating_sub(now.mono)),
            token: lease.token,
        }
    }

    /// The head row as it has to be stored now.
    pub(super) fn head(&self) -> HeadRow {
        HeadRow {
            token: self.token,
            holder: self.lease().map(|lease| {
                Box::new(HolderRow {
                    ticket: TicketRow {
                        ttl: lease.stored_ttl,
                        ..lease.row.clone()
                    },
                    acquired_at: lease.acquired_at,
                })
            }),
        }
    }
}

pub(super) fn waiter_timeouts(terms: &Terms) -> WaiterTimeouts {
    WaiterTimeouts {
        claim_ms: terms.limits.claim_ms,
        ticket_ttl_ms: terms.limits.ticket_ttl_ms,
    }
}
