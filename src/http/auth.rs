//! Which key a request presents, and which rights the key carries.

use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use smol_str::SmolStr;
use subtle::ConstantTimeEq;

use crate::config::ScopedKey;
pub use crate::config::{Keys, Right};

/// A valid key that a request presents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// Index of the key among the configured keys.
    pub index: usize,
    /// Name of the key in log lines and events; never the key itself.
    pub name: SmolStr,
    /// The highest right that the key carries, to any name.
    pub right: Right,
    /// Whether it is a `*_PREVIOUS` key.
    pub previous: bool,
    /// The key's entries in `KEYS_FILE`, each of which grants a right to some names. `None`: the key covers all
    /// names.
    entries: Option<Vec<Arc<ScopedKey>>>,
}

impl KnownKey {
    /// The right that the key carries to all names; `None` if its rights depend on the name.
    pub fn right_to_all(&self) -> Option<Right> {
        self.entries.is_none().then_some(self.right)
    }

    /// The highest right that the key carries to this name. `None`: for this name it counts as an unknown key.
    pub fn right_to(&self, name: &str) -> Option<Right> {
        let Some(entries) = &self.entries else {
            return Some(self.right);
        };
        let covers = |entry: &ScopedKey| entry.prefixes.iter().any(|p| name.starts_with(p));
        let covering = entries.iter().filter(|entry| covers(entry));
        covering.map(|entry| entry.right).max()
    }

    /// The prefixes of the names to which the key carries at least this right, without prefixes that another
    /// one covers. `None`: all names.
    pub fn prefixes(&self, right: Right) -> Option<Vec<&str>> {
        let entries = self.entries.as_ref()?;
        let granted = entries.iter().filter(|entry| entry.right >= right);
        let prefixes = granted.flat_map(|entry| &entry.prefixes);
        let mut all: Vec<&str> = prefixes.map(String::as_str).collect();
        // Sorted, a prefix comes before the prefixes that it covers.
        all.sort_unstable();
        let mut least: Vec<&str> = Vec::new();
        for prefix in all {
            if least.last().is_none_or(|last| !prefix.starts_with(last)) {
                least.push(prefix);
            }
        }
        Some(least)
    }
}

/// Finds the presented key; `None` if it is unknown. Compares it with all keys in constant time, so that the
/// time does not tell which key of the same length it resembles. Of equal keys the highest right wins. Scoped
/// keys are compared only if no plain key matches.
pub fn identify(keys: &Keys, presented: &[u8]) -> Option<KnownKey> {
    let mut known: Option<KnownKey> = None;
    for (index, (right, key)) in keys.plain().enumerate() {
        let same = bool::from(key.expose().as_bytes().ct_eq(presented));
        if same && known.as_ref().is_none_or(|known| known.right < *right) {
            known = Some(KnownKey {
                index,
                name: SmolStr::new_static(right.key_name()),
                right: *right,
                previous: index >= keys.current.len(),
                entries: None,
            });
        }
    }
    if known.is_some() || keys.scoped.is_empty() {
        return known;
    }
    identify_scoped(keys, presented)
}

fn identify_scoped(keys: &Keys, presented: &[u8]) -> Option<KnownKey> {
    let now = SystemTime::now();
    let digest: [u8; 32] = Sha256::digest(presented).into();
    let mut known: Option<KnownKey> = None;
    for (index, entry) in keys.scoped.iter().enumerate() {
        let same = bool::from(entry.sha256.ct_eq(&digest));
        if !same || entry.expires.is_some_and(|expires| expires <= now) {
            continue;
        }
        let known = known.get_or_insert_with(|| KnownKey {
            index: keys.current.len() + keys.previous.len() + index,
            name: entry.name.clone(),
            right: entry.right,
            previous: false,
            entries: Some(Vec::new()),
        });
        known.right = known.right.max(entry.right);
        known.entries.get_or_insert_default().push(entry.clone());
    }
    known
}
