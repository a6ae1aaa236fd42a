//! The rate limit: requests per second, key and client address. Keys that are wrong have a limit of their
//! own, per address and a tenth as high; an address that exceeds it is locked out for a moment, except with
//! keys that were right from there before, and with live tickets.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::auth::{KeyId, Keys, Right};

/// Every so many requests those are forgotten that have not asked for a while.
const FORGET_EVERY: u32 = 4096;
/// Pairs of key and address that are known to be good, and addresses that are locked out; past that they
/// are forgotten.
const REMEMBERED_MAX: usize = 65_536;
/// Wrong keys that an address may present at once.
const WRONG_AT_ONCE: u32 = 5;

type PerClient = RateLimiter<
    (KeyId, IpAddr),
    DashMapStateStore<(KeyId, IpAddr)>,
    DefaultClock,
    StateInformationMiddleware,
>;

/// Where a client stands, for the `RateLimit-*` headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub limit: u32,
    pub remaining: u32,
    /// Until the whole limit is there again, in whole seconds, rounded up.
    pub reset_seconds: u64,
}

/// Whether a request may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `None`: a request without a valid key, which is refused for that.
    Pass(Option<Standing>),
    Limited {
        standing: Standing,
        retry_after: Duration,
        /// The right of its key, if it is a valid one.
        right: Option<Right>,
    },
}

/// The counters; one for all workers.
pub struct RateLimit {
    per_second: NonZeroU32,
    clock: DefaultClock,
    requests: PerClient,
    wrong_keys: DefaultKeyedRateLimiter<IpAddr>,
    checks: AtomicU32,
    proven: RwLock<HashSet<(KeyId, IpAddr)>>,
    any_locked_out: AtomicBool,
    locked_out: Mutex<HashMap<IpAddr, Instant>>,
}

impl RateLimit {
    /// `None` for 0: no limit.
    pub fn new(per_second: u32) -> Option<RateLimit> {
        let per_second = NonZeroU32::new(per_second)?;
        let tenth = NonZeroU32::new(per_second.get() / 10).unwrap_or(NonZeroU32::MIN);
        let wrong_at_once = NonZeroU32::new(WRONG_AT_ONCE).unwrap_or(NonZeroU32::MIN);
        let requests = RateLimiter::dashmap(Quota::per_second(per_second));
        Some(RateLimit {
            per_second,
            clock: DefaultClock::default(),
            requests: requests.with_middleware(),
            wrong_keys: RateLimiter::keyed(Quota::per_second(tenth).allow_burst(wrong_at_once)),
            checks: AtomicU32::new(0),
            proven: RwLock::default(),
            any_locked_out: AtomicBool::new(false),
            locked_out: Mutex::default(),
        })
    }

    pub fn per_second(&self) -> u32 {
        self.per_second.get()
    }

    /// Counts a request. `client` is what counts as one client (see [`client`](super::client)).
    pub fn check(&self, keys: &Keys, presented: Option<&[u8]>, client: IpAddr) -> Verdict {
        self.forget();
        let known = presented.and_then(|key| keys.identify(key));
        let locked_out = self.locked_out_for(client);
        match (known, locked_out) {
            (Some((id, right)), None) => {
                self.prove(id, client);
                self.count(id, right, client)
            }
            (Some((id, right)), Some(_)) if self.is_proven(id, client) => {
                self.count(id, right, client)
            }
            // A guess, for all that is known. Whoever made it is not told whether it was right, unless a live
            // ticket comes with it, which is harder to guess.
            (known, Some(left)) => self.limited(left, known.map(|(_, right)| right)),
            (None, None) => self.count_wrong_key(client),
        }
    }

    fn count(&self, id: KeyId, right: Right, client: IpAddr) -> Verdict {
        match self.requests.check_key(&(id, client)) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                Verdict::Pass(Some(self.standing(remaining)))
            }
            Err(until) => self.limited(until.wait_time_from(self.clock.now()), Some(right)),
        }
    }

    fn count_wrong_key(&self, client: IpAddr) -> Verdict {
        match self.wrong_keys.check_key(&client) {
            Ok(()) => Verdict::Pass(None),
            Err(until) => {
                let left = until.wait_time_from(self.clock.now());
                self.lock_out(client, left);
                self.limited(left, None)
            }
        }
    }

    fn limited(&self, retry_after: Duration, right: Option<Right>) -> Verdict {
        Verdict::Limited {
            standing: self.standing(0),
            retry_after,
            right,
        }
    }

    fn standing(&self, remaining: u32) -> Standing {
        let limit = self.per_second();
        let used = limit.saturating_sub(remaining);
        Standing {
            limit,
            remaining,
            reset_seconds: u64::from(used.div_ceil(limit)),
        }
    }

    fn is_proven(&self, id: KeyId, client: IpAddr) -> bool {
        let proven = self.proven.read().unwrap_or_else(PoisonError::into_inner);
        proven.contains(&(id, client))
    }

    fn prove(&self, id: KeyId, client: IpAddr) {
        if self.is_proven(id, client) {
            return;
        }
        let mut proven = self.proven.write().unwrap_or_else(PoisonError::into_inner);
        if proven.len() >= REMEMBERED_MAX {
            proven.clear();
        }
        proven.insert((id, client));
    }

    fn locked_out_for(&self, client: IpAddr) -> Option<Duration> {
        if !self.any_locked_out.load(Ordering::Acquire) {
            return None;
        }
        let now = Instant::now();
        let mut locked_out = self.locked_out();
        let left = locked_out.get(&client)?.checked_duration_since(now);
        if left.is_none() {
            locked_out.remove(&client);
            self.any_locked_out
                .store(!locked_out.is_empty(), Ordering::Release);
        }
        left
    }

    fn lock_out(&self, client: IpAddr, left: Duration) {
        let mut locked_out = self.locked_out();
        if locked_out.len() >= REMEMBERED_MAX {
            let now = Instant::now();
            locked_out.retain(|_, until| *until > now);
            if locked_out.len() >= REMEMBERED_MAX {
                locked_out.clear();
            }
        }
        locked_out.insert(client, Instant::now() + left);
        self.any_locked_out.store(true, Ordering::Release);
    }

    fn locked_out(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, Instant>> {
        self.locked_out
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A client that has not asked for long enough to have its whole limit again is as good as unknown.
    fn forget(&self) {
        let checks = self.checks.fetch_add(1, Ordering::Relaxed);
        if checks % FORGET_EVERY == FORGET_EVERY - 1 {
            self.requests.retain_recent();
            self.requests.shrink_to_fit();
            self.wrong_keys.retain_recent();
            self.wrong_keys.shrink_to_fit();
        }
    }

    /// Clients that are remembered, for tests of the bound.
    #[cfg(test)]
    fn remembered(&self) -> usize {
        self.requests.len() + self.wrong_keys.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        let mut keys = Keys::default();
        keys.add("read", Right::Read);
        keys.add("write", Right::Write);
        keys
    }

    fn client(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn passes(limit: &RateLimit, key: &str, client: IpAddr) -> bool {
        matches!(
            limit.check(&keys(), Some(key.as_bytes()), client),
            Verdict::Pass(_)
        )
    }

    /// How many of `tries` requests pass; a slow machine can let one or two more pass than the limit.
    fn passed(limit: &RateLimit, key: &str, client: IpAddr, tries: usize) -> usize {
        (0..tries).filter(|_| passes(limit, key, client)).count()
    }

    #[test]
    fn zero_is_no_limit() {
        assert!(RateLimit::new(0).is_none());
    }

    #[test]
    fn each_key_and_each_address_has_a_limit_of_its_own() {
        let limit = RateLimit::new(1).unwrap();
        assert!(passes(&limit, "read", client(1)));
        assert!(passes(&limit, "write", client(1)));
        assert!(passes(&limit, "read", client(2)));
        assert!(passed(&limit, "read", client(1), 1_000) < 900);
    }

    #[test]
    fn a_limited_client_is_told_when_to_come_back() {
        let limit = RateLimit::new(2).unwrap();
        let mut last = limit.check(&keys(), Some(b"read"), client(1));
        for _ in 0..1_000 {
            last = limit.check(&keys(), Some(b"read"), client(1));
            if matches!(last, Verdict::Limited { .. }) {
                break;
            }
        }
        let Verdict::Limited {
            standing,
            retry_after,
            right,
        } = last
        else {
            panic!("{last:?}");
        };
        assert_eq!(standing.limit, 2);
        assert_eq!(standing.remaining, 0);
        assert_eq!(standing.reset_seconds, 1);
        assert!(retry_after <= Duration::from_millis(500), "{retry_after:?}");
        assert_eq!(right, Some(Right::Read));
    }

    #[test]
    fn wrong_keys_are_throttled_harder_and_so_are_right_ones_that_may_be_guesses() {
        let limit = RateLimit::new(1_000_000).unwrap();
        assert!(passes(&limit, "read", client(1)));
        let slow = RateLimit::new(10).unwrap();
        assert!(passes(&slow, "read", client(1)), "proven before");
        assert!(passed(&slow, "wrong", client(1), 200) < 100);
        // Locked out now: a key that was right before still is, another one counts as a guess. Its right is for
        // whoever comes with a live ticket, too.
        assert!(passes(&slow, "read", client(1)));
        let mut limited = false;
        for _ in 0..200 {
            passes(&slow, "wrong", client(1));
            let guess = slow.check(&keys(), Some(b"write"), client(1));
            let right = Some(Right::Write);
            limited |= matches!(guess, Verdict::Limited { right: found, .. } if found == right)
                && !slow.is_proven(keys().identify(b"write").unwrap().0, client(1));
        }
        assert!(limited);
        assert!(
            passes(&slow, "write", client(2)),
            "others are not concerned"
        );
    }

    #[test]
    fn clients_that_stay_away_are_forgotten() {
        let limit = RateLimit::new(1_000_000_000).unwrap();
        let keys = keys();
        for n in 0..100_000u32 {
            let client = IpAddr::from(n.to_be_bytes());
            limit.check(&keys, Some(b"read"), client);
        }
        assert!(
            limit.remembered() <= 2 * FORGET_EVERY as usize,
            "{}",
            limit.remembered()
        );
        assert!(limit.proven.read().unwrap().len() <= REMEMBERED_MAX);
    }
}
