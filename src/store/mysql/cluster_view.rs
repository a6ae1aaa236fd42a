//! The instances that share the database and the owners of the slots, as this process last read them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::options::TLS_SCHEME;
use super::schema::{InstanceRow, ServerRow};
use super::watch::HeartbeatWatch;
use crate::store::members::{Member, MemberState, Members, Slot};
use crate::store::{InstanceId, PeerAddress};

#[derive(Default)]
pub(super) struct ClusterView {
    /// Owner of each slot, by slot number, and the version of the slot map.
    owners: Option<(u64, Arc<[InstanceId]>)>,
    /// The lowest version of the slot map that has all gifts and take-overs of this process. A server that lags
    /// may still show earlier ones.
    version_min: u64,
    /// Slots that this instance gave away and has not seen to be its own again.
    given: HashSet<Slot>,
    row: Option<ServerRow>,
    watches: HashMap<InstanceId, HeartbeatWatch>,
    /// The instances that this process was before it lost the database: certainly dead.
    pub former: HashSet<InstanceId>,
}

impl ClusterView {
    /// This process becomes another instance: forgets what was read.
    pub fn reset(&mut self) {
        self.owners = None;
        self.version_min = 0;
        self.given.clear();
        self.row = None;
    }

    /// The newest version of the slot map that is known to exist.
    pub fn slot_map_version(&self) -> u64 {
        let read = self.owners.as_ref().map_or(0, |(version, _)| *version);
        read.max(self.version_min)
    }

    /// Whether a slot map of that version is newer than the one that is known.
    pub fn needs_owners(&self, version: u64) -> bool {
        let known = self.owners.as_ref();
        version >= self.version_min && known.is_none_or(|(known, _)| version > *known)
    }

    /// Replaces the slot map. `owners`: as of `version` or later, and no later than the rows.
    pub fn update_owners(&mut self, me: &InstanceId, version: u64, owners: Arc<[InstanceId]>) {
        if self.needs_owners(version) {
            self.given.retain(|slot| owners[slot.number()] != *me);
            self.owners = Some((version, owners));
        }
    }

    /// Replaces the rows. `lease`: our own; an instance with a longer one in its row is given that.
    pub fn update(&mut self, row: ServerRow, lease: Duration) {
        let instances = row.instances.iter().filter(|instance| instance.state != 3);
        let mut signs: HashMap<InstanceId, (u64, Duration)> = instances
            .map(|one| {
                let lease = lease.max(Duration::from_millis(one.lease_ms));
                (one.id, (one.heartbeat, lease))
            })
            .collect();
        if let Some(owner) = row.owner {
            // An owner of version 2.0.0 has no row of its own. All three numbers only grow.
            let (sign, _) = signs.entry(owner).or_insert((0, lease));
            *sign = sign.wrapping_add(row.epoch).wrapping_add(row.heartbeat);
        }
        let watch = |(id, (sign, lease))| {
            let before = self.watches.get(&id);
            let watch = HeartbeatWatch::update(before, sign, lease, row.sent_at, row.answered_at);
            (id, watch)
        };
        self.watches = signs.into_iter().map(watch).collect();
        self.row = Some(row);
    }

    /// A read failed. Begins all waits anew: an instance may have been silent only because the database was
    /// away.
    pub fn restart_watches(&mut self) {
        self.watches.clear();
    }

    /// Whether the instance was silent for a whole lease.
    fn is_silent(&self, id: &InstanceId) -> bool {
        self.watches.get(id).is_some_and(|watch| watch.is_silent)
    }

    /// Whether the instance showed a sign of life between the last two reads.
    pub fn is_beating(&self, id: &InstanceId) -> bool {
        self.watches.get(id).is_some_and(|watch| watch.is_beating)
    }

    /// The instance that has the database exclusively, if it may be alive: it was not silent for a whole lease,
    /// and is not one that this process was.
    pub fn living_owner(&self) -> Option<InstanceId> {
        let owner = self.row.as_ref()?.owner;
        owner.filter(|owner| !self.former.contains(owner) && !self.is_silent(owner))
    }

    /// Records that the slots for which `is_moved` holds belong to `to` as of `version`.
    pub fn set_owner(
        &mut self,
        is_moved: impl Fn(Slot, &InstanceId) -> bool,
        to: InstanceId,
        version: u64,
    ) {
        self.version_min = self.version_min.max(version);
        if let Some((_, owners)) = &mut self.owners {
            let pairs = Slot::all().zip(owners.iter());
            let pick = |(slot, owner): (Slot, &InstanceId)| match is_moved(slot, owner) {
                true => to,
                false => *owner,
            };
            *owners = pairs.map(pick).collect();
        }
    }

    /// Records that this instance gave these slots to `to`.
    pub fn note_gift(&mut self, slots: &[Slot], to: InstanceId, version: u64) {
        self.set_owner(|slot, _| slots.contains(&slot), to, version);
        self.given.extend(slots);
    }

    pub fn has_given(&self, slot: Slot) -> bool {
        !self.given.is_empty() && self.given.contains(&slot)
    }

    /// The rows of instances that were silent for a whole lease and may still have the connection in their row.
    pub fn silent_instances(&self) -> Vec<InstanceRow> {
        let instances = self.row.iter().flat_map(|row| &row.instances);
        let silent = instances.filter(|one| self.is_silent(&one.id) && self.may_write(one));
        silent.cloned().collect()
    }

    /// An instance that may be alive and has another lease than `lease_ms`, one that is known to be alive
    /// first: whether that is known, and its lease in ms.
    pub fn other_lease(&self, lease_ms: u64) -> Option<(bool, u64)> {
        let instances = &self.row.as_ref()?.instances;
        let mut others = instances.iter().filter(|instance| {
            let id = &instance.id;
            let may_live = instance.state != 3 && !self.former.contains(id) && !self.is_silent(id);
            may_live && instance.lease_ms != lease_ms
        });
        let first = others.clone().next()?;
        let alive = others.find(|instance| self.is_beating(&instance.id));
        Some((alive.is_some(), alive.unwrap_or(first).lease_ms))
    }

    /// Whether the writing connection of `dead` may still be in a transaction. `false` also if another instance
    /// has a connection of this number: a server that was restarted gives out the numbers again.
    pub fn may_write(&self, dead: &InstanceRow) -> bool {
        let is_same = |other: &&InstanceRow| {
            other.id != dead.id
                && other.state != 3
                && (other.connection, &other.server) == (dead.connection, &dead.server)
        };
        let mut all = self.row.iter().flat_map(|row| &row.instances);
        dead.state != 3 && all.find(is_same).is_none()
    }

    /// Whether the instance is dead, as far as one can tell: it is fenced, silent for a lease, or one that this
    /// process was.
    fn is_gone(&self, row: &ServerRow, id: &InstanceId) -> bool {
        let is_fenced = row.instance(id).is_none_or(|row| row.state == 3);
        is_fenced || self.is_silent(id) || self.former.contains(id)
    }

    fn state(&self, row: &ServerRow, me: &InstanceId, instance: &InstanceRow) -> MemberState {
        let id = &instance.id;
        match instance.state {
            3 => match &instance.executor {
                Some(executor) if executor != me && !self.is_gone(row, executor) => {
                    MemberState::BeingTakenOver
                }
                _ => MemberState::Dead,
            },
            _ if id != me && self.is_gone(row, id) => MemberState::Dead,
            1 => MemberState::Serves,
            _ => MemberState::Leaves,
        }
    }

    /// Whether the instance has no row.
    pub fn is_unknown(&self, id: &InstanceId) -> bool {
        let row = self.row.as_ref();
        row.is_some_and(|row| row.instance(id).is_none())
    }

    /// The row of an instance to take over from. `None`: it is alive, or another instance takes over from it.
    pub fn dead(&self, me: &InstanceId, id: &InstanceId) -> Option<InstanceRow> {
        let row = self.row.as_ref()?;
        let instance = row.instance(id).filter(|_| id != me)?;
        let is_dead = self.state(row, me, instance) == MemberState::Dead;
        is_dead.then(|| instance.clone())
    }

    /// `None`: the rows and the slot map were not read yet.
    pub fn members(&self, me: InstanceId) -> Option<Members> {
        let (row, (_, owners)) = (self.row.as_ref()?, self.owners.as_ref()?);
        let member = |instance: &InstanceRow| Member {
            id: instance.id,
            state: self.state(row, &me, instance),
            peer: peer(instance),
            heartbeat: instance.heartbeat,
            version: instance.version.clone(),
        };
        Some(Members {
            me,
            members: row.instances.iter().map(member).collect(),
            owners: owners.clone(),
            token_floor: row.token_floor,
            recorded_profile: row.profile,
        })
    }
}

fn peer(instance: &InstanceRow) -> Option<PeerAddress> {
    let stored = instance.address.as_deref()?;
    let of_tls = stored.strip_prefix(TLS_SCHEME);
    Some(PeerAddress {
        address: of_tls.unwrap_or(stored).to_owned(),
        is_tls: of_tls.is_some(),
        secret: instance.peer_secret.clone(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::lock::FencingToken;
    use crate::store::mysql::schema::MigrationStep;

    const LEASE: Duration = Duration::from_secs(4);

    fn row(owner: Option<InstanceId>, heartbeat: u64, at: Instant) -> ServerRow {
        ServerRow {
            version: 1,
            step: MigrationStep::Ready,
            profile: None,
            php_collation: None,
            token_floor: FencingToken(0),
            epoch: 7,
            heartbeat,
            owner,
            instances: Vec::new(),
            sent_at: at,
            answered_at: at,
        }
    }

    #[test]
    fn an_owner_without_a_row_of_its_own_is_watched_too() {
        let (mut view, owner, start) = (ClusterView::default(), [2; 16], Instant::now());
        for eighth in 0..8 {
            view.update(row(Some(owner), 3, start + eighth * LEASE / 8), LEASE);
            assert_eq!(view.living_owner(), Some(owner));
            assert!(!view.is_beating(&owner));
        }
        view.update(row(Some(owner), 3, start + LEASE), LEASE);
        assert_eq!(view.living_owner(), None);
        view.update(row(Some(owner), 4, start + LEASE), LEASE);
        assert_eq!(view.living_owner(), Some(owner));
        assert!(view.is_beating(&owner));
        // A read that failed begins the wait anew.
        view.restart_watches();
        view.update(row(Some(owner), 4, start + 2 * LEASE), LEASE);
        assert_eq!(view.living_owner(), Some(owner));
    }
}
