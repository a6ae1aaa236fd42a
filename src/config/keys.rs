//! Keys, and the right that each carries.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;
use smol_str::SmolStr;

use super::Secret;

/// What a key allows; each right includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    Read,
    #[serde(rename = "read_lock")]
    Lock,
    Write,
    Admin,
}

impl Right {
    /// What the key with this right and no more is called: after its variable.
    pub fn key_name(self) -> &'static str {
        match self {
            Right::Read => "read",
            Right::Lock => "read_lock",
            Right::Write => "write",
            Right::Admin => "admin",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Right::Read => "READ",
            Right::Lock => "LOCK",
            Right::Write => "WRITE",
            Right::Admin => "ADMIN",
        }
    }
}

/// A key for all names; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainKey {
    pub key: Secret,
    pub right: Right,
    /// It is about to be replaced: a `*_PREVIOUS` one.
    pub previous: bool,
}

/// One entry of `KEYS_FILE`. Entries of the same key add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopedKey {
    /// For log lines and events.
    pub name: SmolStr,
    /// Of the key.
    pub sha256: [u8; 32],
    pub right: Right,
    /// Names that begin with one of them, byte for byte; an empty one: all.
    pub prefixes: Vec<String>,
    /// From this moment on it is unknown.
    pub expires: Option<SystemTime>,
}

/// The keys that are accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// `API_KEY` alone, or for each right its key and then its `*_PREVIOUS`: of READ, LOCK and WRITE there is one at
    /// least.
    pub plain: Vec<PlainKey>,
    /// `KEYS_FILE`.
    pub scoped: Vec<Arc<ScopedKey>>,
}
