//! What the persistence actor is asked, and what it tells.

use actix::{Addr, Message};

use crate::lock::{ResourceName, Selector};
use crate::registry::actor::Registry;
use crate::resource::actor::ResourceActor;
use crate::resource::messages::Reply;
use crate::store::{ListQuery, ListedResource, ResourceId, StoreError, StoredData, StoredResource};

/// To the persistence actor: read a resource.
#[derive(Message)]
#[rtype(result = "Result<Option<StoredResource>, StoreError>")]
pub struct Load {
    pub name: ResourceName,
}

/// Everything up to this commit of the actor's is durable.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Committed {
    pub seq: u64,
}

/// The store is in doubt, or refused a commit of this actor's: answer what is open and retire.
#[derive(Message, Clone)]
#[rtype(result = "()")]
pub struct Abandon {
    pub reply: Reply,
}

/// To the registry: every actor is to answer what it has open with this, and retire.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AbandonAll {
    pub reply: Reply,
}

/// To the persistence actor: there are commits again.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CommitsWait;

/// The registry, which is started after the persistence actor.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Attach(pub Addr<Registry>);

/// The registry gave up a call that blocked the store for longer than `STORE_TIMEOUT_SECONDS`.
#[derive(Message)]
#[rtype(result = "()")]
pub struct GivenUp;

/// An abandoned actor has read that it is; nothing more comes from it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Left(pub Addr<ResourceActor>);

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
