//! The requests of one resource that are not answered yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::lock::command::HolderView;
use crate::lock::{Millis, PresentedTicket, RequestId, Selector};
use crate::resource::messages::{Condition, Op, Reply};
use crate::shared::caller::Caller;

/// What the reply to an open request is made from, besides the core's answer.
pub(super) enum RequestKind {
    /// Nothing: the core's answer is the reply.
    Plain,
    /// GET `lock=1`: the reply has this document.
    Get(Selector),
    /// GET `lock=1` or DELETE of a document that does not exist: answered 404 whatever the core answers.
    Absent,
    /// `true`: once it is written, the lease is released in the same commit. So is it with [`Self::DeleteSelector`].
    Write(Selector, Bytes, Option<Condition>, bool),
    /// [`Op::Describe`] or [`Op::Read`]: answered when there is another version than the client's, or at this time.
    Watch(Box<Op>, Millis),
    DeleteSelector(Selector, bool),
    /// Deletes the resource, and so ends these leases.
    Delete(Vec<HolderView>),
}

impl RequestKind {
    /// Whether the holder's lease is released once the change is made.
    pub(super) fn releases(&self) -> bool {
        matches!(
            self,
            RequestKind::Write(.., true) | RequestKind::DeleteSelector(_, true)
        )
    }

    /// The document that is pinned while the request waits for the lock.
    pub(super) fn document(&self) -> Option<&Selector> {
        match self {
            RequestKind::Get(selector) | RequestKind::Write(selector, ..) => Some(selector),
            _ => None,
        }
    }
}

pub(super) struct OpenRequest {
    pub(super) reply: oneshot::Sender<Box<Reply>>,
    pub(super) kind: RequestKind,
    pub(super) caller: Arc<Caller>,
    /// The ticket that it presented to the core; absent if it did not ask the core.
    pub(super) presented: PresentedTicket,
    /// One of the `MAX_WAITERS` permits, while the request waits.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// Open requests by id. Boxed: an empty tree keeps its first leaf, which has room for eleven values.
pub(super) type OpenRequests = BTreeMap<RequestId, Box<OpenRequest>>;
