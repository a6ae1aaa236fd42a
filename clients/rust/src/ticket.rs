//! What a lock is handed on with, and given back.

use std::fmt;
use std::time::Duration;

use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::names;
use crate::transport::{Answer, Transport};

/// A lock on its way to another process: what [`Guard::into_ticket`](crate::Guard::into_ticket) leaves and [`Guard::resume`](crate::Guard::resume) takes up. Whoever has
/// it is the holder, so keep it from others; it is not shown by `{:?}`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Ticket {
    /// The resource.
    pub name: String,
    /// The server's ticket.
    pub ticket: String,
    /// The token of this lease.
    pub fencing_token: u64,
    /// What the lease lasts without a renewal.
    pub ttl: Duration,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Gives back a ticket, whether it holds or waits.
pub(crate) async fn unlock(
    transport: &Transport,
    name: &str,
    ticket: &str,
) -> Result<Answer, Error> {
    let mut request = transport.request(Method::PUT, names::action(name, "unlock")?);
    request.ticket = Some(ticket.to_owned());
    transport.send(&request).await
}
