//! Taking over from an instance that is dead, one transaction after the other; see [`super::slots`].

use std::ops::ControlFlow;

use super::commit::{self, TakenOut};
use super::database::{MysqlStore, Writer};
use super::error::Fault;
use super::fence::LogPlace;
use super::instance;
use super::looks::Estate;
use super::read;
use super::schema::InstanceRow;
use super::script::Script;
use super::session::Session;
use super::slots;
use super::write::checkpoint_script;
use crate::store::snapshot::LockChanges;
use crate::store::{InstanceId, ResourceId, StoreError, journal};

/// Rows of tables that are written in one transaction, or those of one lock: our own commits wait meanwhile.
const STEP_ROWS: usize = 512;

/// A dead instance, whose log is sealed, on its way into the tables.
pub(super) struct Burial {
    dead: InstanceRow,
    /// The number of the seal: the last row of its log.
    pub seal: u64,
    /// Its heartbeats, by then.
    pub heartbeat: u64,
    /// `None`: not read yet.
    left: Option<LeftLog>,
}

/// What is still to be done with a log.
struct LeftLog {
    changes: Vec<(ResourceId, LockChanges)>,
    numbers: Vec<u64>,
}

impl MysqlStore {
    /// What is to be taken over from an instance is marked with our name, if there is anything. What has no owner is taken at
    /// once.
    pub(super) async fn begin_burial(
        &self,
        writer: &mut Writer,
        id: &InstanceId,
    ) -> Result<Option<Burial>, StoreError> {
        let Some(tenure) = self.tenure() else {
            return Err(StoreError::Unavailable("the database is not open".into()));
        };
        let estate = self.looks().estate(&tenure.id, id);
        match estate {
            None => Ok(None),
            Some(Estate::Ownerless) => {
                self.find(writer, id).await?;
                Ok(None)
            }
            Some(Estate::Of(dead)) => self.mark(writer, dead).await,
        }
    }

    async fn find(&self, writer: &mut Writer, unknown: &InstanceId) -> Result<(), StoreError> {
        let script = async |session: &mut Session, place: LogPlace| {
            Ok(slots::finding(place, unknown, session.packet_bytes_max)?)
        };
        if let Some(sets) = self.attempt(writer, script).await? {
            self.took(unknown, instance::epoch(sets)?);
        }
        Ok(())
    }

    async fn mark(
        &self,
        writer: &mut Writer,
        dead: InstanceRow,
    ) -> Result<Option<Burial>, StoreError> {
        let writes = self.looks().may_write(&dead);
        let script = async |session: &mut Session, place: LogPlace| {
            if writes {
                instance::kill_writer(session, &dead).await?;
            }
            Ok(slots::marking(place, &dead, session.packet_bytes_max)?)
        };
        let Some(sets) = self.attempt(writer, script).await? else {
            return Ok(None);
        };
        let mut told = instance::last_row(sets)?;
        Ok(Some(Burial {
            seal: told.take()?,
            heartbeat: told.take()?,
            left: None,
            dead,
        }))
    }

    /// One transaction. Whether it was the last one, because all is done or another one has taken over.
    pub(super) async fn bury(
        &self,
        writer: &mut Writer,
        burial: &mut Burial,
    ) -> Result<ControlFlow<()>, StoreError> {
        let mut done = None;
        let script = async |session: &mut Session, place: LogPlace| {
            burial.read(session).await?;
            let script;
            (done, script) = burial.next(session, place).await?;
            Ok(script)
        };
        let Some(sets) = self.attempt(writer, script).await? else {
            return Ok(ControlFlow::Break(()));
        };
        if let (Some((written, taken_out)), Some(left)) = (done, &mut burial.left) {
            left.changes.drain(..written);
            left.numbers.drain(..taken_out);
            return Ok(ControlFlow::Continue(()));
        }
        let id = &burial.dead.id;
        self.took(id, instance::epoch(sets)?);
        self.witness().buried(id);
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
}

impl Burial {
    /// All of its log up to the seal, of which the first rows may be gone. A server that does not have all of it would lose
    /// what it lacks.
    async fn read(&mut self, session: &mut Session) -> Result<(), Fault> {
        if self.left.is_some() {
            return Ok(());
        }
        let rows = session.rows(read::log_sql(&self.dead.log).as_str()).await?;
        let read = read::left(rows)?;
        let numbers = read
            .logs
            .into_iter()
            .next()
            .map_or(Vec::new(), |(_, numbers)| numbers);
        let first = (self.seal + 1).checked_sub(numbers.len() as u64);
        let is_whole = first.is_some_and(|first| numbers.iter().copied().eq(first..=self.seal));
        if !is_whole || numbers.is_empty() {
            let text = "the log of an instance that is taken over from is not whole here";
            return Err(Fault::Away(text.into()));
        }
        self.left = Some(LeftLog {
            changes: read.changes,
            numbers,
        });
        Ok(())
    }

    /// A transaction, and how many changes and rows of the log it does away with; `None`: all that is left.
    async fn next(
        &self,
        session: &mut Session,
        place: LogPlace,
    ) -> Result<(Option<(usize, usize)>, Script), Fault> {
        let (changes, numbers) = match &self.left {
            Some(left) => (&left.changes[..], &left.numbers[..]),
            None => (&[][..], &[][..]),
        };
        let id = Some(&self.dead.id);
        if let Some(some) = journal::chunks_of_rows(changes, STEP_ROWS).next() {
            let locks = some.iter().map(|(id, lock)| (id, lock)).collect();
            let script = checkpoint_script(session, locks, None, id, place).await?;
            return Ok((Some((some.len(), 0)), script));
        }
        let at_once = commit::LAYOUT.taken_out_at_once as usize;
        if numbers.len() > at_once {
            let taken_out = TakenOut {
                log: self.dead.log,
                up_to: numbers[at_once - 1],
                rows: at_once as u64,
            };
            let script = checkpoint_script(session, Vec::new(), Some(taken_out), id, place).await?;
            return Ok((Some((0, at_once)), script));
        }
        let rows = numbers.len() as u64;
        let packet_bytes_max = session.packet_bytes_max;
        let script = slots::burying(place, &self.dead, self.seal, rows, packet_bytes_max)?;
        Ok((None, script))
    }
}
