//! The body of a request: read within its limits and parsed strictly.

use actix_web::dev::Payload;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::errors::ApiError;
use super::request::Request;

/// Deepest nesting of a body. PHP's parser refuses deeper ones.
const JSON_DEPTH_MAX: usize = 511;

/// Reads the whole body: at most `MAX_BODY_BYTES`, within `BODY_TIMEOUT_SECONDS`.
///
/// # Errors
/// [`ApiError::TooLarge`], [`ApiError::SlowBody`]; [`ApiError::Malformed`] if the body ends early;
/// [`ApiError::Closed`] if requests are no longer answered when the body has arrived.
pub async fn read(request: &Request, payload: Payload) -> Result<Bytes, ApiError> {
    let worker = &request.worker;
    let max = worker.body_bytes_max;
    match request.body_length() {
        // Without a body no timer is needed.
        Some(0) => return Ok(Bytes::new()),
        Some(length) if length > max => return Err(ApiError::TooLarge(max)),
        _ => {}
    }
    let read = timeout(worker.body_timeout, read_whole(payload, max)).await;
    let read = read.unwrap_or(Err(ApiError::SlowBody))?;
    if let Some(connection) = &request.connection {
        connection.end_body();
    }
    // The body may have taken long to arrive: the gate may have closed meanwhile.
    worker.cluster.check()?;
    Ok(read)
}

async fn read_whole(mut payload: Payload, max: usize) -> Result<Bytes, ApiError> {
    let mut whole = Bytes::new();
    let mut parts = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| {
            ApiError::Malformed("The body ended before it was complete.".to_owned())
        })?;
        if whole.len() + parts.len() + chunk.len() > max {
            return Err(ApiError::TooLarge(max));
        }
        if whole.is_empty() && parts.is_empty() {
            // Most bodies arrive in one chunk, which is kept without a copy.
            whole = chunk;
        } else {
            parts.extend_from_slice(&std::mem::take(&mut whole));
            parts.extend_from_slice(&chunk);
        }
    }
    Ok(if parts.is_empty() {
        whole
    } else {
        parts.freeze()
    })
}

/// Parses a body that has to be a JSON object. `accepted`: what the error sentence asks the client to send.
pub fn parse_json<T: DeserializeOwned>(body: &Bytes, accepted: &str) -> Result<T, ApiError> {
    let malformed = |why: String| {
        ApiError::Malformed(format!(
            "The body is not accepted ({why}): send {accepted}."
        ))
    };
    let text = json_utf8(body).map_err(malformed)?;
    // serde would also accept an array with the fields in their order.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(malformed("it is not a JSON object".to_owned()));
    }
    serde_json::from_str(text).map_err(|error| malformed(error.to_string()))
}

/// The body as UTF-8 text that is nested at most [`JSON_DEPTH_MAX`] levels deep. Not parsed yet.
fn json_utf8(body: &Bytes) -> Result<&str, String> {
    let text = std::str::from_utf8(body).map_err(|_| "invalid UTF-8".to_owned())?;
    if depth(text) > JSON_DEPTH_MAX {
        return Err(format!("nested deeper than {JSON_DEPTH_MAX} levels"));
    }
    Ok(text)
}

/// Checks that a document is JSON that PHP's parser accepts too, and keeps it byte for byte. An empty body becomes `{}`,
/// as in the PHP server.
pub fn json_text(body: Bytes) -> Result<Bytes, ApiError> {
    if body.is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    let malformed =
        |why: String| ApiError::Malformed(format!("The body is not accepted ({why}): send JSON."));
    let text = json_utf8(&body).map_err(malformed)?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| malformed(error.to_string()))?;
    if !surrogates_are_paired(text) {
        return Err(malformed("half of a surrogate pair".to_owned()));
    }
    Ok(body)
}

/// Whether each escape `\uD800` to `\uDFFF` in a JSON text is half of a surrogate pair, high half first. PHP's
/// parser refuses an unpaired half, which is no character.
fn surrogates_are_paired(text: &str) -> bool {
    let unit = |escape: &str| {
        let digits = escape.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        rest = &rest[at..];
        match unit(rest) {
            None => rest = rest.get(2..).unwrap_or_default(),
            Some(0xd800..=0xdbff) => {
                let low = rest.get(6..).and_then(unit);
                if !low.is_some_and(|low| (0xdc00..=0xdfff).contains(&low)) {
                    return false;
                }
                rest = &rest[12..];
            }
            Some(0xdc00..=0xdfff) => return false,
            Some(_) => rest = &rest[6..],
        }
    }
    true
}

/// Parses a body that may be left out, which gives the default. PHP clients send an empty array for an absent
/// body, others `null`. If `lenient`, anything that is not a JSON object counts as absent too.
pub fn parse_optional<T: DeserializeOwned + Default>(
    body: &Bytes,
    accepted: &str,
    lenient: bool,
) -> Result<T, ApiError> {
    let text = body.trim_ascii();
    let none = text.is_empty() || text == b"null";
    let list = text
        .strip_prefix(b"[")
        .and_then(|rest| rest.strip_suffix(b"]"));
    if none || list.is_some_and(|inside| inside.trim_ascii().is_empty()) {
        return Ok(T::default());
    }
    let parsed = parse_json(body, accepted);
    if lenient && serde_json::from_slice::<Map<String, Value>>(body).is_err() {
        return Ok(T::default());
    }
    parsed
}

/// How deep arrays and objects are nested in a text that should be JSON.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(inside) = bytes.next() {
                    match inside {
                        b'"' => break,
                        b'\\' => {
                            bytes.next();
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}
