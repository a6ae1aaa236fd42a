//! Opening the store. One instance has the database exclusively while it makes it ready (migration, replay of
//! logs); after that every instance joins it.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::Instant;

use super::commit;
use super::database::MysqlStore;
use super::error::{Fault, code};
use super::fence::{self, Membership};
use super::instance;
use super::migrate;
use super::php;
use super::rows;
use super::schema::{self, MigrationStep, ServerRow};
use super::session::{Session, retry_while_blocked, within};
use super::settings;
use super::slots;
use crate::store::members::{Members, SLOTS, heartbeat_every, heartbeat_valid};
use crate::store::{InstanceId, Store, StoreError};

/// Reads the rows, in a new database after creating their tables.
///
/// # Errors
/// [`StoreError::Unusable`]: the tables `resource` and `resource_data` cannot be adopted; nothing is created.
pub(super) async fn server_row(session: &mut Session) -> Result<ServerRow, Fault> {
    match schema::read_server_row(session).await {
        Ok(Some(row)) => return Ok(row),
        Ok(None) => {}
        Err(fault) if fault.is(code::NO_SUCH_TABLE) => {}
        Err(fault) => return Err(fault),
    }
    let found = php::adopt::has_tables_to_adopt(session).await;
    found.map_err(Fault::stops_migration)?;
    schema::create_server_row(session).await
}

impl MysqlStore {
    /// See [`crate::store::Store::open`].
    pub(super) async fn open_with(
        &self,
        waiting_session: &mut Option<Session>,
        writer: &mut Option<Session>,
    ) -> Result<Members, StoreError> {
        self.set_membership(None);
        *writer = None;
        // Drop every connection: the host name may lead to another server by now, and open connections still
        // lead to the old one.
        *self.heartbeat_session.lock().await = None;
        self.renew_readers();
        *self.home.lock() = None;
        let entered = self.enter(waiting_session).await?;
        let (mut session, row, mut membership) = entered.ok_or(StoreError::Standby)?;
        if membership.epoch.is_some() {
            membership = self.make_ready(&mut session, &row, membership).await?;
        }
        *writer = Some(session);
        self.set_membership(Some(membership));
        let finished = self
            .while_alive(membership, self.finish_opening(writer, membership))
            .await;
        if finished.is_err() {
            self.set_membership(None);
            self.withdraw(membership).await;
        }
        let members = finished?;
        let owned = members.share(membership.id);
        log::info!("this instance shares the database, and has {owned} of {SLOTS} slots");
        Ok(members)
    }

    /// Joins the database, or takes it exclusively if it is not ready: then the membership has an epoch. `None`:
    /// has to wait, because another instance has it exclusively, or one with another lease may be alive.
    async fn enter(
        &self,
        waiting_session: &mut Option<Session>,
    ) -> Result<Option<(Session, ServerRow, Membership)>, Fault> {
        let entered = within(self.options.timeout, self.try_to_enter(waiting_session)).await;
        if entered.is_err() {
            self.view.lock().restart_watches();
        }
        entered
    }

    async fn try_to_enter(
        &self,
        waiting_session: &mut Option<Session>,
    ) -> Result<Option<(Session, ServerRow, Membership)>, Fault> {
        let mut session = match waiting_session.take() {
            Some(session) => session,
            None => Session::connect_creating(&self.options).await?,
        };
        let entered = loop {
            let entered = retry_while_blocked!(self.enter_once(&mut session))?;
            if let ControlFlow::Break(entered) = entered {
                break entered;
            }
        };
        let Some((row, membership)) = entered else {
            *waiting_session = Some(session);
            return Ok(None);
        };
        *self.home.lock() = Some(session.server.clone());
        self.note_packet(&session);
        Ok(Some((session, row, membership)))
    }

    /// One attempt to enter. `Continue`: the rows changed meanwhile and have to be read again. `Break(None)`:
    /// has to wait.
    async fn enter_once(
        &self,
        session: &mut Session,
    ) -> Result<ControlFlow<Option<(ServerRow, Membership)>>, Fault> {
        let row = server_row(session).await?;
        let lease = self.options.instance_lease;
        let formers: HashSet<InstanceId> = self
            .loss_detector
            .lock()
            .memberships()
            .map(|former| former.id)
            .collect();
        self.view.lock().former.clone_from(&formers);
        self.view.lock().update(row.clone(), lease);
        let is_shared = row.is_shared();
        let has_to_wait = match is_shared {
            true => !self.leases_agree()?,
            false => self.view.lock().living_owner().is_some(),
        };
        if has_to_wait {
            return Ok(ControlFlow::Break(None));
        }
        if row.owner.is_some_and(|owner| !formers.contains(&owner)) {
            log::warn!("the instance that has the database exclusively is silent; taking over");
        }
        self.open_heartbeat_session(session).await?;
        if is_shared {
            // One that stopped inside a transaction keeps its locks, and nobody could join.
            let silent = self.view.lock().silent_instances();
            for instance in &silent {
                instance::kill_blocking_writer(session, instance).await?;
            }
        }
        let address = self.options.peer_address().await?;
        let (address, lease_ms) = (address.as_deref(), self.options.lease_ms());
        let membership = instance::new_membership((!is_shared).then_some(row.epoch + 1));
        self.loss_detector.lock().will_create(membership);
        let epoch = match is_shared {
            true => instance::join(session, membership, address, lease_ms).await?,
            false => instance::take(session, &row, membership, address, lease_ms).await?,
        };
        let Some(epoch) = epoch else {
            return Ok(ControlFlow::Continue(()));
        };
        self.note_joined(membership, epoch);
        if is_shared {
            return Ok(ControlFlow::Break(Some((row, membership))));
        }
        // Read again: the row now has everything that the old owner committed, and it can commit nothing more.
        let row = schema::read_server_row(session).await?;
        let row = row.filter(|row| row.is_alone(membership));
        Ok(match row {
            Some(row) => ControlFlow::Break(Some((row, membership))),
            None => ControlFlow::Continue(()),
        })
    }

    /// This process is a new instance from now on. `epoch`: the one that this made.
    fn note_joined(&self, membership: Membership, epoch: u64) {
        let mut loss_detector = self.loss_detector.lock();
        loss_detector.note_own_epoch(epoch);
        loss_detector.confirm_created(membership);
        drop(loss_detector);
        self.view.lock().reset();
        self.journal.reset(1);
    }

    /// Whether all instances that may be alive have our lease. `false`: one has another lease, and is not known
    /// to be alive; read the rows again.
    ///
    /// # Errors
    /// [`StoreError::Unusable`]: one with another lease is alive.
    fn leases_agree(&self) -> Result<bool, StoreError> {
        let own = self.options.lease_ms();
        let Some((is_alive, other)) = self.view.lock().other_lease(own) else {
            return Ok(true);
        };
        if !is_alive {
            return Ok(false);
        }
        let text = format!(
            "INSTANCE_LEASE_SECONDS is {} here and {} at another instance of this database; set the same for all",
            own as f64 / 1000.0,
            other as f64 / 1000.0
        );
        Err(StoreError::Unusable(text))
    }

    /// Makes a database ready that this instance has exclusively. Returns the membership that shares it from
    /// then on.
    async fn make_ready(
        &self,
        session: &mut Session,
        row: &ServerRow,
        membership: Membership,
    ) -> Result<Membership, StoreError> {
        if row.step == MigrationStep::Reverting {
            let text = "a revert of its tables to the PHP server's is not finished; run `revert-to-php` again";
            return Err(StoreError::Unusable(text.into()));
        }
        self.migrate(session, row, membership).await?;
        let left = self.checkpoint_left(session, membership);
        self.while_alive(membership, left).await?;
        let script = slots::sharing(self.place_in(membership, session))?;
        let sharing = self.send_opening(session, &script);
        within(self.options.timeout, sharing).await?;
        let shared = Membership {
            epoch: None,
            ..membership
        };
        self.loss_detector.lock().confirm_created(shared);
        Ok(shared)
    }

    /// Brings the schema up to date, with heartbeats beside it to stay the owner.
    async fn migrate(
        &self,
        session: &mut Session,
        row: &ServerRow,
        membership: Membership,
    ) -> Result<(), Fault> {
        if row.version == schema::VERSION && row.step == MigrationStep::Ready {
            return Ok(());
        }
        let migration = migrate::migrate(session, row, membership, self.options.adopt);
        let migrated = self.while_alive(membership, migration).await;
        migrated.map_err(|fault| match fence::is_fenced(&fault) {
            true => StoreError::Standby.into(),
            false => fault.stops_migration(),
        })
    }

    /// Takes over from the instances that this process was, and from all others that are dead already; then
    /// goes on above the tokens that the database lost, if it did.
    async fn finish_opening(
        &self,
        writer: &mut Option<Session>,
        membership: Membership,
    ) -> Result<Members, Fault> {
        if let Some(session) = writer.as_mut() {
            let look = async {
                schema::refuse_foreign_engines(session).await?;
                self.warn(session).await
            };
            within(self.options.timeout, look).await?;
        }
        let members = self.read_members_as_writer(writer, membership).await?;
        self.loss_detector.lock().check_members(&members);
        for id in members.dead() {
            if let Some(mut taking) = self.begin_take_over(writer, &id).await? {
                while self
                    .take_over_next(writer, &mut taking)
                    .await?
                    .is_continue()
                {}
            }
        }
        self.raise_tokens_after_loss(writer, membership).await?;
        self.read_members_as_writer(writer, membership).await
    }

    async fn read_members_as_writer(
        &self,
        writer: &mut Option<Session>,
        membership: Membership,
    ) -> Result<Members, Fault> {
        let Some(session) = writer.as_mut() else {
            return Err(Fault::Away("the writing connection was lost".into()));
        };
        let limit = self.options.timeout;
        if !retry_while_blocked!(within(limit, self.heartbeat_on(session, membership)))? {
            return Err(StoreError::Standby.into());
        }
        let members = self.view.lock().members(membership.id);
        members.ok_or_else(|| Fault::Away("the owners of the slots were not read".into()))
    }

    /// If the database has lost acknowledged commits, makes fencing tokens go on above all that this process
    /// has seen: clients may have tokens that the database does not know any more.
    async fn raise_tokens_after_loss(
        &self,
        writer: &mut Option<Session>,
        membership: Membership,
    ) -> Result<(), Fault> {
        let lost = self.loss_detector.lock().reset_to(&membership.id);
        let Some(token) = lost else {
            return Ok(());
        };
        log::error!(
            "the database has lost acknowledged changes: locks and documents are in an earlier state; \
             fencing tokens go on above {}",
            token.0
        );
        let script = async |_: &mut Session, place| commit::raising_script(token, place);
        self.transact(writer, script).await?;
        self.loss_detector.lock().raised();
        Ok(())
    }

    /// Logs what a session could not set, and settings of the database that risk data; each sentence once.
    async fn warn(&self, session: &mut Session) -> Result<(), Fault> {
        let mut warnings = std::mem::take(&mut session.refused);
        warnings.extend(settings::risks(session.rows(settings::ASK_GLOBAL).await?));
        let mut said = self.warned.lock().await;
        for warning in warnings {
            if !said.contains(&warning) {
                log::warn!("{warning}");
                said.push(warning);
            }
        }
        Ok(())
    }

    /// Ends the membership of an attempt to open that failed, and deletes its row and log, which has no changes.
    /// Otherwise a cause that lasts would leave a row for each attempt. If the attempt has taken slots over, the
    /// row stays, and the next attempt takes over from it.
    async fn withdraw(&self, membership: Membership) {
        match within(self.options.timeout, self.release(membership, true)).await {
            Ok(Some(epoch)) => {
                let mut loss_detector = self.loss_detector.lock();
                loss_detector.note_epoch(epoch);
                loss_detector.forget(&membership.id);
            }
            Ok(None) => {}
            Err(fault) => log::debug!("the row of a failed attempt to open stays: {fault:?}"),
        }
    }

    /// Opens the heartbeat's connection, if there is none, before this process becomes an instance. Otherwise,
    /// where the account may have few connections, reads would take the last one, and the store would be lost
    /// for want of a heartbeat.
    async fn open_heartbeat_session(&self, opened: &Session) -> Result<(), StoreError> {
        let mut heartbeat_session = self.heartbeat_session.lock().await;
        if heartbeat_session.is_some() {
            return Ok(());
        }
        let connecting = Session::connect(&self.options, Some(&opened.server), None);
        let connected = within(self.options.timeout, connecting).await;
        let session = connected.map_err(|fault| {
            StoreError::Unavailable(format!(
                "no second connection for the heartbeat could be opened; at least 3 are needed: {}",
                StoreError::from(fault).detail()
            ))
        })?;
        *heartbeat_session = Some(session);
        Ok(())
    }

    /// Runs work that may take longer than any timeout, with heartbeats beside it.
    ///
    /// # Errors
    /// Those of `work`; [`StoreError::Standby`] if this instance was taken for dead; the last heartbeat's
    /// failure once no heartbeat has succeeded for as long as one is valid.
    pub(super) async fn while_alive<T>(
        &self,
        membership: Membership,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let lease = self.options.instance_lease;
        let (every, valid) = (heartbeat_every(lease), heartbeat_valid(lease));
        let heartbeats = async {
            let mut last = Instant::now();
            loop {
                tokio::time::sleep(every).await;
                let sent = Instant::now();
                match self.send_heartbeat(membership).await {
                    Ok(true) => last = sent,
                    Ok(false) => return Fault::from(StoreError::Standby),
                    // Not a failure: reverting drops the table as its last step.
                    Err(fault) if fault.is(code::NO_SUCH_TABLE) => last = sent,
                    Err(fault) if last.elapsed() < valid => {
                        log::debug!("a heartbeat failed: {fault:?}");
                    }
                    Err(fault) => return fault,
                }
            }
        };
        tokio::select! {
            result = work => result,
            fault = heartbeats => Err(fault),
        }
    }

    /// The second half of [`crate::store::Store::open_alone`], once the store is open: takes over from every
    /// other instance as soon as it is dead. [`StoreError::Standby`]: one is alive.
    pub(super) async fn wait_until_alone(&self) -> Result<Members, StoreError> {
        let every = heartbeat_every(self.options.instance_lease);
        loop {
            let members = self.read_members().await?;
            let is_mine = |owner: &InstanceId| *owner == members.me;
            if members.members.len() == 1 && members.owners.iter().all(is_mine) {
                return Ok(members);
            }
            let mut others = members.members.iter().filter(|one| one.id != members.me);
            if others.any(|other| self.view.lock().is_beating(&other.id)) {
                return Err(StoreError::Standby);
            }
            for id in members.dead() {
                self.take_over(id).await?;
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Takes the database exclusively, to finish what an earlier exclusive owner began.
    /// [`StoreError::Standby`]: that owner shows a sign of life, or has finished.
    pub(super) async fn resume_exclusive(
        &self,
    ) -> Result<(Session, ServerRow, Membership), StoreError> {
        let every = heartbeat_every(self.options.instance_lease);
        let mut waiting_session = None;
        loop {
            match self.enter(&mut waiting_session).await? {
                Some(entered @ (.., Membership { epoch: Some(_), .. })) => return Ok(entered),
                // The database is shared, so there is nothing left to finish.
                Some(_) => {
                    self.close().await;
                    return Err(StoreError::Standby);
                }
                None => {}
            }
            let owner = self.view.lock().living_owner();
            if owner.is_some_and(|owner| self.view.lock().is_beating(&owner)) {
                return Err(StoreError::Standby);
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Turns the shared database into one that this instance has exclusively. [`StoreError::Standby`]: there is
    /// another instance, or not all slots are ours.
    pub(super) async fn make_exclusive(
        &self,
    ) -> Result<(Session, ServerRow, Membership), StoreError> {
        let mut writer = self.writer.lock().await;
        let membership = self.membership().ok_or(StoreError::Standby)?;
        let script = async |_: &mut Session, place| slots::making_exclusive(place);
        let sets = self.attempt(&mut writer, script).await?;
        let epoch = rows::last(sets.ok_or(StoreError::Standby)?)?;
        let membership = Membership {
            epoch: Some(epoch),
            ..membership
        };
        self.loss_detector.lock().confirm_created(membership);
        self.set_membership(None);
        let session = writer.take();
        let mut session =
            session.ok_or_else(|| StoreError::Unavailable("the writer was lost".into()))?;
        let row = schema::read_server_row(&mut session).await?;
        let row = row
            .filter(|row| row.is_alone(membership))
            .ok_or(StoreError::Standby)?;
        Ok((session, row, membership))
    }
}
