//! How much JSON all resources together keep in memory, and who gives some back when it is too much.
//!
//! Every document an actor keeps is entered here; when the sum passes the cap, the oldest entries are
//! asked back by a message to their actors, which let go as soon as the document may be spared.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::{Message, WeakRecipient};
use parking_lot::Mutex;

use crate::lock::Selector;

/// Give this document's memory back if it can be spared.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Evict {
    pub selector: Selector,
    pub stamp: u64,
    pub bytes: usize,
}

struct CachedDocument {
    actor: WeakRecipient<Evict>,
    selector: Selector,
    bytes: usize,
}

#[derive(Default)]
struct CachedDocuments {
    /// Oldest first. A document that leaves memory takes its entry along, so that there are never more
    /// entries than documents, however often one is written.
    by_stamp: BTreeMap<u64, CachedDocument>,
    stamp: u64,
    /// Bytes that were asked back and not answered for yet.
    asked_back: usize,
}

/// The account of cached documents, in bytes.
pub struct DataBudget {
    max: usize,
    used: AtomicUsize,
    entries: Mutex<CachedDocuments>,
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
    pub fn enter(&self, actor: WeakRecipient<Evict>, selector: Selector, bytes: usize) -> u64 {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let mut entries = self.entries.lock();
        entries.stamp += 1;
        let stamp = entries.stamp;
        let entry = CachedDocument {
            actor,
            selector,
            bytes,
        };
        entries.by_stamp.insert(stamp, entry);
        while used.saturating_sub(entries.asked_back) > self.max {
            let Some((stamp, entry)) = entries.by_stamp.pop_first() else {
                break;
            };
            if let Some(actor) = entry.actor.upgrade() {
                entries.asked_back += entry.bytes;
                actor.do_send(Evict {
                    selector: entry.selector,
                    stamp,
                    bytes: entry.bytes,
                });
            }
        }
        stamp
    }

    /// The document that was entered under this stamp left memory.
    pub fn leave(&self, stamp: u64, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        let mut entries = self.entries.lock();
        entries.by_stamp.remove(&stamp);
    }

    /// An [`Evict`] of this many bytes was dealt with, whatever came of it.
    pub fn answered(&self, bytes: usize) {
        let mut entries = self.entries.lock();
        entries.asked_back = entries.asked_back.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use actix::{Actor, AsyncContext, Context, Handler};

    use super::*;

    struct Owner;

    impl Actor for Owner {
        type Context = Context<Self>;
    }

    impl Handler<Evict> for Owner {
        type Result = ();

        fn handle(&mut self, _: Evict, _: &mut Self::Context) {}
    }

    #[test]
    fn a_document_that_is_written_again_and_again_is_entered_once() {
        let budget = DataBudget::new(1 << 20);
        let actor = Context::<Owner>::new().address().downgrade().recipient();
        let selector = Selector::parse("s").unwrap();
        let mut stamp = budget.enter(actor.clone(), selector.clone(), 10);
        for _ in 0..1000 {
            budget.leave(stamp, 10);
            stamp = budget.enter(actor.clone(), selector.clone(), 10);
        }
        assert_eq!(budget.used(), 10);
        assert_eq!(budget.entries.lock().by_stamp.len(), 1);
        budget.leave(stamp, 10);
        assert_eq!(budget.used(), 0);
        assert!(budget.entries.lock().by_stamp.is_empty());
    }
}
