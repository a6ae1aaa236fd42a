//! The last leases of each name: who held it, for how long, and how each lease ended.
//!
//! A lease that ends is noted here, in memory; new leases are handed to the store every few seconds, so that
//! locking costs no more. A crash loses the leases that were not handed over yet; nothing else depends on them.
//! The leases of ephemeral names are kept here only, for an hour at most.

use std::collections::VecDeque;

use foldhash::HashMap;

use crate::lock::{Millis, ResourceName};
use crate::metrics::per_thread::PerThread;
use crate::store::Store;
use crate::store::history::{PastLease, PastLeases, append};
use parking_lot::{Mutex, MutexGuard};

/// Number of ended leases that a thread collects before they are sorted into the table: enough for some
/// seconds, so that the threads that end leases seldom do the sorting.
const RECENT_MAX: usize = 32_768;
/// Maximum number of names in the table: those with leases that the store does not have yet, and ephemeral
/// ones. The leases of further names are not kept.
const NAMES_MAX: usize = 262_144;
/// How long the leases of an ephemeral name are kept, in milliseconds.
const EPHEMERAL_MS: Millis = 3_600_000;

/// When a lease ended, on the monotonic clock, and the lease.
type EndedLease = (Millis, PastLease);

/// The leases of one name.
struct Past {
    /// Oldest first.
    leases: VecDeque<EndedLease>,
    /// Until when the leases of an ephemeral name are kept. `None`: until the store has them.
    until: Option<Millis>,
}

type Table = HashMap<ResourceName, Past>;

/// A lease that has just ended: its name, `until` as in [`Past`], and the lease.
type Recent = (ResourceName, Option<Millis>, EndedLease);

/// The past leases in memory; one per server.
pub struct History {
    /// Number of leases that are kept of each name; 0: none.
    pub per_resource: usize,
    /// The leases that ended last, oldest first, by thread: threads that end leases do not wait for each other.
    recent: PerThread<Mutex<Vec<Recent>>>,
    past: Mutex<Table>,
}

impl History {
    pub fn new(per_resource: usize) -> History {
        History {
            per_resource,
            recent: PerThread::new(Mutex::default),
            past: Mutex::default(),
        }
    }

    /// Notes a lease of this name that has ended. `ephemeral`: it is not handed to the store. `now`: monotonic.
    pub fn ended(&self, name: &ResourceName, lease: PastLease, ephemeral: bool, now: Millis) {
        if self.per_resource == 0 {
            return;
        }
        let mut recent = self.recent.mine().lock();
        let until = ephemeral.then_some(now + EPHEMERAL_MS);
        recent.push((name.clone(), until, (now, lease)));
        // Does not wait while another thread sorts or reads the table.
        if recent.len() >= RECENT_MAX
            && let Some(mut past) = self.past.try_lock()
        {
            self.sort(&mut past, std::mem::take(&mut recent));
        }
    }

    /// Sorts ended leases into the table.
    fn sort(&self, past: &mut Table, recent: Vec<Recent>) {
        for (name, until, (ended, lease)) in recent {
            if past.len() >= NAMES_MAX && !past.contains_key(&name) {
                continue;
            }
            let past = past.entry(name).or_insert_with(|| Past {
                leases: VecDeque::with_capacity(1),
                until,
            });
            past.until = until;
            // The actor of a name may have moved between threads, so an earlier lease can come later.
            let later = past.leases.iter().rev();
            let later = later.take_while(|(at, _)| *at > ended).count();
            let place = past.leases.len() - later;
            past.leases.insert(place, (ended, lease));
            if past.leases.len() > self.per_resource {
                past.leases.pop_front();
            }
        }
    }

    /// The table, after the leases of all threads were sorted into it.
    fn sorted(&self) -> MutexGuard<'_, Table> {
        let mut past = self.past.lock();
        for recent in self.recent.all() {
            let mut recent = recent.lock();
            let as_many = Vec::with_capacity(recent.len());
            let leases = std::mem::replace(&mut *recent, as_many);
            // Unlocked before the sorting, so that its thread can end leases meanwhile.
            drop(recent);
            self.sort(&mut past, leases);
        }
        past
    }

    /// Hands the store the leases that it does not have yet. Those that it cannot take stay here until the next call:
    /// nothing but the history depends on it. Returns whether the store took them all. Not to be called while an
    /// earlier call is under way, and not to be cancelled: it may be in a transaction.
    pub async fn hand_over(&self, store: &dyn Store, now: Millis) -> bool {
        let news = self.news(now);
        if news.is_empty() {
            return true;
        }
        match store.append_history(&news, self.per_resource).await {
            Ok(()) => {
                self.handed_over(&news);
                true
            }
            Err(error) => {
                log::debug!("past leases are not stored yet: {error}");
                false
            }
        }
    }

    /// The leases to hand to the store. Drops ephemeral names whose time is over.
    fn news(&self, now: Millis) -> PastLeases {
        let mut past = self.sorted();
        past.retain(|_, past| past.until.is_none_or(|until| until > now));
        let stored = past.iter().filter(|(_, past)| past.until.is_none());
        stored
            .map(|(name, past)| (name.clone(), past.leases().collect()))
            .collect()
    }

    /// Removes leases that the store has now.
    fn handed_over(&self, news: &PastLeases) {
        let mut table = self.past.lock();
        for (name, leases) in news {
            let Some(past) = table.get_mut(name).filter(|past| past.until.is_none()) else {
                continue;
            };
            let had = |token| leases.iter().any(|lease| lease.fencing_token == token);
            past.leases.retain(|(_, lease)| !had(lease.fencing_token));
            if past.leases.is_empty() {
                table.remove(name);
            }
        }
    }

    /// The last leases of a name, newest first: `stored` (from the store, oldest first), and those of `known`
    /// that are not among them. `stored` has to be read *after* `known`, or leases that are handed over in
    /// between are missed.
    pub fn merged(&self, known: &[PastLease], stored: Vec<PastLease>) -> Vec<PastLease> {
        let mut leases = stored;
        append(&mut leases, known, self.per_resource);
        leases.reverse();
        leases
    }

    /// The leases of a name that are in memory, oldest first.
    pub fn known(&self, name: &ResourceName) -> Vec<PastLease> {
        let past = self.sorted();
        let leases = past.get(name).map(|past| past.leases().collect());
        leases.unwrap_or_default()
    }
}

impl Past {
    fn leases(&self) -> impl Iterator<Item = PastLease> + '_ {
        self.leases.iter().map(|(_, lease)| lease.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Mode;
    use crate::store::history::LeaseEnd;

    fn name(text: &str) -> ResourceName {
        ResourceName::parse(text).unwrap()
    }

    fn lease(token: u64) -> PastLease {
        PastLease {
            owner: None,
            reason: None,
            mode: Mode::Exclusive,
            fencing_token: token,
            acquired_at: token * 10,
            ended_at: token * 10 + 5,
            end: LeaseEnd::Released,
            forced: None,
            queued_ms: 0,
        }
    }

    fn tokens(leases: &[PastLease]) -> Vec<u64> {
        leases.iter().map(|lease| lease.fencing_token).collect()
    }

    #[test]
    fn the_last_leases_of_a_name_are_kept_and_handed_to_the_store() {
        let history = History::new(3);
        for token in 1..=5 {
            history.ended(&name("a"), lease(token), false, 0);
        }
        assert_eq!(tokens(&history.known(&name("a"))), [3, 4, 5]);
        let news = history.news(0);
        history.ended(&name("a"), lease(6), false, 0);
        history.handed_over(&news);
        assert_eq!(
            tokens(&history.known(&name("a"))),
            [6],
            "what came meanwhile stays"
        );
        let merged = history.merged(&history.known(&name("a")), news[0].1.clone());
        assert_eq!(tokens(&merged), [6, 5, 4]);
        history.handed_over(&history.news(0));
        assert!(history.news(0).is_empty());
    }

    #[test]
    fn the_leases_of_an_ephemeral_name_stay_for_an_hour_and_never_reach_the_store() {
        let history = History::new(3);
        history.ended(&name("a"), lease(1), true, 0);
        assert!(history.news(EPHEMERAL_MS - 1).is_empty());
        assert_eq!(tokens(&history.known(&name("a"))), [1]);
        assert!(history.news(EPHEMERAL_MS).is_empty());
        assert!(history.known(&name("a")).is_empty());
    }

    #[test]
    fn leases_that_ended_on_several_threads_stand_in_the_order_of_their_ends() {
        let history = History::new(3);
        let a = name("a");
        history.ended(&a, lease(2), false, 20);
        history.ended(&a, lease(4), false, 40);
        let elsewhere = [(1, 10), (3, 30), (5, 50)];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for (token, ended) in elsewhere {
                    history.ended(&a, lease(token), false, ended);
                }
            });
        });
        assert_eq!(tokens(&history.known(&a)), [3, 4, 5]);
    }

    #[test]
    fn memory_is_bounded_whatever_ends() {
        let history = History::new(2);
        for n in 0..(NAMES_MAX * 2) as u64 {
            history.ended(&name(&n.to_string()), lease(1), false, 0);
        }
        assert!(history.sorted().len() <= NAMES_MAX);
    }
}
