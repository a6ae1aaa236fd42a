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

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const JS: &str = "text/javascript; charset=utf-8";

/// Of each file its path, its type and its bytes.
const FILES: &[(&str, &str, &[u8])] = &[
    ("/", HTML, include_bytes!("index.html")),
    ("/page/style.css", CSS, include_bytes!("style.css")),
    ("/page/icon.svg", SVG, include_bytes!("icon.svg")),
    ("/page/app.js", JS, include_bytes!("app.js")),
    ("/page/api.js", JS, include_bytes!("api.js")),
    ("/page/live.js", JS, include_bytes!("live.js")),
    ("/page/text.js", JS, include_bytes!("text.js")),
    ("/page/parts.js", JS, include_bytes!("parts.js")),
    ("/page/listing.js", JS, include_bytes!("listing.js")),
    ("/page/now.js", JS, include_bytes!("now.js")),
    ("/page/locks.js", JS, include_bytes!("locks.js")),
    ("/page/lock.js", JS, include_bytes!("lock.js")),
    ("/page/documents.js", JS, include_bytes!("documents.js")),
    ("/page/actions.js", JS, include_bytes!("actions.js")),
    ("/page/events.js", JS, include_bytes!("events.js")),
    ("/page/preact.js", JS, include_bytes!("vendor/preact.js")),
    ("/page/hooks.js", JS, include_bytes!("vendor/hooks.js")),
    ("/page/htm.js", JS, include_bytes!("vendor/htm.js")),
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
pub fn file(req: &Request) -> Response {
    let mut files = FILES.iter().zip(TAGS.iter());
    let asked = files.find(|((path, ..), _)| *path == req.http.uri().path());
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
