//! What an instance asks of the database. Every transaction of an instance says "my row is there, unfenced, with this log"
//! and appends the next row of that log; the rest is by kind.

use super::database::{Entry, Id, Instance, Key, Lock, LogId, Row, Rows, Slot, Write};
use super::faults::Fault;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// One row of the log: a grant, or the end of a lease.
    Change(u8, Lock),
    /// The name goes, and leaves its token to the slot.
    Delete(u8),
    /// The changes in the own log are written to the tables, and their rows deleted.
    Checkpoint,
    Give(u8, Id),
    /// Marks the row of another instance and seals its log.
    Fence(Id),
    /// The changes in the log of a fenced instance are written to the tables.
    Replay(Id),
    /// The slots of a replayed instance go to this one; its rows go.
    Bury(Id, Id),
    /// A slot whose owner has no row is taken.
    Sweep(u8),
    /// The own log is sealed and another one begun: after a commit of unknown outcome.
    Reopen(LogId),
    /// This log, that the own one goes on from, is written to the tables and deleted.
    Settle(LogId),
    /// One owner of all: fences it and is the owner from now on, with a log of its own.
    TakeOver(Id),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transaction {
    pub by: Id,
    pub log: LogId,
    /// The position in the log that it takes.
    pub n: u8,
    pub what: What,
}

/// Why a transaction wrote nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The instance is not what it thinks it is.
    Fenced,
    /// Its position in the log is taken.
    Taken,
    /// There is nothing to do.
    Void,
}

impl Transaction {
    /// What it writes where `rows` are what its node sees.
    pub fn writes(&self, rows: &Rows, fault: Option<Fault>) -> Result<Vec<Write>, Refusal> {
        let mut writes = match self.what {
            What::TakeOver(dead) => return self.take_over(rows, dead, fault),
            What::Reopen(new) => {
                self.guard(rows, fault)?;
                return self.reopen(rows, new, fault);
            }
            _ => Vec::new(),
        };
        self.guard(rows, fault)?;
        let position = self.position(rows, fault)?;
        let own_row = match self.what {
            What::Change(slot, lock) => Some(Entry::Change(slot, lock)),
            What::Delete(slot) => {
                let token = self.last_change(rows, slot).token;
                writes.push((Key::Lock(slot), None));
                writes.push(floor(rows, slot, token));
                let gone = Lock {
                    token,
                    ..Lock::default()
                };
                Some(Entry::Change(slot, gone))
            }
            What::Checkpoint => self.checkpoint(rows, fault, &mut writes),
            What::Give(slot, to) => {
                let row = rows.slot(slot);
                if row.owner != self.by {
                    return Err(Refusal::Void);
                }
                writes.push(owner(slot, to, row));
                Some(Entry::Empty)
            }
            What::Fence(dead) => {
                self.fence(rows, dead, fault, &mut writes)?;
                Some(Entry::Empty)
            }
            What::Replay(dead) => {
                let (row, _) = self.fenced(rows, dead, fault)?;
                write_changes(rows, &lineage(rows, row.log), &mut writes);
                if row.fenced.is_some() {
                    writes.push(instance(dead, row.log, Some(self.by)));
                }
                Some(Entry::Empty)
            }
            What::Bury(dead, heir) => {
                self.bury(rows, dead, heir, fault, &mut writes)?;
                Some(Entry::Empty)
            }
            What::Sweep(slot) => {
                let row = rows.slot(slot);
                if rows.instance(row.owner).is_some() {
                    return Err(Refusal::Void);
                }
                writes.push(owner(slot, self.by, row));
                Some(Entry::Empty)
            }
            What::Settle(before) => {
                self.settle(rows, before, &mut writes);
                Some(Entry::Empty)
            }
            What::Reopen(_) | What::TakeOver(_) => unreachable!("has no position"),
        };
        if let Some(entry) = own_row {
            writes.push((Key::Log(self.log, position), Some(Row::Log(entry))));
        }
        Ok(writes)
    }

    fn guard(&self, rows: &Rows, fault: Option<Fault>) -> Result<(), Refusal> {
        let is_mine = match (fault, self.what) {
            (Some(Fault::EpochGuard), _) => rows.slot(0).owner == self.by,
            (Some(Fault::SharedSlotGuard), What::Change(slot, _) | What::Delete(slot)) => {
                rows.slot(slot).owner == self.by
            }
            _ => rows.serving(self.by).is_some_and(|row| row.log == self.log),
        };
        is_mine.then_some(()).ok_or(Refusal::Fenced)
    }

    fn position(&self, rows: &Rows, fault: Option<Fault>) -> Result<u8, Refusal> {
        if fault == Some(Fault::EpochGuard) {
            // The database numbers the rows of its one journal, and no number is given twice.
            return Ok(rows.last(self.log).map_or(0, |(n, _)| n) + 1);
        }
        let has = |n: u8| rows.log(self.log).any(|(position, _)| position == n);
        if has(self.n) {
            return Err(Refusal::Taken);
        }
        if !has(self.n - 1) && fault != Some(Fault::LastRowDeleted) {
            return Err(Refusal::Fenced);
        }
        Ok(self.n)
    }

    fn last_change(&self, rows: &Rows, slot: u8) -> Lock {
        let changed = changes(rows, &[self.log]);
        let found = changed.into_iter().rev().find(|(of, _)| *of == slot);
        found.map_or_else(|| rows.lock(slot), |(_, lock)| lock)
    }

    fn checkpoint(
        &self,
        rows: &Rows,
        fault: Option<Fault>,
        writes: &mut Vec<Write>,
    ) -> Option<Entry> {
        write_changes(rows, &[self.log], writes);
        delete_log(rows, self.log, writes);
        (fault != Some(Fault::LastRowDeleted)).then_some(Entry::Empty)
    }

    fn fence(
        &self,
        rows: &Rows,
        dead: Id,
        fault: Option<Fault>,
        writes: &mut Vec<Write>,
    ) -> Result<(), Refusal> {
        let row = rows.serving(dead).ok_or(Refusal::Void)?;
        let is_sealed = |(_, entry): (u8, Entry)| entry == Entry::Seal;
        if rows.last(row.log).is_some_and(is_sealed) {
            return Err(Refusal::Void);
        }
        if fault == Some(Fault::SharedSlotGuard) {
            steal(rows, dead, self.by, writes);
            return Ok(());
        }
        if fault == Some(Fault::SlotsBeforeReplay) {
            steal(rows, dead, self.by, writes);
        }
        if fault != Some(Fault::SealWithoutRow) {
            writes.push(instance(dead, row.log, Some(self.by)));
        }
        if fault != Some(Fault::RowWithoutSeal) {
            writes.push(seal(rows, row.log));
        }
        Ok(())
    }

    /// The row of an instance that was fenced, and whether that is this one's to carry on: its own doing, or that of one
    /// who was fenced in turn.
    fn fenced(
        &self,
        rows: &Rows,
        dead: Id,
        fault: Option<Fault>,
    ) -> Result<(Instance, bool), Refusal> {
        let row = rows.instance(dead).ok_or(Refusal::Void)?;
        let Some(executor) = row.fenced else {
            let is_sealed = |(_, entry): (u8, Entry)| entry == Entry::Seal;
            let is_sealed = rows.last(row.log).is_some_and(is_sealed);
            let has_no_row = fault == Some(Fault::SealWithoutRow) && is_sealed;
            return has_no_row.then_some((row, true)).ok_or(Refusal::Void);
        };
        let is_mine = executor == self.by;
        if is_mine || rows.serving(executor).is_none() {
            Ok((row, is_mine))
        } else {
            Err(Refusal::Void)
        }
    }

    fn bury(
        &self,
        rows: &Rows,
        dead: Id,
        heir: Id,
        fault: Option<Fault>,
        writes: &mut Vec<Write>,
    ) -> Result<(), Refusal> {
        let (row, is_mine) = self.fenced(rows, dead, fault)?;
        if !is_mine {
            return Err(Refusal::Void);
        }
        steal(rows, dead, heir, writes);
        for log in lineage(rows, row.log) {
            delete_log(rows, log, writes);
        }
        writes.push((Key::Instance(dead), None));
        Ok(())
    }

    fn reopen(&self, rows: &Rows, new: LogId, fault: Option<Fault>) -> Result<Vec<Write>, Refusal> {
        let predecessor = (fault != Some(Fault::PredecessorForgotten)).then_some(self.log);
        Ok(vec![
            instance(self.by, new, None),
            seal(rows, self.log),
            (Key::Log(new, 1), Some(Row::Log(Entry::First(predecessor)))),
        ])
    }

    fn settle(&self, rows: &Rows, before: LogId, writes: &mut Vec<Write>) {
        let old = lineage(rows, before);
        write_changes(rows, &old, writes);
        for log in old {
            let owner = rows.instances().find(|(_, row)| row.log == log);
            writes.extend(owner.map(|(id, _)| (Key::Instance(id), None)));
            delete_log(rows, log, writes);
        }
        writes.push((Key::Log(self.log, 1), Some(Row::Log(Entry::First(None)))));
    }

    fn take_over(
        &self,
        rows: &Rows,
        dead: Id,
        fault: Option<Fault>,
    ) -> Result<Vec<Write>, Refusal> {
        let row = rows.serving(dead).ok_or(Refusal::Void)?;
        if rows.slot(0).owner != dead {
            return Err(Refusal::Void);
        }
        let mut writes = vec![
            instance(self.by, self.log, None),
            (
                Key::Log(self.log, 1),
                Some(Row::Log(Entry::First(Some(row.log)))),
            ),
        ];
        steal(rows, dead, self.by, &mut writes);
        if fault != Some(Fault::EpochGuard) {
            writes.push(instance(dead, row.log, Some(self.by)));
            writes.push(seal(rows, row.log));
        }
        Ok(writes)
    }
}

fn instance(id: Id, log: LogId, fenced: Option<Id>) -> Write {
    (
        Key::Instance(id),
        Some(Row::Instance(Instance { log, fenced })),
    )
}

fn owner(slot: u8, owner: Id, row: Slot) -> Write {
    (Key::Slot(slot), Some(Row::Slot(Slot { owner, ..row })))
}

fn floor(rows: &Rows, slot: u8, token: u8) -> Write {
    let row = rows.slot(slot);
    let floor = row.floor.max(token);
    (Key::Slot(slot), Some(Row::Slot(Slot { floor, ..row })))
}

fn seal(rows: &Rows, log: LogId) -> Write {
    let last = rows.last(log).map_or(0, |(n, _)| n);
    (Key::Log(log, last + 1), Some(Row::Log(Entry::Seal)))
}

fn steal(rows: &Rows, from: Id, to: Id, writes: &mut Vec<Write>) {
    let of = rows.slots().filter(|(_, row)| row.owner == from);
    writes.extend(of.map(|(slot, row)| owner(slot, to, row)));
}

fn delete_log(rows: &Rows, log: LogId, writes: &mut Vec<Write>) {
    writes.extend(rows.log(log).map(|(n, _)| (Key::Log(log, n), None)));
}

/// This log and those that it goes on from, the oldest first.
pub fn lineage(rows: &Rows, log: LogId) -> Vec<LogId> {
    let mut logs = vec![log];
    loop {
        match rows.log(logs[0]).next() {
            Some((_, Entry::First(Some(before)))) => logs.insert(0, before),
            _ => return logs,
        }
    }
}

/// The changes in these logs, in order.
pub fn changes(rows: &Rows, logs: &[LogId]) -> Vec<(u8, Lock)> {
    let entries = logs.iter().flat_map(|log| rows.log(*log));
    let changes = entries.filter_map(|(_, entry)| match entry {
        Entry::Change(slot, lock) => Some((slot, lock)),
        _ => None,
    });
    changes.collect()
}

/// The last change of each slot.
fn write_changes(rows: &Rows, logs: &[LogId], writes: &mut Vec<Write>) {
    let changes = changes(rows, logs);
    for (at, (slot, lock)) in changes.iter().enumerate() {
        if changes[at + 1..].iter().all(|(later, _)| later != slot) {
            writes.push((Key::Lock(*slot), lock.exists.then_some(Row::Lock(*lock))));
        }
    }
}
