//! What an answered request counts: its route, method and status, and its latency.

use std::cell::RefCell;
use std::time::Duration;

use foldhash::HashMap;
use prometheus::{Histogram, IntCounter};

use super::Metrics;

/// Methods that have series of their own. Others are counted as `other`: a client can send any word.
const METHODS: [&str; 5] = ["GET", "HEAD", "POST", "PUT", "DELETE"];
const OTHER: &str = "other";

/// Route, method and status.
type Labels = (&'static str, &'static str, u16);

/// The series of one HTTP worker, which looks up those of each kind of answer only once.
pub type RequestSeries = RefCell<HashMap<Labels, (IntCounter, Histogram)>>;

impl Metrics {
    /// A request was answered. `series`: those of the worker that answered it. `route`: its pattern.
    pub fn answered(
        &self,
        series: &RequestSeries,
        route: &'static str,
        method: &str,
        status: u16,
        took: Duration,
    ) {
        let method = METHODS.into_iter().find(|known| *known == method);
        let method = method.unwrap_or(OTHER);
        let mut series = series.borrow_mut();
        let (answered, latencies) = series.entry((route, method, status)).or_insert_with(|| {
            let labels = [route, method, &status.to_string()];
            let answered = self.http_requests_total.mine();
            let latencies = self.http_request_seconds.mine();
            (
                answered.with_label_values(&labels),
                latencies.with_label_values(&[route, class(status)]),
            )
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
