//! The operator's page: `/` and the files that it loads, carried in the binary.
//!
//! It is a client of the public API like any other: this module knows nothing about locks, and the browser uses
//! the same routes as `curl`. The files are plain HTML, CSS and ES modules without a build step;
//! `vendor/README.md` says where the libraries come from.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::header::{self, HeaderName, HeaderValue};

use super::errors::ApiError;
use super::request::Request;
use super::respond::{Response, entity_tag};
use crate::resource::messages::EntityTag;

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Of each file its path below `/page/`, its type and its bytes. The first is the page itself, which has no path there:
/// it is served at `/` only.
const FILES: &[(&str, &str, &[u8])] = &[
    ("", "text/html; charset=utf-8", include_bytes!("index.html")),
    (
        "style.css",
        "text/css; charset=utf-8",
        include_bytes!("style.css"),
    ),
    ("icon.svg", "image/svg+xml", include_bytes!("icon.svg")),
    ("app.js", JAVASCRIPT, include_bytes!("app.js")),
    ("api.js", JAVASCRIPT, include_bytes!("api.js")),
    ("live.js", JAVASCRIPT, include_bytes!("live.js")),
    ("text.js", JAVASCRIPT, include_bytes!("text.js")),
    ("parts.js", JAVASCRIPT, include_bytes!("parts.js")),
    ("listing.js", JAVASCRIPT, include_bytes!("listing.js")),
    ("now.js", JAVASCRIPT, include_bytes!("now.js")),
    ("locks.js", JAVASCRIPT, include_bytes!("locks.js")),
    ("lock.js", JAVASCRIPT, include_bytes!("lock.js")),
    ("documents.js", JAVASCRIPT, include_bytes!("documents.js")),
    ("actions.js", JAVASCRIPT, include_bytes!("actions.js")),
    ("events.js", JAVASCRIPT, include_bytes!("events.js")),
    ("preact.js", JAVASCRIPT, include_bytes!("vendor/preact.js")),
    ("hooks.js", JAVASCRIPT, include_bytes!("vendor/hooks.js")),
    ("htm.js", JAVASCRIPT, include_bytes!("vendor/htm.js")),
];

/// Tells the browser to load nothing from elsewhere, to run no script but the files of this page, and to turn
/// no text into markup (Trusted Types without a policy refuse that).
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
    (header::CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
    // The browser may keep a file but asks for it every time, so that after an upgrade it uses no old file.
    (header::CACHE_CONTROL, "no-cache"),
];

/// The entity tags of [`FILES`], in the same order. They change from build to build only.
static TAGS: LazyLock<Vec<EntityTag>> = LazyLock::new(|| {
    let tag = |bytes: &[u8]| {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        EntityTag::from(hasher.finish())
    };
    FILES.iter().map(|(.., bytes)| tag(bytes)).collect()
});

/// GET `/` and `/page/{file}`. No key is needed: the page itself asks the user for one.
///
/// # Errors
/// [`ApiError::NoRoute`] where the page has no such file; [`ApiError::Malformed`] for a malformed `If-None-Match`.
pub fn file(req: &Request) -> Response {
    let name = req.http.uri().path().strip_prefix("/page/");
    if name == Some("") {
        return Err(ApiError::NoRoute);
    }
    let name = name.unwrap_or_default();
    let mut files = FILES.iter().zip(TAGS.iter());
    let asked = files.find(|((known, ..), _)| *known == name);
    let ((_, content_type, bytes), tag) = asked.ok_or(ApiError::NoRoute)?;
    let known = req.if_none_match()?;
    let unchanged = known.is_some_and(|known| known.is_none_or(|tags| tags.contains(tag)));
    let mut response = match unchanged {
        true => HttpResponse::NotModified(),
        false => HttpResponse::Ok(),
    };
    for (name, value) in HEADERS {
        response.insert_header((name, HeaderValue::from_static(value)));
    }
    response.insert_header((header::ETAG, &entity_tag(*tag)[..]));
    if unchanged {
        return Ok(response.finish());
    }
    Ok(response
        .insert_header((header::CONTENT_TYPE, *content_type))
        .body(*bytes))
}
