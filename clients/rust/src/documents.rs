//! JSON documents, with and without a lock.

use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::error::Error;
use crate::names;
use crate::ticket::{self, Ticket};
use crate::transport::{Answer, Request, Transport};

impl Client {
    /// The document at a selector of a resource, whoever holds its lock; `None` where nothing was ever written.
    ///
    /// # Errors
    /// [`Error::Refused`], e.g. with code `resource_unknown`.
    pub async fn read<T: DeserializeOwned>(
        &self,
        name: &str,
        selector: &str,
    ) -> Result<Option<T>, Error> {
        let request = read_request(&self.transport, name, selector)?;
        document(&self.transport.send(&request).await?, name, selector)
    }

    /// Writes a document while nobody holds the lock of its resource; under a lock see [`Guard::write`](crate::Guard::write).
    ///
    /// # Errors
    /// [`Error::Refused`], with code `locked` where somebody holds it.
    pub async fn write<T: Serialize + ?Sized>(
        &self,
        name: &str,
        selector: &str,
        value: &T,
    ) -> Result<(), Error> {
        let request = write_request(&self.transport, name, selector, value)?;
        self.transport.send(&request).await?.check()
    }

    /// Writes a document under the lock of a ticket.
    ///
    /// # Errors
    /// [`Error::Lost`]: the ticket does not hold it any more, and nothing was written.
    pub async fn write_with<T: Serialize + ?Sized>(
        &self,
        ticket: &Ticket,
        selector: &str,
        value: &T,
    ) -> Result<(), Error> {
        let mut request = write_request(&self.transport, &ticket.name, selector, value)?;
        request.ticket = Some(ticket.ticket.clone());
        let answer = self.transport.send(&request).await?;
        answer.check_ticket(&ticket.name)?;
        answer.check()
    }

    /// Releases the lock of a ticket; one that was released already is released.
    ///
    /// # Errors
    /// [`Error::Lost`]: it had ended otherwise.
    pub async fn unlock(&self, ticket: &Ticket) -> Result<(), Error> {
        ticket::unlock(&self.transport, &ticket.name, &ticket.ticket).await
    }
}

pub(crate) fn read_request(
    transport: &Transport,
    name: &str,
    selector: &str,
) -> Result<Request, Error> {
    let path = names::document(name, selector)?;
    Ok(transport.request(Method::GET, format!("{path}?lock=0&raw=1")))
}

pub(crate) fn document<T: DeserializeOwned>(
    answer: &Answer,
    name: &str,
    selector: &str,
) -> Result<Option<T>, Error> {
    if answer.status == 404 && answer.code() == "selector_unknown" {
        return Ok(None);
    }
    answer.check()?;
    let document = serde_json::from_slice(&answer.body);
    document
        .map(Some)
        .map_err(|error| Error::not_understood(format!("{selector:?} of {name:?}"), error))
}

pub(crate) fn write_request<T: Serialize + ?Sized>(
    transport: &Transport,
    name: &str,
    selector: &str,
    value: &T,
) -> Result<Request, Error> {
    let mut request = transport.request(Method::PUT, names::document(name, selector)?);
    let text = serde_json::to_string(value);
    request.body = Some(text.map_err(|error| Error::not_understood("the value to write", error))?);
    Ok(request)
}
