//! Makes metrics and registers them.

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::per_thread::PerThread;

/// Prefix of all metric names.
pub(super) const PREFIX: &str = "resource_server_";
/// Text of the panic if a metric cannot be registered, which only a mistake in this program causes.
pub(super) const SOUND: &str = "names of metrics are unique and valid";

/// Makes metrics and registers them.
pub(super) struct MetricFactory<'a>(pub(super) &'a Registry);

impl MetricFactory<'_> {
    fn enter<M: Collector + Clone + 'static>(&self, made: prometheus::Result<M>) -> M {
        let metric = made.expect(SOUND);
        self.0.register(Box::new(metric.clone())).expect(SOUND);
        metric
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.enter(IntCounter::with_opts(options(name, help)))
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.enter(IntCounterVec::new(options(name, help), labels))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.enter(IntGauge::with_opts(options(name, help)))
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.enter(Histogram::with_opts(histogram_options(name, help, buckets)))
    }

    /// A metric that every request updates: each thread has a copy.
    pub(super) fn per_thread<M: Collector + Clone + 'static>(
        &self,
        make: impl Fn() -> prometheus::Result<M>,
    ) -> PerThread<M> {
        self.enter(Ok(PerThread::new(|| make().expect(SOUND))))
    }
}

/// Options with the common prefix.
pub(super) fn options(name: &str, help: &str) -> Opts {
    Opts::new(format!("{PREFIX}{name}"), help)
}

/// Options with the common prefix.
pub(super) fn histogram_options(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(format!("{PREFIX}{name}"), help).buckets(buckets.to_vec())
}
