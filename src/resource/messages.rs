//! What a resource actor is asked, and what it replies.

use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::lock::command::{HolderView, PlaceView, Role};
use crate::lock::rows::Forced;
use crate::lock::{
    Answer, FencingToken, LockOptions, PresentedTicket, Refusal, RequestId, ResourceName,
    ResourceOptions, Selector, Ticket, TicketId, Ttl, WallMillis,
};
use crate::shared::caller::Caller;
use crate::shared::gate::Closed;
use crate::store::ResourceId;

/// How long a request may wait for the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wait {
    /// Neither `?wait=` nor `?queue=0`: the server's default wait; in the `php` profile the resource's timeout.
    Default,
    /// `?wait=`: wait for at most this long. The place in the queue stays afterwards.
    For(Duration),
    /// `?queue=0`: do not wait, and take no place in the queue.
    NoQueue,
    /// `?queue=0` with `?wait=`: wait for at most this long, then give up the place in the queue.
    ThenLeave(Duration),
}

/// The value of an `ETag`: 128 bits of a document's SHA-256, or [`Description::fingerprint`].
pub type EntityTag = u128;

/// The tags in `If-Match` or `If-None-Match`. `None`: `*`, which matches any tag.
pub type EntityTags = Option<Vec<EntityTag>>;

/// Makes a read conditional.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Tags of the versions that the client has.
    pub known: EntityTags,
    /// How long to wait until there is another version.
    pub wait: Duration,
}

impl Watch {
    /// Whether the client has the version with this tag.
    pub fn knows(&self, tag: EntityTag) -> bool {
        let known = self.known.as_ref();
        known.is_none_or(|known| known.contains(&tag))
    }
}

/// The precondition of a write. It is checked once the lock allows the write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// `If-Match`: the document exists and has one of these tags.
    Is(EntityTags),
    /// `If-None-Match: *`: the document does not exist.
    Missing,
}

impl Condition {
    /// Whether the condition is met. `tag`: the tag of the document, `None` if it does not exist.
    pub fn holds(&self, tag: Option<EntityTag>) -> bool {
        match (self, tag) {
            (Condition::Missing, tag) => tag.is_none(),
            (Condition::Is(_), None) => false,
            (Condition::Is(None), Some(_)) => true,
            (Condition::Is(Some(wanted)), Some(tag)) => wanted.contains(&tag),
        }
    }
}

/// One request to a resource.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Op {
    Create {
        options: ResourceOptions,
    },
    Describe {
        presented: PresentedTicket,
        /// How many places of the queue to return at most.
        places: usize,
        watch: Option<Watch>,
    },
    /// GET with `lock=0`: read a document without taking the lock.
    Read {
        selector: Selector,
        presented: PresentedTicket,
        watch: Option<Watch>,
    },
    /// GET with `lock=1` (has a selector), or a lock request (has none).
    Acquire {
        selector: Option<Selector>,
        presented: PresentedTicket,
        options: LockOptions,
        wait: Wait,
        /// Create an ephemeral resource if no resource of this name exists.
        create: bool,
    },
    Write {
        selector: Selector,
        json: Bytes,
        presented: PresentedTicket,
        release: bool,
        condition: Option<Condition>,
        /// Create a resource if none of this name exists.
        create: bool,
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
        ttl: Option<Ttl>,
        exact: bool,
    },
    Unlock {
        presented: PresentedTicket,
    },
    ForceUnlock {
        token: Option<FencingToken>,
        forced: Box<Forced>,
    },
    /// Remove a waiter from the queue.
    RemoveWaiter {
        waiter: TicketId,
        forced: Box<Forced>,
    },
    /// Count a live ticket as presented. Sent for a request that is refused because of load.
    Touch {
        presented: PresentedTicket,
    },
}

impl Op {
    /// A description request without a ticket, without queue places, answered at once.
    pub const DESCRIBE: Op = Op::Describe {
        presented: PresentedTicket::Absent,
        places: 0,
        watch: None,
    };

    /// Whether the request or its reply contains a document.
    pub fn carries_document(&self) -> bool {
        match self {
            Op::Read { .. } | Op::Write { .. } => true,
            Op::Acquire { selector, .. } => selector.is_some(),
            _ => false,
        }
    }

    /// How long the request may wait. `None`: not at all. Zero: as long as the server or the resource says.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Op::Acquire {
                wait: Wait::For(wait) | Wait::ThenLeave(wait),
                ..
            } => (!wait.is_zero()).then_some(*wait),
            Op::Acquire {
                wait: Wait::Default,
                ..
            } => Some(Duration::ZERO),
            Op::Read { watch, .. } | Op::Describe { watch, .. } => {
                let wait = watch.as_ref().map(|watch| watch.wait);
                wait.filter(|wait| !wait.is_zero())
            }
            _ => None,
        }
    }

    /// Whether the request is idempotent, so that it may be sent again when its reply is lost.
    pub fn may_repeat(&self) -> bool {
        matches!(
            self,
            Op::Describe { .. }
                | Op::Read { .. }
                | Op::Acquire { .. }
                | Op::Renew { .. }
                | Op::Unlock { .. }
                | Op::Touch { .. }
        )
    }

    /// The document that this request needs, and whether it needs its JSON or only to know whether it exists.
    pub(super) fn needed_document(&self) -> Option<(&Selector, bool)> {
        match self {
            Op::Read { selector, .. } => Some((selector, true)),
            Op::Acquire {
                selector: Some(selector),
                ..
            } => Some((selector, true)),
            // A condition compares tags, and a tag is computed from the JSON.
            Op::Write {
                selector,
                condition,
                ..
            } => Some((selector, condition.is_some())),
            Op::DeleteSelector { selector, .. } => Some((selector, false)),
            _ => None,
        }
    }
}

/// A document as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    pub id: String,
    pub resource: ResourceId,
    pub json: Bytes,
    pub tag: EntityTag,
}

/// A resource as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    pub name: ResourceName,
    pub id: ResourceId,
    pub options: ResourceOptions,
    pub locked: bool,
    /// The leases, in the order of their grants.
    pub holders: Vec<HolderView>,
    /// Number of waiters.
    pub waiting: usize,
    /// Since when the first waiter waits. `None`: nobody waits, or it is not known.
    pub waits_since: Option<WallMillis>,
    /// The first places of the queue, at most as many as the request asked for.
    pub queue: Vec<PlaceView>,
    /// Number of documents.
    pub selectors: usize,
    /// The role of the presented ticket. `None`: no live ticket was presented.
    pub you: Option<Role>,
    /// Hash of the holders and the queue.
    pub fingerprint: u64,
}

/// The reply of a resource. `http` maps it to a status in one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Created {
        id: ResourceId,
        options: ResourceOptions,
    },
    Described(Box<Description>),
    /// The client has this version of the description or document already. `token`: the lease of the presented ticket.
    Unchanged {
        tag: EntityTag,
        token: Option<FencingToken>,
    },
    Read {
        document: Document,
        /// The presented ticket if it is live, and the token of its lease if it holds one.
        ticket: Option<(Ticket, Option<FencingToken>)>,
    },
    /// The answer of the lock core.
    Lock(Answer),
    /// GET with `lock=1`: the answer of the lock core, and the document. `None`: the ticket waits, or the
    /// document was never written (`php` profile).
    Locked {
        answer: Answer,
        document: Option<Document>,
    },
    Written {
        token: Option<FencingToken>,
        tag: EntityTag,
    },
    Deleted {
        token: Option<FencingToken>,
    },
    /// With the fencing token if the caller holds the lock.
    Refused(Refusal, Option<FencingToken>),
    Closed(Closed),
    /// This actor takes no requests any more: ask the registry again for the actor of the name.
    Moved,
}

/// A request on its way to a resource actor. Its sender sends [`Vanished`] when nobody waits for the reply any more.
///
/// [`Vanished`]: crate::shared::resource_notice::ResourceNotice::Vanished
#[derive(Message)]
#[rtype(result = "()")]
pub struct Call {
    pub request: RequestId,
    pub op: Op,
    pub caller: Arc<Caller>,
    /// Boxed: a reply is moved a dozen times on its way.
    pub reply: oneshot::Sender<Box<Reply>>,
}
