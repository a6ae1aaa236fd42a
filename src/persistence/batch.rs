//! Commits on their way into one transaction.

use std::collections::{HashMap, VecDeque};

use actix::Addr;

use crate::lock::ResourceName;
use crate::resource::actor::ResourceActor;
use crate::store::Snapshot;

/// A transaction stays below this many rows, so that nobody waits long for another's.
const ROWS_MAX: usize = 4096;
/// And below this many bytes of data, unless a single snapshot is larger.
const BYTES_MAX: usize = 8 << 20;

/// Who is told that a snapshot is stored, and up to which of its commits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub actor: Addr<ResourceActor>,
    pub seq: u64,
}

/// What one transaction stores: each name once, with everything that changed of it.
#[derive(Default)]
pub(super) struct Batch {
    /// As many as there are snapshots, in their order.
    pub members: Vec<Member>,
    pub snapshots: Vec<Snapshot>,
    /// Where the snapshot of a name is.
    pub places: HashMap<ResourceName, usize>,
    rows: usize,
    bytes: usize,
}

impl Batch {
    fn sized_for(names: usize) -> Batch {
        Batch {
            members: Vec::with_capacity(names),
            snapshots: Vec::with_capacity(names),
            places: HashMap::with_capacity(names),
            ..Batch::default()
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    fn has_room_for(&self, snapshot: &Snapshot) -> bool {
        self.rows + snapshot.rows() <= ROWS_MAX && self.bytes + snapshot.bytes() <= BYTES_MAX
    }

    /// A later snapshot of a name is merged into the one that is there.
    fn add(&mut self, member: Member, snapshot: Snapshot) {
        let Some(&place) = self.places.get(&snapshot.name) else {
            return self.push(member, snapshot);
        };
        let there = &mut self.snapshots[place];
        self.rows -= there.rows();
        self.bytes -= there.bytes();
        there.merge(snapshot);
        self.rows += there.rows();
        self.bytes += there.bytes();
        self.members[place].seq = member.seq;
    }

    fn push(&mut self, member: Member, snapshot: Snapshot) {
        self.rows += snapshot.rows();
        self.bytes += snapshot.bytes();
        self.places
            .insert(snapshot.name.clone(), self.members.len());
        self.members.push(member);
        self.snapshots.push(snapshot);
    }
}

/// What waits for a transaction, in the order in which it came: the next one's batch, and those after it
/// when there is too much for one.
#[derive(Default)]
pub(super) struct Waiting {
    batches: VecDeque<Batch>,
    /// Of the last batch that was taken.
    usual: usize,
}

impl Waiting {
    /// Snapshots in all.
    pub fn len(&self) -> usize {
        self.batches.iter().map(|batch| batch.members.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub fn contains(&self, name: &ResourceName) -> bool {
        let mut batches = self.batches.iter();
        batches.any(|batch| batch.places.contains_key(name))
    }

    pub fn add(&mut self, member: Member, snapshot: Snapshot) {
        match self.batches.back_mut() {
            Some(last) if last.has_room_for(&snapshot) => last.add(member, snapshot),
            _ => {
                let mut batch = Batch::sized_for(self.usual);
                batch.push(member, snapshot);
                self.batches.push_back(batch);
            }
        }
    }

    /// The next transaction's.
    pub fn take(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        self.usual = batch.members.len();
        Some(batch)
    }

    pub fn clear(&mut self) {
        self.batches.clear();
    }

    /// Drops what this actor wants stored.
    pub fn forget(&mut self, actor: &Addr<ResourceActor>) {
        for batch in std::mem::take(&mut self.batches) {
            let all = batch.members.into_iter().zip(batch.snapshots);
            for (member, snapshot) in all.filter(|(member, _)| member.actor != *actor) {
                self.add(member, snapshot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use actix::{AsyncContext, Context};
    use bytes::Bytes;

    use super::*;
    use crate::lock::Selector;
    use crate::store::ResourceId;
    use crate::store::snapshot::DataRow;

    fn actor() -> Addr<ResourceActor> {
        Context::<ResourceActor>::new().address()
    }

    fn member(actor: &Addr<ResourceActor>, seq: u64) -> Member {
        Member {
            actor: actor.clone(),
            seq,
        }
    }

    /// Writes one document of this resource.
    fn writes(name: &str, selector: &str, bytes: usize) -> Snapshot {
        let name = ResourceName::parse(name).unwrap();
        let mut snapshot = Snapshot::empty(name, ResourceId::new("1"));
        let row = DataRow {
            id: "d".into(),
            json: Bytes::from(vec![b'1'; bytes]),
        };
        snapshot.document(Selector::parse(selector).unwrap(), Some(row));
        snapshot
    }

    #[test]
    fn a_name_is_in_a_transaction_once_and_told_of_its_last_commit() {
        let (a, b) = (actor(), actor());
        let mut waiting = Waiting::default();
        waiting.add(member(&a, 1), writes("a", "x", 1));
        waiting.add(member(&b, 1), writes("b", "x", 1));
        waiting.add(member(&a, 2), writes("a", "y", 1));
        assert_eq!(waiting.len(), 2);
        assert!(waiting.contains(&ResourceName::parse("a").unwrap()));
        let batch = waiting.take().unwrap();
        assert_eq!(batch.members, [member(&a, 2), member(&b, 1)]);
        assert_eq!(batch.snapshots[0].data.len(), 2);
        assert_eq!((batch.rows(), batch.bytes), (3, 3));
        assert!(waiting.is_empty() && waiting.take().is_none());
    }

    #[test]
    fn what_is_too_much_for_a_transaction_waits_for_the_next_one_in_order() {
        let a = actor();
        let mut waiting = Waiting::default();
        for seq in 0..=ROWS_MAX as u64 {
            waiting.add(member(&a, seq), writes(&seq.to_string(), "x", 1));
        }
        assert_eq!(waiting.len(), ROWS_MAX + 1);
        // Its first change waits with those that came before; this one must not overtake anything.
        waiting.add(member(&a, 9_999), writes("0", "y", 1));
        let first = waiting.take().unwrap();
        assert_eq!(first.members.len(), ROWS_MAX);
        let second = waiting.take().unwrap();
        let seqs: Vec<u64> = second.members.iter().map(|m| m.seq).collect();
        assert_eq!(seqs, [ROWS_MAX as u64, 9_999]);

        for (name, bytes) in [("a", BYTES_MAX + 1), ("b", BYTES_MAX), ("c", 1)] {
            waiting.add(member(&a, 1), writes(name, "x", bytes));
        }
        let sizes = std::iter::from_fn(|| waiting.take()).map(|batch| batch.members.len());
        assert_eq!(sizes.collect::<Vec<_>>(), [1, 1, 1]);
    }

    #[test]
    fn what_an_abandoned_actor_sent_is_forgotten_and_the_rest_is_not() {
        let (a, b) = (actor(), actor());
        let mut waiting = Waiting::default();
        waiting.add(member(&a, 1), writes("a", "x", 1));
        waiting.add(member(&b, 4), writes("b", "x", 1));
        waiting.forget(&a);
        assert!(!waiting.contains(&ResourceName::parse("a").unwrap()));
        let batch = waiting.take().unwrap();
        assert_eq!(batch.members, [member(&b, 4)]);
        assert_eq!((batch.rows(), batch.bytes), (1, 1));
        waiting.add(member(&a, 1), writes("a", "x", 1));
        waiting.forget(&a);
        assert!(waiting.is_empty());
    }
}
