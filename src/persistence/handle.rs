//! How a resource actor and the registry reach the persistence actor.

use std::sync::Arc;

use actix::Addr;

use crate::lock::{ResourceName, Selector};
use crate::persistence::actor::Persistence;
use crate::persistence::messages::{Load, LoadData, PersistenceNotice};
use crate::persistence::queue::CommitQueue;
use crate::store::{ResourceId, StoreError, StoredData, StoredResource};

#[derive(Clone)]
pub struct PersistenceHandle {
    actor: Addr<Persistence>,
    /// The queue to which resource actors push their commits.
    pub commits: Arc<CommitQueue>,
}

impl PersistenceHandle {
    pub fn new(actor: Addr<Persistence>, commits: Arc<CommitQueue>) -> PersistenceHandle {
        PersistenceHandle { actor, commits }
    }

    pub fn tell(&self, notice: PersistenceNotice) {
        self.actor.do_send(notice);
    }

    /// As [`Load`].
    ///
    /// # Errors
    /// Those of the store; [`StoreError::Unavailable`] also if the store is not open or the actor has ended.
    pub async fn load(&self, name: ResourceName) -> Result<Option<StoredResource>, StoreError> {
        let loaded = self.actor.send(Load { name }).await;
        loaded.unwrap_or_else(|e| Err(StoreError::Unavailable(e.to_string())))
    }

    /// As [`LoadData`].
    ///
    /// # Errors
    /// Those of the store; [`StoreError::Unavailable`] also if the store is not open or the actor has ended.
    pub async fn load_data(
        &self,
        id: ResourceId,
        selector: Selector,
    ) -> Result<Option<StoredData>, StoreError> {
        let loaded = self.actor.send(LoadData { id, selector }).await;
        loaded.unwrap_or_else(|e| Err(StoreError::Unavailable(e.to_string())))
    }
}
