//! The JSON bodies of answers (`docs/protocol.md`, section "Routes").

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::time::Time;
use crate::lock::command::{Grant, HolderView, PlaceView};
use crate::lock::rows::Forced;
use crate::lock::{FencingToken, Millis, Seconds, Selector, Ttl, WallMillis};
use crate::resource::messages::Document;
use crate::store::DocumentSize;

/// Body of a refusal.
#[derive(Default, Serialize)]
pub struct ErrorBody<'a> {
    /// A sentence for people.
    pub error: String,
    /// The stable code, for programs.
    pub code: &'a str,
    /// With code `locked` only: the first lease of somebody else; `null` while the lock is reserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<Option<HolderBody<'a>>>,
    /// With code `locked` only: the lock is reserved for a waiter, or for nobody while the lock-delay runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved: Option<bool>,
    /// With code `lease_forced_off` only: who forced the ticket off and why, while that is remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forced: Option<&'a Forced>,
}

/// A lease in a refusal or description.
pub struct HolderBody<'a> {
    pub lease: &'a HolderView,
    /// As in the `holders` of a description; else as in a `holder`.
    pub whole: bool,
}

impl Serialize for HolderBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (lease, whole) = (self.lease, self.whole);
        let mut body = serializer.serialize_map(None)?;
        body.serialize_entry("owner", &lease.owner)?;
        if whole {
            body.serialize_entry("reason", &lease.reason)?;
            body.serialize_entry("mode", &lease.mode)?;
        }
        body.serialize_entry("acquiredAt", &Time(lease.acquired_at))?;
        body.serialize_entry("expiresAt", &lease.expires_at.map(Time))?;
        if whole {
            body.serialize_entry("expiresInMs", &lease.expires_in_ms)?;
        }
        body.serialize_entry("fencingToken", &lease.token)?;
        if whole {
            body.serialize_entry("renewedAt", &lease.renewed_at.map(Time))?;
            body.serialize_entry("client", &lease.client)?;
        }
        body.end()
    }
}

/// A place in the `queue` of a description.
pub struct PlaceBody<'a>(pub &'a PlaceView);

impl Serialize for PlaceBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let place = self.0;
        let mut body = serializer.serialize_map(None)?;
        body.serialize_entry("id", &place.id)?;
        body.serialize_entry("position", &place.position)?;
        body.serialize_entry("owner", &place.owner)?;
        body.serialize_entry("reason", &place.reason)?;
        body.serialize_entry("mode", &place.mode)?;
        body.serialize_entry("waitingSince", &Time(place.waiting_since))?;
        body.serialize_entry("lastSeenAt", &Time(place.last_seen_at))?;
        body.serialize_entry("near", &place.near)?;
        body.serialize_entry("client", &place.client)?;
        body.end()
    }
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

/// Appends the body of a grant to `text`. The frequent bodies are written by hand, because `serde_json` searches each
/// key for characters to escape: in this one that is a fiftieth of the cost of a lock.
///
/// # Errors
/// Never: all these values can be serialised.
pub fn granted(grant: &Grant, mut text: Vec<u8>) -> serde_json::Result<Vec<u8>> {
    let holder = &grant.holder;
    text.extend_from_slice(br#"{"locked":true,"ticket":""#);
    text.extend_from_slice(&grant.ticket.digits());
    field(&mut text, r#"","fencingToken":"#, &holder.token)?;
    field(&mut text, r#","owner":"#, &holder.owner)?;
    field(&mut text, r#","ttl":"#, &seconds(grant.ttl))?;
    field(&mut text, r#","acquiredAt":"#, &Time(holder.acquired_at))?;
    field(&mut text, r#","expiresAt":"#, &holder.expires_at.map(Time))?;
    field(&mut text, r#","expiresInMs":"#, &holder.expires_in_ms)?;
    field(&mut text, r#","waitedMs":"#, &grant.waited_ms)?;
    field(&mut text, r#","mode":"#, &holder.mode)?;
    text.push(b'}');
    Ok(text)
}

/// Appends the body of a renewal to `text`.
///
/// # Errors
/// As [`granted`].
pub fn renewed(
    ttl: Ttl,
    expires_at: Option<WallMillis>,
    expires_in_ms: Option<Millis>,
    token: FencingToken,
    mut text: Vec<u8>,
) -> serde_json::Result<Vec<u8>> {
    field(&mut text, r#"{"renewed":true,"ttl":"#, &seconds(ttl))?;
    field(&mut text, r#","expiresAt":"#, &expires_at.map(Time))?;
    field(&mut text, r#","expiresInMs":"#, &expires_in_ms)?;
    field(&mut text, r#","fencingToken":"#, &token)?;
    text.push(b'}');
    Ok(text)
}

/// Appends the JSON object with a document that the Symfony bundle expects. `data`: the document's JSON text, which
/// becomes a JSON string: PHP clients decode it a second time.
///
/// # Errors
/// As [`granted`].
pub fn wrapped(
    selector: &Selector,
    document: &Document,
    data: &str,
    mut text: Vec<u8>,
) -> serde_json::Result<Vec<u8>> {
    field(&mut text, r#"{"id":"#, &document.id)?;
    field(&mut text, r#","idResource":"#, document.resource.as_str())?;
    field(&mut text, r#","selector":"#, selector)?;
    field(&mut text, r#","data":"#, data)?;
    text.push(b'}');
    Ok(text)
}

/// Appends a value. `before`: the text between the previous value and this one.
fn field<T: Serialize + ?Sized>(
    text: &mut Vec<u8>,
    before: &str,
    value: &T,
) -> serde_json::Result<()> {
    text.extend_from_slice(before.as_bytes());
    serde_json::to_writer(text, value)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DescriptionBody<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub timeout: Seconds,
    pub slots: u16,
    pub lock_delay: u8,
    /// The resource is removed when nobody holds or waits and it has no document.
    pub ephemeral: bool,
    /// The lock is held, reserved for a waiter, or in its lock-delay.
    pub locked: bool,
    /// The first of `holders`.
    pub holder: Option<HolderBody<'a>>,
    pub holders: Vec<HolderBody<'a>>,
    pub waiting: usize,
    /// Since when the first waiter waits.
    pub waits_since: Option<Time>,
    /// The first places, as many as `?queue=` asks for. Not in listings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Vec<PlaceBody<'a>>>,
    pub selectors: usize,
    /// In the order of their selectors, as many as `?selectors=` asks for. Left out without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<&'a [DocumentSize]>,
    /// With `documents` only: the `selectorsAfter` of the next page; `null` on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selectors_next: Option<Option<Selector>>,
    /// The role of the live ticket that the request presents; left out without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub you: Option<Value>,
}

#[derive(Serialize)]
pub struct ListBody<'a> {
    pub resources: Vec<DescriptionBody<'a>>,
    /// The `after` of the next page; `null` if there is none.
    pub next: Option<&'a str>,
}
