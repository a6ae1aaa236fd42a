//! The JSON bodies of answers (`docs/protocol.md`, section "Routes").
//!
//! They are written by hand, because `serde_json` searches each key for characters to escape: in the body of a grant
//! that is a fiftieth of the cost of a lock. Bodies that are seldom sent are values of `serde_json`, where they are made.

use std::io::Write;

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::time::rfc3339;
use crate::lock::command::{Grant, HolderView, PlaceView, Role};
use crate::lock::{FencingToken, Millis, Refusal, Selector, Ttl, WallMillis};
use crate::resource::messages::{Description, Document};
use crate::store::DocumentSize;

/// Bytes reserved for a body without its document, with room for a name or two.
const BODY_BYTES: usize = 256;

static JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer with this JSON text as its body.
pub fn json_text(mut builder: HttpResponseBuilder, text: impl Into<Bytes>) -> HttpResponse {
    let text: Bytes = text.into();
    builder
        .insert_header((header::CONTENT_TYPE, JSON.clone()))
        .body(text)
}

/// Appends a value. `before`: the text between the previous value and this one.
fn field<T: Serialize + ?Sized>(text: &mut Vec<u8>, before: &str, value: &T) {
    text.extend_from_slice(before.as_bytes());
    // Cannot fail: a vector takes everything, and all values of bodies can be serialised.
    let written = serde_json::to_writer(text, value);
    debug_assert!(written.is_ok(), "{written:?}");
}

/// Appends a time, or `null`. `before`: as of [`field`].
fn time(text: &mut Vec<u8>, before: &str, at: Option<WallMillis>) {
    let written = match at {
        Some(at) => write!(text, "{before}\"{}\"", rfc3339(at)),
        None => write!(text, "{before}null"),
    };
    // Cannot fail: a vector takes everything.
    debug_assert!(written.is_ok(), "{written:?}");
}

/// Appends a list whose items `write` appends. `before`: as of [`field`].
fn list<T>(text: &mut Vec<u8>, before: &str, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    text.extend_from_slice(before.as_bytes());
    text.push(b'[');
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            text.push(b',');
        }
        write(text, item);
    }
    text.push(b']');
}

/// Body of a refusal: a sentence for people and a code for programs. `refusal`: of the lock or the resource.
pub fn refused(sentence: &str, code: &str, refusal: Option<&Refusal>) -> Vec<u8> {
    let mut text = Vec::with_capacity(BODY_BYTES);
    field(&mut text, r#"{"error":"#, sentence);
    field(&mut text, r#","code":"#, code);
    match refusal {
        Some(Refusal::Locked { holder, reserved }) => {
            first_holder(&mut text, holder.as_deref());
            field(&mut text, r#","reserved":"#, reserved);
        }
        Some(Refusal::DeadByForce(forced)) => field(&mut text, r#","forced":"#, forced),
        _ => {}
    }
    text.push(b'}');
    text
}

/// Appends a lease. `whole`: as in the `holders` of a description; else as in a `holder`.
fn lease(text: &mut Vec<u8>, holder: &HolderView, whole: bool) {
    field(text, r#"{"owner":"#, &holder.owner);
    if whole {
        field(text, r#","reason":"#, &holder.reason);
        field(text, r#","mode":"#, &holder.mode);
    }
    time(text, r#","acquiredAt":"#, Some(holder.acquired_at));
    time(text, r#","expiresAt":"#, holder.expires_at);
    if whole {
        field(text, r#","expiresInMs":"#, &holder.expires_in_ms);
    }
    field(text, r#","fencingToken":"#, &holder.token);
    if whole {
        time(text, r#","renewedAt":"#, holder.renewed_at);
        field(text, r#","client":"#, &holder.client);
    }
    text.push(b'}');
}

/// Appends the `holder` of a refusal or description.
fn first_holder(text: &mut Vec<u8>, holder: Option<&HolderView>) {
    text.extend_from_slice(br#","holder":"#);
    match holder {
        Some(holder) => lease(text, holder, false),
        None => text.extend_from_slice(b"null"),
    }
}

/// Appends a place in the `queue` of a description.
fn place(text: &mut Vec<u8>, place: &PlaceView) {
    field(text, r#"{"id":"#, &place.id);
    field(text, r#","position":"#, &place.position);
    field(text, r#","owner":"#, &place.owner);
    field(text, r#","reason":"#, &place.reason);
    field(text, r#","mode":"#, &place.mode);
    time(text, r#","waitingSince":"#, Some(place.waiting_since));
    time(text, r#","lastSeenAt":"#, Some(place.last_seen_at));
    field(text, r#","near":"#, &place.near);
    field(text, r#","client":"#, &place.client);
    text.push(b'}');
}

/// Seconds as a JSON number; whole seconds are an integer.
fn seconds(ttl: Ttl) -> Value {
    let millis = ttl.millis();
    match millis % 1000 {
        0 => (millis / 1000).into(),
        // The number of milliseconds is below 2^53, so that the quotient is exact to the millisecond.
        _ => (millis as f64 / 1000.0).into(),
    }
}

/// The body of a grant.
pub fn granted(grant: &Grant) -> Vec<u8> {
    let holder = &grant.holder;
    let mut text = Vec::with_capacity(BODY_BYTES);
    text.extend_from_slice(br#"{"locked":true,"ticket":""#);
    text.extend_from_slice(&grant.ticket.digits());
    field(&mut text, r#"","fencingToken":"#, &holder.token);
    field(&mut text, r#","owner":"#, &holder.owner);
    field(&mut text, r#","ttl":"#, &seconds(grant.ttl));
    time(&mut text, r#","acquiredAt":"#, Some(holder.acquired_at));
    time(&mut text, r#","expiresAt":"#, holder.expires_at);
    field(&mut text, r#","expiresInMs":"#, &holder.expires_in_ms);
    field(&mut text, r#","waitedMs":"#, &grant.waited_ms);
    field(&mut text, r#","mode":"#, &holder.mode);
    text.push(b'}');
    text
}

/// The body of a renewal.
pub fn renewed(
    ttl: Ttl,
    expires_at: Option<WallMillis>,
    expires_in_ms: Option<Millis>,
    token: FencingToken,
) -> Vec<u8> {
    let mut text = Vec::with_capacity(BODY_BYTES);
    field(&mut text, r#"{"renewed":true,"ttl":"#, &seconds(ttl));
    time(&mut text, r#","expiresAt":"#, expires_at);
    field(&mut text, r#","expiresInMs":"#, &expires_in_ms);
    field(&mut text, r#","fencingToken":"#, &token);
    text.push(b'}');
    text
}

/// The JSON object with a document that the Symfony bundle expects. `data`: the document's JSON text, which becomes a
/// JSON string: PHP clients decode it a second time.
pub fn wrapped(selector: &Selector, document: &Document, data: &str) -> Vec<u8> {
    // A document inside a JSON string has its quotation marks escaped: about one byte in eight.
    let mut text = Vec::with_capacity(BODY_BYTES + data.len() + data.len() / 8);
    field(&mut text, r#"{"id":"#, &document.id);
    field(&mut text, r#","idResource":"#, document.resource.as_str());
    field(&mut text, r#","selector":"#, selector);
    field(&mut text, r#","data":"#, data);
    text.push(b'}');
    text
}

/// Appends a description. `in_full`: with the queue, and with the documents of [`described`]; a listing has neither.
fn description(
    text: &mut Vec<u8>,
    described: &Description,
    in_full: Option<(&[DocumentSize], usize)>,
) {
    let options = &described.options;
    field(text, r#"{"id":"#, described.id.as_str());
    field(text, r#","name":"#, described.name.as_str());
    field(text, r#","timeout":"#, &options.timeout);
    field(text, r#","slots":"#, &options.slots);
    field(text, r#","lockDelay":"#, &options.lock_delay);
    field(text, r#","ephemeral":"#, &options.ephemeral);
    field(text, r#","locked":"#, &described.locked);
    first_holder(text, described.holders.first());
    let whole = |text: &mut Vec<u8>, holder: &HolderView| lease(text, holder, true);
    list(text, r#","holders":"#, &described.holders, whole);
    field(text, r#","waiting":"#, &described.waiting);
    time(text, r#","waitsSince":"#, described.waits_since);
    if in_full.is_some() {
        list(text, r#","queue":"#, &described.queue, place);
    }
    field(text, r#","selectors":"#, &described.selectors);
    if let Some((sizes, asked)) = in_full
        && asked > 0
    {
        let shown = sizes.get(..asked).unwrap_or(sizes);
        let last = shown.last().filter(|_| sizes.len() > shown.len());
        field(text, r#","documents":"#, shown);
        let next = last.map(|size| &size.selector);
        field(text, r#","selectorsNext":"#, &next);
    }
    match described.you {
        None => {}
        Some(Role::Holder(_)) => text.extend_from_slice(br#","you":{"role":"holder"}"#),
        Some(Role::Waiting(position)) => {
            field(text, r#","you":{"role":"waiting","position":"#, &position);
            text.push(b'}');
        }
    }
    text.push(b'}');
}

/// The body of a description. `sizes`: the first documents, one more than the `asked` ones if there is a next page. If
/// none were asked for, the body has no list of them.
pub fn described(resource: &Description, sizes: &[DocumentSize], asked: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(BODY_BYTES);
    description(&mut text, resource, Some((sizes, asked)));
    text
}

/// The body of a listing. `next`: the `after` of the next page.
pub fn listed(resources: &[Description], next: Option<&str>) -> Vec<u8> {
    let mut text = Vec::with_capacity(BODY_BYTES);
    let one = |text: &mut Vec<u8>, resource: &Description| description(text, resource, None);
    list(&mut text, r#"{"resources":"#, resources, one);
    field(&mut text, r#","next":"#, &next);
    text.push(b'}');
    text
}
