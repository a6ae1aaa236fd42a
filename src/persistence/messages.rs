//! What the persistence actor is asked, and what it tells.

use actix::{Message, Recipient};
use tokio::sync::oneshot;

use crate::lock::{ResourceName, Selector};
use crate::shared::gate::Closed;
use crate::store::members::Slot;
use crate::store::{ListQuery, ListedResource, ResourceId, StoreError, StoredData, StoredResource};

/// To the persistence actor: read a resource.
#[derive(Message)]
#[rtype(result = "Result<Option<StoredResource>, StoreError>")]
pub struct Load {
    pub name: ResourceName,
}

/// To an actor, about what it handed in.
#[derive(Message, Clone, Debug, PartialEq, Eq)]
#[rtype(result = "()")]
pub enum CommitResult {
    /// Everything up to this commit of the actor's is durable.
    Committed { seq: u64 },
    /// Nothing that is in the actor's memory counts any more: answer what is open, and retire. The store is closed
    /// for this reason; `None`: it would not take a commit of this actor's, for what it contains.
    Discard(Option<Closed>),
}

/// To the registry: what becomes of its actors.
#[derive(Message)]
#[rtype(result = "()")]
pub enum RegistryOrder {
    /// Every actor is discarded: nothing that they remember counts any more.
    DiscardAll(Closed),
    /// The actors of names in these slots finish what they have in hand, and go. `left` is told when none is left, and dropped
    /// when something came between.
    Leave {
        slots: Vec<Slot>,
        left: oneshot::Sender<()>,
    },
    /// Whoever waits for a lock is told that the server shuts down. What is under way otherwise goes on.
    EndWaits,
}

/// To the persistence actor, by whoever waits for no answer.
#[derive(Message)]
#[rtype(result = "()")]
pub enum PersistenceNotice {
    /// There are commits again.
    CommitsWait,
    /// The registry gave up a call that blocked the store for longer than `STORE_TIMEOUT_SECONDS`.
    CommitTimedOut,
    /// A discarded actor has read that it is; nothing more comes from it.
    ActorStopped(Recipient<CommitResult>),
    /// Slots may have changed hands: look at the store at once.
    Look,
    /// The registry, which is started after the persistence actor.
    Registry(Recipient<RegistryOrder>),
}

/// To the persistence actor: this instance ends; give all slots to others, and answer when none is left that anybody
/// takes.
#[derive(Message)]
#[rtype(result = "()")]
pub struct GiveAll;

/// Store what waits, give the store back, and be done.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Finish;

/// Read one document.
#[derive(Message)]
#[rtype(result = "Result<Option<StoredData>, StoreError>")]
pub struct LoadData {
    pub id: ResourceId,
    pub selector: Selector,
}

/// Read a page of committed resources.
#[derive(Message)]
#[rtype(result = "Result<Vec<ListedResource>, StoreError>")]
pub struct List(pub ListQuery);
