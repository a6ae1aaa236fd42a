//! Keys and the rights they carry.

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

/// The keys in force, current ones and those they replace.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keys(Vec<(Vec<u8>, Right)>);

impl Keys {
    pub fn add(&mut self, key: &str, right: Right) {
        self.0.push((key.as_bytes().to_vec(), right));
    }

    /// The highest right that this key carries.
    pub fn right_of(&self, presented: &[u8]) -> Option<Right> {
        self.identify(presented).map(|(_, right)| right)
    }

    /// Which key this is, and the highest right that it carries. Takes the same time whichever key of the
    /// same length it resembles, and looks at all of them.
    pub fn identify(&self, presented: &[u8]) -> Option<(KeyId, Right)> {
        let mut highest: Option<(KeyId, Right)> = None;
        for (index, (key, right)) in self.0.iter().enumerate() {
            let same = bool::from(key.as_slice().ct_eq(presented));
            if same && highest.is_none_or(|(_, known)| known < *right) {
                highest = Some((KeyId(index), *right));
            }
        }
        highest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_keys_are_equal_the_highest_right_wins() {
        let mut keys = Keys::default();
        keys.add("same", Right::Write);
        keys.add("same", Right::Read);
        keys.add("other", Right::Lock);
        assert_eq!(keys.right_of(b"same"), Some(Right::Write));
        assert_eq!(keys.right_of(b"other"), Some(Right::Lock));
        assert_eq!(keys.right_of(b"sam"), None);
        assert_eq!(keys.right_of(b""), None);
    }
}
