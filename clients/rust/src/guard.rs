//! What a holder has in hand.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

use crate::client::Client;
use crate::clock::BootTime;
use crate::documents;
use crate::error::{Error, LossReason, Lost};
use crate::lease::Lease;
use crate::renewal;
use crate::terms::default_margin;
use crate::ticket::{Ticket, unlock};
use crate::transport::{Answer, Transport, X_TICKET};

/// A lock that is held, and renewed in the background until it is released or lost.
///
/// Dropped, it is released in the background as well as that goes: on a runtime that ends just then it is not, and
/// the lock stays taken until its ttl has passed. [`Guard::release`] waits for the answer, and [`Client::given_back`] for
/// whatever was dropped.
#[must_use = "a guard that is dropped at once is a lock that is released at once"]
pub struct Guard {
    client: Client,
    lease: Arc<Lease>,
    runtime: Handle,
    waited: Duration,
    /// Is the lock still to be given back?
    held: AtomicBool,
}

impl Guard {
    /// Must be called on a runtime.
    pub(crate) fn new(client: &Client, lease: Arc<Lease>, waited: Duration) -> Guard {
        client.renewals.add(&client.transport, &lease);
        Guard {
            client: client.clone(),
            lease,
            runtime: Handle::current(),
            waited,
            held: AtomicBool::new(true),
        }
    }

    /// Takes up a lock again that another process, or this one, left with [`Guard::into_ticket`]. Renews it.
    ///
    /// # Errors
    /// [`Error::Lost`]: it ended meanwhile.
    pub async fn resume(client: &Client, ticket: Ticket) -> Result<Guard, Error> {
        let began = BootTime::now();
        let times = (ticket.ttl, default_margin(ticket.ttl));
        let lease = renewal::begin(&client.transport, (ticket.name, ticket.ticket), times).await?;
        lease.check()?;
        Ok(Guard::new(client, Arc::new(lease), began.elapsed()))
    }

    /// Leaves the lock as it is, no longer renewed: [`Guard::resume`] has to take it up before its ttl has passed.
    pub fn into_ticket(self) -> Ticket {
        self.held.store(false, Ordering::Relaxed);
        self.lease.end(LossReason::Released);
        self.ticket()
    }

    /// The lock's ticket, for a process that works under this lock while we go on renewing it.
    pub fn ticket(&self) -> Ticket {
        Ticket {
            name: self.lease.name.clone(),
            ticket: self.lease.ticket.clone(),
            fencing_token: self.lease.fencing_token,
            ttl: self.lease.ttl,
        }
    }

    /// The resource that is locked.
    pub fn name(&self) -> &str {
        &self.lease.name
    }

    /// How long it took to get the lock.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Asks the clock whether the lock is certainly still ours. Costs nothing; ask before each step that matters.
    ///
    /// # Errors
    /// It is lost, for good.
    pub fn check(&self) -> Result<(), Lost> {
        self.lease.check()
    }

    /// A number that grows with every grant of this name. Hand it to whatever the lock protects, and let that refuse a
    /// lower one than it has seen.
    ///
    /// # Errors
    /// The lock is lost.
    pub fn fencing_token(&self) -> Result<u64, Lost> {
        self.check()?;
        Ok(self.lease.fencing_token)
    }

    /// Nobody else can hold the lock before this moment. `None`: the lease does not expire.
    pub fn deadline(&self) -> Option<BootTime> {
        self.lease.deadline()
    }

    /// Resolves when the lock is lost: at once when the server says so, and without an answer at the
    /// [`deadline`](Guard::deadline) less the [margin](crate::Lock::margin), before the lease can end.
    pub async fn lost(&self) -> Lost {
        self.lease.until_lost().await
    }

    /// Resolves with the new [`deadline`](Guard::deadline) when the lock has been renewed.
    ///
    /// # Errors
    /// The lock is lost.
    pub async fn renewed(&self) -> Result<Option<BootTime>, Lost> {
        let mut changes = self.lease.watch();
        let known = changes.borrow_and_update().renewals;
        let renewed = changes.wait_for(|state| state.renewals > known);
        tokio::select! {
            lost = self.lease.until_lost() => Err(lost),
            state = renewed => {
                let deadline = state.map(|state| state.deadline);
                deadline.map_err(|_| self.lease.lost(LossReason::Released))
            }
        }
    }

    /// The document at a selector of this resource; `None` where nothing was ever written.
    ///
    /// # Errors
    /// [`Error::Lost`]: the server does not take us for the holder any more.
    pub async fn read<T: DeserializeOwned>(&self, selector: &str) -> Result<Option<T>, Error> {
        self.check()?;
        let mut request = documents::read_request(&self.client.transport, self.name(), selector)?;
        request.ticket = Some(self.lease.ticket.clone());
        let answer = self.client.transport.send(&request).await?;
        self.note_loss(&answer)?;
        let document = documents::document(&answer, self.name(), selector)?;
        // A read is answered to everybody; the ticket comes back only while it lives.
        if document.is_some() && !answer.headers.contains_key(X_TICKET) {
            self.renew().await?;
        }
        self.check()?;
        Ok(document)
    }

    /// Writes the document at a selector of this resource. The server refuses it from a holder that lost the lock.
    ///
    /// # Errors
    /// [`Error::Lost`]: nothing was written.
    pub async fn write<T: Serialize + ?Sized>(
        &self,
        selector: &str,
        value: &T,
    ) -> Result<(), Error> {
        self.check()?;
        let transport = &self.client.transport;
        let mut request = documents::write_request(transport, self.name(), selector, value)?;
        request.ticket = Some(self.lease.ticket.clone());
        let answer = transport.send(&request).await?;
        self.note_loss(&answer)?;
        answer.check()
    }

    /// Renews it now. This happens by itself; here for those who want to know.
    ///
    /// # Errors
    /// [`Error::Lost`]: it has ended.
    pub async fn renew(&self) -> Result<(), Error> {
        self.check()?;
        let transport = &self.client.transport;
        let request = renewal::request(transport, self.name(), &self.lease.ticket, self.lease.ttl)?;
        let answer = transport.send(&request).await?;
        self.note_loss(&answer)?;
        renewal::take(&self.lease, &answer)
    }

    /// Gives the lock back, and waits until the server says so.
    ///
    /// # Errors
    /// [`Error::Lost`]: it was lost before this, and somebody else may have held it meanwhile.
    /// [`Error::Unreachable`]: it was held to the end, and is released at its ttl.
    pub async fn release(self) -> Result<(), Error> {
        self.release_shared().await
    }

    /// As [`Guard::release`], for a guard that others still look at.
    pub(crate) async fn release_shared(&self) -> Result<(), Error> {
        let result = release(&self.client.transport, &self.lease).await;
        // Dropped before it was answered, it is tried once more in the background.
        self.held.store(false, Ordering::Relaxed);
        result
    }

    fn note_loss(&self, answer: &Answer) -> Result<(), Lost> {
        let alive = answer.check_ticket(self.name());
        alive.inspect_err(|lost| self.lease.end(lost.reason.clone()))
    }

    /// A token that is cancelled when the lock is lost, or released.
    #[cfg(feature = "tokio-util")]
    pub fn cancellation_token(&self) -> tokio_util::sync::CancellationToken {
        let token = tokio_util::sync::CancellationToken::new();
        let (cancelled, lease) = (token.clone(), Arc::clone(&self.lease));
        self.runtime.spawn(async move {
            lease.until_lost().await;
            cancelled.cancel();
        });
        token
    }
}

/// Ends the lease here, then at the server.
async fn release(transport: &Transport, lease: &Lease) -> Result<(), Error> {
    let before = lease.check();
    lease.end(LossReason::Released);
    let released = unlock(transport, &lease.name, &lease.ticket).await;
    before?;
    released
}

impl Drop for Guard {
    fn drop(&mut self) {
        if *self.held.get_mut() {
            let (client, lease) = (self.client.clone(), Arc::clone(&self.lease));
            // At once, so that nothing is done under it any more.
            lease.end(LossReason::Released);
            let background = Arc::clone(&client.background);
            background.spawn(&self.runtime, async move {
                let _ = unlock(&client.transport, &lease.name, &lease.ticket).await;
            });
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("name", &self.lease.name)
            .finish_non_exhaustive()
    }
}
