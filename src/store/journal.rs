//! Lock changes on their way into the tables of a SQL store: how durable locks get fast.
//!
//! A lock that is taken and given back changes the same few rows again and again, and writing a row costs a
//! database far more than its bytes. So a commit does not write them: it appends the changes of its whole
//! batch to a journal table, one row of bytes however many locks it is about, in the same transaction as
//! everything else. Every few seconds the store *settles*: it writes to the tables what the changes since
//! then came to, and deletes the rows of the journal. Whoever opens the database first settles what an
//! earlier process left. (The idea is the write-ahead log of databases: Mohan et al., "ARIES", 1992.)
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
//! - [`Journal`] keeps in memory what is not settled yet, so a load reads the tables and lays that over them.
//!
//! The SQL stores share this file; what is theirs is how rows are written.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::snapshot::{LockChanges, ResourceId, Snapshot};
use super::{StoreError, StoredResource};
use crate::lock::ResourceName;
use crate::slack;

/// The form of a row; its first byte.
const FORM: u8 = 1;
/// A row of the journal is closed when it has this many bytes.
const ROW_BYTES: usize = 64 << 10;
/// And changes of one lock are taken apart, so that a row does not get much larger.
const PIECE_ROWS: usize = 64;

/// How many rows of tables one transaction of settling writes: few, because commits wait meanwhile.
const STEP_ROWS: usize = 256;
/// How many rows of the journal one transaction of settling deletes.
const STEP_DELETED: u64 = 512;

/// The changes of one lock that a database has in its journal only.
#[derive(Clone, Debug)]
struct Unsettled {
    id: ResourceId,
    changes: LockChanges,
    /// Never the same after a change.
    stamp: u64,
}

type Part = HashMap<ResourceName, Unsettled>;

#[derive(Default)]
struct State {
    stamps: u64,
    /// Number of the last row that is committed.
    last: u64,
    /// The changes up to this row are in the tables, and those of `older` are in rows up to `mark`.
    settled: u64,
    mark: u64,
    /// Rows up to this one are deleted.
    deleted: u64,
    newer: Part,
    older: Part,
    /// Names with a commit under way, of which nobody knows yet whether it happened.
    committing: HashSet<ResourceName>,
}

/// What a database has in its journal only. One per store; empty as long as the store is not open.
#[derive(Default)]
pub(super) struct Journal {
    state: Mutex<State>,
    /// A commit ended.
    ended: Notify,
}

/// A batch taken apart, while it is being committed.
pub(super) struct Entry<'e> {
    journal: &'e Journal,
    batch: &'e [Snapshot],
    /// Names whose changes so far are of resources that this batch removes.
    replaced: Vec<&'e ResourceName>,
    locks: Vec<NewLock<'e>>,
    /// Goes to the tables.
    pub direct: Vec<Snapshot>,
    /// Goes to the journal, with the numbers of the rows.
    pub rows: Vec<(u64, Vec<u8>)>,
    /// Resources that have to exist, as far as is not known already.
    pub must_exist: Vec<&'e ResourceId>,
}

/// What a batch changes of one lock.
struct NewLock<'e> {
    name: &'e ResourceName,
    id: &'e ResourceId,
    changes: Cow<'e, LockChanges>,
}

/// The changes of one lock.
pub(super) struct Lock {
    name: ResourceName,
    pub id: ResourceId,
    pub changes: LockChanges,
}

/// One transaction of settling.
pub(super) struct Step {
    /// To be written to the tables, where the resource exists.
    pub locks: Vec<Lock>,
    /// Rows of the journal to delete: all up to this number.
    pub delete: Option<u64>,
}

/// What a load has to lay over the rows that it reads.
struct Overlay {
    unsettled: [Option<Unsettled>; 2],
}

impl Journal {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The journal table is empty.
    pub fn reset(&self) {
        *self.state() = State::default();
        self.ended.notify_waiters();
    }

    /// Takes a batch apart. To be followed by [`Entry::committed`] once it is.
    ///
    /// # Errors
    /// [`StoreError::Rejected`]: it cannot be written down.
    pub fn enter<'e>(&'e self, batch: &'e [Snapshot]) -> Result<Entry<'e>, StoreError> {
        let mut state = self.state();
        let mut parts = Parts::default();
        for snapshot in batch {
            // Only whoever writes a batch by hand has a name in it twice.
            parts.repeat |= !state.committing.insert(snapshot.name.clone());
        }
        batch.iter().for_each(|snapshot| parts.add(snapshot));
        let must_exist = parts.locks.iter().filter(|lock| !state.knows(lock));
        let must_exist = must_exist.map(|lock| lock.id).collect();
        let numbers = state.last + 1..;
        drop(state);
        let mut entry = Entry {
            journal: self,
            batch,
            replaced: parts.replaced,
            locks: parts.locks,
            direct: parts.direct,
            rows: Vec::new(),
            must_exist,
        };
        entry.rows = numbers.zip(encode(&entry.locks)?).collect();
        Ok(entry)
    }

    /// The resource of this name as `read` finds it in the tables, with what is not settled laid over it. Reads
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
                    overlay.lay_over(found);
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
        !state.committing.contains(name) && state.stamps(name) == overlay.stamps()
    }

    /// Number of the last row that was committed: what there is to settle now.
    pub fn last(&self) -> u64 {
        self.state().last
    }

    /// The next transaction towards having everything up to `row` in the tables and out of the journal;
    /// `None`: that is so. To be followed by [`Journal::settled`] once it is committed; no other commit may
    /// be under way meanwhile.
    pub fn next_step(&self, row: u64) -> Option<Step> {
        self.state().next_step(row)
    }

    pub fn settled(&self, step: Step) {
        let mut state = self.state();
        for lock in &step.locks {
            state.older.remove(&lock.name);
        }
        if state.older.is_empty() {
            state.settled = state.mark;
        }
        state.deleted = step.delete.unwrap_or(state.deleted);
        state.give_memory_back();
    }
}

impl State {
    /// Is this resource known to exist, because it has changes?
    fn knows(&self, lock: &NewLock<'_>) -> bool {
        let parts = [&self.newer, &self.older];
        parts.into_iter().any(|part| {
            let unsettled = part.get(lock.name);
            unsettled.is_some_and(|unsettled| unsettled.id == *lock.id)
        })
    }

    fn overlay(&self, name: &ResourceName) -> Option<Overlay> {
        let of = |part: &Part| part.get(name).cloned();
        (!self.committing.contains(name)).then(|| Overlay {
            unsettled: [of(&self.older), of(&self.newer)],
        })
    }

    /// As [`Overlay::stamps`] would say.
    fn stamps(&self, name: &ResourceName) -> [u64; 2] {
        [&self.older, &self.newer].map(|part| stamp(part.get(name)))
    }

    fn add(&mut self, lock: NewLock<'_>) {
        self.stamps += 1;
        let stamp = self.stamps;
        match self.newer.get_mut(lock.name) {
            Some(unsettled) if unsettled.id == *lock.id => {
                unsettled.changes.merge(&lock.changes);
                unsettled.stamp = stamp;
            }
            _ => {
                let unsettled = Unsettled {
                    id: lock.id.clone(),
                    changes: lock.changes.into_owned(),
                    stamp,
                };
                self.newer.insert(lock.name.clone(), unsettled);
            }
        }
    }

    fn next_step(&mut self, row: u64) -> Option<Step> {
        let row = row.min(self.last);
        if self.older.is_empty() && self.settled < row {
            self.mark = self.last;
            self.older = std::mem::take(&mut self.newer);
            if self.older.is_empty() {
                self.settled = self.mark;
            }
        }
        if self.deleted < self.settled {
            return Some(Step {
                locks: Vec::new(),
                delete: Some(self.settled.min(self.deleted + STEP_DELETED)),
            });
        }
        if self.settled >= row {
            return None;
        }
        let mut locks = Vec::new();
        let mut rows = 0;
        for (name, unsettled) in &self.older {
            rows += unsettled.changes.rows();
            locks.push(Lock {
                name: name.clone(),
                id: unsettled.id.clone(),
                changes: unsettled.changes.clone(),
            });
            if rows >= STEP_ROWS {
                break;
            }
        }
        Some(Step {
            locks,
            delete: None,
        })
    }

    fn give_memory_back(&mut self) {
        for part in [&mut self.older, &mut self.newer] {
            slack::give_back(part);
        }
    }
}

/// A batch on the way to being an [`Entry`].
#[derive(Default)]
struct Parts<'e> {
    direct: Vec<Snapshot>,
    locks: Vec<NewLock<'e>>,
    replaced: Vec<&'e ResourceName>,
    /// A name may come twice.
    repeat: bool,
}

impl<'e> Parts<'e> {
    fn add(&mut self, snapshot: &'e Snapshot) {
        if snapshot.created.is_some() || !snapshot.removed.is_empty() {
            if self.repeat {
                self.locks.retain(|lock| *lock.name != snapshot.name);
            }
            self.replaced.push(&snapshot.name);
        }
        let in_journal = snapshot.created.is_none() && !snapshot.lock.is_empty();
        if in_journal {
            self.add_lock(snapshot);
        }
        if snapshot.rows() > 0 && !(in_journal && snapshot.rows() == snapshot.lock.rows()) {
            let mut direct = snapshot.clone();
            if in_journal {
                direct.lock = LockChanges::default();
            }
            self.direct.push(direct);
        }
    }

    fn add_lock(&mut self, snapshot: &'e Snapshot) {
        let mut earlier = self.locks.iter_mut().filter(|_| self.repeat);
        match earlier.find(|lock| *lock.id == snapshot.id) {
            Some(lock) => lock.changes.to_mut().merge(&snapshot.lock),
            None => self.locks.push(NewLock {
                name: &snapshot.name,
                id: &snapshot.id,
                changes: Cow::Borrowed(&snapshot.lock),
            }),
        }
    }
}

impl Entry<'_> {
    /// The transaction with all this is committed.
    pub fn committed(mut self) {
        let mut state = self.journal.state();
        if let Some((last, _)) = self.rows.last() {
            state.last = *last;
        }
        for name in self.replaced.drain(..) {
            state.newer.remove(name);
            state.older.remove(name);
        }
        for lock in self.locks.drain(..) {
            state.add(lock);
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut state = self.journal.state();
        for snapshot in self.batch {
            state.committing.remove(&snapshot.name);
        }
        drop(state);
        self.journal.ended.notify_waiters();
    }
}

impl Overlay {
    fn stamps(&self) -> [u64; 2] {
        let [older, newer] = &self.unsettled;
        [stamp(older.as_ref()), stamp(newer.as_ref())]
    }

    /// Lays it over what was read from the tables.
    fn lay_over(&self, resource: &mut StoredResource) {
        for unsettled in self.unsettled.iter().flatten() {
            if unsettled.id == resource.id {
                unsettled.changes.overlay(&mut resource.lock);
            }
        }
    }
}

/// 0: nothing is unsettled.
fn stamp(unsettled: Option<&Unsettled>) -> u64 {
    unsettled.map_or(0, |unsettled| unsettled.stamp)
}

// ---- rows ---------------------------------------------------------------------------------------------

fn encode(locks: &[NewLock<'_>]) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut rows = Vec::new();
    let mut row = vec![FORM];
    for lock in locks {
        for piece in pieces(&lock.changes) {
            row = postcard::to_extend(&(lock.id, &piece), row)
                .map_err(|error| StoreError::Rejected(error.to_string()))?;
            if row.len() >= ROW_BYTES {
                rows.push(std::mem::replace(&mut row, vec![FORM]));
            }
        }
    }
    if row.len() > 1 {
        rows.push(row);
    }
    Ok(rows)
}

/// The same changes, few at a time.
fn pieces(changes: &LockChanges) -> Vec<Cow<'_, LockChanges>> {
    if changes.rows() <= PIECE_ROWS {
        return vec![Cow::Borrowed(changes)];
    }
    let first = LockChanges {
        head: changes.head.clone(),
        ended: changes.ended.clone(),
        ..LockChanges::default()
    };
    let waiting: Vec<_> = changes.waiting.iter().collect();
    let rest = waiting.chunks(PIECE_ROWS).map(|some| LockChanges {
        waiting: some.iter().map(|(k, v)| (**k, (*v).clone())).collect(),
        ..LockChanges::default()
    });
    [first].into_iter().chain(rest).map(Cow::Owned).collect()
}

/// What rows of a journal say in their order, for each resource.
///
/// # Errors
/// [`StoreError::Unusable`]: a newer program wrote it, or it is damaged.
pub(super) fn read(
    rows: impl IntoIterator<Item = Vec<u8>>,
) -> Result<Vec<(ResourceId, LockChanges)>, StoreError> {
    let mut found: HashMap<ResourceId, LockChanges> = HashMap::new();
    for row in rows {
        let Some((&FORM, mut rest)) = row.split_first() else {
            let text =
                "its journal has a form that this program does not know; a newer one wrote it";
            return Err(StoreError::Unusable(text.to_owned()));
        };
        while !rest.is_empty() {
            let read = postcard::take_from_bytes::<(ResourceId, LockChanges)>(rest);
            let ((id, changes), left) = read.map_err(|error| {
                StoreError::Unusable(format!("its journal cannot be read: {error}"))
            })?;
            found.entry(id).or_default().merge(&changes);
            rest = left;
        }
    }
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::rows::{Change, EndedRow, HeadRow, TicketRow};
    use crate::lock::{EndReason, FencingToken, Ticket};

    fn name(text: &str) -> ResourceName {
        ResourceName::parse(text).unwrap()
    }

    fn head(token: u64) -> Change {
        Change::Head(HeadRow {
            token: FencingToken(token),
            holder: None,
        })
    }

    fn waiting(bits: u128) -> Change {
        Change::Waiting(TicketRow {
            ticket: Ticket::from_bits(bits),
            seq: bits as u64,
            owner: None,
            ttl: None,
            key: None,
        })
    }

    fn ended(n: u64) -> Change {
        Change::Ended(EndedRow {
            n,
            ticket: Ticket::from_bits(u128::from(n)),
            reason: EndReason::Expired,
        })
    }

    fn snapshot(id: &str, changes: impl IntoIterator<Item = Change>) -> Snapshot {
        let mut snapshot = Snapshot::empty(name("a"), ResourceId::new(id));
        changes
            .into_iter()
            .for_each(|change| snapshot.change(change));
        snapshot
    }

    fn commit(journal: &Journal, snapshot: Snapshot) -> Vec<Vec<u8>> {
        let batch = [snapshot];
        let mut entry = journal.enter(&batch).unwrap();
        let rows = std::mem::take(&mut entry.rows);
        // The numbers tell it how far it is.
        entry.rows = rows.iter().map(|(n, _)| (*n, Vec::new())).collect();
        entry.committed();
        rows.into_iter().map(|(_, row)| row).collect()
    }

    #[test]
    fn what_was_written_is_read_whole_and_in_order() {
        let journal = Journal::default();
        let mut rows = commit(&journal, snapshot("1", [head(1), waiting(7), ended(0)]));
        rows.extend(commit(
            &journal,
            snapshot("1", [head(2), Change::NotWaiting(Ticket::from_bits(7))]),
        ));
        let many = (0..5_000).map(|bits| waiting(u128::MAX - bits));
        let many = commit(&journal, snapshot("1", many.chain((1..80).map(ended))));
        assert!(many.len() > 1, "a row has a size");
        assert!(many.iter().all(|row| row.len() < 2 * ROW_BYTES));
        rows.extend(many);
        let found = read(rows).unwrap();
        let [(id, changes)] = &found[..] else {
            panic!("{} resources", found.len());
        };
        assert_eq!(id.as_str(), "1");
        assert_eq!(changes.head.as_ref().unwrap().token, FencingToken(2));
        assert_eq!(changes.waiting.len(), 5_001);
        assert_eq!(changes.waiting[&Ticket::from_bits(7)], None);
        let numbers: Vec<u64> = changes.ended.iter().map(|row| row.n).collect();
        assert_eq!(numbers, (16..80).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_of_an_unknown_form_or_cut_off_is_refused() {
        let journal = Journal::default();
        let rows = commit(&journal, snapshot("1", [head(1)]));
        let mut newer = rows.clone();
        newer[0][0] = FORM + 1;
        let mut short = rows.clone();
        short[0].pop();
        for bad in [newer, short, vec![Vec::new()]] {
            assert!(matches!(read(bad), Err(StoreError::Unusable(_))));
        }
    }

    fn drain(journal: &Journal, row: u64) -> (usize, u64) {
        let (mut locks, mut deleted) = (0, 0);
        while let Some(step) = journal.next_step(row) {
            assert!(step.delete.is_none_or(|up_to| up_to > deleted));
            assert_eq!(
                step.locks.is_empty(),
                step.delete.is_some(),
                "one at a time"
            );
            locks += step.locks.len();
            deleted = step.delete.unwrap_or(deleted);
            journal.settled(step);
        }
        (locks, deleted)
    }

    #[test]
    fn rows_are_deleted_after_what_they_say_is_in_the_tables_and_not_beyond() {
        let journal = Journal::default();
        assert_eq!(drain(&journal, journal.last()), (0, 0));
        commit(&journal, snapshot("1", [head(1)]));
        commit(&journal, snapshot("1", [head(2)]));
        let before = journal.last();
        let first = journal.next_step(before).unwrap();
        assert_eq!((first.locks.len(), first.delete), (1, None));
        // Comes while the older changes are being moved, and stays in the journal.
        commit(&journal, snapshot("1", [head(3)]));
        journal.settled(first);
        assert_eq!(drain(&journal, before), (0, 2));
        assert_eq!(drain(&journal, journal.last()), (1, 3));
    }

    #[test]
    fn changes_of_a_resource_that_is_removed_are_settled_by_being_forgotten() {
        let journal = Journal::default();
        commit(&journal, snapshot("1", [head(1)]));
        let mut removed = snapshot("1", []);
        removed.remove(FencingToken(1));
        commit(&journal, removed);
        assert_eq!(drain(&journal, journal.last()), (0, 1));
    }

    #[test]
    fn a_resource_has_to_exist_until_it_is_known_to() {
        let journal = Journal::default();
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
        let journal = Journal::default();
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
        journal.settled(step);
        assert!(
            !journal.is_current(&name("a"), &overlay),
            "it is in the tables now"
        );
    }
}
