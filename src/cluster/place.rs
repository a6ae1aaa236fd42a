//! Which instance answers for a name now, as far as this instance knows. Pure functions.

use std::sync::Arc;

use crate::shared::gate::Closed;
use crate::shared::members::{Reach, View};
use crate::store::PeerAddress;
use crate::store::members::{InstanceId, Members, Slot};

/// Another instance, as of the last look at the store.
pub struct OtherMember {
    pub id: InstanceId,
    members: Arc<Members>,
}

impl OtherMember {
    pub fn peer(&self) -> Option<&PeerAddress> {
        self.members.member(self.id)?.peer.as_ref()
    }
}

/// The instance that a question is sent to.
pub enum Place {
    Here,
    There(OtherMember),
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
fn not_now(gate: Result<(), Closed>) -> Result<(), Closed> {
    match gate {
        // Others took this instance for dead, and its slots are being taken over.
        Ok(()) | Err(Closed::Standby) => Ok(()),
        Err(closed) => Err(closed),
    }
}

/// The place of a name that another instance owns. `None`: the owner is dead, and its slots will be taken over
/// soon.
fn of_other(
    owner: InstanceId,
    members: &Arc<Members>,
    view: &View,
) -> Result<Option<Place>, Closed> {
    let member = members.member(owner);
    let Some(member) = member.filter(|member| member.state.is_alive()) else {
        return Ok(None);
    };
    match view.reach(owner) {
        Reach::CutOff => Err(Closed::OwnerUnreachable),
        Reach::OtherProtocol => Err(Closed::OtherProtocol),
        _ if member.peer.is_none() => Err(Closed::OwnerUnreachable),
        Reach::NotYet | Reach::Reached | Reach::Lost => Ok(Some(Place::There(OtherMember {
            id: owner,
            members: members.clone(),
        }))),
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
) -> Result<Option<Place>, Closed> {
    if is_here && gate.is_ok() {
        return Ok(Some(Place::Here));
    }
    passes_on(&gate)?;
    let Some(members) = &view.members else {
        return not_now(gate).map(|()| None);
    };
    match members.owner(slot) {
        owner if owner == members.me => not_now(gate).map(|()| None),
        owner => of_other(owner, members, view),
    }
}

/// All instances that own slots. `None`: one of them does not answer at the moment.
///
/// # Errors
/// As [`of_slot`], for any of the slots.
pub fn of_all(gate: Result<(), Closed>, view: &View) -> Result<Option<Vec<Place>>, Closed> {
    passes_on(&gate)?;
    let Some(members) = &view.members else {
        return gate.map(|()| Some(vec![Place::Here]));
    };
    let mut places = Vec::new();
    for owner in view.owners() {
        let place = match owner == members.me {
            true if gate.is_ok() => Some(Place::Here),
            true => not_now(gate.clone()).map(|()| None)?,
            false => of_other(owner, members, view)?,
        };
        match place {
            Some(place) => places.push(place),
            None => return Ok(None),
        }
    }
    Ok(Some(places))
}

/// Whether a request may be accepted before its name is known.
///
/// # Errors
/// Neither this instance nor another one would answer the request.
pub fn check(gate: Result<(), Closed>, view: &View) -> Result<(), Closed> {
    passes_on(&gate)?;
    match (&view.members, view.others_alive().next()) {
        (None, _) => gate,
        (Some(_), None) => not_now(gate),
        (Some(_), Some(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::FencingToken;
    use crate::store::members::MemberState;
    use crate::store::members::{Member, SLOTS};

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
    fn view(other: MemberState, reach: Reach) -> View {
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
            reach: [(OTHER, reach)].into(),
            ..View::default()
        }
    }

    fn told(place: Result<Option<Place>, Closed>) -> Result<&'static str, Closed> {
        place.map(|place| match place {
            Some(Place::Here) => "here",
            Some(Place::There(other)) => {
                assert_eq!(other.id, OTHER);
                assert!(other.peer().is_some());
                "there"
            }
            None => "nowhere now",
        })
    }

    /// The place of the slot with this number.
    fn place(
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
        let view = view(MemberState::Serves, Reach::Reached);
        assert_eq!(place(0, true, Ok(()), &view), Ok("here"));
        // The slot is being given away, or has come a moment ago.
        assert_eq!(place(0, false, Ok(()), &view), Ok("nowhere now"));
        assert_eq!(place(1, false, Ok(()), &view), Ok("there"));
        // What this instance knows of its own slots is newer than its last look at the store.
        assert_eq!(place(1, true, Ok(()), &view), Ok("here"));
        assert_eq!(place(2, false, Ok(()), &view), Ok("nowhere now"));
        assert_eq!(place(0, false, Ok(()), &View::default()), Ok("nowhere now"));
    }

    #[test]
    fn the_gate_of_this_instance_matters_for_its_own_names_alone() {
        let view = view(MemberState::Leaves, Reach::Lost);
        let away = Err(Closed::StoreAway);
        assert_eq!(place(0, true, away.clone(), &view), Err(Closed::StoreAway));
        assert_eq!(place(1, false, away.clone(), &view), Ok("there"));
        assert_eq!(check(away.clone(), &view), Ok(()));
        let standby = Err(Closed::Standby);
        assert_eq!(place(0, false, standby.clone(), &view), Ok("nowhere now"));
        for closed in [Closed::Starting, Closed::Stopping] {
            let gate = Err(closed.clone());
            assert_eq!(place(1, false, gate.clone(), &view), Err(closed.clone()));
            assert_eq!(check(gate, &view), Err(closed));
        }
        assert_eq!(check(away, &View::default()), Err(Closed::StoreAway));
    }

    #[test]
    fn an_owner_that_cannot_be_reached_is_said_to_be_and_a_dead_one_is_waited_for() {
        let serves = MemberState::Serves;
        for (state, reach, said) in [
            (serves, Reach::NotYet, Ok("there")),
            (serves, Reach::CutOff, Err(Closed::OwnerUnreachable)),
            (serves, Reach::OtherProtocol, Err(Closed::OtherProtocol)),
            (MemberState::Dead, Reach::CutOff, Ok("nowhere now")),
        ] {
            let view = view(state, reach);
            assert_eq!(place(1, false, Ok(()), &view), said);
        }
    }

    #[test]
    fn all_owners_are_asked_or_the_missing_one_is_waited_for() {
        let with_hole = view(MemberState::Serves, Reach::Reached);
        assert!(of_all(Ok(()), &with_hole).unwrap().is_none());
        let whole = |other, reach| {
            let mut view = view(other, reach);
            let mut members = Members::clone(view.members.as_ref().unwrap());
            members.owners = (0..SLOTS).map(|n| [ME, OTHER][n % 2]).collect();
            view.members = Some(Arc::new(members));
            view
        };
        let reached = whole(MemberState::Serves, Reach::Reached);
        assert_eq!(of_all(Ok(()), &reached).unwrap().unwrap().len(), 2);
        let away = of_all(Err(Closed::StoreAway), &reached);
        assert_eq!(away.err(), Some(Closed::StoreAway));
        let cut = of_all(Ok(()), &whole(MemberState::Serves, Reach::CutOff));
        assert_eq!(cut.err(), Some(Closed::OwnerUnreachable));
        let dead = of_all(Ok(()), &whole(MemberState::Dead, Reach::Lost));
        assert!(dead.unwrap().is_none());
        let alone = of_all(Ok(()), &View::default()).unwrap().unwrap();
        assert!(matches!(alone[..], [Place::Here]));
    }
}
