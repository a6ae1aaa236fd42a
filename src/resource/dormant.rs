//! What a resource actor leaves behind when it retires while its lease runs.

use std::sync::Arc;

use actix::ArbiterHandle;

use crate::lock::{RequestId, SuspendedLease, WallMillis};
use crate::resource::status::ResourceStatus;
use crate::shared::server_state::ServerState;

/// Counts as one held lock in the metrics while it exists.
pub struct HeldLease {
    pub since: WallMillis,
    server: Arc<ServerState>,
}

impl HeldLease {
    pub fn new(since: WallMillis, server: Arc<ServerState>) -> HeldLease {
        server.metrics.locks.holds();
        HeldLease { since, server }
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.server.metrics.locks.holds_no_more();
    }
}

/// A held resource without an actor.
pub struct DormantLease {
    pub lease: SuspendedLease,
    pub held: HeldLease,
    /// The incarnation of the store in which the lease was suspended. In a later one this is void.
    pub incarnation: u64,
    /// The thread of the actor that retired. The actor that the registry starts when the lease ends runs there
    /// again.
    pub home: ArbiterHandle,
    /// Requests that may have been told of the lease and whose clients vanished since it was suspended.
    pub vanished: Vec<RequestId>,
}

impl DormantLease {
    pub fn status(&self) -> ResourceStatus {
        ResourceStatus {
            waiting: 0,
            waits_since: None,
            locked: true,
            held_since: Some(self.held.since),
        }
    }
}
