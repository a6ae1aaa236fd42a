//! What became of locks, counted with every grant and every release.

use prometheus::{Histogram, IntCounter, IntGauge};

use super::maker::Maker;
use crate::lock::{EndReason, Millis};

/// Upper bounds in seconds, from one millisecond (the actors' clock counts those) to what only a forgotten
/// lock reaches.
const WAIT_SECONDS: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];
const HELD_SECONDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0,
    14_400.0, 86_400.0,
];

/// See the module.
pub struct LockMetrics {
    grants: IntCounter,
    wait_seconds: Histogram,
    held_seconds: Histogram,
    released: IntCounter,
    expired: IntCounter,
    forced_off: IntCounter,
    deleted: IntCounter,
    taken_back: IntCounter,
    waiters_dropped: IntCounter,
    held: IntGauge,
    stored_inline: IntCounter,
}

impl LockMetrics {
    pub(super) fn new(make: &Maker<'_>) -> LockMetrics {
        let ends = make.counters(
            "lock_ends_total",
            "Leases that ended, by reason.",
            &["reason"],
        );
        let end = |reason| ends.with_label_values(&[reason]);
        LockMetrics {
            grants: make.counter("lock_grants_total", "Leases granted."),
            wait_seconds: make.histogram(
                "lock_wait_seconds",
                "From the first request of a ticket to its lease; 0 where the lock was free.",
                WAIT_SECONDS,
            ),
            held_seconds: make.histogram(
                "lock_held_seconds",
                "From a lease's grant to its end.",
                HELD_SECONDS,
            ),
            released: end("released"),
            expired: end("expired"),
            forced_off: end("forced_off"),
            deleted: end("deleted"),
            taken_back: make.counter(
                "lock_grants_taken_back_total",
                "Grants whose client was gone before it was told.",
            ),
            waiters_dropped: make.counter(
                "waiters_dropped_total",
                "Waiting tickets that were not presented for TICKET_TTL_SECONDS.",
            ),
            held: make.gauge("locks_held", "Leases that resources in memory know of."),
            stored_inline: make.counter(
                "commits_inline_total",
                "Changes stored without a transaction of their own (memory store).",
            ),
        }
    }

    pub fn granted(&self, waited: Millis) {
        self.grants.inc();
        self.wait_seconds.observe(seconds(waited));
    }

    /// Leases granted since the start.
    pub fn grants(&self) -> u64 {
        self.grants.get()
    }

    pub fn ended(&self, reason: EndReason, held: Millis) {
        let ends = match reason {
            EndReason::Released => &self.released,
            EndReason::Expired => &self.expired,
            EndReason::ForcedOff => &self.forced_off,
        };
        ends.inc();
        self.held_seconds.observe(seconds(held));
    }

    /// The resource was deleted by its holder.
    pub fn deleted(&self, held: Millis) {
        self.deleted.inc();
        self.held_seconds.observe(seconds(held));
    }

    pub fn taken_back(&self) {
        self.taken_back.inc();
    }

    pub fn waiter_dropped(&self) {
        self.waiters_dropped.inc();
    }

    /// One more lease that a live actor knows of.
    pub fn holds(&self) {
        self.held.inc();
    }

    /// One less.
    pub fn holds_no_more(&self) {
        self.held.dec();
    }

    /// Leases that live actors know of, and those of dormant resources.
    pub fn held(&self) -> i64 {
        self.held.get()
    }

    /// A commit that needed no batch, because the store never waits.
    pub fn stored_inline(&self) {
        self.stored_inline.inc();
    }
}

fn seconds(millis: Millis) -> f64 {
    millis as f64 / 1e3
}
