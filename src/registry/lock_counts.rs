//! Counts held locks and waiters by the status of the resources, without a message to each.

use serde::{Deserialize, Serialize};

use crate::lock::{ResourceName, WallMillis};
use crate::resource::status::ResourceStatus;

/// Counts of held locks and waiters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockCounts {
    /// Resources that are held.
    pub held: usize,
    /// Resources that are reserved for a waiter or in their lock-delay.
    pub reserved: usize,
    /// Waiters of these resources.
    pub waiting: usize,
    /// The resource whose first waiter has waited longest, and since when.
    pub oldest_wait: Option<(WallMillis, ResourceName)>,
    /// Leases of all names, whatever the prefix, granted since the process started.
    pub grants: u64,
}

/// Counts the resources whose names have this prefix. `live`: all live and dormant resources.
pub fn count<'a>(
    live: impl Iterator<Item = (&'a ResourceName, ResourceStatus)>,
    prefix: &str,
) -> LockCounts {
    let mut counts = LockCounts::default();
    for (name, status) in live.filter(|(name, _)| name.as_str().starts_with(prefix)) {
        counts.held += usize::from(status.held_since.is_some());
        counts.reserved += usize::from(status.locked && status.held_since.is_none());
        counts.waiting += status.waiting;
        if let Some(since) = status.waits_since {
            let known = counts.oldest_wait.as_ref();
            if known.is_none_or(|(oldest, _)| since < *oldest) {
                counts.oldest_wait = Some((since, name.clone()));
            }
        }
    }
    counts
}

impl LockCounts {
    /// Adds the counts of other names of the same instances. `other` was counted later, so its `grants` are taken.
    pub fn and(mut self, other: LockCounts) -> LockCounts {
        self.held += other.held;
        self.reserved += other.reserved;
        self.waiting += other.waiting;
        let oldest = self.oldest_wait.into_iter().chain(other.oldest_wait);
        self.oldest_wait = oldest.min();
        self.grants = other.grants;
        self
    }

    /// Adds the counts of another instance, `grants` included.
    pub fn beside(self, other: LockCounts) -> LockCounts {
        let grants = self.grants + other.grants;
        LockCounts {
            grants,
            ..self.and(other)
        }
    }
}
