//! The queue of commits: they are merged per name into batches, and each batch becomes one transaction.
//!
//! Resource actors push their commits here directly. As messages they would wake the persistence actor's thread, under
//! load many times during one transaction, only to be put aside. So that actor is sent [`CommitsWait`] only when it
//! is idle; otherwise it takes the next batch when its transaction is done.
//!
//! [`CommitsWait`]: crate::persistence::messages::PersistenceNotice::CommitsWait

use std::collections::{HashSet, VecDeque};

use actix::Recipient;
use foldhash::HashMap;
use parking_lot::Mutex;

use crate::lock::ResourceName;
use crate::persistence::messages::CommitResult;
use crate::store::Snapshot;

/// Most rows of one transaction, unless a single snapshot has more. So no commit waits long for those of others.
const ROWS_MAX: usize = 4096;
/// Most bytes of documents in one transaction, unless a single snapshot has more.
const BYTES_MAX: usize = 8 << 20;

/// The actor that handed in a snapshot, and the number of its last commit in that snapshot.
#[derive(Debug)]
pub struct BatchMember {
    pub actor: Recipient<CommitResult>,
    pub seq: u64,
}

/// What one transaction stores: one snapshot for each name, with all its changes.
#[derive(Default)]
pub(super) struct Batch {
    /// One for each snapshot, in the same order.
    pub members: Vec<BatchMember>,
    pub snapshots: Vec<Snapshot>,
    /// The index of each name's snapshot.
    pub places: HashMap<ResourceName, usize>,
    pub rows: usize,
    bytes: usize,
}

impl Batch {
    fn sized_for(names: usize) -> Batch {
        Batch {
            members: Vec::with_capacity(names),
            snapshots: Vec::with_capacity(names),
            places: HashMap::with_capacity_and_hasher(names, Default::default()),
            ..Batch::default()
        }
    }

    fn has_room_for(&self, snapshot: &Snapshot) -> bool {
        self.rows + snapshot.rows() <= ROWS_MAX && self.bytes + snapshot.bytes() <= BYTES_MAX
    }

    /// Adds a snapshot, or merges it into the earlier one of the same name.
    fn add(&mut self, member: BatchMember, snapshot: Snapshot) {
        let Some(&place) = self.places.get(&snapshot.name) else {
            self.rows += snapshot.rows();
            self.bytes += snapshot.bytes();
            self.places
                .insert(snapshot.name.clone(), self.members.len());
            self.members.push(member);
            return self.snapshots.push(snapshot);
        };
        let there = &mut self.snapshots[place];
        self.rows -= there.rows();
        self.bytes -= there.bytes();
        there.merge(snapshot);
        self.rows += there.rows();
        self.bytes += there.bytes();
        self.members[place].seq = member.seq;
    }
}

/// What became of a commit that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is queued. The persistence actor is idle and has to be sent [`CommitsWait`].
    ///
    /// [`CommitsWait`]: crate::persistence::messages::PersistenceNotice::CommitsWait
    Wake,
    /// It is queued; or it is dropped, and its actor has been sent [`CommitResult::Discard`] or is about to be.
    Taken,
    /// The store is closed for good: nothing is stored any more.
    Finished,
}

/// The queue of commits before the store. The number of open requests and deadlines bounds its length.
#[derive(Default)]
pub struct CommitQueue(Mutex<PendingCommits>);

#[derive(Default)]
struct PendingCommits {
    /// Commits of actors of this incarnation are accepted: actors of earlier ones build on state that may not be
    /// stored. `None`: the store is not open.
    incarnation: Option<u64>,
    /// The store is closed for good.
    is_finished: bool,
    /// The batch of the next transaction, and further ones if there is too much for one.
    batches: VecDeque<Batch>,
    /// Actors whose commit was rejected: their further commits build on state that is not stored.
    discarded: HashSet<Recipient<CommitResult>>,
    /// The persistence actor will look here again before it is idle.
    awake: bool,
    /// Number of names in the last batch that was taken; new batches have room for as many.
    usual: usize,
}

impl PendingCommits {
    /// The batch for this snapshot: the last one, or a new one if that has no room.
    fn batch_for(&mut self, snapshot: &Snapshot) -> &mut Batch {
        let last = self.batches.back();
        if !last.is_some_and(|last| last.has_room_for(snapshot)) {
            self.batches.push_back(Batch::sized_for(self.usual));
        }
        let last = self.batches.len() - 1;
        &mut self.batches[last]
    }
}

impl CommitQueue {
    /// Queues the changes of an actor that was started in `incarnation`. `member.actor` is sent the [`CommitResult`].
    #[must_use]
    pub fn push(&self, member: BatchMember, incarnation: u64, snapshot: Snapshot) -> Accepted {
        let mut pending = self.0.lock();
        if pending.is_finished {
            return Accepted::Finished;
        }
        if pending.incarnation != Some(incarnation) || pending.discarded.contains(&member.actor) {
            return Accepted::Taken;
        }
        pending.batch_for(&snapshot).add(member, snapshot);
        match std::mem::replace(&mut pending.awake, true) {
            true => Accepted::Taken,
            false => Accepted::Wake,
        }
    }

    /// Commits of actors of this incarnation are taken from now on.
    pub(super) fn open(&self, incarnation: u64) {
        self.0.lock().incarnation = Some(incarnation);
    }

    /// The store is lost: drops all queued commits, which build on state that may not be stored. The caller has to
    /// discard their actors.
    pub(super) fn close(&self) {
        let mut pending = self.0.lock();
        *pending = PendingCommits {
            usual: pending.usual,
            ..PendingCommits::default()
        };
    }

    /// The store is closed for good: no commits are taken any more.
    pub(super) fn finish(&self) {
        self.0.lock().is_finished = true;
    }

    /// Takes the batch of the next transaction. `None`: the queue is empty, and the persistence actor is idle from now
    /// on.
    pub(super) fn take(&self) -> Option<Batch> {
        let mut pending = self.0.lock();
        let batch = pending.batches.pop_front();
        pending.awake = batch.is_some();
        pending.usual = batch.as_ref().map_or(pending.usual, |b| b.members.len());
        batch
    }

    /// Number of queued names; a name counts once for each batch that it is in.
    pub(super) fn len(&self) -> usize {
        let pending = self.0.lock();
        pending.batches.iter().map(|b| b.members.len()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().batches.is_empty()
    }

    pub(super) fn contains(&self, name: &ResourceName) -> bool {
        let pending = self.0.lock();
        let mut batches = pending.batches.iter();
        batches.any(|batch| batch.places.contains_key(name))
    }

    /// Whether a commit of a name that `is_one` accepts is queued.
    pub(super) fn any(&self, is_one: impl Fn(&ResourceName) -> bool) -> bool {
        let pending = self.0.lock();
        let mut names = pending.batches.iter().flat_map(|batch| batch.places.keys());
        names.any(is_one)
    }

    /// A commit of this actor was rejected: drops its queued commits, and those that it still hands in until
    /// [`CommitQueue::forget`].
    pub(super) fn discard(&self, actor: &Recipient<CommitResult>) {
        let mut pending = self.0.lock();
        for batch in std::mem::take(&mut pending.batches) {
            let all = batch.members.into_iter().zip(batch.snapshots);
            for (member, snapshot) in all.filter(|(member, _)| member.actor != *actor) {
                pending.batch_for(&snapshot).add(member, snapshot);
            }
        }
        pending.discarded.insert(actor.clone());
    }

    /// A discarded actor hands in no commits any more.
    pub(super) fn forget(&self, actor: &Recipient<CommitResult>) {
        self.0.lock().discarded.remove(actor);
    }
}

#[cfg(test)]
mod tests {
    use actix::{Actor, AsyncContext, Context, Handler};
    use bytes::Bytes;

    use super::*;
    use crate::lock::Selector;
    use crate::store::ResourceId;
    use crate::store::snapshot::StoredData;

    struct Committer;

    impl Actor for Committer {
        type Context = Context<Self>;
    }

    impl Handler<CommitResult> for Committer {
        type Result = ();

        fn handle(&mut self, _: CommitResult, _: &mut Self::Context) {}
    }

    fn actor() -> Recipient<CommitResult> {
        Context::<Committer>::new().address().recipient()
    }

    fn open_queue() -> CommitQueue {
        let queue = CommitQueue::default();
        queue.open(1);
        queue
    }

    /// A commit that writes one document.
    fn writes(
        actor: &Recipient<CommitResult>,
        seq: u64,
        name: &str,
        selector: &str,
        bytes: usize,
    ) -> (BatchMember, Snapshot) {
        let name = ResourceName::parse(name).unwrap();
        let mut snapshot = Snapshot::empty(name, ResourceId::new("1"));
        let row = StoredData {
            id: "d".into(),
            json: Bytes::from(vec![b'1'; bytes]),
        };
        snapshot.document(Selector::parse(selector).unwrap(), Some(row));
        let actor = actor.clone();
        (BatchMember { actor, seq }, snapshot)
    }

    /// Pushes a commit of an actor of incarnation 1.
    fn push(queue: &CommitQueue, (member, snapshot): (BatchMember, Snapshot)) -> Accepted {
        queue.push(member, 1, snapshot)
    }

    fn seqs(batch: &Batch) -> Vec<u64> {
        batch.members.iter().map(|member| member.seq).collect()
    }

    #[test]
    fn a_resting_actor_is_woken_once_and_misses_no_commit() {
        let (queue, a) = (open_queue(), actor());
        let hand_in = |seq: u64| push(&queue, writes(&a, seq, &seq.to_string(), "x", 1));
        assert_eq!(hand_in(1), Accepted::Wake);
        assert_eq!(hand_in(2), Accepted::Taken);
        assert_eq!(seqs(&queue.take().unwrap()), [1, 2]);
        assert_eq!(
            hand_in(3),
            Accepted::Taken,
            "the queue is looked at again before the actor is idle"
        );
        assert_eq!(seqs(&queue.take().unwrap()), [3]);
        assert!(queue.take().is_none());
        assert_eq!(hand_in(4), Accepted::Wake);
    }

    #[test]
    fn commits_of_another_incarnation_and_of_a_closed_store_are_dropped() {
        let (queue, a) = (CommitQueue::default(), actor());
        assert_eq!(push(&queue, writes(&a, 1, "a", "x", 1)), Accepted::Taken);
        queue.open(2);
        assert_eq!(push(&queue, writes(&a, 1, "a", "x", 1)), Accepted::Taken);
        assert!(queue.is_empty());
        queue.open(1);
        assert_eq!(push(&queue, writes(&a, 1, "a", "x", 1)), Accepted::Wake);
        queue.close();
        assert!(queue.is_empty());
        queue.finish();
        assert_eq!(push(&queue, writes(&a, 1, "a", "x", 1)), Accepted::Finished);
    }

    #[test]
    fn a_name_is_in_a_transaction_once_and_told_of_its_last_commit() {
        let (queue, a, b) = (open_queue(), actor(), actor());
        let _ = push(&queue, writes(&a, 1, "a", "x", 1));
        let _ = push(&queue, writes(&b, 1, "b", "x", 1));
        let _ = push(&queue, writes(&a, 2, "a", "y", 1));
        assert_eq!(queue.len(), 2);
        assert!(queue.contains(&ResourceName::parse("a").unwrap()));
        let batch = queue.take().unwrap();
        assert_eq!(seqs(&batch), [2, 1]);
        assert!(batch.members[0].actor == a && batch.members[1].actor == b);
        assert_eq!(batch.snapshots[0].data.len(), 2);
        assert_eq!((batch.rows, batch.bytes), (3, 3));
        assert!(queue.is_empty() && queue.take().is_none());
    }

    #[test]
    fn what_is_too_much_for_a_transaction_waits_for_the_next_one_in_order() {
        let (queue, a) = (open_queue(), actor());
        for seq in 0..=ROWS_MAX as u64 {
            let _ = push(&queue, writes(&a, seq, &seq.to_string(), "x", 1));
        }
        assert_eq!(queue.len(), ROWS_MAX + 1);
        // The first change of name "0" is in the first batch. This one must not overtake other commits.
        let _ = push(&queue, writes(&a, 9_999, "0", "y", 1));
        assert_eq!(queue.take().unwrap().members.len(), ROWS_MAX);
        assert_eq!(seqs(&queue.take().unwrap()), [ROWS_MAX as u64, 9_999]);

        for (name, bytes) in [("a", BYTES_MAX + 1), ("b", BYTES_MAX), ("c", 1)] {
            let _ = push(&queue, writes(&a, 1, name, "x", bytes));
        }
        let sizes = std::iter::from_fn(|| queue.take()).map(|batch| batch.members.len());
        assert_eq!(sizes.collect::<Vec<_>>(), [1, 1, 1]);
    }
}
