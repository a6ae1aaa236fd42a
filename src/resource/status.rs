//! The status of a live resource: how many requests wait, since when, and since when the lock is held.
//!
//! The actor writes three atomic numbers after each step; the registry reads them for listings and counts. So a
//! listing needs no message per resource, and the cost for each lock is very small.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::lock::WallMillis;
use crate::store::{ListOrder, ListQuery};

/// A [`ResourceStatus`] that one actor writes and the registry reads.
#[derive(Debug, Default)]
pub struct StatusCell {
    waiting: AtomicUsize,
    /// Since when the first waiter waits, by the wall clock; 0: not known, or nobody waits.
    waits_since: AtomicU64,
    /// `ABSENT`, `FREE`, `RESERVED`, or since when the lock is held, by the wall clock.
    lock: AtomicU64,
}

const ABSENT: u64 = 0;
const FREE: u64 = 1;
const RESERVED: u64 = 2;

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

impl StatusCell {
    /// No resource of this name exists.
    pub fn show_absent(&self) {
        self.lock.store(ABSENT, Ordering::Relaxed);
    }

    pub fn show(&self, status: ResourceStatus) {
        let lock = match status.held_since {
            Some(since) => since.max(RESERVED + 1),
            None if status.locked => RESERVED,
            None => FREE,
        };
        self.waiting.store(status.waiting, Ordering::Relaxed);
        let waits_since = status.waits_since.unwrap_or_default();
        self.waits_since.store(waits_since, Ordering::Relaxed);
        self.lock.store(lock, Ordering::Relaxed);
    }

    /// `None`: no resource of this name exists.
    pub fn read(&self) -> Option<ResourceStatus> {
        let lock = self.lock.load(Ordering::Relaxed);
        (lock != ABSENT).then(|| ResourceStatus {
            waiting: self.waiting.load(Ordering::Relaxed),
            waits_since: Some(self.waits_since.load(Ordering::Relaxed)).filter(|since| *since > 0),
            locked: lock != FREE,
            held_since: (lock > RESERVED).then_some(lock),
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_as_it_was_shown() {
        let cell = StatusCell::default();
        assert_eq!(cell.read(), None);
        let free = ResourceStatus {
            waiting: 0,
            waits_since: None,
            locked: false,
            held_since: None,
        };
        let reserved = ResourceStatus {
            waiting: 2,
            waits_since: Some(1_600_000_000_000),
            locked: true,
            held_since: None,
        };
        let held = ResourceStatus {
            waiting: 1,
            waits_since: None,
            locked: true,
            held_since: Some(1_700_000_000_000),
        };
        for status in [free, reserved, held] {
            cell.show(status);
            assert_eq!(cell.read(), Some(status));
        }
        cell.show_absent();
        assert_eq!(cell.read(), None);
    }

    #[test]
    fn the_longest_held_and_the_most_waited_for_come_first() {
        let status = |waiting, held_since| ResourceStatus {
            waiting,
            waits_since: None,
            locked: true,
            held_since,
        };
        let rank = |status: ResourceStatus, order| status.rank(order);
        assert!(
            rank(status(0, Some(5)), ListOrder::Held) < rank(status(0, Some(6)), ListOrder::Held)
        );
        assert!(rank(status(0, Some(6)), ListOrder::Held) < rank(status(9, None), ListOrder::Held));
        assert!(
            rank(status(9, None), ListOrder::Waiting) < rank(status(8, None), ListOrder::Waiting)
        );
    }
}
