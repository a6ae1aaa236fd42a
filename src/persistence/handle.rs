//! How a resource actor and the registry reach the persistence actor.

use std::sync::Arc;

use actix::{Addr, Handler, Message};

use crate::persistence::actor::Persistence;
use crate::persistence::messages::PersistenceNotice;
use crate::persistence::queue::CommitQueue;
use crate::store::StoreError;

#[derive(Clone)]
pub struct PersistenceHandle {
    pub actor: Addr<Persistence>,
    /// The queue to which resource actors push their commits.
    pub commits: Arc<CommitQueue>,
}

impl PersistenceHandle {
    pub fn tell(&self, notice: PersistenceNotice) {
        self.actor.do_send(notice);
    }

    /// Has the persistence actor read something from the store.
    ///
    /// # Errors
    /// Those of the store; [`StoreError::Unavailable`] also if the store is not open or the actor has ended.
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
