//! How much is held and waited for, counted without a message to each resource.

use actix::Message;
use serde::{Deserialize, Serialize};

use crate::lock::{ResourceName, WallMillis};
use crate::resource::status::ResourceStatus;

/// To the registry: count what live and dormant resources show of themselves, of the names with this prefix.
#[derive(Message)]
#[rtype(result = "Tally")]
pub struct CountLocks {
    pub prefix: String,
}

/// How much is held and waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Resources that are held.
    pub held: usize,
    /// Resources that are reserved for a waiter.
    pub reserved: usize,
    /// Tickets that wait.
    pub waiting: usize,
    /// The one whose first has waited longest, and since when.
    pub oldest_wait: Option<(WallMillis, ResourceName)>,
    /// Leases granted since the start, of whatever name.
    pub grants: u64,
}

/// Takes time in proportion to their number.
pub fn tally<'a>(
    live: impl Iterator<Item = (&'a ResourceName, ResourceStatus)>,
    asked: &CountLocks,
) -> Tally {
    let mut tally = Tally::default();
    for (name, status) in live.filter(|(name, _)| name.as_str().starts_with(&asked.prefix)) {
        tally.held += usize::from(status.held_since.is_some());
        tally.reserved += usize::from(status.locked && status.held_since.is_none());
        tally.waiting += status.waiting;
        if let Some(since) = status.waits_since {
            let known = tally.oldest_wait.as_ref();
            if known.is_none_or(|(oldest, _)| since < *oldest) {
                tally.oldest_wait = Some((since, name.clone()));
            }
        }
    }
    tally
}

impl Tally {
    /// With what was counted of other names, later.
    pub fn and(mut self, other: Tally) -> Tally {
        self.held += other.held;
        self.reserved += other.reserved;
        self.waiting += other.waiting;
        let oldest = self.oldest_wait.into_iter().chain(other.oldest_wait);
        self.oldest_wait = oldest.min();
        self.grants = other.grants;
        self
    }

    /// With what another instance counted, of its names.
    pub fn beside(self, other: Tally) -> Tally {
        let grants = self.grants + other.grants;
        Tally {
            grants,
            ..self.and(other)
        }
    }
}
