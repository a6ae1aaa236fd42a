//! The instances that share one store, and which of them owns each name.
//!
//! Each name belongs to one of [`SLOTS`] slots, and each slot to one instance. A slot gets another owner in two
//! ways only: its owner gives it away ([`super::Store::give`]), or its owner is dead and another instance takes
//! over from it ([`super::Store::take_over`]).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::lock::{FencingToken, Profile, ResourceName};

/// Number of slots that the names are divided into. The same in every database.
pub const SLOTS: usize = 1024;

/// Id of one instance on a shared store. A restarted process gets a new id, and so does a process that lost the
/// store and opened it again.
pub type InstanceId = [u8; 16];

/// Interval between heartbeats. They are also how an instance sees that another one has joined, which has no names
/// until then; so with a long lease they come more often than the lease needs.
pub fn heartbeat_every(lease: Duration) -> Duration {
    (lease / 8).clamp(Duration::from_millis(1), Duration::from_secs(1))
}

/// How long an instance may answer after a successful heartbeat was *sent*. Several may fail within that time.
pub fn heartbeat_valid(lease: Duration) -> Duration {
    lease / 4 * 3
}

/// One of [`SLOTS`] parts of all names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot of a name.
    pub fn of(name: &ResourceName) -> Slot {
        let hash = crc32fast::hash(name.as_str().as_bytes());
        Slot((hash % SLOTS as u32) as u16)
    }

    /// All slots, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Slot> {
        (0..SLOTS as u16).map(Slot)
    }

    /// Number of the slot, from 0 up to but not including [`SLOTS`].
    pub fn number(self) -> usize {
        usize::from(self.0)
    }
}

/// State of an instance, according to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    Serves,
    /// It is shutting down and takes no slots any more.
    Leaves,
    /// Its heartbeat stood still for the lease of an instance, or it has ended: its slots may be taken over.
    Dead,
    /// It is dead, and another instance is taking over from it.
    BeingTakenOver,
}

impl MemberState {
    /// Whether it answers for the slots that it owns.
    pub fn is_alive(self) -> bool {
        matches!(self, MemberState::Serves | MemberState::Leaves)
    }
}

/// Where an instance takes requests from other instances, and the secret that both ends prove to know.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// Host and port.
    pub address: String,
    /// Whether connections to this address use TLS.
    pub is_tls: bool,
    /// The secret of that instance. Must never be logged.
    pub secret: Vec<u8>,
}

impl fmt::Debug for PeerAddress {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerAddress")
            .field("address", &self.address)
            .field("is_tls", &self.is_tls)
            .finish_non_exhaustive()
    }
}

/// One instance of a shared store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: InstanceId,
    pub state: MemberState,
    /// How other instances reach it; `None`: it takes no requests from them.
    pub peer: Option<PeerAddress>,
    /// Changes with each heartbeat.
    pub heartbeat: u64,
    /// Version of the program that it runs.
    pub version: String,
}

/// The state of a shared store, as of one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// Id of this instance.
    pub me: InstanceId,
    /// All instances, this one included, in the order of their ids.
    pub members: Vec<Member>,
    /// Owner of each slot, indexed by the number of the slot. An owner may be missing in `members`.
    pub owners: Arc<[InstanceId]>,
    /// The highest fencing token that any deleted resource reached.
    pub token_floor: FencingToken,
    /// The profile that is recorded in the store, if it has one (a database that the PHP server wrote).
    pub recorded_profile: Option<Profile>,
}

impl Members {
    pub fn owner(&self, slot: Slot) -> InstanceId {
        self.owners[slot.number()]
    }

    pub fn member(&self, id: InstanceId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Whether both are equal, heartbeats aside.
    pub fn differs_in_heartbeats_only(&self, other: &Members) -> bool {
        let without = |members: &Members| {
            let mut members = members.clone();
            members.members.iter_mut().for_each(|one| one.heartbeat = 0);
            members
        };
        without(self) == without(other)
    }

    /// Number of slots that this instance owns.
    pub fn share(&self, id: InstanceId) -> usize {
        self.owners.iter().filter(|owner| **owner == id).count()
    }

    /// The owner of a slot, if it is alive and not this instance.
    pub fn elsewhere(&self, slot: Slot) -> Option<&Member> {
        let owner = self.owner(slot);
        let member = self.member(owner).filter(|_| owner != self.me)?;
        member.state.is_alive().then_some(member)
    }

    /// Instances to take over from: those that are dead, also if they own nothing and only their rows are to be
    /// removed, and owners of slots that are not in `members`.
    pub fn dead(&self) -> impl Iterator<Item = InstanceId> {
        let is_dead = |id: &InstanceId| {
            let member = self.member(*id);
            member.is_none_or(|member| member.state == MemberState::Dead)
        };
        let members = self.members.iter().map(|member| member.id);
        let ids: BTreeSet<_> = self.owners.iter().copied().chain(members).collect();
        ids.into_iter().filter(move |id| is_dead(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_come_several_times_while_one_is_valid_and_at_least_once_a_second() {
        for (lease_s, every_ms, valid_ms) in [(1, 125, 750), (4, 500, 3_000), (60, 1_000, 45_000)] {
            let lease = Duration::from_secs(lease_s);
            assert_eq!(heartbeat_every(lease).as_millis(), every_ms);
            assert_eq!(heartbeat_valid(lease).as_millis(), valid_ms);
        }
    }
}
