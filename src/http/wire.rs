//! The JSON bodies, as clients see them (contract, "Routes").

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::time::Time;
use crate::lock::command::HolderView;
use crate::lock::{FencingToken, Owner, Seconds, Ticket};

fn ticket_text<S: Serializer>(ticket: &Ticket, serializer: S) -> Result<S::Ok, S::Error> {
    let digits = ticket.digits();
    serializer.serialize_str(std::str::from_utf8(&digits).unwrap_or_default())
}

/// Why a request was refused.
#[derive(Debug, Serialize)]
pub struct ErrorBody<'a> {
    /// A sentence.
    pub error: String,
    /// Stable; for programs.
    pub code: &'a str,
    /// With code `locked` only; `null` while the lock is reserved for a waiter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<Option<&'a HolderBody>>,
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

/// Body of POST `/resource`.
#[derive(Debug, Deserialize)]
pub struct CreateBody {
    pub name: String,
    /// TTL of leases that bring none (`default` profile), or how long requests wait (`php` profile).
    #[serde(default, deserialize_with = "seconds")]
    pub timeout: Option<Seconds>,
}

/// Body of lock.
#[derive(Debug, Default, Deserialize)]
pub struct LockBody {
    /// Shown to others, never trusted.
    #[serde(default)]
    pub owner: Option<String>,
    /// The lease's own TTL.
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
    /// For the log.
    pub reason: String,
    /// Ends this very lease or none.
    #[serde(default, deserialize_with = "token")]
    pub fencing_token: Option<u64>,
}

/// JSON knows one kind of number: 30.0 is as whole as 30. `None`: it is not whole, negative, or too large.
fn whole(number: f64) -> Option<u64> {
    // 2^64, which is the first float that does not fit.
    let fits = number.fract() == 0.0 && (0.0..18_446_744_073_709_551_616.0).contains(&number);
    fits.then_some(number as u64)
}

/// A fencing token as a client repeats it; `null` counts as absent.
fn token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Fraction(f64),
        Other(de::IgnoredAny),
    }
    let value = match Option::<Written>::deserialize(deserializer)? {
        None => return Ok(None),
        Some(Written::Number(number)) => Some(number),
        Some(Written::Fraction(number)) => whole(number),
        Some(Written::Other(_)) => None,
    };
    let error = || de::Error::custom("fencingToken must be an integer that is not negative");
    value.map(Some).ok_or_else(error)
}

/// Seconds as an integer or a numeric string, 0 to 2147483647; `null` counts as absent.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Seconds>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(i64),
        Fraction(f64),
        Text(String),
        Other(de::IgnoredAny),
    }
    let value = match Option::<Written>::deserialize(deserializer)? {
        None => return Ok(None),
        Some(Written::Number(number)) => Some(number),
        Some(Written::Fraction(number)) => whole(number).and_then(|n| i64::try_from(n).ok()),
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
    /// Place in the queue; 1 is next.
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
    /// Seconds; 0: does not expire.
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
    /// False: the lock was free.
    pub forced: bool,
    pub fencing_token: Option<FencingToken>,
}

#[derive(Debug, Serialize)]
pub struct DescriptionBody<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub timeout: Seconds,
    /// Held, or reserved for a waiter.
    pub locked: bool,
    pub holder: Option<HolderBody>,
    pub waiting: usize,
    pub selectors: usize,
}

#[derive(Debug, Serialize)]
pub struct ListBody<'a> {
    pub resources: Vec<DescriptionBody<'a>>,
    /// What to send as `after` for the next page.
    pub next: Option<&'a str>,
}

#[derive(Debug, Serialize)]
pub struct StatusBody<'a> {
    pub status: &'a str,
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
    pub locks: LockCountsBody,
}

/// The key that asked.
#[derive(Debug, Serialize)]
pub struct KeyBody<'a> {
    pub name: &'a str,
    /// `read`, `read_lock`, `write` or `admin`; each includes those before it.
    pub rights: &'a str,
}

/// How much is held and waited for.
#[derive(Debug, Serialize)]
pub struct LockCountsBody {
    /// Resources that are held.
    pub held: usize,
    /// Resources that are reserved for a waiter.
    pub reserved: usize,
    /// Tickets that wait.
    pub waiting: usize,
    /// Leases granted since the server started.
    pub grants: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

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
