//! What a grant and the end of a lease count.

use prometheus::{IntCounter, IntGauge};

use super::Metrics;
use crate::lock::Millis;
use crate::store::history::LeaseEnd;

impl Metrics {
    pub fn granted(&self, waited: Millis) {
        self.lock_grants_total.mine().inc();
        self.lock_wait_seconds.mine().observe(seconds(waited));
    }

    /// Number of grants since the start, promotions included.
    pub fn grants(&self) -> u64 {
        self.lock_grants_total.all().map(IntCounter::get).sum()
    }

    /// Counts the end of a lease.
    pub fn ended(&self, end: LeaseEnd, held: Millis) {
        self.lock_ends_total[end as usize].mine().inc();
        self.lock_held_seconds.mine().observe(seconds(held));
    }

    /// Number of held locks of live actors and of dormant resources.
    pub fn held(&self) -> i64 {
        self.locks_held.all().map(IntGauge::get).sum()
    }
}

fn seconds(millis: Millis) -> f64 {
    millis as f64 / 1e3
}
