//! The operator's page: `/` and the files that it loads, carried in the binary.
//!
//! It is a client of the public API like any other: this module knows nothing about locks, and the browser uses
//! the same routes as `curl`. The files are plain HTML, CSS and ES modules without a build step;
//! `vendor/README.md` says where the libraries come from.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};

use super::errors::ApiError;
use super::respond::Response;

/// A file of the page.
struct PageFile {
    /// The path below `/page/`; empty for the page itself, which is served at `/` only.
    name: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! script {
    ($name:literal, $path:literal) => {
        PageFile {
            name: $name,
            content_type: JAVASCRIPT,
            bytes: include_bytes!($path),
        }
    };
}

/// All files; the first is the page itself.
const FILES: &[PageFile] = &[
    PageFile {
        name: "",
        content_type: "text/html; charset=utf-8",
        bytes: include_bytes!("index.html"),
    },
    PageFile {
        name: "style.css",
        content_type: "text/css; charset=utf-8",
        bytes: include_bytes!("style.css"),
    },
    PageFile {
        name: "icon.svg",
        content_type: "image/svg+xml",
        bytes: include_bytes!("icon.svg"),
    },
    script!("app.js", "app.js"),
    script!("api.js", "api.js"),
    script!("live.js", "live.js"),
    script!("text.js", "text.js"),
    script!("parts.js", "parts.js"),
    script!("listing.js", "listing.js"),
    script!("now.js", "now.js"),
    script!("locks.js", "locks.js"),
    script!("lock.js", "lock.js"),
    script!("documents.js", "documents.js"),
    script!("actions.js", "actions.js"),
    script!("events.js", "events.js"),
    script!("preact.js", "vendor/preact.js"),
    script!("hooks.js", "vendor/hooks.js"),
    script!("htm.js", "vendor/htm.js"),
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
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let tag = |file: &PageFile| {
        let mut hasher = DefaultHasher::new();
        file.bytes.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    };
    FILES.iter().map(tag).collect()
});

/// Whether `If-None-Match` lists this tag. Weak tags count, because a proxy that compresses weakens them.
fn is_known(req: &HttpRequest, tag: &str) -> bool {
    let values = req.headers().get_all(header::IF_NONE_MATCH);
    let mut tags = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim);
    tags.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// GET `/` and `/page/{file}`. No key is needed: the page itself asks the user for one.
///
/// # Errors
/// [`ApiError::NoRoute`] where the page has no such file.
pub fn file(req: &HttpRequest) -> Response {
    let name = req.uri().path().strip_prefix("/page/");
    if name == Some("") {
        return Err(ApiError::NoRoute);
    }
    let name = name.unwrap_or_default();
    let asked = FILES.iter().zip(TAGS.iter()).find(|(f, _)| f.name == name);
    let (file, tag) = asked.ok_or(ApiError::NoRoute)?;
    let unchanged = is_known(req, tag);
    let mut response = match unchanged {
        true => HttpResponse::NotModified(),
        false => HttpResponse::Ok(),
    };
    for (name, value) in HEADERS {
        response.insert_header((name, HeaderValue::from_static(value)));
    }
    response.insert_header((header::ETAG, tag.as_str()));
    if unchanged {
        return Ok(response.finish());
    }
    Ok(response
        .insert_header((header::CONTENT_TYPE, file.content_type))
        .body(file.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_smaller_than_150_kilobytes() {
        let bytes: usize = FILES.iter().map(|file| file.bytes.len()).sum();
        assert!(bytes < 150_000, "{bytes}");
    }

    #[test]
    fn every_import_of_a_script_is_a_file_of_the_page() {
        for file in FILES.iter().filter(|f| f.content_type == JAVASCRIPT) {
            let text = std::str::from_utf8(file.bytes).unwrap();
            for quote in ['"', '\''] {
                for rest in text.split(&format!("from{quote}./")).skip(1) {
                    let name = rest.split(quote).next().unwrap();
                    assert!(
                        FILES.iter().any(|f| f.name == name),
                        "{} imports {name}",
                        file.name
                    );
                }
                for rest in text.split(&format!("from {quote}./")).skip(1) {
                    let name = rest.split(quote).next().unwrap();
                    assert!(
                        FILES.iter().any(|f| f.name == name),
                        "{} imports {name}",
                        file.name
                    );
                }
            }
        }
    }
}
