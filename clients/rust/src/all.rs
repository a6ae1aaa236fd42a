//! Several locks as one: all or none.

use std::ops::Deref;
use std::sync::Arc;

use futures_util::future::select_all;

use crate::client::Client;
use crate::clock::BootTime;
use crate::error::{Error, Lost};
use crate::guard::Guard;
use crate::lock::{acquire, released};
use crate::terms::{Terms, terms};

/// The locks of several names; made by [`Client::all`].
#[derive(Clone)]
#[must_use = "they are not taken before `acquire`"]
pub struct LockAll {
    client: Client,
    names: Vec<String>,
    terms: Terms,
}

terms!(LockAll);

/// The guards of several locks, in the order in which they were taken. Dropped, all are released in the background.
#[derive(Debug, Default)]
#[must_use = "guards that are dropped at once are locks that are released at once"]
pub struct Guards(Vec<Guard>);

impl Client {
    /// The locks of several names: all or none, taken in the order of their bytes, so that two who want the same
    /// ones never wait for each other.
    pub fn all<N: Into<String>>(&self, names: impl IntoIterator<Item = N>) -> LockAll {
        let mut names: Vec<String> = names.into_iter().map(Into::into).collect();
        names.sort_unstable();
        LockAll {
            client: self.clone(),
            names,
            terms: Terms::new(self.owner.clone()),
        }
    }
}

impl LockAll {
    /// Takes them one after the other, within one wait for all. Those that were taken are released when one is not
    /// obtained, or lost while the others are waited for.
    ///
    /// # Errors
    /// As [`Lock::acquire`](crate::Lock::acquire). [`Error::Invalid`]: no name, or one twice.
    pub async fn acquire(&self) -> Result<Guards, Error> {
        if self.names.is_empty() {
            return Err(Error::Invalid("no name was given".into()));
        }
        if let Some(twice) = self.names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::Invalid(format!(
                "the name {:?} was given twice",
                twice[0]
            )));
        }
        let until = self.terms.wait.map(|wait| BootTime::now() + wait);
        let mut guards = Guards(Vec::new());
        for name in &self.names {
            let mut terms = self.terms.clone();
            terms.wait = until.map(BootTime::remaining);
            let next = acquire(&self.client, name, &terms);
            let taken = tokio::select! {
                lost = guards.lost() => Err(lost.into()),
                taken = next => taken,
            };
            match taken {
                Ok(guard) => guards.0.push(guard),
                Err(error) => {
                    let _ = guards.release().await;
                    return Err(error);
                }
            }
        }
        Ok(guards)
    }

    /// Runs `work` under all of them, as [`Lock::with`](crate::Lock::with) does under one.
    ///
    /// # Errors
    /// As [`LockAll::acquire`]; and [`Error::Lost`] as soon as one of them is lost.
    pub async fn with<F, T>(&self, work: impl FnOnce(Arc<Guards>) -> F) -> Result<T, Error>
    where
        F: Future<Output = T>,
    {
        let guards = Arc::new(self.acquire().await?);
        let outcome = tokio::select! {
            biased;
            lost = guards.lost() => Err(lost),
            value = work(Arc::clone(&guards)) => Ok(value),
        };
        released(outcome, guards.release_in_turn().await)
    }
}

impl Guards {
    /// Resolves when the first of them is lost.
    pub async fn lost(&self) -> Lost {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        select_all(self.0.iter().map(|guard| Box::pin(guard.lost())))
            .await
            .0
    }

    /// Are all of them certainly still ours?
    ///
    /// # Errors
    /// One is lost.
    pub fn check(&self) -> Result<(), Lost> {
        self.0.iter().try_for_each(Guard::check)
    }

    /// Gives them back in reverse, and waits until the server says so.
    ///
    /// # Errors
    /// The first that there was; the others are released all the same.
    pub async fn release(self) -> Result<(), Error> {
        self.release_in_turn().await
    }

    /// Adds one, to be released before those that are there.
    pub fn push(&mut self, guard: Guard) {
        self.0.push(guard);
    }

    /// Each guard by itself.
    pub fn into_vec(self) -> Vec<Guard> {
        self.0
    }

    async fn release_in_turn(&self) -> Result<(), Error> {
        let mut result = Ok(());
        for guard in self.0.iter().rev() {
            result = result.and(guard.release_shared().await);
        }
        result
    }
}

impl Deref for Guards {
    type Target = [Guard];

    fn deref(&self) -> &[Guard] {
        &self.0
    }
}
