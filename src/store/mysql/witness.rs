//! What this process knows to have been committed, held against the database when it is opened again: one
//! that lost acknowledged commits (an asynchronous failover, a crash with a lax flush, a restored dump) must
//! not give out the same fencing tokens again.

use super::fence::Tenure;
use crate::lock::FencingToken;
use crate::store::InstanceId;
use crate::store::members::Members;
use crate::store::snapshot::Snapshot;

/// An instance that this process was, as it knows it to be in the database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Former {
    pub tenure: Tenure,
    /// Its last row in its log that was acknowledged, if any was.
    pub last: Option<u64>,
    /// The highest of its heartbeats that was acknowledged.
    pub heartbeat: u64,
}

#[derive(Debug, Default)]
pub(super) struct Witness {
    /// The newest that `resource_server` has had.
    epoch: u64,
    /// The last is the one that this process is, or was until it lost the database. Those before it have left something.
    instances: Vec<Former>,
    /// The highest that this process has committed or read.
    token: u64,
    /// Nobody has changed who owns what since this process last looked.
    is_unchanged: bool,
    has_lost: bool,
}

impl Witness {
    pub fn sees_token(&mut self, token: FencingToken) {
        self.token = self.token.max(token.0);
    }

    pub fn committed(&mut self, batch: &[Snapshot]) {
        for snapshot in batch {
            let head = snapshot.lock.head.as_ref().map(|head| head.token);
            let tokens = head.into_iter().chain(snapshot.token_floor);
            tokens.for_each(|token| self.sees_token(token));
        }
    }

    /// A transaction that makes this process that instance may land from now on.
    pub fn may_become(&mut self, tenure: Tenure) {
        self.instances.push(Former {
            tenure,
            last: None,
            heartbeat: 0,
        });
    }

    /// It is in the database.
    pub fn is(&mut self, tenure: Tenure) {
        for instance in self
            .instances
            .iter_mut()
            .filter(|former| former.tenure.id == tenure.id)
        {
            instance.tenure = tenure;
            instance.last = Some(1);
        }
    }

    /// It has lost the database, after this row of its log.
    pub fn ends(&mut self, last: u64) {
        if let Some(now) = self.instances.last_mut() {
            now.last = now.last.map(|_| last);
        }
    }

    pub fn heartbeat_acknowledged(&mut self, heartbeat: u64) {
        if let Some(now) = self.instances.last_mut() {
            now.heartbeat = now.heartbeat.max(heartbeat);
        }
    }

    pub fn sees_epoch(&mut self, epoch: u64) {
        self.epoch = self.epoch.max(epoch);
    }

    /// This process makes the epoch that follows on this one.
    pub fn comes_after(&mut self, epoch: u64) {
        self.has_lost |= epoch < self.epoch;
        self.is_unchanged = epoch <= self.epoch;
        self.epoch = epoch + 1;
    }

    /// What this process was before what it is.
    pub fn former(&self, me: Option<&InstanceId>) -> impl Iterator<Item = Former> {
        let is_former = move |former: &&Former| Some(&former.tenure.id) != me;
        self.instances.iter().filter(is_former).copied()
    }

    /// An instance is taken over from: its log ended before this row, and it had this heartbeat.
    pub fn finds(&mut self, id: &InstanceId, seal: u64, heartbeat: u64) {
        let mut former = self.instances.iter().filter(|one| one.tenure.id == *id);
        self.has_lost |= former.any(|former| {
            former.last.is_some_and(|last| seal <= last) || heartbeat < former.heartbeat
        });
    }

    /// None that this process was is missing, unless somebody took over from it, which makes another epoch.
    pub fn sees_members(&mut self, members: &Members) {
        let is_missing =
            |one: &Former| one.last.is_some() && members.member(one.tenure.id).is_none();
        self.has_lost |= self.is_unchanged && self.instances.iter().any(is_missing);
    }

    /// It has left nothing any more.
    pub fn took_over(&mut self, id: &InstanceId) {
        self.instances.retain(|instance| instance.tenure.id != *id);
    }

    /// Only this one counts from now on. Above which token it has to go on, if something was lost.
    pub fn settles(&mut self, me: &InstanceId) -> Option<FencingToken> {
        self.instances.retain(|instance| instance.tenure.id == *me);
        std::mem::take(&mut self.has_lost).then_some(FencingToken(self.token))
    }
}
