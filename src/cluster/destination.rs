//! Which instance answers for a name now, as far as this instance knows. Pure functions.

use crate::shared::gate::Closed;
use crate::shared::members::{Reachability, View};
use crate::store::members::{InstanceId, Members, Slot};

/// The instance that a question is sent to.
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

/// The destination of this owner's names. `is_here`: whether this instance serves the names in question, if it is the owner.
/// `None`: the owner does not answer at the moment, or is dead, and its slots will be taken over soon.
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

/// All instances that own slots. `None`: one of them does not answer at the moment.
///
/// # Errors
/// As [`of_slot`], for any of the slots.
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

/// Whether a request may be accepted before its name is known.
///
/// # Errors
/// Neither this instance nor another one would answer the request.
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
    const GONE: InstanceId = [3; 16];

    fn member(id: InstanceId, state: MemberState) -> Member {
        Member {
            id,
            state,
            peer: Some(PeerAddress {
                address: "localhost:1".to_owned(),
                is_tls: false,
                secret: Vec::new(),
            }),
            heartbeat: 1,
            version: String::new(),
        }
    }

    /// Slot 0 belongs to this instance, slot 1 to `OTHER`, and all others to an instance that has no row any more.
    fn view(other: MemberState, reachability: Reachability) -> View {
        let mut owners = vec![GONE; SLOTS];
        (owners[0], owners[1]) = (ME, OTHER);
        let members = Members {
            me: ME,
            members: vec![member(ME, MemberState::Serves), member(OTHER, other)],
            owners: owners.into(),
            token_floor: FencingToken(0),
            recorded_profile: None,
        };
        View {
            members: Some(Arc::new(members)),
            reachability: [(OTHER, reachability)].into(),
            ..View::default()
        }
    }

    fn told(destination: Result<Option<Destination>, Closed>) -> Result<&'static str, Closed> {
        destination.map(|destination| match destination {
            Some(Destination::Here) => "here",
            Some(Destination::There(other)) => {
                assert_eq!(other, OTHER);
                "there"
            }
            None => "nowhere now",
        })
    }

    /// The destination of the slot with this number.
    fn destination(
        number: usize,
        is_here: bool,
        gate: Result<(), Closed>,
        view: &View,
    ) -> Result<&'static str, Closed> {
        let slot = Slot::all().nth(number).unwrap();
        told(of_slot((slot, is_here), gate, view))
    }

    #[test]
    fn a_request_goes_to_the_owner_of_its_name_and_waits_while_there_is_none() {
        let view = view(MemberState::Serves, Reachability::Reached);
        assert_eq!(destination(0, true, Ok(()), &view), Ok("here"));
        // The slot is being given away, or has come a moment ago.
        assert_eq!(destination(0, false, Ok(()), &view), Ok("nowhere now"));
        assert_eq!(destination(1, false, Ok(()), &view), Ok("there"));
        // What this instance knows of its own slots is newer than what it last read from the store.
        assert_eq!(destination(1, true, Ok(()), &view), Ok("here"));
        assert_eq!(destination(2, false, Ok(()), &view), Ok("nowhere now"));
        assert_eq!(
            destination(0, false, Ok(()), &View::default()),
            Ok("nowhere now")
        );
    }

    #[test]
    fn the_gate_of_this_instance_matters_for_its_own_names_alone() {
        let view = view(MemberState::Leaves, Reachability::Lost);
        let away = Err(Closed::StoreAway);
        assert_eq!(
            destination(0, true, away.clone(), &view),
            Err(Closed::StoreAway)
        );
        assert_eq!(destination(1, false, away.clone(), &view), Ok("there"));
        assert_eq!(check(away.clone(), &view), Ok(()));
        let standby = Err(Closed::Standby);
        assert_eq!(
            destination(0, false, standby.clone(), &view),
            Ok("nowhere now")
        );
        for closed in [Closed::Starting, Closed::Stopping] {
            let gate = Err(closed.clone());
            assert_eq!(
                destination(1, false, gate.clone(), &view),
                Err(closed.clone())
            );
            assert_eq!(check(gate, &view), Err(closed));
        }
        assert_eq!(check(away, &View::default()), Err(Closed::StoreAway));
    }

    #[test]
    fn an_owner_that_cannot_be_reached_is_said_to_be_and_a_dead_one_is_waited_for() {
        let serves = MemberState::Serves;
        for (state, reachability, said) in [
            (serves, Reachability::NotYet, Ok("there")),
            (serves, Reachability::CutOff, Err(Closed::OwnerUnreachable)),
            (
                serves,
                Reachability::OtherProtocol,
                Err(Closed::OtherProtocol),
            ),
            (MemberState::Dead, Reachability::CutOff, Ok("nowhere now")),
        ] {
            let view = view(state, reachability);
            assert_eq!(destination(1, false, Ok(()), &view), said);
        }
    }

    #[test]
    fn all_owners_are_asked_or_the_missing_one_is_waited_for() {
        let with_hole = view(MemberState::Serves, Reachability::Reached);
        assert!(of_all(Ok(()), &with_hole).unwrap().is_none());
        let whole = |other, reachability| {
            let mut view = view(other, reachability);
            let mut members = Members::clone(view.members.as_ref().unwrap());
            members.owners = (0..SLOTS).map(|n| [ME, OTHER][n % 2]).collect();
            view.members = Some(Arc::new(members));
            view
        };
        let reached = whole(MemberState::Serves, Reachability::Reached);
        assert_eq!(of_all(Ok(()), &reached).unwrap().unwrap().len(), 2);
        let away = of_all(Err(Closed::StoreAway), &reached);
        assert_eq!(away.err(), Some(Closed::StoreAway));
        let cut = of_all(Ok(()), &whole(MemberState::Serves, Reachability::CutOff));
        assert_eq!(cut.err(), Some(Closed::OwnerUnreachable));
        let dead = of_all(Ok(()), &whole(MemberState::Dead, Reachability::Lost));
        assert!(dead.unwrap().is_none());
        let alone = of_all(Ok(()), &View::default()).unwrap().unwrap();
        assert!(matches!(alone[..], [Destination::Here]));
    }
}
