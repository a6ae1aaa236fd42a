//! The event feed: one event for each durable change of a lock or a document.
//!
//! All readers share one ring of events. Publishing wakes nobody: readers look for themselves, several times a
//! second, so that neither their number nor their speed costs the publisher anything. A reader that fell behind by
//! more than the ring holds is told how many events it missed.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};

use crate::lock::{Mode, ResourceName, WallMillis};
use crate::shared::audit_log::AuditKind;
use crate::shared::gate::Closed;

/// Maximum number of readers; each takes a connection and polls several times a second.
const READERS_MAX: usize = 10_000;
/// Number of events that the ring holds.
const RING_EVENTS: usize = 8192;

/// One event. A field is `None` if it is unknown or does not apply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FeedEvent {
    pub kind: AuditKind,
    pub name: ResourceName,
    pub selector: Option<Box<str>>,
    pub owner: Option<Box<str>>,
    pub reason: Option<Box<str>>,
    pub mode: Option<Mode>,
    pub fencing_token: Option<u64>,
    /// Name of the key of the request that caused it, never the key.
    pub key: Option<SmolStr>,
    pub client: Option<IpAddr>,
    pub at: WallMillis,
    /// The bytes that readers send, made by the first reader.
    #[serde(skip)]
    rendered: OnceLock<Bytes>,
}

impl FeedEvent {
    /// An event of which only the kind, the name and the time are known.
    pub fn new(kind: AuditKind, name: ResourceName, at: WallMillis) -> FeedEvent {
        FeedEvent {
            kind,
            name,
            selector: None,
            owner: None,
            reason: None,
            mode: None,
            fencing_token: None,
            key: None,
            client: None,
            at,
            rendered: OnceLock::new(),
        }
    }

    /// The bytes that `render` makes of this event. Called once for all readers.
    pub fn rendered(&self, render: impl FnOnce(&FeedEvent) -> Bytes) -> Bytes {
        self.rendered.get_or_init(|| render(self)).clone()
    }
}

/// One reader of the ring, and its place among the readers, which is free once it is dropped.
pub type FeedReader = (broadcast::Receiver<Arc<FeedEvent>>, OwnedSemaphorePermit);

/// The ring of events; one per server.
pub struct EventFeed {
    ring: broadcast::Sender<Arc<FeedEvent>>,
    /// Permits for readers. The ring counts them too, but behind a lock that every change would take.
    places: Arc<Semaphore>,
}

impl Default for EventFeed {
    fn default() -> EventFeed {
        EventFeed {
            ring: broadcast::Sender::new(RING_EVENTS),
            places: Arc::new(Semaphore::new(READERS_MAX)),
        }
    }
}

impl EventFeed {
    /// Whether there are readers. Without any, events need not be made.
    pub fn is_read(&self) -> bool {
        self.places.available_permits() < READERS_MAX
    }

    /// Publishes an event. To be called once its change is durable.
    pub fn publish(&self, event: Arc<FeedEvent>) {
        // Fails only if nobody reads any more: nothing is lost.
        let _ = self.ring.send(event);
    }

    /// A reader of all events that are published from now on.
    ///
    /// # Errors
    /// [`Closed::TooManyReaders`]: there are 10,000 already.
    pub fn follow(&self) -> Result<FeedReader, Closed> {
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| Closed::TooManyReaders)?;
        Ok((self.ring.subscribe(), place))
    }
}
