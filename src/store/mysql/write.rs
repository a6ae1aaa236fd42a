//! The one connection that writes: transactions whose outcome is known or in doubt, and checkpoints.

use std::sync::atomic::Ordering;
use std::time::Duration;

use scopeguard::ScopeGuard;

use super::commit;
use super::database::MysqlStore;
use super::error::{Fault, code};
use super::fence::{self, LogPlace, Membership};
use super::instance;
use super::rows::Sets;
use super::script::Script;
use super::session::{RETRY_PAUSE, Session, retry_while_blocked, within};
use crate::store::StoreError;
use crate::store::journal::CheckpointStep;

/// Idle time after which the writing connection is pinged.
const WRITER_IDLE_MAX: Duration = Duration::from_secs(30);

impl MysqlStore {
    /// Pings the writing connection if it has been idle for long, and drops it if it is dead: the next commit
    /// then opens a new one instead of failing.
    pub(super) async fn check_writer(&self) {
        let Ok(mut writer) = self.writer.try_lock() else {
            return;
        };
        let Some(session) = writer.as_mut() else {
            return;
        };
        // No heartbeat is sent meanwhile, so this must take less time than a heartbeat is valid.
        let limit = self.options.timeout.min(self.options.instance_lease / 8);
        if session.used_at.elapsed() > WRITER_IDLE_MAX
            && within(limit, session.ping()).await.is_err()
        {
            *writer = None;
        }
    }

    /// The membership of the next transaction or heartbeat.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: an earlier transaction is in doubt, or the store is not open.
    pub(super) fn open_membership(&self) -> Result<Membership, StoreError> {
        self.membership().ok_or_else(|| {
            let text = "an earlier change is in doubt, or the database is not open";
            StoreError::Unavailable(text.into())
        })
    }

    /// Position in the log of the next transaction on this connection.
    pub(super) fn place_in(&self, membership: Membership, session: &Session) -> LogPlace {
        LogPlace {
            membership,
            n: self.journal.last() + 1,
            packet_bytes_max: session.packet_bytes_max,
        }
    }

    /// Runs one transaction. `script` makes it for the connection and its position in the log.
    ///
    /// # Errors
    /// [`StoreError::Rejected`]: nothing was stored, because of what it contains. Any other error closes the
    /// store, except [`StoreError::Unavailable`] where another instance was first: then nothing was done.
    pub(super) async fn transact(
        &self,
        writer: &mut Option<Session>,
        script: impl AsyncFnOnce(&mut Session, LogPlace) -> Result<Script, Fault>,
    ) -> Result<(), StoreError> {
        let outrun = || StoreError::Unavailable("another instance changed the rows first".into());
        let done = self.attempt(writer, script).await?;
        done.map(|_| ()).ok_or_else(outrun)
    }

    /// As [`MysqlStore::transact`], and returns what it selected. `None`: nothing was done, because another
    /// instance was first.
    pub(super) async fn attempt(
        &self,
        writer: &mut Option<Session>,
        script: impl AsyncFnOnce(&mut Session, LogPlace) -> Result<Script, Fault>,
    ) -> Result<Option<Sets>, StoreError> {
        let membership = self.open_membership()?;
        // The outcome is also unknown if this future is dropped meanwhile.
        let doubt = scopeguard::guard(self, |store| store.set_membership(None));
        let work = self.transact_in(writer, membership, script);
        let result = within(self.options.timeout, work).await;
        let result = result.map_err(StoreError::from);
        match result {
            Ok(Some(_)) => self.appended(),
            Ok(None) | Err(StoreError::Rejected(_)) => {}
            Err(_) => {
                *writer = None;
                return result;
            }
        }
        ScopeGuard::into_inner(doubt);
        result
    }

    async fn transact_in(
        &self,
        writer: &mut Option<Session>,
        membership: Membership,
        script: impl AsyncFnOnce(&mut Session, LogPlace) -> Result<Script, Fault>,
    ) -> Result<Option<Sets>, Fault> {
        let mut session = match writer.take() {
            Some(session) => session,
            None => self.new_writer(membership).await?,
        };
        let place = self.place_in(membership, &session);
        let result = match script(&mut session, place).await {
            Ok(script) => self.send(&mut session, &script).await,
            Err(fault) => Err(fault),
        };
        if result.as_ref().err().is_none_or(Fault::leaves_connection) {
            *writer = Some(session);
        }
        result
    }

    /// Runs one transaction of a checkpoint up to this row of the log. `false`: nothing was left to do.
    async fn checkpoint_step(
        &self,
        writer: &mut Option<Session>,
        row: u64,
    ) -> Result<bool, StoreError> {
        let Some(step) = self.journal.next_step(row) else {
            return Ok(false);
        };
        let script = async |session: &mut Session, place: LogPlace| match &step {
            CheckpointStep::Write(locks) => {
                let locks = locks.iter().map(|(_, l)| (&l.id, &l.changes)).collect();
                commit::checkpoint_script(session, locks, None, place).await
            }
            CheckpointStep::Truncate { up_to, rows } => {
                let log = &place.membership.log;
                commit::truncation_script(log, *up_to, *rows, None, place)
            }
        };
        self.transact(writer, script).await?;
        self.journal.checkpointed(step);
        Ok(true)
    }

    /// Checkpoints everything that is committed by now. Commits go on in between.
    pub(super) async fn checkpoint_all(&self) -> Result<(), StoreError> {
        let row = self.journal.last_with_changes();
        loop {
            let mut writer = self.writer.lock().await;
            if !self.checkpoint_step(&mut writer, row).await? {
                return Ok(());
            }
        }
    }

    /// As [`MysqlStore::checkpoint_all`], with the writer locked, so that nothing is committed in between.
    pub(super) async fn checkpoint_with(
        &self,
        writer: &mut Option<Session>,
    ) -> Result<(), StoreError> {
        let row = self.journal.last_with_changes();
        while self.checkpoint_step(writer, row).await? {}
        Ok(())
    }

    /// As [`MysqlStore::transact`], on this connection before the store is open. [`StoreError::Standby`]: another
    /// instance was first.
    pub(super) async fn send_opening(
        &self,
        session: &mut Session,
        script: &Script,
    ) -> Result<(), Fault> {
        if self.send(session, script).await?.is_none() {
            return Err(StoreError::Standby.into());
        }
        self.appended();
        Ok(())
    }

    /// Counts an acknowledged row of our log.
    fn appended(&self) {
        self.journal.appended();
        self.loss_detector.lock().note_last_row(self.journal.last());
    }

    /// Opens a connection that writes, and records it in our row so that an instance that takes over can end
    /// it.
    async fn new_writer(&self, membership: Membership) -> Result<Session, Fault> {
        let mut session = Session::connect(&self.options, self.home().as_ref(), None).await?;
        if !retry_while_blocked!(instance::record_writer(&mut session, membership))? {
            return Err(StoreError::Standby.into());
        }
        self.note_packet(&session);
        Ok(session)
    }

    pub(super) fn note_packet(&self, writer: &Session) {
        self.packet_bytes_max
            .store(writer.packet_bytes_max, Ordering::Relaxed);
    }

    /// Sends a transaction, again and again while others block it. Returns what its last packet selected;
    /// `None`: it was rolled back, because another instance was first.
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
                log::debug!("rolled back, another instance was first: {fault:?}");
                return Ok(None);
            }
            if !is_passing {
                return Err(fence::refusal(&fault).map_or(fault, Fault::from));
            }
            tries += 1;
            log::debug!("repeating a transaction: {fault:?}");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// Sends the packets once, and returns the answers to the last one.
///
/// # Errors
/// [`StoreError::Standby`]: it is [`fence::append_alone`], and that refused.
async fn send_once(session: &mut Session, script: &Script) -> Result<Sets, Fault> {
    let mut sets = Sets::new();
    for packet in &script.packets {
        match session.run(packet.as_str()).await {
            Ok(answers) => sets = answers,
            // Not every server says in which table the key is.
            Err(fault) if script.appends_alone && fault.is(code::DUPLICATE) => {
                return Err(StoreError::Standby.into());
            }
            Err(fault) => return Err(fault),
        }
    }
    if script.appends_alone && session.changed_rows() == 0 {
        return Err(StoreError::Standby.into());
    }
    Ok(sets)
}
