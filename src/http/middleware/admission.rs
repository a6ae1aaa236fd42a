//! Whether a request is answered at all: the rate limit, and connections beyond `MAX_CONNECTIONS`. And what is
//! to be said about its connection.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use actix_web::HttpRequest;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{ConnectionType, header};

use crate::http::auth::Right;
use crate::http::client;
use crate::http::context::RequestContext;
use crate::http::errors::ApiError;
use crate::http::limit::Allowance;
use crate::http::paths::Route;
use crate::http::request::{name, presented};
use crate::http::worker::Worker;
use crate::lock::PresentedTicket;
use crate::shared::gate::boottime_ms;

/// What is to be said about the connection of a request that is under way.
pub struct Admission {
    worker: Rc<Worker>,
    /// The connection ends with the answer.
    closes: bool,
    allowance: Option<Allowance>,
}

impl Admission {
    /// Is it answered at all, or what instead?
    pub fn begin(
        worker: &Rc<Worker>,
        known: &RequestContext,
        request: &ServiceRequest,
    ) -> (Admission, Result<(), ApiError>) {
        let connection = known.connection.as_deref();
        if let Some(connection) = connection {
            connection.begin_request(body_length(request));
        }
        let reserved = connection.is_some_and(|state| state.reserved);
        // The framework answers a request to upgrade and then closes, which it does not say.
        let upgrade = request.head().connection_type() == ConnectionType::Upgrade;
        let (verdict, allowance) = check(request.request(), known, worker, reserved);
        let admission = Admission {
            worker: worker.clone(),
            closes: reserved || upgrade,
            allowance,
        };
        (admission, verdict)
    }

    /// Says what is to be said about its connection and its rate.
    pub fn end(self, response: &mut ServiceResponse) {
        if let Some(allowance) = self.allowance {
            announce(response, allowance);
        }
        // While the server stops, the next request should go to another instance.
        if self.closes || self.worker.server().gate.is_draining() {
            let head = response.response_mut().head_mut();
            head.set_connection_type(ConnectionType::Close);
        }
    }
}

/// A request was answered at `now`. Where the rest of its body may still come, this lets the framework look at its
/// connection again.
pub async fn answered(known: &RequestContext, now: Instant) {
    let connection = known.connection.as_ref();
    if connection.is_some_and(|state| state.end_request(now.into())) {
        std::future::poll_fn(wake).await;
    }
}

/// The framework drives a connection and its requests in one task: woken, it looks at the connection again.
fn wake(cx: &mut Context<'_>) -> Poll<()> {
    cx.waker().wake_by_ref();
    Poll::Ready(())
}

/// `None`: it is chunked.
fn body_length(request: &ServiceRequest) -> Option<usize> {
    let Some(length) = request.headers().get(header::CONTENT_LENGTH) else {
        let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
        return (!chunked).then_some(0);
    };
    Some(length.to_str().ok()?.parse().unwrap_or(0))
}

/// May it be answered, and what is its key and address still allowed?
fn check(
    request: &HttpRequest,
    known: &RequestContext,
    worker: &Worker,
    reserved: bool,
) -> (Result<(), ApiError>, Option<Allowance>) {
    if known.route.is_some_and(Route::is_about_the_server) {
        return (Ok(()), None);
    }
    if reserved {
        return (Err(ApiError::TooManyConnections), None);
    }
    note_previous_key(known, worker);
    match limit(known, worker) {
        Ok(allowance) => (Ok(()), allowance),
        Err((allowance, right)) => {
            if right >= Some(Right::Lock) {
                show_sign_of_life(request, known, worker);
            }
            (Err(ApiError::RateLimited), Some(allowance))
        }
    }
}

/// What is left to it; `None`: it is not counted. Else as [`RateLimit::check`](crate::http::limit::RateLimit::check).
fn limit(
    known: &RequestContext,
    worker: &Worker,
) -> Result<Option<Allowance>, (Allowance, Option<Right>)> {
    let policy = worker.policy.load();
    let Some(rate) = &policy.rate else {
        return Ok(None);
    };
    // A connection whose peer is not known any more is about to end.
    let unknown = IpAddr::from([0, 0, 0, 0]);
    let address = known.caller.address.unwrap_or(unknown);
    let key = known.key.as_ref().map(|key| (key.id, key.right));
    // A limit must cost nobody a lock.
    let exempt = matches!(known.route, Some(Route::Renew | Route::Unlock));
    match key {
        Some((_, right)) if exempt && right >= Right::Lock => Ok(None),
        _ => rate.check(key, client::counted_as(address)).map(Some),
    }
}

/// Counts the use of a key that is about to be replaced, and says so at most once a minute.
fn note_previous_key(known: &RequestContext, worker: &Worker) {
    static SAID: AtomicU64 = AtomicU64::new(0);
    let Some(key) = known.key.as_ref().filter(|key| key.previous) else {
        return;
    };
    let metrics = &worker.server().metrics;
    metrics.previous_keys.with_label_values(&[&*key.name]).inc();
    // Minutes of a clock that never goes back; 0 was never.
    let minute = boottime_ms() / 60_000 + 1;
    if SAID.swap(minute, Ordering::Relaxed) < minute {
        let address = known.caller.address;
        let address = address.map_or_else(|| "-".to_owned(), |address| address.to_string());
        log::warn!(
            "the previous {} key is still used: client={address}",
            key.name
        );
    }
}

/// The ticket of a request that is refused for its rate counts as seen, as if it had been answered. Nothing is
/// loaded for that.
fn show_sign_of_life(request: &HttpRequest, known: &RequestContext, worker: &Worker) {
    let presented = presented(request);
    if let (PresentedTicket::Ticket(_), Ok(name)) = (presented, name(request)) {
        worker.door.touch(&name, presented, &known.caller);
    }
}

/// The headers of the IETF's draft on rate limits, and when to come back.
fn announce(response: &mut ServiceResponse, allowance: Allowance) {
    let headers = response.headers_mut();
    let mut set = |name, value: u64| {
        let name = header::HeaderName::from_static(name);
        headers.insert(name, header::HeaderValue::from(value));
    };
    set("ratelimit-limit", u64::from(allowance.limit));
    set("ratelimit-remaining", u64::from(allowance.remaining));
    set("ratelimit-reset", allowance.reset_seconds);
    if let Some(wait) = allowance.retry_after {
        // Whole seconds, and never so few that the client comes too early.
        set("retry-after", wait.as_secs() + 1);
    }
}
