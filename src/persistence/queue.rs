//! The commits that wait for the persistence actor.
//!
//! Not messages of their own: each would wake its thread, under load many times in the course of one
//! transaction, only to be put aside. So they wait here, and the actor is woken by [`CommitsWait`] only when it
//! has nothing under way; otherwise it looks here when that is done.

use std::sync::{Mutex, MutexGuard, PoisonError};

use actix::Addr;

use crate::resource::actor::ResourceActor;
use crate::store::Snapshot;

/// Store this; answered with [`Committed`](super::messages::Committed) or
/// [`Abandon`](super::messages::Abandon).
pub struct Commit {
    pub actor: Addr<ResourceActor>,
    pub incarnation: u64,
    pub seq: u64,
    pub snapshot: Snapshot,
}

/// Commits in the order in which they were handed in. No more than there are requests and deadlines.
#[derive(Default)]
pub struct CommitQueue(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    commits: Vec<Commit>,
    /// The persistence actor looks here before it rests.
    awake: bool,
}

impl CommitQueue {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `true`: the persistence actor rests and has to be sent [`CommitsWait`].
    #[must_use]
    pub fn push(&self, commit: Commit) -> bool {
        let mut queue = self.queue();
        queue.commits.push(commit);
        !std::mem::replace(&mut queue.awake, true)
    }

    /// For the persistence actor alone: everything that waits. It is awake from here on.
    pub fn take(&self) -> Vec<Commit> {
        let mut queue = self.queue();
        queue.awake = true;
        let room = queue.commits.len();
        std::mem::replace(&mut queue.commits, Vec::with_capacity(room))
    }

    /// For the persistence actor alone: it rests from here on, unless something waits.
    #[must_use]
    pub fn rest(&self) -> bool {
        let mut queue = self.queue();
        queue.awake = !queue.commits.is_empty();
        !queue.awake
    }
}

#[cfg(test)]
mod tests {
    use actix::{AsyncContext, Context};

    use super::*;
    use crate::lock::ResourceName;
    use crate::store::ResourceId;

    fn commit(seq: u64) -> Commit {
        let name = ResourceName::parse("a").unwrap();
        Commit {
            actor: Context::<ResourceActor>::new().address(),
            incarnation: 1,
            seq,
            snapshot: Snapshot::empty(name, ResourceId::new("1")),
        }
    }

    #[test]
    fn whoever_rests_is_woken_once_and_misses_nothing() {
        let queue = CommitQueue::default();
        assert!(queue.push(commit(1)), "it rests at first");
        assert!(!queue.push(commit(2)), "it is on its way");
        let taken = queue.take();
        assert_eq!(taken.iter().map(|c| c.seq).collect::<Vec<_>>(), [1, 2]);
        assert!(!queue.push(commit(3)), "it looks again before it rests");
        assert!(!queue.rest());
        assert_eq!(queue.take().len(), 1);
        assert!(queue.rest());
        assert!(queue.push(commit(4)));
    }
}
