//! What every request leaves behind: an id, a count, a line in the access log.
//!
//! Who the caller is and which route is meant is found out once, for all that want to know ([`RequestContext`]).

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::HeaderValue;

use crate::http::auth::KnownKey;
use crate::http::client;
use crate::http::connection::ConnectionState;
use crate::http::context::RequestContext;
use crate::http::headers::{X_API_KEY, X_REQUEST_ID};
use crate::http::paths::{self, Route};
use crate::http::policy::{Policy, SharedPolicy};
use crate::lock::names::hex_digits;
use crate::metrics::requests::WorkerRequests;
use crate::shared::caller::Caller;
use crate::shared::caller::RequestTag;

/// What `RUST_LOG` names the lines of the access log by.
pub const TARGET: &str = "access";

const WORKER_DIGITS: usize = 8;
/// A tag made here is never longer: its worker's digits, a dash, 16 digits.
const MADE_TAG_BYTES: usize = WORKER_DIGITS + 1 + 16;

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

    fn caller(&self, request: &ServiceRequest, policy: &Policy, key: Option<&KnownKey>) -> Caller {
        let peer = request.peer_addr().map(|peer| peer.ip());
        Caller {
            address: peer
                .map(|peer| client::address(peer, request.headers(), &policy.trusted_proxies)),
            tag: self.tag(request),
            key: key.map(|key| key.name.clone()),
            relayed: None,
        }
    }
}

fn header_value(tag: &RequestTag) -> Option<HeaderValue> {
    match tag {
        RequestTag::Given(text) => HeaderValue::from_str(text).ok(),
        RequestTag::Made { worker, number } => {
            let mut text = [0; MADE_TAG_BYTES];
            let length = made_tag(*worker, *number, &mut text);
            HeaderValue::from_bytes(&text[..length]).ok()
        }
    }
}

/// As the tag is displayed, and its length: formatted for every answer, so without the formatter.
fn made_tag(worker: u32, number: u64, text: &mut [u8; MADE_TAG_BYTES]) -> usize {
    let digits = hex_digits(u128::from(worker) << u64::BITS | u128::from(number));
    let (worker, number) = digits[WORKER_DIGITS..].split_at(WORKER_DIGITS);
    let first = number.iter().position(|digit| *digit != b'0');
    let number = &number[first.unwrap_or(number.len() - 1)..];
    text[..WORKER_DIGITS].copy_from_slice(worker);
    text[WORKER_DIGITS] = b'-';
    text[WORKER_DIGITS + 1..][..number.len()].copy_from_slice(number);
    WORKER_DIGITS + 1 + number.len()
}

/// A request that is under way.
pub struct Observed {
    observer: Rc<Observer>,
    began: Instant,
    method: Method,
    pub known: Rc<RequestContext>,
}

impl Observed {
    /// Notes what is known of a request.
    pub fn begin(observer: &Rc<Observer>, request: &ServiceRequest) -> Observed {
        let began = Instant::now();
        let method = request.method().clone();
        let policy = observer.policy.load();
        let presented = request.headers().get(&X_API_KEY);
        let key = presented.and_then(|key| policy.keys.identify(key.as_bytes()));
        let known = Rc::new(RequestContext {
            caller: Arc::new(observer.caller(request, &policy, key.as_ref())),
            key,
            route: Route::of(&method, request.uri().path()),
            connection: request.conn_data::<Rc<ConnectionState>>().cloned(),
        });
        Observed {
            observer: observer.clone(),
            began,
            method,
            known,
        }
    }

    /// Of the access log. `path`: as it was sent, percent-encoded; the query is left out.
    fn line(&self, path: &str, status: u16, code: Option<&str>, took: Duration) -> String {
        let mut line = format!("{} {path} {status}", self.method);
        if let Some(code) = code {
            line += &format!(" code={code}");
        }
        let caller = &self.known.caller;
        let ms = took.as_secs_f64() * 1000.0;
        let address = caller.address.map(|address| address.to_string());
        let address = address.as_deref().unwrap_or("-");
        let key = caller.key.as_deref().unwrap_or("-");
        line += &format!(
            " ms={ms:.3} client={address} request={} key={key}",
            caller.tag
        );
        line
    }

    /// Counts the answer, which was there at `now`, with the code of its error if it is one, and gives it the
    /// request's id.
    pub fn end(self, response: &mut ServiceResponse, code: Option<&'static str>, now: Instant) {
        let took = now - self.began;
        let status = response.status().as_u16();
        let route = self.known.route.map_or(paths::UNKNOWN, Route::pattern);
        let numbers = &self.observer.numbers;
        numbers.answered(route, self.method.as_str(), status, took);
        if let Some(code) = code {
            numbers.refused(code);
        }
        if self.observer.access_log {
            let path = response.request().uri().path();
            log::info!(target: TARGET, "{}", self.line(path, status, code, took));
        }
        if let Some(value) = header_value(&self.known.caller.tag) {
            response.headers_mut().insert(X_REQUEST_ID.clone(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_a_made_tag_is_what_the_log_shows() {
        for number in [0, 1, 0xf, 0x10, 0xfff, 0x1000, u64::MAX] {
            for worker in [0, 1, 0xabc, u32::MAX] {
                let tag = RequestTag::Made { worker, number };
                assert_eq!(header_value(&tag).unwrap(), tag.to_string().as_str());
            }
        }
    }
}
