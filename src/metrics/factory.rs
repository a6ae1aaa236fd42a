//! Makes metrics and registers them.

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, Result,
};

use super::per_thread::PerThread;
use crate::store::history::LeaseEnd;

/// Text of the panic if a metric cannot be registered, which only a mistake in this program causes.
pub(super) const SOUND: &str = "names of metrics are unique and valid";

pub(super) fn options(name: &str, help: &str) -> Opts {
    Opts::new(format!("resource_server_{name}"), help)
}

fn enter<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> M {
    registry.register(Box::new(metric.clone())).expect(SOUND);
    metric
}

/// One metric for all threads.
pub(super) fn shared<M: Collector + Clone + 'static>(
    registry: &Registry,
    options: Opts,
    make: impl Fn(Opts) -> Result<M>,
) -> M {
    enter(registry, make(options).expect(SOUND))
}

/// A metric that every request updates: each thread has a copy.
pub(super) fn per_thread<M: Collector + Clone + 'static>(
    registry: &Registry,
    options: Opts,
    make: impl Fn(Opts) -> Result<M>,
) -> PerThread<M> {
    let copy = || make(options.clone()).expect(SOUND);
    enter(registry, PerThread::new(copy))
}

/// A metric for each of [`LeaseEnd::ALL`].
pub(super) fn by_end<M: Collector + Clone + 'static>(
    registry: &Registry,
    options: Opts,
    make: impl Fn(Opts) -> Result<M>,
) -> [PerThread<M>; 4] {
    let of = |end: LeaseEnd| options.clone().const_label("reason", end.name());
    LeaseEnd::ALL.map(|end| per_thread(registry, of(end), &make))
}

pub(super) fn counter(options: Opts) -> Result<IntCounter> {
    IntCounter::with_opts(options)
}

pub(super) fn counters(options: Opts, labels: &[&str]) -> Result<IntCounterVec> {
    IntCounterVec::new(options, labels)
}

pub(super) fn gauge(options: Opts) -> Result<IntGauge> {
    IntGauge::with_opts(options)
}

pub(super) fn gauges(options: Opts, labels: &[&str]) -> Result<IntGaugeVec> {
    IntGaugeVec::new(options, labels)
}

pub(super) fn histogram(options: Opts, bounds: &[f64]) -> Result<Histogram> {
    Histogram::with_opts(HistogramOpts::from(options).buckets(bounds.to_vec()))
}

pub(super) fn histograms(options: Opts, bounds: &[f64], labels: &[&str]) -> Result<HistogramVec> {
    let options = HistogramOpts::from(options).buckets(bounds.to_vec());
    HistogramVec::new(options, labels)
}
