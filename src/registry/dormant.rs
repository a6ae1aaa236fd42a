//! The dormant leases: what is kept of held resources without an actor, enough for their leases to go on.
//!
//! Neighbours: a resource actor that retires while its lease runs leaves a [`DormantLease`]. The registry keeps it and
//! gives it to the next actor of the name, which starts with the next request or when the lease ends.

use std::collections::{BTreeSet, HashMap};

use crate::lock::{Millis, ResourceName};
use crate::resource::status::ResourceStatus;
use crate::shared::dormant::DormantLease;
use crate::store::shrink::shrink_if_sparse;

/// All dormant leases, by name and by the time when they end.
#[derive(Default)]
pub struct DormantLeases {
    by_name: HashMap<ResourceName, DormantLease>,
    deadlines: BTreeSet<(Millis, ResourceName)>,
}

impl DormantLeases {
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn insert(&mut self, name: ResourceName, dormant: DormantLease) {
        self.remove(&name);
        let deadline = dormant.lease.deadline();
        self.deadlines.extend(deadline.map(|at| (at, name.clone())));
        self.by_name.insert(name, dormant);
    }

    pub fn get(&self, name: &ResourceName) -> Option<&DormantLease> {
        self.by_name.get(name)
    }

    pub fn remove(&mut self, name: &ResourceName) -> Option<DormantLease> {
        let dormant = self.by_name.remove(name)?;
        if let Some(at) = dormant.lease.deadline() {
            self.deadlines.remove(&(at, name.clone()));
        }
        shrink_if_sparse(&mut self.by_name);
        Some(dormant)
    }

    /// Drops the leases of all names but those that `keeps` accepts.
    pub fn retain(&mut self, keeps: impl Fn(&ResourceName) -> bool) {
        self.by_name.retain(|name, _| keeps(name));
        self.deadlines.retain(|(_, name)| keeps(name));
        shrink_if_sparse(&mut self.by_name);
    }

    /// The name of the first lease that is over at `now`.
    pub fn due(&self, now: Millis) -> Option<ResourceName> {
        let (at, name) = self.deadlines.first()?;
        (*at <= now).then(|| name.clone())
    }

    pub fn statuses(&self) -> impl Iterator<Item = (&ResourceName, ResourceStatus)> {
        self.by_name
            .iter()
            .map(|(name, dormant)| (name, dormant.status()))
    }
}
