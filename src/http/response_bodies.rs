//! The JSON bodies of answers (`docs/protocol.md`, section "Routes").

use std::net::IpAddr;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::time::Time;
use crate::lock::command::{Grant, HolderView, PlaceView};
use crate::lock::rows::Forced;
use crate::lock::{FencingToken, Mode, Owner, Reason, Seconds, Selector, TicketId, Ttl};
use crate::store::DocumentSize;

/// Body of a refusal.
#[derive(Debug, Default, Serialize)]
pub struct ErrorBody<'a> {
    /// A sentence for people.
    pub error: String,
    /// The stable code, for programs.
    pub code: &'a str,
    /// With code `locked` only: the first lease of somebody else; `null` while the lock is reserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<Option<HolderBody>>,
    /// With code `locked` only: the lock is reserved for a waiter, or for nobody while the lock-delay runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved: Option<bool>,
    /// With code `lease_forced_off` only: who forced the ticket off and why, while that is remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forced: Option<&'a Forced>,
}

/// Seconds as a JSON number; whole seconds are an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecimalSeconds(pub Ttl);

impl Serialize for DecimalSeconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = self.0.millis();
        match millis % 1000 {
            0 => serializer.serialize_u64(millis / 1000),
            // The number of milliseconds is below 2^53, so that the quotient is exact to the millisecond.
            _ => serializer.serialize_f64(millis as f64 / 1000.0),
        }
    }
}

/// A lease in the `holder` of a refusal or description.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HolderBody {
    /// The name that the client gave itself.
    pub owner: Option<Owner>,
    pub acquired_at: Time,
    /// `null`: the lease does not expire, or its end is not known.
    pub expires_at: Option<Time>,
    /// Grows with every grant of this name.
    pub fencing_token: FencingToken,
}

impl From<&HolderView> for HolderBody {
    fn from(view: &HolderView) -> HolderBody {
        HolderBody {
            owner: view.owner.clone(),
            acquired_at: Time(view.acquired_at),
            expires_at: view.expires_at.map(Time),
            fencing_token: view.token,
        }
    }
}

/// A lease in the `holders` of a description.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldingBody {
    pub owner: Option<Owner>,
    pub reason: Option<Reason>,
    pub mode: Mode,
    pub acquired_at: Time,
    pub expires_at: Option<Time>,
    pub expires_in_ms: Option<u64>,
    pub fencing_token: FencingToken,
    /// When the lease's ticket was presented last; `null`: not since a restart.
    pub renewed_at: Option<Time>,
    pub client: Option<IpAddr>,
}

impl From<&HolderView> for HoldingBody {
    fn from(view: &HolderView) -> HoldingBody {
        HoldingBody {
            owner: view.owner.clone(),
            reason: view.reason.clone(),
            mode: view.mode,
            acquired_at: Time(view.acquired_at),
            expires_at: view.expires_at.map(Time),
            expires_in_ms: view.expires_in_ms,
            fencing_token: view.token,
            renewed_at: view.renewed_at.map(Time),
            client: view.client,
        }
    }
}

/// A place in the `queue` of a description.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlaceBody {
    /// Identifies the ticket without revealing it.
    pub id: TicketId,
    /// 1 is next in line.
    pub position: usize,
    pub owner: Option<Owner>,
    pub reason: Option<Reason>,
    pub mode: Mode,
    pub waiting_since: Time,
    pub last_seen_at: Time,
    pub near: bool,
    pub client: Option<IpAddr>,
}

impl From<&PlaceView> for PlaceBody {
    fn from(view: &PlaceView) -> PlaceBody {
        PlaceBody {
            id: view.id,
            position: view.position,
            owner: view.owner.clone(),
            reason: view.reason.clone(),
            mode: view.mode,
            waiting_since: Time(view.waiting_since),
            last_seen_at: Time(view.last_seen_at),
            near: view.near,
            client: view.client,
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DataBody<'a> {
    pub id: &'a str,
    pub id_resource: &'a str,
    pub selector: &'a str,
    /// The document's JSON text as a JSON string: PHP clients decode it a second time.
    pub data: &'a str,
}

/// Appends the body of a grant to `text`. Written by hand, because `serde_json` searches each key for
/// characters to escape: in this most frequent of all bodies that is a fiftieth of the cost of a lock.
///
/// # Errors
/// Never: all these values can be serialised.
pub fn granted(grant: &Grant, mut text: Vec<u8>) -> serde_json::Result<Vec<u8>> {
    let holder = &grant.holder;
    text.extend_from_slice(br#"{"locked":true,"ticket":""#);
    text.extend_from_slice(&grant.ticket.digits());
    field(&mut text, r#"","fencingToken":"#, &holder.token)?;
    field(&mut text, r#","owner":"#, &holder.owner)?;
    field(&mut text, r#","ttl":"#, &DecimalSeconds(grant.ttl))?;
    field(&mut text, r#","acquiredAt":"#, &Time(holder.acquired_at))?;
    field(&mut text, r#","expiresAt":"#, &holder.expires_at.map(Time))?;
    field(&mut text, r#","expiresInMs":"#, &holder.expires_in_ms)?;
    field(&mut text, r#","waitedMs":"#, &grant.waited_ms)?;
    field(&mut text, r#","mode":"#, &holder.mode)?;
    text.push(b'}');
    Ok(text)
}

/// Appends a value. `before`: the text between the previous value and this one.
fn field(text: &mut Vec<u8>, before: &str, value: &impl Serialize) -> serde_json::Result<()> {
    text.extend_from_slice(before.as_bytes());
    serde_json::to_writer(text, value)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RenewedBody {
    pub renewed: bool,
    pub ttl: DecimalSeconds,
    pub expires_at: Option<Time>,
    pub expires_in_ms: Option<u64>,
    pub fencing_token: FencingToken,
}

#[derive(Debug, Serialize)]
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
    pub holder: Option<HolderBody>,
    pub holders: Vec<HoldingBody>,
    pub waiting: usize,
    /// Since when the first waiter waits.
    pub waits_since: Option<Time>,
    /// The first places, as many as `?queue=` asks for. Not in listings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Vec<PlaceBody>>,
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

#[derive(Debug, Serialize)]
pub struct ListBody<'a> {
    pub resources: Vec<DescriptionBody<'a>>,
    /// The `after` of the next page; `null` if there is none.
    pub next: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Ticket;

    #[test]
    fn seconds_in_answers_are_numbers_and_an_integer_stays_one() {
        let text = |millis| {
            let ttl = Ttl::from_millis(millis).unwrap();
            serde_json::to_string(&DecimalSeconds(ttl)).unwrap()
        };
        assert_eq!(text(30_000), "30");
        assert_eq!(text(0), "0");
        assert_eq!(text(1_500), "1.5");
        assert_eq!(text(2_147_483_646_999), "2147483646.999");
    }

    #[test]
    fn a_grant_that_is_written_by_hand_is_json_with_all_its_fields_in_their_order() {
        let ticket = Ticket::parse("0123456789abcdef0123456789abcdef").unwrap();
        let mut grant = Grant {
            ticket,
            holder: HolderView {
                owner: Owner::parse("a \"quoted\" owner").ok(),
                reason: None,
                mode: Mode::Shared,
                acquired_at: 0,
                expires_at: Some(1_500),
                expires_in_ms: Some(1_500),
                token: FencingToken(7),
                queued_at: None,
                renewed_at: None,
                client: None,
            },
            ttl: Ttl::from_millis(1_500).unwrap(),
            waited_ms: 3,
            new: true,
            ended: None,
        };
        let text = |grant: &Grant| String::from_utf8(granted(grant, Vec::new()).unwrap()).unwrap();
        assert_eq!(
            text(&grant),
            "{\"locked\":true,\"ticket\":\"0123456789abcdef0123456789abcdef\",\"fencingToken\":7,\
             \"owner\":\"a \\\"quoted\\\" owner\",\"ttl\":1.5,\"acquiredAt\":\"1970-01-01T00:00:00.000Z\",\
             \"expiresAt\":\"1970-01-01T00:00:01.500Z\",\"expiresInMs\":1500,\"waitedMs\":3,\"mode\":\"shared\"}"
        );
        let holder = &mut grant.holder;
        (holder.owner, holder.expires_at, holder.expires_in_ms) = (None, None, None);
        let parsed: serde_json::Value = serde_json::from_str(&text(&grant)).unwrap();
        assert!(parsed["owner"].is_null() && parsed["expiresAt"].is_null());
        assert_eq!(parsed.as_object().unwrap().len(), 10);
    }
}
