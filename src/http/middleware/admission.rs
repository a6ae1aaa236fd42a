//! Whether a request is answered at all: the rate limit, and connections beyond `MAX_CONNECTIONS`. And what is
//! to be said about its connection.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use actix_web::HttpResponse;
use actix_web::http::{ConnectionType, header};

use crate::http::client;
use crate::http::errors::ApiError;
use crate::http::limit::Allowance;
use crate::http::paths::Route;
use crate::http::request::Request;
use crate::lock::PresentedTicket;
use crate::shared::gate::boottime_ms;

/// What is to be said about the connection of a request that is under way.
pub struct Admission {
    /// The connection ends with the answer.
    closes: bool,
    allowance: Option<Allowance>,
}

impl Admission {
    /// Is it answered at all, or what instead?
    pub fn begin(request: &Request) -> (Admission, Result<(), ApiError>) {
        let connection = request.connection.as_deref();
        if let Some(connection) = connection {
            connection.begin_request(body_length(request));
        }
        let reserved = connection.is_some_and(|state| state.reserved);
        // The framework answers a request to upgrade and then closes, which it does not say.
        let upgrade = request.http.head().connection_type() == ConnectionType::Upgrade;
        let (verdict, allowance) = check(request, reserved);
        let admission = Admission {
            closes: reserved || upgrade,
            allowance,
        };
        (admission, verdict)
    }

    /// Says what is to be said about its connection and its rate.
    pub fn end(self, request: &Request, response: &mut HttpResponse) {
        if let Some(allowance) = self.allowance {
            announce(response, allowance);
        }
        // While the server stops, the next request should go to another instance.
        if self.closes || request.worker.server().gate.is_draining() {
            response
                .head_mut()
                .set_connection_type(ConnectionType::Close);
        }
    }
}

/// A request was answered at `now`. Where the rest of its body may still come, this lets the framework look at its
/// connection again.
pub async fn answered(request: &Request, now: Instant) {
    let connection = request.connection.as_ref();
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
fn body_length(request: &Request) -> Option<usize> {
    let headers = request.http.headers();
    let Some(length) = headers.get(header::CONTENT_LENGTH) else {
        let chunked = headers.contains_key(header::TRANSFER_ENCODING);
        return (!chunked).then_some(0);
    };
    Some(length.to_str().ok()?.parse().unwrap_or(0))
}

/// May it be answered, and what is its key and address still allowed?
fn check(request: &Request, reserved: bool) -> (Result<(), ApiError>, Option<Allowance>) {
    if request.route.is_some_and(Route::is_about_the_server) {
        return (Ok(()), None);
    }
    if reserved {
        return (Err(ApiError::TooManyConnections), None);
    }
    note_previous_key(request);
    let allowance = count(request);
    if allowance.is_none_or(|allowance| allowance.retry_after.is_none()) {
        return (Ok(()), allowance);
    }
    if request.may_lock() {
        show_sign_of_life(request);
    }
    (Err(ApiError::RateLimited), allowance)
}

/// Counts it, and says what is left to its client; `None`: it is not counted.
fn count(request: &Request) -> Option<Allowance> {
    let policy = request.worker.policy.load();
    let rate = policy.rate.as_ref()?;
    // A connection whose peer is not known any more is about to end.
    let unknown = IpAddr::from([0, 0, 0, 0]);
    let address = request.caller.address.unwrap_or(unknown);
    // A limit must cost nobody a lock.
    let exempt = matches!(request.route, Some(Route::Renew | Route::Unlock));
    if exempt && request.may_lock() {
        return None;
    }
    let key = request.key.as_ref().map(|key| key.id);
    Some(rate.count(key, client::counted_as(address)))
}

/// Counts the use of a key that is about to be replaced, and says so at most once a minute.
fn note_previous_key(request: &Request) {
    static SAID: AtomicU64 = AtomicU64::new(0);
    let Some(key) = request.key.as_ref().filter(|key| key.previous) else {
        return;
    };
    let metrics = &request.worker.server().metrics;
    metrics.previous_keys.with_label_values(&[&*key.name]).inc();
    // Minutes of a clock that never goes back; 0 was never.
    let minute = boottime_ms() / 60_000 + 1;
    if SAID.swap(minute, Ordering::Relaxed) < minute {
        let address = request.caller.address;
        let address = address.map_or_else(|| "-".to_owned(), |address| address.to_string());
        log::warn!(
            "the previous {} key is still used: client={address}",
            key.name
        );
    }
}

/// The ticket of a request that is refused for its rate counts as seen, as if it had been answered. Nothing is
/// loaded for that.
fn show_sign_of_life(request: &Request) {
    let presented = request.presented();
    if let (PresentedTicket::Ticket(_), Ok(name)) = (presented, request.name()) {
        let door = &request.worker.door;
        door.touch(&name, presented, &request.caller);
    }
}

/// The headers of the IETF's draft on rate limits, and when to come back.
fn announce(response: &mut HttpResponse, allowance: Allowance) {
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
