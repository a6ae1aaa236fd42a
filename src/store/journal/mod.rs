//! Lock changes on their way into the tables of a SQL store: how durable locks get fast.
//!
//! A lock that is taken and given back changes the same few rows again and again, and writing a row costs a
//! database far more than its bytes. So a commit does not write them: it appends the changes of its whole
//! batch to a journal table, one row of bytes however many locks it is about, in the same transaction as
//! everything else. Every few seconds the store makes a *checkpoint*: it writes to the tables what the changes since then
//! came to, and deletes the rows of the journal. Whoever opens the database first makes one of what an earlier
//! process left. (The idea is the write-ahead log of databases: Mohan et al., "ARIES", 1992.)
//!
//! What is answered is as durable as before: it is in the journal, and the journal is in the database. What
//! must hold:
//!
//! - A change is in the journal until the transaction that deletes its row, and that comes after the
//!   transactions that wrote it to the tables. So the tables, with what the journal says laid over them in
//!   its order, are always the state that was committed last; laying it over twice does no harm.
//! - Lock rows of a resource that exists go through the journal only. A resource is created and removed in
//!   the tables; an id is used once, so a change in the journal whose resource is gone is nothing.
//! - Documents go to their table: they are large, and the PHP server's.
//! - [`Journal`] keeps in memory what is not checkpointed yet, so a load reads the tables and lays that over them.
//!
//! The SQL stores share this folder; what is theirs is how rows get into their tables.

mod rows;
mod version1;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::snapshot::{LockChanges, ResourceId, Snapshot};
use super::{StoreError, StoredResource};
use crate::lock::ResourceName;
use crate::store::shrink::shrink_if_sparse;
pub(super) use rows::{EMPTY, SEAL, chunks_of_rows, read};

/// How many rows of tables one transaction of checkpointing writes: few, because commits wait meanwhile.
const STEP_ROWS: usize = 256;

/// How a store wants the rows of its journal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// The most that a row has, in bytes, unless one piece of changes is larger.
    pub row_bytes: usize,
    /// A commit goes into the row of the one before it if there is room: for a store that writes whole pages.
    /// Otherwise its rows are its own.
    pub fills_rows: bool,
    /// How many rows one transaction of checkpointing takes out.
    pub taken_out_at_once: u64,
}

/// The changes of one lock that a database has in its journal only.
#[derive(Clone, Debug)]
pub(super) struct PendingChanges {
    pub id: ResourceId,
    pub changes: LockChanges,
    /// Never the same after a change.
    stamp: u64,
}

type Part = HashMap<ResourceName, PendingChanges>;

#[derive(Default)]
struct State {
    stamps: u64,
    /// Number of the last row that is committed.
    last: u64,
    /// Number of the last row that has changes in it.
    last_told: u64,
    /// The changes up to this row are in the tables, and those of `older` are in rows up to `mark`.
    checkpointed: u64,
    mark: u64,
    /// Rows up to this one are out of the journal.
    taken_out: u64,
    newer: Part,
    older: Part,
    /// Names with a commit under way, of which nobody knows yet whether it happened.
    committing: HashSet<ResourceName>,
    /// The last row as far as it is written, when the next commit may go on with it.
    open: Vec<u8>,
}

/// What a database has in its journal only. One per store; empty as long as the store is not open.
pub(super) struct Journal {
    layout: Layout,
    state: Mutex<State>,
    /// A commit ended.
    ended: Notify,
}

/// A batch taken apart, while it is being committed.
pub(super) struct JournalEntry<'e> {
    journal: &'e Journal,
    batch: &'e [Snapshot],
    /// Names whose changes so far are of resources that this batch removes.
    replaced: Vec<&'e ResourceName>,
    /// What it changes of each lock, after a snapshot of that resource.
    locks: Vec<(&'e Snapshot, Cow<'e, LockChanges>)>,
    /// Goes to the tables.
    pub direct: Vec<Snapshot>,
    /// Goes to the journal, with the numbers of the rows. One that is there has more in it now.
    pub rows: Vec<(u64, Vec<u8>)>,
    /// Resources that have to exist, as far as is not known already.
    pub must_exist: Vec<&'e ResourceId>,
}

/// One transaction of checkpointing.
pub(super) struct CheckpointStep {
    /// To be written to the tables, where the resource exists.
    pub locks: Vec<(ResourceName, PendingChanges)>,
    /// Rows of the journal up to this number have nothing to say any more.
    pub done: Option<u64>,
    /// How many rows of the journal `done` takes out, where each commit has rows of its own.
    pub rows: u64,
}

/// What a load has to lay over the rows that it reads: what is being checkpointed, and what came since.
type Overlay = [Option<PendingChanges>; 2];

impl Journal {
    pub fn new(layout: Layout) -> Journal {
        Journal {
            layout,
            state: Mutex::default(),
            ended: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The journal table has nothing to say. `last`: its last row.
    pub fn reset(&self, last: u64) {
        *self.state() = State {
            last,
            ..State::default()
        };
        self.ended.notify_waiters();
    }

    /// The next row was committed, whatever it says, for a store that has one for every transaction.
    pub fn appended(&self) {
        self.state().last += 1;
    }

    /// Takes a batch apart. To be followed by [`JournalEntry::committed`] once it is.
    ///
    /// # Errors
    /// [`StoreError::Rejected`]: it cannot be written down.
    pub fn enter<'e>(&'e self, batch: &'e [Snapshot]) -> Result<JournalEntry<'e>, StoreError> {
        let mut entry = JournalEntry {
            journal: self,
            batch,
            replaced: Vec::new(),
            locks: Vec::new(),
            direct: Vec::new(),
            rows: Vec::new(),
            must_exist: Vec::new(),
        };
        let mut state = self.state();
        // Only whoever writes a batch by hand has a name in it twice.
        let mut repeats = false;
        for snapshot in batch {
            repeats |= !state.committing.insert(snapshot.name.clone());
        }
        batch.iter().for_each(|s| entry.add(s, repeats));
        let locks = entry.locks.iter().map(|(snapshot, _)| *snapshot);
        let unknown = locks.filter(|snapshot| !state.knows(snapshot));
        entry.must_exist = unknown.map(|snapshot| &snapshot.id).collect();
        let (last, open) = (state.last, state.open.clone());
        drop(state);
        let row_bytes = self.layout.row_bytes;
        let locks = entry.locks.iter();
        let locks = locks.map(|(snapshot, changes)| (&snapshot.id, &**changes));
        let rows = rows::write(locks, row_bytes)?;
        let joined = match &rows[..] {
            [row] => rows::join(&open, row, row_bytes),
            _ => None,
        };
        entry.rows = match joined {
            Some(row) => vec![(last, row)],
            None => (last + 1..).zip(rows).collect(),
        };
        Ok(entry)
    }

    /// The resource of this name as `read` finds it in the tables, with what is not checkpointed laid over it. Reads
    /// again when a change of it came between.
    ///
    /// # Errors
    /// Those of `read`.
    pub async fn load<F>(
        &self,
        name: &ResourceName,
        read: impl Fn() -> F,
    ) -> Result<Option<StoredResource>, StoreError>
    where
        F: Future<Output = Result<Option<StoredResource>, StoreError>>,
    {
        loop {
            let overlay = self.overlay(name).await;
            let mut found = read().await?;
            if self.is_current(name, &overlay) {
                if let Some(found) = &mut found {
                    for pending in overlay.iter().flatten().filter(|p| p.id == found.id) {
                        pending.changes.overlay(&mut found.lock);
                    }
                }
                return Ok(found);
            }
        }
    }

    /// What has to be laid over the rows of this name. Waits for the end of a commit that it is part of.
    async fn overlay(&self, name: &ResourceName) -> Overlay {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if let Some(overlay) = self.state().overlay(name) {
                return overlay;
            }
            ended.await;
        }
    }

    /// Nothing about this name has changed since `overlay` was made, nor is about to. Then what was read in
    /// between belongs to it.
    fn is_current(&self, name: &ResourceName, overlay: &Overlay) -> bool {
        let state = self.state();
        let stamps = overlay.each_ref().map(|pending| stamp(pending.as_ref()));
        !state.committing.contains(name) && state.stamps(name) == stamps
    }

    /// How many locks have changes that are not in the tables.
    pub fn len(&self) -> usize {
        let state = self.state();
        state.newer.len() + state.older.len()
    }

    /// Number of the last row that has changes in it: what there is to checkpoint now.
    pub fn last_told(&self) -> u64 {
        self.state().last_told
    }

    /// Number of the last row that was committed.
    pub fn last(&self) -> u64 {
        self.state().last
    }

    /// The next transaction towards having everything up to `row` in the tables and out of the journal;
    /// `None`: that is so. To be followed by [`Journal::checkpointed`] once it is committed; no other commit may
    /// be under way meanwhile.
    pub fn next_step(&self, row: u64) -> Option<CheckpointStep> {
        self.state().next_step(row, self.layout.taken_out_at_once)
    }

    pub fn checkpointed(&self, step: CheckpointStep) {
        let mut state = self.state();
        for (name, _) in &step.locks {
            state.older.remove(name);
        }
        if state.older.is_empty() {
            state.checkpointed = state.mark;
        }
        state.taken_out = step.done.unwrap_or(state.taken_out);
        shrink_if_sparse(&mut state.older);
        shrink_if_sparse(&mut state.newer);
    }
}

impl State {
    /// Is the resource of this snapshot known to exist, because it has changes?
    fn knows(&self, snapshot: &Snapshot) -> bool {
        let parts = [&self.newer, &self.older];
        parts.into_iter().any(|part| {
            let pending = part.get(&snapshot.name);
            pending.is_some_and(|pending| pending.id == snapshot.id)
        })
    }

    fn overlay(&self, name: &ResourceName) -> Option<Overlay> {
        let of = |part: &Part| part.get(name).cloned();
        (!self.committing.contains(name)).then(|| [of(&self.older), of(&self.newer)])
    }

    /// Of the two parts that an [`Overlay`] has.
    fn stamps(&self, name: &ResourceName) -> [u64; 2] {
        [&self.older, &self.newer].map(|part| stamp(part.get(name)))
    }

    fn add(&mut self, snapshot: &Snapshot, changes: Cow<'_, LockChanges>) {
        self.stamps += 1;
        let stamp = self.stamps;
        match self.newer.get_mut(&snapshot.name) {
            Some(pending) if pending.id == snapshot.id => {
                pending.changes.merge(&changes);
                pending.stamp = stamp;
            }
            _ => {
                let pending = PendingChanges {
                    id: snapshot.id.clone(),
                    changes: changes.into_owned(),
                    stamp,
                };
                self.newer.insert(snapshot.name.clone(), pending);
            }
        }
    }

    fn next_step(&mut self, row: u64, taken_out_at_once: u64) -> Option<CheckpointStep> {
        let row = row.min(self.last);
        if self.older.is_empty() && self.checkpointed < row {
            self.mark = self.last;
            // What comes from here on is newer, and so has a row of its own.
            self.open = Vec::new();
            self.older = std::mem::take(&mut self.newer);
            if self.older.is_empty() {
                self.checkpointed = self.mark;
            }
        }
        if self.taken_out < self.checkpointed {
            let done = self.taken_out.saturating_add(taken_out_at_once);
            let done = self.checkpointed.min(done);
            return Some(CheckpointStep {
                locks: Vec::new(),
                done: Some(done),
                rows: done - self.taken_out,
            });
        }
        if self.checkpointed >= row {
            return None;
        }
        let mut locks = Vec::new();
        let mut rows = 0;
        for (name, pending) in &self.older {
            rows += pending.changes.rows();
            locks.push((name.clone(), pending.clone()));
            if rows >= STEP_ROWS {
                break;
            }
        }
        Some(CheckpointStep {
            locks,
            done: None,
            rows: 0,
        })
    }
}

impl<'e> JournalEntry<'e> {
    /// `repeats`: a name of the batch may come twice.
    fn add(&mut self, snapshot: &'e Snapshot, repeats: bool) {
        if snapshot.created.is_some() || !snapshot.removed.is_empty() {
            if repeats {
                self.locks.retain(|(lock, _)| lock.name != snapshot.name);
            }
            self.replaced.push(&snapshot.name);
        }
        let in_journal = snapshot.created.is_none() && !snapshot.lock.is_empty();
        if in_journal {
            let mut earlier = self.locks.iter_mut().filter(|_| repeats);
            match earlier.find(|(lock, _)| lock.id == snapshot.id) {
                Some((_, changes)) => changes.to_mut().merge(&snapshot.lock),
                None => self.locks.push((snapshot, Cow::Borrowed(&snapshot.lock))),
            }
        }
        if snapshot.rows() > 0 && !(in_journal && snapshot.rows() == snapshot.lock.rows()) {
            let mut direct = snapshot.clone();
            if in_journal {
                direct.lock = LockChanges::default();
            }
            self.direct.push(direct);
        }
    }

    /// The transaction with all this is committed.
    pub fn committed(mut self) {
        let mut state = self.journal.state();
        if let Some((last, row)) = self.rows.pop() {
            state.last = last;
            state.last_told = last;
            if self.journal.layout.fills_rows {
                state.open = row;
            }
        }
        for name in self.replaced.drain(..) {
            state.newer.remove(name);
            state.older.remove(name);
        }
        for (snapshot, changes) in self.locks.drain(..) {
            state.add(snapshot, changes);
        }
    }
}

impl Drop for JournalEntry<'_> {
    fn drop(&mut self) {
        let mut state = self.journal.state();
        for snapshot in self.batch {
            state.committing.remove(&snapshot.name);
        }
        drop(state);
        self.journal.ended.notify_waiters();
    }
}

/// 0: nothing is pending.
fn stamp(pending: Option<&PendingChanges>) -> u64 {
    pending.map_or(0, |pending| pending.stamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::rows::{EndedRow, HeadRow, TicketRow};
    use crate::lock::{EndReason, FencingToken, Mode, Ticket};

    const OWN_ROWS: Layout = Layout {
        row_bytes: 64 << 10,
        fills_rows: false,
        taken_out_at_once: 2,
    };
    const FILLED_ROWS: Layout = Layout {
        row_bytes: 100,
        fills_rows: true,
        taken_out_at_once: u64::MAX,
    };

    fn name(text: &str) -> ResourceName {
        ResourceName::parse(text).unwrap()
    }

    pub(super) fn head(token: u64) -> LockChanges {
        let head = HeadRow {
            token: FencingToken(token),
            delayed: false,
            holder: None,
        };
        LockChanges {
            head: Some(head),
            ..LockChanges::default()
        }
    }

    pub(super) fn waiting(bits: u128) -> LockChanges {
        let mut changes = LockChanges::default();
        changes.wait(TicketRow {
            ticket: Ticket::from_bits(bits),
            seq: bits as u64,
            owner: None,
            ttl: None,
            mode: Mode::Exclusive,
            reason: None,
            queued_at: None,
            key: None,
        });
        changes
    }

    pub(super) fn ended(n: u64) -> LockChanges {
        let mut changes = LockChanges::default();
        changes.end(EndedRow {
            n,
            ticket: Ticket::from_bits(u128::from(n)),
            reason: EndReason::Expired,
            more: None,
        });
        changes
    }

    pub(super) fn snapshot(id: &str, changes: impl IntoIterator<Item = LockChanges>) -> Snapshot {
        let mut snapshot = Snapshot::empty(name("a"), ResourceId::new(id));
        for change in changes {
            snapshot.lock.merge(&change);
        }
        snapshot
    }

    fn commit(journal: &Journal, snapshot: Snapshot) -> Vec<(u64, Vec<u8>)> {
        let batch = [snapshot];
        let entry = journal.enter(&batch).unwrap();
        let rows = entry.rows.clone();
        entry.committed();
        rows
    }

    fn drain(journal: &Journal, row: u64) -> (usize, u64) {
        let (mut locks, mut done) = (0, 0);
        while let Some(step) = journal.next_step(row) {
            assert!(step.done.is_none_or(|up_to| up_to > done));
            assert_eq!(step.locks.is_empty(), step.done.is_some(), "one at a time");
            locks += step.locks.len();
            done = step.done.unwrap_or(done);
            journal.checkpointed(step);
        }
        (locks, done)
    }

    #[test]
    fn rows_are_taken_out_after_what_they_say_is_in_the_tables_and_not_beyond() {
        let journal = Journal::new(OWN_ROWS);
        assert_eq!(drain(&journal, journal.last_told()), (0, 0));
        commit(&journal, snapshot("1", [head(1)]));
        commit(&journal, snapshot("1", [head(2)]));
        let before = journal.last_told();
        let first = journal.next_step(before).unwrap();
        assert_eq!((first.locks.len(), first.done), (1, None));
        // Comes while the older changes are being moved, and stays in the journal.
        commit(&journal, snapshot("1", [head(3)]));
        journal.checkpointed(first);
        assert_eq!(drain(&journal, before), (0, 2));
        assert_eq!(drain(&journal, journal.last_told()), (1, 3));
    }

    #[test]
    fn a_commit_goes_on_with_the_last_row_until_it_is_full_or_being_settled() {
        let journal = Journal::new(FILLED_ROWS);
        let numbers = |token| -> Vec<u64> {
            let rows = commit(&journal, snapshot("1", [head(token)]));
            rows.into_iter().map(|(n, _)| n).collect()
        };
        assert_eq!(numbers(1), [1]);
        assert_eq!(numbers(2), [1], "there is room");
        let step = journal.next_step(1).unwrap();
        journal.checkpointed(step);
        assert_eq!(
            numbers(3),
            [2],
            "what is taken out with row 1 is checkpointed"
        );
        assert_eq!(drain(&journal, 1), (0, 1));
        let full = (4..1_000).map(numbers).find(|numbers| *numbers != [2]);
        assert_eq!(full.unwrap(), [3]);
        assert_eq!(drain(&journal, journal.last_told()), (1, 3));
        // Nothing but documents: no row at all.
        assert!(commit(&journal, snapshot("1", [])).is_empty());
        assert_eq!(numbers(1_000), [4]);
    }

    #[test]
    fn a_commit_that_failed_leaves_the_last_row_as_it_was() {
        let journal = Journal::new(FILLED_ROWS);
        commit(&journal, snapshot("1", [head(1)]));
        let failed = [snapshot("1", [head(2)])];
        drop(journal.enter(&failed).unwrap());
        let written = commit(&journal, snapshot("1", [head(3)]));
        let [(1, row)] = &written[..] else {
            panic!("{written:?}");
        };
        let expected = [snapshot("1", [head(1)]), snapshot("1", [head(3)])];
        let locks = expected.iter().map(|s| (&s.id, &s.lock));
        assert_eq!(std::slice::from_ref(row), rows::write(locks, 100).unwrap());
    }

    #[test]
    fn changes_of_a_resource_that_is_removed_are_settled_by_being_forgotten() {
        let journal = Journal::new(OWN_ROWS);
        commit(&journal, snapshot("1", [head(1)]));
        let mut removed = snapshot("1", []);
        removed.remove(FencingToken(1));
        commit(&journal, removed);
        assert_eq!(drain(&journal, journal.last_told()), (0, 1));
    }

    #[test]
    fn a_resource_has_to_exist_until_it_is_known_to() {
        let journal = Journal::new(OWN_ROWS);
        let unknown = |id: &str| {
            journal
                .enter(&[snapshot(id, [head(1)])])
                .unwrap()
                .must_exist
                .len()
        };
        assert_eq!(unknown("1"), 1);
        commit(&journal, snapshot("1", [head(1)]));
        assert_eq!((unknown("1"), unknown("2")), (0, 1));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_load_is_current_unless_a_commit_of_its_name_came_between() {
        let journal = Journal::new(OWN_ROWS);
        let overlay = journal.overlay(&name("a")).await;
        let batch = [snapshot("1", [head(1)])];
        let entry = journal.enter(&batch).unwrap();
        assert!(
            !journal.is_current(&name("a"), &overlay),
            "it may be about to change"
        );
        drop(entry);
        assert!(
            journal.is_current(&name("a"), &overlay),
            "it did not happen"
        );
        commit(&journal, snapshot("1", [head(1)]));
        assert!(!journal.is_current(&name("a"), &overlay));
        let overlay = journal.overlay(&name("a")).await;
        let step = journal.next_step(1).unwrap();
        journal.checkpointed(step);
        assert!(
            !journal.is_current(&name("a"), &overlay),
            "it is in the tables now"
        );
    }
}
