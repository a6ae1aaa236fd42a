//! One attempt to get one lock: its place in the queue, which is given up when the attempt is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use tokio::runtime::Handle;

use crate::client::Client;
use crate::clock::BootTime;
use crate::error::Error;
use crate::guard::Guard;
use crate::lease::Lease;
use crate::names;
use crate::renewal;
use crate::terms::Terms;
use crate::ticket::unlock;
use crate::transport::{Answer, Request};

/// How soon is asked again where the server would not let a request wait.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A name that is asked for. Dropped before it has the lock, it leaves the queue in the background.
pub(crate) struct Attempt {
    client: Client,
    pub(crate) name: String,
    terms: Terms,
    /// The same with every request of this attempt, so that a repeated one finds the same place.
    idempotency_key: String,
    pub(crate) ticket: Option<String>,
    /// A request is out, or was, that may have reached a server and left something behind there.
    open: Arc<AtomicBool>,
    runtime: Handle,
    pub(crate) began: BootTime,
}

/// What asking once came to.
pub(crate) enum Standing {
    Held(Guard),
    /// In the queue; 1 is next.
    Waiting(u64),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Granted {
    locked: bool,
    ticket: String,
    position: Option<u64>,
    fencing_token: Option<u64>,
    /// In seconds.
    ttl: Option<f64>,
    #[serde(default)]
    waited_ms: u64,
}

impl Attempt {
    /// Must be called on a runtime.
    pub(crate) fn new(client: &Client, name: &str, terms: &Terms) -> Result<Attempt, Error> {
        terms.check()?;
        names::segment(name)?;
        Ok(Attempt {
            client: client.clone(),
            name: name.to_owned(),
            terms: terms.clone(),
            idempotency_key: new_key(),
            ticket: None,
            open: Arc::default(),
            runtime: Handle::current(),
            began: BootTime::now(),
        })
    }

    /// Asks for the lock, and waits in the queue for it for up to `wait`, which is one request's.
    pub(crate) async fn ask(
        &mut self,
        wait: Duration,
        until: Option<BootTime>,
    ) -> Result<Standing, Error> {
        let asked = wait.min(self.client.transport.wait_slice());
        let mut request = self.request(&format!("wait={}", names::seconds(asked)))?;
        request.answer_within += asked;
        request.until = until;
        request.grace = self.client.transport.timeout.saturating_add(asked);
        let answer = self.send(request).await?;
        if self.client.transport.learn_wait(asked, &answer) {
            return Box::pin(self.ask(wait, until)).await;
        }
        if answer.status == 403 {
            // The place is gone, or was granted to us while we were cut off and has ended since: a new one.
            self.idempotency_key = new_key();
            self.ticket = None;
            let request = self.request("wait=0")?;
            let answer = self.send(request).await?;
            return self.standing(&answer).await;
        }
        let standing = self.standing(&answer).await?;
        if asked.is_zero() && matches!(standing, Standing::Waiting(_)) {
            // A server that lets nobody wait: often enough to be in the queue's sight.
            tokio::time::sleep(wait.min(ASK_AGAIN)).await;
        }
        Ok(standing)
    }

    /// Waits in the queue until `until`, then leaves it. `position` is the place that is known.
    ///
    /// # Errors
    /// [`Error::NotObtained`] when the wait is over.
    pub(crate) async fn wait(
        mut self,
        mut position: Option<u64>,
        until: Option<BootTime>,
    ) -> Result<Guard, Error> {
        loop {
            let left = until.map_or(Duration::MAX, BootTime::remaining);
            // A server that was never reached is perhaps none.
            let patience = BootTime::now() + self.client.transport.timeout;
            let retry_until = until.or(position.is_none().then_some(patience));
            match self.ask(left, retry_until).await? {
                Standing::Held(guard) => return Ok(guard),
                Standing::Waiting(place) => position = Some(place),
            }
            if until.is_some_and(BootTime::has_passed) {
                let (client, name) = (self.client.clone(), self.name.clone());
                self.leave().await;
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

    /// Asks for the lock without a place in the queue. `None`: somebody has it.
    pub(crate) async fn ask_once(&mut self) -> Result<Option<Guard>, Error> {
        let request = self.request("queue=0")?;
        let answer = self.send(request).await?;
        if answer.status == 409 && answer.code() == "locked" {
            self.open.store(false, Ordering::Relaxed);
            return Ok(None);
        }
        match self.standing(&answer).await? {
            Standing::Held(guard) => Ok(Some(guard)),
            Standing::Waiting(_) => Ok(None),
        }
    }

    /// Leaves the queue. Nothing is left to do when this fails: without a sign of life the place goes by itself.
    pub(crate) async fn leave(mut self) {
        if let Some(leaving) = self.leaving() {
            leaving.await;
        }
    }

    async fn send(&self, mut request: Request) -> Result<Answer, Error> {
        request.open = Arc::clone(&self.open);
        self.client.transport.send(&request).await
    }

    fn request(&self, query: &str) -> Result<Request, Error> {
        let path = names::action(&self.name, "lock")?;
        let create = if self.terms.create { "&create=1" } else { "" };
        let path = format!("{path}?{query}{create}");
        let mut request = self.client.transport.request(Method::PUT, path);
        request.body = Some(self.terms.body());
        request.ticket = self.ticket.clone();
        request.idempotency_key = Some(self.idempotency_key.clone());
        Ok(request)
    }

    async fn standing(&mut self, answer: &Answer) -> Result<Standing, Error> {
        if answer.status.is_client_error() {
            // Refused as it is: nothing of it is at the server, unless it was asked before.
            self.open.store(self.ticket.is_some(), Ordering::Relaxed);
        }
        let told: Granted = answer.read()?;
        self.ticket = Some(told.ticket.clone());
        if !told.locked {
            return Ok(Standing::Waiting(told.position.unwrap_or(1)));
        }
        let fencing_token = told.fencing_token.ok_or_else(|| {
            Error::not_understood("the server's answer", "a grant without a fencing token")
        })?;
        let times = (self.terms.ttl, self.terms.margin());
        let mut lease = Lease::new(
            (self.name.clone(), told.ticket, fencing_token),
            (answer.sent, Duration::from_millis(told.waited_ms)),
            Duration::try_from_secs_f64(told.ttl.unwrap_or_default()).unwrap_or_default(),
            times,
        );
        let left = lease.lost_at().map_or(Duration::MAX, BootTime::remaining);
        if left <= lease.ttl / 2 {
            // The answer was long under way: renewed before anybody works under it.
            let named = (lease.name, lease.ticket);
            lease = renewal::begin(&self.client.transport, named, times).await?;
        }
        self.open.store(false, Ordering::Relaxed);
        let waited = self.began.elapsed();
        let guard = Guard::new(&self.client, Arc::new(lease), waited);
        Ok(Standing::Held(guard))
    }

    /// How the queue is left: with the ticket, or with one that the same key finds where none was told yet.
    fn leaving(&mut self) -> Option<impl Future<Output = ()> + Send + 'static + use<>> {
        if !self.open.swap(false, Ordering::Relaxed) {
            return None;
        }
        let repeat = self.request("wait=0").ok()?;
        let (transport, name) = (Arc::clone(&self.client.transport), self.name.clone());
        let ticket = self.ticket.take();
        Some(async move {
            let ticket = match ticket {
                Some(ticket) => Ok(ticket),
                None => {
                    let answer = transport.send(&repeat).await;
                    let told = answer.and_then(|answer| answer.read::<Granted>());
                    told.map(|told| told.ticket)
                }
            };
            if let Ok(ticket) = ticket {
                let _ = unlock(&transport, &name, &ticket).await;
            }
        })
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(leaving) = self.leaving() {
            self.client.background.spawn(&self.runtime, leaving);
        }
    }
}

fn new_key() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
