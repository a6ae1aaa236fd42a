//! Which instance answers for a name now, as far as this instance knows. Pure functions.

use crate::shared::gate::Closed;
use crate::shared::members::{Reachability, View};
use crate::store::members::{InstanceId, Members, Slot};

/// The instance that a question is sent to.
#[derive(Debug, PartialEq, Eq)]
pub enum Destination {
    Here,
    There(InstanceId),
}

/// Refuses while this instance starts or stops: it passes no request on then.
fn passes_on(gate: &Result<(), Closed>) -> Result<(), Closed> {
    match gate {
        Err(closed @ (Closed::Starting | Closed::Stopping)) => Err(closed.clone()),
        _ => Ok(()),
    }
}

/// For a name that this instance owns and does not answer for now. `Ok`: this instance or another one will
/// answer for it soon.
fn not_now(gate: &Result<(), Closed>) -> Result<(), Closed> {
    match gate {
        // Others took this instance for dead, and its slots are being taken over.
        Ok(()) | Err(Closed::Standby) => Ok(()),
        Err(closed) => Err(closed.clone()),
    }
}

/// The destination of this owner's names. `is_here`: whether this instance serves the names in question, if it is the
/// owner. `None`: the owner does not answer at the moment, or is dead, and its slots will be taken over soon.
fn of_owner(
    owner: InstanceId,
    (is_here, gate): (bool, &Result<(), Closed>),
    members: &Members,
    view: &View,
) -> Result<Option<Destination>, Closed> {
    if owner == members.me {
        return match is_here && gate.is_ok() {
            true => Ok(Some(Destination::Here)),
            false => not_now(gate).map(|()| None),
        };
    }
    let member = members.member(owner);
    let Some(member) = member.filter(|member| member.state.is_alive()) else {
        return Ok(None);
    };
    match view.reachability(owner) {
        Reachability::CutOff => Err(Closed::OwnerUnreachable),
        Reachability::OtherProtocol => Err(Closed::OtherProtocol),
        _ if member.peer.is_none() => Err(Closed::OwnerUnreachable),
        Reachability::NotYet | Reachability::Reached | Reachability::Lost => {
            Ok(Some(Destination::There(owner)))
        }
    }
}

/// The instance that answers for the names of this slot. `is_here`: this instance has the slot and is not giving it
/// away; `gate`: whether this instance answers for any name. `None`: no instance answers at the moment.
///
/// # Errors
/// The request would not be answered before its hold is over, or this instance cannot reach the owner.
pub fn of_slot(
    (slot, is_here): (Slot, bool),
    gate: Result<(), Closed>,
    view: &View,
) -> Result<Option<Destination>, Closed> {
    if is_here && gate.is_ok() {
        return Ok(Some(Destination::Here));
    }
    passes_on(&gate)?;
    match &view.members {
        Some(members) => of_owner(members.owner(slot), (false, &gate), members, view),
        None => not_now(&gate).map(|()| None),
    }
}

/// All instances that own slots. `None`: one of them does not answer at the moment. Fails as [`of_slot`].
pub fn of_all(gate: Result<(), Closed>, view: &View) -> Result<Option<Vec<Destination>>, Closed> {
    passes_on(&gate)?;
    let Some(members) = &view.members else {
        return gate.map(|()| Some(vec![Destination::Here]));
    };
    let owners = view.owners().into_iter();
    owners
        .map(|owner| of_owner(owner, (true, &gate), members, view))
        .collect()
}

/// Refuses a request before its name is known, if no instance would answer it.
pub fn check(gate: Result<(), Closed>, view: &View) -> Result<(), Closed> {
    passes_on(&gate)?;
    match (&view.members, view.others_alive().next()) {
        (None, _) => gate,
        (Some(_), None) => not_now(&gate),
        (Some(_), Some(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::lock::FencingToken;
    use crate::store::PeerAddress;
    use crate::store::members::{Member, MemberState, SLOTS};

    const ME: InstanceId = [1; 16];
    const OTHER: InstanceId = [2; 16];

    fn member(id: InstanceId) -> Member {
        Member {
            id,
            state: MemberState::Leaves,
            peer: Some(PeerAddress {
                address: "localhost:1".to_owned(),
                is_tls: false,
                secret: Vec::new(),
            }),
            heartbeat: 1,
            version: String::new(),
        }
    }

    /// Slot 0 belongs to this instance, all others to `OTHER`.
    fn view() -> View {
        let mut owners = vec![OTHER; SLOTS];
        owners[0] = ME;
        let members = Members {
            me: ME,
            members: vec![member(ME), member(OTHER)],
            owners: owners.into(),
            token_floor: FencingToken(0),
            recorded_profile: None,
        };
        View {
            members: Some(Arc::new(members)),
            reachability: [(OTHER, Reachability::Lost)].into(),
            ..View::default()
        }
    }

    /// The destination of the slot with this number.
    fn destination(
        number: usize,
        is_here: bool,
        gate: Result<(), Closed>,
    ) -> Result<Option<Destination>, Closed> {
        let slot = Slot::all().nth(number).unwrap();
        of_slot((slot, is_here), gate, &view())
    }

    #[test]
    fn the_gate_of_this_instance_matters_for_its_own_names_alone() {
        let here = Ok(Some(Destination::Here));
        assert_eq!(destination(0, true, Ok(())), here);
        let away = Err(Closed::StoreAway);
        assert_eq!(destination(0, true, away.clone()), Err(Closed::StoreAway));
        let there = Ok(Some(Destination::There(OTHER)));
        assert_eq!(destination(1, false, away.clone()), there);
        assert_eq!(check(away.clone(), &view()), Ok(()));
        let all = of_all(away.clone(), &view());
        assert_eq!(all, Err(Closed::StoreAway));
        let standby = Err(Closed::Standby);
        assert_eq!(destination(0, false, standby), Ok(None));
        for closed in [Closed::Starting, Closed::Stopping] {
            let gate = Err(closed.clone());
            assert_eq!(destination(1, false, gate.clone()), Err(closed.clone()));
            assert_eq!(check(gate, &view()), Err(closed));
        }
        assert_eq!(check(away, &View::default()), Err(Closed::StoreAway));
    }

    /// Of a name and of all names: whether there is somebody to ask when `OTHER` is as `change` makes it.
    fn found(
        reachability: Reachability,
        change: fn(&mut Vec<Member>),
    ) -> [Result<bool, Closed>; 2] {
        let mut view = view();
        let mut members = view.members.as_deref().cloned().unwrap();
        change(&mut members.members);
        view.members = Some(Arc::new(members));
        view.reachability.insert(OTHER, reachability);
        let slot = Slot::all().nth(1).unwrap();
        let one = of_slot((slot, false), Ok(()), &view);
        let all = of_all(Ok(()), &view);
        [one.map(|one| one.is_some()), all.map(|all| all.is_some())]
    }

    #[test]
    fn an_owner_that_cannot_be_reached_is_said_to_be_and_one_that_is_dead_or_gone_is_waited_for() {
        use Reachability::{CutOff, NotYet, OtherProtocol};
        assert_eq!(found(NotYet, |_| {}), [Ok(true), Ok(true)]);
        let unreachable = Err(Closed::OwnerUnreachable);
        assert_eq!(found(CutOff, |_| {}), [unreachable.clone(), unreachable]);
        let other = Err(Closed::OtherProtocol);
        assert_eq!(found(OtherProtocol, |_| {}), [other.clone(), other]);
        let dead = found(CutOff, |members| members[1].state = MemberState::Dead);
        assert_eq!(dead, [Ok(false), Ok(false)]);
        let gone = found(CutOff, |members| drop(members.pop()));
        assert_eq!(gone, [Ok(false), Ok(false)]);
    }
}
