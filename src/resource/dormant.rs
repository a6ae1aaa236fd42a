//! What a resource actor leaves behind that retires under a lease.

use std::sync::Arc;

use actix::ArbiterHandle;

use crate::lock::{RequestId, SuspendedLease, WallMillis};
use crate::resource::status::ResourceStatus;
use crate::shared::server_state::ServerState;

/// Counted among the held locks while it exists.
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
    /// Of the store. In a later one this counts for nothing.
    pub incarnation: u64,
    /// The thread its actor lived on, and will live on when the lease is over.
    pub home: ArbiterHandle,
    /// Requests that were told of the lease and whose clients vanished since it was suspended.
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
