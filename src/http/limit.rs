//! The rate limit: requests per second of each key from each client address. All wrong keys from one address
//! share one limit of the same size.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

/// Number of requests between two removals of idle counters.
const FORGET_EVERY: u32 = 4096;

/// What one counter belongs to: the index of a key (`None`: all wrong keys) and a client, as
/// [`counted_as`](super::client_address::counted_as) tells clients apart.
type Counted = (Option<usize>, IpAddr);

/// The counters, shared by all workers.
pub struct RateLimit {
    per_second: NonZeroU32,
    clock: DefaultClock,
    requests:
        RateLimiter<Counted, DashMapStateStore<Counted>, DefaultClock, StateInformationMiddleware>,
    checks: AtomicU32,
}

impl RateLimit {
    /// `None` for 0, which means no limit.
    pub fn new(per_second: u32) -> Option<RateLimit> {
        let per_second = NonZeroU32::new(per_second)?;
        Some(RateLimit {
            per_second,
            clock: DefaultClock::default(),
            requests: RateLimiter::dashmap(Quota::per_second(per_second)).with_middleware(),
            checks: AtomicU32::new(0),
        })
    }

    pub fn per_second(&self) -> u32 {
        self.per_second.get()
    }

    /// Counts a request. Returns how many more the client may send at once.
    ///
    /// # Errors
    /// The client has used up its limit: how long to wait before the next try.
    pub fn count(&self, counted: Counted) -> Result<u32, Duration> {
        self.forget();
        match self.requests.check_key(&counted) {
            Ok(state) => Ok(state.remaining_burst_capacity()),
            Err(until) => Err(until.wait_time_from(self.clock.now())),
        }
    }

    /// Once every [`FORGET_EVERY`] requests, removes the counters of clients that have their whole limit again:
    /// a new counter would say the same.
    fn forget(&self) {
        let checks = self.checks.fetch_add(1, Ordering::Relaxed);
        if checks % FORGET_EVERY == FORGET_EVERY - 1 {
            self.requests.retain_recent();
            self.requests.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_and_each_address_has_a_limit_of_its_own() {
        let limit = RateLimit::new(1).unwrap();
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        let passes = |key, last| limit.count((key, address(last))).is_ok();
        assert!(passes(Some(0), 1) && passes(Some(1), 1) && passes(Some(0), 2) && passes(None, 1));
        let passed = (0..1_000).filter(|_| passes(Some(0), 1)).count();
        assert!(passed < 900, "{passed}");
    }

    #[test]
    fn clients_that_stay_away_are_forgotten() {
        let limit = RateLimit::new(1_000_000_000).unwrap();
        for n in 0..100_000u32 {
            let _ = limit.count((Some(0), IpAddr::from(n.to_be_bytes())));
        }
        assert!(limit.requests.len() <= 2 * FORGET_EVERY as usize);
    }
}
