//! How much JSON all resources together keep in memory, and who gives some back when it is too much.
//!
//! Every document an actor keeps is entered here; when the sum passes the cap, the oldest entries are
//! asked back by a message to their actors, which may refuse (a document in use is entered again).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use actix::WeakAddr;

use super::messages::Evict;
use super::resource::ResourceActor;
use crate::lock::Selector;

struct Entry {
    actor: WeakAddr<ResourceActor>,
    selector: Selector,
    stamp: u64,
    bytes: usize,
}

#[derive(Default)]
struct Entries {
    queue: VecDeque<Entry>,
    stamp: u64,
    /// Bytes that were asked back and not answered for yet.
    asked_back: usize,
}

/// The account of cached documents, in bytes.
pub struct DataBudget {
    max: usize,
    used: AtomicUsize,
    entries: Mutex<Entries>,
}

impl DataBudget {
    pub fn new(max: usize) -> DataBudget {
        DataBudget {
            max,
            used: AtomicUsize::new(0),
            entries: Mutex::default(),
        }
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// A document came into memory. Returns the stamp that [`Evict`] will name.
    pub fn enter(&self, actor: WeakAddr<ResourceActor>, selector: Selector, bytes: usize) -> u64 {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.stamp += 1;
        let stamp = entries.stamp;
        entries.queue.push_back(Entry {
            actor,
            selector,
            stamp,
            bytes,
        });
        self.drop_stale(&mut entries);
        while used.saturating_sub(entries.asked_back) > self.max {
            let Some(entry) = entries.queue.pop_front() else {
                break;
            };
            if let Some(actor) = entry.actor.upgrade() {
                entries.asked_back += entry.bytes;
                actor.do_send(Evict {
                    selector: entry.selector,
                    stamp: entry.stamp,
                    bytes: entry.bytes,
                });
            }
        }
        stamp
    }

    /// Entries of actors that are gone do not pile up at the front.
    fn drop_stale(&self, entries: &mut Entries) {
        for _ in 0..2 {
            let gone = |entry: &Entry| entry.actor.upgrade().is_none();
            if entries.queue.front().is_some_and(gone) {
                entries.queue.pop_front();
            }
        }
    }

    /// A document left memory.
    pub fn leave(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// An [`Evict`] of this many bytes was dealt with, whatever came of it.
    pub fn answered(&self, bytes: usize) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.asked_back = entries.asked_back.saturating_sub(bytes);
    }
}
