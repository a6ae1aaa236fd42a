//! How a resource actor and the registry reach the persistence actor.

use std::sync::Arc;

use actix::{Addr, Handler, Message, Recipient};
use parking_lot::Mutex;

use crate::persistence::actor::Persistence;
use crate::persistence::messages::PersistenceNotice;
use crate::persistence::queue::CommitQueue;
use crate::shared::gate::Closed;
use crate::shared::resource_notice::ResourceNotice;
use crate::store::{Snapshot, StoreError};

#[derive(Clone)]
pub struct PersistenceHandle {
    pub actor: Addr<Persistence>,
    pub commits: Arc<Mutex<CommitQueue>>,
}

impl PersistenceHandle {
    pub fn tell(&self, notice: PersistenceNotice) {
        self.actor.do_send(notice);
    }

    /// Hands in commit `seq` of an actor that was started in `incarnation`. The actor is sent
    /// [`ResourceNotice::Committed`] or [`ResourceNotice::Discard`].
    ///
    /// # Errors
    /// [`Closed::Stopping`]: nothing is stored any more.
    pub fn commit(
        &self,
        actor: Recipient<ResourceNotice>,
        seq: u64,
        incarnation: u64,
        snapshot: Snapshot,
    ) -> Result<(), Closed> {
        let pushed = self.commits.lock().push(actor, seq, incarnation, snapshot);
        if pushed? {
            self.tell(PersistenceNotice::CommitsWait);
        }
        Ok(())
    }

    /// Has the persistence actor read something from the store. [`StoreError::Unavailable`] also if the store is not
    /// open or the actor has ended.
    pub async fn read<M, T>(&self, what: M) -> Result<T, StoreError>
    where
        M: Message<Result = Result<T, StoreError>> + Send + 'static,
        T: Send + 'static,
        Persistence: Handler<M>,
    {
        let read = self.actor.send(what).await;
        read.unwrap_or_else(|e| Err(StoreError::Unavailable(e.to_string())))
    }
}
