//! Messages to a resource actor, for senders that know it as a [`Recipient`](actix::Recipient) only.

use actix::Message;

use crate::lock::{Millis, RequestId, Selector};
use crate::shared::gate::Closed;

/// Messages to a resource actor that have no reply.
#[derive(Message)]
#[rtype(result = "()")]
pub enum ResourceNotice {
    /// All commits of the actor up to this number are durable.
    Committed { seq: u64 },
    /// The actor's memory is void: answer the open requests, and retire. `Some`: why the store is closed. `None`: the
    /// store rejected a commit of this actor because of its content.
    Discard(Option<Closed>),
    /// The client of this request is gone, or its reply was not taken.
    Vanished(RequestId),
    /// The server shuts down: requests that wait are told so. Requests in progress go on.
    EndWaits,
    /// The name moves to another instance: accept no request any more, commit what is pending, and retire.
    LeaveMemory,
    /// The timer that was set for this time has fired.
    Woken { at: Millis },
    /// Drop this document of so many bytes from memory as soon as it is not needed.
    Evict {
        selector: Selector,
        stamp: u64,
        bytes: usize,
    },
}
