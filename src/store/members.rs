//! How several instances share one store: which of them there are, and to whom each name belongs.
//!
//! A name belongs to one of [`SLOTS`] slots, and a slot to an instance. A slot changes hands in two ways only: its owner
//! gives it away ([`super::Store::give`]), or its owner is silent and another one takes what it had
//! ([`super::Store::take_over`]).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::lock::{FencingToken, Profile, ResourceName};

/// Into so many slots the names are divided. Fixed in every database.
pub const SLOTS: usize = 1024;

/// Names one instance on a store that several share; a restarted process is another one, and so is one that has lost
/// the store and came back.
pub type InstanceId = [u8; 16];

/// A part of all names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// Which one a name belongs to.
    pub fn of(name: &ResourceName) -> Slot {
        let hash = crc32fast::hash(name.as_str().as_bytes());
        Slot((hash % SLOTS as u32) as u16)
    }

    /// In the order of their numbers.
    pub fn all() -> impl Iterator<Item = Slot> {
        (0..SLOTS as u16).map(Slot)
    }

    /// From 0, below [`SLOTS`].
    pub fn number(self) -> usize {
        usize::from(self.0)
    }
}

/// What an instance does, as far as the store tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    Serves,
    /// It ends, and takes no slots any more.
    Leaves,
    /// It was silent for as long as that takes, or has ended: what it owns may be taken over.
    Dead,
    /// It is dead, and another instance takes over what it owned.
    BeingTakenOver,
}

impl MemberState {
    /// It answers for what it owns.
    pub fn is_alive(self) -> bool {
        matches!(self, MemberState::Serves | MemberState::Leaves)
    }
}

/// Where an instance takes requests from others, and what both prove to each other that they know.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// Host and port.
    pub address: String,
    /// TLS is spoken there.
    pub is_tls: bool,
    /// Never to be logged.
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

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: InstanceId,
    pub state: MemberState,
    /// How other instances reach it; `None`: it takes no requests from them.
    pub peer: Option<PeerAddress>,
    /// Another number with each sign of life.
    pub heartbeat: u64,
    /// Of the program.
    pub version: String,
}

/// Everything that a look at a shared store tells.
#[derive(Clone, PartialEq, Eq)]
pub struct Members {
    /// This instance.
    pub me: InstanceId,
    /// All of them, this one too, in the order of their ids.
    pub members: Vec<Member>,
    /// Whose each slot is, by its number: of an instance that may not be among the members any more.
    pub owners: Arc<[InstanceId]>,
    /// The highest fencing token that any deleted resource reached.
    pub token_floor: FencingToken,
    /// The profile that is recorded in the store.
    pub recorded_profile: Option<Profile>,
}

impl fmt::Debug for Members {
    /// Only how many slots each has.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut slots: BTreeMap<&InstanceId, usize> = BTreeMap::new();
        self.owners
            .iter()
            .for_each(|owner| *slots.entry(owner).or_default() += 1);
        f.debug_struct("Members")
            .field("me", &self.me)
            .field("members", &self.members)
            .field("slots", &slots)
            .field("token_floor", &self.token_floor)
            .field("recorded_profile", &self.recorded_profile)
            .finish()
    }
}

impl Members {
    pub fn owner(&self, slot: Slot) -> InstanceId {
        self.owners[slot.number()]
    }

    pub fn member(&self, id: InstanceId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Whether it tells what the other look told, but for signs of life.
    pub fn differs_in_heartbeats_only(&self, other: &Members) -> bool {
        let without = |members: &Members| {
            let mut members = members.clone();
            members.members.iter_mut().for_each(|one| one.heartbeat = 0);
            members
        };
        without(self) == without(other)
    }

    /// How many slots are this one's.
    pub fn share(&self, id: InstanceId) -> usize {
        self.owners.iter().filter(|owner| **owner == id).count()
    }

    /// The other one that a slot belongs to, if it lives.
    pub fn elsewhere(&self, slot: Slot) -> Option<&Member> {
        let owner = self.owner(slot);
        let member = self.member(owner).filter(|_| owner != self.me)?;
        member.state.is_alive().then_some(member)
    }

    /// Instances from which is to be taken over: those of which nobody knows any more, too, and those that own nothing and
    /// are only to be forgotten.
    pub fn dead(&self) -> impl Iterator<Item = InstanceId> {
        let is_dead = |id: &InstanceId| {
            let member = self.member(*id);
            member.is_none_or(|member| member.state == MemberState::Dead)
        };
        let mut ids: Vec<InstanceId> = self.owners.to_vec();
        ids.extend(self.members.iter().map(|member| member.id));
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().filter(move |id| is_dead(id))
    }
}
