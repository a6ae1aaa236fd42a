//! What is kept of held resources that nobody has used for a while: enough for their leases to go on.
//!
//! Neighbours: a resource actor that retires under a lease leaves a [`Sleeper`]; the registry keeps it, and
//! gives it to the next actor of that name, when somebody asks for it or the lease is over.

use std::collections::{BTreeSet, HashMap};

use crate::lock::{Millis, ResourceName};
use crate::resource::dormant::Sleeper;
use crate::resource::status::Sight;
use crate::store::shrink::shrink_if_sparse;

/// All of them, and the order in which their leases end.
#[derive(Default)]
pub struct Sleepers {
    by_name: HashMap<ResourceName, Sleeper>,
    deadlines: BTreeSet<(Millis, ResourceName)>,
}

impl Sleepers {
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn insert(&mut self, name: ResourceName, sleeper: Sleeper) {
        self.remove(&name);
        let deadline = sleeper.lease.deadline();
        self.deadlines.extend(deadline.map(|at| (at, name.clone())));
        self.by_name.insert(name, sleeper);
    }

    pub fn get(&self, name: &ResourceName) -> Option<&Sleeper> {
        self.by_name.get(name)
    }

    pub fn remove(&mut self, name: &ResourceName) -> Option<Sleeper> {
        let sleeper = self.by_name.remove(name)?;
        if let Some(at) = sleeper.lease.deadline() {
            self.deadlines.remove(&(at, name.clone()));
        }
        shrink_if_sparse(&mut self.by_name);
        Some(sleeper)
    }

    pub fn clear(&mut self) {
        *self = Sleepers::default();
    }

    /// When the first of their leases is over.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The name of the first lease that is over at `now`.
    pub fn due(&self, now: Millis) -> Option<ResourceName> {
        let (at, name) = self.deadlines.first()?;
        (*at <= now).then(|| name.clone())
    }

    pub fn sights(&self) -> impl Iterator<Item = (&ResourceName, Sight)> {
        self.by_name
            .iter()
            .map(|(name, sleeper)| (name, sleeper.sight()))
    }
}
