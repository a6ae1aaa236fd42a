//! Values that all threads update: each thread has a copy of its own, and metrics show the sum of the copies.
//!
//! With one copy for all, threads that serve would wait for each other's cache lines a dozen times in each
//! request: see `make bench`, "of the earlier version".

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, Metric, MetricFamily, MetricType};

/// Number of copies. More threads than this share some, which costs speed and nothing else.
const COPIES: usize = 16;

thread_local! {
    static COPY: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % COPIES
    };
}

/// One value, with a copy for each thread, which has cache lines of its own.
#[derive(Clone)]
pub struct PerThread<M>(Arc<[CachePadded<M>]>);

impl<M> PerThread<M> {
    pub fn new(make: impl Fn() -> M) -> PerThread<M> {
        PerThread((0..COPIES).map(|_| CachePadded::new(make())).collect())
    }

    /// The copy of the calling thread.
    pub fn mine(&self) -> &M {
        &self.0[COPY.with(|copy| *copy)]
    }

    /// All copies.
    pub fn all(&self) -> impl Iterator<Item = &M> {
        self.0.iter().map(|copy| &**copy)
    }
}

impl<M: Collector> Collector for PerThread<M> {
    fn desc(&self) -> Vec<&Desc> {
        self.0[0].desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut copies = self.all().map(Collector::collect);
        let mut sum = copies.next().unwrap_or_default();
        for copy in copies {
            for (family, more) in sum.iter_mut().zip(copy) {
                add_family(family, more);
            }
        }
        sum
    }
}

fn add_family(sum: &mut MetricFamily, mut more: MetricFamily) {
    let kind = sum.get_field_type();
    for metric in more.take_metric() {
        let all = sum.mut_metric();
        let same = all
            .iter_mut()
            .find(|known| known.get_label() == metric.get_label());
        match same {
            Some(known) => add(kind, known, &metric),
            None => all.push(metric),
        }
    }
}

fn add(kind: MetricType, sum: &mut Metric, more: &Metric) {
    match kind {
        MetricType::COUNTER => {
            let mut counter = Counter::default();
            counter.set_value(sum.get_counter().get_value() + more.get_counter().get_value());
            sum.set_counter(counter);
        }
        MetricType::GAUGE => {
            let mut gauge = Gauge::default();
            gauge.set_value(sum.get_gauge().get_value() + more.get_gauge().get_value());
            sum.set_gauge(gauge);
        }
        MetricType::HISTOGRAM => {
            sum.set_histogram(histogram(sum.get_histogram(), more.get_histogram()));
        }
        MetricType::SUMMARY | MetricType::UNTYPED => {}
    }
}

/// The sum of two histograms with the same bounds.
fn histogram(one: &Histogram, other: &Histogram) -> Histogram {
    let buckets = one.get_bucket().iter().zip(other.get_bucket());
    let bucket = |(one, other): (&Bucket, &Bucket)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(one.upper_bound());
        bucket.set_cumulative_count(one.cumulative_count() + other.cumulative_count());
        bucket
    };
    let mut sum = Histogram::default();
    sum.set_bucket(buckets.map(bucket).collect());
    sum.set_sample_count(one.get_sample_count() + other.get_sample_count());
    sum.set_sample_sum(one.get_sample_sum() + other.get_sample_sum());
    sum
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntGauge, Registry, TextEncoder};

    use super::*;

    #[test]
    fn what_all_threads_counted_is_shown_as_one() {
        let gauge = PerThread::new(|| IntGauge::new("held", "Held.").unwrap());
        let seconds = PerThread::new(|| {
            let options = HistogramOpts::new("seconds", "Seconds.").buckets(vec![1.0, 2.0]);
            HistogramVec::new(options, &["route"]).unwrap()
        });
        let registry = Registry::new();
        registry.register(Box::new(gauge.clone())).unwrap();
        registry.register(Box::new(seconds.clone())).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..2 * COPIES {
                let (gauge, seconds) = (&gauge, &seconds);
                scope.spawn(move || {
                    gauge.mine().inc();
                    let route = if thread == 3 { "/b" } else { "/a" };
                    let mine = seconds.mine().with_label_values(&[route]);
                    mine.observe(if thread % 2 == 0 { 0.5 } else { 1.5 });
                });
            }
        });
        gauge.mine().dec();
        assert_eq!(gauge.all().map(IntGauge::get).sum::<i64>(), 31);
        let text = TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        for line in [
            "held 31",
            "seconds_bucket{route=\"/a\",le=\"1\"} 16",
            "seconds_bucket{route=\"/a\",le=\"2\"} 31",
            "seconds_bucket{route=\"/a\",le=\"+Inf\"} 31",
            "seconds_sum{route=\"/a\"} 30.5",
            "seconds_count{route=\"/a\"} 31",
            "seconds_count{route=\"/b\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
