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
use crate::renewal::{self, Renewed};
use crate::terms::Terms;
use crate::ticket::unlock;
use crate::transport::{Answer, Request};

/// How soon is asked again where the server would not let a request wait.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A name that is asked for. Dropped before it has the lock, it leaves the queue in the background.
pub(crate) struct Attempt {
    client: Client,
    name: String,
    terms: Terms,
    /// The same with every request of this attempt, so that a repeated one finds the same place.
    idempotency_key: String,
    ticket: Option<String>,
    /// A request is out, or was, that may have reached a server and left something behind there.
    open: Arc<AtomicBool>,
    runtime: Handle,
    began: BootTime,
}

/// What asking once came to.
pub(crate) enum Standing {
    Held(Guard),
    /// In the queue; 1 is next.
    Waiting(u64),
    /// Not in the queue, as it was asked for.
    Taken,
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

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What the queue knows it by.
    pub(crate) fn ticketed(&self) -> (String, Option<String>) {
        (self.name.clone(), self.ticket.clone())
    }

    /// Since when it is asked for.
    pub(crate) fn began(&self) -> BootTime {
        self.began
    }

    /// Asks for the lock, and waits in the queue for it for up to `wait`, which is one request's.
    pub(crate) async fn ask(
        &mut self,
        wait: Duration,
        until: Option<BootTime>,
    ) -> Result<Standing, Error> {
        let asked = wait.min(self.client.transport.wait_slice());
        let mut request = self.request(&[("wait", names::seconds(asked).to_string())])?;
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
            let request = self.request(&[("wait", "0".to_owned())])?;
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
                Standing::Taken => {}
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

    /// Asks for the lock without a place in the queue.
    pub(crate) async fn ask_once(&mut self) -> Result<Standing, Error> {
        let request = self.request(&[("queue", "0".to_owned())])?;
        let answer = self.send(request).await?;
        if answer.status == 409 && answer.code() == "locked" {
            self.open.store(false, Ordering::Relaxed);
            return Ok(Standing::Taken);
        }
        self.standing(&answer).await
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

    fn request(&self, query: &[(&str, String)]) -> Result<Request, Error> {
        let mut path = names::action(&self.name, "lock")?;
        let create = self.terms.create.then(|| ("create", "1".to_owned()));
        for (place, (name, value)) in query.iter().chain(create.iter()).enumerate() {
            path += if place == 0 { "?" } else { "&" };
            path += &format!("{name}={value}");
        }
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
        let lease = Lease::new(
            (self.name.clone(), told.ticket, fencing_token),
            (answer.sent, Duration::from_millis(told.waited_ms)),
            Duration::try_from_secs_f64(told.ttl.unwrap_or_default()).unwrap_or_default(),
            (self.terms.ttl, self.terms.margin()),
        );
        self.freshen(&lease).await?;
        self.open.store(false, Ordering::Relaxed);
        let waited = BootTime::now()
            .since_boot()
            .saturating_sub(self.began.since_boot());
        Ok(Standing::Held(Guard::new(
            &self.client,
            Arc::new(lease),
            waited,
        )))
    }

    /// A lease whose answer was long under way is renewed before anybody works under it.
    async fn freshen(&self, lease: &Lease) -> Result<(), Error> {
        let left = lease.lost_at().map_or(Duration::MAX, BootTime::remaining);
        if left > lease.ttl / 2 {
            return Ok(());
        }
        let transport = &self.client.transport;
        let request = renewal::request(transport, &lease.name, &lease.ticket, lease.ttl)?;
        let answer = transport.send(&request).await?;
        match answer.loss() {
            Some(reason) => Err(lease.lost(reason).into()),
            None => {
                let renewed: Renewed = answer.read()?;
                lease.begin(answer.sent, Duration::ZERO, renewed.ttl());
                Ok(())
            }
        }
    }

    /// How the queue is left: with the ticket, or with one that the same key finds where none was told yet.
    fn leaving(&mut self) -> Option<impl Future<Output = ()> + Send + 'static + use<>> {
        if !self.open.swap(false, Ordering::Relaxed) {
            return None;
        }
        let repeat = self.request(&[("wait", "0".to_owned())]).ok();
        let (transport, name) = (Arc::clone(&self.client.transport), self.name.clone());
        let ticket = self.ticket.take();
        Some(async move {
            let ticket = match (ticket, repeat) {
                (Some(ticket), _) => Some(ticket),
                (None, Some(repeat)) => {
                    let answer = transport.send(&repeat).await;
                    let told = answer.and_then(|answer| answer.read::<Granted>());
                    told.ok().map(|told| told.ticket)
                }
                (None, None) => None,
            };
            if let Some(ticket) = ticket {
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
