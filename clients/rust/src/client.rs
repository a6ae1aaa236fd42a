//! The client: which servers, which key, who we are.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderValue;

use crate::background::Background;
use crate::error::Error;
use crate::renewal::Renewals;
use crate::tls;
use crate::transport::Transport;

/// How long an answer may take unless [`ClientBuilder::timeout`] says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A client of one lock service. Cheap to clone; clones share connections and the task that renews.
#[derive(Clone)]
pub struct Client {
    pub(crate) transport: Arc<Transport>,
    pub(crate) renewals: Arc<Renewals>,
    pub(crate) background: Arc<Background>,
    pub(crate) owner: Option<String>,
}

/// What a [`Client`] is made of; see [`Client::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct ClientBuilder {
    servers: Vec<String>,
    key: Option<String>,
    owner: Option<String>,
    timeout: Duration,
    authorities: Vec<Vec<u8>>,
}

impl Client {
    /// Begins a client of the server at `url`, e.g. `https://locks:9501`. Nothing is sent before a lock is asked for.
    pub fn builder(url: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            servers: vec![url.into()],
            key: None,
            owner: None,
            timeout: TIMEOUT,
            authorities: Vec::new(),
        }
    }

    /// Resolves when everything that was dropped has been given back, or cannot be: to be waited for before the runtime
    /// ends where guards, places or waits may have been dropped.
    pub async fn given_back(&self) {
        self.background.ended().await;
    }
}

impl ClientBuilder {
    /// Another server of the same service: they are tried in turn.
    pub fn server(mut self, url: impl Into<String>) -> ClientBuilder {
        self.servers.push(url.into());
        self
    }

    /// The key that is sent to the server. Never shown nor logged.
    pub fn key(mut self, key: impl Into<String>) -> ClientBuilder {
        self.key = Some(key.into());
        self
    }

    /// Who we are, for people who look who holds a lock: 1 to 255 characters.
    pub fn owner(mut self, owner: impl Into<String>) -> ClientBuilder {
        self.owner = Some(owner.into());
        self
    }

    /// How long one answer may take besides the wait that it was asked for (10 s), and how long requests that have no
    /// time of their own are retried.
    pub fn timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.timeout = timeout;
        self
    }

    /// An authority to trust for `https` besides those of the machine, as the text of a PEM file.
    pub fn authority(mut self, pem: impl Into<Vec<u8>>) -> ClientBuilder {
        self.authorities.push(pem.into());
        self
    }

    /// Makes the client.
    ///
    /// # Errors
    /// [`Error::Invalid`]: an address, the key or an authority cannot be used.
    pub fn build(self) -> Result<Client, Error> {
        let servers = self.servers.iter().map(|url| address(url));
        let servers = servers.collect::<Result<Vec<_>, _>>()?;
        let key = self.key.as_deref().map(HeaderValue::from_str).transpose();
        let mut key =
            key.map_err(|_| Error::Invalid("the key has characters that cannot be sent".into()))?;
        key.iter_mut().for_each(|key| key.set_sensitive(true));
        let mut authorities = Vec::new();
        if servers.iter().any(|url| url.starts_with("https:")) {
            authorities = tls::machine_authorities();
            for pem in &self.authorities {
                authorities.extend(tls::authorities(pem)?);
            }
        }
        let tls = tls::config(authorities)?;
        let transport = Transport::new(servers, key, tls, self.timeout)?;
        Ok(Client {
            transport: Arc::new(transport),
            renewals: Arc::default(),
            background: Arc::default(),
            owner: self.owner,
        })
    }
}

/// A server's address as requests begin with it.
fn address(url: &str) -> Result<String, Error> {
    let refused =
        |why: String| Error::Invalid(format!("the address {url:?} is not accepted: {why}"));
    let parsed = reqwest::Url::parse(url).map_err(|error| refused(error.to_string()))?;
    match parsed {
        _ if !matches!(parsed.scheme(), "http" | "https") => {
            Err(refused("it is neither http nor https".into()))
        }
        _ if parsed.host().is_none() => Err(refused("it has no host".into())),
        _ if !parsed.username().is_empty() || parsed.password().is_some() => Err(refused(
            "a user in it would not be sent; the key goes with `key`".into(),
        )),
        _ if parsed.query().is_some() || parsed.fragment().is_some() => {
            Err(refused("nothing may follow its path".into()))
        }
        _ => Ok(parsed.as_str().trim_end_matches('/').to_owned()),
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ClientBuilder");
        shown
            .field("servers", &self.servers)
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_scheme_a_host_and_at_most_a_path() {
        assert_eq!(address("http://locks:9501").unwrap(), "http://locks:9501");
        assert_eq!(address("https://locks/api/").unwrap(), "https://locks/api");
        for refused in [
            "locks:9501",
            "locks",
            "ftp://locks",
            "http://a@locks",
            "http://locks?a=1",
            "",
        ] {
            assert!(address(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn neither_key_nor_ticket_is_ever_shown() {
        let builder = Client::builder("http://locks:9501").key("secret");
        assert!(!format!("{builder:?}").contains("secret"));
        assert!(!format!("{:?}", builder.build().unwrap()).contains("secret"));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_at_once() {
        let build = |builder: ClientBuilder| builder.build().unwrap_err().to_string();
        assert!(build(Client::builder("http://a").key("a\nb")).contains("key"));
        assert!(build(Client::builder("https://a").authority("no PEM")).contains("PEM"));
    }
}
