//! What handlers ask a resource, what it answers, and what the actors tell each other.

use std::time::Duration;

use actix::{Message, Recipient};
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::lock::command::HolderView;
use crate::lock::{
    Answer, FencingToken, IdempotencyKey, Owner, PresentedTicket, RequestId, ResourceName, Seconds,
    Selector, Ticket,
};
use crate::resource::dormant::DormantLease;
use crate::shared::caller::Caller;
use crate::shared::gate::Closed;
use crate::store::ResourceId;

/// How long a request may wait for the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// As the server or, in the `php` profile, the resource says.
    Default,
    /// `?wait=`.
    For(Duration),
    /// `?queue=0`.
    NoQueue,
}

/// One request to a resource.
#[derive(Clone, Debug)]
pub enum Op {
    Create {
        timeout: Seconds,
    },
    Describe,
    /// GET `lock=0`.
    Read {
        selector: Selector,
        presented: PresentedTicket,
    },
    /// GET `lock=1` (with a selector) and lock (without).
    Acquire {
        selector: Option<Selector>,
        presented: PresentedTicket,
        owner: Option<Owner>,
        ttl: Option<Seconds>,
        key: Option<IdempotencyKey>,
        wait: Wait,
    },
    Write {
        selector: Selector,
        json: Bytes,
        presented: PresentedTicket,
        release: bool,
    },
    DeleteSelector {
        selector: Selector,
        presented: PresentedTicket,
    },
    Delete {
        presented: PresentedTicket,
    },
    Renew {
        presented: PresentedTicket,
        ttl: Option<Seconds>,
    },
    Unlock {
        presented: PresentedTicket,
    },
    ForceUnlock {
        token: Option<FencingToken>,
        /// For the log.
        reason: Owner,
    },
    /// Keep a live ticket alive, for a request that is refused for load.
    Touch {
        presented: PresentedTicket,
    },
}

/// A document as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub id: String,
    pub resource: ResourceId,
    pub json: Bytes,
}

/// A resource as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub name: ResourceName,
    pub id: ResourceId,
    pub timeout: Seconds,
    pub locked: bool,
    pub holder: Option<HolderView>,
    pub waiting: usize,
    pub selectors: usize,
}

/// What a resource answers. `http` maps it to statuses in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Created {
        id: ResourceId,
        timeout: Seconds,
    },
    Exists,
    NoResource,
    /// With the fencing token, where the holder asked.
    NoSelector(Option<FencingToken>),
    Described(Description),
    Read {
        document: Document,
        /// The live ticket that was presented, and its lease's token if it holds.
        ticket: Option<(Ticket, Option<FencingToken>)>,
    },
    /// What the lock said.
    Lock(Answer),
    /// GET `lock=1`: what the lock said, and the document (`None`: never written, `php` profile).
    Locked {
        answer: Answer,
        document: Option<Document>,
    },
    Written {
        token: Option<FencingToken>,
    },
    Deleted {
        token: Option<FencingToken>,
    },
    TooManySelectors,
    TooManyWaiters,
    /// The store would not take it, for what it contains.
    Refused,
    Closed(Closed),
    /// Ask the registry again.
    Moved,
}

/// A request on its way to a resource. Whoever sends one sends [`Vanished`] after it when nobody waits
/// for the reply any more.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Call {
    pub request: RequestId,
    pub op: Op,
    pub caller: Caller,
    /// Boxed: a reply changes hands a dozen times on its way.
    pub reply: oneshot::Sender<Box<Reply>>,
}

/// The client of this request is gone, or its reply was not taken.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Vanished {
    pub request: RequestId,
}

/// How an actor reaches the registry.
pub struct RegistryLink {
    pub retired: Recipient<Retired>,
    pub vanished: Recipient<VanishedLate>,
}

/// To the registry: this actor takes nothing any more. It leaves a lease that goes on without it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Retired {
    pub name: ResourceName,
    pub generation: u64,
    pub dormant: Option<DormantLease>,
}

/// To the registry, from an actor that has retired: its lease may be one that this client was told of.
#[derive(Message)]
#[rtype(result = "()")]
pub struct VanishedLate {
    pub name: ResourceName,
    pub request: RequestId,
}

/// To the registry, and from it to every actor: whoever waits for a lock is told that the server shuts
/// down. What is under way otherwise goes on.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub struct EndWaits;
