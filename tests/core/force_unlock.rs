//! `POST /resource/{name}/force-unlock`.

use small_resource_server::lock::{Answer, FencingToken};

use crate::world::{World, by_force, presented};

#[test]
fn forcing_ends_the_lease_and_grants_to_the_next() {
    let mut world = World::new();
    let stuck = world.ask().owner("stuck").grant();
    let next = world.ask().wait(60).send();
    let view = world.holder();
    assert_eq!(
        world.force(None),
        Answer::Forced(view.into_iter().collect())
    );
    assert!(world.granted(next).holder.token > stuck.holder.token);
    let forced = by_force();
    assert_eq!(world.unlock(stuck.ticket), forced);
    assert_eq!(world.write(presented(stuck.ticket)), forced);
}

#[test]
fn forcing_a_free_lock_forces_nothing() {
    let mut world = World::new();
    assert_eq!(world.force(None), Answer::Forced(vec![]));
}

#[test]
fn forcing_a_reserved_lock_forces_nothing_and_keeps_the_reservation() {
    let mut world = World::new();
    let holder = world.hold();
    let next = world.queue();
    world.unlock(holder.ticket);
    assert_eq!(world.force(None), Answer::Forced(vec![]));
    assert!(world.ask().ticket(next).grant().new);
}

#[test]
fn forcing_by_token_ends_that_very_lease_only() {
    let mut world = World::new();
    let first = world.hold();
    let old = first.holder.token;
    world.unlock(first.ticket);
    assert_eq!(world.force(Some(old)), Answer::OtherLease, "nobody holds");
    let second = world.hold();
    assert_eq!(world.force(Some(old)), Answer::OtherLease);
    assert_eq!(world.force(Some(FencingToken(99))), Answer::OtherLease);
    assert!(world.holds(second.ticket));
    let view = world.holder();
    assert_eq!(
        world.force(Some(second.holder.token)),
        Answer::Forced(view.into_iter().collect())
    );
    assert!(!world.state.is_locked());
}

#[test]
fn a_grant_on_its_way_can_be_forced_off() {
    let mut world = World::new();
    world.delivers = false;
    let request = world.ask().ttl(10).send();
    let ticket = world.granted(request).ticket;
    world.force(None);
    world.deliver(request);
    assert!(!world.holds(ticket));
    assert_eq!(world.renew(ticket, None), by_force());
}
