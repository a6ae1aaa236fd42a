//! A request, and what its head tells: the caller, the key, the route.
//!
//! Its query is parsed in `query`, its conditional headers in `conditions`, its body in `body`.

use std::fmt::Display;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix_web::HttpRequest;
use actix_web::http::header;

use super::auth::{KnownKey, Right, identify};
use super::client_address;
use super::connection::ConnectionState;
use super::errors::ApiError;
use super::headers::{IDEMPOTENCY_KEY, X_API_KEY, X_REQUEST_ID, X_TICKET};
use super::paths::{self, Route, Segments, decode_strictly};
use super::query::Query;
use super::worker::Worker;
use crate::lock::{IdempotencyKey, KeyName, PresentedTicket, ResourceName, Selector, Ticket};
use crate::resource::messages::{Op, Reply};
use crate::shared::caller::{Caller, RequestTag};

/// One request without its body. What its fields hold is derived from the head once, for handlers and
/// middleware.
pub struct Request {
    pub http: HttpRequest,
    pub worker: Rc<Worker>,
    pub began: Instant,
    pub caller: Arc<Caller>,
    /// `None`: its path is no route.
    pub route: Option<Route>,
    /// The key that it presents; `None` if there is none or it is unknown.
    pub key: Option<KnownKey>,
    /// State of its connection; `None` if the connection is not a
    /// [`Connection`](super::connection::Connection).
    pub connection: Option<Rc<ConnectionState>>,
}

impl Request {
    /// Derives from the head of a request what is known of it.
    pub fn begin(http: HttpRequest, worker: &Rc<Worker>) -> Request {
        let began = Instant::now();
        let policy = worker.policy.load();
        let presented = http.headers().get(&X_API_KEY);
        let key = presented.and_then(|key| identify(&policy.keys, key.as_bytes()));
        let address = http.peer_addr().map(|peer| {
            let trusted = &policy.trusted_proxies;
            client_address::address(peer.ip(), http.headers(), trusted)
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

    /// Sends the resource one message and returns its one reply. If the gate has closed meanwhile, because the
    /// store may no longer be this instance's, the reply is [`Reply::Closed`].
    pub async fn ask(&self, name: &ResourceName, op: &Op) -> Reply {
        if let Some(connection) = &self.connection {
            connection.begin_wait();
        }
        *self.worker.cluster.ask(name, op, &self.caller).await
    }

    /// Checks that the request carries a key with this right, that the route supports its conditional headers,
    /// and that this instance may answer. Returns the highest right that the key carries, to the name in the
    /// path if there is one.
    ///
    /// # Errors
    /// [`ApiError::KeyMissing`], [`ApiError::KeyUnknown`], [`ApiError::KeyInsufficient`],
    /// [`ApiError::ConditionNotOffered`] or [`ApiError::Closed`].
    pub fn authorize(&self, needed: Right) -> Result<Right, ApiError> {
        let key = self.authenticate()?;
        let right = match key.right_to_all() {
            Some(right) => Some(right),
            None if self.sent_name().is_none() => Some(key.right),
            // A malformed name is covered by the empty prefix only.
            None => key.right_to(self.name().as_ref().map_or("\0", ResourceName::as_str)),
        };
        let right = check_right(right, needed)?;
        self.check_conditions()?;
        self.worker.cluster.check()?;
        Ok(right)
    }

    /// Checks that the key carries this right to a name that is not taken from the path.
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

    /// Whether the key carries the right to lock, to at least one name.
    pub fn may_lock(&self) -> bool {
        let right = self.key.as_ref().map(|key| key.right);
        right >= Some(Right::Lock)
    }

    /// The name that the operator gave the request's key.
    pub fn caller_key(&self) -> Result<KeyName, ApiError> {
        KeyName::parse(&self.authenticate()?.name).map_err(|_| ApiError::KeyUnknown)
    }

    /// Length of the body in bytes, 0 without a body; `None` if it is chunked, whatever `Content-Length` says.
    pub fn body_length(&self) -> Option<usize> {
        let headers = self.http.headers();
        if headers.contains_key(header::TRANSFER_ENCODING) {
            return None;
        }
        let Some(length) = headers.get(header::CONTENT_LENGTH) else {
            return Some(0);
        };
        length.to_str().ok()?.parse().ok()
    }

    /// The segments of a path below `/resource`, as they were sent; all `None` for other paths.
    fn segments(&self) -> Segments<'_> {
        paths::segments(self.http.uri().path()).unwrap_or_default()
    }

    /// The name in a path below `/resource` or `/history`, as it was sent. `None`: the path has none.
    fn sent_name(&self) -> Option<&str> {
        self.segments()[0].or_else(|| paths::history_name(self.http.uri().path()))
    }

    /// The name in the path.
    pub fn name(&self) -> Result<ResourceName, ApiError> {
        parse_name(self.sent_name())
    }

    /// The name and the selector in a path.
    pub fn name_and_selector(&self) -> Result<(ResourceName, Selector), ApiError> {
        let [name, selector, _] = self.segments();
        let name = parse_name(name)?;
        let text = decode_strictly(selector.unwrap_or_default()).map_err(malformed_selector)?;
        let selector = Selector::parse(&text).map_err(malformed_selector)?;
        Ok((name, selector))
    }

    pub fn query(&self) -> Result<Query<'_>, ApiError> {
        Query::parse(self.http.query_string())
    }

    /// The ticket that the request presents. An empty header counts as none; of several headers the last one
    /// counts.
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

    /// The value of `Idempotency-Key`; `None` without the header.
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

pub fn malformed_name(why: impl Display) -> ApiError {
    ApiError::Malformed(format!("The resource name {why}."))
}

fn malformed_selector(why: impl Display) -> ApiError {
    ApiError::Malformed(format!("The selector {why}."))
}

/// `sent`: the segment as it stands in the path.
fn parse_name(sent: Option<&str>) -> Result<ResourceName, ApiError> {
    let text = decode_strictly(sent.unwrap_or_default()).map_err(malformed_name)?;
    ResourceName::parse(&text).map_err(malformed_name)
}
