//! What handlers ask a resource, what it answers, and what the actors tell each other.

use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::lock::command::{HolderView, PlaceView, Role};
use crate::lock::{
    Answer, FencingToken, KeyName, Millis, PresentedTicket, Reason, Refusal, RequestId,
    ResourceName, ResourceOptions, Selector, Ticket, TicketId, Ttl, WallMillis, Wish,
};
use crate::resource::dormant::DormantLease;
use crate::shared::caller::Caller;
use crate::shared::gate::Closed;
use crate::store::ResourceId;

/// How long a request may wait for the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wait {
    /// As the server or, in the `php` profile, the resource says.
    Default,
    /// `?wait=`.
    For(Duration),
    /// `?queue=0`.
    NoQueue,
    /// `?queue=0` and `?wait=`: a place in line that is gone with the wait.
    ThenLeave(Duration),
}

/// The value of an `ETag`: of a document, 128 bits of the SHA-256 of its bytes; of a description, who holds and
/// who waits.
pub type EntityTag = u128;

/// What `If-Match` or `If-None-Match` names; `None`: `*`, which is whatever exists.
pub type EntityTags = Option<Vec<EntityTag>>;

/// Which description or document its asker has already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    pub known: EntityTags,
    /// For how long to wait until there is another.
    pub wait: Duration,
}

impl Watch {
    pub fn knows(&self, tag: EntityTag) -> bool {
        let known = self.known.as_ref();
        known.is_none_or(|known| known.contains(&tag))
    }
}

/// On which a write depends, once the lock allows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// `If-Match`: the document exists and is one of these.
    Is(EntityTags),
    /// `If-None-Match: *`: there is no document.
    Missing,
}

impl Condition {
    /// `tag`: of the document; `None`: there is none.
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
        /// How many places of the queue to show.
        places: usize,
        watch: Option<Watch>,
    },
    /// GET `lock=0`.
    Read {
        selector: Selector,
        presented: PresentedTicket,
        watch: Option<Watch>,
    },
    /// GET `lock=1` (with a selector) and lock (without).
    Acquire {
        selector: Option<Selector>,
        presented: PresentedTicket,
        wish: Wish,
        wait: Wait,
        /// Make an ephemeral resource where there is none.
        create: bool,
    },
    Write {
        selector: Selector,
        #[serde(with = "json_bytes")]
        json: Bytes,
        presented: PresentedTicket,
        release: bool,
        condition: Option<Condition>,
        /// Make a resource where there is none.
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
        reason: Reason,
        /// Whose key it came with.
        by: KeyName,
    },
    /// End a ticket that waits.
    RemoveWaiter {
        waiter: TicketId,
        reason: Reason,
        by: KeyName,
    },
    /// Keep a live ticket alive, for a request that is refused for load.
    Touch {
        presented: PresentedTicket,
    },
}

impl Op {
    /// How the resource stands, asked by nobody in particular and answered at once.
    pub const DESCRIBE: Op = Op::Describe {
        presented: PresentedTicket::Absent,
        places: 0,
        watch: None,
    };

    /// Whether it, or its answer, has a document in it.
    pub fn carries_document(&self) -> bool {
        match self {
            Op::Read { .. } | Op::Write { .. } => true,
            Op::Acquire { selector, .. } => selector.is_some(),
            _ => false,
        }
    }

    /// How long it may take for its own sake; `None`: it is answered at once.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Op::Acquire {
                wait: Wait::For(wait) | Wait::ThenLeave(wait),
                ..
            } => (!wait.is_zero()).then_some(*wait),
            // The resource knows.
            Op::Acquire {
                wait: Wait::Default,
                ..
            } => Some(Duration::ZERO),
            Op::Read { watch, .. } | Op::Describe { watch, .. } => {
                watch.as_ref().map(|watch| watch.wait)
            }
            _ => None,
        }
    }

    /// Whether asking twice is asking once.
    pub fn may_repeat(&self) -> bool {
        match self {
            Op::Describe { .. }
            | Op::Read { .. }
            | Op::Acquire { .. }
            | Op::Renew { .. }
            | Op::Unlock { .. }
            | Op::Touch { .. } => true,
            Op::Create { .. }
            | Op::Write { .. }
            | Op::DeleteSelector { .. }
            | Op::Delete { .. }
            | Op::ForceUnlock { .. }
            | Op::RemoveWaiter { .. } => false,
        }
    }

    /// The selector whose document this request needs, and whether it needs the JSON or only has to know that
    /// it exists.
    pub(super) fn needed_document(&self) -> Option<(&Selector, bool)> {
        match self {
            Op::Read { selector, .. } => Some((selector, true)),
            Op::Acquire {
                selector: Some(selector),
                ..
            } => Some((selector, true)),
            // Which document there is, if any, can be told by its bytes alone.
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

/// JSON text as one piece.
mod json_bytes {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(json: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(json)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Bytes::copy_from_slice)
    }
}

/// A document as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    pub id: String,
    pub resource: ResourceId,
    #[serde(with = "json_bytes")]
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
    /// In the order of their grants.
    pub holders: Vec<HolderView>,
    pub waiting: usize,
    /// Since when the first of them waits, as far as it is known.
    pub waits_since: Option<WallMillis>,
    /// The first places, as many as were asked for.
    pub queue: Vec<PlaceView>,
    pub selectors: usize,
    /// What the ticket is that was presented.
    pub you: Option<Role>,
    /// Of who holds and who waits.
    pub fingerprint: u64,
}

/// What a resource answers. `http` maps it to statuses in one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Created {
        id: ResourceId,
        options: ResourceOptions,
    },
    Described(Box<Description>),
    /// The asker of a description or document has it already.
    Unchanged(EntityTag),
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
        tag: EntityTag,
    },
    Deleted {
        token: Option<FencingToken>,
    },
    Refused(Refusal),
    Closed(Closed),
    /// Ask the registry again.
    Moved,
}

/// A request on its way to a resource. Whoever sends one sends [`ResourceNotice::Vanished`] after it when nobody waits
/// for the reply any more.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Call {
    pub request: RequestId,
    pub op: Op,
    pub caller: Arc<Caller>,
    /// Boxed: a reply changes hands a dozen times on its way.
    pub reply: oneshot::Sender<Box<Reply>>,
}

/// To a resource, by whoever waits for no answer.
#[derive(Message)]
#[rtype(result = "()")]
pub enum ResourceNotice {
    /// The client of this request is gone, or its reply was not taken.
    Vanished(RequestId),
    /// The server shuts down: whoever waits for the lock is told so. What is under way otherwise goes on.
    EndWaits,
    /// The name goes to another instance. What is under way is finished, and nothing is begun.
    LeaveMemory,
    /// The timer that was set to this time is over.
    Woken { at: Millis },
}

/// To the registry, from an actor that takes nothing any more.
#[derive(Message)]
#[rtype(result = "()")]
pub enum RegistryNotice {
    /// From now on. It leaves a lease that goes on without it.
    Retired {
        name: ResourceName,
        generation: u64,
        dormant: Option<DormantLease>,
        /// Of a name that leaves for another instance: who was told of a grant, and may turn out to be gone.
        untold: Vec<(RequestId, Ticket)>,
    },
    /// It was told that this client is gone. Its lease may be one that the client was told of.
    VanishedLate {
        name: ResourceName,
        request: RequestId,
    },
}
