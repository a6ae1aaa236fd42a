//! A request, and what is known of it from the first: who asks, with which key, for what.
//!
//! Its query is taken apart in `query`, its conditional headers in `conditions`, its body in `body`.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix_web::HttpRequest;

use super::auth::{KnownKey, Right, identify};
use super::client;
use super::connection::ConnectionState;
use super::errors::ApiError;
use super::headers::{IDEMPOTENCY_KEY, X_API_KEY, X_REQUEST_ID, X_TICKET};
use super::paths::{self, Route, Segments, decode_strictly};
use super::query::Query;
use super::worker::Worker;
use crate::lock::{IdempotencyKey, KeyName, PresentedTicket, ResourceName, Selector, Ticket};
use crate::resource::messages::{Op, Reply};
use crate::shared::caller::{Caller, RequestTag};

/// One request without its body. What is found out here is found out once, for all that want to know.
pub struct Request {
    /// As the framework read it.
    pub http: HttpRequest,
    pub worker: Rc<Worker>,
    pub began: Instant,
    pub caller: Arc<Caller>,
    /// `None`: there is nothing at its path.
    pub route: Option<Route>,
    /// The key that it presents, if it is one of those in force.
    pub key: Option<KnownKey>,
    /// `None`: it did not come through a connection of ours.
    pub connection: Option<Rc<ConnectionState>>,
}

impl Request {
    /// Notes what is known of a request.
    pub fn begin(http: HttpRequest, worker: &Rc<Worker>) -> Request {
        let began = Instant::now();
        let policy = worker.policy.load();
        let presented = http.headers().get(&X_API_KEY);
        let key = presented.and_then(|key| identify(&policy.keys, key.as_bytes()));
        let address = http.peer_addr().map(|peer| {
            let trusted = &policy.trusted_proxies;
            client::address(peer.ip(), http.headers(), trusted)
        });
        let given = http.headers().get(&X_REQUEST_ID);
        let given = given.and_then(|value| RequestTag::parse(value.as_bytes()));
        let caller = Caller {
            address,
            tag: given.unwrap_or_else(|| worker.new_tag()),
            key: key.as_ref().map(|key| key.name.clone()),
            relayed: None,
        };
        Request {
            caller: Arc::new(caller),
            key,
            route: Route::of(http.method(), http.uri().path()),
            connection: http.conn_data::<Rc<ConnectionState>>().cloned(),
            http,
            worker: worker.clone(),
            began,
        }
    }

    /// One message, one reply; and no reply of ours leaves when the store may no longer be ours.
    pub async fn ask(&self, name: &ResourceName, op: &Op) -> Reply {
        if let Some(connection) = &self.connection {
            connection.begin_wait();
        }
        *self.worker.door.ask(name, op, &self.caller).await
    }

    /// Does the request carry a key with this right, and may this instance answer at all?
    /// Returns the highest right that the key carries, to the name in the path if there is one.
    pub fn authorize(&self, needed: Right) -> Result<Right, ApiError> {
        let key = self.authenticate()?;
        let right = match key.right_to_all() {
            Some(right) => Some(right),
            None if self.segments()[0].is_none() => Some(key.right),
            // A name that is malformed is not within anybody's prefixes.
            None => key.right_to(self.name().as_ref().map_or("\0", ResourceName::as_str)),
        };
        let right = check_right(right, needed)?;
        self.check_conditions()?;
        self.worker.door.check().map_err(ApiError::Closed)?;
        Ok(right)
    }

    /// For a name that does not stand in the path.
    pub fn authorize_name(&self, name: &ResourceName, needed: Right) -> Result<(), ApiError> {
        check_right(self.authenticate()?.right_to(name.as_str()), needed).map(|_| ())
    }

    /// The key that the request carries.
    pub fn authenticate(&self) -> Result<&KnownKey, ApiError> {
        self.key
            .as_ref()
            .ok_or_else(|| match self.http.headers().contains_key(&X_API_KEY) {
                true => ApiError::KeyUnknown,
                false => ApiError::KeyMissing,
            })
    }

    /// Does its key carry the right to lock, to some name at least?
    pub fn may_lock(&self) -> bool {
        let right = self.key.as_ref().map(|key| key.right);
        right >= Some(Right::Lock)
    }

    /// What the operator calls the key that the request carries.
    pub fn caller_key(&self) -> Result<KeyName, ApiError> {
        KeyName::parse(&self.authenticate()?.name).map_err(|_| ApiError::KeyUnknown)
    }

    /// The segments of the path, as they were sent. Empty where it has none, which no handler is called for.
    fn segments(&self) -> Segments<'_> {
        paths::segments(self.http.uri().path()).unwrap_or_default()
    }

    pub fn name(&self) -> Result<ResourceName, ApiError> {
        parse_name(self.segments()[0])
    }

    /// The name in a path of `/history/{name}`.
    pub fn history_name(&self) -> Result<ResourceName, ApiError> {
        parse_name(paths::history_name(self.http.uri().path()))
    }

    pub fn name_and_selector(&self) -> Result<(ResourceName, Selector), ApiError> {
        let [name, selector, _] = self.segments();
        let name = parse_name(name)?;
        let selector = Selector::parse(&selector_text(selector)?);
        let selector = selector.map_err(|error| malformed_selector(&error.to_string()))?;
        Ok((name, selector))
    }

    /// For routes whose path has a selector that they do not need; a malformed one is refused all the same.
    pub fn name_before_selector(&self) -> Result<ResourceName, ApiError> {
        let [name, selector, _] = self.segments();
        let name = parse_name(name)?;
        Selector::check(&selector_text(selector)?)
            .map_err(|error| malformed_selector(&error.to_string()))?;
        Ok(name)
    }

    pub fn query(&self) -> Result<Query<'_>, ApiError> {
        Query::parse(self.http.query_string())
    }

    /// The ticket that the request presents. An empty header counts as none; of several the last one counts.
    pub fn presented(&self) -> PresentedTicket {
        let Some(value) = self.http.headers().get_all(&X_TICKET).last() else {
            return PresentedTicket::Absent;
        };
        match value.to_str().map(str::trim) {
            Ok("") => PresentedTicket::Absent,
            Ok(text) => {
                Ticket::parse(text).map_or(PresentedTicket::Malformed, PresentedTicket::Ticket)
            }
            Err(_) => PresentedTicket::Malformed,
        }
    }

    pub fn idempotency_key(&self) -> Result<Option<IdempotencyKey>, ApiError> {
        let Some(value) = self.http.headers().get(&IDEMPOTENCY_KEY) else {
            return Ok(None);
        };
        let key = value.to_str().ok().and_then(IdempotencyKey::parse);
        key.map(Some).ok_or_else(|| {
            ApiError::Malformed(
                "The Idempotency-Key is not accepted: send 1 to 255 visible ASCII characters."
                    .into(),
            )
        })
    }
}

fn check_right(right: Option<Right>, needed: Right) -> Result<Right, ApiError> {
    match right {
        None => Err(ApiError::KeyUnknown),
        Some(right) if right < needed => Err(ApiError::KeyInsufficient(needed)),
        Some(right) => Ok(right),
    }
}

fn malformed_name(why: &str) -> ApiError {
    ApiError::Malformed(format!("The resource name {why}."))
}

fn malformed_selector(why: &str) -> ApiError {
    ApiError::Malformed(format!("The selector {why}."))
}

/// `sent`: as it stands in the path.
fn parse_name(sent: Option<&str>) -> Result<ResourceName, ApiError> {
    let text = decode_strictly(sent.unwrap_or_default()).map_err(malformed_name)?;
    ResourceName::parse(&text).map_err(|error| malformed_name(&error.to_string()))
}

/// `sent`: as it stands in the path.
fn selector_text(sent: Option<&str>) -> Result<Cow<'_, str>, ApiError> {
    decode_strictly(sent.unwrap_or_default()).map_err(malformed_selector)
}
