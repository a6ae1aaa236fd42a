//! The JSON bodies, as clients see them (contract, "Routes").

use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::lock::command::HolderView;
use crate::lock::{FencingToken, Owner, Seconds, Ticket, WallMillis};

/// A time as RFC 3339 UTC with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Time(pub WallMillis);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The formatter takes years up to 9999; a TTL can reach no further than that.
        let last = 253_402_300_799_999;
        let time = UNIX_EPOCH + Duration::from_millis(self.0.min(last));
        serializer.collect_str(&humantime::format_rfc3339_millis(time))
    }
}

fn ticket_text<S: Serializer>(ticket: &Ticket, serializer: S) -> Result<S::Ok, S::Error> {
    let digits = ticket.digits();
    serializer.serialize_str(std::str::from_utf8(&digits).unwrap_or_default())
}

#[derive(Debug, Serialize)]
pub struct ErrorBody<'a> {
    /// A sentence.
    pub error: String,
    /// Stable; for programs.
    pub code: &'a str,
    /// With code `locked` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<Option<&'a HolderBody>>,
}

/// A lease as others see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HolderBody {
    pub owner: Option<Owner>,
    pub acquired_at: Time,
    pub expires_at: Option<Time>,
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

/// Body of POST `/resource`.
#[derive(Debug, Deserialize)]
pub struct CreateBody {
    pub name: String,
    #[serde(default, deserialize_with = "seconds")]
    pub timeout: Option<Seconds>,
}

/// Body of lock.
#[derive(Debug, Default, Deserialize)]
pub struct LockBody {
    #[serde(default)]
    pub owner: Option<String>,
    #[serde(default, deserialize_with = "seconds")]
    pub ttl: Option<Seconds>,
}

/// Body of renew.
#[derive(Debug, Default, Deserialize)]
pub struct RenewBody {
    #[serde(default, deserialize_with = "seconds")]
    pub ttl: Option<Seconds>,
}

/// Body of force-unlock.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForceBody {
    pub reason: String,
    #[serde(default)]
    pub fencing_token: Option<u64>,
}

/// Seconds as an integer or a numeric string, 0 to 2147483647; `null` counts as absent.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Seconds>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(i64),
        Text(String),
        Other(de::IgnoredAny),
    }
    let value = match Option::<Written>::deserialize(deserializer)? {
        None => return Ok(None),
        Some(Written::Number(number)) => Some(number),
        Some(Written::Text(text)) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        Some(Written::Text(_) | Written::Other(_)) => None,
    };
    value.and_then(Seconds::new).map(Some).ok_or_else(|| {
        de::Error::custom("seconds must be an integer or a numeric string from 0 to 2147483647")
    })
}

#[derive(Debug, Serialize)]
pub struct CreatedBody<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub timeout: Seconds,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantedBody {
    pub locked: bool,
    #[serde(serialize_with = "ticket_text")]
    pub ticket: Ticket,
    pub fencing_token: FencingToken,
    pub owner: Option<Owner>,
    pub ttl: Seconds,
    pub acquired_at: Time,
    pub expires_at: Option<Time>,
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
    pub ttl: Seconds,
    pub expires_at: Option<Time>,
    pub fencing_token: FencingToken,
}

#[derive(Debug, Serialize)]
pub struct UnlockedBody {
    pub unlocked: bool,
    /// Why the ticket was dead already (`php` profile).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ForcedBody {
    pub forced: bool,
    pub fencing_token: Option<FencingToken>,
}

#[derive(Debug, Serialize)]
pub struct DescriptionBody<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub timeout: Seconds,
    pub locked: bool,
    pub holder: Option<HolderBody>,
    pub waiting: usize,
    pub selectors: usize,
}

#[derive(Debug, Serialize)]
pub struct ListBody<'a> {
    pub resources: Vec<DescriptionBody<'a>>,
    pub next: Option<&'a str>,
}

#[derive(Debug, Serialize)]
pub struct StatusBody<'a> {
    pub status: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_utc_with_milliseconds() {
        let text = serde_json::to_string(&Time(1_795_449_984_007)).unwrap();
        assert_eq!(text, "\"2026-11-23T16:06:24.007Z\"");
        assert!(serde_json::to_string(&Time(u64::MAX)).is_ok());
    }

    #[test]
    fn seconds_are_an_integer_or_a_numeric_string() {
        let parse = |ttl: &str| {
            serde_json::from_str::<RenewBody>(&format!("{{\"ttl\":{ttl}}}"))
                .map(|body| body.ttl.map(Seconds::get))
                .ok()
        };
        assert_eq!(parse("30"), Some(Some(30)));
        assert_eq!(parse("\"30\""), Some(Some(30)));
        assert_eq!(parse("null"), Some(None));
        assert_eq!(parse("2147483647"), Some(Some(2_147_483_647)));
        for bad in [
            "-1",
            "2147483648",
            "1.5",
            "\"\"",
            "\"1.5\"",
            "\"-1\"",
            "true",
            "[]",
            "1e3",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
