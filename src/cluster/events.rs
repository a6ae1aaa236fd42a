//! Reads the events of all instances as one stream.

use std::sync::Arc;

use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::watch;

use super::link::PeerEvents;
use crate::shared::event_feed::{FeedEvent, FeedReader};
use crate::shared::members::View;
use crate::shared::server_state::ServerState;
use crate::store::members::InstanceId;

/// Reads the events of all instances.
pub struct EventReader {
    server: Arc<ServerState>,
    here: FeedReader,
    /// This instance's id when the stream began. `None`: the store is not shared.
    me: Option<InstanceId>,
    there: Vec<(InstanceId, PeerEvents)>,
    view: watch::Receiver<View>,
    lacks_somebody: bool,
    /// Index of the source to ask next. The sources take turns, so that a busy one does not starve the others.
    next: usize,
}

impl EventReader {
    pub fn new(
        server: Arc<ServerState>,
        here: FeedReader,
        there: Vec<(InstanceId, PeerEvents)>,
    ) -> EventReader {
        let mut view = server.members.subscribe();
        view.mark_changed();
        let me = view.borrow().members.as_ref().map(|members| members.me);
        EventReader {
            server,
            here,
            me,
            there,
            view,
            lacks_somebody: false,
            next: 0,
        }
    }

    /// The next event, without waiting for one.
    ///
    /// # Errors
    /// As a receiver of the ring. [`TryRecvError::Closed`]: events may be missing from now on.
    pub fn try_next(&mut self) -> Result<Arc<FeedEvent>, TryRecvError> {
        let mut has_ended = false;
        for _ in 0..=self.there.len() {
            let found = match self.there.get_mut(self.next) {
                Some((_, there)) => there.try_next(),
                None => self.here.0.try_recv(),
            };
            self.next = (self.next + 1) % (self.there.len() + 1);
            match found {
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Closed) => has_ended = true,
                Ok(_) | Err(TryRecvError::Lagged(_)) => return found,
            }
        }
        match has_ended || self.lacks() {
            true => Err(TryRecvError::Closed),
            false => Err(TryRecvError::Empty),
        }
    }

    /// Whether events may happen that this reader does not see: it does not follow the owner of a slot, or this
    /// instance's gate is closed.
    fn lacks(&mut self) -> bool {
        if self.view.has_changed().unwrap_or(false) {
            let is_followed = |id: &InstanceId| {
                Some(*id) == self.me || self.there.iter().any(|(there, _)| there == id)
            };
            let view = self.view.borrow_and_update();
            let members = view.members.as_ref();
            self.lacks_somebody = members.is_some_and(|all| !all.owners.iter().all(is_followed));
        }
        self.lacks_somebody || self.server.gate.check().is_err()
    }
}
