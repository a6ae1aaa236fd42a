//! Grants whose clients turned out to be gone after the name had moved to another instance: they are released there.
//!
//! An actor that leaves for another instance has told of its last grants a moment ago. Whether their clients took the
//! answers it does not learn any more; [`Untaken::left`] remembers whom it told, for as long as an answer may be on its
//! way.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::lock::{Millis, RequestId, ResourceName, Ticket};

/// How long an answer may be on its way to its client.
const ON_ITS_WAY_MS: Millis = 60_000;

/// A name, and the ticket that holds it.
pub type UntakenGrant = (ResourceName, Ticket);

/// One for each server.
pub struct Untaken {
    told: Mutex<HashMap<RequestId, (Millis, UntakenGrant)>>,
    to_release: UnboundedSender<UntakenGrant>,
    released: Mutex<Option<UnboundedReceiver<UntakenGrant>>>,
}

impl Default for Untaken {
    fn default() -> Untaken {
        let (to_release, released) = unbounded_channel();
        Untaken {
            told: Mutex::default(),
            to_release,
            released: Mutex::new(Some(released)),
        }
    }
}

impl Untaken {
    /// A name has left whose actor had told these requests of a grant. `now`: monotonic.
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

    /// The client of this request is gone, and its actor too.
    pub fn vanished(&self, request: RequestId) {
        let told = self.told.lock().remove(&request);
        if let Some((_, grant)) = told {
            let _ = self.to_release.send(grant);
        }
    }

    /// What is to be released wherever it is now. There is one who does that.
    pub fn to_release(&self) -> Option<UnboundedReceiver<UntakenGrant>> {
        self.released.lock().take()
    }
}
