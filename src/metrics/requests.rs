//! Requests by route, method and status, with their latencies.
//!
//! Each HTTP worker has a set of its own that only its thread writes, in plain loads and stores: counting
//! a request costs no locked instruction and no shared cache line. A scrape adds the sets up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Histogram, LabelPair, Metric, MetricFamily, MetricType};

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "DELETE", "other"];
/// Those that the server gives; anything else is counted as `other`.
const STATUSES: [u16; 17] = [
    200, 201, 202, 204, 400, 401, 403, 404, 405, 408, 409, 411, 413, 429, 431, 500, 503,
];
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];
/// Upper bounds of the latency buckets, in microseconds.
const BOUNDS_US: [u64; 18] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000, 30_000_000, 60_000_000,
];

/// A number that one thread writes and any may read.
#[derive(Default)]
struct Count(AtomicU64);

impl Count {
    fn add(&self, n: u64) {
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(before.wrapping_add(n), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn counts(n: usize) -> Box<[Count]> {
    (0..n).map(|_| Count::default()).collect()
}

/// What one HTTP worker answered. Only its own thread may call the methods that count.
pub struct WorkerRequests {
    answered: Box<[Count]>,
    latencies: Box<[Count]>,
    nanos: Box<[Count]>,
    refusals: Box<[Count]>,
}

impl WorkerRequests {
    fn new(routes: usize, codes: usize) -> WorkerRequests {
        WorkerRequests {
            answered: counts(routes * METHODS.len() * (STATUSES.len() + 1)),
            latencies: counts(routes * CLASSES.len() * (BOUNDS_US.len() + 1)),
            nanos: counts(routes * CLASSES.len()),
            refusals: counts(codes),
        }
    }

    /// A request of the route at this index was answered.
    pub fn answered(&self, route: usize, method: &str, status: u16, took: Duration) {
        let last = METHODS.len() - 1;
        let method = METHODS[..last].iter().position(|m| *m == method);
        let status_at = STATUSES.iter().position(|s| *s == status);
        let at = (route * METHODS.len() + method.unwrap_or(last)) * (STATUSES.len() + 1)
            + status_at.unwrap_or(STATUSES.len());
        let series = route * CLASSES.len() + class(status);
        let micros = took.as_micros() as u64;
        let bucket = BOUNDS_US.iter().position(|bound| micros <= *bound);
        let bucket = series * (BOUNDS_US.len() + 1) + bucket.unwrap_or(BOUNDS_US.len());
        for (counts, at, n) in [
            (&self.answered, at, 1),
            (&self.latencies, bucket, 1),
            (&self.nanos, series, took.as_nanos() as u64),
        ] {
            if let Some(count) = counts.get(at) {
                count.add(n);
            }
        }
    }

    /// A request was refused with the code at this index.
    pub fn refused(&self, code: usize) {
        if let Some(count) = self.refusals.get(code) {
            count.add(1);
        }
    }
}

/// The index of a status' class. What is neither success, redirect nor the client's fault is the server's.
fn class(status: u16) -> usize {
    match status {
        100..=299 => 0,
        300..=399 => 1,
        400..=499 => 2,
        _ => 3,
    }
}

/// What all workers answered.
pub struct Requests {
    routes: &'static [&'static str],
    codes: &'static [&'static str],
    workers: Mutex<Vec<Arc<WorkerRequests>>>,
    requests: Desc,
    latencies: Desc,
    refusals: Desc,
}

impl Requests {
    pub(super) fn new(
        prefix: &str,
        routes: &'static [&'static str],
        codes: &'static [&'static str],
    ) -> Requests {
        let desc = |name, help, labels| describe(prefix, name, help, labels);
        Requests {
            routes,
            codes,
            workers: Mutex::default(),
            requests: desc(
                "http_requests_total",
                "Requests answered.",
                &["route", "method", "status"],
            ),
            latencies: desc(
                "http_request_seconds",
                "From the request's head to its answer, waits for a lock included.",
                &["route", "class"],
            ),
            refusals: desc(
                "refusals_total",
                "Requests refused, by the code in the error body.",
                &["code"],
            ),
        }
    }

    /// A set for one more worker.
    pub fn worker(&self) -> Arc<WorkerRequests> {
        let worker = Arc::new(WorkerRequests::new(self.routes.len(), self.codes.len()));
        self.workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(worker.clone());
        worker
    }

    fn sum(&self, pick: impl Fn(&WorkerRequests) -> &[Count]) -> Vec<u64> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums = Vec::new();
        for worker in workers.iter() {
            let counts = pick(worker);
            sums.resize(counts.len(), 0);
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count.get();
            }
        }
        sums
    }

    fn answered(&self) -> MetricFamily {
        let sums = self.sum(|worker| &worker.answered);
        let per_method = STATUSES.len() + 1;
        let counted = sums.into_iter().enumerate().filter(|(_, n)| *n > 0);
        let metrics = counted.map(|(at, n)| {
            let status = STATUSES.get(at % per_method);
            let status = status.map_or_else(|| "other".to_owned(), u16::to_string);
            let method = METHODS[at / per_method % METHODS.len()];
            let route = self.routes[at / per_method / METHODS.len()];
            let labels = [("route", route), ("method", method), ("status", &status)];
            counter(&labels, n)
        });
        family(&self.requests, MetricType::COUNTER, metrics.collect())
    }

    fn latencies(&self) -> MetricFamily {
        let buckets = self.sum(|worker| &worker.latencies);
        let nanos = self.sum(|worker| &worker.nanos);
        let mut metrics = Vec::new();
        for (series, counts) in buckets.chunks(BOUNDS_US.len() + 1).enumerate() {
            if counts.iter().all(|n| *n == 0) {
                continue;
            }
            let route = self.routes[series / CLASSES.len()];
            let class = CLASSES[series % CLASSES.len()];
            let mut metric = Metric::from_label(labels(&[("route", route), ("class", class)]));
            let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6);
            metric.set_histogram(histogram(bounds, counts, nanos[series] as f64 / 1e9));
            metrics.push(metric);
        }
        family(&self.latencies, MetricType::HISTOGRAM, metrics)
    }

    fn refusals(&self) -> MetricFamily {
        let sums = self.sum(|worker| &worker.refusals);
        let sum = |at: usize| sums.get(at).copied().unwrap_or(0);
        let codes = self.codes.iter().enumerate();
        let metrics = codes.map(|(at, code)| counter(&[("code", code)], sum(at)));
        family(&self.refusals, MetricType::COUNTER, metrics.collect())
    }
}

/// How [`Requests`] is entered in a registry.
pub(super) struct RequestCollector(Arc<Requests>);

impl RequestCollector {
    pub fn new(requests: Arc<Requests>) -> RequestCollector {
        RequestCollector(requests)
    }
}

impl Collector for RequestCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.requests, &self.0.latencies, &self.0.refusals]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        vec![self.0.answered(), self.0.latencies(), self.0.refusals()]
    }
}

fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    pairs.iter().map(pair).collect()
}

pub(super) fn counter(pairs: &[(&str, &str)], n: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(n as f64);
    let mut metric = Metric::from_label(labels(pairs));
    metric.set_counter(counter);
    metric
}

/// `counts` has one more than `bounds`, for what is above the last; `sum` in the bounds' unit.
pub(super) fn histogram(bounds: impl Iterator<Item = f64>, counts: &[u64], sum: f64) -> Histogram {
    let mut so_far = 0;
    let mut buckets = Vec::with_capacity(counts.len());
    for (bound, n) in bounds.zip(counts) {
        so_far += n;
        let mut bucket = Bucket::default();
        bucket.set_cumulative_count(so_far);
        bucket.set_upper_bound(bound);
        buckets.push(bucket);
    }
    let mut histogram = Histogram::default();
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(sum);
    histogram.set_bucket(buckets);
    histogram
}

/// A family of metrics whose name begins with `prefix`.
pub(super) fn describe(prefix: &str, name: &str, help: &str, labels: &[&str]) -> Desc {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    let name = format!("{prefix}{name}");
    Desc::new(name, help.to_owned(), labels, Default::default()).expect(super::SOUND)
}

pub(super) fn family(desc: &Desc, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;

    #[test]
    fn the_sets_of_all_workers_are_added_up() {
        let requests = Arc::new(Requests::new("t_", &["/a", "/b"], &["gone", "other"]));
        let registry = Registry::new();
        registry
            .register(Box::new(RequestCollector::new(requests.clone())))
            .unwrap();
        let (first, second) = (requests.worker(), requests.worker());
        first.answered(1, "GET", 200, Duration::from_micros(60));
        second.answered(1, "GET", 200, Duration::from_secs(3_600));
        second.answered(0, "BREW", 418, Duration::from_micros(1));
        first.refused(0);
        second.refused(0);
        let text = TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        for line in [
            "t_http_requests_total{route=\"/b\",method=\"GET\",status=\"200\"} 2",
            "t_http_requests_total{route=\"/a\",method=\"other\",status=\"other\"} 1",
            "t_http_request_seconds_bucket{route=\"/b\",class=\"2xx\",le=\"0.00005\"} 0",
            "t_http_request_seconds_bucket{route=\"/b\",class=\"2xx\",le=\"0.0001\"} 1",
            "t_http_request_seconds_bucket{route=\"/b\",class=\"2xx\",le=\"60\"} 1",
            "t_http_request_seconds_bucket{route=\"/b\",class=\"2xx\",le=\"+Inf\"} 2",
            "t_http_request_seconds_count{route=\"/b\",class=\"2xx\"} 2",
            "t_refusals_total{code=\"gone\"} 2",
            "t_refusals_total{code=\"other\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn an_index_that_no_set_has_is_ignored() {
        let requests = Requests::new("t_", &["/a"], &["gone"]);
        let worker = requests.worker();
        worker.answered(9, "GET", 200, Duration::ZERO);
        worker.refused(9);
        assert_eq!(requests.sum(|worker| &worker.refusals), [0]);
        assert!(requests.sum(|w| &w.answered).iter().all(|n| *n == 0));
    }
}
