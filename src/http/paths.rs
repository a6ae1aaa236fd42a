//! The routes of the server, and how a path is split into its segments.
//!
//! Paths below `/resource` are split here and not by the framework's patterns: names keep the bytes they were
//! sent with, and one pass over the segments is cheaper than trying one pattern after the other.

use std::borrow::Cow;

use actix_web::http::Method;
use actix_web::http::header::{self, HeaderName};
use percent_encoding::percent_decode_str;

/// The routes of the server, in the order of [`PATTERNS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Resources,
    Resource,
    Data,
    /// With POST. With other methods `force-unlock` is a selector.
    ForceUnlock,
    Lock,
    Unlock,
    Renew,
    History,
    Events,
    /// The operator's page.
    Page,
    PageFile,
    Status,
    Health,
    Ready,
    Metrics,
    Openapi,
}

/// The paths as the OpenAPI document and the metrics write them, in the order of [`Route`].
pub const PATTERNS: &[&str] = &[
    "/resource",
    "/resource/{name}",
    "/resource/{name}/{selector}",
    "/resource/{name}/force-unlock",
    "/resource/{name}/{selector}/lock",
    "/resource/{name}/{selector}/unlock",
    "/resource/{name}/{selector}/renew",
    "/history/{name}",
    "/events",
    "/",
    "/page/{file}",
    "/status",
    "/health",
    "/ready",
    "/metrics",
    "/openapi.json",
];

/// Stands for the pattern of a request whose path is no route.
pub const UNKNOWN: &str = "unknown";

/// Percent-decodes without guessing: an invalid escape or invalid UTF-8 is an error, so that two different byte
/// strings never become one name.
///
/// # Errors
/// What is wrong with the text, as the predicate of a sentence.
pub fn decode_strictly(text: &str) -> Result<Cow<'_, str>, &'static str> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|b| *b == b'%') {
        let digits = rest.get(at + 1..at + 3);
        if !digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)) {
            return Err("contains a % that is not followed by two hexadecimal digits");
        }
        rest = &rest[at + 3..];
    }
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| "is not valid UTF-8")
}

/// Name, selector and action in a path below `/resource`, as they were sent; `None` for segments that the path
/// does not have.
pub type Segments<'p> = [Option<&'p str>; 3];

/// Splits a path. `None` if it is not below `/resource`, or has more segments than any route.
pub fn segments(path: &str) -> Option<Segments<'_>> {
    let inside = path.strip_prefix("/resource")?;
    let mut parts = inside.split('/');
    let is_below = parts.next() == Some("");
    let segments: Segments = std::array::from_fn(|_| parts.next());
    (is_below && parts.next().is_none()).then_some(segments)
}

/// The condition of reading a description, a document or a file of the page: answer with it only if it is not the one
/// that the client has.
static WATCHED: [HeaderName; 1] = [header::IF_NONE_MATCH];
/// The conditions of a write.
static CONDITIONAL: [HeaderName; 2] = [header::IF_MATCH, header::IF_NONE_MATCH];

/// The name in a path of `/history/{name}`, as it was sent.
pub fn history_name(path: &str) -> Option<&str> {
    let name = path.strip_prefix("/history/")?;
    (!name.contains('/')).then_some(name)
}

impl Route {
    pub fn pattern(self) -> &'static str {
        PATTERNS[self as usize]
    }

    /// The route of a path; `None` if there is none. Does not check that the route has the method.
    pub fn of(method: &Method, path: &str) -> Option<Route> {
        match path {
            "/events" => return Some(Route::Events),
            "/" => return Some(Route::Page),
            "/status" => return Some(Route::Status),
            "/health" => return Some(Route::Health),
            "/ready" => return Some(Route::Ready),
            "/metrics" => return Some(Route::Metrics),
            "/openapi.json" => return Some(Route::Openapi),
            _ => {}
        }
        if path.starts_with("/page/") {
            return Some(Route::PageFile);
        }
        if let Some(name) = history_name(path) {
            return (!name.is_empty()).then_some(Route::History);
        }
        let [name, selector, action] = segments(path)?;
        if name == Some("") {
            return None;
        }
        match (name, selector, action) {
            (None, ..) => Some(Route::Resources),
            (_, None, _) => Some(Route::Resource),
            (_, Some(""), _) => None,
            (_, Some("force-unlock"), None) if method == Method::POST => Some(Route::ForceUnlock),
            (_, _, None) => Some(Route::Data),
            (_, _, Some("lock")) => Some(Route::Lock),
            (_, _, Some("unlock")) => Some(Route::Unlock),
            (_, _, Some("renew")) => Some(Route::Renew),
            (_, _, Some(_)) => None,
        }
    }

    /// Whether the route is for balancers, monitoring, or loading the page: it needs no key, and no limit
    /// counts it.
    pub fn is_about_the_server(self) -> bool {
        use Route::{Health, Metrics, Openapi, Page, PageFile, Ready};
        matches!(self, Health | Ready | Metrics | Openapi | Page | PageFile)
    }

    /// The conditional headers that the route supports; others are refused.
    pub fn conditions(self, method: &Method) -> &'static [HeaderName] {
        match self {
            Route::Page | Route::PageFile => &WATCHED,
            Route::Resource | Route::Data if method == Method::GET => &WATCHED,
            Route::Data if method == Method::PUT => &CONDITIONAL,
            _ => &[],
        }
    }

    /// The methods of the route, as `Allow` lists them.
    pub fn allow(self) -> &'static str {
        match self {
            Route::Resources => "GET, POST",
            Route::Resource => "GET, DELETE",
            Route::Data => "GET, PUT, DELETE",
            Route::ForceUnlock => "POST",
            Route::Lock | Route::Unlock | Route::Renew => "PUT, POST",
            Route::History | Route::Events | Route::Status => "GET",
            Route::Page
            | Route::PageFile
            | Route::Health
            | Route::Ready
            | Route::Metrics
            | Route::Openapi => "GET, HEAD",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_has_the_pattern_of_its_place() {
        for pattern in PATTERNS {
            let route = Route::of(&Method::POST, pattern);
            assert_eq!(route.map(Route::pattern), Some(*pattern));
        }
    }
}
