//! The lock of one name, and the ways to ask for it.

use std::sync::Arc;

use crate::attempt::Attempt;
use crate::client::Client;
use crate::error::{Error, Lost};
use crate::guard::Guard;
use crate::place::Place;
use crate::terms::{Terms, terms};

/// The lock of one name; made by [`Client::lock`].
#[derive(Clone)]
#[must_use = "it is not taken before `acquire`"]
pub struct Lock {
    client: Client,
    name: String,
    terms: Terms,
}

terms!(Lock);

impl Client {
    /// The lock of a name, to be taken with [`Lock::acquire`].
    pub fn lock(&self, name: impl Into<String>) -> Lock {
        Lock {
            client: self.clone(),
            name: name.into(),
            terms: Terms::new(self.owner.clone()),
        }
    }
}

impl Lock {
    /// Waits in the queue until the lock is ours. Dropped before that, the future leaves the queue.
    ///
    /// # Errors
    /// [`Error::NotObtained`] when the wait is over; [`Error::Refused`], e.g. with code `resource_unknown` for a name that
    /// does not exist and is not to be created.
    pub async fn acquire(&self) -> Result<Guard, Error> {
        acquire(&self.client, &self.name, &self.terms).await
    }

    /// Takes the lock if nobody has it, without a place in the queue.
    ///
    /// # Errors
    /// As [`Lock::acquire`], but a lock that somebody has is `None`.
    pub async fn try_acquire(&self) -> Result<Option<Guard>, Error> {
        let mut attempt = Attempt::new(&self.client, &self.name, &self.terms)?;
        attempt.ask_once().await
    }

    /// Runs `work` under the lock. When the lock is lost the future of `work` is dropped where it stands; whatever
    /// happens, the lock is released.
    ///
    /// # Errors
    /// As [`Lock::acquire`]; and [`Error::Lost`], also when the loss was noticed only after `work` had ended.
    pub async fn with<F, T>(&self, work: impl FnOnce(Arc<Guard>) -> F) -> Result<T, Error>
    where
        F: Future<Output = T>,
    {
        let guard = Arc::new(self.acquire().await?);
        let outcome = tokio::select! {
            // First: what is ready in the same moment as the loss came too late.
            biased;
            lost = guard.lost() => Err(lost),
            value = work(Arc::clone(&guard)) => Ok(value),
        };
        released(outcome, guard.release_shared().await)
    }

    /// Takes a place in the queue, and comes back at once with it.
    ///
    /// # Errors
    /// As [`Lock::acquire`].
    pub async fn enqueue(&self) -> Result<Place, Error> {
        Place::take(
            Attempt::new(&self.client, &self.name, &self.terms)?,
            &self.client,
            &self.terms,
        )
        .await
    }
}

/// What work under a lock came to, once it has been released.
pub(crate) fn released<T>(
    outcome: Result<T, Lost>,
    release: Result<(), Error>,
) -> Result<T, Error> {
    let value = outcome?;
    match release {
        Err(Error::Lost(lost)) => Err(lost.into()),
        // It was held to the end; who comes next waits for the ttl.
        Ok(()) | Err(_) => Ok(value),
    }
}

pub(crate) async fn acquire(client: &Client, name: &str, terms: &Terms) -> Result<Guard, Error> {
    let attempt = Attempt::new(client, name, terms)?;
    let until = terms.wait.map(|wait| attempt.began + wait);
    attempt.wait(None, until).await
}
