//! What this process knows to have been committed, compared with the database when it is opened again. A
//! database that has lost acknowledged commits (an asynchronous failover, a crash with a lax flush setting, a
//! restored dump) must not give out the same fencing tokens again.

use super::fence::Membership;
use crate::lock::FencingToken;
use crate::store::InstanceId;
use crate::store::members::Members;
use crate::store::snapshot::Snapshot;

/// An instance that this process is or was, with what the database has acknowledged to it.
#[derive(Debug)]
struct OwnInstance {
    membership: Membership,
    /// Number of the last acknowledged row of its log; `None`: not even its creation was acknowledged.
    last: Option<u64>,
    /// Its highest acknowledged heartbeat.
    heartbeat: u64,
}

#[derive(Debug, Default)]
pub(super) struct LossDetector {
    /// The highest epoch of `resource_server` that this process has read or made.
    epoch: u64,
    /// The instances that this process was and that may still have rows, oldest first. The last one is the
    /// present one, or the one that lost the database.
    instances: Vec<OwnInstance>,
    /// The highest fencing token that this process has committed or read.
    token: u64,
    /// When the database was opened, its epoch was not above the highest that this process knew: no other
    /// instance has joined, gone or moved slots since.
    is_unchanged: bool,
    /// The database has lost an acknowledged commit.
    has_lost: bool,
}

impl LossDetector {
    pub fn note_token(&mut self, token: FencingToken) {
        self.token = self.token.max(token.0);
    }

    pub fn committed(&mut self, batch: &[Snapshot]) {
        for snapshot in batch {
            let head = snapshot.lock.head.as_ref().map(|head| head.token);
            let tokens = head.into_iter().chain(snapshot.token_floor);
            tokens.for_each(|token| self.note_token(token));
        }
    }

    /// To be called before the transaction that creates this instance is sent: from then on it may be
    /// committed.
    pub fn will_create(&mut self, membership: Membership) {
        self.instances.push(OwnInstance {
            membership,
            last: None,
            heartbeat: 0,
        });
    }

    /// The creation of this instance was acknowledged, or its epoch has changed.
    pub fn confirm_created(&mut self, membership: Membership) {
        let mut all = self.instances.iter_mut();
        if let Some(created) = all.find(|one| one.membership.id == membership.id) {
            created.membership = membership;
            created.last = Some(1);
        }
    }

    /// A row of the present instance's log was acknowledged; `last` is its number.
    pub fn note_last_row(&mut self, last: u64) {
        if let Some(now) = self.instances.last_mut() {
            now.last = now.last.map(|_| last);
        }
    }

    pub fn heartbeat_acknowledged(&mut self, heartbeat: u64) {
        if let Some(now) = self.instances.last_mut() {
            now.heartbeat = now.heartbeat.max(heartbeat);
        }
    }

    pub fn note_epoch(&mut self, epoch: u64) {
        self.epoch = self.epoch.max(epoch);
    }

    /// This process has made this epoch. If it is one that was seen, or below one, the database has lost
    /// commits.
    pub fn note_own_epoch(&mut self, epoch: u64) {
        self.has_lost |= epoch <= self.epoch;
        self.is_unchanged = epoch <= self.epoch + 1;
        self.epoch = epoch;
    }

    /// The instances that this process is or was, and that may still have rows.
    pub fn memberships(&self) -> impl Iterator<Item = Membership> {
        self.instances.iter().map(|instance| instance.membership)
    }

    /// Compares an instance that was just sealed with what was acknowledged to it, if it is one that this
    /// process was. `seal`: number of the seal in its log.
    pub fn check_sealed(&mut self, id: &InstanceId, seal: u64, heartbeat: u64) {
        let mut former = self.instances.iter().filter(|one| one.membership.id == *id);
        self.has_lost |= former.any(|former| {
            former.last.is_some_and(|last| seal <= last) || heartbeat < former.heartbeat
        });
    }

    /// No instance that this process was may be missing while the epoch is unchanged: taking over from it would
    /// have made another epoch.
    pub fn check_members(&mut self, members: &Members) {
        let is_missing =
            |one: &OwnInstance| one.last.is_some() && members.member(one.membership.id).is_none();
        self.has_lost |= self.is_unchanged && self.instances.iter().any(is_missing);
    }

    /// Forgets an instance whose take-over is complete, or whose row this process has deleted.
    pub fn forget(&mut self, id: &InstanceId) {
        self.instances
            .retain(|instance| instance.membership.id != *id);
    }

    /// Forgets all instances but `me`. Returns the token above which to go on, if the database has lost
    /// something, until [`Self::raised`] says that this is committed.
    pub fn reset_to(&mut self, me: &InstanceId) -> Option<FencingToken> {
        self.instances
            .retain(|instance| instance.membership.id == *me);
        self.has_lost.then_some(FencingToken(self.token))
    }

    /// Fencing tokens go on above all that were lost.
    pub fn raised(&mut self) {
        self.has_lost = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_until_the_tokens_are_raised() {
        let mut detector = LossDetector::default();
        detector.note_token(FencingToken(7));
        detector.note_epoch(5);
        detector.note_own_epoch(3);
        let me = InstanceId::default();
        // The commit that raises them may fail, and the database is opened again.
        assert_eq!(detector.reset_to(&me), Some(FencingToken(7)));
        assert_eq!(detector.reset_to(&me), Some(FencingToken(7)));
        detector.raised();
        assert_eq!(detector.reset_to(&me), None);
    }
}
