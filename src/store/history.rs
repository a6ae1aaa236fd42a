//! The last leases of a name, as stores keep them: one value per name, oldest lease first.

use serde::{Deserialize, Serialize};

use crate::lock::rows::Forced;
use crate::lock::{EndReason, Millis, Mode, Owner, Reason, ResourceName, WallMillis};

/// How a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseEnd {
    Released,
    Expired,
    ForcedOff,
    /// Its resource was deleted.
    Deleted,
}

impl LeaseEnd {
    /// In the order of the variants.
    pub const ALL: [LeaseEnd; 4] = [
        LeaseEnd::Released,
        LeaseEnd::Expired,
        LeaseEnd::ForcedOff,
        LeaseEnd::Deleted,
    ];

    /// The name of this end on the wire.
    pub fn name(self) -> &'static str {
        match self {
            LeaseEnd::Released => "released",
            LeaseEnd::Expired => "expired",
            LeaseEnd::ForcedOff => "forced_off",
            LeaseEnd::Deleted => "deleted",
        }
    }
}

impl From<EndReason> for LeaseEnd {
    fn from(reason: EndReason) -> LeaseEnd {
        match reason {
            EndReason::Released => LeaseEnd::Released,
            EndReason::Expired => LeaseEnd::Expired,
            EndReason::ForcedOff => LeaseEnd::ForcedOff,
        }
    }
}

/// A lease that has ended. Times are wall-clock times, for people to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastLease {
    pub owner: Option<Owner>,
    pub reason: Option<Reason>,
    pub mode: Mode,
    /// Unique among the leases of a name.
    pub fencing_token: u64,
    pub acquired_at: WallMillis,
    pub ended_at: WallMillis,
    pub end: LeaseEnd,
    /// If it was forced off: the reason, and the name of the key that did it.
    pub forced: Option<Box<Forced>>,
    /// Time from the arrival in the queue to the grant, in milliseconds.
    pub queued_ms: Millis,
}

/// Past leases of several names, for a store to append.
pub type PastLeases = Vec<(ResourceName, Vec<PastLease>)>;

/// Appends newer leases to the stored ones of a name and keeps the last `most`. A lease that is stored already
/// is not added again.
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

/// Encodes leases as one value of a row. Encoding has no reason to fail; if it does, the value is read as no
/// leases.
pub(super) fn encode(leases: &[PastLease]) -> Vec<u8> {
    postcard::to_stdvec(leases).unwrap_or_default()
}

/// Decodes the value that [`encode`] made. A value that cannot be decoded, perhaps of a later version, is read
/// as no leases: nothing depends on the history.
pub(super) fn decode(bytes: &[u8]) -> Vec<PastLease> {
    postcard::from_bytes(bytes).unwrap_or_else(|error| {
        log::warn!("the history of a name cannot be decoded and is ignored: {error}");
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_damaged_counts_as_no_leases() {
        assert!(decode(&encode(&[])).is_empty());
        assert!(decode(&[1, 2]).is_empty());
    }
}
