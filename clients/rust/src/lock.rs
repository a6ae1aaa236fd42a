//! What a lock is asked for with, and the ways to ask.

use std::sync::Arc;
use std::time::Duration;

use crate::attempt::{Attempt, Standing};
use crate::client::Client;
use crate::clock::BootTime;
use crate::error::Error;
use crate::guard::Guard;
use crate::place::Place;

/// A lease without a ttl of its own lasts this long after its last renewal.
const TTL: Duration = Duration::from_secs(30);
/// The longest ttl that the server takes.
const TTL_MAX: Duration = Duration::from_secs(2_147_483_647);
/// Longer than this before its end no lease counts as lost unless that is asked for.
const MARGIN_MAX: Duration = Duration::from_secs(1);

/// What a lock is asked for with.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) owner: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) ttl: Duration,
    /// `None`: for ever.
    pub(crate) wait: Option<Duration>,
    pub(crate) shared: bool,
    pub(crate) create: bool,
    pub(crate) margin: Option<Duration>,
}

impl Terms {
    pub(crate) fn new(owner: Option<String>) -> Terms {
        Terms {
            owner,
            reason: None,
            ttl: TTL,
            wait: None,
            shared: false,
            create: false,
            margin: None,
        }
    }

    pub(crate) fn margin(&self) -> Duration {
        self.margin.unwrap_or_else(|| default_margin(self.ttl))
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.ttl.is_zero() || self.ttl > TTL_MAX {
            let why = "the ttl must be more than 0 and at most 2147483647 seconds";
            return Err(Error::Invalid(why.into()));
        }
        if self.margin() >= self.ttl / 2 {
            return Err(Error::Invalid(
                "the margin must be less than half of the ttl".into(),
            ));
        }
        Ok(())
    }

    /// The body of a lock request.
    pub(crate) fn body(&self) -> String {
        let mut body = serde_json::json!({"ttl": crate::names::seconds(self.ttl)});
        for (field, text) in [("owner", &self.owner), ("reason", &self.reason)] {
            if let Some(text) = text {
                body[field] = text.as_str().into();
            }
        }
        if self.shared {
            body["mode"] = "shared".into();
        }
        body.to_string()
    }
}

pub(crate) fn default_margin(ttl: Duration) -> Duration {
    (ttl / 10).min(MARGIN_MAX)
}

/// The lock of one name; made by [`Client::lock`].
#[derive(Clone)]
#[must_use = "it is not taken before `acquire`"]
pub struct Lock {
    client: Client,
    name: String,
    terms: Terms,
}

/// The setters that [`Lock`] and [`LockAll`](crate::LockAll) share.
macro_rules! terms {
    ($name:ident) => {
        impl $name {
            /// How long the lock outlives its last renewal (30 s). It is renewed each third of it.
            pub fn ttl(mut self, ttl: std::time::Duration) -> $name {
                self.terms.ttl = ttl;
                self
            }

            /// How long to wait for it. Not set: for ever, once the server has been reached.
            pub fn wait(mut self, wait: std::time::Duration) -> $name {
                self.terms.wait = Some(wait);
                self
            }

            /// Who we are, instead of the client's owner.
            pub fn owner(mut self, owner: impl Into<String>) -> $name {
                self.terms.owner = Some(owner.into());
                self
            }

            /// What it is taken for, for people: 1 to 255 characters.
            pub fn reason(mut self, reason: impl Into<String>) -> $name {
                self.terms.reason = Some(reason.into());
                self
            }

            /// Shares it with all others who do; an exclusive holder stands alone.
            pub fn shared(mut self) -> $name {
                self.terms.shared = true;
                self
            }

            /// Makes the name for as long as somebody holds it or waits, where it does not exist.
            pub fn create(mut self, create: bool) -> $name {
                self.terms.create = create;
                self
            }

            /// How long before the lease can end it counts as lost (a tenth of the ttl, at most 1 s): as long as it
            /// takes to stop what is done under it. Less than half of the ttl.
            pub fn margin(mut self, margin: std::time::Duration) -> $name {
                self.terms.margin = Some(margin);
                self
            }
        }
    };
}
pub(crate) use terms;

terms!(Lock);

impl Lock {
    pub(crate) fn new(client: Client, name: String, terms: Terms) -> Lock {
        Lock {
            client,
            name,
            terms,
        }
    }

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
        match attempt.ask_once().await? {
            Standing::Held(guard) => Ok(Some(guard)),
            Standing::Waiting(_) | Standing::Taken => Ok(None),
        }
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
    outcome: Result<T, crate::Lost>,
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
    let until = terms.wait.map(|wait| attempt.began() + wait);
    wait_for(attempt, client, None, until).await
}

/// Waits in the queue until `until`, then leaves it.
pub(crate) async fn wait_for(
    mut attempt: Attempt,
    client: &Client,
    mut position: Option<u64>,
    until: Option<BootTime>,
) -> Result<Guard, Error> {
    loop {
        let left = until.map_or(Duration::MAX, BootTime::remaining);
        // A server that was never reached is perhaps none.
        let patience = BootTime::now() + client.transport.timeout;
        let retry_until = until.or(position.is_none().then_some(patience));
        match attempt.ask(left, retry_until).await? {
            Standing::Held(guard) => return Ok(guard),
            Standing::Waiting(place) => position = Some(place),
            Standing::Taken => {}
        }
        if until.is_some_and(BootTime::has_passed) {
            let name = attempt.name().to_owned();
            attempt.leave().await;
            let known = client.describe(&name).await.ok().flatten();
            let holder = known.and_then(|resource| resource.holder).map(Box::new);
            return Err(Error::NotObtained {
                name,
                holder,
                position,
            });
        }
    }
}
