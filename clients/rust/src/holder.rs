//! Who holds a lock, and who took it away, as others see it.

use serde::Deserialize;

/// A lease as others see it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Holder {
    /// Who it says it is.
    pub owner: Option<String>,
    /// What it is held for.
    pub reason: Option<String>,
    /// `exclusive` or `shared`.
    pub mode: Option<String>,
    /// Since when it is held.
    pub acquired_at: Option<String>,
    /// When it ends unless it is renewed.
    pub expires_at: Option<String>,
    /// What is left of it in milliseconds, by the server's clock.
    pub expires_in_ms: Option<u64>,
    /// Grows with every grant of the name.
    pub fencing_token: u64,
    /// When it was renewed last.
    pub renewed_at: Option<String>,
    /// The holder's address.
    pub client: Option<String>,
}

/// By whom a lease was forced off, and why.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Forced {
    /// Why.
    pub reason: Option<String>,
    /// The name of the key that did it.
    pub by: Option<String>,
}
