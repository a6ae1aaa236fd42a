//! The one connection that writes: transactions whose outcome is known or in doubt, and checkpointing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::commit::{self, TakenOut};
use super::database::{MysqlStore, RETRY_PAUSE, Writer};
use super::error::{Fault, code};
use super::fence::{self, LogPlace, Tenure};
use super::instance;
use super::read;
use super::rows::Sets;
use super::script::Script;
use super::session::{Session, within};
use crate::store::snapshot::LockChanges;
use crate::store::{InstanceId, ResourceId, StoreError, journal};

/// Rows that are checkpointed in one transaction when a database is opened, or those of one lock: it holds up the
/// heartbeat.
const LEFT_ROWS: usize = 4096;
/// A writer that is silent for longer is asked whether it is still there.
const WRITER_IDLE_MAX: Duration = Duration::from_secs(30);

impl MysqlStore {
    /// Finds out about a writer that was cut off while it had nothing to do; the next commit makes a new
    /// one instead of failing.
    pub(super) async fn check_writer(&self) {
        let Ok(mut writer) = self.writer.try_lock() else {
            return;
        };
        let Some(session) = writer.session.as_mut() else {
            return;
        };
        // No heartbeat is sent meanwhile: it must not take as long as one is good for.
        let limit = self.options.timeout.min(self.options.instance_lease / 8);
        if session.used_at.elapsed() > WRITER_IDLE_MAX
            && within(limit, session.ping()).await.is_err()
        {
            writer.session = None;
        }
    }

    /// Where the next transaction stands, unless an earlier one is in doubt.
    pub(super) fn place(&self, writer: &Writer) -> Result<LogPlace, StoreError> {
        match self.tenure() {
            Some(tenure) if !writer.in_doubt => Ok(self.place_in(tenure)),
            _ => {
                let text = "an earlier change is in doubt, or the database is not open";
                Err(StoreError::Unavailable(text.into()))
            }
        }
    }

    pub(super) fn place_in(&self, tenure: Tenure) -> LogPlace {
        LogPlace {
            tenure,
            n: self.journal.last() + 1,
        }
    }

    /// Runs one transaction. `script` makes it for the connection and its place in the log.
    pub(super) async fn transact(
        &self,
        writer: &mut Writer,
        script: impl AsyncFnOnce(&mut Session, LogPlace) -> Result<Script, Fault>,
    ) -> Result<(), StoreError> {
        let outrun = || StoreError::Unavailable("others changed what this was about".into());
        let done = self.attempt(writer, script).await?;
        done.map(|_| ()).ok_or_else(outrun)
    }

    /// As [`MysqlStore::transact`]; what it selected. `None`: nothing was done, because others were first.
    pub(super) async fn attempt(
        &self,
        writer: &mut Writer,
        script: impl AsyncFnOnce(&mut Session, LogPlace) -> Result<Script, Fault>,
    ) -> Result<Option<Sets>, StoreError> {
        let place = self.place(writer)?;
        writer.in_doubt = true;
        let work = self.transact_in(writer, place, script);
        let result = within(self.options.timeout, work).await;
        let result = result.map_err(StoreError::from);
        match result {
            Ok(Some(_)) => self.journal.appended(place.n),
            Ok(None) | Err(StoreError::Rejected(_)) => {}
            Err(_) => {
                self.set_tenure(None);
                writer.session = None;
                return result;
            }
        }
        writer.in_doubt = false;
        result
    }

    async fn transact_in(
        &self,
        writer: &mut Writer,
        place: LogPlace,
        script: impl AsyncFnOnce(&mut Session, LogPlace) -> Result<Script, Fault>,
    ) -> Result<Option<Sets>, Fault> {
        let mut session = match writer.session.take() {
            Some(session) => session,
            None => self.new_writer(place.tenure).await?,
        };
        let result = match script(&mut session, place).await {
            Ok(script) => self.send(&mut session, &script).await,
            Err(fault) => Err(fault),
        };
        if result.as_ref().err().is_none_or(Fault::leaves_connection) {
            writer.session = Some(session);
        }
        result
    }

    /// One transaction of checkpointing up to this row of the journal. `false`: there was nothing left to do.
    async fn checkpoint_step(&self, writer: &mut Writer, row: u64) -> Result<bool, StoreError> {
        let Some(step) = self.journal.next_step(row) else {
            return Ok(false);
        };
        let script = async |session: &mut Session, place: LogPlace| {
            let locks: Vec<_> = step.locks.iter().map(|l| (&l.id, &l.changes)).collect();
            let taken_out = step.done.map(|up_to| TakenOut {
                log: place.tenure.log,
                up_to,
                rows: step.rows,
            });
            checkpoint_script(session, locks, taken_out, None, place).await
        };
        self.transact(writer, script).await?;
        self.journal.checkpointed(step);
        Ok(true)
    }

    /// Everything that is committed by now is in the tables afterwards. Commits go on in between.
    pub(super) async fn checkpoint_all(&self) -> Result<(), StoreError> {
        let row = self.journal.last_told();
        loop {
            let mut writer = self.writer.lock().await;
            if !self.checkpoint_step(&mut writer, row).await? {
                return Ok(());
            }
        }
    }

    /// As [`MysqlStore::checkpoint_all`], while nothing is committed.
    pub(super) async fn checkpoint_with(&self, writer: &mut Writer) -> Result<(), StoreError> {
        let row = self.journal.last_told();
        while self.checkpoint_step(writer, row).await? {}
        Ok(())
    }

    /// Writes a checkpoint of what earlier instances left in their logs, which are sealed, and removes them. The caller has the
    /// database alone, and commits nothing else before. May be begun again at any point: what is stored twice is the same.
    pub(super) async fn checkpoint_left(
        &self,
        session: &mut Session,
        tenure: Tenure,
    ) -> Result<(), Fault> {
        let left = read::left(session.rows(read::left_sql(&tenure.log).as_str()).await?)?;
        for some in journal::chunks_of_rows(&left.changes, LEFT_ROWS) {
            let locks = some.iter().map(|(id, lock)| (id, lock)).collect();
            let place = self.place_in(tenure);
            let script = checkpoint_script(session, locks, None, None, place).await?;
            self.send_opening(session, &script, place).await?;
        }
        let at_once = commit::LAYOUT.taken_out_at_once as usize;
        for (log, numbers) in &left.logs {
            for numbers in numbers.chunks(at_once) {
                let taken_out = numbers.last().map(|last| TakenOut {
                    log: *log,
                    up_to: *last,
                    rows: numbers.len() as u64,
                });
                let place = self.place_in(tenure);
                let script = checkpoint_script(session, Vec::new(), taken_out, None, place).await?;
                self.send_opening(session, &script, place).await?;
            }
        }
        Ok(())
    }

    /// As [`MysqlStore::transact`], before the database is open.
    pub(super) async fn send_opening(
        &self,
        session: &mut Session,
        script: &Script,
        place: LogPlace,
    ) -> Result<(), Fault> {
        if self.send(session, script).await?.is_none() {
            return Err(StoreError::Standby.into());
        }
        self.journal.appended(place.n);
        Ok(())
    }

    /// A connection that writes, known to whoever takes over.
    async fn new_writer(&self, tenure: Tenure) -> Result<Session, Fault> {
        let mut session = Session::connect(&self.options, self.home().as_ref()).await?;
        loop {
            match instance::record_writer(&mut session, tenure).await {
                Ok(true) => {
                    self.note_packet(&session);
                    return Ok(session);
                }
                Ok(false) => return Err(StoreError::Standby.into()),
                Err(fault) if fault.is_passing() => tokio::time::sleep(RETRY_PAUSE).await,
                Err(fault) => return Err(fault),
            }
        }
    }

    pub(super) fn note_packet(&self, writer: &Session) {
        self.packet_bytes_max
            .store(writer.packet_bytes_max, Ordering::Relaxed);
    }

    /// What it selected. `None`: it was rolled back for others' sake.
    async fn send(&self, session: &mut Session, script: &Script) -> Result<Option<Sets>, Fault> {
        let mut tries = 1;
        loop {
            let fault = match send_once(session, script).await {
                Ok(sets) => return Ok(Some(sets)),
                Err(fault) => fault,
            };
            if !fault.leaves_connection() {
                return Err(fault);
            }
            session.run("ROLLBACK").await?;
            let may_be_theirs = script.tries < u32::MAX && fault.is(code::DUPLICATE);
            let is_passing = fault.is_passing() || may_be_theirs;
            if fence::is_outrun(&fault) || (is_passing && tries >= script.tries) {
                log::debug!("others were first: {fault:?}");
                return Ok(None);
            }
            if !is_passing {
                return Err(refusal(&fault).map_or(fault, Fault::from));
            }
            tries += 1;
            log::debug!("a commit is tried again: {fault:?}");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// What a guard of a transaction had to say, if it was one that failed.
fn refusal(fault: &Fault) -> Option<StoreError> {
    let unavailable = |text: &str| Some(StoreError::Unavailable(text.to_owned()));
    if fence::is_fenced(fault) {
        return Some(StoreError::Standby);
    }
    if fence::is_not_ours(fault) {
        return unavailable("names that are to be given are another instance's");
    }
    if fence::is_missing_resource(fault) {
        let text = "it has rows of a resource that does not exist";
        return Some(StoreError::Rejected(text.to_owned()));
    }
    if fence::is_miscounted(fault) {
        return unavailable("a log has other rows than were written and read; none is taken out");
    }
    None
}

/// Leaves out what belongs to resources that are gone.
pub(super) async fn checkpoint_script(
    session: &mut Session,
    mut locks: Vec<(&ResourceId, &LockChanges)>,
    taken_out: Option<TakenOut>,
    of: Option<&InstanceId>,
    place: LogPlace,
) -> Result<Script, Fault> {
    if !locks.is_empty() {
        let ids: Vec<_> = locks.iter().map(|(id, _)| *id).collect();
        let existing = read::existing(session.rows(read::existing_sql(&ids).as_str()).await?)?;
        locks.retain(|(id, _)| existing.contains(*id));
    }
    let script = commit::checkpoint_script(&locks, taken_out, of, place, session.packet_bytes_max);
    Ok(script?)
}

/// The answers to the last packet.
async fn send_once(session: &mut Session, script: &Script) -> Result<Sets, Fault> {
    let mut sets = Sets::new();
    for packet in &script.packets {
        sets = session.run(packet.as_str()).await?;
    }
    if script.is_guarded_by_its_rows && session.changed_rows() == 0 {
        return Err(StoreError::Standby.into());
    }
    Ok(sets)
}
