//! What a live resource shows of itself without being asked: how many wait, and since when it is held.
//!
//! Its actor writes two numbers after each step; the registry reads them when somebody asks which locks
//! are stuck. So that question costs no message per resource, and locking costs next to nothing for it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::lock::WallMillis;
use crate::store::{ListOrder, ListQuery};

/// Written by one actor, read by the registry.
#[derive(Debug, Default)]
pub struct Board {
    waiting: AtomicUsize,
    lock: AtomicU64,
}

const ABSENT: u64 = 0;
const FREE: u64 = 1;
const RESERVED: u64 = 2;

/// What a board says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    pub waiting: usize,
    /// Held, or reserved for a waiter.
    pub locked: bool,
    pub held_since: Option<WallMillis>,
}

impl Board {
    /// Nothing of this name exists.
    pub fn show_absent(&self) {
        self.lock.store(ABSENT, Ordering::Relaxed);
    }

    pub fn show(&self, sight: Sight) {
        let lock = match sight.held_since {
            Some(since) => since.max(RESERVED + 1),
            None if sight.locked => RESERVED,
            None => FREE,
        };
        self.waiting.store(sight.waiting, Ordering::Relaxed);
        self.lock.store(lock, Ordering::Relaxed);
    }

    pub fn read(&self) -> Option<Sight> {
        let lock = self.lock.load(Ordering::Relaxed);
        (lock != ABSENT).then(|| Sight {
            waiting: self.waiting.load(Ordering::Relaxed),
            locked: lock != FREE,
            held_since: (lock > RESERVED).then_some(lock),
        })
    }
}

impl Sight {
    pub fn is_wanted(&self, query: &ListQuery) -> bool {
        query.held.is_none_or(|held| held == self.locked)
    }

    /// Where it stands in the order of the query; the smallest comes first, equal ones go by name.
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
    fn a_board_says_what_it_was_told() {
        let board = Board::default();
        assert_eq!(board.read(), None);
        let free = Sight {
            waiting: 0,
            locked: false,
            held_since: None,
        };
        let reserved = Sight {
            waiting: 2,
            locked: true,
            held_since: None,
        };
        let held = Sight {
            waiting: 1,
            locked: true,
            held_since: Some(1_700_000_000_000),
        };
        for sight in [free, reserved, held] {
            board.show(sight);
            assert_eq!(board.read(), Some(sight));
        }
        board.show_absent();
        assert_eq!(board.read(), None);
    }

    #[test]
    fn the_longest_held_and_the_most_waited_for_come_first() {
        let sight = |waiting, held_since| Sight {
            waiting,
            locked: true,
            held_since,
        };
        let rank = |sight: Sight, order| sight.rank(order);
        assert!(
            rank(sight(0, Some(5)), ListOrder::Held) < rank(sight(0, Some(6)), ListOrder::Held)
        );
        assert!(rank(sight(0, Some(6)), ListOrder::Held) < rank(sight(9, None), ListOrder::Held));
        assert!(
            rank(sight(9, None), ListOrder::Waiting) < rank(sight(8, None), ListOrder::Waiting)
        );
    }
}
