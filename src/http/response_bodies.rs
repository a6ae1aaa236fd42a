//! The JSON bodies of answers (`docs/protocol.md`, section "Routes").

use std::net::IpAddr;

use serde::{Serialize, Serializer};

use super::time::Time;
use crate::lock::command::{Grant, HolderView, PlaceView, Role};
use crate::lock::rows::Forced;
use crate::lock::{FencingToken, Mode, Owner, Reason, Seconds, Selector, Ticket, TicketId, Ttl};
use crate::store::DocumentSize;

fn ticket_text<S: Serializer>(ticket: &Ticket, serializer: S) -> Result<S::Ok, S::Error> {
    let digits = ticket.digits();
    serializer.serialize_str(std::str::from_utf8(&digits).unwrap_or_default())
}

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

impl From<HolderView> for HolderBody {
    fn from(view: HolderView) -> HolderBody {
        HolderBody {
            owner: view.owner,
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

/// The role of the live ticket that the request presented.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "role")]
pub enum YouBody {
    Holder,
    Waiting { position: usize },
}

impl From<Role> for YouBody {
    fn from(role: Role) -> YouBody {
        match role {
            Role::Holder(_) => YouBody::Holder,
            Role::Waiting(position) => YouBody::Waiting { position },
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatedBody<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub timeout: Seconds,
    #[serde(skip_serializing_if = "is_one_slot")]
    pub slots: u16,
    #[serde(skip_serializing_if = "is_no_delay")]
    pub lock_delay: u8,
}

fn is_one_slot(slots: &u16) -> bool {
    *slots == 1
}

fn is_no_delay(seconds: &u8) -> bool {
    *seconds == 0
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

#[derive(Debug, Serialize)]
pub struct UnavailableBody {
    pub unavailable: bool,
    /// Position in the queue; 1 is next in line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
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
pub struct QueuedBody {
    pub locked: bool,
    #[serde(serialize_with = "ticket_text")]
    pub ticket: Ticket,
    pub position: usize,
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
pub struct ForcedBody {
    /// `false`: the lock was free, or the waiter had been removed before.
    pub forced: bool,
    pub fencing_token: Option<FencingToken>,
    /// The tokens of all leases that were ended.
    pub fencing_tokens: Vec<FencingToken>,
    /// The waiter that the request named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiter: Option<TicketId>,
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
    /// Only if the request presents a live ticket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub you: Option<YouBody>,
}

#[derive(Debug, Serialize)]
pub struct ListBody<'a> {
    pub resources: Vec<DescriptionBody<'a>>,
    /// The `after` of the next page; `null` if there is none.
    pub next: Option<&'a str>,
}

/// Body of GET `/status`.
#[derive(Debug, Serialize)]
pub struct ServerStatusBody<'a> {
    pub version: &'a str,
    /// `memory`, `sqlite` or `mysql`.
    pub store: &'a str,
    /// `default` or `php`.
    pub profile: &'a str,
    /// The time on the server's clock.
    pub now: Time,
    pub key: KeyBody<'a>,
    pub locks: LockCountsBody<'a>,
    /// Empty if the store is this process's alone.
    pub instances: Vec<InstanceBody<'a>>,
}

/// One instance on the database, as the answering instance sees it.
#[derive(Debug, Serialize)]
pub struct InstanceBody<'a> {
    /// A new id each time that the instance joins.
    pub id: String,
    /// The address at which it takes requests from other instances.
    pub address: Option<&'a str>,
    /// Whether it is the answering instance.
    pub you: bool,
    /// `serving`, `leaving`, `dead`, or `unreachable`: it lives, but the answering instance cannot reach it.
    pub state: &'a str,
    pub version: &'a str,
    /// How many of the 1,024 slots (parts of all names) it owns.
    pub slots: usize,
}

/// The key that the request presented.
#[derive(Debug, Serialize)]
pub struct KeyBody<'a> {
    pub name: &'a str,
    /// `read`, `read_lock`, `write` or `admin`; each includes those before it.
    pub rights: &'a str,
    /// The prefixes of the names that the key may read; `null`: all names.
    pub prefixes: Option<Vec<&'a str>>,
}

/// Counts of leases and waiters that this process has heard of since it began to serve. A lease from before
/// that time counts once a client asks for its name, or a listing shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LockCountsBody<'a> {
    /// Resources that are held.
    pub held: usize,
    /// Resources that are reserved for a waiter.
    pub reserved: usize,
    /// Tickets that wait.
    pub waiting: usize,
    /// The longest wait of all.
    pub oldest_wait: Option<WaitBody<'a>>,
    /// Leases granted since the server started.
    pub grants: u64,
}

/// The wait of the first client in a queue.
#[derive(Debug, Serialize)]
pub struct WaitBody<'a> {
    /// The name of the resource.
    pub name: &'a str,
    pub since: Time,
}

#[cfg(test)]
mod tests {
    use super::*;

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
