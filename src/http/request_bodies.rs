//! The JSON bodies of requests (`docs/protocol.md`, section "Routes"), and how their numbers are read.

use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

use crate::lock::{Mode, ResourceOptions, Seconds, Ttl};

/// Body of POST `/resource`.
#[derive(Debug, Deserialize)]
pub struct CreateBody {
    pub name: String,
    /// TTL of leases that are requested without one (`default` profile), or how long requests wait (`php`
    /// profile).
    #[serde(default, deserialize_with = "seconds")]
    pub timeout: Option<Seconds>,
    /// How many exclusive leases may exist at once.
    #[serde(default, deserialize_with = "slots")]
    pub slots: Option<u16>,
    /// Seconds for which the lock is granted to nobody after a lease expired or was forced off.
    #[serde(default, deserialize_with = "lock_delay", rename = "lockDelay")]
    pub lock_delay: Option<u8>,
}

/// Body of a lock request.
#[derive(Debug, Default, Deserialize)]
pub struct LockBody {
    /// The name that the client gives itself: shown to others, never trusted.
    #[serde(default)]
    pub owner: Option<String>,
    /// TTL of this lease, instead of the resource's timeout.
    #[serde(default, deserialize_with = "ttl")]
    pub ttl: Option<Ttl>,
    /// What the lock is for, for people.
    #[serde(default)]
    pub reason: Option<String>,
    /// If left out: the mode of the live ticket, else exclusive.
    #[serde(default)]
    pub mode: Option<Mode>,
}

/// Body of a renew request.
#[derive(Debug, Default, Deserialize)]
pub struct RenewBody {
    #[serde(default, deserialize_with = "ttl")]
    pub ttl: Option<Ttl>,
    /// The lease ends one TTL from now, even if that is earlier than before.
    pub exact: Option<bool>,
}

/// Body of a force-unlock request.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForceBody {
    /// Logged, and told to the client that loses its lease or place.
    pub reason: String,
    /// Token of the only lease to end; without it and without `waiter`, every lease ends.
    #[serde(default, deserialize_with = "token")]
    pub fencing_token: Option<u64>,
    /// Id of a waiting ticket to end instead of a lease.
    #[serde(default)]
    pub waiter: Option<String>,
}

/// Whether a number is 0 as it is written. Its float does not tell: that of 1e-400 is 0 too.
fn is_zero(number: &str) -> bool {
    let mut mantissa = number.bytes().take_while(|b| !matches!(b, b'e' | b'E'));
    mantissa.all(|b| !(b'1'..=b'9').contains(&b))
}

/// A JSON number as an integer: 30.0 is as whole as 30. `None` if it is no number, has a fraction, is negative or
/// too large.
fn whole(json: &str) -> Option<u64> {
    if let Ok(number) = json.parse() {
        return Some(number);
    }
    let number: f64 = json.parse().ok()?;
    // 2^64: the smallest float that does not fit.
    let fits = number.fract() == 0.0 && (0.0..18_446_744_073_709_551_616.0).contains(&number);
    (fits && (number > 0.0 || is_zero(json))).then_some(number as u64)
}

/// The text of a JSON string; `None` for any other JSON.
fn string(json: &str) -> Option<String> {
    let is_string = json.starts_with('"');
    is_string.then(|| serde_json::from_str(json).ok()).flatten()
}

/// Reads an optional number with `read` from the JSON in its place; `null` counts as absent. `accepts`: the error
/// text, which says what is accepted.
fn number<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    read: impl FnOnce(&str) -> Option<T>,
    accepts: &str,
) -> Result<Option<T>, D::Error> {
    let Some(json) = Option::<Box<RawValue>>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let refused = || de::Error::custom(accepts);
    read(json.get()).map(Some).ok_or_else(refused)
}

/// A fencing token that the client got from the server; `null` counts as absent.
fn token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let accepts = "fencingToken must be an integer that is not negative";
    number(deserializer, whole, accepts)
}

/// Seconds as an integer or a numeric string, 0 to 2147483647; `null` counts as absent.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Seconds>, D::Error> {
    let read = |json: &str| {
        let number = match string(json) {
            Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
            _ => whole(json),
        };
        number.and_then(|n| Seconds::new(i64::try_from(n).ok()?))
    };
    let accepts = "seconds must be an integer or a numeric string from 0 to 2147483647";
    number(deserializer, read, accepts)
}

/// Decimal seconds as a number or a numeric string, 0 to 2147483647, rounded to the millisecond; `null` counts
/// as absent.
fn ttl<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ttl>, D::Error> {
    let read = |json: &str| {
        let most = f64::from(Seconds::MAX);
        let millis = match string(json) {
            Some(text) if text.starts_with(|c: char| c.is_ascii_digit()) => decimal(&text, most),
            _ => to_millis(json, most),
        };
        millis.and_then(Ttl::from_millis)
    };
    let accepts = "seconds must be a number or a numeric string from 0 to 2147483647";
    number(deserializer, read, accepts)
}

/// Seconds in milliseconds, rounded; a value above 0 stays above 0. `seconds`: a number as JSON writes it. `None` if
/// it is no number, negative or more than `most`.
fn to_millis(seconds: &str, most: f64) -> Option<u64> {
    let value: f64 = seconds.parse().ok()?;
    let millis = (value * 1000.0).round() as u64;
    let is_zero = is_zero(seconds);
    let fits = (0.0..=most).contains(&value) && (is_zero || !seconds.starts_with('-'));
    fits.then_some(if is_zero { 0 } else { millis.max(1) })
}

/// As [`to_millis`], of digits with a point among, before or after them.
pub fn decimal(seconds: &str, most: f64) -> Option<u64> {
    let plain = seconds.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    plain.then(|| to_millis(seconds, most)).flatten()
}

/// An optional integer in `range`; `null` counts as absent. `field`: its name in the error text.
fn whole_in<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
    deserializer: D,
    range: RangeInclusive<u64>,
    field: &str,
) -> Result<Option<T>, D::Error> {
    let read = |json: &str| {
        let number = whole(json).filter(|number| range.contains(number));
        T::try_from(number?).ok()
    };
    let (least, most) = (range.start(), range.end());
    let accepts = format!("{field} must be an integer from {least} to {most}");
    number(deserializer, read, &accepts)
}

fn slots<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    whole_in(deserializer, 1..=ResourceOptions::SLOTS_MAX.into(), "slots")
}

fn lock_delay<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    let most = ResourceOptions::LOCK_DELAY_MAX.into();
    whole_in(deserializer, 0..=most, "lockDelay")
}
