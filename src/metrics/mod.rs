//! Metrics of the server, shown by `/metrics` in the Prometheus text format.
//!
//! Actors and HTTP workers write here. Only [`Metrics::render`] reads the values, except for the number of
//! grants. No label ever carries a resource name, an owner, a ticket or a key, so the number of series is
//! fixed.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod` | metrics of actors, connections, peers and the store |
//! | `factory` | makes metrics and registers them |
//! | `locks` | metrics of locks |
//! | `requests` | requests by route |
//! | `per_thread` | metrics that every request updates, with a copy for each thread |

mod factory;
pub mod locks;
pub mod per_thread;
pub mod requests;

use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::store::StoreError;
use factory::{MetricFactory, PREFIX, SOUND};
use locks::LockMetrics;
use requests::RequestMetrics;

const COMMIT_SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
const BATCH_SIZES: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0,
];

/// All metrics; one set per server.
pub struct Metrics {
    registry: Registry,
    pub locks: LockMetrics,
    pub requests: RequestMetrics,
    /// Resources in memory.
    pub actors_live: IntGauge,
    /// Held resources of which only the end of their lease is in memory (dormant).
    pub actors_asleep: IntGauge,
    pub actors_retired: IntCounter,
    pub store: StoreMetrics,
    pub connections: ConnectionMetrics,
    pub peers: PeerMetrics,
    /// Requests with a `*_PREVIOUS` key, by the right of the key.
    pub previous_keys: IntCounterVec,
    log_lines_dropped: IntCounter,
    pub now: NowMetrics,
}

/// Open connections, and those that ended without a request.
#[derive(Clone)]
pub struct ConnectionMetrics {
    pub open: IntGauge,
    /// Connections that ended before a request was understood, by reason.
    pub refused: IntCounterVec,
}

/// Instances on one database, and requests between them.
pub struct PeerMetrics {
    /// Instances that are alive, this one included; 0 if the store is not shared.
    pub instances: IntGauge,
    /// Slots that this instance owns; 0 if the store is not shared.
    pub slots: IntGauge,
    /// Slots that this instance was given or took over.
    pub slots_gained: IntCounter,
    /// Slots that this instance gave away, or that were taken over from it.
    pub slots_lost: IntCounter,
    /// Instances that died and from which this one took over.
    pub takeovers: IntCounter,
    /// Requests that were forwarded to another instance.
    pub sent: IntCounter,
    /// Requests that other instances forwarded to this one.
    pub received: IntCounter,
    /// Requests that were tried again after a pause: nobody answered for the name, or the connection broke.
    pub retried: IntCounter,
    /// Requests forwarded to an instance that did not answer for the name any more, or not yet.
    pub misdirected: IntCounter,
    /// Requests that wait now until an instance answers for their names, or the connection to it is back.
    pub held: IntGauge,
    /// Connections to the peer port that did not prove to have this database.
    pub refused: IntCounter,
    /// Time until another instance answered a sign of life, in seconds.
    pub round_trip: Histogram,
    /// Other instances that are alive but cannot be reached.
    pub unreachable: IntGauge,
}

/// Sizes and times of commits, and errors of the store.
pub struct StoreMetrics {
    batch_snapshots: Histogram,
    batch_rows: Histogram,
    commit_seconds: Histogram,
    /// Resources whose changes wait for the next batch.
    pub queue: IntGauge,
    /// Resources whose changes are in the batch under way.
    pub in_flight: IntGauge,
    errors: IntCounterVec,
    /// How often the store was opened. Above 1, it was lost in between.
    pub opened: IntCounter,
}

/// The state of the server at the moment of a scrape, set just before it.
pub struct NowMetrics {
    pub waiters: IntGauge,
    pub waiters_max: IntGauge,
    pub data_cache_bytes: IntGauge,
    pub data_cache_bytes_max: IntGauge,
    /// Resources with lock changes that are only in the journal.
    pub pending: IntGauge,
    pub ready: IntGauge,
    pub active: IntGauge,
    pub standby: IntGauge,
}

impl Metrics {
    /// The metrics of a server with this kind of store.
    pub fn new(store: &str) -> Metrics {
        let registry = Registry::new();
        let make = MetricFactory(&registry);
        build_info(&registry, store);
        let process = ProcessCollector::for_self();
        registry.register(Box::new(process)).expect(SOUND);
        Metrics {
            locks: LockMetrics::new(&make),
            requests: RequestMetrics::new(&make),
            actors_live: make.gauge("actors_live", "Resources in memory."),
            actors_asleep: make.gauge(
                "actors_asleep",
                "Held resources that nobody uses: only the end of their lease is in memory.",
            ),
            actors_retired: make.counter(
                "actors_retired_total",
                "Resources that left memory because nobody used them.",
            ),
            store: StoreMetrics::new(&make),
            connections: ConnectionMetrics {
                open: make.gauge("connections", "Open connections of clients."),
                refused: make.counters(
                    "connections_refused_total",
                    "Connections that ended before a request was understood, by reason.",
                    &["reason"],
                ),
            },
            peers: PeerMetrics::new(&make),
            previous_keys: make.counters(
                "previous_key_requests_total",
                "Requests with a *_PREVIOUS key, by the right of the key.",
                &["right"],
            ),
            log_lines_dropped: make.counter(
                "log_lines_dropped_total",
                "Log lines that were dropped because nobody read them fast enough.",
            ),
            now: NowMetrics::new(&make),
            registry,
        }
    }

    /// Adds the gauge of the certificate's expiry. To be called once, by a server that speaks TLS; others have
    /// no such metric.
    pub fn certificate_expiry(&self) -> IntGauge {
        MetricFactory(&self.registry).gauge(
            "tls_certificate_expiry_timestamp_seconds",
            "When the certificate, or the one of its chain that ends first, expires, in Unix seconds.",
        )
    }

    /// Sets the number of log lines that were dropped since the start.
    pub fn set_log_lines_dropped(&self, dropped: u64) {
        let known = self.log_lines_dropped.get();
        self.log_lines_dropped.inc_by(dropped.saturating_sub(known));
    }

    /// All metrics, in the Prometheus text format.
    ///
    /// # Errors
    /// The encoder refuses a metric, which would be a mistake in this module.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn build_info(registry: &Registry, store: &str) {
    let options = Opts::new(
        format!("{PREFIX}build_info"),
        "Always 1; the labels say which version runs on which kind of store.",
    );
    let info = IntGaugeVec::new(options, &["version", "store"]).expect(SOUND);
    let version = env!("CARGO_PKG_VERSION");
    info.with_label_values(&[version, store]).set(1);
    registry.register(Box::new(info)).expect(SOUND);
}

impl PeerMetrics {
    fn new(make: &MetricFactory) -> PeerMetrics {
        PeerMetrics {
            instances: make.gauge(
                "instances",
                "Instances on this database that are alive; 0 if the store is not shared.",
            ),
            slots: make.gauge(
                "slots",
                "Of the 1024 parts of all names, those that this instance owns; 0 if the store is not shared.",
            ),
            slots_gained: make.counter(
                "slots_gained_total",
                "Slots that this instance was given or took over.",
            ),
            slots_lost: make.counter(
                "slots_lost_total",
                "Slots that this instance gave away, or that were taken over from it.",
            ),
            takeovers: make.counter(
                "takeovers_total",
                "Instances that died, and whose slots this one took over.",
            ),
            sent: make.counter(
                "forwarded_requests_total",
                "Requests that were forwarded to the instance that answers for the name.",
            ),
            received: make.counter(
                "forwarded_requests_received_total",
                "Requests that other instances forwarded to this one.",
            ),
            retried: make.counter(
                "forwarded_retries_total",
                "Requests that were tried again: nobody answered for the name, or the connection broke.",
            ),
            misdirected: make.counter(
                "forwarded_requests_refused_total",
                "Requests that were forwarded to an instance that did not answer for the name.",
            ),
            held: make.gauge(
                "forwarded_requests_held",
                "Requests that wait until an instance answers for the name, or can be reached again.",
            ),
            refused: make.counter(
                "peer_connections_refused_total",
                "Connections to PEER_PORT that did not prove to have this database.",
            ),
            round_trip: make.histogram(
                "peer_round_trip_seconds",
                "Time until another instance answered a sign of life.",
                COMMIT_SECONDS,
            ),
            unreachable: make.gauge(
                "peers_unreachable",
                "Other instances that are alive but cannot be reached from this one.",
            ),
        }
    }
}

impl StoreMetrics {
    fn new(make: &MetricFactory) -> StoreMetrics {
        let errors = make.counters(
            "store_errors_total",
            "Errors of the store, by kind.",
            &["kind"],
        );
        for kind in ERROR_KINDS {
            errors.with_label_values(&[kind]);
        }
        StoreMetrics {
            batch_snapshots: make.histogram(
                "commit_batch_resources",
                "Resources with changes in one transaction.",
                BATCH_SIZES,
            ),
            batch_rows: make.histogram(
                "commit_batch_rows",
                "Rows changed in one transaction.",
                BATCH_SIZES,
            ),
            commit_seconds: make.histogram(
                "commit_seconds",
                "Time of one transaction, failed ones included.",
                COMMIT_SECONDS,
            ),
            queue: make.gauge(
                "persistence_queue_resources",
                "Resources whose changes wait for the next transaction.",
            ),
            in_flight: make.gauge(
                "persistence_in_flight_resources",
                "Resources whose changes are in the transaction under way.",
            ),
            errors,
            opened: make.counter("store_opened_count", "Times the store was opened."),
        }
    }

    pub fn batch(&self, snapshots: usize, rows: usize) {
        self.batch_snapshots.observe(snapshots as f64);
        self.batch_rows.observe(rows as f64);
    }

    pub fn committed(&self, took: std::time::Duration) {
        self.commit_seconds.observe(took.as_secs_f64());
    }

    pub fn failed(&self, error: &StoreError) {
        let kind = match error {
            StoreError::Standby => ERROR_KINDS[0],
            StoreError::Unavailable(_) => ERROR_KINDS[1],
            StoreError::Rejected(_) => ERROR_KINDS[2],
            StoreError::Unusable(_) => ERROR_KINDS[3],
            StoreError::TooSlow(_) => ERROR_KINDS[4],
        };
        self.errors.with_label_values(&[kind]).inc();
    }
}

const ERROR_KINDS: [&str; 5] = [
    "ownership_lost",
    "unavailable",
    "rejected",
    "unusable",
    "too_slow",
];

impl NowMetrics {
    fn new(make: &MetricFactory) -> NowMetrics {
        NowMetrics {
            waiters: make.gauge("waiters", "Open requests that wait for a lock."),
            waiters_max: make.gauge("waiters_max", "MAX_WAITERS."),
            data_cache_bytes: make.gauge("data_cache_bytes", "JSON kept in memory."),
            data_cache_bytes_max: make.gauge("data_cache_bytes_max", "DATA_CACHE_BYTES."),
            pending: make.gauge(
                "store_pending_resources",
                "Resources with lock changes that are only in the journal.",
            ),
            ready: make.gauge("ready", "1 while /ready answers 200."),
            active: make.gauge("active", "1 while this instance answers for names."),
            standby: make.gauge(
                "standby",
                "1 while another instance has the store alone, or declared this one dead.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::history::LeaseEnd;

    fn text(metrics: &Metrics) -> String {
        metrics.render().unwrap()
    }

    #[test]
    fn every_end_of_a_lease_is_counted_under_its_reason() {
        let metrics = Metrics::new("memory");
        metrics.locks.granted(0);
        metrics.locks.ended(LeaseEnd::Expired, 1_500);
        metrics.locks.ended(LeaseEnd::ForcedOff, 1);
        metrics.locks.ended(LeaseEnd::Deleted, 1);
        let text = text(&metrics);
        for line in [
            "resource_server_lock_grants_total 1",
            "resource_server_lock_ends_total{reason=\"released\"} 0",
            "resource_server_lock_ends_total{reason=\"expired\"} 1",
            "resource_server_lock_ends_total{reason=\"forced_off\"} 1",
            "resource_server_lock_ends_total{reason=\"deleted\"} 1",
            "resource_server_lock_held_seconds_bucket{le=\"1\"} 2",
            "resource_server_lock_held_seconds_bucket{le=\"5\"} 3",
            "resource_server_lock_wait_seconds_bucket{le=\"0.001\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn what_is_read_at_a_scrape_is_what_it_was_given() {
        let metrics = Metrics::new("memory");
        metrics.now.waiters.set(3);
        metrics.now.data_cache_bytes.set(7);
        metrics.now.pending.set(5);
        metrics.now.ready.set(1);
        metrics.now.active.set(1);
        for dropped in [1, 2] {
            metrics.set_log_lines_dropped(dropped);
        }
        let text = text(&metrics);
        for line in [
            "resource_server_waiters 3",
            "resource_server_data_cache_bytes 7",
            "resource_server_store_pending_resources 5",
            "resource_server_ready 1",
            "resource_server_active 1",
            "resource_server_standby 0",
            "resource_server_log_lines_dropped_total 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        let version = env!("CARGO_PKG_VERSION");
        let info =
            format!("resource_server_build_info{{store=\"memory\",version=\"{version}\"}} 1");
        assert!(text.lines().any(|l| l == info), "{text}");
    }
}
