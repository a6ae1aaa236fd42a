//! The last leases of each name: who had it, for how long, how it ended.
//!
//! A lease that ends is written down here, in memory; what is new is handed to the store every few seconds, so that
//! locks cost no more for it. A crash loses what was not handed over yet, and nothing else depends on it. The
//! leases of ephemeral names stay here alone, for an hour at most.

use std::collections::VecDeque;

use foldhash::HashMap;

use crate::lock::{Millis, ResourceName};
use crate::metrics::per_thread::PerThread;
use crate::store::history::{PastLease, PastLeases, append};
use crate::store::{Store, StoreError};
use parking_lot::{Mutex, MutexGuard};

/// Leases of one thread that are not put to those of their names yet: some seconds' worth, so that this is seldom done
/// by the threads that end leases.
const RECENT_MAX: usize = 32_768;
/// Names that have news for the store, or are ephemeral; what comes beyond is not kept.
const NAMES_MAX: usize = 262_144;
/// How long the leases of an ephemeral name are kept.
const EPHEMERAL_MS: Millis = 3_600_000;

/// A lease that has just ended.
struct EndedLease {
    name: ResourceName,
    lease: PastLease,
    ephemeral: bool,
    /// On the monotonic clock.
    ended: Millis,
}

struct Past {
    /// Oldest first, each with the time of its end.
    leases: VecDeque<(Millis, PastLease)>,
    /// `None`: handed to the store and forgotten here. `Some`: kept here, until then.
    until: Option<Millis>,
}

type Table = HashMap<ResourceName, Past>;

/// One for each server.
pub struct History {
    per_resource: usize,
    /// What ended last, oldest first: threads that end leases do not wait for each other.
    recent: PerThread<Mutex<Vec<EndedLease>>>,
    past: Mutex<Table>,
}

impl History {
    /// `per_resource`: leases that are kept of each name; 0: none.
    pub fn new(per_resource: usize) -> History {
        History {
            per_resource,
            recent: PerThread::new(Mutex::default),
            past: Mutex::default(),
        }
    }

    /// Leases that are kept of each name.
    pub fn per_resource(&self) -> usize {
        self.per_resource
    }

    /// A lease of this name has ended. `ephemeral`: the store is to know nothing of it. `now`: monotonic.
    pub fn ended(&self, name: &ResourceName, lease: PastLease, ephemeral: bool, now: Millis) {
        if self.per_resource == 0 {
            return;
        }
        let mut recent = self.recent.mine().lock();
        recent.push(EndedLease {
            name: name.clone(),
            lease,
            ephemeral,
            ended: now,
        });
        // Nobody waits for one who looks through all of them.
        if recent.len() >= RECENT_MAX
            && let Some(mut past) = self.past.try_lock()
        {
            self.sort(&mut past, std::mem::take(&mut recent));
        }
    }

    /// Puts leases that have ended to those of their names.
    fn sort(&self, past: &mut Table, recent: Vec<EndedLease>) {
        for ended in recent {
            let until = ended.ephemeral.then_some(ended.ended + EPHEMERAL_MS);
            if past.len() >= NAMES_MAX && !past.contains_key(&ended.name) {
                continue;
            }
            let past = past.entry(ended.name).or_insert_with(|| Past {
                leases: VecDeque::with_capacity(1),
                until,
            });
            past.until = until;
            // A name's actor may have lived on another thread before.
            let later = past.leases.iter().rev();
            let later = later.take_while(|(at, _)| *at > ended.ended).count();
            let place = past.leases.len() - later;
            past.leases.insert(place, (ended.ended, ended.lease));
            if past.leases.len() > self.per_resource {
                past.leases.pop_front();
            }
        }
    }

    /// All that is known here, sorted.
    fn sorted(&self) -> MutexGuard<'_, Table> {
        let mut past = self.past.lock();
        for recent in self.recent.all() {
            let mut recent = recent.lock();
            let as_many = Vec::with_capacity(recent.len());
            let leases = std::mem::replace(&mut *recent, as_many);
            // Nobody waits for this to end leases.
            drop(recent);
            self.sort(&mut past, leases);
        }
        past
    }

    /// Hands the store what it does not have yet. Not to be called while an earlier call is under way.
    ///
    /// # Errors
    /// Those of [`Store::append_history`]; then it stays here for the next time.
    pub async fn hand_over(&self, store: &dyn Store, now: Millis) -> Result<(), StoreError> {
        let news = self.news(now);
        if !news.is_empty() {
            store.append_history(&news, self.per_resource).await?;
            self.handed_over(&news);
        }
        Ok(())
    }

    /// What is to be handed to the store; it stays readable here until [`History::handed_over`]. Ephemeral names
    /// whose time is over are forgotten.
    fn news(&self, now: Millis) -> PastLeases {
        let mut past = self.sorted();
        past.retain(|_, past| past.until.is_none_or(|until| until > now));
        let stored = past.iter().filter(|(_, past)| past.until.is_none());
        stored
            .map(|(name, past)| (name.clone(), past.leases().collect()))
            .collect()
    }

    /// The store has these.
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

    /// The last leases of a name, newest first: `stored`, as the store has them (oldest first), and what it does
    /// not have yet. To be asked with what the store answered *after* `known`, or something handed over in
    /// between is missed.
    pub fn merged(&self, known: &[PastLease], stored: Vec<PastLease>) -> Vec<PastLease> {
        let mut leases = stored;
        append(&mut leases, known, self.per_resource);
        leases.reverse();
        leases
    }

    /// What is known here of a name, oldest first.
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
        let off = History::new(0);
        off.ended(&name("a"), lease(1), false, 0);
        assert!(off.known(&name("a")).is_empty());
    }
}
