//! Metrics of the server, shown by `/metrics` in the Prometheus text format.
//!
//! Actors and HTTP workers write here. Only [`Metrics::render`] reads the values, except for the number of
//! grants. No label ever carries a resource name, an owner, a ticket or a key, so the number of series is
//! fixed.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod` | all metrics, each with its help |
//! | `factory` | makes metrics and registers them |
//! | `requests` | what an answered request counts |
//! | `per_thread` | metrics that every request updates, with a copy for each thread |

mod factory;
pub mod per_thread;
pub mod requests;

use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::lock::Millis;
use crate::store::StoreError;
use crate::store::history::LeaseEnd;
use factory::SOUND;
use per_thread::PerThread;

const COMMIT_SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
const BATCH_SIZES: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0,
];
/// Upper bounds of the latencies, in seconds.
const REQUEST_SECONDS: &[f64] = &[
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 10.0, 30.0, 60.0,
];
/// From one millisecond, the resolution of the actors' clock, to what only a forgotten lock reaches.
const WAIT_SECONDS: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];
const HELD_SECONDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0,
    14_400.0, 86_400.0,
];

const ERROR_KINDS: [&str; 5] = [
    "ownership_lost",
    "unavailable",
    "rejected",
    "unusable",
    "too_slow",
];

/// Declares [`Metrics`]. A row: the function of [`factory`] that registers the metric, its name and type, and the
/// function that makes it, with its help.
macro_rules! metrics {
    ($($entered:ident $name:ident: $type:ty = $make:ident($help:literal $(, $more:expr)*);)*) => {
        /// All metrics; one set per server. Each field has the name of its metric.
        pub struct Metrics {
            registry: Registry,
            $(pub $name: $type,)*
        }

        impl Metrics {
            fn registered_in(registry: Registry) -> Metrics {
                Metrics {
                    $($name: factory::$entered(
                        &registry,
                        factory::options(stringify!($name), $help),
                        |options: Opts| factory::$make(options $(, $more)*),
                    ),)*
                    registry,
                }
            }
        }
    };
}

metrics! {
    shared build_info: IntGaugeVec
        = gauges("Always 1; the labels say which version runs on which kind of store.", &["version", "store"]);

    per_thread http_requests_total: PerThread<IntCounterVec>
        = counters("Requests answered.", &["route", "method", "status"]);
    per_thread http_request_seconds: PerThread<HistogramVec>
        = histograms("From the request's head to its answer, waits for a lock included.", REQUEST_SECONDS,
            &["route", "class"]);
    shared refusals_total: IntCounterVec = counters("Requests refused, by the code in the error body.", &["code"]);
    shared previous_key_requests_total: IntCounterVec
        = counters("Requests with a *_PREVIOUS key, by the right of the key.", &["right"]);
    shared connections: IntGauge = gauge("Open connections of clients.");
    shared connections_refused_total: IntCounterVec
        = counters("Connections that ended before a request was understood, by reason.", &["reason"]);

    per_thread lock_grants_total: PerThread<IntCounter>
        = counter("Leases granted, and leases promoted: each time a fencing token was given out.");
    shared lock_grants_taken_back_total: IntCounter = counter("Grants whose client was gone before it got the answer.");
    per_thread lock_wait_seconds: PerThread<Histogram>
        = histogram("Time from the first request of a ticket to its lease; 0 if the lock was free.", WAIT_SECONDS);
    per_thread lock_held_seconds: PerThread<Histogram>
        = histogram("Time from the grant of a lease to its end.", HELD_SECONDS);
    by_end lock_ends_total: [PerThread<IntCounter>; 4] = counter("Leases that ended, by reason.");
    per_thread locks_held: PerThread<IntGauge> = gauge("Held locks of the resources in memory.");
    shared waiters_dropped_total: IntCounter
        = counter("Waiting tickets dropped after TICKET_TTL_SECONDS without being presented.");

    shared actors_live: IntGauge = gauge("Resources in memory.");
    shared actors_asleep: IntGauge
        = gauge("Held resources that nobody uses: only the end of their lease is in memory.");
    shared actors_retired_total: IntCounter = counter("Resources that left memory because nobody used them.");

    shared commit_batch_resources: Histogram = histogram("Resources with changes in one transaction.", BATCH_SIZES);
    shared commit_batch_rows: Histogram = histogram("Rows changed in one transaction.", BATCH_SIZES);
    shared commit_seconds: Histogram = histogram("Time of one transaction, failed ones included.", COMMIT_SECONDS);
    per_thread commits_inline_total: PerThread<IntCounter>
        = counter("Changes stored without a transaction of their own (memory store).");
    shared persistence_queue_resources: IntGauge = gauge("Resources whose changes wait for the next transaction.");
    shared persistence_in_flight_resources: IntGauge
        = gauge("Resources whose changes are in the transaction under way.");
    shared store_errors_total: IntCounterVec = counters("Errors of the store, by kind.", &["kind"]);
    shared store_opened_count: IntCounter = counter("Times the store was opened.");

    shared instances: IntGauge = gauge("Instances on this database that are alive; 0 if the store is not shared.");
    shared slots: IntGauge
        = gauge("Of the 1024 parts of all names, those that this instance owns; 0 if the store is not shared.");
    shared slots_gained_total: IntCounter = counter("Slots that this instance was given or took over.");
    shared slots_lost_total: IntCounter
        = counter("Slots that this instance gave away, or that were taken over from it.");
    shared takeovers_total: IntCounter = counter("Instances that died, and whose slots this one took over.");
    shared forwarded_requests_total: IntCounter
        = counter("Requests that were forwarded to the instance that answers for the name.");
    shared forwarded_requests_received_total: IntCounter
        = counter("Requests that other instances forwarded to this one.");
    shared forwarded_retries_total: IntCounter
        = counter("Requests that were tried again: nobody answered for the name, or the connection broke.");
    shared forwarded_requests_refused_total: IntCounter
        = counter("Requests that were forwarded to an instance that did not answer for the name.");
    shared forwarded_requests_held: IntGauge
        = gauge("Requests that wait until an instance answers for the name, or can be reached again.");
    shared peer_connections_refused_total: IntCounter
        = counter("Connections to PEER_PORT that did not prove to have this database.");
    shared peer_round_trip_seconds: Histogram
        = histogram("Time until another instance answered a sign of life.", COMMIT_SECONDS);
    shared peers_unreachable: IntGauge = gauge("Other instances that are alive but cannot be reached from this one.");

    // Set just before a scrape.
    shared waiters: IntGauge = gauge("Open requests that wait for a lock.");
    shared waiters_max: IntGauge = gauge("MAX_WAITERS.");
    shared data_cache_bytes: IntGauge = gauge("JSON kept in memory.");
    shared data_cache_bytes_max: IntGauge = gauge("DATA_CACHE_BYTES.");
    shared store_pending_resources: IntGauge = gauge("Resources with lock changes that are only in the journal.");
    shared log_lines_dropped_total: IntCounter
        = counter("Log lines that were dropped because nobody read them fast enough.");
    shared ready: IntGauge = gauge("1 while /ready answers 200.");
    shared active: IntGauge = gauge("1 while this instance answers for names.");
    shared standby: IntGauge = gauge("1 while another instance has the store alone, or declared this one dead.");
}

impl Metrics {
    /// The metrics of a server with this kind of store.
    pub fn new(store: &str) -> Metrics {
        let metrics = Metrics::registered_in(Registry::new());
        let labels = [env!("CARGO_PKG_VERSION"), store];
        metrics.build_info.with_label_values(&labels).set(1);
        // Shown before the first error, so that a rate over them begins at 0.
        for kind in ERROR_KINDS {
            metrics.store_errors_total.with_label_values(&[kind]);
        }
        let process = ProcessCollector::for_self();
        metrics.registry.register(Box::new(process)).expect(SOUND);
        metrics
    }

    /// Adds the gauge of the certificate's expiry. To be called once, by a server that speaks TLS; others have
    /// no such metric.
    pub fn certificate_expiry(&self) -> IntGauge {
        let name = "tls_certificate_expiry_timestamp_seconds";
        let help = "When the certificate, or the one of its chain that ends first, expires, in Unix seconds.";
        factory::shared(&self.registry, factory::options(name, help), factory::gauge)
    }

    /// Counts a grant.
    pub fn granted(&self, waited: Millis) {
        self.lock_grants_total.mine().inc();
        self.lock_wait_seconds.mine().observe(waited as f64 / 1e3);
    }

    /// Number of grants since the start, promotions included.
    pub fn grants(&self) -> u64 {
        self.lock_grants_total.all().map(IntCounter::get).sum()
    }

    /// Counts the end of a lease.
    pub fn ended(&self, end: LeaseEnd, held: Millis) {
        self.lock_ends_total[end as usize].mine().inc();
        self.lock_held_seconds.mine().observe(held as f64 / 1e3);
    }

    /// Number of held locks of live actors and of dormant resources.
    pub fn held(&self) -> i64 {
        self.locks_held.all().map(IntGauge::get).sum()
    }

    /// Counts an error of the store.
    pub fn store_failed(&self, error: &StoreError) {
        let kind = match error {
            StoreError::Standby => ERROR_KINDS[0],
            StoreError::Unavailable(_) => ERROR_KINDS[1],
            StoreError::Rejected(_) => ERROR_KINDS[2],
            StoreError::Unusable(_) => ERROR_KINDS[3],
            StoreError::TooSlow(_) => ERROR_KINDS[4],
        };
        self.store_errors_total.with_label_values(&[kind]).inc();
    }

    /// All metrics, in the Prometheus text format.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
