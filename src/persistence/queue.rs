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

use crate::lock::ResourceName;
use crate::shared::gate::Closed;
use crate::shared::resource_notice::ResourceNotice;
use crate::store::Snapshot;

/// Most rows of one transaction, unless a single snapshot has more. So no commit waits long for those of others.
const ROWS_MAX: usize = 4096;
/// Most bytes of documents in one transaction, unless a single snapshot has more.
const BYTES_MAX: usize = 8 << 20;

/// What one transaction stores: one snapshot for each name, with all its changes.
#[derive(Default)]
pub(super) struct Batch {
    /// For each snapshot, in the same order, the actor that handed it in, and the number of its last commit in it.
    pub members: Vec<(Recipient<ResourceNotice>, u64)>,
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
    fn add(&mut self, actor: Recipient<ResourceNotice>, seq: u64, snapshot: Snapshot) {
        let Some(&place) = self.places.get(&snapshot.name) else {
            self.rows += snapshot.rows();
            self.bytes += snapshot.bytes();
            self.places
                .insert(snapshot.name.clone(), self.members.len());
            self.members.push((actor, seq));
            return self.snapshots.push(snapshot);
        };
        let there = &mut self.snapshots[place];
        self.rows -= there.rows();
        self.bytes -= there.bytes();
        there.merge(snapshot);
        self.rows += there.rows();
        self.bytes += there.bytes();
        self.members[place].1 = seq;
    }
}

/// The queue of commits before the store. The number of open requests and deadlines bounds its length.
#[derive(Default)]
pub struct CommitQueue {
    /// The incarnation in which the store is open. Commits of actors of an earlier one build on state that may not be
    /// stored, and are dropped. `None`: the store is not open.
    pub(super) incarnation: Option<u64>,
    /// The store is closed for good, and must not be opened again.
    pub(super) is_finished: bool,
    /// The batch of the next transaction, and further ones if there is too much for one.
    batches: VecDeque<Batch>,
    /// Actors whose commit was rejected: their further commits build on state that is not stored.
    discarded: HashSet<Recipient<ResourceNotice>>,
    /// The persistence actor will look here again before it is idle.
    awake: bool,
    /// Number of names in the last batch that was taken; new batches have room for as many.
    usual: usize,
}

impl CommitQueue {
    /// The batch for this snapshot: the last one, or a new one if that has no room.
    fn batch_for(&mut self, snapshot: &Snapshot) -> &mut Batch {
        let last = self.batches.back();
        if !last.is_some_and(|last| last.has_room_for(snapshot)) {
            self.batches.push_back(Batch::sized_for(self.usual));
        }
        let last = self.batches.len() - 1;
        &mut self.batches[last]
    }

    /// Queues commit `seq` of an actor that was started in `incarnation`; or drops it, if that actor has been sent
    /// [`ResourceNotice::Discard`] or is about to be. `true`: the persistence actor is idle and has to be woken.
    ///
    /// # Errors
    /// [`Closed::Stopping`]: the store is closed for good.
    pub(super) fn push(
        &mut self,
        actor: Recipient<ResourceNotice>,
        seq: u64,
        incarnation: u64,
        snapshot: Snapshot,
    ) -> Result<bool, Closed> {
        if self.is_finished {
            return Err(Closed::Stopping);
        }
        if self.incarnation != Some(incarnation) || self.discarded.contains(&actor) {
            return Ok(false);
        }
        self.batch_for(&snapshot).add(actor, seq, snapshot);
        Ok(!std::mem::replace(&mut self.awake, true))
    }

    /// The store is lost: drops all queued commits, which build on state that may not be stored. The caller has to
    /// discard their actors.
    pub(super) fn close(&mut self) {
        *self = CommitQueue {
            usual: self.usual,
            ..CommitQueue::default()
        };
    }

    /// The store is closed for good: no commits are taken any more.
    pub(super) fn finish(&mut self) {
        self.incarnation = None;
        self.is_finished = true;
    }

    /// Takes the batch of the next transaction. `None`: the queue is empty, and the persistence actor is idle from now
    /// on.
    pub(super) fn take(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front();
        self.awake = batch.is_some();
        self.usual = batch.as_ref().map_or(self.usual, |b| b.members.len());
        batch
    }

    /// Number of queued names; a name counts once for each batch that it is in.
    pub(super) fn len(&self) -> usize {
        self.batches.iter().map(|b| b.members.len()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn contains(&self, name: &ResourceName) -> bool {
        let mut batches = self.batches.iter();
        batches.any(|batch| batch.places.contains_key(name))
    }

    /// Whether a commit of a name that `is_one` accepts is queued.
    pub(super) fn any(&self, is_one: impl Fn(&ResourceName) -> bool) -> bool {
        let mut names = self.batches.iter().flat_map(|batch| batch.places.keys());
        names.any(is_one)
    }

    /// A commit of this actor was rejected: drops its queued commits, and those that it still hands in until
    /// [`CommitQueue::forget`].
    pub(super) fn discard(&mut self, actor: &Recipient<ResourceNotice>) {
        for batch in std::mem::take(&mut self.batches) {
            let all = batch.members.into_iter().zip(batch.snapshots);
            for ((member, seq), snapshot) in all.filter(|((member, _), _)| member != actor) {
                self.batch_for(&snapshot).add(member, seq, snapshot);
            }
        }
        self.discarded.insert(actor.clone());
    }

    /// A discarded actor hands in no commits any more.
    pub(super) fn forget(&mut self, actor: &Recipient<ResourceNotice>) {
        self.discarded.remove(actor);
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

    impl Handler<ResourceNotice> for Committer {
        type Result = ();

        fn handle(&mut self, _: ResourceNotice, _: &mut Self::Context) {}
    }

    fn actor() -> Recipient<ResourceNotice> {
        Context::<Committer>::new().address().recipient()
    }

    fn open_queue() -> CommitQueue {
        CommitQueue {
            incarnation: Some(1),
            ..CommitQueue::default()
        }
    }

    /// Pushes a commit that writes one document, of an actor of incarnation 1.
    fn write(
        queue: &mut CommitQueue,
        (actor, seq): (&Recipient<ResourceNotice>, u64),
        name: &str,
        selector: &str,
        bytes: usize,
    ) -> Result<bool, Closed> {
        let name = ResourceName::parse(name).unwrap();
        let mut snapshot = Snapshot::empty(name, ResourceId::new("1"));
        let row = StoredData {
            id: "d".into(),
            json: Bytes::from(vec![b'1'; bytes]),
        };
        snapshot.document(Selector::parse(selector).unwrap(), Some(row));
        queue.push(actor.clone(), seq, 1, snapshot)
    }

    fn seqs(batch: &Batch) -> Vec<u64> {
        batch.members.iter().map(|(_, seq)| *seq).collect()
    }

    #[test]
    fn a_resting_actor_is_woken_once_and_misses_no_commit() {
        let (mut queue, a) = (open_queue(), actor());
        let hand_in =
            |queue: &mut CommitQueue, seq: u64| write(queue, (&a, seq), &seq.to_string(), "x", 1);
        assert_eq!(hand_in(&mut queue, 1), Ok(true));
        assert_eq!(hand_in(&mut queue, 2), Ok(false));
        assert_eq!(seqs(&queue.take().unwrap()), [1, 2]);
        assert_eq!(
            hand_in(&mut queue, 3),
            Ok(false),
            "the queue is looked at again before the actor is idle"
        );
        assert_eq!(seqs(&queue.take().unwrap()), [3]);
        assert!(queue.take().is_none());
        assert_eq!(hand_in(&mut queue, 4), Ok(true));
    }

    #[test]
    fn commits_of_another_incarnation_and_of_a_closed_store_are_dropped() {
        let (mut queue, a) = (CommitQueue::default(), actor());
        let hand_in = |queue: &mut CommitQueue| write(queue, (&a, 1), "a", "x", 1);
        assert_eq!(hand_in(&mut queue), Ok(false));
        queue.incarnation = Some(2);
        assert_eq!(hand_in(&mut queue), Ok(false));
        assert!(queue.is_empty());
        queue.incarnation = Some(1);
        assert_eq!(hand_in(&mut queue), Ok(true));
        queue.close();
        assert!(queue.is_empty());
        queue.finish();
        assert_eq!(hand_in(&mut queue), Err(Closed::Stopping));
    }

    #[test]
    fn a_name_is_in_a_transaction_once_and_told_of_its_last_commit() {
        let (mut queue, a, b) = (open_queue(), actor(), actor());
        let _ = write(&mut queue, (&a, 1), "a", "x", 1);
        let _ = write(&mut queue, (&b, 1), "b", "x", 1);
        let _ = write(&mut queue, (&a, 2), "a", "y", 1);
        assert_eq!(queue.len(), 2);
        assert!(queue.contains(&ResourceName::parse("a").unwrap()));
        let batch = queue.take().unwrap();
        assert_eq!(seqs(&batch), [2, 1]);
        assert!(batch.members[0].0 == a && batch.members[1].0 == b);
        assert_eq!(batch.snapshots[0].data.len(), 2);
        assert_eq!((batch.rows, batch.bytes), (3, 3));
        assert!(queue.is_empty() && queue.take().is_none());
    }

    #[test]
    fn what_is_too_much_for_a_transaction_waits_for_the_next_one_in_order() {
        let (mut queue, a) = (open_queue(), actor());
        for seq in 0..=ROWS_MAX as u64 {
            let _ = write(&mut queue, (&a, seq), &seq.to_string(), "x", 1);
        }
        assert_eq!(queue.len(), ROWS_MAX + 1);
        // The first change of name "0" is in the first batch. This one must not overtake other commits.
        let _ = write(&mut queue, (&a, 9_999), "0", "y", 1);
        assert_eq!(queue.take().unwrap().members.len(), ROWS_MAX);
        assert_eq!(seqs(&queue.take().unwrap()), [ROWS_MAX as u64, 9_999]);

        for (name, bytes) in [("a", BYTES_MAX + 1), ("b", BYTES_MAX), ("c", 1)] {
            let _ = write(&mut queue, (&a, 1), name, "x", bytes);
        }
        let sizes = std::iter::from_fn(|| queue.take()).map(|batch| batch.members.len());
        assert_eq!(sizes.collect::<Vec<_>>(), [1, 1, 1]);
    }
}
