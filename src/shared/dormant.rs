//! What a resource actor leaves behind when it retires while its lease runs, and since when a lock is held.

use std::sync::Arc;

use actix::ArbiterHandle;

use crate::lock::{RequestId, SuspendedLease, WallMillis};
use crate::shared::server_state::ServerState;

/// Since when a lock is held, `None` if it is free. While it is held it counts as one held lock in the metrics.
pub struct HeldSince {
    since: Option<WallMillis>,
    server: Arc<ServerState>,
}

impl HeldSince {
    /// Of a free lock.
    pub fn new(server: Arc<ServerState>) -> HeldSince {
        HeldSince {
            since: None,
            server,
        }
    }

    pub fn get(&self) -> Option<WallMillis> {
        self.since
    }

    pub fn set(&mut self, since: Option<WallMillis>) {
        let held = &self.server.metrics.locks_held;
        match (self.since, since) {
            (None, Some(_)) => held.mine().inc(),
            (Some(_), None) => held.mine().dec(),
            _ => {}
        }
        self.since = since;
    }
}

impl Drop for HeldSince {
    fn drop(&mut self) {
        self.set(None);
    }
}

/// A held resource without an actor.
pub struct DormantLease {
    pub lease: SuspendedLease,
    pub held: HeldSince,
    /// The incarnation of the store in which the lease was suspended. In a later one this is void.
    pub incarnation: u64,
    /// The thread of the actor that retired; its successor runs there again when the lease ends.
    pub home: ArbiterHandle,
    /// Requests that may have been told of the lease and whose clients vanished since it was suspended.
    pub vanished: Vec<RequestId>,
}
