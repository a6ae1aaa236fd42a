//! What a lock is handed on with, and given back.

use std::fmt;
use std::time::Duration;

use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::error::{Error, LossReason};
use crate::names;
use crate::transport::Transport;

/// A lock on its way to another process: what [`Guard::into_ticket`] leaves and [`Guard::resume`] takes up. Whoever has
/// it is the holder, so keep it from others; it is not shown by `{:?}`.
///
/// [`Guard::into_ticket`]: crate::Guard::into_ticket
/// [`Guard::resume`]: crate::Guard::resume
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
///
/// # Errors
/// [`Error::Lost`]: it had ended otherwise.
pub(crate) async fn unlock(transport: &Transport, name: &str, ticket: &str) -> Result<(), Error> {
    let mut request = transport.request(Method::PUT, names::action(name, "unlock")?);
    request.ticket = Some(ticket.to_owned());
    let answer = transport.send(&request).await?;
    // A name that was made for its lock went with it, when this was first asked.
    if answer.repeated && answer.loss() == Some(LossReason::Deleted) {
        return Ok(());
    }
    answer.check_ticket(name)?;
    answer.check()
}
