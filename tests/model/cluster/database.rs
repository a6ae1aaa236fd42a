//! The database: rows, and one node or several that take writes. Transactions are in one order for all nodes; a node
//! has applied a prefix of it, and sees what was committed at itself at once. The first committer wins: a transaction
//! that writes what another one wrote that its node had not applied is refused. What it only read does not count.

use std::borrow::Cow;

pub const NODES_MAX: usize = 2;
/// A node that is so many commits behind holds up all others (flow control).
const BEHIND_MAX: usize = 3;

/// One start of a process, or its return under a new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    pub process: u8,
    pub life: u8,
}

/// Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    pub process: u8,
    pub number: u8,
}

/// A name and its lock; there is one name in each slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lock {
    pub exists: bool,
    pub held: bool,
    /// Of a name that does not exist: what its next token must be above.
    pub token: u8,
}

impl Lock {
    /// Grows with each change that a client can be told of.
    pub fn rank(self) -> u8 {
        2 * self.token + u8::from(!self.held)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// The log that this one goes on from, until that was replayed.
    First(Option<LogId>),
    Empty,
    Change(u8, Lock),
    Seal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Instance(Id),
    Slot(u8),
    Lock(u8),
    Log(LogId, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Instance {
    pub log: LogId,
    /// By whom.
    pub fenced: Option<Id>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    pub owner: Id,
    /// The highest token of names that are gone.
    pub floor: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Row {
    Instance(Instance),
    Slot(Slot),
    Lock(Lock),
    Log(Entry),
}

pub type Write = (Key, Option<Row>);

/// In the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rows(Vec<(Key, Row)>);

impl Rows {
    fn find(&self, key: Key) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key, |(key, _)| *key)
    }

    fn get(&self, key: Key) -> Option<Row> {
        self.find(key).ok().map(|at| self.0[at].1)
    }

    pub fn write(&mut self, (key, row): Write) {
        match (self.find(key), row) {
            (Ok(at), Some(row)) => self.0[at].1 = row,
            (Ok(at), None) => {
                self.0.remove(at);
            }
            (Err(at), Some(row)) => self.0.insert(at, (key, row)),
            (Err(_), None) => {}
        }
    }

    pub fn instances(&self) -> impl Iterator<Item = (Id, Instance)> {
        self.0.iter().filter_map(|entry| match entry {
            (Key::Instance(id), Row::Instance(instance)) => Some((*id, *instance)),
            _ => None,
        })
    }

    pub fn instance(&self, id: Id) -> Option<Instance> {
        match self.get(Key::Instance(id)) {
            Some(Row::Instance(instance)) => Some(instance),
            _ => None,
        }
    }

    /// Its row, unless it was fenced.
    pub fn serving(&self, id: Id) -> Option<Instance> {
        self.instance(id).filter(|row| row.fenced.is_none())
    }

    pub fn serving_ids(&self) -> impl Iterator<Item = Id> {
        let serving = self.instances().filter(|(_, row)| row.fenced.is_none());
        serving.map(|(id, _)| id)
    }

    pub fn slots(&self) -> impl Iterator<Item = (u8, Slot)> {
        self.0.iter().filter_map(|entry| match entry {
            (Key::Slot(number), Row::Slot(slot)) => Some((*number, *slot)),
            _ => None,
        })
    }

    pub fn slot(&self, number: u8) -> Slot {
        let found = self.slots().find(|(n, _)| *n == number);
        found.expect("there is a row for every slot").1
    }

    /// As the tables have it, without what is in logs.
    pub fn lock(&self, slot: u8) -> Lock {
        match self.get(Key::Lock(slot)) {
            Some(Row::Lock(lock)) => lock,
            _ => Lock {
                token: self.slot(slot).floor,
                ..Lock::default()
            },
        }
    }

    pub fn log_rows(&self) -> impl Iterator<Item = (LogId, u8, Entry)> {
        self.0.iter().filter_map(|entry| match entry {
            (Key::Log(log, n), Row::Log(entry)) => Some((*log, *n, *entry)),
            _ => None,
        })
    }

    pub fn log(&self, log: LogId) -> impl Iterator<Item = (u8, Entry)> {
        self.log_rows()
            .filter_map(move |(of, n, entry)| (of == log).then_some((n, entry)))
    }

    pub fn last(&self, log: LogId) -> Option<(u8, Entry)> {
        self.log(log).last()
    }

    /// Drops the rows at the beginning of a log that say nothing, but for the last row, and numbers the others from 1 on:
    /// so that two logs of which the same can become are equal. Returns by how much their numbers fell.
    fn compact(&mut self, log: LogId) -> u8 {
        let rows: Vec<(u8, Entry)> = self.log(log).collect();
        let says_something =
            |(_, entry): &(u8, Entry)| !matches!(entry, Entry::Empty | Entry::First(None));
        let kept = rows
            .iter()
            .position(says_something)
            .unwrap_or(rows.len().saturating_sub(1));
        let Some(fall) = rows.get(kept).map(|(n, _)| n - 1) else {
            return 0;
        };
        for (n, _) in &rows {
            self.write((Key::Log(log, *n), None));
        }
        for (n, entry) in &rows[kept..] {
            self.write((Key::Log(log, n - fall), Some(Row::Log(*entry))));
        }
        fall
    }

    /// Whether every log is contiguous and has nothing after a seal.
    pub fn logs_are_whole(&self) -> bool {
        let rows: Vec<_> = self.log_rows().collect();
        rows.windows(2).all(|pair| {
            let [(log, n, entry), (next_log, next, _)] = [pair[0], pair[1]];
            log != next_log || n + 1 == next && entry != Entry::Seal
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Commit {
    node: u8,
    writes: Vec<Write>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Database {
    /// What every node has applied.
    base: Rows,
    /// What came after it, in order.
    tail: Vec<Commit>,
    /// How much of the tail each node has applied.
    applied: Vec<u8>,
}

impl Database {
    pub fn new(nodes: u8, base: Rows) -> Database {
        assert!((1..=NODES_MAX).contains(&usize::from(nodes)));
        Database {
            base,
            tail: Vec::new(),
            applied: vec![0; usize::from(nodes)],
        }
    }

    pub fn nodes(&self) -> u8 {
        self.applied.len() as u8
    }

    fn sees(&self, node: u8, at: usize) -> bool {
        at < usize::from(self.applied[usize::from(node)]) || self.tail[at].node == node
    }

    fn with(&self, is_seen: impl Fn(usize) -> bool) -> Cow<'_, Rows> {
        let mut rows = Cow::Borrowed(&self.base);
        let seen = self.tail.iter().enumerate().filter(|(at, _)| is_seen(*at));
        for (_, commit) in seen {
            for write in &commit.writes {
                rows.to_mut().write(*write);
            }
        }
        rows
    }

    /// What a node sees.
    pub fn view(&self, node: u8) -> Cow<'_, Rows> {
        self.with(|at| self.sees(node, at))
    }

    /// All that is committed.
    pub fn head(&self) -> Cow<'_, Rows> {
        self.with(|_| true)
    }

    /// Whether the node has applied all that is committed.
    pub fn is_current(&self, node: u8) -> bool {
        (0..self.tail.len()).all(|at| self.sees(node, at))
    }

    /// Whether nobody has to wait for a node that is behind.
    pub fn takes_writes(&self) -> bool {
        self.tail.len() < BEHIND_MAX
    }

    /// Commits what was worked out from the view of this node. `false`: somebody else was first.
    pub fn commit(&mut self, node: u8, writes: Vec<Write>) -> bool {
        let is_taken = |commit: &Commit| {
            let keys = |key: &Key| writes.iter().any(|(written, _)| written == key);
            commit.writes.iter().any(|(key, _)| keys(key))
        };
        let mut unseen = (0..self.tail.len()).filter(|at| !self.sees(node, *at));
        if unseen.any(|at| is_taken(&self.tail[at])) {
            return false;
        }
        self.tail.push(Commit { node, writes });
        self.settle();
        true
    }

    /// A node applies the next commit, if it is behind.
    pub fn apply(&mut self, node: u8) -> bool {
        let is_behind = usize::from(self.applied[usize::from(node)]) < self.tail.len();
        if is_behind {
            self.applied[usize::from(node)] += 1;
            self.settle();
        }
        is_behind
    }

    /// See [`Rows::compact`]; with one node only, because others may still have the rows.
    pub fn compact(&mut self) -> Vec<(LogId, u8)> {
        if self.nodes() > 1 {
            return Vec::new();
        }
        let mut logs: Vec<LogId> = self.base.log_rows().map(|(log, ..)| log).collect();
        logs.dedup();
        let fallen = logs.into_iter().map(|log| (log, self.base.compact(log)));
        fallen.filter(|(_, fall)| *fall > 0).collect()
    }

    fn settle(&mut self) {
        for node in 0..self.nodes() {
            let at = usize::from(node);
            while let Some(commit) = self.tail.get(usize::from(self.applied[at])) {
                if commit.node != node {
                    break;
                }
                self.applied[at] += 1;
            }
        }
        let all = *self.applied.iter().min().expect("there is a node");
        for commit in self.tail.drain(..usize::from(all)) {
            for write in commit.writes {
                self.base.write(write);
            }
        }
        self.applied.iter_mut().for_each(|applied| *applied -= all);
    }
}

/// The rules of the database itself, without anything that is built on it.
mod tests {
    use super::*;

    const A: Id = Id {
        process: 0,
        life: 0,
    };

    fn slot(floor: u8) -> Write {
        (Key::Slot(0), Some(Row::Slot(Slot { owner: A, floor })))
    }

    fn lock(token: u8) -> Write {
        let held = Lock {
            exists: true,
            held: true,
            token,
        };
        (Key::Lock(0), Some(Row::Lock(held)))
    }

    fn database() -> Database {
        let mut rows = Rows::default();
        rows.write(slot(0));
        Database::new(2, rows)
    }

    #[test]
    fn a_node_sees_its_own_commits_at_once_and_others_once_applied() {
        let mut database = database();
        assert!(database.commit(0, vec![lock(1)]));
        assert_eq!(database.view(0).lock(0).token, 1);
        assert_eq!(database.view(1).lock(0).token, 0);
        assert!(!database.is_current(1));
        assert!(database.apply(1));
        assert_eq!(database.view(1).lock(0).token, 1);
        assert!(!database.apply(1));
    }

    #[test]
    fn the_first_to_write_a_row_wins() {
        let mut database = database();
        assert!(database.commit(0, vec![lock(1)]));
        assert!(!database.commit(1, vec![lock(2)]));
        // What others only read is no conflict.
        assert!(database.commit(1, vec![slot(5)]));
        assert!(database.apply(1));
        assert!(database.commit(1, vec![lock(2)]));
        assert_eq!(database.head().lock(0).token, 2);
    }
}
