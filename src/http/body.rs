//! The body of a request: read within its bounds, and parsed strictly.

use actix_web::dev::Payload;
use actix_web::http::header;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::errors::ApiError;
use super::request::Request;

/// Documents nested deeper than this are refused: PHP's parser gives up there.
const JSON_DEPTH_MAX: usize = 511;
/// Other bodies are flat. Where our parser gives up.
const BODY_DEPTH_MAX: usize = 127;

/// Reads the whole body, up to `MAX_BODY_BYTES`, as long as it keeps coming.
pub async fn read(request: &Request, payload: Payload) -> Result<Bytes, ApiError> {
    let headers = request.http.headers();
    let comes = headers.contains_key(header::TRANSFER_ENCODING)
        || headers
            .get(header::CONTENT_LENGTH)
            .is_some_and(|length| length != "0");
    // Where there is no body, no clock has to be set.
    if !comes {
        return Ok(Bytes::new());
    }
    let told = headers.get(header::CONTENT_LENGTH);
    let told = told.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let worker = &request.worker;
    if told.is_some_and(|length| length > worker.body_bytes_max) {
        return Err(ApiError::TooLarge(worker.body_bytes_max));
    }
    let read = timeout(
        worker.body_timeout,
        read_whole(payload, worker.body_bytes_max),
    )
    .await
    .unwrap_or(Err(ApiError::SlowBody))?;
    if let Some(connection) = &request.connection {
        connection.end_body();
    }
    // It may have been long in coming.
    worker.door.check().map_err(ApiError::Closed)?;
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
            // Most bodies come in one piece, which need not be copied.
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

/// A body that has to be JSON of a certain form.
pub fn parse_json<T: DeserializeOwned>(body: &Bytes, accepted: &str) -> Result<T, ApiError> {
    let malformed = |why: String| {
        ApiError::Malformed(format!(
            "The body is not accepted ({why}): send {accepted}."
        ))
    };
    let text = json_utf8(body, BODY_DEPTH_MAX).map_err(malformed)?;
    // The parser would take an array for the fields in their order.
    if !text
        .trim_start_matches([' ', '\t', '\r', '\n'])
        .starts_with('{')
    {
        return Err(malformed("it is no JSON object".to_owned()));
    }
    serde_json::from_str(text).map_err(|error| malformed(error.to_string()))
}

/// The body as text, if it can be JSON that is nested no deeper than that.
fn json_utf8(body: &Bytes, depth_max: usize) -> Result<&str, String> {
    let text = std::str::from_utf8(body).map_err(|_| "invalid UTF-8".to_owned())?;
    if depth(text) > depth_max {
        return Err(format!("nested deeper than {depth_max} levels"));
    }
    Ok(text)
}

/// Any JSON text, kept byte for byte. An empty body stores `{}`, as the PHP server does.
pub fn json_text(body: Bytes) -> Result<Bytes, ApiError> {
    if body.is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    let malformed =
        |why: String| ApiError::Malformed(format!("The body is not accepted ({why}): send JSON."));
    let text = json_utf8(&body, JSON_DEPTH_MAX).map_err(malformed)?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| malformed(error.to_string()))?;
    if !surrogates_are_paired(text) {
        return Err(malformed("half of a surrogate pair".to_owned()));
    }
    Ok(body)
}

/// Whether each `\uD800` to `\uDFFF` in a JSON text is one half of a pair, in order. Others are no characters,
/// which PHP's parser refuses.
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

/// A body that may be left out. PHP writes an empty array for one, others `null`. What is no JSON object at all
/// counts as none as well where `lenient`.
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

/// How deep arrays and objects are nested in what should be a JSON text.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_json_text_is_kept_byte_for_byte() {
        for text in [
            "1e999",
            " [1, 2]\n",
            "\"\\ud83d\\ude00\"",
            r#""\\ud800 is no escape, \uD83D\uDE00\u00e9 are""#,
            "123456789012345678901234567890",
        ] {
            assert_eq!(json_text(Bytes::from(text)).unwrap(), text);
        }
        assert_eq!(json_text(Bytes::new()).unwrap(), "{}");
        for bad in [
            "{",
            "{\"a\":1} x",
            "'a'",
            "\u{feff}1",
            "nul",
            "[1,]",
            "\"\u{1}\"",
            r#""\ud800""#,
            r#""\ud800x""#,
            r#"["\udc00\ud800"]"#,
            r#"{"\ud83d\\ude00":1}"#,
        ] {
            assert!(json_text(Bytes::from(bad)).is_err(), "{bad}");
        }
        assert!(json_text(Bytes::from_static(b"\"\xff\"")).is_err());
    }

    #[test]
    fn json_may_be_nested_511_levels_deep() {
        let nested = |n: usize| Bytes::from(format!("{}{}", "[".repeat(n), "]".repeat(n)));
        assert!(json_text(nested(511)).is_ok());
        assert!(json_text(nested(512)).is_err());
        assert!(json_text(nested(100_000)).is_err());
        let quoted = format!("\"{}\\\"\"", "[".repeat(500));
        assert!(json_text(Bytes::from(quoted)).is_ok());
    }
}
