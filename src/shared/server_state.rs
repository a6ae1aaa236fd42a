//! What actors and HTTP workers share: settings, clock, gate, counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::lock::{FencingToken, Millis, Now, Profile, RequestId, Terms, Ticket};
use crate::logging;
use crate::metrics::Metrics;
use crate::shared::audit_log::EventLog;
use crate::shared::cache_budget::DataBudget;
use crate::shared::event_feed::EventFeed;
use crate::shared::gate::{Closed, Gate};
use crate::shared::history::History;
use crate::shared::liveness::{Failure, Liveness};
use crate::shared::lost_tickets::LostTickets;
use crate::shared::members::View;
use crate::shared::slots::Slots;
use crate::shared::undelivered_grants::UndeliveredGrants;
use crate::store::Store;

/// The wall clock; zero if it stands before 1970.
fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// When the last millisecond of the wall clock began.
fn last_millisecond() -> Instant {
    let now = Instant::now();
    let begun = Duration::from_nanos((since_epoch().subsec_nanos() % 1_000_000).into());
    now.checked_sub(begun).unwrap_or(now)
}

/// What the clocks show. `passed`: since the start, which is at a whole millisecond of the wall clock.
fn now(passed: Duration, wall: Duration) -> Now {
    let mono = passed.as_millis() as u64;
    // What the wall clock showed at the start, rounded, because the clocks are not read at one instant.
    let started = wall.saturating_sub(passed) + Duration::from_micros(500);
    Now {
        mono,
        wall: started.as_millis() as u64 + mono,
    }
}

/// The actors without which no request is served, by their names in the log.
pub const PERSISTENCE: &str = "the actor that writes to the store";
pub const REGISTRY: &str = "the actor that finds resources";

/// Settings of the server.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The compatibility profile. `None`: the one that the store has recorded, else the default.
    pub compatibility: Option<Profile>,
    /// The core's terms, with the profile to begin with: see [`ServerState::terms`].
    pub terms: Terms,
    /// How long GET `lock=1` and lock wait for a lock if the request does not say.
    pub wait_ms: Millis,
    /// Time limit of a commit and of a load. Opening the store is never cut short.
    pub store_timeout_ms: Millis,
    /// Time limit of a listing.
    pub listing_timeout_ms: Millis,
    /// Maximum number of open requests that wait for a lock.
    pub waiters_max: usize,
    /// Maximum number of documents per resource.
    pub selectors_max: usize,
    /// Maximum size of the JSON that all actors together keep in memory, in bytes.
    pub data_cache_bytes: usize,
    /// Number of past leases that are kept of each name; 0: none.
    pub history_per_resource: usize,
    /// How long an actor stays in memory that is idle and unwatched.
    pub retire_ms: Millis,
}

/// One per server; every actor and worker has an `Arc` of it.
pub struct ServerState {
    pub settings: ServerSettings,
    /// When the monotonic clock was zero.
    start: Instant,
    pub gate: Gate,
    pub liveness: Liveness,
    /// The instances, as this one sees them. Tasks that wait for a change subscribe to it.
    pub members: watch::Sender<View>,
    pub slots: Slots,
    pub undelivered_grants: UndeliveredGrants,
    pub store: Arc<dyn Store>,
    pub budget: Mutex<DataBudget>,
    pub metrics: Metrics,
    pub events: EventLog,
    pub feed: EventFeed,
    pub history: History,
    pub lost_tickets: Mutex<LostTickets>,
    /// Permit to have the registry go through all locks in memory, which takes long if there are many. There
    /// is one, so other messages to the registry wait for one such pass at most.
    pub surveys: Semaphore,
    php: AtomicBool,
    requests: AtomicU64,
    waiters: Arc<Semaphore>,
    /// Requests that wait for a reply: one count per worker, so that workers do not contend for a cache line.
    in_flight: Mutex<Vec<Arc<AtomicUsize>>>,
    token_floor: AtomicU64,
    leases_from: AtomicU64,
    incarnation: AtomicU64,
}

impl ServerState {
    pub fn new(settings: ServerSettings, store: Arc<dyn Store>) -> ServerState {
        ServerState {
            budget: Mutex::new(DataBudget::new(settings.data_cache_bytes)),
            history: History::new(settings.history_per_resource),
            php: AtomicBool::new(settings.terms.profile == Profile::Php),
            waiters: Arc::new(Semaphore::new(settings.waiters_max)),
            settings,
            metrics: Metrics::new(store.kind()),
            events: EventLog::default(),
            feed: EventFeed::default(),
            lost_tickets: Mutex::default(),
            surveys: Semaphore::new(1),
            start: last_millisecond(),
            gate: Gate::default(),
            liveness: Liveness::default(),
            members: watch::Sender::default(),
            slots: Slots::default(),
            undelivered_grants: UndeliveredGrants::default(),
            store,
            requests: AtomicU64::new(1),
            in_flight: Mutex::default(),
            token_floor: AtomicU64::new(0),
            leases_from: AtomicU64::new(0),
            incarnation: AtomicU64::new(0),
        }
    }

    /// The monotonic clock, in milliseconds. It starts near zero with the process.
    pub fn mono(&self) -> Millis {
        self.start.elapsed().as_millis() as u64
    }

    /// The monotonic clock and the wall clock. Both change at the same instants: a time of the one, worked out from a time
    /// of the other, is the same whenever it is worked out, until somebody sets the wall clock.
    pub fn now(&self) -> Now {
        now(self.start.elapsed(), since_epoch())
    }

    /// Resolves when this process cannot go on: see [`Liveness::failure`].
    pub async fn failure(&self) -> Failure {
        // A file system that hangs blocks the thread of this actor; the registry handles that.
        let is_excused = |part: &str| part == PERSISTENCE && !self.store.blocks_for().is_zero();
        self.liveness.failure(is_excused).await
    }

    /// The profile in force. It can change only while the gate is closed.
    pub fn profile(&self) -> Profile {
        if self.php.load(Ordering::Acquire) {
            Profile::Php
        } else {
            Profile::Default
        }
    }

    /// The terms that the core gets with each command.
    pub fn terms(&self) -> Terms {
        Terms {
            profile: self.profile(),
            ..self.settings.terms
        }
    }

    /// Applies the profile that the store has recorded, unless the settings name one.
    pub fn use_recorded_profile(&self, recorded: Option<Profile>) {
        if self.settings.compatibility.is_some() {
            return;
        }
        let profile = recorded.unwrap_or_default();
        if profile == Profile::Php && self.profile() != Profile::Php {
            log::warn!(
                "COMPATIBILITY is not set and the database was written by the PHP server: the profile \
                 is php. Resource timeouts are waits and leases do not expire unless a ttl is given; set \
                 COMPATIBILITY=default when no client depends on that any more"
            );
        }
        self.php.store(profile == Profile::Php, Ordering::Release);
    }

    /// Takes `count` request ids that are unique in this process: the returned one and those after it.
    pub fn next_requests(&self, count: u64) -> RequestId {
        self.requests.fetch_add(count, Ordering::Relaxed)
    }

    /// A new ticket from a cryptographic generator that the operating system seeds.
    pub fn fresh_ticket(&self) -> Ticket {
        Ticket::from_bits(rand::random())
    }

    /// A permit for one more request that waits for a lock. `None`: `waiters_max` wait already.
    pub fn add_waiter(&self) -> Option<OwnedSemaphorePermit> {
        self.waiters.clone().try_acquire_owned().ok()
    }

    /// Number of open requests that wait for a lock.
    pub fn waiters(&self) -> usize {
        self.settings.waiters_max - self.waiters.available_permits()
    }

    /// Whether a load balancer should send requests here. Requests for names of other instances are forwarded.
    ///
    /// # Errors
    /// Why it should not.
    pub fn check_ready(&self) -> Result<(), Closed> {
        self.gate.check_ready()?;
        match self.slots.are_shared() {
            true => self.members.borrow().check_ready(),
            false => Ok(()),
        }
    }

    /// All metrics, in the Prometheus text format.
    ///
    /// # Errors
    /// As [`Metrics::render`].
    pub fn render_metrics(&self) -> Result<String, prometheus::Error> {
        let ready = self.check_ready();
        let standby = self.gate.check_ready() == Err(Closed::Standby);
        let metrics = &self.metrics;
        metrics.waiters.set(self.waiters() as i64);
        metrics.waiters_max.set(self.settings.waiters_max as i64);
        let bytes = self.budget.lock().used();
        metrics.data_cache_bytes.set(bytes as i64);
        let bytes_max = self.settings.data_cache_bytes;
        metrics.data_cache_bytes_max.set(bytes_max as i64);
        let pending = self.store.pending();
        metrics.store_pending_resources.set(pending as i64);
        metrics.ready.set(ready.is_ok().into());
        metrics.active.set(self.gate.check_answer().is_ok().into());
        metrics.standby.set(standby.into());
        let dropped = &metrics.log_lines_dropped_total;
        dropped.inc_by(logging::dropped_lines().saturating_sub(dropped.get()));
        metrics.render()
    }

    /// Hands the store the past leases that it does not have yet; see [`History::hand_over`].
    pub async fn hand_over_history(&self) -> bool {
        let now = self.mono();
        self.history.hand_over(self.store.as_ref(), now).await
    }

    /// Adds a counter of requests that wait for a reply, for a new worker.
    pub fn count_in_flight(&self) -> Arc<AtomicUsize> {
        let count = Arc::new(AtomicUsize::new(0));
        let mut counts = self.in_flight.lock();
        counts.push(count.clone());
        count
    }

    /// Number of requests of all workers that wait for a reply.
    pub fn in_flight(&self) -> usize {
        let counts = self.in_flight.lock();
        counts
            .iter()
            .map(|count| count.load(Ordering::Acquire))
            .sum()
    }

    /// The highest fencing token that any deleted resource reached.
    pub fn token_floor(&self) -> FencingToken {
        FencingToken(self.token_floor.load(Ordering::Acquire))
    }

    /// Raises the token floor to this token, if it is lower.
    pub fn raise_token_floor(&self, token: FencingToken) {
        self.token_floor.fetch_max(token.0, Ordering::AcqRel);
    }

    /// When the TTL of a lease that is read from the store begins, on the monotonic clock: the last time at
    /// which an actor, and with it the true expiry of its lease, may have been lost.
    pub fn leases_from(&self) -> Millis {
        self.leases_from.load(Ordering::Acquire)
    }

    /// Sets [`ServerState::leases_from`] to now.
    pub fn restart_leases(&self) {
        self.leases_from.fetch_max(self.mono(), Ordering::AcqRel);
    }

    /// Grows when the store is opened or lost. The memory of actors of an earlier incarnation is not valid.
    pub fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Acquire)
    }

    pub fn next_incarnation(&self) {
        self.incarnation.fetch_add(1, Ordering::AcqRel);
        self.restart_leases();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_change_at_the_same_instants() {
        let start = Duration::from_millis(1_700_000_000_000);
        for micros in (0..10_000).step_by(37) {
            let passed = Duration::from_micros(micros);
            // The wall clock is read a little later.
            for later in [0, 1, 499] {
                let now = now(passed, start + passed + Duration::from_micros(later));
                assert_eq!(
                    now.wall - now.mono,
                    start.as_millis() as u64,
                    "{micros} {later}"
                );
            }
        }
    }
}
