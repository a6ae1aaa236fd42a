//! Decides whether a request is answered: the rate limit, and connections beyond `MAX_CONNECTIONS`. Adds the
//! rate limit's headers to the answer, and whether the connection closes.

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::http::{ConnectionType, header};

use crate::http::auth::Right;
use crate::http::client_address;
use crate::http::errors::ApiError;
use crate::http::paths::Route;
use crate::http::request::Request;
use crate::lock::PresentedTicket;
use crate::shared::gate::boottime_ms;

/// Decides whether the request is answered; if not, the `Err` is the answer. Also returns its rate limit, and how many
/// requests are left of it; `None`: it is not counted.
pub fn begin(request: &Request) -> (Result<(), ApiError>, Option<(u32, u32)>) {
    if let Some(connection) = request.connection.as_deref() {
        connection.begin_request(request.body_length());
    }
    if request.route.is_some_and(Route::is_about_the_server) {
        return (Ok(()), None);
    }
    if is_reserved(request) {
        return (Err(ApiError::TooManyConnections), None);
    }
    note_previous_key(request);
    match count(request) {
        None => (Ok(()), None),
        Some((limit, Ok(remaining))) => (Ok(()), Some((limit, remaining))),
        Some((limit, Err(wait))) => {
            if request.may_lock() {
                show_sign_of_life(request);
            }
            (Err(ApiError::RateLimited(wait)), Some((limit, 0)))
        }
    }
}

/// Adds the headers of the IETF draft on rate limits, and `Connection: close` if the connection ends. `rate`: of
/// [`begin`].
pub fn end(request: &Request, rate: Option<(u32, u32)>, response: &mut HttpResponse) {
    if let Some((limit, remaining)) = rate {
        // Seconds until the whole limit is available again, rounded up.
        let reset = limit.saturating_sub(remaining).div_ceil(limit);
        for (name, value) in [
            ("ratelimit-limit", limit),
            ("ratelimit-remaining", remaining),
            ("ratelimit-reset", reset),
        ] {
            let name = header::HeaderName::from_static(name);
            response.headers_mut().insert(name, value.into());
        }
    }
    // After a request to upgrade actix-http closes the connection, but does not announce it.
    let upgrade = request.http.head().connection_type() == ConnectionType::Upgrade;
    // While the server drains, the client's next request should go to another instance.
    if is_reserved(request) || upgrade || request.worker.server().gate.is_draining() {
        response
            .head_mut()
            .set_connection_type(ConnectionType::Close);
    }
}

/// Whether only the routes about the server are answered on its connection, and one request only.
fn is_reserved(request: &Request) -> bool {
    let connection = request.connection.as_deref();
    connection.is_some_and(|connection| connection.reserved)
}

/// Tells the connection that its request was answered at `now`. If the rest of the body may still arrive, wakes
/// actix-http so that it reads the connection again.
pub async fn answered(request: &Request, now: Instant) {
    let connection = request.connection.as_ref();
    if connection.is_some_and(|state| state.end_request(now.into())) {
        // One task drives a connection and its requests: woken, it polls the connection again.
        poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Ready(())
        })
        .await;
    }
}

/// Counts the request. Returns its rate limit, and what [`RateLimit::count`](crate::http::limit::RateLimit::count)
/// says; `None` if it is not counted.
fn count(request: &Request) -> Option<(u32, Result<u32, Duration>)> {
    let policy = request.worker.policy.load();
    let rate = policy.rate.as_ref()?;
    // Without a peer address the connection is about to end.
    let unknown = IpAddr::from([0, 0, 0, 0]);
    let address = request.caller.address.unwrap_or(unknown);
    // Renew and unlock are exempt: the rate limit must not cost a client its lock.
    let exempt = matches!(request.route, Some(Route::Renew | Route::Unlock));
    if exempt && request.may_lock() {
        return None;
    }
    let key = request.key.as_ref().map(|key| key.index);
    let counted = rate.count((key, client_address::counted_as(address)));
    Some((rate.per_second(), counted))
}

/// Counts the use of a `*_PREVIOUS` key, and logs it at most once a minute for each right: with one time for all, a
/// key that is used often would hide the others.
fn note_previous_key(request: &Request) {
    const RIGHTS: usize = Right::Admin as usize + 1;
    /// By right: when the next line may be logged, in [`boottime_ms`].
    static NEXT: [AtomicU64; RIGHTS] = [const { AtomicU64::new(0) }; RIGHTS];
    let Some(key) = request.key.as_ref().filter(|key| key.previous) else {
        return;
    };
    let metrics = &request.worker.server().metrics;
    let uses = &metrics.previous_key_requests_total;
    uses.with_label_values(&[&*key.name]).inc();
    let now = boottime_ms();
    let next = |due: u64| (due <= now).then_some(now + 60_000);
    let relaxed = Ordering::Relaxed;
    if NEXT[key.right as usize]
        .fetch_update(relaxed, relaxed, next)
        .is_ok()
    {
        let address = request.caller.address;
        let address = address.map_or_else(|| "-".to_owned(), |address| address.to_string());
        log::warn!(
            "the previous {} key is still used: client={address}",
            key.name
        );
    }
}

/// Counts the ticket of a rate-limited request as seen, as if the request had been answered. No resource is
/// loaded for this.
fn show_sign_of_life(request: &Request) {
    let presented = request.presented();
    if let (PresentedTicket::Ticket(_), Ok(name)) = (presented, request.name()) {
        let cluster = &request.worker.cluster;
        cluster.touch(&name, presented, &request.caller);
    }
}
