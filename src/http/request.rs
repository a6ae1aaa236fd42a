//! What clients send, parsed strictly: names, query, headers, bodies.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::http::header::{self, HeaderName};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use percent_encoding::percent_decode_str;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::auth::{KnownKey, Right};
use super::context::RequestContext;
use super::errors::ApiError;
use super::headers::{IDEMPOTENCY_KEY, X_API_KEY, X_TICKET};
use super::paths::{self, Route, Segments, position};
use super::wire::to_millis;
use super::worker::Worker;
use crate::lock::{IdempotencyKey, KeyName, PresentedTicket, ResourceName, Selector, Ticket};
use crate::resource::messages::{Condition, EntityTag, EntityTags};

/// Documents nested deeper than this are refused: PHP's parser gives up there.
pub const JSON_DEPTH_MAX: usize = 511;
/// Other bodies are flat. Where our parser gives up.
const BODY_DEPTH_MAX: usize = 127;

/// Does the request carry a key with this right, and may this instance answer at all?
/// Returns the highest right that the key carries, to the name in the path if there is one.
pub fn authorize(
    req: &HttpRequest,
    known: &RequestContext,
    worker: &Worker,
    needed: Right,
) -> Result<Right, ApiError> {
    let key = authenticate(req, known)?;
    let right = match key.right_to_all() {
        Some(right) => Some(right),
        None if segments(req).get(0).is_none() => Some(key.right),
        // A name that is malformed is not within anybody's prefixes.
        None => key.right_to(name(req).as_ref().map_or("\0", ResourceName::as_str)),
    };
    let right = check_right(right, needed)?;
    check_conditions(req, known.route)?;
    worker.door.check().map_err(ApiError::Closed)?;
    Ok(right)
}

/// Header fields that make what is asked hang on something.
static CONDITIONS: [HeaderName; 3] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_UNMODIFIED_SINCE,
];

/// A condition that is not understood must not be ignored: the client would believe that it was met.
fn check_conditions(req: &HttpRequest, route: Option<Route>) -> Result<(), ApiError> {
    // Requests have few headers: to look through them is faster than to look for each condition.
    if !req.headers().keys().any(|name| CONDITIONS.contains(name)) {
        return Ok(());
    }
    let offered = route.map_or(&[][..], |route| route.conditions(req.method()));
    let refused = CONDITIONS
        .iter()
        .filter(|name| req.headers().contains_key(*name))
        .find(|name| !offered.contains(name));
    match refused {
        None => Ok(()),
        Some(name) => Err(ApiError::ConditionNotOffered(name.clone())),
    }
}

/// For a name that does not stand in the path.
pub fn authorize_name(
    req: &HttpRequest,
    known: &RequestContext,
    name: &ResourceName,
    needed: Right,
) -> Result<(), ApiError> {
    check_right(authenticate(req, known)?.right_to(name.as_str()), needed).map(|_| ())
}

/// The key that the request carries.
pub fn authenticate<'k>(
    req: &HttpRequest,
    known: &'k RequestContext,
) -> Result<&'k KnownKey, ApiError> {
    known.key.as_ref().ok_or_else(|| without_key(req))
}

/// Why a request has no key that is known.
fn without_key(req: &HttpRequest) -> ApiError {
    match req.headers().contains_key(&X_API_KEY) {
        true => ApiError::KeyUnknown,
        false => ApiError::KeyMissing,
    }
}

fn check_right(right: Option<Right>, needed: Right) -> Result<Right, ApiError> {
    match right {
        None => Err(ApiError::KeyUnknown),
        Some(right) if right < needed => Err(ApiError::KeyInsufficient(needed)),
        Some(right) => Ok(right),
    }
}

/// What the operator calls the key that the request carries.
pub fn caller_key(req: &HttpRequest, known: &RequestContext) -> Result<KeyName, ApiError> {
    KeyName::parse(&authenticate(req, known)?.name).map_err(|_| ApiError::KeyUnknown)
}

/// Percent-decoding that never guesses: an invalid escape or invalid UTF-8 is an error, so that two
/// different byte strings never become one name.
pub fn decode_strictly(text: &str) -> Result<Cow<'_, str>, &'static str> {
    if position(text, b'%').is_none() {
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

/// The segments of the path, as they were sent. Empty where it has none, which no handler is called for.
fn segments(req: &HttpRequest) -> Segments<'_> {
    Segments::of(req.uri().path()).unwrap_or_default()
}

fn malformed_name(why: &str) -> ApiError {
    ApiError::Malformed(format!("The resource name {why}."))
}

fn malformed_selector(why: &str) -> ApiError {
    ApiError::Malformed(format!("The selector {why}."))
}

fn parse_name(segments: &Segments<'_>) -> Result<ResourceName, ApiError> {
    let text = segments.get(0).unwrap_or_default();
    let text = decode_strictly(text).map_err(malformed_name)?;
    ResourceName::parse(&text).map_err(|error| malformed_name(&error.to_string()))
}

fn selector_text<'r>(segments: &Segments<'r>) -> Result<Cow<'r, str>, ApiError> {
    decode_strictly(segments.get(1).unwrap_or_default()).map_err(malformed_selector)
}

pub fn name(req: &HttpRequest) -> Result<ResourceName, ApiError> {
    parse_name(&segments(req))
}

/// The name in a path of `/history/{name}`.
pub fn history_name(req: &HttpRequest) -> Result<ResourceName, ApiError> {
    let text = paths::history_name(req.uri().path()).unwrap_or_default();
    let text = decode_strictly(text).map_err(malformed_name)?;
    ResourceName::parse(&text).map_err(|error| malformed_name(&error.to_string()))
}

pub fn name_and_selector(req: &HttpRequest) -> Result<(ResourceName, Selector), ApiError> {
    let segments = segments(req);
    let name = parse_name(&segments)?;
    let selector = Selector::parse(&selector_text(&segments)?);
    let selector = selector.map_err(|error| malformed_selector(&error.to_string()))?;
    Ok((name, selector))
}

/// For routes whose path has a selector that they do not need; a malformed one is refused all the same.
pub fn name_before_selector(req: &HttpRequest) -> Result<ResourceName, ApiError> {
    let segments = segments(req);
    let name = parse_name(&segments)?;
    Selector::check(&selector_text(&segments)?)
        .map_err(|error| malformed_selector(&error.to_string()))?;
    Ok(name)
}

/// The tags that a conditional header names; `None`: it is not there. Tags that are none of ours match nothing.
///
/// # Errors
/// It is neither `*` nor a list of tags in quotation marks.
fn entity_tags(
    req: &HttpRequest,
    header: HeaderName,
    weak: bool,
) -> Result<Option<EntityTags>, ApiError> {
    let malformed = || {
        ApiError::Malformed(format!(
            "The header {header} is not accepted: send * or tags in quotation marks."
        ))
    };
    let mut tags = None;
    for value in req.headers().get_all(&header) {
        let tags: &mut Vec<EntityTag> = tags.get_or_insert_default();
        let mut rest = value.to_str().unwrap_or_default();
        loop {
            // Lists may have empty elements.
            rest = rest.trim_start_matches([',', ' ', '\t']);
            if rest.is_empty() {
                break;
            }
            if rest.trim_end() == "*" {
                return Ok(Some(None));
            }
            let (is_weak, inside, after) = first_tag(rest).ok_or_else(malformed)?;
            if weak || !is_weak {
                tags.extend(EntityTag::from_str_radix(inside, 16).ok());
            }
            rest = after;
        }
    }
    Ok(tags.map(Some))
}

/// The first tag of a list: whether it is weak, what stands in its quotation marks, which may have commas, and
/// what follows. `None`: it is none.
fn first_tag(list: &str) -> Option<(bool, &str, &str)> {
    let (is_weak, quoted) = match list.strip_prefix("W/") {
        Some(quoted) => (true, quoted),
        None => (false, list),
    };
    let (inside, rest) = quoted.strip_prefix('"')?.split_once('"')?;
    let rest = rest.trim_start();
    (rest.is_empty() || rest.starts_with(',')).then_some((is_weak, inside, rest))
}

/// What `If-None-Match` names. Compared weakly: a proxy that compresses weakens tags.
///
/// # Errors
/// It is malformed.
pub fn if_none_match(req: &HttpRequest) -> Result<Option<EntityTags>, ApiError> {
    entity_tags(req, header::IF_NONE_MATCH, true)
}

/// On which a write depends: `If-Match`, compared strongly, or `If-None-Match: *`.
///
/// # Errors
/// One is malformed, both are there, or `If-None-Match` names tags.
pub fn write_condition(req: &HttpRequest) -> Result<Option<Condition>, ApiError> {
    let wanted = entity_tags(req, header::IF_MATCH, false)?;
    let unwanted = entity_tags(req, header::IF_NONE_MATCH, true)?;
    match (wanted, unwanted) {
        (None, None) => Ok(None),
        (Some(tags), None) => Ok(Some(Condition::Is(tags))),
        (None, Some(None)) => Ok(Some(Condition::Missing)),
        _ => Err(ApiError::Malformed(
            "The conditions are not accepted: a write takes If-Match, or If-None-Match: *."
                .to_owned(),
        )),
    }
}

/// The ticket that the request presents. An empty header counts as none; of several the last one counts.
pub fn presented(req: &HttpRequest) -> PresentedTicket {
    let Some(value) = req.headers().get_all(&X_TICKET).last() else {
        return PresentedTicket::Absent;
    };
    match value.to_str().map(str::trim) {
        Ok("") => PresentedTicket::Absent,
        Ok(text) => Ticket::parse(text).map_or(PresentedTicket::Malformed, PresentedTicket::Ticket),
        Err(_) => PresentedTicket::Malformed,
    }
}

pub fn idempotency_key(req: &HttpRequest) -> Result<Option<IdempotencyKey>, ApiError> {
    let Some(value) = req.headers().get(&IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let key = value.to_str().ok().and_then(IdempotencyKey::parse);
    key.map(Some).ok_or_else(|| {
        ApiError::Malformed(
            "The Idempotency-Key is not accepted: send 1 to 255 visible ASCII characters.".into(),
        )
    })
}

/// What comes before the first of these bytes, and what after it.
fn cut(text: &str, byte: u8) -> (&str, &str) {
    match position(text, byte) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    }
}

fn decode_query(text: &str) -> Result<Cow<'_, str>, ApiError> {
    let decoded = if position(text, b'+').is_some() {
        let spaced = text.replace('+', " ");
        decode_strictly(&spaced).map(|decoded| Cow::Owned(decoded.into_owned()))
    } else {
        decode_strictly(text)
    };
    decoded.map_err(|why| ApiError::Malformed(format!("The query {why}.")))
}

/// The query, decoded. Parameters that nobody asks for are ignored; of several the last one counts.
pub struct Query<'r>(Vec<(Cow<'r, str>, Cow<'r, str>)>);

impl Query<'_> {
    pub fn of(req: &HttpRequest) -> Result<Query<'_>, ApiError> {
        let mut pairs = Vec::new();
        let mut rest = req.query_string();
        while !rest.is_empty() {
            let (pair, left) = cut(rest, b'&');
            rest = left;
            if !pair.is_empty() {
                let (name, value) = cut(pair, b'=');
                pairs.push((decode_query(name)?, decode_query(value)?));
            }
        }
        Ok(Query(pairs))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let last = self.0.iter().rev().find(|(key, _)| key == name);
        last.map(|(_, value)| &**value)
    }

    /// `0`, `1`, `true` or `false`.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some("1" | "true") => Ok(Some(true)),
            Some("0" | "false") => Ok(Some(false)),
            Some(_) => Err(ApiError::Malformed(format!(
                "The query parameter {name} is not accepted: it takes 0, 1, true or false."
            ))),
        }
    }

    /// `wait`: decimal seconds, 0 to `max`.
    pub fn wait(&self, max: Duration) -> Result<Option<Duration>, ApiError> {
        let Some(text) = self.get("wait") else {
            return Ok(None);
        };
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let seconds = plain.then(|| text.parse::<f64>().ok()).flatten();
        match seconds {
            Some(seconds) if seconds <= max.as_secs_f64() => {
                Ok(Some(Duration::from_millis(to_millis(seconds))))
            }
            _ => Err(ApiError::Malformed(format!(
                "The query parameter wait is not accepted: it takes decimal seconds from 0 to {}.",
                max.as_secs_f64()
            ))),
        }
    }

    /// A whole number in this range.
    pub fn count(
        &self,
        name: &str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> Result<usize, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(default);
        };
        let count = text.parse().ok().filter(|n| range.contains(n));
        count.ok_or_else(|| {
            ApiError::Malformed(format!(
                "The query parameter {name} is not accepted: it takes a whole number from {} to {}.",
                range.start(),
                range.end()
            ))
        })
    }
}

/// Reads the whole body, up to `MAX_BODY_BYTES`, as long as it keeps coming.
pub async fn body(
    req: &HttpRequest,
    known: &RequestContext,
    payload: Payload,
    worker: &Worker,
) -> Result<Bytes, ApiError> {
    let headers = req.headers();
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
    if told.is_some_and(|length| length > worker.body_bytes_max) {
        return Err(ApiError::TooLarge(worker.body_bytes_max));
    }
    let read = timeout(
        worker.body_timeout,
        read_body(payload, worker.body_bytes_max),
    )
    .await
    .unwrap_or(Err(ApiError::SlowBody))?;
    if let Some(connection) = &known.connection {
        connection.end_body();
    }
    // It may have been long in coming.
    worker.door.check().map_err(ApiError::Closed)?;
    Ok(read)
}

async fn read_body(mut payload: Payload, max: usize) -> Result<Bytes, ApiError> {
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
    fn a_tag_ends_with_its_quotation_mark_whatever_is_in_it() {
        assert_eq!(
            first_tag(r#""a,b", W/"c""#),
            Some((false, "a,b", r#", W/"c""#))
        );
        assert_eq!(first_tag(r#"W/"" "#), Some((true, "", "")));
        for none in [
            r#"a"#,
            r#""a"#,
            r#""a"b"#,
            r#"w/"a""#,
            r#"W/a"#,
            r#""a""b""#,
        ] {
            assert_eq!(first_tag(none), None, "{none}");
        }
    }

    #[test]
    fn percent_decoding_is_strict() {
        assert_eq!(decode_strictly("shop%3A42").as_deref(), Ok("shop:42"));
        assert_eq!(decode_strictly("a%2Fb%25").as_deref(), Ok("a/b%"));
        assert_eq!(decode_strictly("c+d").as_deref(), Ok("c+d"));
        assert_eq!(decode_strictly("%E6%97%A5").as_deref(), Ok("日"));
        for bad in ["%", "%4", "bad%zz", "%+1", "%FF", "%C3", "%ED%A0%80"] {
            assert!(decode_strictly(bad).is_err(), "{bad}");
        }
    }

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
