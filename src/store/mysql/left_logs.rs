//! What instances left in their logs: of one that is dead, whose names are taken over one transaction after the other (see
//! [`super::slots`]), and of all when a database is made ready.

use std::ops::ControlFlow;

use super::commit;
use super::database::{MysqlStore, Writer};
use super::error::Fault;
use super::fence::{LogId, LogPlace, TakenOut, Tenure};
use super::instance;
use super::rows::Columns;
use super::schema::InstanceRow;
use super::script::Script;
use super::session::Session;
use super::slots;
use super::sql::Sql;
use crate::store::snapshot::LockChanges;
use crate::store::{InstanceId, ResourceId, StoreError, journal};

/// Rows of tables that are written in one transaction, or those of one lock: our own commits wait meanwhile.
const STEP_ROWS: usize = 512;
/// As [`STEP_ROWS`], when a database is opened: it holds up the heartbeat alone.
const OPENING_ROWS: usize = 4096;
/// Rows of a log that are taken out in one transaction.
const OUT_AT_ONCE: usize = commit::LAYOUT.taken_out_at_once as usize;

/// A dead instance, whose log is sealed, on its way into the tables.
pub(super) struct TakeOver {
    dead: InstanceRow,
    /// The number of the seal: the last row of its log.
    seal: u64,
    /// `None`: not read yet.
    left: Option<LeftLog>,
}

/// What is still to be done with a log that nobody writes any more.
struct LeftLog {
    log: LogId,
    changes: Vec<(ResourceId, LockChanges)>,
    /// Of its rows.
    numbers: Vec<u64>,
}

impl MysqlStore {
    /// What is to be taken over from an instance is marked with our name, if there is anything. What has no owner is taken at
    /// once.
    pub(super) async fn begin_take_over(
        &self,
        writer: &mut Writer,
        id: &InstanceId,
    ) -> Result<Option<TakeOver>, StoreError> {
        let Some(tenure) = self.tenure() else {
            return Err(StoreError::Unavailable("the database is not open".into()));
        };
        if self.looks().is_unknown(id) {
            let script = async |_: &mut Session, place| slots::finding(place, id);
            if let Some(sets) = self.attempt(writer, script).await? {
                self.took(id, instance::epoch(sets)?);
            }
            return Ok(None);
        }
        let dead = self.looks().dead(&tenure.id, id);
        match dead {
            Some(dead) => self.mark(writer, dead).await,
            None => Ok(None),
        }
    }

    async fn mark(
        &self,
        writer: &mut Writer,
        dead: InstanceRow,
    ) -> Result<Option<TakeOver>, StoreError> {
        let writes = self.looks().may_write(&dead);
        let script = async |session: &mut Session, place: LogPlace| {
            if writes {
                instance::kill_writer(session, &dead).await?;
            }
            slots::marking(place, &dead)
        };
        let Some(sets) = self.attempt(writer, script).await? else {
            return Ok(None);
        };
        let mut told = instance::last_row(sets)?;
        let (seal, heartbeat) = (told.take()?, told.take()?);
        self.witness().finds(&dead.id, seal, heartbeat);
        Ok(Some(TakeOver {
            dead,
            seal,
            left: None,
        }))
    }

    /// One transaction; after one that failed the take-over is of no more use. Whether it was the last one, because all is
    /// done or another one has taken over.
    pub(super) async fn take_over_next(
        &self,
        writer: &mut Writer,
        taking: &mut TakeOver,
    ) -> Result<ControlFlow<()>, StoreError> {
        let mut is_last = false;
        let script = async |session: &mut Session, place: LogPlace| {
            let TakeOver {
                dead, seal, left, ..
            } = taking;
            let left = match left {
                Some(left) => left,
                None => left.insert(LeftLog::read_whole(session, dead.log, *seal).await?),
            };
            is_last = left.changes.is_empty() && left.numbers.len() <= OUT_AT_ONCE;
            match is_last {
                true => slots::ending(place, dead, &left.next_out()),
                false => left.next(session, STEP_ROWS, Some(&dead.id), place).await,
            }
        };
        let Some(sets) = self.attempt(writer, script).await? else {
            return Ok(ControlFlow::Break(()));
        };
        if !is_last {
            return Ok(ControlFlow::Continue(()));
        }
        let id = &taking.dead.id;
        self.took(id, instance::epoch(sets)?);
        self.witness().took_over(id);
        Ok(ControlFlow::Break(()))
    }

    /// All that was that one's is ours, as of this version.
    fn took(&self, from: &InstanceId, version: u64) {
        let me = self.tenure().map(|tenure| tenure.id);
        if let Some(me) = me {
            self.looks().moved(|_, owner| owner == from, me, version);
        }
        self.witness().sees_epoch(version);
    }

    /// Writes a checkpoint of what earlier instances left in their logs, which are sealed, and removes them. The caller has the
    /// database alone, and commits nothing else before. May be begun again at any point: what is stored twice is the same.
    pub(super) async fn checkpoint_left(
        &self,
        session: &mut Session,
        tenure: Tenure,
    ) -> Result<(), Fault> {
        // That of version 3 comes first.
        let mut sql = Sql::new("SELECT DISTINCT log FROM resource_log WHERE log <> ");
        sql.bytes(&tenure.log).push(" ORDER BY log");
        for row in session.rows(sql.as_str()).await? {
            let log = Columns::of(row).log_id()?;
            let mut left = LeftLog::read(session, log).await?;
            while !left.numbers.is_empty() {
                let place = self.place_in(tenure, session);
                let script = left.next(session, OPENING_ROWS, None, place).await?;
                self.send_opening(session, &script).await?;
            }
        }
        Ok(())
    }
}

impl LeftLog {
    async fn read(session: &mut Session, log: LogId) -> Result<LeftLog, Fault> {
        let mut sql = Sql::new("SELECT n, changes FROM resource_log WHERE log = ");
        sql.bytes(&log).push(" ORDER BY n");
        let (mut numbers, mut changes) = (Vec::new(), Vec::new());
        for row in session.rows(sql.as_str()).await? {
            let mut row = Columns::of(row);
            numbers.push(row.take()?);
            changes.push(row.take()?);
        }
        Ok(LeftLog {
            log,
            changes: journal::read(changes)?,
            numbers,
        })
    }

    /// All of a log up to its seal, of which the first rows may be gone. A server that does not have all of it would lose
    /// what it lacks.
    async fn read_whole(session: &mut Session, log: LogId, seal: u64) -> Result<LeftLog, Fault> {
        let left = LeftLog::read(session, log).await?;
        let numbers = left.numbers.iter().copied();
        let first = (seal + 1).checked_sub(numbers.len() as u64);
        let is_whole = first.is_some_and(|first| numbers.eq(first..=seal));
        if !is_whole || left.numbers.is_empty() {
            let text = "the log of an instance that is taken over from is not whole here";
            return Err(Fault::Away(text.into()));
        }
        Ok(left)
    }

    /// A transaction that does away with some of it; after one that failed this is of no more use.
    async fn next(
        &mut self,
        session: &mut Session,
        rows_max: usize,
        of: Option<&InstanceId>,
        place: LogPlace,
    ) -> Result<Script, Fault> {
        let Some(some) = journal::chunks_of_rows(&self.changes, rows_max).next() else {
            let out = Some(self.next_out());
            return commit::checkpoint_script(session, Vec::new(), out, of, place).await;
        };
        let locks = some.iter().map(|(id, lock)| (id, lock)).collect();
        let written = some.len();
        let script = commit::checkpoint_script(session, locks, None, of, place).await?;
        self.changes.drain(..written);
        Ok(script)
    }

    /// The next of its rows, at most [`OUT_AT_ONCE`].
    fn next_out(&mut self) -> TakenOut {
        let rows = self.numbers.len().min(OUT_AT_ONCE);
        TakenOut {
            log: self.log,
            up_to: self.numbers.drain(..rows).next_back().unwrap_or_default(),
            rows: rows as u64,
        }
    }
}
