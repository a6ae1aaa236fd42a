//! How long a request is held while no instance answers for its name.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::shared::gate::Closed;
use crate::shared::members::View;
use crate::shared::server_state::ServerState;

/// Shortest and longest pause between two tries. In between it is a quarter of the time for which the request has been
/// held: a slot that is given moves within about a tenth of a second, and a take-over takes seconds.
const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_millis(50);

/// The time for which one request is held.
pub struct Hold {
    until: Instant,
    since: Instant,
    view: watch::Receiver<View>,
}

impl Hold {
    /// Begins now and lasts for `limit`.
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

    /// Waits until the view of the instances changes, but only for the pause between two tries.
    ///
    /// # Errors
    /// [`Closed::Moving`]: the request was held for as long as the limit allows.
    pub async fn pause(&mut self, server: &ServerState) -> Result<(), Closed> {
        let metrics = &server.metrics;
        let now = Instant::now();
        if now >= self.until {
            return Err(Closed::Moving);
        }
        metrics.forwarded_requests_held.inc();
        let _held = scopeguard::guard(&metrics.forwarded_requests_held, |held| held.dec());
        let pause = (self.elapsed() / 4).clamp(RETRY_MIN, RETRY_MAX);
        let until = self.until.min(now + pause);
        let _ = timeout_at(until, self.view.changed()).await;
        metrics.forwarded_retries_total.inc();
        Ok(())
    }

    /// Resolves when this instance shuts down.
    pub async fn stopped(&mut self) {
        let _ = self.view.wait_for(|view| view.stopping).await;
    }
}
