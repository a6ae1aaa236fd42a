//! A place in the queue that is watched.

use std::fmt;
use std::time::Duration;

use crate::attempt::{Attempt, Standing};
use crate::client::Client;
use crate::clock::BootTime;
use crate::error::Error;
use crate::guard::Guard;
use crate::lock::{Terms, wait_for};

/// How soon a change of the place is seen; the grant itself is seen at once.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A place in the queue of a lock. Dropped, it is given up.
#[must_use = "a place that is dropped at once is given up at once"]
pub struct Place {
    client: Client,
    attempt: Attempt,
    until: Option<BootTime>,
    state: Queued,
}

enum Queued {
    /// With the position that was told last, and whether the caller knows it.
    Waiting {
        position: u64,
        told: bool,
    },
    Granted(Guard),
    Failed(Error),
    Over,
}

/// Where a place stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueState {
    /// 1 is next.
    pub position: u64,
}

impl Place {
    pub(crate) async fn take(
        mut attempt: Attempt,
        client: &Client,
        terms: &Terms,
    ) -> Result<Place, Error> {
        let until = terms.wait.map(|wait| attempt.began() + wait);
        let soon = attempt.began() + client.transport.timeout;
        let state = match attempt
            .ask(Duration::ZERO, Some(until.unwrap_or(soon)))
            .await?
        {
            Standing::Held(guard) => Queued::Granted(guard),
            Standing::Waiting(position) => Queued::Waiting {
                position,
                told: false,
            },
            Standing::Taken => Queued::Over,
        };
        Ok(Place {
            client: client.clone(),
            attempt,
            until,
            state,
        })
    }

    /// Where it stands: at once the first time, then whenever that changes. `None` when there is nothing left to wait
    /// for; [`Place::acquire`] says what came of it.
    pub async fn changed(&mut self) -> Option<QueueState> {
        loop {
            let Queued::Waiting { position, told } = &mut self.state else {
                return None;
            };
            if !std::mem::replace(told, true) {
                return Some(QueueState {
                    position: *position,
                });
            }
            let known = *position;
            let left = self.until.map_or(Duration::MAX, BootTime::remaining);
            if left.is_zero() {
                return None;
            }
            match self.attempt.ask(left.min(LOOK_EVERY), self.until).await {
                Ok(Standing::Waiting(position)) => {
                    self.state = Queued::Waiting {
                        position,
                        told: position == known,
                    };
                }
                Ok(Standing::Held(guard)) => self.state = Queued::Granted(guard),
                Ok(Standing::Taken) => self.state = Queued::Over,
                Err(error) => self.state = Queued::Failed(error),
            }
        }
    }

    /// Waits for the lock from this place.
    ///
    /// # Errors
    /// As [`Lock::acquire`](crate::Lock::acquire).
    pub async fn acquire(self) -> Result<Guard, Error> {
        match self.state {
            Queued::Granted(guard) => Ok(guard),
            Queued::Failed(error) => Err(error),
            Queued::Waiting { position, .. } => {
                wait_for(self.attempt, &self.client, Some(position), self.until).await
            }
            Queued::Over => wait_for(self.attempt, &self.client, None, self.until).await,
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("name", &self.attempt.name())
            .finish_non_exhaustive()
    }
}
