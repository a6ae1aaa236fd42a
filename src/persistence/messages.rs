//! Messages to and from the persistence actor.

use actix::{Message, Recipient};
use tokio::sync::oneshot;

use crate::lock::{ResourceName, Selector};
use crate::shared::gate::Closed;
use crate::store::members::Slot;
use crate::store::{ListQuery, ListedResource, ResourceId, StoreError, StoredData, StoredResource};

/// Reads a resource with its lock rows. `None`: it does not exist.
#[derive(Message)]
#[rtype(result = "Result<Option<StoredResource>, StoreError>")]
pub struct Load {
    pub name: ResourceName,
}

/// To a resource actor: what became of its commits.
#[derive(Message, Clone, Debug, PartialEq, Eq)]
#[rtype(result = "()")]
pub enum CommitResult {
    /// All commits of the actor up to this number are durable.
    Committed { seq: u64 },
    /// The actor's memory is void: answer the open requests, and retire. `Some`: why the store is closed. `None`: the
    /// store rejected a commit of this actor because of its content.
    Discard(Option<Closed>),
}

/// To the registry: orders for all its actors, or for those of some slots.
#[derive(Message)]
#[rtype(result = "()")]
pub enum RegistryOrder {
    /// Discard all actors: their memory is void. The store is closed for this reason.
    DiscardAll(Closed),
    /// Let the actors of names in these slots finish and retire. `left` is sent when none is left, and dropped if the
    /// order is superseded.
    Leave {
        slots: Vec<Slot>,
        left: oneshot::Sender<()>,
    },
    /// Tell all requests that wait that the server shuts down. Other requests in progress go on.
    EndWaits,
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
    ActorStopped(Recipient<CommitResult>),
    /// Slots may have changed hands: send a heartbeat at once, whose answer tells.
    Heartbeat,
    /// The address of the registry, which is started after the persistence actor.
    Registry(Recipient<RegistryOrder>),
}

/// The two steps in which this instance ends. Answered when the step is done.
#[derive(Message)]
#[rtype(result = "()")]
pub enum Ending {
    /// Give slots to other instances, until none is left that another instance takes.
    GiveSlots,
    /// Commit what is queued, close the store, and serve nothing any more.
    Finish,
}

/// Reads one document. `None`: it does not exist.
#[derive(Message)]
#[rtype(result = "Result<Option<StoredData>, StoreError>")]
pub struct LoadData {
    pub id: ResourceId,
    pub selector: Selector,
}

/// Reads a page of committed resources.
#[derive(Message)]
#[rtype(result = "Result<Vec<ListedResource>, StoreError>")]
pub struct List(pub ListQuery);
