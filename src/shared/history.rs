//! The last leases of each name: who had it, for how long, how it ended.
//!
//! A lease that ends is written down here, in memory; what is new is handed to the store every few seconds, so that
//! locks cost no more for it. A crash loses what was not handed over yet, and nothing else depends on it. The
//! leases of ephemeral names stay here alone, for an hour at most.

use std::collections::VecDeque;

use foldhash::HashMap;

use crate::lock::{Millis, ResourceName};
use crate::store::history::{PastLease, PastLeases, append};
use crate::store::{Store, StoreError};
use parking_lot::{Mutex, MutexGuard};

/// Names are spread over so many tables, so that workers seldom wait for each other.
const TABLES: usize = 64;
/// Names in one table that have news for the store, or are ephemeral; what comes beyond is not kept.
const NAMES_MAX: usize = 4096;
/// How long the leases of an ephemeral name are kept.
const EPHEMERAL_MS: Millis = 3_600_000;

struct Past {
    /// Oldest first.
    leases: VecDeque<PastLease>,
    /// `None`: handed to the store and forgotten here. `Some`: kept here, until then.
    until: Option<Millis>,
}

type Table = HashMap<ResourceName, Past>;

/// One for each server.
pub struct History {
    per_resource: usize,
    tables: Vec<Mutex<Table>>,
}

impl History {
    /// `per_resource`: leases that are kept of each name; 0: none.
    pub fn new(per_resource: usize) -> History {
        History {
            per_resource,
            tables: (0..TABLES).map(|_| Mutex::default()).collect(),
        }
    }

    /// Leases that are kept of each name.
    pub fn per_resource(&self) -> usize {
        self.per_resource
    }

    fn table(&self, name: &ResourceName) -> MutexGuard<'_, Table> {
        // Names that are chosen to meet in one table do no more than to fill it.
        let sum = |sum: usize, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte));
        let at = name.as_str().bytes().fold(0, sum) % TABLES;
        self.tables[at].lock()
    }

    /// A lease of this name has ended. `ephemeral`: the store is to know nothing of it. `now`: monotonic.
    pub fn ended(&self, name: &ResourceName, lease: PastLease, ephemeral: bool, now: Millis) {
        if self.per_resource == 0 {
            return;
        }
        let mut table = self.table(name);
        if let Some(past) = table.get_mut(name) {
            past.until = ephemeral.then_some(now + EPHEMERAL_MS);
            past.leases.push_back(lease);
            while past.leases.len() > self.per_resource {
                past.leases.pop_front();
            }
        } else if table.len() < NAMES_MAX {
            let past = Past {
                leases: VecDeque::from([lease]),
                until: ephemeral.then_some(now + EPHEMERAL_MS),
            };
            table.insert(name.clone(), past);
        }
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
        let mut news = PastLeases::new();
        for table in &self.tables {
            let mut table = table.lock();
            table.retain(|_, past| past.until.is_none_or(|until| until > now));
            let stored = table.iter().filter(|(_, past)| past.until.is_none());
            news.extend(
                stored.map(|(name, past)| (name.clone(), past.leases.iter().cloned().collect())),
            );
        }
        news
    }

    /// The store has these.
    fn handed_over(&self, news: &PastLeases) {
        for (name, leases) in news {
            let mut table = self.table(name);
            let Some(past) = table.get_mut(name).filter(|past| past.until.is_none()) else {
                continue;
            };
            let had = |token| leases.iter().any(|lease| lease.fencing_token == token);
            past.leases.retain(|lease| !had(lease.fencing_token));
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
        let table = self.table(name);
        let past = table.get(name);
        past.map(|past| past.leases.iter().cloned().collect())
            .unwrap_or_default()
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
            owner: Some("worker".to_owned()),
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
    fn memory_is_bounded_whatever_ends() {
        let history = History::new(2);
        for n in 0..(TABLES * NAMES_MAX * 2) as u64 {
            history.ended(&name(&n.to_string()), lease(1), false, 0);
        }
        let names: usize = history.tables.iter().map(|table| table.lock().len()).sum();
        assert!(names <= TABLES * NAMES_MAX);
        let off = History::new(0);
        off.ended(&name("a"), lease(1), false, 0);
        assert!(off.known(&name("a")).is_empty());
    }
}
