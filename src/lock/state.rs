//! The lock of one resource: its state, how it is restored from rows, and how it is shown to clients.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::command::{HolderView, PlaceView, RequestId, Role};
use super::ended::Ended;
use super::leases::{Lease, Leases};
use super::names::{FencingToken, Millis, Mode, Now, ResourceOptions, Ticket, Ttl, WallMillis};
use super::queue::{Queue, Seq, Waiter};
use super::rows::{ENDED_MS, EndReason, EndedRow, HeadRow, HolderRow, LockChanges, LockRows};
use super::terms::Terms;

/// The lock of one resource: its leases, its queue and its ended tickets. Commands change it by
/// [`LockState::apply`]; [`LockState::delivered`], [`LockState::set_options`] and [`LockState::recall`] do, too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LockState {
    // ---- persisted ----
    pub(super) options: ResourceOptions,
    /// The highest token granted so far.
    pub(super) token: FencingToken,
    pub(super) leases: Leases,
    /// `None` when nobody waits: a million idle locks should not pay for queues.
    pub(super) queue: Option<Box<Queue>>,
    pub(super) ended: Ended,
    pub(super) next_seq: Seq,
    // ---- in memory only ----
    /// The waiter that the lock is reserved for. The reservation lasts as long as the waiter stays near.
    pub(super) reserved: Option<Seq>,
    /// End of the running lock-delay: nobody is granted before. Only the fact that it runs is persisted.
    pub(super) delay_until: Option<Millis>,
}

impl LockState {
    /// A free lock. `token_floor`: the highest token that any deleted resource reached.
    pub fn new(options: ResourceOptions, token_floor: FencingToken) -> LockState {
        LockState {
            options,
            token: token_floor,
            leases: Leases::default(),
            queue: None,
            ended: Ended::default(),
            next_seq: 1,
            reserved: None,
            delay_until: None,
        }
    }

    /// Restores the lock from its rows. Leases get their full TTL again, counted from `leases_from`; a
    /// lock-delay that was running starts anew; every waiting ticket counts as just seen; and a lock that the
    /// first waiter can be granted is reserved for it.
    pub fn restore(
        options: ResourceOptions,
        rows: LockRows,
        terms: &Terms,
        now: Now,
        leases_from: Millis,
    ) -> LockState {
        let head = rows.head.holder.map(|row| *row);
        let holders: Vec<HolderRow> = head.into_iter().chain(rows.holding).collect();
        let seqs = holders.iter().map(|row| row.ticket.seq);
        let last_seq = seqs.chain(rows.waiting.iter().map(|w| w.seq)).max();
        let delay_ms = options.lock_delay_ms();
        let mut state = LockState {
            next_seq: last_seq.unwrap_or(0) + 1,
            ended: Ended::restore(rows.ended, now.mono + ENDED_MS),
            delay_until: (rows.head.delayed && delay_ms > 0).then_some(now.mono + delay_ms),
            ..LockState::new(options, rows.head.token)
        };
        for row in rows.waiting {
            state
                .queue_mut()
                .insert(Waiter::known(row), now.mono, terms);
        }
        for row in holders {
            let ttl = row.ticket.ttl;
            state.leases.put(Lease {
                stored_ttl: ttl,
                row: row.ticket,
                token: row.token,
                acquired_at: row.acquired_at,
                told: true,
                unconfirmed: Vec::new(),
                since: Some(leases_from),
                expires: state.expiry(terms, ttl, leases_from, leases_from),
                seen: None,
                client: None,
            });
        }
        state.reserved = state.first_near().filter(|seq| state.admits_waiter(*seq));
        state
    }

    /// The next time at which [`Command::Tick`](super::Command::Tick) has something to do. `None`: never.
    pub fn deadline(&self) -> Option<Millis> {
        let lease = self.leases.next_end().map(|(at, _)| at);
        let queue = self.queue_ref();
        let place = queue.and_then(Queue::next_due).map(|(at, _)| at);
        let wait = queue.and_then(Queue::next_wait_end).map(|(at, _)| at);
        let all = [lease, self.delay_until, place, wait];
        all.into_iter().flatten().min()
    }

    pub fn options(&self) -> ResourceOptions {
        self.options
    }

    /// Changes the options: an ephemeral resource became an ordinary one. Leases and places stay. A lease
    /// without a `ttl` of its own keeps the old timeout as its `ttl`, because a shorter timeout must not end it
    /// early. Returns the rows to store.
    pub fn set_options(&mut self, options: ResourceOptions) -> LockChanges {
        let before = Ttl::from(self.options.timeout);
        self.options = options;
        let tokens: Vec<FencingToken> = self.leases.iter().map(|lease| lease.token).collect();
        let mut changes = LockChanges::default();
        for token in tokens {
            let row = self.leases.change(token, |lease| {
                lease.row.ttl.get_or_insert(before);
                lease.stored_ttl.get_or_insert(before);
                lease.holder_row()
            });
            if let Some(row) = row.filter(|_| !self.leases.is_in_head(token)) {
                changes.hold(row);
            }
        }
        changes.head = Some(self.head());
        changes
    }

    /// The highest token granted so far.
    pub fn token(&self) -> FencingToken {
        self.token
    }

    /// Whether the lock is held, reserved for a waiter, or in its lock-delay.
    pub fn is_locked(&self) -> bool {
        self.is_held() || self.is_reserved()
    }

    pub fn is_held(&self) -> bool {
        !self.leases.is_empty()
    }

    /// Whether the lock is reserved: for a waiter, or for nobody while the lock-delay runs.
    pub fn is_reserved(&self) -> bool {
        self.reserved.is_some() || self.delay_until.is_some()
    }

    /// Whether the lock is free and nobody waits: then nothing is lost if this state is read from the store again.
    pub fn is_idle(&self) -> bool {
        !self.is_locked() && self.queue.is_none()
    }

    pub fn waiting(&self) -> usize {
        self.queue_ref().map_or(0, Queue::len)
    }

    /// When the first of the current leases was acquired. `None`: nobody holds.
    pub fn held_since(&self) -> Option<WallMillis> {
        self.leases.first().map(|lease| lease.acquired_at)
    }

    /// The ended tickets to remember after the resource is removed, and until when: those that expired or were
    /// forced off, and those with an idempotency key (see [`EndedMore`](super::rows::EndedMore)).
    pub fn lost_tickets(&self, now: Millis) -> Vec<(EndedRow, Millis)> {
        let lost = self.ended.remembered(now);
        lost.filter(|(row, _)| row.reason != EndReason::Released || row.attempt().is_some())
            .cloned()
            .collect()
    }

    /// Remembers the lost tickets of an earlier resource of the same name. Returns the rows to store.
    pub fn recall(&mut self, lost: Vec<(EndedRow, Millis)>) -> LockChanges {
        let mut changes = LockChanges::default();
        for (row, until) in lost {
            changes.end(self.ended.remember(row, until));
        }
        changes
    }

    // ---- as clients see it ------------------------------------------------------------------------

    /// All leases, in the order of their grants.
    pub fn holders(&self, terms: &Terms, now: Now) -> impl Iterator<Item = HolderView> {
        let leases = self.leases.iter();
        leases.map(move |lease| self.view(terms, now, lease))
    }

    /// The leases whose clients may not know of them: only one answer told of the lease, to a ticket that its
    /// client did not know before, and nothing has confirmed it since. Yields that request and the ticket.
    pub fn unconfirmed(&self) -> impl Iterator<Item = (RequestId, Ticket)> {
        let running = self.leases.iter().filter(|lease| lease.since.is_some());
        running.filter_map(|lease| match lease.unconfirmed[..] {
            [request] if !lease.told => Some((request, lease.row.ticket)),
            _ => None,
        })
    }

    /// Since when the first ticket in the queue waits. `None`: nobody waits, the first place is that of a
    /// ticketless write, or its row is from a version that did not store the time.
    pub fn waits_since(&self) -> Option<WallMillis> {
        let (_, first) = self.queue_ref()?.iter().next()?;
        first.row.queued_at
    }

    /// The first `count` places of the queue. Ticketless writes are left out, but count in the positions.
    pub fn places(&self, now: Now, count: usize) -> Vec<PlaceView> {
        let queue = self.queue_ref().into_iter();
        let places = queue.flat_map(|queue| queue.iter().map(move |place| (queue, place)));
        let told = (1..)
            .zip(places)
            .filter(|(_, (_, (_, waiter)))| !waiter.ticketless_write);
        let view = |(position, (queue, (seq, waiter))): (usize, (&Queue, (Seq, &Waiter)))| {
            let last_seen_at = match waiter.has_open_requests() {
                true => now.wall,
                false => now.wall_at(waiter.last_seen),
            };
            PlaceView {
                id: waiter.row.ticket.id(),
                position,
                owner: waiter.row.owner.clone(),
                reason: waiter.row.reason.clone(),
                mode: waiter.row.mode,
                waiting_since: waiter.row.queued_at.unwrap_or(last_seen_at),
                last_seen_at,
                near: queue.is_near(seq),
                client: waiter.client,
            }
        };
        told.take(count).map(view).collect()
    }

    /// Whether this ticket holds or waits. `None`: it does neither.
    pub fn role(&self, ticket: Ticket) -> Option<Role> {
        if let Some(token) = self.token_of(ticket) {
            return Some(Role::Holder(token));
        }
        let queue = self.queue_ref()?;
        let seq = queue.with_ticket(ticket)?;
        Some(Role::Waiting(queue.position(seq)))
    }

    /// The fencing token of this ticket's lease. `None`: the ticket does not hold the lock.
    pub fn token_of(&self, ticket: Ticket) -> Option<FencingToken> {
        self.leases.with_ticket(ticket).map(|lease| lease.token)
    }

    /// Whether a write with this waiting ticket is granted the lock, which is reserved for it.
    pub fn would_grant_write(&self, ticket: Ticket) -> bool {
        let place = self.reserved.and_then(|seq| self.queue_ref()?.get(seq));
        place.is_some_and(|w| w.row.ticket == ticket && w.row.mode == Mode::Exclusive)
    }

    /// Whether this ticket holds or waits.
    pub fn is_live(&self, ticket: Ticket) -> bool {
        self.role(ticket).is_some()
    }

    /// A hash of the leases (token, mode) and of the queue in order (place, mode, ticket). Must not be stored:
    /// another build may hash the same state differently.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for lease in self.leases.iter() {
            (lease.token, lease.row.mode).hash(&mut hasher);
        }
        for (seq, waiter) in self.queue_ref().into_iter().flat_map(Queue::iter) {
            (seq, waiter.row.mode, waiter.row.ticket).hash(&mut hasher);
        }
        hasher.finish()
    }

    // ---- who may be granted -----------------------------------------------------------------------

    pub(super) fn queue_ref(&self) -> Option<&Queue> {
        self.queue.as_deref()
    }

    pub(super) fn queue_mut(&mut self) -> &mut Queue {
        self.queue.get_or_insert_default()
    }

    pub(super) fn first_near(&self) -> Option<Seq> {
        self.queue_ref().and_then(Queue::first_near)
    }

    /// Whether a lease of this mode fits the current leases, and no lock-delay runs. Does not look at the queue.
    pub(super) fn admits(&self, mode: Mode) -> bool {
        if self.delay_until.is_some() {
            return false;
        }
        match (mode, self.leases.mode()) {
            (_, None) | (Mode::Shared, Some(Mode::Shared)) => true,
            (Mode::Exclusive, Some(Mode::Exclusive)) => {
                self.leases.len() < usize::from(self.options.slots)
            }
            _ => false,
        }
    }

    /// Whether this waiter could be granted now if it were next in line.
    pub(super) fn admits_waiter(&self, seq: Seq) -> bool {
        let waiter = self.queue_ref().and_then(|queue| queue.get(seq));
        waiter.is_some_and(|waiter| match waiter.ticketless_write {
            // A write without a ticket takes no lease: it needs a lock that nobody holds.
            true => self.leases.is_empty() && self.delay_until.is_none(),
            false => self.admits(waiter.row.mode),
        })
    }

    // ---- leases -----------------------------------------------------------------------------------

    /// The TTL in force for a lease whose own `ttl` is `own`: that, else the resource's timeout where the
    /// profile makes it a TTL, else zero (does not expire).
    pub(super) fn ttl(&self, terms: &Terms, own: Option<Ttl>) -> Ttl {
        own.unwrap_or(if terms.profile.timeout_is_lease_ttl() {
            self.options.timeout.into()
        } else {
            Ttl::ZERO
        })
    }

    /// The last millisecond of a lease with this `ttl` that began at `since` and is renewed at `now`: `now` +
    /// TTL, but at most `MAX_LEASE_SECONDS` after `since`. `None`: does not expire.
    pub(super) fn expiry(
        &self,
        terms: &Terms,
        ttl: Option<Ttl>,
        since: Millis,
        now: Millis,
    ) -> Option<Millis> {
        let by_ttl = self.ttl(terms, ttl).limit_ms().map(|ttl| now + ttl);
        let by_limit = terms.lease_seconds_max.limit_ms().map(|max| since + max);
        match (by_ttl, by_limit) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The TTL that the holder is told: its own, cut to what `MAX_LEASE_SECONDS` leaves of the lease. The cut
    /// TTL is at least 1 ms, because 0 would mean "does not expire".
    pub(super) fn told_ttl(&self, terms: &Terms, now: Millis, lease: &Lease) -> Ttl {
        let own = self.ttl(terms, lease.row.ttl);
        let Some(max_ms) = terms.lease_seconds_max.limit_ms() else {
            return own;
        };
        let left = |since: Millis| (since + max_ms).saturating_sub(now).max(1);
        let left_ms = lease.since.map_or(max_ms, left);
        let told_ms = own.limit_ms().map_or(left_ms, |own| own.min(left_ms));
        Ttl::from_millis(told_ms).unwrap_or(own)
    }

    pub(super) fn view(&self, terms: &Terms, now: Now, lease: &Lease) -> HolderView {
        let expires = match lease.since {
            Some(_) => lease.expires,
            None => self.expiry(terms, lease.stored_ttl, now.mono, now.mono),
        };
        HolderView {
            renewed_at: lease.seen.map(|at| now.wall_at(at)),
            client: lease.client,
            ..HolderView::new(&lease.row, lease.token, lease.acquired_at, expires, now)
        }
    }

    /// The head row for the current state.
    pub(super) fn head(&self) -> HeadRow {
        HeadRow {
            token: self.token,
            delayed: self.delay_until.is_some(),
            holder: self
                .leases
                .first()
                .map(|lease| Box::new(lease.holder_row())),
        }
    }
}

/// The later of two expiries. `None` is the latest: it means "does not expire".
pub(super) fn later(a: Option<Millis>, b: Option<Millis>) -> Option<Millis> {
    Some(a?.max(b?))
}
