//! Replay of the logs that other instances left. A take-over replays the log of one dead instance, one
//! transaction after the other (see [`super::slots`]); making a database ready replays all logs.

use std::ops::ControlFlow;

use super::commit::{self, TRUNCATION_MAX};
use super::database::MysqlStore;
use super::error::Fault;
use super::fence::{LogId, LogPlace, Membership};
use super::instance;
use super::rows;
use super::schema::InstanceRow;
use super::script::Script;
use super::session::Session;
use super::slots;
use super::sql::Sql;
use crate::store::snapshot::LockChanges;
use crate::store::{InstanceId, ResourceId, StoreError, journal};

/// How many table rows one transaction writes at most, unless one lock alone has more: commits wait meanwhile.
const STEP_ROWS: usize = 512;

/// A take-over under way from a dead instance whose log is sealed.
pub(super) struct TakeOver {
    dead: InstanceRow,
    /// Number of the seal, which is the last row of its log.
    seal: u64,
    /// What is left of its log; `None`: not read yet.
    left: Option<LeftLog>,
}

/// The part of a sealed log that is not replayed or not deleted yet.
struct LeftLog {
    log: LogId,
    /// Changes that are not in the tables yet.
    changes: Vec<(ResourceId, LockChanges)>,
    /// Numbers of the rows that are not deleted yet, ascending.
    numbers: Vec<u64>,
}

impl MysqlStore {
    /// Begins to take over from an instance: marks its row with our id and seals its log. If it has no row any
    /// more, takes its slots at once. `None`: there is nothing more to do, because its slots are ours, it is
    /// alive, or another instance takes over.
    pub(super) async fn begin_take_over(
        &self,
        writer: &mut Option<Session>,
        id: &InstanceId,
    ) -> Result<Option<TakeOver>, StoreError> {
        let membership = self.open_membership()?;
        if self.view.lock().is_unknown(id) {
            let script = async |_: &mut Session, place| slots::finding(place, id);
            if let Some(sets) = self.attempt(writer, script).await? {
                self.took(id, rows::last(sets)?);
            }
            return Ok(None);
        }
        let dead = self.view.lock().dead(&membership.id, id);
        match dead {
            Some(dead) => self.mark(writer, dead).await,
            None => Ok(None),
        }
    }

    /// The first step of a take-over; `None`: another instance was first, or the dead one is alive.
    async fn mark(
        &self,
        writer: &mut Option<Session>,
        dead: InstanceRow,
    ) -> Result<Option<TakeOver>, StoreError> {
        let writes = self.view.lock().may_write(&dead);
        let script = async |session: &mut Session, place: LogPlace| {
            if writes {
                instance::kill_blocking_writer(session, &dead).await?;
            }
            slots::marking(place, &dead)
        };
        let Some(sets) = self.attempt(writer, script).await? else {
            return Ok(None);
        };
        let (seal, heartbeat) = rows::last::<(Option<u64>, u64)>(sets)?;
        let seal = seal.ok_or_else(incomplete)?;
        self.loss_detector
            .lock()
            .check_sealed(&dead.id, seal, heartbeat);
        log::info!(
            "taking over from the instance at {}, which is dead or has ended",
            dead.address.as_deref().unwrap_or("no address")
        );
        Ok(Some(TakeOver {
            dead,
            seal,
            left: None,
        }))
    }

    /// Runs the next transaction of a take-over. `Break`: it was the last one, or another instance has taken
    /// over. After an error `taking` must not be used any more.
    pub(super) async fn take_over_next(
        &self,
        writer: &mut Option<Session>,
        taking: &mut TakeOver,
    ) -> Result<ControlFlow<()>, StoreError> {
        let mut is_last = false;
        let script = async |session: &mut Session, place: LogPlace| {
            let TakeOver { dead, seal, left } = taking;
            let left = match left {
                Some(left) => left,
                None => left.insert(LeftLog::read_whole(session, dead.log, *seal).await?),
            };
            is_last = left.changes.is_empty() && left.numbers.len() <= TRUNCATION_MAX;
            if !is_last {
                return left.next(session, Some(&dead.id), place).await;
            }
            let (up_to, rows) = left.next_truncation();
            slots::ending(place, dead, up_to, rows)
        };
        let Some(sets) = self.attempt(writer, script).await? else {
            return Ok(ControlFlow::Break(()));
        };
        if !is_last {
            return Ok(ControlFlow::Continue(()));
        }
        let id = &taking.dead.id;
        self.took(id, rows::last(sets)?);
        self.loss_detector.lock().forget(id);
        Ok(ControlFlow::Break(()))
    }

    /// Records that the slots of `from` are ours as of this version of the slot map.
    fn took(&self, from: &InstanceId, version: u64) {
        if let Some(Membership { id: me, .. }) = self.membership() {
            let mut view = self.view.lock();
            view.set_owner(|_, owner| owner == from, me, version);
        }
        self.loss_detector.lock().note_epoch(version);
    }

    /// Replays into the tables the sealed logs that earlier instances left, and deletes them. The caller must
    /// have the database exclusively, and commit nothing else before. Can be repeated after a failure.
    pub(super) async fn checkpoint_left(
        &self,
        session: &mut Session,
        membership: Membership,
    ) -> Result<(), Fault> {
        // The log with version 2.0.0's journal comes first: its id is all zeros.
        let mut sql = Sql::new("SELECT DISTINCT log FROM resource_log WHERE log <> ");
        sql.bytes(&membership.log).push(" ORDER BY log");
        for log in session.rows::<LogId>(sql.as_str()).await? {
            let mut left = LeftLog::read(session, log).await?;
            while !left.numbers.is_empty() {
                let place = self.place_in(membership, session);
                let script = left.next(session, None, place).await?;
                self.send_opening(session, &script).await?;
            }
        }
        Ok(())
    }
}

/// This server lacks rows of a dead instance's log.
fn incomplete() -> Fault {
    let text = "the log of a dead instance is not complete on this server: rows of resource_log are missing";
    Fault::Away(text.into())
}

impl LeftLog {
    async fn read(session: &mut Session, log: LogId) -> Result<LeftLog, Fault> {
        let mut sql = Sql::new("SELECT n, changes FROM resource_log WHERE log = ");
        sql.bytes(&log).push(" ORDER BY n");
        let rows = session.rows::<(u64, Vec<u8>)>(sql.as_str()).await?;
        let (numbers, changes): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        Ok(LeftLog {
            log,
            changes: journal::read(changes)?,
            numbers,
        })
    }

    /// Reads a log up to its seal; its first rows may have been deleted after a checkpoint.
    ///
    /// # Errors
    /// [`Fault::Away`]: this server does not have all rows. Going on would lose the changes in the missing
    /// ones.
    async fn read_whole(session: &mut Session, log: LogId, seal: u64) -> Result<LeftLog, Fault> {
        let left = LeftLog::read(session, log).await?;
        let numbers = left.numbers.iter().copied();
        let first = (seal + 1).checked_sub(numbers.len() as u64);
        let is_whole = first.is_some_and(|first| numbers.eq(first..=seal));
        if !is_whole || left.numbers.is_empty() {
            return Err(incomplete());
        }
        Ok(left)
    }

    /// The next transaction: writes at most [`STEP_ROWS`] table rows, or deletes rows of the log when all changes
    /// are written. `of`: the dead instance, in a take-over. If the transaction fails, this value must not be
    /// used any more.
    async fn next(
        &mut self,
        session: &mut Session,
        of: Option<&InstanceId>,
        place: LogPlace,
    ) -> Result<Script, Fault> {
        if self.changes.is_empty() {
            let (up_to, rows) = self.next_truncation();
            return commit::truncation_script(&self.log, up_to, rows, of, place);
        }
        let (mut locks, mut rows) = (Vec::new(), 0);
        for (id, lock) in &self.changes {
            rows += lock.rows();
            if rows > STEP_ROWS && !locks.is_empty() {
                break;
            }
            locks.push((id, lock));
        }
        let written = locks.len();
        let script = commit::checkpoint_script(session, locks, of, place).await?;
        self.changes.drain(..written);
        Ok(script)
    }

    /// Takes the next rows to delete, at most [`TRUNCATION_MAX`]: the number of the last one, and how many they
    /// are.
    fn next_truncation(&mut self) -> (u64, u64) {
        let rows = self.numbers.len().min(TRUNCATION_MAX);
        let up_to = self.numbers.drain(..rows).next_back();
        (up_to.unwrap_or_default(), rows as u64)
    }
}
