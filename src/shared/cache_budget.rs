//! Limits how much JSON all resources together keep in memory.
//!
//! Every document that an actor keeps in memory is entered here. When their sum passes the limit, the actors of
//! the oldest entries get [`ResourceNotice::Evict`].

use std::collections::BTreeMap;

use actix::WeakRecipient;

use crate::lock::Selector;
use crate::shared::resource_notice::ResourceNotice;

/// The account of cached documents, in bytes.
#[derive(Default)]
pub struct DataBudget {
    max: usize,
    used: usize,
    /// For each document in memory its actor, selector and size, oldest first.
    by_stamp: BTreeMap<u64, (WeakRecipient<ResourceNotice>, Selector, usize)>,
    stamp: u64,
    /// Bytes of documents that actors were asked to drop and have not answered yet.
    asked_back: usize,
}

impl DataBudget {
    pub fn new(max: usize) -> DataBudget {
        DataBudget {
            max,
            ..DataBudget::default()
        }
    }

    pub fn used(&self) -> usize {
        self.used
    }

    /// Enters a document that came into memory. Returns the stamp that [`ResourceNotice::Evict`] will name.
    pub fn enter(
        &mut self,
        actor: WeakRecipient<ResourceNotice>,
        selector: Selector,
        bytes: usize,
    ) -> u64 {
        self.used += bytes;
        self.stamp += 1;
        let stamp = self.stamp;
        self.by_stamp.insert(stamp, (actor, selector, bytes));
        while self.used.saturating_sub(self.asked_back) > self.max {
            let Some((stamp, (actor, selector, bytes))) = self.by_stamp.pop_first() else {
                break;
            };
            if let Some(actor) = actor.upgrade() {
                self.asked_back += bytes;
                actor.do_send(ResourceNotice::Evict {
                    selector,
                    stamp,
                    bytes,
                });
            }
        }
        stamp
    }

    /// Removes the document with this stamp, which left memory.
    pub fn leave(&mut self, stamp: u64, bytes: usize) {
        self.used -= bytes;
        self.by_stamp.remove(&stamp);
    }

    /// An actor has handled a [`ResourceNotice::Evict`] of this many bytes, whether or not it dropped the document.
    pub fn answered(&mut self, bytes: usize) {
        self.asked_back = self.asked_back.saturating_sub(bytes);
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

    impl Handler<ResourceNotice> for Owner {
        type Result = ();

        fn handle(&mut self, _: ResourceNotice, _: &mut Self::Context) {}
    }

    #[test]
    fn a_document_that_is_written_again_and_again_is_entered_once() {
        let mut budget = DataBudget::new(1 << 20);
        let actor = Context::<Owner>::new().address().downgrade().recipient();
        let selector = Selector::parse("s").unwrap();
        let mut stamp = budget.enter(actor.clone(), selector.clone(), 10);
        for _ in 0..1000 {
            budget.leave(stamp, 10);
            stamp = budget.enter(actor.clone(), selector.clone(), 10);
        }
        assert_eq!(budget.used(), 10);
        assert_eq!(budget.by_stamp.len(), 1);
        budget.leave(stamp, 10);
        assert_eq!(budget.used(), 0);
        assert!(budget.by_stamp.is_empty());
    }
}
