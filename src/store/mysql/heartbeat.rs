//! Sending heartbeats, each of which also reads the rows of the other instances.

use super::database::MysqlStore;
use super::error::Fault;
use super::fence::Membership;
use super::instance;
use super::session::{Session, retry_while_blocked, within};
use super::slots;
use crate::store::StoreError;
use crate::store::members::Members;

impl MysqlStore {
    /// Sends one heartbeat and reads the rows of the instances. If the kept connection is dead, tries once more
    /// on a new one. `false`: this instance was taken for dead.
    pub(super) async fn send_heartbeat(&self, membership: Membership) -> Result<bool, Fault> {
        let limit = self.options.timeout.min(self.options.instance_lease / 4);
        let mut heartbeat_session = self.heartbeat_session.lock().await;
        let kept = heartbeat_session.take();
        if let Some(session) = kept {
            let sent = self.send_heartbeat_on(&mut heartbeat_session, session, membership);
            match within(limit, sent).await {
                Err(Fault::Away(text)) => log::debug!("the heartbeat connection was lost: {text}"),
                result => return result,
            }
        }
        within(limit, async {
            let session = Session::connect(&self.options, self.home().as_ref(), None).await?;
            self.send_heartbeat_on(&mut heartbeat_session, session, membership)
                .await
        })
        .await
    }

    async fn send_heartbeat_on(
        &self,
        heartbeat_session: &mut Option<Session>,
        mut session: Session,
        membership: Membership,
    ) -> Result<bool, Fault> {
        // A long commit of ours may have the row locked.
        let result = retry_while_blocked!(self.heartbeat_on(&mut session, membership));
        *heartbeat_session = Some(session);
        result
    }

    /// One heartbeat on this connection. Unless this instance has the database exclusively, also updates the
    /// view of the others. `false`: this instance was taken for dead.
    pub(super) async fn heartbeat_on(
        &self,
        session: &mut Session,
        membership: Membership,
    ) -> Result<bool, Fault> {
        let Some(mut row) = instance::heartbeat(session, membership).await? else {
            return Ok(false);
        };
        if membership.epoch.is_some() {
            return Ok(true);
        }
        let version = row.epoch;
        if version < self.view.lock().slot_map_version() && !session.server.is_member {
            let text = "the database is in an earlier state than before";
            return Err(Fault::Away(text.into()));
        }
        let needs_owners = self.view.lock().needs_owners(version);
        let mut owners = None;
        if needs_owners {
            let (read, newer) = slots::read_owners(session).await?;
            (owners, row) = (Some(read), newer);
        }
        let own = row.instance(&membership.id).map(|own| own.heartbeat);
        let mut loss_detector = self.loss_detector.lock();
        loss_detector.note_epoch(version);
        loss_detector.heartbeat_acknowledged(own.unwrap_or_default());
        drop(loss_detector);
        let mut view = self.view.lock();
        if let Some(owners) = owners {
            view.update_owners(&membership.id, version, owners);
        }
        view.update(row, self.options.instance_lease);
        Ok(true)
    }

    /// Sends a heartbeat, and returns all instances as it read them.
    ///
    /// # Errors
    /// [`StoreError::Standby`]: this instance was taken for dead.
    pub(super) async fn read_members(&self) -> Result<Members, StoreError> {
        let membership = self.open_membership()?;
        let is_alive = self.send_heartbeat(membership).await?;
        let is_current = self.membership() == Some(membership);
        if !is_alive && is_current {
            self.set_membership(None);
            return Err(StoreError::Standby);
        }
        let members = self.view.lock().members(membership.id);
        members.filter(|_| is_current).ok_or_else(|| {
            let text = "the database is being opened again";
            StoreError::Unavailable(text.into())
        })
    }
}
