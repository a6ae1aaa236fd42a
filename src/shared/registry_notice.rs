//! Messages to the registry, for senders that know it as a [`Recipient`](actix::Recipient) only.

use actix::Message;
use tokio::sync::oneshot;

use crate::lock::{RequestId, ResourceName, Ticket};
use crate::shared::dormant::DormantLease;
use crate::shared::gate::Closed;
use crate::store::members::Slot;

/// Messages to the registry that have no reply.
#[derive(Message)]
#[rtype(result = "()")]
pub enum RegistryNotice {
    /// A resource actor has retired: it takes no requests any more.
    Retired {
        name: ResourceName,
        generation: u64,
        /// The lease that goes on without an actor, if there is one.
        dormant: Option<DormantLease>,
        /// Filled if the name moves to another instance: requests that were sent a grant which their client has
        /// not confirmed, each with its ticket. The client may turn out to be gone.
        unconfirmed: Vec<(RequestId, Ticket)>,
    },
    /// A retired actor learned that the client of this request, who may have been told of its lease, is gone.
    VanishedLate {
        name: ResourceName,
        request: RequestId,
    },
    /// Discard all actors: their memory is void. The store is closed for this reason.
    DiscardAll(Closed),
    /// Let the actors of names in these slots retire. `left` is sent when none is left, or dropped if superseded.
    Leave {
        slots: Vec<Slot>,
        left: oneshot::Sender<()>,
    },
    /// Tell all requests that wait that the server shuts down. Other requests in progress go on.
    EndWaits,
}
