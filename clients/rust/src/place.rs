//! A place in the queue that is watched.

use std::fmt;
use std::time::Duration;

use reqwest::header::HeaderValue;

use crate::attempt::{Attempt, Standing};
use crate::client::Client;
use crate::clock::BootTime;
use crate::error::Error;
use crate::guard::Guard;
use crate::terms::Terms;

/// How soon the queue is looked at again where the server would not wait for a change of it.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A place in the queue of a lock. Dropped, it is given up.
#[must_use = "a place that is dropped at once is given up at once"]
pub struct Place {
    client: Client,
    attempt: Attempt,
    until: Option<BootTime>,
    /// Of the queue as it was seen last.
    tag: Option<HeaderValue>,
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
        let until = terms.wait.map(|wait| attempt.began + wait);
        let soon = attempt.began + client.transport.timeout;
        let retry_until = Some(until.unwrap_or(soon));
        let state = match attempt.ask(Duration::ZERO, retry_until).await? {
            Standing::Held(guard) => Queued::Granted(guard),
            Standing::Waiting(position) => Queued::Waiting {
                position,
                told: false,
            },
        };
        Ok(Place {
            client: client.clone(),
            attempt,
            until,
            tag: None,
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
            let moved = moved(
                self.client.clone(),
                (self.attempt.name.clone(), self.attempt.ticket.clone()),
                &mut self.tag,
                known,
            );
            // A request for the lock stays open beside the look at the queue: the place is near, and the grant is seen
            // at once.
            let standing = tokio::select! {
                biased;
                standing = self.attempt.ask(left, self.until) => standing,
                position = moved => Ok(Standing::Waiting(position)),
            };
            match standing {
                Ok(Standing::Waiting(position)) => {
                    self.state = Queued::Waiting {
                        position,
                        told: position == known,
                    };
                }
                Ok(Standing::Held(guard)) => self.state = Queued::Granted(guard),
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
            Queued::Waiting { position, .. } => self.attempt.wait(Some(position), self.until).await,
        }
    }
}

/// Resolves with the position of a ticket once that is another than the known one. Waits at the server for a change of
/// the queue; a look that fails is made again, since the request for the lock tells what is wrong.
async fn moved(
    client: Client,
    (name, ticket): (String, Option<String>),
    tag: &mut Option<HeaderValue>,
    known: u64,
) -> u64 {
    loop {
        let look = client.look(&name, ticket.as_deref(), tag.clone()).await;
        let waited = client.transport.wait_slice() > Duration::ZERO;
        match look {
            Ok(seen) if seen.position.is_some_and(|position| position != known) => {
                *tag = seen.tag;
                return seen.position.unwrap_or(known);
            }
            Ok(seen) if waited && seen.tag.is_some() => *tag = seen.tag,
            // Nobody would wait at the server, so it is done here.
            Ok(_) | Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("name", &self.attempt.name)
            .finish_non_exhaustive()
    }
}
