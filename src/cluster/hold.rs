//! Requests that wait for another instance, and for how long they may.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::shared::gate::Closed;
use crate::shared::members::View;
use crate::shared::server_state::ServerState;

/// Between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A request, for as long as it is held.
pub struct Hold {
    until: Instant,
    since: Instant,
    view: watch::Receiver<View>,
}

impl Hold {
    /// From now on, for so long at most.
    pub fn new(limit: Duration, view: watch::Receiver<View>) -> Hold {
        let since = Instant::now();
        Hold {
            until: since + limit,
            since,
            view,
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// Until something has changed, or a moment has passed.
    ///
    /// # Errors
    /// It was held as long as may be.
    pub async fn pause(&mut self, server: &ServerState) -> Result<(), Closed> {
        let peers = &server.metrics.peers;
        let now = Instant::now();
        if now >= self.until {
            return Err(Closed::Moving);
        }
        peers.held.inc();
        let _held = scopeguard::guard(&peers.held, |held| held.dec());
        let until = self.until.min(now + RETRY_PAUSE);
        let _ = timeout_at(until, self.view.changed()).await;
        peers.retried.inc();
        Ok(())
    }

    /// Ready when this instance ends.
    pub async fn stopped(&mut self) {
        let _ = self.view.wait_for(|view| view.stopping).await;
    }
}
