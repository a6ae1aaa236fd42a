//! The journal of the SQL stores: a write-ahead log of lock changes, which makes durable locks fast.
//!
//! A busy lock changes the same few rows again and again, and writing a row costs a database far more than its
//! bytes. So a commit appends the changes of all its locks to a journal table, as one row of bytes, in the same
//! transaction as everything else. Every few seconds the store makes a *checkpoint*: it writes the merged
//! changes to the tables and truncates the journal (deletes its first rows, or marks them as done). A store that
//! is opened first makes a checkpoint of the journal that an earlier process left. Invariants:
//!
//! - A journal row is truncated only after the transactions that wrote its changes to the tables. So the tables
//!   with the journal replayed over them, in its order, are always the last committed state. Replaying a change
//!   twice does no harm.
//! - Lock rows are written through the journal only, except for those with which a resource begins in a store
//!   that writes whole pages. Resources are created and removed in the tables. An id is used once, so a journal
//!   change whose resource is gone is ignored.
//! - The lock rows of a resource that began in the journal are not in the tables until a checkpoint reaches it. So a
//!   resource that comes and goes in between, as a lock that was made on the fly, costs the tables no lock rows.
//! - Documents are written to their table directly: they are large, and the table is the PHP server's.
//! - [`Journal`] keeps in memory what is not checkpointed yet; a load applies it to what it reads in the tables.

mod rows;
mod version1;

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::snapshot::{LockChanges, ResourceId, Snapshot};
use super::{StoreError, StoredResource};
use crate::lock::ResourceName;
use crate::store::shrink::shrink_if_sparse;
pub(super) use rows::{EMPTY, SEAL, read};

/// Number of table rows that one transaction of a checkpoint writes: small, because commits wait meanwhile.
const STEP_ROWS: usize = 256;

/// The changes of one lock that are in the journal but not in the tables yet.
#[derive(Clone, Debug)]
pub(super) struct PendingChanges {
    pub id: ResourceId,
    pub changes: LockChanges,
    /// Number of the last change, unique in this journal: it differs after each change.
    stamp: u64,
    /// In `newer`: these are all changes of the lock since its resource was created, and it has never had a document.
    is_new: bool,
}

type Part = HashMap<ResourceName, PendingChanges>;

#[derive(Default)]
struct State {
    /// The last stamp that was given out.
    stamps: u64,
    /// Number of the last committed row.
    last: u64,
    /// Number of the last committed row with changes in it.
    last_with_changes: u64,
    /// Number of the last row when the latest checkpoint began. The changes of the rows up to this one are in
    /// `older` or in the tables.
    mark: u64,
    /// Rows up to this one are truncated.
    truncated: u64,
    /// The changes since the checkpoint under way began.
    newer: Part,
    /// The changes that the checkpoint under way has yet to write to the tables.
    older: Part,
    /// Names with a commit under way whose outcome is not known yet.
    committing: HashSet<ResourceName>,
    /// The bytes of the last row, if the next commit may be added to it; otherwise empty.
    open: Vec<u8>,
}

/// The changes that a database has in its journal only. One per store; empty while the store is not open.
pub(super) struct Journal {
    /// Maximum size of a row in bytes; a single larger piece of changes may exceed it.
    row_bytes: usize,
    /// Whether a commit is added to the row of the one before it if there is room. Otherwise each commit has
    /// rows of its own.
    fills_rows: bool,
    /// Maximum number of journal rows that one transaction of a checkpoint truncates.
    truncation_max: u64,
    state: Mutex<State>,
    /// Notified when a commit has ended, whatever its outcome.
    ended: Notify,
}

/// A batch and its journal rows, while it is being committed. What is not in these rows is written to the tables.
pub(super) struct JournalEntry<'e> {
    journal: &'e Journal,
    pub batch: &'e [Snapshot],
    /// Resources to be removed, and whether the tables may have lock rows or documents of them.
    pub removed: Vec<(&'e ResourceId, bool)>,
    /// Rows to be written to the journal, with their numbers. A row that exists already is overwritten by one
    /// that has more in it.
    pub rows: Vec<(u64, Vec<u8>)>,
    /// Resources whose existence is to be checked: those that are changed in the tables, and those without pending
    /// changes, which would show that they exist.
    pub must_exist: Vec<&'e ResourceId>,
}

/// One transaction of a checkpoint.
pub(super) enum CheckpointStep {
    /// Writes these changes to the tables, where the resource still exists.
    Write(Vec<(ResourceName, PendingChanges)>),
    /// Truncates the journal rows up to this number, which are in the tables. `rows`: how many they are, if each
    /// commit has rows of its own.
    Truncate { up_to: u64, rows: u64 },
}

/// The pending changes that a load applies to the rows it reads: first those being checkpointed, then those
/// made since.
type Overlay = [Option<PendingChanges>; 2];

impl Journal {
    /// For a store that writes whole pages: fills rows of this size, and truncates all of them at once. The first lock
    /// rows of a resource are written to the tables, because their pages are written anyway.
    pub fn of_pages(row_bytes: usize) -> Journal {
        Journal {
            fills_rows: true,
            ..Journal::of_commits(row_bytes, u64::MAX)
        }
    }

    /// Each commit has rows of its own. For the parameters see the fields.
    pub fn of_commits(row_bytes: usize, truncation_max: u64) -> Journal {
        Journal {
            row_bytes,
            fills_rows: false,
            truncation_max,
            state: Mutex::default(),
            ended: Notify::new(),
        }
    }

    /// Starts with a journal table without pending changes. `last`: number of its last row.
    pub fn reset(&self, last: u64) {
        *self.state.lock() = State {
            last,
            ..State::default()
        };
        self.ended.notify_waiters();
    }

    /// Counts a committed row, with or without changes, for a store that appends a row in every transaction.
    pub fn appended(&self) {
        self.state.lock().last += 1;
    }

    /// Whether the lock changes of this snapshot go to the journal.
    fn is_entered(&self, snapshot: &Snapshot) -> bool {
        let is_with_tables = self.fills_rows && snapshot.created.is_some();
        !is_with_tables && !snapshot.lock.is_empty()
    }

    /// Splits a batch into journal rows and direct writes. To be followed by [`JournalEntry::committed`] once
    /// these are committed; without that call the entry counts as not committed.
    ///
    /// # Errors
    /// [`StoreError::Rejected`]: the changes cannot be encoded.
    pub fn enter<'e>(&'e self, batch: &'e [Snapshot]) -> Result<JournalEntry<'e>, StoreError> {
        let mut removed = Vec::new();
        let mut state = self.state.lock();
        for snapshot in batch {
            let is_first = state.committing.insert(snapshot.name.clone());
            debug_assert!(is_first, "{:?} comes twice in a batch", snapshot.name);
            let has_rows = |id| !state.is_new(&snapshot.name, id);
            removed.extend(snapshot.removed.iter().map(|id| (id, has_rows(id))));
        }
        let is_unknown = |s: &&Snapshot| self.is_entered(s) && !state.knows(s);
        let existing = batch.iter().filter(|s| s.created.is_none());
        let unsure = existing.filter(|s| changes_tables(s) || is_unknown(s));
        let must_exist = unsure.map(|snapshot| &snapshot.id).collect();
        let mut entry = JournalEntry {
            journal: self,
            batch,
            removed,
            rows: Vec::new(),
            must_exist,
        };
        let (last, open) = (state.last, state.open.clone());
        drop(state);
        let row_bytes = self.row_bytes;
        let entered = batch.iter().filter(|snapshot| self.is_entered(snapshot));
        let rows = rows::write(entered.map(|s| (&s.id, &s.lock)), row_bytes)?;
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

    /// The resource of this name: as `read` finds it in the tables, with its pending changes applied. Reads
    /// again if a change of it was committed or checkpointed meanwhile.
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

    /// The pending changes of this name. If a commit of this name is under way, waits for its end.
    async fn overlay(&self, name: &ResourceName) -> Overlay {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            let overlay = {
                let state = self.state.lock();
                let is_committing = state.committing.contains(name);
                (!is_committing).then(|| state.pending(name).map(Option::<&_>::cloned))
            };
            match overlay {
                Some(overlay) => return overlay,
                None => ended.await,
            }
        }
    }

    /// Whether the pending changes of this name are still those of `overlay` and no commit of it is under way.
    /// If so, rows that were read in between match `overlay`.
    fn is_current(&self, name: &ResourceName, overlay: &Overlay) -> bool {
        let state = self.state.lock();
        let stamp = |pending: Option<&PendingChanges>| pending.map(|pending| pending.stamp);
        let before = overlay.each_ref().map(|pending| stamp(pending.as_ref()));
        !state.committing.contains(name) && state.pending(name).map(stamp) == before
    }

    /// Number of locks with changes that are not in the tables.
    pub fn len(&self) -> usize {
        let state = self.state.lock();
        state.newer.len() + state.older.len()
    }

    /// Number of the last row with changes in it: how far a checkpoint has to go now.
    pub fn last_with_changes(&self) -> u64 {
        self.state.lock().last_with_changes
    }

    /// Number of the last committed row.
    pub fn last(&self) -> u64 {
        self.state.lock().last
    }

    /// The next transaction of a checkpoint, after which everything up to `row` will be in the tables and out
    /// of the journal. `None`: this is reached. To be followed by [`Journal::checkpointed`] once the
    /// transaction is committed; no other commit may be under way meanwhile.
    pub fn next_step(&self, row: u64) -> Option<CheckpointStep> {
        let state = &mut *self.state.lock();
        let is_done = state.older.is_empty() && state.truncated == state.mark;
        if is_done && state.mark < row.min(state.last) {
            state.mark = state.last;
            // Later commits are not part of this checkpoint, so they need a row of their own.
            state.open = Vec::new();
            state.older = std::mem::take(&mut state.newer);
        }
        if state.older.is_empty() {
            let rows = (state.mark - state.truncated).min(self.truncation_max);
            let up_to = state.truncated + rows;
            return (rows > 0).then_some(CheckpointStep::Truncate { up_to, rows });
        }
        let (mut locks, mut rows) = (Vec::new(), 0);
        for (name, pending) in &state.older {
            rows += pending.changes.rows();
            locks.push((name.clone(), pending.clone()));
            if rows >= STEP_ROWS {
                break;
            }
        }
        Some(CheckpointStep::Write(locks))
    }

    /// Records that the transaction of this step is committed.
    pub fn checkpointed(&self, step: CheckpointStep) {
        let mut state = self.state.lock();
        match step {
            CheckpointStep::Write(locks) => {
                for (name, _) in &locks {
                    state.older.remove(name);
                }
            }
            CheckpointStep::Truncate { up_to, .. } => state.truncated = up_to,
        }
        shrink_if_sparse(&mut state.older);
        shrink_if_sparse(&mut state.newer);
    }
}

impl State {
    /// Whether the resource of this snapshot is known to exist because it has pending changes.
    fn knows(&self, snapshot: &Snapshot) -> bool {
        let mut pending = self.pending(&snapshot.name).into_iter().flatten();
        pending.any(|pending| pending.id == snapshot.id)
    }

    /// Whether the tables have no lock row and no document of this resource.
    fn is_new(&self, name: &ResourceName, id: &ResourceId) -> bool {
        let is_new = |pending: &PendingChanges| pending.is_new && pending.id == *id;
        !self.older.contains_key(name) && self.newer.get(name).is_some_and(is_new)
    }

    /// The pending changes of this name, in the order of an [`Overlay`].
    fn pending(&self, name: &ResourceName) -> [Option<&PendingChanges>; 2] {
        [&self.older, &self.newer].map(|part| part.get(name))
    }

    fn add(&mut self, snapshot: &Snapshot) {
        self.stamps += 1;
        let stamp = self.stamps;
        match self.newer.get_mut(&snapshot.name) {
            Some(pending) if pending.id == snapshot.id => {
                pending.changes.merge(&snapshot.lock);
                pending.stamp = stamp;
            }
            _ => {
                let pending = PendingChanges {
                    id: snapshot.id.clone(),
                    changes: snapshot.lock.clone(),
                    stamp,
                    is_new: snapshot.created.is_some(),
                };
                self.newer.insert(snapshot.name.clone(), pending);
            }
        }
    }
}

/// Whether this snapshot writes to the tables, besides what it removes and the rows of its lock.
fn changes_tables(snapshot: &Snapshot) -> bool {
    snapshot.created.is_some() || snapshot.options.is_some() || !snapshot.data.is_empty()
}

impl JournalEntry<'_> {
    /// Whether the batch changes the tables, too.
    pub fn changes_tables(&self) -> bool {
        !self.removed.is_empty() || self.batch.iter().any(changes_tables)
    }

    /// Records that the transaction of this entry is committed.
    pub fn committed(mut self) {
        let mut state = self.journal.state.lock();
        if let Some((last, row)) = self.rows.pop() {
            state.last = last;
            state.last_with_changes = last;
            if self.journal.fills_rows {
                state.open = row;
            }
        }
        for snapshot in self.batch {
            // Changes of a resource that is gone no longer apply.
            if snapshot.created.is_some() || !snapshot.removed.is_empty() {
                state.newer.remove(&snapshot.name);
                state.older.remove(&snapshot.name);
            }
            if self.journal.is_entered(snapshot) {
                state.add(snapshot);
            }
            if let Some(pending) = state.newer.get_mut(&snapshot.name) {
                pending.is_new &= snapshot.data.is_empty();
            }
        }
    }
}

impl Drop for JournalEntry<'_> {
    fn drop(&mut self) {
        let mut state = self.journal.state.lock();
        for snapshot in self.batch {
            state.committing.remove(&snapshot.name);
        }
        drop(state);
        self.journal.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::rows::{EndedRow, HeadRow, TicketRow};
    use crate::lock::{EndReason, FencingToken, Mode, ResourceOptions, Seconds, Selector, Ticket};

    fn own_rows() -> Journal {
        Journal::of_commits(64 << 10, 2)
    }

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
            match &step {
                CheckpointStep::Write(some) => locks += some.len(),
                CheckpointStep::Truncate { up_to, .. } => {
                    assert!(*up_to > done);
                    done = *up_to;
                }
            }
            journal.checkpointed(step);
        }
        (locks, done)
    }

    #[test]
    fn rows_are_truncated_after_their_changes_are_in_the_tables_and_not_beyond() {
        let journal = own_rows();
        assert_eq!(drain(&journal, journal.last_with_changes()), (0, 0));
        commit(&journal, snapshot("1", [head(1)]));
        commit(&journal, snapshot("1", [head(2)]));
        let before = journal.last_with_changes();
        let first = journal.next_step(before).unwrap();
        assert!(matches!(&first, CheckpointStep::Write(locks) if locks.len() == 1));
        // Committed during the checkpoint: it stays in the journal.
        commit(&journal, snapshot("1", [head(3)]));
        journal.checkpointed(first);
        assert_eq!(drain(&journal, before), (0, 2));
        assert_eq!(drain(&journal, journal.last_with_changes()), (1, 3));
    }

    #[test]
    fn a_commit_is_added_to_the_last_row_until_that_is_full_or_being_checkpointed() {
        let journal = Journal::of_pages(100);
        let numbers = |token| -> Vec<u64> {
            let rows = commit(&journal, snapshot("1", [head(token)]));
            rows.into_iter().map(|(n, _)| n).collect()
        };
        assert_eq!(numbers(1), [1]);
        assert_eq!(numbers(2), [1], "there is room");
        let step = journal.next_step(1).unwrap();
        journal.checkpointed(step);
        assert_eq!(numbers(3), [2], "row 1 is being checkpointed");
        assert_eq!(drain(&journal, 1), (0, 1));
        let full = (4..1_000).map(numbers).find(|numbers| *numbers != [2]);
        assert_eq!(full.unwrap(), [3]);
        assert_eq!(drain(&journal, journal.last_with_changes()), (1, 3));
        // No lock changes: no row at all.
        assert!(commit(&journal, snapshot("1", [])).is_empty());
        assert_eq!(numbers(1_000), [4]);
    }

    #[test]
    fn a_commit_that_failed_leaves_the_last_row_as_it_was() {
        let journal = Journal::of_pages(100);
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
    fn a_new_resource_has_no_lock_rows_until_a_checkpoint_reaches_it() {
        let journal = own_rows();
        let has_rows = |id: &str| {
            let mut removal = snapshot(id, []);
            removal.remove(FencingToken(1));
            journal.enter(&[removal]).unwrap().removed[0].1
        };
        let create = |id: &str| {
            let mut created = snapshot(id, [head(1)]);
            created.create(ResourceId::new(id), ResourceOptions::plain(Seconds::ZERO));
            commit(&journal, created);
        };
        assert!(has_rows("1"), "it may be in the tables");
        create("1");
        commit(&journal, snapshot("1", [head(2)]));
        assert!(!has_rows("1"));
        assert!(has_rows("0"), "another resource of this name");
        assert!(journal.next_step(1).is_some());
        assert!(has_rows("1"), "they may just be written");
        commit(&journal, snapshot("1", [head(3)]));
        assert!(has_rows("1"));
        create("2");
        let mut written = snapshot("2", []);
        let selector = Selector::parse("state").unwrap();
        written.data.insert(selector, None);
        assert!(!has_rows("2"));
        commit(&journal, written);
        assert!(has_rows("2"), "a document may be there");
    }

    #[test]
    fn a_resource_has_to_exist_until_it_is_known_to() {
        let journal = own_rows();
        let unknown = |id: &str| {
            let batch = [snapshot(id, [head(1)])];
            journal.enter(&batch).unwrap().must_exist.len()
        };
        assert_eq!(unknown("1"), 1);
        commit(&journal, snapshot("1", [head(1)]));
        assert_eq!((unknown("1"), unknown("2")), (0, 1));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_load_is_current_unless_a_commit_of_its_name_came_between() {
        let journal = own_rows();
        let is_current = |overlay: &_| journal.is_current(&name("a"), overlay);
        let overlay = journal.overlay(&name("a")).await;
        let batch = [snapshot("1", [head(1)])];
        let entry = journal.enter(&batch).unwrap();
        assert!(!is_current(&overlay), "a commit is under way");
        drop(entry);
        assert!(is_current(&overlay), "the commit was dropped");
        commit(&journal, snapshot("1", [head(1)]));
        assert!(!is_current(&overlay));
        let overlay = journal.overlay(&name("a")).await;
        let step = journal.next_step(1).unwrap();
        journal.checkpointed(step);
        assert!(!is_current(&overlay), "the changes are in the tables now");
    }
}
