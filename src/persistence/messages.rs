//! Messages to the persistence actor.

use actix::{Message, Recipient};
use tokio::sync::oneshot;

use crate::lock::{ResourceName, Selector};
use crate::shared::registry_notice::RegistryNotice;
use crate::shared::resource_notice::ResourceNotice;
use crate::store::{ListQuery, ListedResource, ResourceId, StoreError, StoredData, StoredResource};

/// Reads a resource with its lock rows. `None`: it does not exist.
#[derive(Message)]
#[rtype(result = "Result<Option<StoredResource>, StoreError>")]
pub struct Load {
    pub name: ResourceName,
}

/// Reads one document. `None`: it does not exist.
#[derive(Message)]
#[rtype(result = "Result<Option<StoredData>, StoreError>")]
pub struct LoadData {
    pub id: ResourceId,
    pub selector: Selector,
}

/// Reads a page of committed resources.
impl Message for ListQuery {
    type Result = Result<Vec<ListedResource>, StoreError>;
}

/// Messages to the persistence actor that have no reply.
#[derive(Message)]
#[rtype(result = "()")]
pub enum PersistenceNotice {
    /// The commit queue was empty and is not any more.
    CommitsWait,
    /// A call has blocked the store for longer than `STORE_TIMEOUT_SECONDS`, and the registry gave it up.
    CommitTimedOut,
    /// A resource actor has handled its discard; it hands in no commits any more.
    ActorStopped(Recipient<ResourceNotice>),
    /// Slots may have changed hands: send a heartbeat at once, whose answer tells.
    Heartbeat,
    /// The address of the registry, which is started after the persistence actor.
    Registry(Recipient<RegistryNotice>),
    /// This instance ends: give slots to other instances, until none is left that another instance takes. The sender
    /// is used then.
    GiveSlots(oneshot::Sender<()>),
    /// This instance ends: commit what is queued, close the store, and serve nothing any more. The sender is used
    /// then.
    Finish(oneshot::Sender<()>),
}
