//! Keys and the rights they carry.

use std::time::SystemTime;

use sha2::{Digest, Sha256};
use smol_str::SmolStr;
use subtle::ConstantTimeEq;

/// What a key allows; each right includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    Read,
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

/// A key, without saying which: its place among the keys in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(usize);

/// A key for all names.
#[derive(Clone, PartialEq, Eq)]
struct PlainKey {
    key: Vec<u8>,
    right: Right,
    /// It is about to be replaced.
    previous: bool,
}

/// A right to names that begin with a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyGrant {
    pub right: Right,
    /// Empty: all names.
    pub prefix: String,
}

/// A key for some names.
#[derive(Clone, PartialEq, Eq)]
pub struct ScopedGrants {
    pub name: SmolStr,
    pub sha256: [u8; 32],
    pub right: Right,
    pub prefixes: Vec<String>,
    /// From then on it is unknown.
    pub expires: Option<SystemTime>,
}

/// The keys in force, current ones and those they replace.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keys {
    plain: Vec<PlainKey>,
    scoped: Vec<ScopedGrants>,
}

/// The key that a request presents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKey {
    pub id: KeyId,
    /// For log lines and events; never the key.
    pub name: SmolStr,
    /// The highest right that it carries to any name.
    pub right: Right,
    /// It is a `*_PREVIOUS` one.
    pub previous: bool,
    /// `None`: its right is to all names.
    grants: Option<Vec<KeyGrant>>,
}

impl KnownKey {
    /// The right that it carries to every name; `None`: to some names alone.
    pub fn right_to_all(&self) -> Option<Right> {
        self.grants.is_none().then_some(self.right)
    }

    /// The highest right that it carries to this name; `None`: to this name it is an unknown key.
    pub fn right_to(&self, name: &str) -> Option<Right> {
        let Some(grants) = &self.grants else {
            return Some(self.right);
        };
        let covering = grants
            .iter()
            .filter(|grant| name.starts_with(&grant.prefix));
        covering.map(|grant| grant.right).max()
    }

    /// The prefixes to which it carries this right, none of them covered by another. `None`: all names.
    pub fn prefixes(&self, right: Right) -> Option<Vec<&str>> {
        let grants = self.grants.as_ref()?;
        let granted = grants.iter().filter(|grant| grant.right >= right);
        let mut all: Vec<&str> = granted.map(|grant| grant.prefix.as_str()).collect();
        // In this order a prefix stands before those it covers.
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

impl Keys {
    /// A key for all names.
    pub fn add(&mut self, key: &str, right: Right, previous: bool) {
        let key = key.as_bytes().to_vec();
        self.plain.push(PlainKey {
            key,
            right,
            previous,
        });
    }

    pub fn add_scoped(&mut self, key: ScopedGrants) {
        self.scoped.push(key);
    }

    /// Which key this is. Takes the same time whichever key of the same length it resembles, and looks at all
    /// of them. Where several are equal the highest right wins.
    pub fn identify(&self, presented: &[u8]) -> Option<KnownKey> {
        let mut known: Option<KnownKey> = None;
        for (index, plain) in self.plain.iter().enumerate() {
            let same = bool::from(plain.key.as_slice().ct_eq(presented));
            if same && known.as_ref().is_none_or(|known| known.right < plain.right) {
                known = Some(KnownKey {
                    id: KeyId(index),
                    name: SmolStr::new_static(plain.right.key_name()),
                    right: plain.right,
                    previous: plain.previous,
                    grants: None,
                });
            }
        }
        if known.is_some() || self.scoped.is_empty() {
            return known;
        }
        self.identify_scoped(presented, SystemTime::now())
    }

    fn identify_scoped(&self, presented: &[u8], now: SystemTime) -> Option<KnownKey> {
        let digest: [u8; 32] = Sha256::digest(presented).into();
        let mut known: Option<KnownKey> = None;
        for (index, entry) in self.scoped.iter().enumerate() {
            let same = bool::from(entry.sha256.ct_eq(&digest));
            if !same || entry.expires.is_some_and(|expires| expires <= now) {
                continue;
            }
            let known = known.get_or_insert_with(|| KnownKey {
                id: KeyId(self.plain.len() + index),
                name: entry.name.clone(),
                right: entry.right,
                previous: false,
                grants: Some(Vec::new()),
            });
            known.right = known.right.max(entry.right);
            let grants = entry.prefixes.iter().map(|prefix| KeyGrant {
                right: entry.right,
                prefix: prefix.clone(),
            });
            known.grants.get_or_insert_default().extend(grants);
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn scoped(key: &str, right: Right, prefixes: &[&str]) -> ScopedGrants {
        ScopedGrants {
            name: SmolStr::new("team"),
            sha256: Sha256::digest(key).into(),
            right,
            prefixes: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
            expires: None,
        }
    }

    #[test]
    fn where_keys_are_equal_the_highest_right_wins() {
        let mut keys = Keys::default();
        keys.add("same", Right::Write, false);
        keys.add("same", Right::Read, true);
        keys.add("other", Right::Lock, true);
        let right = |key: &[u8]| {
            keys.identify(key)
                .map(|known| (known.right, known.previous))
        };
        assert_eq!(right(b"same"), Some((Right::Write, false)));
        assert_eq!(right(b"other"), Some((Right::Lock, true)));
        assert_eq!(right(b"sam"), None);
        assert_eq!(right(b""), None);
    }

    #[test]
    fn entries_of_one_scoped_key_add_up_and_cover_their_prefixes_alone() {
        let mut keys = Keys::default();
        keys.add_scoped(scoped("k", Right::Read, &["a:", "a:b:", "c"]));
        keys.add_scoped(scoped("k", Right::Write, &["a:b:"]));
        keys.add_scoped(scoped("other", Right::Admin, &[""]));
        let key = keys.identify(b"k").unwrap();
        assert_eq!(key.right, Right::Write);
        assert_eq!(key.right_to("a:1"), Some(Right::Read));
        assert_eq!(key.right_to("a:b:1"), Some(Right::Write));
        assert_eq!(key.right_to("b"), None);
        assert_eq!(key.prefixes(Right::Read), Some(vec!["a:", "c"]));
        assert_eq!(key.prefixes(Right::Lock), Some(vec!["a:b:"]));
        let admin = keys.identify(b"other").unwrap();
        assert_eq!(admin.right_to("anything"), Some(Right::Admin));
        assert_eq!(keys.identify(b"neither"), None);
    }

    #[test]
    fn a_scoped_key_is_unknown_once_it_has_expired() {
        let mut keys = Keys::default();
        let now = SystemTime::now();
        let mut key = scoped("k", Right::Read, &[""]);
        key.expires = Some(now);
        keys.add_scoped(key);
        assert!(keys.identify_scoped(b"k", now).is_none());
        let before = now - Duration::from_millis(1);
        assert!(keys.identify_scoped(b"k", before).is_some());
    }
}
