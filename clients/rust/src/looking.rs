//! What can be seen without a lock, and clearing up. Times are RFC 3339 in UTC, as the server tells them; no lease is
//! to be counted from them.

use std::collections::VecDeque;
use std::time::Duration;

use reqwest::header::{ETAG, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::client::Client;
use crate::error::Error;
use crate::holder::{Forced, Holder};
use crate::names;
use crate::transport::Request;

/// How many resources one request lists.
const PAGE: usize = 1000;

/// A resource as others see it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Resource {
    /// The server's id of it.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The ttl in seconds of leases that bring none; 0: they do not expire.
    pub timeout: u64,
    /// How many may hold it at once.
    pub slots: Option<u64>,
    /// How many seconds nobody gets it after a lease was lost.
    pub lock_delay: Option<u64>,
    /// Does it go by itself when nobody holds it or waits?
    pub ephemeral: Option<bool>,
    /// Is it held, or reserved for a waiter?
    pub locked: bool,
    /// The first of the holders.
    pub holder: Option<Holder>,
    /// All of them.
    pub holders: Vec<Holder>,
    /// How many wait.
    pub waiting: u64,
    /// The first of those who wait, in order.
    pub queue: Vec<Waiter>,
    /// How many documents it has.
    pub selectors: u64,
    /// The server's own JSON of it, also what this version does not know.
    #[serde(skip)]
    pub json: String,
}

/// Someone who waits, as others see it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Waiter {
    /// Names its ticket, for [`Client::remove_waiter`].
    pub id: Option<String>,
    /// 1 is next.
    pub position: u64,
    /// Who it says it is.
    pub owner: Option<String>,
    /// What it waits for.
    pub reason: Option<String>,
    /// `exclusive` or `shared`.
    pub mode: Option<String>,
    /// Since when it waits.
    pub waiting_since: Option<String>,
    /// When it was heard of last.
    pub last_seen_at: Option<String>,
    /// Would it be granted the lock now?
    pub near: Option<bool>,
    /// Its address.
    pub client: Option<String>,
}

/// A lease that has ended.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct PastLease {
    /// Who it said it was.
    pub owner: Option<String>,
    /// What it was held for.
    pub reason: Option<String>,
    /// `exclusive` or `shared`.
    pub mode: Option<String>,
    /// Its token.
    pub fencing_token: u64,
    /// When it began.
    pub acquired_at: Option<String>,
    /// When it ended.
    pub ended_at: Option<String>,
    /// `released`, `expired`, `forced_off` or `deleted`.
    pub end: String,
    /// By whom it was forced off, and why.
    pub forced: Option<Forced>,
    /// How long it was waited for, in milliseconds.
    pub queued_ms: Option<u64>,
    /// How long it was held, in milliseconds.
    pub held_ms: Option<u64>,
    /// The server's own JSON of it, also what this version does not know.
    #[serde(skip)]
    pub json: String,
}

/// What [`Client::force_unlock`] or [`Client::remove_waiter`] did.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct ForcedOff {
    /// False: nobody held it, or the waiter had been removed before.
    pub forced: bool,
    /// The token of the lease that ended.
    pub fencing_token: Option<u64>,
    /// The tokens of all that ended.
    pub fencing_tokens: Option<Vec<u64>>,
    /// The waiter that was to be removed.
    pub waiter: Option<String>,
    /// The server's own JSON of it, also what this version does not know.
    #[serde(skip)]
    pub json: String,
}

/// The resources of a prefix, page by page; made by [`Client::list`].
#[must_use = "nothing is asked before `next`"]
pub struct Listing {
    client: Client,
    prefix: String,
    after: Option<String>,
    page: VecDeque<Box<RawValue>>,
    over: bool,
}

#[derive(Deserialize)]
struct Page {
    resources: VecDeque<Box<RawValue>>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct History {
    leases: Vec<Box<RawValue>>,
}

/// What a waiting ticket sees of its queue.
pub(crate) struct QueueLook {
    /// `None`: the server gives none.
    pub(crate) tag: Option<HeaderValue>,
    /// `None`: the queue has not changed, or the ticket does not wait.
    pub(crate) position: Option<u64>,
}

/// Reads a part of an answer.
fn read<T: DeserializeOwned>(json: &RawValue) -> Result<T, Error> {
    serde_json::from_str(json.get())
        .map_err(|error| Error::not_understood("the server's answer", error))
}

impl Resource {
    fn told(json: &RawValue) -> Result<Resource, Error> {
        Ok(Resource {
            json: json.get().to_owned(),
            ..read(json)?
        })
    }
}

impl PastLease {
    fn told(json: &RawValue) -> Result<PastLease, Error> {
        Ok(PastLease {
            json: json.get().to_owned(),
            ..read(json)?
        })
    }
}

impl Client {
    /// Looks where a ticket stands: at once, or once the queue is another than that of the tag; at the end of the
    /// server's patience at the latest.
    pub(crate) async fn look(
        &self,
        name: &str,
        ticket: Option<&str>,
        tag: Option<HeaderValue>,
    ) -> Result<QueueLook, Error> {
        loop {
            let asked = match &tag {
                Some(_) => self.transport.wait_slice(),
                None => Duration::ZERO,
            };
            let path = format!(
                "{}?queue=0&wait={}",
                names::resource(name)?,
                names::seconds(asked)
            );
            let mut request = self.transport.request(Method::GET, path);
            request.ticket = ticket.map(str::to_owned);
            request.if_none_match = tag.clone();
            request.answer_within += asked;
            request.grace += asked;
            let answer = self.transport.send(&request).await?;
            if self.transport.learn_wait(asked, &answer) {
                continue;
            }
            let unchanged = answer.status == StatusCode::NOT_MODIFIED;
            let position = match unchanged {
                true => None,
                false => answer.read::<serde_json::Value>()?["you"]["position"].as_u64(),
            };
            return Ok(QueueLook {
                tag: answer.headers.get(ETAG).cloned(),
                position,
            });
        }
    }

    /// The resource of this name; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Unreachable`].
    pub async fn describe(&self, name: &str) -> Result<Option<Resource>, Error> {
        let request = self.transport.request(Method::GET, names::resource(name)?);
        let answer = self.transport.send(&request).await?;
        if answer.status == 404 && answer.code() == "resource_unknown" {
            return Ok(None);
        }
        Resource::told(&answer.read::<Box<RawValue>>()?).map(Some)
    }

    /// The resources whose names begin with `prefix`, in the order of their names.
    pub fn list(&self, prefix: impl Into<String>) -> Listing {
        let (client, prefix) = (self.clone(), prefix.into());
        Listing {
            client,
            prefix,
            after: None,
            page: VecDeque::new(),
            over: false,
        }
    }

    /// The last leases of a name, newest first.
    ///
    /// # Errors
    /// [`Error::Refused`], e.g. with code `resource_unknown`.
    pub async fn history(&self, name: &str) -> Result<Vec<PastLease>, Error> {
        let path = format!("/history/{}", names::segment(name)?);
        let answer = self
            .transport
            .send(&self.transport.request(Method::GET, path))
            .await?;
        let history: History = answer.read()?;
        let leases = history.leases.iter();
        leases.map(|json| PastLease::told(json)).collect()
    }

    /// Ends the lease with this token, or every lease of the name where none is given. Takes a key with the right ADMIN;
    /// `reason` is told to whoever loses the lock.
    ///
    /// # Errors
    /// [`Error::Refused`] with code `lease_over`: the lease with this token does not hold any more. Is not retried once
    /// it may have arrived: the second would end the lease of whoever came next.
    pub async fn force_unlock(
        &self,
        name: &str,
        reason: &str,
        fencing_token: Option<u64>,
    ) -> Result<ForcedOff, Error> {
        let mut body = serde_json::json!({"reason": reason});
        if let Some(token) = fencing_token {
            body["fencingToken"] = token.into();
        }
        self.force(name, &body).await
    }

    /// Ends the wait of one ticket, which [`Waiter::id`] names. Takes a key with the right ADMIN; `reason` is told to
    /// whoever loses its place.
    ///
    /// # Errors
    /// [`Error::Refused`] with code `not_waiting`: it holds the lock by now, or left the queue.
    pub async fn remove_waiter(
        &self,
        name: &str,
        reason: &str,
        waiter: &str,
    ) -> Result<ForcedOff, Error> {
        let body = serde_json::json!({"reason": reason, "waiter": waiter});
        self.force(name, &body).await
    }

    async fn force(&self, name: &str, body: &serde_json::Value) -> Result<ForcedOff, Error> {
        let path = format!("{}/force-unlock", names::resource(name)?);
        let mut request = self.transport.request(Method::POST, path);
        request.body = Some(body.to_string());
        request.repeatable = false;
        let json: Box<RawValue> = self.transport.send(&request).await?.read()?;
        Ok(ForcedOff {
            json: json.get().to_owned(),
            ..read(&json)?
        })
    }
}

impl Listing {
    /// The next resource; `None` after the last.
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Unreachable`]; asked again, it goes on where it was.
    pub async fn next(&mut self) -> Result<Option<Resource>, Error> {
        while self.page.is_empty() && !self.over {
            let answer = self.client.transport.send(&self.request()).await?;
            let page: Page = answer.read()?;
            self.over = page.next.is_none();
            (self.page, self.after) = (page.resources, page.next);
        }
        let next = self.page.pop_front();
        next.map(|json| Resource::told(&json)).transpose()
    }

    /// All that are left, in one.
    ///
    /// # Errors
    /// As [`Listing::next`].
    pub async fn collect(mut self) -> Result<Vec<Resource>, Error> {
        let mut all = Vec::new();
        while let Some(resource) = self.next().await? {
            all.push(resource);
        }
        Ok(all)
    }

    fn request(&self) -> Request {
        let mut path = format!(
            "/resource?limit={PAGE}&prefix={}",
            names::escaped(&self.prefix)
        );
        if let Some(after) = &self.after {
            path += &format!("&after={}", names::escaped(after));
        }
        self.client.transport.request(Method::GET, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_a_resource_is_what_the_server_sent() {
        let text = r#"{"name": "a", "holder": null, "new": [1, 2]}"#;
        let json: Box<RawValue> = serde_json::from_str(text).unwrap();
        let resource = Resource::told(&json).unwrap();
        assert_eq!((&*resource.name, &*resource.json), ("a", text));
    }
}
