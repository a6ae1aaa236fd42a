//! The status of a live resource: how many requests wait, since when, and since when the lock is held.
//!
//! The actor writes it after each step; the registry reads it, so a listing needs no message per resource.

use parking_lot::Mutex;

use crate::lock::WallMillis;
use crate::shared::dormant::DormantLease;
use crate::store::{ListOrder, ListQuery};

/// The status that one actor writes and the registry reads. `None`: no resource of this name exists.
pub type StatusCell = Mutex<Option<ResourceStatus>>;

/// What listings see of a live resource without asking its actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceStatus {
    pub waiting: usize,
    /// Since when the first waiter waits. `None`: not known, or nobody waits.
    pub waits_since: Option<WallMillis>,
    /// Held, reserved for a waiter, or in its lock-delay.
    pub locked: bool,
    pub held_since: Option<WallMillis>,
}

impl DormantLease {
    pub fn status(&self) -> ResourceStatus {
        ResourceStatus {
            waiting: 0,
            waits_since: None,
            locked: true,
            held_since: self.held.get(),
        }
    }
}

impl ResourceStatus {
    /// Whether the resource passes the filters `held` and `reserved` of the query.
    pub fn is_wanted(&self, query: &ListQuery) -> bool {
        let is_reserved = self.locked && self.held_since.is_none();
        query.held.is_none_or(|held| held == self.locked)
            && query
                .reserved
                .is_none_or(|reserved| reserved == is_reserved)
    }

    /// The sort key of the resource in this order: the smallest comes first, equal ones are ordered by name.
    pub fn rank(&self, order: ListOrder) -> u64 {
        match order {
            ListOrder::Name => 0,
            ListOrder::Waiting => u64::MAX - self.waiting as u64,
            ListOrder::Held => self.held_since.unwrap_or(u64::MAX),
        }
    }
}
