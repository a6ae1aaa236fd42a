//! A held lock whose state leaves memory while its lease runs, and is restored later as if it had stayed.
//!
//! The stored rows say who holds the lock, but not when the lease ends: after a restart its TTL starts anew.
//! While the process lives it need not, so a [`SuspendedLease`] keeps what the rows do not say.
//!
//! **Clients see no difference**, with one exception: a resource that is resumed remembers ended tickets for
//! longer, as it does after a restart.

use std::net::IpAddr;

use super::command::RequestId;
use super::leases::Lease;
use super::names::{FencingToken, Millis, Now, ResourceOptions};
use super::rows::LockRows;
use super::state::LockState;
use super::terms::Terms;

/// What the stored rows do not say of a running lease. Valid only in the process and the incarnation of the
/// store that made it. Times are on the monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SuspendedLease {
    pub token: FencingToken,
    told: bool,
    unconfirmed: Box<[RequestId]>,
    since: Millis,
    /// The last millisecond in which the lease certainly holds. `None`: it does not expire.
    pub expires: Option<Millis>,
    seen: Option<Millis>,
    client: Option<IpAddr>,
}

impl SuspendedLease {
    /// The first millisecond in which the lease is over. `None`: it does not expire.
    pub fn deadline(&self) -> Option<Millis> {
        self.expires.map(|last| last + 1)
    }
}

impl LockState {
    /// Whether the rows and a [`SuspendedLease`] contain the whole state: one running lease holds the lock,
    /// nobody waits, no lock-delay runs, and the TTL that renewals use is the stored one.
    pub fn can_suspend(&self) -> bool {
        let fits = |lease: &Lease| lease.since.is_some() && lease.stored_ttl == lease.row.ttl;
        self.leases.len() == 1
            && self.leases.first().is_some_and(fits)
            && self.queue.is_none()
            && self.delay_until.is_none()
    }

    /// What to keep of this lock, all of whose changes are durable. `None`: it cannot be suspended.
    pub fn suspend(&self) -> Option<SuspendedLease> {
        let lease = self.leases.first().filter(|_| self.can_suspend())?;
        Some(SuspendedLease {
            token: lease.token,
            told: lease.told,
            unconfirmed: lease.unconfirmed.as_slice().into(),
            since: lease.since?,
            expires: lease.expires,
            seen: lease.seen,
            client: lease.client,
        })
    }

    /// Restores the lock from its rows and lets its lease go on as `memory` says. If `memory` is of another
    /// lease than the stored one, it is ignored: the stored lease gets its full TTL from `now` on, so that it
    /// cannot end early.
    pub fn resume(
        options: ResourceOptions,
        rows: LockRows,
        terms: &Terms,
        now: Now,
        memory: &SuspendedLease,
    ) -> LockState {
        let mut state = LockState::restore(options, rows, terms, now, now.mono);
        state.leases.change(memory.token, |lease| {
            lease.told = memory.told;
            lease.unconfirmed = memory.unconfirmed.to_vec();
            lease.since = Some(memory.since);
            lease.expires = memory.expires;
            lease.seen = memory.seen;
            lease.client = memory.client;
        });
        state
    }
}
