//! `POST /resource/{name}/force-unlock`.

use small_resource_server::lock::{Answer, FencingToken, Refusal};

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
    assert_eq!(
        world.force(Some(old)),
        Answer::Refused(Refusal::OtherLease),
        "nobody holds"
    );
    let second = world.hold();
    assert_eq!(world.force(Some(old)), Answer::Refused(Refusal::OtherLease));
    assert_eq!(
        world.force(Some(FencingToken(99))),
        Answer::Refused(Refusal::OtherLease)
    );
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

#[test]
fn removing_a_waiter_ends_its_ticket_and_answers_what_it_has_open() {
    let mut world = World::new();
    let holder = world.hold();
    let first = world.ask().wait(60).send();
    let ticket = world.state.places(world.now, 1)[0].id;
    let second = world.queue();
    let removed = world.remove_id(ticket);
    assert_eq!(removed, Answer::WaiterRemoved(true));
    assert_eq!(world.take(first), by_force());
    assert_eq!(world.state.waiting(), 1);
    assert!(world.holds(holder.ticket), "the holder keeps the lock");
    world.unlock(holder.ticket);
    assert!(world.ask().ticket(second).grant().new);
}

#[test]
fn the_ticket_of_a_removed_waiter_stays_dead_over_a_restart() {
    let mut world = World::new();
    world.hold();
    let ticket = world.queue();
    assert_eq!(world.remove(ticket), Answer::WaiterRemoved(true));
    for _ in 0..2 {
        assert_eq!(world.unlock(ticket), by_force());
        assert_eq!(world.renew(ticket, None), by_force());
        assert_eq!(world.write(presented(ticket)), by_force());
        assert_eq!(
            world.remove(ticket),
            Answer::WaiterRemoved(false),
            "a retry"
        );
        world.restart();
    }
    world.pass(300_001);
    assert_eq!(world.remove(ticket), Answer::Refused(Refusal::NotWaiting));
}

#[test]
fn removing_somebody_who_does_not_wait_changes_nothing() {
    let mut world = World::new();
    let holder = world.hold();
    assert_eq!(
        world.remove(holder.ticket),
        Answer::Refused(Refusal::NotWaiting)
    );
    assert!(world.holds(holder.ticket));
    let gone = world.queue();
    world.unlock(gone);
    assert_eq!(world.remove(gone), Answer::Refused(Refusal::NotWaiting));
}

#[test]
fn a_reservation_of_a_removed_waiter_goes_to_the_next() {
    let mut world = World::new();
    let holder = world.hold();
    let first = world.queue();
    let second = world.ask().wait(60).send();
    world.unlock(holder.ticket);
    assert!(
        world.state.is_locked() && !world.state.is_held(),
        "it is reserved"
    );
    world.remove(first);
    assert!(world.granted(second).new);
}

#[test]
fn a_late_copy_of_the_request_of_a_removed_waiter_does_not_queue_anew() {
    let mut world = World::new();
    world.hold();
    let asked = world.ask().key("k").wait(60).send();
    let ticket = world.state.places(world.now, 1)[0].id;
    world.remove_id(ticket);
    assert_eq!(world.take(asked), by_force());
    assert_eq!(world.ask().key("k").answer(), by_force());
    assert_eq!(world.state.waiting(), 0);
}
