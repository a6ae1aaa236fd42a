//! Grants whose client was gone after the name had moved to another instance. They are released at that
//! instance.
//!
//! The actor of a name that moves may have sent a grant a moment ago, and it does not learn any more whether
//! the client got the answer. [`UndeliveredGrants::left`] remembers such grants for as long as an answer may be on its
//! way.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::lock::{Millis, RequestId, ResourceName, Ticket};

/// How long an answer may be on its way to its client, in milliseconds.
const ON_ITS_WAY_MS: Millis = 60_000;

/// A name, and the ticket that holds its lock.
pub type UndeliveredGrant = (ResourceName, Ticket);

/// The grants that may turn out to be undelivered; one per server.
pub struct UndeliveredGrants {
    /// By the request that was answered: the grant, and until when it is remembered (monotonic).
    told: Mutex<HashMap<RequestId, (Millis, UndeliveredGrant)>>,
    to_release: UnboundedSender<UndeliveredGrant>,
    released: Mutex<Option<UnboundedReceiver<UndeliveredGrant>>>,
}

impl Default for UndeliveredGrants {
    fn default() -> UndeliveredGrants {
        let (to_release, released) = unbounded_channel();
        UndeliveredGrants {
            told: Mutex::default(),
            to_release,
            released: Mutex::new(Some(released)),
        }
    }
}

impl UndeliveredGrants {
    /// Remembers the grants of a name that has moved. `told`: the requests that were sent them, and their tickets.
    pub fn left(&self, name: &ResourceName, told: Vec<(RequestId, Ticket)>, now: Millis) {
        if told.is_empty() {
            return;
        }
        let mut known = self.told.lock();
        known.retain(|_, (until, _)| *until > now);
        let told = told.into_iter().map(|(request, ticket)| {
            let grant = (name.clone(), ticket);
            (request, (now + ON_ITS_WAY_MS, grant))
        });
        known.extend(told);
    }

    /// The client of this request is gone, and so is the actor that answered it: its grant is to be released.
    pub fn vanished(&self, request: RequestId) {
        let told = self.told.lock().remove(&request);
        if let Some((_, grant)) = told {
            let _ = self.to_release.send(grant);
        }
    }

    /// The grants to be released, for the one task that does it. `None`: it has them already.
    pub fn to_release(&self) -> Option<UnboundedReceiver<UndeliveredGrant>> {
        self.released.lock().take()
    }
}
