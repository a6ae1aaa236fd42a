//! The instances that share the store, as this one last read them, and which of them it can reach.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::shared::gate::Closed;
use crate::store::members::{InstanceId, Member, MemberState, Members};

/// A request for a name without a live owner is held for `INSTANCE_LEASE_SECONDS` and this.
pub const HOLD_BEYOND: Duration = Duration::from_secs(2);

/// Whether this instance can reach another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reachability {
    /// No connection to it has been made yet.
    #[default]
    NotYet,
    /// A connection to it is open.
    Reached,
    /// The connection was lost a moment ago.
    Lost,
    /// It is alive according to the store, but cannot be reached.
    CutOff,
    /// It answers, but speaks no version of the protocol that this one speaks.
    OtherProtocol,
}

/// What is known of all instances. Heartbeats alone do not wake those who follow it.
#[derive(Clone, Default)]
pub struct View {
    /// As last read from the store; `None`: they have not been read yet.
    pub members: Option<Arc<Members>>,
    /// Of the other instances. `NotYet` for those that are missing.
    pub reachability: HashMap<InstanceId, Reachability>,
    /// How many gifts of slots this instance has made, and who got the last one and is told to read the store.
    pub given: (u64, InstanceId),
    /// This instance is shutting down. Requests that wait for another one are told so.
    pub stopping: bool,
}

impl View {
    /// Takes in what was read from the store. Returns whether that is news: a change of heartbeats alone would wake each
    /// request that waits several times a second.
    pub fn see(&mut self, members: Members) -> bool {
        let before = self.members.as_ref();
        let is_news = before.is_none_or(|before| !before.differs_in_heartbeats_only(&members));
        let known = |id: &InstanceId| members.member(*id).is_some();
        self.reachability.retain(|id, _| known(id));
        self.members = Some(Arc::new(members));
        is_news
    }

    /// Notes whether an instance can be reached. Returns whether that is news.
    pub fn set_reachability(&mut self, id: InstanceId, reachability: Reachability) -> bool {
        self.reachability.insert(id, reachability) != Some(reachability)
    }

    pub fn reachability(&self, id: InstanceId) -> Reachability {
        self.reachability.get(&id).copied().unwrap_or_default()
    }

    /// Number of instances that serve, this one included; 1 if the store is not shared.
    pub fn serving(&self) -> u32 {
        let serves = |member: &&Member| member.state == MemberState::Serves;
        let members = self.members.as_ref().map(|known| &known.members);
        let serving = members.map_or(1, |known| known.iter().filter(serves).count());
        u32::try_from(serving.max(1)).unwrap_or(u32::MAX)
    }

    /// The owners of all slots, each once. They may be dead.
    pub fn owners(&self) -> Vec<InstanceId> {
        let owners = self.members.as_ref().map(|members| &members.owners);
        let mut owners = owners.map_or_else(Vec::new, |owners| owners.to_vec());
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    /// The other instances that are alive.
    pub fn others_alive(&self) -> impl Iterator<Item = &Member> {
        let members = self.members.iter();
        let others = members.flat_map(|all| all.members.iter().filter(|one| one.id != all.me));
        others.filter(|member| member.state.is_alive())
    }

    /// Whether a load balancer may send requests here, as far as the other instances matter. A dead owner does
    /// not count: requests for its names have to wait at every instance.
    ///
    /// # Errors
    /// This instance reaches no more than half of the other live owners, so too many requests would be refused
    /// or would wait.
    pub fn check_ready(&self) -> Result<(), Closed> {
        let Some(members) = &self.members else {
            return Err(Closed::Standby);
        };
        let owners = self.owners();
        let own = |member: &&Member| owners.contains(&member.id);
        let reachability: Vec<Reachability> = self
            .others_alive()
            .filter(own)
            .map(|member| self.reachability(member.id))
            .collect();
        if reachability.is_empty() && !owners.contains(&members.me) {
            return Err(Closed::Moving);
        }
        let is =
            |wanted: &[Reachability]| reachability.iter().filter(|r| wanted.contains(r)).count();
        let reached = is(&[Reachability::Reached, Reachability::Lost]);
        if reached * 2 > reachability.len() || reachability.is_empty() {
            Ok(())
        } else if is(&[Reachability::CutOff]) > 0 {
            Err(Closed::OwnerUnreachable)
        } else if is(&[Reachability::OtherProtocol]) > 0 {
            Err(Closed::OtherProtocol)
        } else {
            Err(Closed::Standby)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::FencingToken;
    use crate::store::members::SLOTS;

    const ME: InstanceId = [0; 16];

    /// A view of this instance (0) and of `others`, numbered from 1. The slots belong to `owners` in turn.
    fn view(others: &[(MemberState, Reachability)], owners: &[u8]) -> View {
        let member = |id: u8, state| Member {
            id: [id; 16],
            state,
            peer: None,
            heartbeat: 0,
            version: String::new(),
        };
        let numbered = || (1..).zip(others);
        let known = numbered().map(|(id, (state, _))| member(id, *state));
        let members = Members {
            me: ME,
            members: [member(0, MemberState::Serves)]
                .into_iter()
                .chain(known)
                .collect(),
            owners: (0..SLOTS).map(|n| [owners[n % owners.len()]; 16]).collect(),
            token_floor: FencingToken(0),
            recorded_profile: None,
        };
        View {
            members: Some(Arc::new(members)),
            reachability: numbered()
                .map(|(id, (_, reachability))| ([id; 16], *reachability))
                .collect(),
            ..View::default()
        }
    }

    #[test]
    fn an_instance_is_ready_while_it_reaches_most_of_the_other_owners() {
        use MemberState::{Dead, Serves};
        use Reachability::{CutOff, Lost, NotYet, OtherProtocol, Reached};
        let ready = |others: &[(MemberState, Reachability)], owners: &[u8]| {
            view(others, owners).check_ready().err()
        };
        assert_eq!(View::default().check_ready(), Err(Closed::Standby));
        assert_eq!(ready(&[], &[0]), None);
        let (reached, cut) = ((Serves, Reached), (Serves, CutOff));
        assert_eq!(ready(&[reached, (Serves, Lost)], &[0, 1, 2]), None);
        // An instance that has just joined owns nothing and is ready.
        assert_eq!(ready(&[reached], &[1]), None);
        assert_eq!(ready(&[(Serves, NotYet)], &[1]), Some(Closed::Standby));
        let unreachable = Some(Closed::OwnerUnreachable);
        assert_eq!(ready(&[reached, cut], &[0, 1, 2]), unreachable);
        assert_eq!(ready(&[reached, cut, reached], &[1, 2, 3]), None);
        let other = (Serves, OtherProtocol);
        assert_eq!(ready(&[other], &[0, 1]), Some(Closed::OtherProtocol));
        // Instances that own nothing do not count.
        assert_eq!(ready(&[reached, cut], &[0, 1]), None);
        // One owner is dead: the others serve what they own. All owners are dead: nobody serves.
        assert_eq!(ready(&[(Dead, Lost), reached], &[0, 1, 2]), None);
        assert_eq!(ready(&[(Dead, Lost)], &[0, 1]), None);
        assert_eq!(ready(&[(Dead, Lost)], &[1]), Some(Closed::Moving));
    }

    #[test]
    fn heartbeats_alone_are_no_news() {
        let mut view = view(&[(MemberState::Serves, Reachability::NotYet)], &[0, 1]);
        let mut members = view.members.as_deref().cloned().unwrap();
        members.members[1].heartbeat = 7;
        assert!(!view.see(members.clone()));
        assert_eq!(view.members.as_ref().unwrap().members[1].heartbeat, 7);
        members.members[1].state = MemberState::Dead;
        assert!(view.see(members.clone()));
        members.owners = members.owners.iter().rev().copied().collect();
        assert!(view.see(members));
    }
}
