//! Records every request: its id, its count, its line in the access log.

use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::http::header::HeaderValue;

use crate::http::headers::X_REQUEST_ID;
use crate::http::paths::{self, Route};
use crate::http::request::Request;

/// The log target of the access log, as `RUST_LOG` names it.
pub const TARGET: &str = "access";

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
    let metrics = &worker.server().metrics;
    let method = request.http.method().as_str();
    metrics.answered(&worker.series, route, method, status, took);
    if let Some(code) = code {
        metrics.refusals_total.with_label_values(&[code]).inc();
    }
    if worker.access_log {
        log::info!(target: TARGET, "{}", line(request, status, code, took));
    }
    // A tag is visible ASCII: this cannot fail.
    if let Ok(value) = HeaderValue::try_from(request.caller.tag.to_string()) {
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
