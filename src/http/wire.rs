//! The JSON bodies of answers, as clients see them (contract, "Routes").

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

/// Why a request was refused.
#[derive(Debug, Default, Serialize)]
pub struct ErrorBody<'a> {
    /// A sentence.
    pub error: String,
    /// Stable; for programs.
    pub code: &'a str,
    /// With code `locked` only; `null` while the lock is reserved for a waiter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<Option<HolderBody>>,
    /// With code `locked` only: kept for a waiter, or for nobody while the lock-delay runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved: Option<bool>,
    /// With code `lease_forced_off`, while it is remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forced: Option<&'a Forced>,
}

/// Seconds as a number: an integer where it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecimalSeconds(pub Ttl);

impl Serialize for DecimalSeconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = self.0.millis();
        match millis % 1000 {
            0 => serializer.serialize_u64(millis / 1000),
            // Below 2^53, so that the decimals are exact to the millisecond.
            _ => serializer.serialize_f64(millis as f64 / 1000.0),
        }
    }
}

/// A lease as others see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HolderBody {
    /// Who the client says it is.
    pub owner: Option<Owner>,
    pub acquired_at: Time,
    /// `null`: does not expire, or is not known.
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

/// A lease as a description shows it.
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
    /// When its ticket was presented last; `null`: not since a restart.
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

/// A place in the queue as a description shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlaceBody {
    /// Names its ticket without telling it.
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

/// What the ticket is that came with the request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "role")]
pub enum YouBody {
    Holder,
    Waiting { position: usize },
}

impl From<Role> for YouBody {
    fn from(role: Role) -> YouBody {
        match role {
            Role::Holder => YouBody::Holder,
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
    /// The JSON text, as a string: PHP clients decode it a second time.
    pub data: &'a str,
}

#[derive(Debug, Serialize)]
pub struct UnavailableBody {
    pub unavailable: bool,
    /// Place in the queue; 1 is next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
}

/// The body of a grant. Written by hand, which spares the most frequent of all bodies a search of each of its keys for
/// what has to be escaped: a fiftieth of what a lock costs.
///
/// # Errors
/// None of these values can fail.
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

/// `before`: what stands between the value before and this one.
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
    /// False: the lock was free, or this waiter had been removed before.
    pub forced: bool,
    pub fencing_token: Option<FencingToken>,
    /// Of all leases that were ended.
    pub fencing_tokens: Vec<FencingToken>,
    /// That was to be removed.
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
    /// It goes when nobody holds or waits and it has no data.
    pub ephemeral: bool,
    /// Held, or reserved for a waiter, or in its lock-delay.
    pub locked: bool,
    /// The first of the holders.
    pub holder: Option<HolderBody>,
    pub holders: Vec<HoldingBody>,
    pub waiting: usize,
    /// Since when the first of them waits.
    pub waits_since: Option<Time>,
    /// The first places, as many as `queue` asks for. Not in listings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Vec<PlaceBody>>,
    pub selectors: usize,
    /// In the order of their selectors, as many as `selectors` asks for; only where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<&'a [DocumentSize]>,
    /// With them: what to send as `selectorsAfter` for the next ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selectors_next: Option<Option<Selector>>,
    /// With a live ticket only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub you: Option<YouBody>,
}

#[derive(Debug, Serialize)]
pub struct ListBody<'a> {
    pub resources: Vec<DescriptionBody<'a>>,
    /// What to send as `after` for the next page.
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
    /// By the server's clock.
    pub now: Time,
    pub key: KeyBody<'a>,
    pub locks: LockCountsBody<'a>,
    /// None where the store is this process's alone.
    pub instances: Vec<InstanceBody<'a>>,
}

/// One of the instances on a database, as this one sees it.
#[derive(Debug, Serialize)]
pub struct InstanceBody<'a> {
    /// Another one each time that it joins.
    pub id: String,
    /// Where it takes requests from the others.
    pub address: Option<&'a str>,
    /// It is the one that was asked.
    pub you: bool,
    /// `serving`, `leaving`, `dead`, or `unreachable`: it lives, and the one that was asked cannot reach it.
    pub state: &'a str,
    pub version: &'a str,
    /// Of the 1024 parts of all names, how many are its own.
    pub slots: usize,
}

/// The key that asked.
#[derive(Debug, Serialize)]
pub struct KeyBody<'a> {
    pub name: &'a str,
    /// `read`, `read_lock`, `write` or `admin`; each includes those before it.
    pub rights: &'a str,
    /// Of the names that it may read; `null`: all names.
    pub prefixes: Option<Vec<&'a str>>,
}

/// How much is held and waited for, of what this process has heard of since it began to serve: a lease from before
/// counts from when somebody asks for its name, or a listing shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LockCountsBody<'a> {
    /// Resources that are held.
    pub held: usize,
    /// Resources that are reserved for a waiter.
    pub reserved: usize,
    /// Tickets that wait.
    pub waiting: usize,
    /// Where somebody has waited longest.
    pub oldest_wait: Option<WaitBody<'a>>,
    /// Leases granted since the server started.
    pub grants: u64,
}

/// The first in a queue.
#[derive(Debug, Serialize)]
pub struct WaitBody<'a> {
    /// Of the resource.
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
