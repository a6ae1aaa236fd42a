//! The last leases of a name, as stores keep them: one value for each name, the oldest lease first.

use serde::{Deserialize, Serialize};

use crate::lock::rows::Forced;
use crate::lock::{Millis, Mode, Owner, Reason, ResourceName, WallMillis};

/// How a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseEnd {
    Released,
    Expired,
    ForcedOff,
    /// With its resource.
    Deleted,
}

impl LeaseEnd {
    /// As the wire has it.
    pub fn name(self) -> &'static str {
        match self {
            LeaseEnd::Released => "released",
            LeaseEnd::Expired => "expired",
            LeaseEnd::ForcedOff => "forced_off",
            LeaseEnd::Deleted => "deleted",
        }
    }
}

/// A lease that has ended. Times are wall clock, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastLease {
    pub owner: Option<Owner>,
    pub reason: Option<Reason>,
    pub mode: Mode,
    /// No two leases of a name have the same.
    pub fencing_token: u64,
    pub acquired_at: WallMillis,
    pub ended_at: WallMillis,
    pub end: LeaseEnd,
    /// Why it was forced off, and by whose key.
    pub forced: Option<Box<Forced>>,
    /// From the place in the queue to the grant.
    pub queued_ms: Millis,
}

/// Leases of several names that a store is to add.
pub type PastLeases = Vec<(ResourceName, Vec<PastLease>)>;

/// Adds newer leases to those that a store has of a name and keeps the last `most`. Adding one twice is adding it
/// once.
pub fn append(stored: &mut Vec<PastLease>, newer: &[PastLease], most: usize) {
    for lease in newer {
        let is_known = |had: &PastLease| had.fencing_token == lease.fencing_token;
        if !stored.iter().any(is_known) {
            stored.push(lease.clone());
        }
    }
    let surplus = stored.len().saturating_sub(most);
    stored.drain(..surplus);
}

/// As one value of a row. What cannot be written down, for which there is no reason, counts as none.
pub(super) fn encode(leases: &[PastLease]) -> Vec<u8> {
    postcard::to_stdvec(leases).unwrap_or_default()
}

/// What [`encode`] made. A value that cannot be read, of a later version perhaps, counts as none: nothing
/// depends on it.
pub(super) fn decode(bytes: &[u8]) -> Vec<PastLease> {
    postcard::from_bytes(bytes).unwrap_or_else(|error| {
        log::warn!("a history cannot be read: {error}");
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::KeyName;

    fn lease(token: u64) -> PastLease {
        PastLease {
            owner: Owner::parse("worker").ok(),
            reason: None,
            mode: Mode::Shared,
            fencing_token: token,
            acquired_at: 10,
            ended_at: 15,
            end: LeaseEnd::ForcedOff,
            forced: Some(Box::new(Forced {
                reason: Reason::parse("it hangs").unwrap(),
                by: KeyName::parse("admin").unwrap(),
            })),
            queued_ms: 0,
        }
    }

    #[test]
    fn what_is_there_already_is_not_added_again_and_the_last_are_kept() {
        let mut stored = vec![lease(1), lease(2)];
        append(&mut stored, &[lease(2), lease(3), lease(4)], 3);
        let tokens: Vec<u64> = stored.iter().map(|lease| lease.fencing_token).collect();
        assert_eq!(tokens, [2, 3, 4]);
    }

    #[test]
    fn a_value_comes_back_as_it_was_and_one_that_is_damaged_counts_as_none() {
        let leases = vec![lease(1), lease(2)];
        let bytes = encode(&leases);
        assert_eq!(decode(&bytes), leases);
        assert!(decode(&bytes[..bytes.len() - 1]).is_empty());
    }
}
