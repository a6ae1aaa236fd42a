//! With whom this instance shares its store, as it last saw them, and which of them it can reach. Nothing here where the
//! store is this process's alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::shared::gate::Closed;
use crate::store::members::{InstanceId, Member, MemberState, Members};

/// For how long beyond `INSTANCE_LEASE_SECONDS` requests are held for a name that nobody answers for.
pub const HOLD_BEYOND: Duration = Duration::from_secs(2);

/// Whether another instance answers this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// It has not, so far.
    #[default]
    NotYet,
    Reached,
    /// It did until a moment ago: requests are held until it does again, or another one has what it had.
    Lost,
    /// It lives, and the link to it is cut.
    CutOff,
    /// It lives, and speaks no version of the protocol that this one speaks.
    OtherProtocol,
}

/// What is known of all instances. Whoever follows it is not told of heartbeats.
#[derive(Clone, Default)]
pub struct View {
    /// `None`: not looked yet.
    pub members: Option<Arc<Members>>,
    /// Of the others.
    pub reach: HashMap<InstanceId, Reach>,
    /// To whom this instance gave slots last, and how often it has given any: they are to be told to look.
    pub given: (u64, InstanceId),
    /// This instance ends: whoever waits for another one is told so.
    pub stopping: bool,
}

impl View {
    pub fn reach(&self, id: InstanceId) -> Reach {
        self.reach.get(&id).copied().unwrap_or_default()
    }

    /// How many instances serve, this one among them; 1 where the store is this process's alone.
    pub fn serving(&self) -> u32 {
        let serves = |member: &&Member| member.state == MemberState::Serves;
        let members = self.members.as_ref().map(|known| &known.members);
        let serving = members.map_or(1, |known| known.iter().filter(serves).count());
        u32::try_from(serving.max(1)).unwrap_or(u32::MAX)
    }

    /// Whoever owns a slot, each once; they may be dead.
    pub fn owners(&self) -> Vec<InstanceId> {
        let owners = self.members.as_ref().map(|members| &members.owners);
        let mut owners = owners.map_or_else(Vec::new, |owners| owners.to_vec());
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    pub fn others_alive(&self) -> impl Iterator<Item = &Member> {
        let members = self.members.iter();
        let others = members.flat_map(|all| all.members.iter().filter(|one| one.id != all.me));
        others.filter(|member| member.state.is_alive())
    }

    /// May a balancer send requests here, as far as the other instances go? It may while one of them is dead: its names
    /// are waited for everywhere alike.
    ///
    /// # Errors
    /// Too many requests that come here would be refused or have to wait.
    pub fn check_ready(&self) -> Result<(), Closed> {
        let Some(members) = &self.members else {
            return Err(Closed::Standby);
        };
        let owners = self.owners();
        let own = |member: &&Member| owners.contains(&member.id);
        let reach: Vec<Reach> = self
            .others_alive()
            .filter(own)
            .map(|member| self.reach(member.id))
            .collect();
        if reach.is_empty() && !owners.contains(&members.me) {
            return Err(Closed::Moving);
        }
        let is = |wanted: &[Reach]| reach.iter().filter(|r| wanted.contains(r)).count();
        let reached = is(&[Reach::Reached, Reach::Lost]);
        if reached * 2 > reach.len() || reach.is_empty() {
            Ok(())
        } else if is(&[Reach::CutOff]) > 0 {
            Err(Closed::OwnerUnreachable)
        } else if is(&[Reach::OtherProtocol]) > 0 {
            Err(Closed::OtherProtocol)
        } else {
            Err(Closed::Standby)
        }
    }
}

/// One for each server. Whoever waits for a change follows it.
#[derive(Default)]
pub struct MembersWatch(watch::Sender<View>);

impl MembersWatch {
    pub fn follow(&self) -> watch::Receiver<View> {
        self.0.subscribe()
    }

    /// As it is now; nothing changes while it is looked at.
    pub fn now(&self) -> watch::Ref<'_, View> {
        self.0.borrow()
    }

    /// The store was looked at. Signs of life alone are nothing that anybody waits for, and would wake each request that
    /// waits several times a second.
    pub fn see(&self, members: Members) {
        self.0.send_if_modified(|view| {
            let before = view.members.as_ref();
            let is_news = before.is_none_or(|before| !before.differs_in_heartbeats_only(&members));
            let known = |id: &InstanceId| members.member(*id).is_some();
            view.reach.retain(|id, _| known(id));
            view.members = Some(Arc::new(members));
            is_news
        });
    }

    pub fn reach(&self, id: InstanceId, reach: Reach) {
        self.0
            .send_if_modified(|view| view.reach.insert(id, reach) != Some(reach));
    }

    /// This instance gave slots to that one.
    pub fn given(&self, to: InstanceId) {
        self.0
            .send_modify(|view| view.given = (view.given.0 + 1, to));
    }

    pub fn stop(&self) {
        self.0.send_modify(|view| view.stopping = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::FencingToken;
    use crate::store::members::SLOTS;

    const ME: InstanceId = [0; 16];

    /// This instance, and others that are numbered from 1 on; the slots belong to these in turn.
    fn view(others: &[(MemberState, Reach)], owners: &[u8]) -> View {
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
            reach: numbered()
                .map(|(id, (_, reach))| ([id; 16], *reach))
                .collect(),
            ..View::default()
        }
    }

    #[test]
    fn an_instance_is_ready_while_it_reaches_most_of_the_other_owners() {
        use MemberState::{Dead, Serves};
        use Reach::{CutOff, Lost, NotYet, OtherProtocol, Reached};
        let ready = |others: &[(MemberState, Reach)], owners: &[u8]| {
            view(others, owners).check_ready().err()
        };
        assert_eq!(View::default().check_ready(), Err(Closed::Standby));
        assert_eq!(ready(&[], &[0]), None);
        let (reached, cut) = ((Serves, Reached), (Serves, CutOff));
        assert_eq!(ready(&[reached, (Serves, Lost)], &[0, 1, 2]), None);
        // Whoever has just come needs own nothing.
        assert_eq!(ready(&[reached], &[1]), None);
        assert_eq!(ready(&[(Serves, NotYet)], &[1]), Some(Closed::Standby));
        let unreachable = Some(Closed::OwnerUnreachable);
        assert_eq!(ready(&[reached, cut], &[0, 1, 2]), unreachable);
        assert_eq!(ready(&[reached, cut, reached], &[1, 2, 3]), None);
        let other = (Serves, OtherProtocol);
        assert_eq!(ready(&[other], &[0, 1]), Some(Closed::OtherProtocol));
        // Of those that own nothing, nothing is wanted.
        assert_eq!(ready(&[reached, cut], &[0, 1]), None);
        // One is dead: the others serve what they have. All are: nobody serves anything.
        assert_eq!(ready(&[(Dead, Lost), reached], &[0, 1, 2]), None);
        assert_eq!(ready(&[(Dead, Lost)], &[0, 1]), None);
        assert_eq!(ready(&[(Dead, Lost)], &[1]), Some(Closed::Moving));
    }

    #[test]
    fn who_follows_is_told_of_what_changed_and_not_of_heartbeats() {
        let members = || {
            Members::clone(
                &view(&[(MemberState::Serves, Reach::NotYet)], &[0, 1])
                    .members
                    .unwrap(),
            )
        };
        let watch = MembersWatch::default();
        watch.see(members());
        let mut told = watch.follow();
        let mut beaten = members();
        beaten.members[1].heartbeat = 7;
        watch.see(beaten.clone());
        assert!(!told.has_changed().unwrap());
        assert_eq!(
            told.borrow().members.as_ref().unwrap().members[1].heartbeat,
            7
        );
        beaten.members[1].state = MemberState::Dead;
        watch.see(beaten.clone());
        assert!(told.has_changed().unwrap());
        told.mark_unchanged();
        beaten.owners = members().owners.iter().rev().copied().collect();
        watch.see(beaten);
        assert!(told.has_changed().unwrap());
    }
}
