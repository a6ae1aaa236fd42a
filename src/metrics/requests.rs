//! Requests by route, method and status, with their latencies.

use std::cell::RefCell;
use std::time::Duration;

use foldhash::HashMap;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use super::factory::{MetricFactory, histogram_options, options};
use super::per_thread::PerThread;

/// Methods that have series of their own. Others are counted as `other`: a client can send any word.
const METHODS: [&str; 5] = ["GET", "HEAD", "POST", "PUT", "DELETE"];
const OTHER: &str = "other";
/// Upper bounds of the latencies, in seconds.
const BOUNDS: &[f64] = &[
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 10.0, 30.0, 60.0,
];

/// Metrics of the requests of all workers.
#[derive(Clone)]
pub struct RequestMetrics {
    answered: PerThread<IntCounterVec>,
    latencies: PerThread<HistogramVec>,
    refusals: IntCounterVec,
}

impl RequestMetrics {
    pub(super) fn new(make: &MetricFactory<'_>) -> RequestMetrics {
        RequestMetrics {
            answered: make.per_thread(|| {
                let options = options("http_requests_total", "Requests answered.");
                IntCounterVec::new(options, &["route", "method", "status"])
            }),
            latencies: make.per_thread(|| {
                let help = "From the request's head to its answer, waits for a lock included.";
                let options = histogram_options("http_request_seconds", help, BOUNDS);
                HistogramVec::new(options, &["route", "class"])
            }),
            refusals: make.counters(
                "refusals_total",
                "Requests refused, by the code in the error body.",
                &["code"],
            ),
        }
    }

    /// Shows these codes before the first refusal, so that a rate over them begins at 0.
    pub fn show_codes(&self, codes: &[&str]) {
        for code in codes {
            self.refusals.with_label_values(&[code]);
        }
    }

    /// A request was refused with this code, one of a fixed list.
    pub fn refused(&self, code: &'static str) {
        self.refusals.with_label_values(&[code]).inc();
    }

    /// The counters of one HTTP worker.
    pub fn worker(&self) -> WorkerRequests {
        WorkerRequests {
            all: self.clone(),
            series: RefCell::default(),
        }
    }
}

/// Route, method and status.
type Labels = (&'static str, &'static str, u16);

/// The counters of one HTTP worker, which looks up the series of each kind of answer only once.
pub struct WorkerRequests {
    all: RequestMetrics,
    series: RefCell<HashMap<Labels, (IntCounter, Histogram)>>,
}

impl WorkerRequests {
    /// A request was answered. `route`: its pattern.
    pub fn answered(&self, route: &'static str, method: &str, status: u16, took: Duration) {
        let method = METHODS.into_iter().find(|known| *known == method);
        let method = method.unwrap_or(OTHER);
        let mut series = self.series.borrow_mut();
        let (answered, latencies) = series.entry((route, method, status)).or_insert_with(|| {
            let labels = [route, method, &status.to_string()];
            let answered = self.all.answered.mine().with_label_values(&labels);
            let latencies = self
                .all
                .latencies
                .mine()
                .with_label_values(&[route, class(status)]);
            (answered, latencies)
        });
        answered.inc();
        latencies.observe(took.as_secs_f64());
    }
}

/// The class of a status. Anything that is not success, redirect or a client's fault counts as the server's.
fn class(status: u16) -> &'static str {
    match status {
        100..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;

    #[test]
    fn what_all_workers_answered_is_added_up() {
        let registry = Registry::new();
        let requests = RequestMetrics::new(&MetricFactory(&registry));
        requests.show_codes(&["gone", "never"]);
        let (first, second) = (requests.worker(), requests.worker());
        first.answered("/b", "GET", 200, Duration::from_micros(60));
        second.answered("/b", "GET", 200, Duration::from_secs(3_600));
        second.answered("/a", "BREW", 418, Duration::from_micros(1));
        requests.refused("gone");
        requests.refused("gone");
        let text = TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        for line in [
            "http_requests_total{method=\"GET\",route=\"/b\",status=\"200\"} 2",
            "http_requests_total{method=\"other\",route=\"/a\",status=\"418\"} 1",
            "http_request_seconds_bucket{class=\"2xx\",route=\"/b\",le=\"0.00005\"} 0",
            "http_request_seconds_bucket{class=\"2xx\",route=\"/b\",le=\"0.0001\"} 1",
            "http_request_seconds_bucket{class=\"2xx\",route=\"/b\",le=\"60\"} 1",
            "http_request_seconds_bucket{class=\"2xx\",route=\"/b\",le=\"+Inf\"} 2",
            "http_request_seconds_count{class=\"2xx\",route=\"/b\"} 2",
            "refusals_total{code=\"gone\"} 2",
            "refusals_total{code=\"never\"} 0",
        ] {
            let line = format!("{}{line}", crate::metrics::factory::PREFIX);
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
