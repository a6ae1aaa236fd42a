//! Metrics of locks, updated with every grant and every end of a lease.

use prometheus::{Histogram, IntCounter, IntGauge};

use super::factory::{MetricFactory, histogram_options, options};
use super::per_thread::PerThread;
use crate::lock::Millis;
use crate::store::history::LeaseEnd;

/// Upper bounds in seconds: from one millisecond, the resolution of the actors' clock, to what only a forgotten
/// lock reaches.
const WAIT_SECONDS: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];
const HELD_SECONDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0,
    14_400.0, 86_400.0,
];

/// Metrics of locks.
pub struct LockMetrics {
    grants: PerThread<IntCounter>,
    wait_seconds: PerThread<Histogram>,
    held_seconds: PerThread<Histogram>,
    /// By [`LeaseEnd`].
    ends: [PerThread<IntCounter>; 4],
    pub taken_back: IntCounter,
    pub waiters_dropped: IntCounter,
    /// Held locks of resources in memory, live or dormant.
    pub held: PerThread<IntGauge>,
    /// Commits without a batch, by a store that never waits.
    pub stored_inline: PerThread<IntCounter>,
}

impl LockMetrics {
    pub(super) fn new(make: &MetricFactory<'_>) -> LockMetrics {
        let counter = |name, help| make.per_thread(|| IntCounter::with_opts(options(name, help)));
        let histogram = |name, help, buckets| {
            make.per_thread(|| Histogram::with_opts(histogram_options(name, help, buckets)))
        };
        let end = |end: LeaseEnd| {
            let ends = options("lock_ends_total", "Leases that ended, by reason.");
            let ends = ends.const_label("reason", end.name());
            make.per_thread(|| IntCounter::with_opts(ends.clone()))
        };
        LockMetrics {
            grants: counter(
                "lock_grants_total",
                "Leases granted, and leases promoted: each time a fencing token was given out.",
            ),
            wait_seconds: histogram(
                "lock_wait_seconds",
                "Time from the first request of a ticket to its lease; 0 if the lock was free.",
                WAIT_SECONDS,
            ),
            held_seconds: histogram(
                "lock_held_seconds",
                "Time from the grant of a lease to its end.",
                HELD_SECONDS,
            ),
            ends: LeaseEnd::ALL.map(end),
            taken_back: make.counter(
                "lock_grants_taken_back_total",
                "Grants whose client was gone before it got the answer.",
            ),
            waiters_dropped: make.counter(
                "waiters_dropped_total",
                "Waiting tickets dropped after TICKET_TTL_SECONDS without being presented.",
            ),
            held: make.per_thread(|| {
                let help = "Held locks of the resources in memory.";
                IntGauge::with_opts(options("locks_held", help))
            }),
            stored_inline: counter(
                "commits_inline_total",
                "Changes stored without a transaction of their own (memory store).",
            ),
        }
    }

    pub fn granted(&self, waited: Millis) {
        self.grants.mine().inc();
        self.wait_seconds.mine().observe(seconds(waited));
    }

    /// Counts a promotion: a grant with a new token, of a lease that goes on. Its wait is counted already.
    pub fn promoted(&self) {
        self.grants.mine().inc();
    }

    /// Number of grants since the start, promotions included.
    pub fn grants(&self) -> u64 {
        self.grants.all().map(IntCounter::get).sum()
    }

    pub fn ended(&self, end: LeaseEnd, held: Millis) {
        self.ends[end as usize].mine().inc();
        self.held_seconds.mine().observe(seconds(held));
    }

    /// Number of held locks of live actors and of dormant resources.
    pub fn held(&self) -> i64 {
        self.held.all().map(IntGauge::get).sum()
    }
}

fn seconds(millis: Millis) -> f64 {
    millis as f64 / 1e3
}
