//! The JSON bodies, as clients see them (contract, "Routes").

use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::time::Time;
use crate::lock::command::{Grant, HolderView, PlaceView, Role};
use crate::lock::rows::Forced;
use crate::lock::{
    FencingToken, Mode, Owner, Reason, ResourceOptions, Seconds, Selector, Ticket, TicketId, Ttl,
};
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

/// Body of POST `/resource`.
#[derive(Debug, Deserialize)]
pub struct CreateBody {
    pub name: String,
    /// TTL of leases that bring none (`default` profile), or how long requests wait (`php` profile).
    #[serde(default, deserialize_with = "seconds")]
    pub timeout: Option<Seconds>,
    /// How many exclusive leases may stand beside each other.
    #[serde(default, deserialize_with = "slots", rename = "slots")]
    pub slots: Option<u16>,
    /// For how many seconds nobody is granted after a lease expired or was forced off.
    #[serde(default, deserialize_with = "lock_delay", rename = "lockDelay")]
    pub lock_delay: Option<u8>,
}

/// Body of lock.
#[derive(Debug, Default, Deserialize)]
pub struct LockBody {
    /// Shown to others, never trusted.
    #[serde(default)]
    pub owner: Option<String>,
    /// The lease's own TTL.
    #[serde(default, deserialize_with = "ttl")]
    pub ttl: Option<Ttl>,
    /// For people.
    #[serde(default)]
    pub reason: Option<String>,
    /// Left out: that of the live ticket, else exclusive.
    #[serde(default)]
    pub mode: Option<Mode>,
}

/// Body of renew.
#[derive(Debug, Default, Deserialize)]
pub struct RenewBody {
    #[serde(default, deserialize_with = "ttl")]
    pub ttl: Option<Ttl>,
    /// The lease ends a TTL from now, also if that is earlier than it would have.
    #[serde(default)]
    pub exact: bool,
}

/// Body of force-unlock.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForceBody {
    /// For the log.
    pub reason: String,
    /// Ends this very lease or none.
    #[serde(default, deserialize_with = "token")]
    pub fencing_token: Option<u64>,
    /// Ends this waiter and no lease.
    #[serde(default)]
    pub waiter: Option<String>,
}

/// JSON knows one kind of number: 30.0 is as whole as 30. `None`: it is not whole, negative, or too large.
fn whole(number: f64) -> Option<u64> {
    // 2^64, which is the first float that does not fit.
    let fits = number.fract() == 0.0 && (0.0..18_446_744_073_709_551_616.0).contains(&number);
    fits.then_some(number as u64)
}

/// A number as clients write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenNumber {
    Whole(u64),
    Other(f64),
    Text(String),
    None(de::IgnoredAny),
}

impl WrittenNumber {
    /// Where it was written as a number.
    fn whole(&self) -> Option<u64> {
        match self {
            WrittenNumber::Whole(number) => Some(*number),
            WrittenNumber::Other(number) => whole(*number),
            WrittenNumber::Text(_) | WrittenNumber::None(_) => None,
        }
    }

    /// A number, or digits with a point among or after them.
    fn decimal(&self) -> Option<f64> {
        match self {
            WrittenNumber::Whole(number) => Some(*number as f64),
            WrittenNumber::Other(number) => Some(*number),
            WrittenNumber::Text(text) => decimal(text),
            WrittenNumber::None(_) => None,
        }
    }
}

/// What `read` makes of a number; `null` counts as absent, and `accepts` says what a number has to be.
fn number<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    read: impl FnOnce(&WrittenNumber) -> Option<T>,
    accepts: &str,
) -> Result<Option<T>, D::Error> {
    let Some(written) = Option::<WrittenNumber>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let refused = || de::Error::custom(accepts);
    read(&written).map(Some).ok_or_else(refused)
}

/// A fencing token as a client repeats it; `null` counts as absent.
fn token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let accepts = "fencingToken must be an integer that is not negative";
    number(deserializer, WrittenNumber::whole, accepts)
}

/// Seconds as an integer or a numeric string, 0 to 2147483647; `null` counts as absent.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Seconds>, D::Error> {
    let read = |written: &WrittenNumber| {
        let number = match written {
            WrittenNumber::Text(text) if text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse().ok()
            }
            other => other.whole(),
        };
        number.and_then(|n| Seconds::new(i64::try_from(n).ok()?))
    };
    let accepts = "seconds must be an integer or a numeric string from 0 to 2147483647";
    number(deserializer, read, accepts)
}

/// Decimal seconds as a number or a numeric string, 0 to 2147483647, read to the millisecond; `null` counts as
/// absent.
fn ttl<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ttl>, D::Error> {
    let read = |written: &WrittenNumber| {
        let most = f64::from(Seconds::MAX);
        let seconds = written.decimal().filter(|s| (0.0..=most).contains(s))?;
        Ttl::from_millis(to_millis(seconds))
    };
    let accepts = "seconds must be a number or a numeric string from 0 to 2147483647";
    number(deserializer, read, accepts)
}

/// Decimal seconds to the millisecond. What is above 0 stays above 0.
pub fn to_millis(seconds: f64) -> u64 {
    let millis = (seconds * 1000.0).round() as u64;
    if seconds > 0.0 { millis.max(1) } else { millis }
}

/// Digits, with a point among or after them.
fn decimal(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let begins = text.bytes().next().is_some_and(|b| b.is_ascii_digit());
    (plain && begins).then(|| text.parse().ok()).flatten()
}

/// A whole number in this range; `null` counts as absent.
fn whole_in<'de, D: Deserializer<'de>>(
    deserializer: D,
    range: RangeInclusive<u16>,
    field: &str,
) -> Result<Option<u16>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let number = whole(number).and_then(|number| u16::try_from(number).ok());
    let number = number.filter(|number| range.contains(number));
    number.map(Some).ok_or_else(|| {
        let (least, most) = (range.start(), range.end());
        de::Error::custom(format!("{field} must be an integer from {least} to {most}"))
    })
}

fn slots<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    whole_in(deserializer, 1..=ResourceOptions::SLOTS_MAX, "slots")
}

fn lock_delay<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    let most = u16::from(ResourceOptions::LOCK_DELAY_MAX);
    let seconds = whole_in(deserializer, 0..=most, "lockDelay")?;
    Ok(seconds.and_then(|seconds| u8::try_from(seconds).ok()))
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
    fn a_ttl_is_decimal_seconds_to_the_millisecond() {
        let parse = |ttl: &str| {
            serde_json::from_str::<RenewBody>(&format!("{{\"ttl\":{ttl}}}"))
                .map(|body| body.ttl.map(Ttl::millis))
                .ok()
        };
        for (text, millis) in [
            ("30", 30_000),
            ("\"30\"", 30_000),
            ("1.5", 1_500),
            ("\"1.5\"", 1_500),
            ("0", 0),
            ("0.0001", 1),
            ("\"0.0001\"", 1),
            ("1e-9", 1),
            ("0.0014", 1),
            ("2147483647", 2_147_483_647_000),
        ] {
            assert_eq!(parse(text), Some(Some(millis)), "{text}");
        }
        assert_eq!(parse("null"), Some(None));
        for bad in [
            "-1",
            "-0.5",
            "2147483647.001",
            "1e300",
            "\"\"",
            "\".\"",
            "\".5\"",
            "\"-1\"",
            "\"1e3\"",
            "true",
            "[]",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

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
    fn a_timeout_is_an_integer_or_a_numeric_string() {
        let parse = |timeout: &str| {
            serde_json::from_str::<CreateBody>(&format!("{{\"name\":\"a\",\"timeout\":{timeout}}}"))
                .map(|body| body.timeout.map(Seconds::get))
                .ok()
        };
        assert_eq!(parse("30"), Some(Some(30)));
        assert_eq!(parse("\"30\""), Some(Some(30)));
        assert_eq!(parse("null"), Some(None));
        assert_eq!(parse("2147483647"), Some(Some(2_147_483_647)));
        assert_eq!(parse("30.0"), Some(Some(30)));
        assert_eq!(parse("3e1"), Some(Some(30)));
        for bad in [
            "-1",
            "2147483648",
            "1.5",
            "1e-3",
            "1e300",
            "-1.0",
            "\"\"",
            "\"1.5\"",
            "\"-1\"",
            "true",
            "[]",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
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
