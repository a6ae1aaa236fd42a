//! What every request leaves behind: an id, a count, a line in the access log.
//!
//! The middleware here runs around everything else. It says who the caller is and which route is meant, once,
//! for all that want to know ([`caller`], [`route`]), answers `X-Request-Id`, and counts the answer under its
//! route.

use std::cell::Cell;
use std::future::Future;
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::dev::{Service, ServiceRequest, ServiceResponse};
use actix_web::http::header::HeaderValue;
use actix_web::http::{Method, StatusCode};
use actix_web::{Error, HttpMessage, HttpRequest};

use crate::http::auth::KnownKey;
use crate::http::client;
use crate::http::errors::ApiError;
use crate::http::headers::{X_API_KEY, X_REQUEST_ID};
use crate::http::paths::{self, Route};
use crate::http::policy::SharedPolicy;
use crate::metrics::requests::WorkerRequests;
use crate::shared::caller::Caller;
use crate::shared::caller::RequestTag;

/// What `RUST_LOG` names the lines of the access log by.
pub const TARGET: &str = "access";

/// A tag made here is never longer: 8 digits, a dash, 16 digits.
const MADE_TAG_BYTES: usize = 25;

/// One per HTTP worker.
pub struct Observer {
    numbers: WorkerRequests,
    policy: SharedPolicy,
    access_log: bool,
    worker: u32,
    next: Cell<u64>,
}

impl Observer {
    /// `policy`: knows the proxies to believe. `access_log`: one line per request.
    pub fn new(numbers: WorkerRequests, policy: SharedPolicy, access_log: bool) -> Observer {
        Observer {
            numbers,
            policy,
            access_log,
            worker: rand::random(),
            next: Cell::new(1),
        }
    }

    fn tag(&self, request: &ServiceRequest) -> RequestTag {
        let given = request.headers().get(&X_REQUEST_ID);
        let given = given.and_then(|value| RequestTag::parse(value.as_bytes()));
        given.unwrap_or_else(|| {
            let number = self.next.get();
            self.next.set(number + 1);
            RequestTag::Made {
                worker: self.worker,
                number,
            }
        })
    }

    fn key(&self, request: &ServiceRequest) -> Option<Rc<KnownKey>> {
        let presented = request.headers().get(&X_API_KEY)?;
        let key = self.policy.load().keys.identify(presented.as_bytes());
        key.map(Rc::new)
    }

    fn caller(&self, request: &ServiceRequest, key: Option<&KnownKey>) -> Caller {
        let peer = request.peer_addr().map(|peer| peer.ip());
        Caller {
            address: peer.map(|peer| {
                let trusted = &self.policy.load().trusted_proxies;
                client::address(peer, request.headers(), trusted)
            }),
            tag: self.tag(request),
            key: key.map(|key| key.name.clone()),
            relayed: None,
        }
    }

    fn count(&self, seen: &ObservedRequest<'_>) {
        let method = seen.method.as_str();
        let status = seen.status.as_u16();
        let route = seen.known.route.map_or(paths::UNKNOWN, Route::pattern);
        self.numbers.answered(route, method, status, seen.took);
        if let Some(code) = seen.code {
            self.numbers.refused(code);
        }
        if self.access_log {
            log::info!(target: TARGET, "{seen}");
        }
    }
}

/// What is known of a request from the first.
#[derive(Clone)]
struct RouteAndCaller {
    caller: Caller,
    /// `None`: there is nothing at its path.
    route: Option<Route>,
    /// `None`: it presents no key, or one that is unknown.
    key: Option<Rc<KnownKey>>,
}

/// A request and how it was answered.
struct ObservedRequest<'a> {
    known: &'a RouteAndCaller,
    method: &'a Method,
    path: &'a str,
    status: StatusCode,
    code: Option<&'static str>,
    took: Duration,
}

impl std::fmt::Display for ObservedRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (method, path, status) = (self.method, self.path, self.status.as_u16());
        // The path as it was sent, percent-encoded; the query is left out.
        write!(f, "{method} {path} {status}")?;
        if let Some(code) = self.code {
            write!(f, " code={code}")?;
        }
        write!(f, " ms={:.3}", self.took.as_secs_f64() * 1000.0)?;
        match self.known.caller.address {
            Some(address) => write!(f, " client={address}")?,
            None => f.write_str(" client=-")?,
        }
        write!(f, " request={}", self.known.caller.tag)?;
        match &self.known.caller.key {
            Some(key) => write!(f, " key={key}"),
            None => f.write_str(" key=-"),
        }
    }
}

/// Who sent this request.
pub fn caller(request: &HttpRequest) -> Caller {
    let extensions = request.extensions();
    let known = extensions.get::<RouteAndCaller>();
    known.map_or(Caller::NOBODY, |known| known.caller.clone())
}

/// The key that this request presents, if it is one of those in force.
pub fn key(request: &HttpRequest) -> Option<Rc<KnownKey>> {
    request.extensions().get::<RouteAndCaller>()?.key.clone()
}

/// Where this request leads; `None`: nowhere.
pub fn route(request: &HttpRequest) -> Option<Route> {
    request.extensions().get::<RouteAndCaller>()?.route
}

fn header_value(tag: &RequestTag) -> Option<HeaderValue> {
    match tag {
        RequestTag::Given(text) => HeaderValue::from_str(text).ok(),
        RequestTag::Made { .. } => {
            let mut text = [0; MADE_TAG_BYTES];
            let mut rest = &mut text[..];
            write!(rest, "{tag}").ok()?;
            let free = rest.len();
            HeaderValue::from_bytes(&text[..MADE_TAG_BYTES - free]).ok()
        }
    }
}

/// The middleware.
pub fn observe<S, B>(
    observer: &Rc<Observer>,
    request: ServiceRequest,
    service: &S,
) -> impl Future<Output = Result<ServiceResponse<B>, Error>> + use<S, B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
{
    let began = Instant::now();
    let observer = observer.clone();
    let method = request.method().clone();
    let key = observer.key(&request);
    let known = RouteAndCaller {
        caller: observer.caller(&request, key.as_deref()),
        key,
        route: Route::of(&method, request.uri().path()),
    };
    request.extensions_mut().insert(known.clone());
    let answer = service.call(request);
    async move {
        let mut response = answer.await?;
        let api_error = response.response().error();
        let api_error = api_error.and_then(|error| error.as_error::<ApiError>());
        observer.count(&ObservedRequest {
            known: &known,
            method: &method,
            path: response.request().uri().path(),
            status: response.status(),
            code: api_error.map(ApiError::code),
            took: began.elapsed(),
        });
        if let Some(value) = header_value(&known.caller.tag) {
            response.headers_mut().insert(X_REQUEST_ID.clone(), value);
        }
        // The PHP client reads header names in title case only.
        let head = response.response_mut().head_mut();
        head.set_camel_case_headers(true);
        Ok(response)
    }
}
