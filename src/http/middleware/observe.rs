//! Records every request: its id, its count, its line in the access log.

use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::http::header::HeaderValue;

use crate::http::headers::X_REQUEST_ID;
use crate::http::paths::{self, Route};
use crate::http::request::Request;
use crate::lock::names::hex_digits;
use crate::shared::caller::RequestTag;

/// The log target of the access log, as `RUST_LOG` names it.
pub const TARGET: &str = "access";

const WORKER_DIGITS: usize = 8;
/// Longest tag made here, in bytes: the worker's digits, a dash, 16 digits.
const MADE_TAG_BYTES: usize = WORKER_DIGITS + 1 + 16;

/// Counts the answer, which was ready at `now`, logs it and adds the request's id to its headers. `code`: the
/// error's code, if the answer is an error.
pub fn end(
    request: &Request,
    response: &mut HttpResponse,
    code: Option<&'static str>,
    now: Instant,
) {
    let took = now - request.began;
    let status = response.status().as_u16();
    let route = request.route.map_or(paths::UNKNOWN, Route::pattern);
    let worker = &request.worker;
    worker
        .numbers
        .answered(route, request.http.method().as_str(), status, took);
    if let Some(code) = code {
        worker.server().metrics.requests.refused(code);
    }
    if worker.access_log {
        log::info!(target: TARGET, "{}", line(request, status, code, took));
    }
    if let Some(value) = header_value(&request.caller.tag) {
        response.headers_mut().insert(X_REQUEST_ID.clone(), value);
    }
}

/// A line of the access log. The path is percent-encoded, as it was sent; the query is left out.
fn line(request: &Request, status: u16, code: Option<&str>, took: Duration) -> String {
    let (method, path) = (request.http.method(), request.http.uri().path());
    let mut line = format!("{method} {path} {status}");
    if let Some(code) = code {
        line += &format!(" code={code}");
    }
    let caller = &request.caller;
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

/// Writes a tag as its `Display` does and returns its length in bytes. Runs for every answer: the formatter
/// would be slower.
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
