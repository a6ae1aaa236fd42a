//! What this process knows of one lease: until when it is certainly ours, and whether it has ended.

use std::time::Duration;

use tokio::sync::watch;

use crate::clock::{BootTime, reached};
use crate::error::{LossReason, Lost};

/// One lease, shared between its guard and the task that renews it.
pub(crate) struct Lease {
    pub(crate) name: String,
    pub(crate) ticket: String,
    pub(crate) fencing_token: u64,
    /// What was asked for; each renewal asks for it again.
    pub(crate) ttl: Duration,
    /// How long before the lease can end it counts as lost.
    pub(crate) margin: Duration,
    state: watch::Sender<LeaseState>,
}

#[derive(Clone, Debug)]
pub(crate) struct LeaseState {
    /// Nobody else can hold the lock before this moment. `None`: the lease does not expire.
    pub(crate) deadline: Option<BootTime>,
    /// When it should be renewed.
    pub(crate) renew_at: Option<BootTime>,
    /// How often it was renewed.
    pub(crate) renewals: u64,
    /// Once set, for ever.
    pub(crate) ended: Option<LossReason>,
}

/// What a request that was sent then, and answered with this ttl, is worth.
fn state(sent: BootTime, waited: Duration, ttl: Duration, asked: Duration) -> LeaseState {
    let expires = !ttl.is_zero();
    // The clocks of two machines run apart by less than a hundredth, and both times are by the server's.
    let deadline = sent + (waited + ttl).mul_f64(0.99);
    // A server that bounds the life of leases tells less and less: not a request for each millisecond of it.
    let pause = (ttl / 3).max(asked / 30);
    LeaseState {
        deadline: expires.then_some(deadline),
        renew_at: expires.then_some(sent + waited + pause),
        renewals: 0,
        ended: None,
    }
}

impl Lease {
    /// A lease that was granted in answer to the request that was `sent` then and had waited for `waited`.
    pub(crate) fn new(
        (name, ticket, fencing_token): (String, String, u64),
        (sent, waited): (BootTime, Duration),
        granted_ttl: Duration,
        (ttl, margin): (Duration, Duration),
    ) -> Lease {
        let state = state(sent, waited, granted_ttl, ttl);
        Lease {
            name,
            ticket,
            fencing_token,
            ttl,
            margin,
            state: watch::Sender::new(state),
        }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<LeaseState> {
        self.state.subscribe()
    }

    pub(crate) fn deadline(&self) -> Option<BootTime> {
        self.state.borrow().deadline
    }

    /// When it counts as lost unless it is renewed before.
    pub(crate) fn lost_at(&self) -> Option<BootTime> {
        Some(self.deadline()? - self.margin)
    }

    pub(crate) fn renew_at(&self) -> Option<BootTime> {
        self.state.borrow().renew_at
    }

    /// The clock is asked each time: a process that was stopped finds out here, before any timer of its own ran.
    pub(crate) fn check(&self) -> Result<(), Lost> {
        let passed = self.lost_at().is_some_and(BootTime::has_passed);
        if passed {
            self.end(LossReason::NotRenewed);
        }
        match &self.state.borrow().ended {
            None => Ok(()),
            Some(reason) => Err(self.lost(reason.clone())),
        }
    }

    pub(crate) fn lost(&self, reason: LossReason) -> Lost {
        Lost {
            name: self.name.clone(),
            reason,
        }
    }

    /// Ends it, unless it has ended already: the first reason stays.
    pub(crate) fn end(&self, reason: LossReason) {
        self.state.send_if_modified(|state| {
            let first = state.ended.is_none();
            state.ended.get_or_insert(reason);
            first
        });
    }

    /// A renewal that was sent then was answered with this ttl. What was lost before stays lost.
    pub(crate) fn renewed(&self, sent: BootTime, ttl: Duration) {
        if self.check().is_err() {
            return;
        }
        let fresh = state(sent, Duration::ZERO, ttl, self.ttl);
        self.state.send_modify(|state| {
            // An answer that was overtaken by a later one takes nothing away.
            let later = match (state.deadline, fresh.deadline) {
                (Some(known), Some(new)) => Some(known.max(new)),
                (_, new) => new,
            };
            state.deadline = later;
            state.renew_at = fresh.renew_at;
            state.renewals += 1;
        });
    }

    /// Resolves once it has ended or can end soon.
    pub(crate) async fn until_lost(&self) -> Lost {
        let mut changes = self.watch();
        loop {
            changes.mark_unchanged();
            if let Err(lost) = self.check() {
                return lost;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = reached(self.lost_at()) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    fn lease(sent: BootTime, waited: Duration, granted: Duration) -> Lease {
        let named = ("a".to_owned(), "ticket".to_owned(), 7);
        Lease::new(
            named,
            (sent, waited),
            granted,
            (TTL, Duration::from_secs(1)),
        )
    }

    #[test]
    fn the_deadline_counts_from_the_sending_plus_the_wait_less_a_hundredth() {
        let sent = BootTime::now();
        let lease = lease(sent, Duration::from_secs(20), TTL);
        assert_eq!(lease.deadline(), Some(sent + Duration::from_millis(49_500)));
        assert_eq!(lease.lost_at(), Some(sent + Duration::from_millis(48_500)));
        assert_eq!(lease.renew_at(), Some(sent + TTL));
    }

    #[test]
    fn what_the_server_says_counts_and_not_what_was_asked() {
        let sent = BootTime::now();
        let lease = lease(sent, Duration::ZERO, Duration::from_secs(10));
        assert_eq!(lease.deadline(), Some(sent + Duration::from_millis(9_900)));
    }

    #[test]
    fn a_loss_is_final_whatever_is_answered_later() {
        let long_ago = BootTime::now() - TTL;
        let lease = lease(long_ago, Duration::ZERO, TTL);
        assert_eq!(lease.check().unwrap_err().reason, LossReason::NotRenewed);
        lease.renewed(BootTime::now(), TTL);
        lease.end(LossReason::Expired);
        assert_eq!(lease.check().unwrap_err().reason, LossReason::NotRenewed);
    }

    #[test]
    fn a_renewal_never_makes_the_deadline_earlier() {
        let sent = BootTime::now();
        let lease = lease(sent, Duration::ZERO, TTL);
        lease.renewed(sent - Duration::from_secs(5), TTL);
        assert_eq!(lease.deadline(), Some(sent + Duration::from_millis(29_700)));
        lease.renewed(sent + Duration::from_secs(5), TTL);
        assert_eq!(lease.deadline(), Some(sent + Duration::from_millis(34_700)));
    }

    #[test]
    fn the_last_of_a_bounded_life_is_not_asked_for_again_and_again() {
        let sent = BootTime::now();
        let lease = lease(sent, Duration::ZERO, Duration::from_millis(30));
        assert_eq!(lease.renew_at(), Some(sent + TTL / 30));
    }
}
