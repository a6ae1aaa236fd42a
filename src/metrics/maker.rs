//! Makes metrics and enters them in a registry.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

/// What all names start with.
pub(super) const PREFIX: &str = "resource_server_";
/// Why a metric that cannot be registered is a mistake in this file and nothing else.
pub(super) const SOUND: &str = "each metric is named once and well";

/// Makes metrics and enters them in a registry.
pub(super) struct Maker<'a>(pub(super) &'a Registry);

impl Maker<'_> {
    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        let counter = IntCounter::new(format!("{PREFIX}{name}"), help).expect(SOUND);
        self.0.register(Box::new(counter.clone())).expect(SOUND);
        counter
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        let options = Opts::new(format!("{PREFIX}{name}"), help);
        let counters = IntCounterVec::new(options, labels).expect(SOUND);
        self.0.register(Box::new(counters.clone())).expect(SOUND);
        counters
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        let gauge = IntGauge::new(format!("{PREFIX}{name}"), help).expect(SOUND);
        self.0.register(Box::new(gauge.clone())).expect(SOUND);
        gauge
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(format!("{PREFIX}{name}"), help).buckets(buckets.to_vec());
        let histogram = Histogram::with_opts(options).expect(SOUND);
        self.0.register(Box::new(histogram.clone())).expect(SOUND);
        histogram
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> HistogramVec {
        let options = HistogramOpts::new(format!("{PREFIX}{name}"), help).buckets(buckets.to_vec());
        let histograms = HistogramVec::new(options, labels).expect(SOUND);
        self.0.register(Box::new(histograms.clone())).expect(SOUND);
        histograms
    }
}
