//! Sending heartbeats, each of which also reads the rows of the other instances.

use super::database::{MysqlStore, RETRY_PAUSE};
use super::error::Fault;
use super::fence::Membership;
use super::instance;
use super::session::{Session, within};
use super::slots;
use crate::store::StoreError;
use crate::store::members::Members;

impl MysqlStore {
    /// Sends one heartbeat and reads the rows of the instances. If the kept connection is dead, tries once more
    /// on a new one. `false`: this instance was taken for dead.
    pub(super) async fn beat(&self, membership: Membership) -> Result<bool, Fault> {
        let patience = self.options.timeout.min(self.options.instance_lease / 4);
        let mut heartbeat_session = self.heartbeat_session.lock().await;
        let kept = heartbeat_session.take();
        if let Some(session) = kept {
            let beaten = self.beat_on(&mut heartbeat_session, session, membership);
            match within(patience, beaten).await {
                Err(Fault::Away(text)) => log::debug!("the heartbeat connection was lost: {text}"),
                result => return result,
            }
        }
        within(patience, async {
            let session = Session::connect(&self.options, self.home().as_ref()).await?;
            self.beat_on(&mut heartbeat_session, session, membership)
                .await
        })
        .await
    }

    async fn beat_on(
        &self,
        heartbeat_session: &mut Option<Session>,
        mut session: Session,
        membership: Membership,
    ) -> Result<bool, Fault> {
        loop {
            match self.look_on(&mut session, membership).await {
                // A long commit of ours has the row locked.
                Err(fault) if fault.is_passing() => tokio::time::sleep(RETRY_PAUSE).await,
                result => {
                    *heartbeat_session = Some(session);
                    return result;
                }
            }
        }
    }

    /// One heartbeat on this connection. Unless this instance has the database exclusively, also records what
    /// it tells of the others. `false`: this instance was taken for dead.
    pub(super) async fn look_on(
        &self,
        session: &mut Session,
        membership: Membership,
    ) -> Result<bool, Fault> {
        let Some(mut row) = instance::beat(session, membership).await? else {
            return Ok(false);
        };
        if membership.epoch.is_some() {
            return Ok(true);
        }
        let version = row.epoch;
        if version < self.looks().version() && !session.server.is_member {
            let text = "the database is in an earlier state than before";
            return Err(Fault::Away(text.into()));
        }
        let wants_owners = self.looks().wants_owners(version);
        let owners = match wants_owners {
            true => {
                let owners;
                (owners, row) = slots::look(session).await?;
                Some(owners)
            }
            false => None,
        };
        let own = row.instance(&membership.id).map(|own| own.heartbeat);
        let mut loss_detector = self.loss_detector();
        loss_detector.sees_epoch(version);
        loss_detector.heartbeat_acknowledged(own.unwrap_or_default());
        drop(loss_detector);
        let mut looks = self.looks();
        if let Some(owners) = owners {
            looks.see_owners(&membership.id, version, owners);
        }
        looks.see(row, self.options.instance_lease);
        Ok(true)
    }

    /// Sends a heartbeat and returns what it tells of all instances.
    ///
    /// # Errors
    /// [`StoreError::Standby`]: this instance was taken for dead.
    pub(super) async fn look(&self) -> Result<Members, StoreError> {
        let Some(membership) = self.membership() else {
            return Err(StoreError::Unavailable("the database is not open".into()));
        };
        let beaten = self.beat(membership).await?;
        let is_current = self.membership() == Some(membership);
        if !beaten && is_current {
            self.set_membership(None);
            return Err(StoreError::Standby);
        }
        let members = self.looks().members(membership.id);
        members.filter(|_| is_current).ok_or_else(|| {
            let text = "the database is being opened again";
            StoreError::Unavailable(text.into())
        })
    }
}
