//! What became of locks: counted with every grant and every release, so each thread counts for itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Gauge, Metric, MetricFamily, MetricType};

use super::requests::{counter, describe, family, histogram};
use super::striped::Striped;
use crate::lock::{EndReason, Millis};

/// Upper bounds in milliseconds, from one (the actors' clock counts those) to what only a forgotten lock
/// reaches.
const WAIT_MS: [Millis; 16] = [
    1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000,
];
const HELD_MS: [Millis; 16] = [
    1, 5, 10, 50, 100, 500, 1_000, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000,
    14_400_000, 86_400_000,
];

/// How many durations ended in which bucket, and their sum.
#[derive(Default)]
struct Durations {
    counts: [AtomicU64; WAIT_MS.len() + 1],
    millis: AtomicU64,
}

impl Durations {
    fn observe(&self, bounds: &[Millis], duration: Millis) {
        let at = bounds.iter().position(|bound| duration <= *bound);
        let at = at.unwrap_or(bounds.len()).min(self.counts.len() - 1);
        add(&self.counts[at]);
        self.millis.fetch_add(duration, Ordering::Relaxed);
    }
}

/// What one thread counted.
#[derive(Default)]
struct Stripe {
    /// As many as there were grants.
    waits: Durations,
    held: Durations,
    released: AtomicU64,
    expired: AtomicU64,
    forced_off: AtomicU64,
    deleted: AtomicU64,
    taken_back: AtomicU64,
    waiters_dropped: AtomicU64,
    /// More where leases end on another thread than they began on.
    holding: AtomicI64,
    inline_commits: AtomicU64,
}

fn add(n: &AtomicU64) {
    n.fetch_add(1, Ordering::Relaxed);
}

/// See the module.
#[derive(Default)]
pub struct LockMetrics(Striped<Stripe>);

impl LockMetrics {
    pub fn granted(&self, waited: Millis) {
        self.0.mine().waits.observe(&WAIT_MS, waited);
    }

    /// Leases granted since the start.
    pub fn grants(&self) -> u64 {
        self.buckets(|stripe| &stripe.waits).iter().sum()
    }

    pub fn ended(&self, reason: EndReason, held: Millis) {
        let mine = self.0.mine();
        add(match reason {
            EndReason::Released => &mine.released,
            EndReason::Expired => &mine.expired,
            EndReason::ForcedOff => &mine.forced_off,
        });
        mine.held.observe(&HELD_MS, held);
    }

    /// The resource was deleted by its holder.
    pub fn deleted(&self, held: Millis) {
        let mine = self.0.mine();
        add(&mine.deleted);
        mine.held.observe(&HELD_MS, held);
    }

    pub fn taken_back(&self) {
        add(&self.0.mine().taken_back);
    }

    pub fn waiter_dropped(&self) {
        add(&self.0.mine().waiters_dropped);
    }

    /// One more lease that a live actor knows of.
    pub fn holds(&self) {
        self.0.mine().holding.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn holds_no_more(&self) {
        self.0.mine().holding.fetch_sub(1, Ordering::Relaxed);
    }

    /// Leases that live actors know of, and those of sleeping resources.
    pub fn held(&self) -> i64 {
        let held = self.0.all().map(|s| s.holding.load(Ordering::Relaxed));
        held.sum()
    }

    /// A commit that needed no batch, because the store never waits.
    pub fn stored_inline(&self) {
        add(&self.0.mine().inline_commits);
    }

    fn sum(&self, pick: impl Fn(&Stripe) -> &AtomicU64) -> u64 {
        let counts = self
            .0
            .all()
            .map(|stripe| pick(stripe).load(Ordering::Relaxed));
        counts.fold(0, u64::wrapping_add)
    }

    fn buckets(&self, pick: impl Fn(&Stripe) -> &Durations) -> [u64; WAIT_MS.len() + 1] {
        std::array::from_fn(|at| self.sum(|stripe| &pick(stripe).counts[at]))
    }
}

/// How [`LockMetrics`] are entered in a registry.
pub(super) struct LockCollector {
    metrics: Arc<LockMetrics>,
    descs: Vec<Desc>,
}

/// Name, help and label of each family, in the order in which they are collected.
const FAMILIES: [(&str, &str, &[&str]); 8] = [
    ("lock_grants_total", "Leases granted.", &[]),
    (
        "lock_wait_seconds",
        "From the first request of a ticket to its lease; 0 where the lock was free.",
        &[],
    ),
    ("lock_held_seconds", "From a lease's grant to its end.", &[]),
    (
        "lock_ends_total",
        "Leases that ended, by reason.",
        &["reason"],
    ),
    (
        "lock_grants_taken_back_total",
        "Grants whose client was gone before it was told.",
        &[],
    ),
    (
        "waiters_dropped_total",
        "Waiting tickets that were not presented for TICKET_TTL_SECONDS.",
        &[],
    ),
    (
        "locks_held",
        "Leases that resources in memory know of.",
        &[],
    ),
    (
        "commits_inline_total",
        "Changes stored without a transaction of their own (memory store).",
        &[],
    ),
];

impl LockCollector {
    pub fn new(metrics: Arc<LockMetrics>, prefix: &str) -> LockCollector {
        let describe = |(name, help, labels)| describe(prefix, name, help, labels);
        LockCollector {
            metrics,
            descs: FAMILIES.into_iter().map(describe).collect(),
        }
    }

    fn ends(&self) -> Vec<Metric> {
        let count = |reason, pick: fn(&Stripe) -> &AtomicU64| {
            counter(&[("reason", reason)], self.metrics.sum(pick))
        };
        vec![
            count("deleted", |stripe| &stripe.deleted),
            count("expired", |stripe| &stripe.expired),
            count("forced_off", |stripe| &stripe.forced_off),
            count("released", |stripe| &stripe.released),
        ]
    }

    fn durations(&self, bounds: &[Millis], pick: fn(&Stripe) -> &Durations) -> Vec<Metric> {
        let counts = self.metrics.buckets(pick);
        let millis = self.metrics.sum(|stripe| &pick(stripe).millis);
        let bounds = bounds.iter().map(|ms| *ms as f64 / 1e3);
        let mut metric = Metric::default();
        metric.set_histogram(histogram(bounds, &counts, millis as f64 / 1e3));
        vec![metric]
    }

    fn held(&self) -> Metric {
        let mut gauge = Gauge::default();
        gauge.set_value(self.metrics.held() as f64);
        let mut metric = Metric::default();
        metric.set_gauge(gauge);
        metric
    }
}

impl Collector for LockCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let total = |pick: fn(&Stripe) -> &AtomicU64| vec![counter(&[], self.metrics.sum(pick))];
        let grants: u64 = self.metrics.buckets(|stripe| &stripe.waits).iter().sum();
        let collected = [
            (MetricType::COUNTER, vec![counter(&[], grants)]),
            (
                MetricType::HISTOGRAM,
                self.durations(&WAIT_MS, |s| &s.waits),
            ),
            (MetricType::HISTOGRAM, self.durations(&HELD_MS, |s| &s.held)),
            (MetricType::COUNTER, self.ends()),
            (MetricType::COUNTER, total(|s| &s.taken_back)),
            (MetricType::COUNTER, total(|s| &s.waiters_dropped)),
            (MetricType::GAUGE, vec![self.held()]),
            (MetricType::COUNTER, total(|s| &s.inline_commits)),
        ];
        let families = self.descs.iter().zip(collected);
        families
            .map(|(desc, (kind, metrics))| family(desc, kind, metrics))
            .collect()
    }
}
