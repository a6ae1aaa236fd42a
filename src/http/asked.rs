//! The JSON bodies of requests (`docs/protocol.md`, section "Routes"), and how their numbers are read.

use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, de};

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
    #[serde(default, deserialize_with = "slots", rename = "slots")]
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
    #[serde(default)]
    pub exact: bool,
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

/// A JSON number as an integer: 30.0 is as whole as 30. `None` if it has a fraction, is negative or too large.
fn whole(number: f64) -> Option<u64> {
    // 2^64: the smallest float that does not fit.
    let fits = number.fract() == 0.0 && (0.0..18_446_744_073_709_551_616.0).contains(&number);
    fits.then_some(number as u64)
}

/// A JSON value in the place of a number: an integer, another number, a string, or anything else.
#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenNumber {
    Whole(u64),
    Other(f64),
    Text(String),
    None(de::IgnoredAny),
}

impl WrittenNumber {
    /// Its value, if it is a JSON number and whole.
    fn whole(&self) -> Option<u64> {
        match self {
            WrittenNumber::Whole(number) => Some(*number),
            WrittenNumber::Other(number) => whole(*number),
            WrittenNumber::Text(_) | WrittenNumber::None(_) => None,
        }
    }

    /// Its value, if it is a JSON number or a string that [`decimal`] reads.
    fn decimal(&self) -> Option<f64> {
        match self {
            WrittenNumber::Whole(number) => Some(*number as f64),
            WrittenNumber::Other(number) => Some(*number),
            WrittenNumber::Text(text) => decimal(text),
            WrittenNumber::None(_) => None,
        }
    }
}

/// Reads an optional number with `read`; `null` counts as absent. `accepts`: the error text, which says what is
/// accepted.
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

/// A fencing token that the client got from the server; `null` counts as absent.
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

/// Decimal seconds as a number or a numeric string, 0 to 2147483647, rounded to the millisecond; `null` counts
/// as absent.
fn ttl<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ttl>, D::Error> {
    let read = |written: &WrittenNumber| {
        let most = f64::from(Seconds::MAX);
        let seconds = written.decimal().filter(|s| (0.0..=most).contains(s))?;
        Ttl::from_millis(to_millis(seconds))
    };
    let accepts = "seconds must be a number or a numeric string from 0 to 2147483647";
    number(deserializer, read, accepts)
}

/// Decimal seconds in milliseconds, rounded. A value above 0 stays above 0.
pub fn to_millis(seconds: f64) -> u64 {
    let millis = (seconds * 1000.0).round() as u64;
    if seconds > 0.0 { millis.max(1) } else { millis }
}

/// Parses digits, with a point among or after them.
fn decimal(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let begins = text.bytes().next().is_some_and(|b| b.is_ascii_digit());
    (plain && begins).then(|| text.parse().ok()).flatten()
}

/// An optional integer in `range`; `null` counts as absent. `field`: its name in the error text.
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
}
