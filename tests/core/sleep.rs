//! A held lock that leaves memory while its lease runs, and comes back: nothing that a client can see
//! changes.

use small_resource_server::lock::{Answer, EndReason, LockState, Refusal};

use crate::world::World;

#[test]
fn a_lease_goes_on_with_its_own_clock() {
    let mut world = World::new();
    let grant = world.ask().ttl(10).grant();
    world.pass(6_000);
    let before = (world.holder(), world.state.deadline());
    assert!(world.sleep_and_wake());
    assert_eq!((world.holder(), world.state.deadline()), before);
    world.pass(4_000);
    assert!(world.holds(grant.ticket), "not ended early");
    world.pass(1);
    assert!(!world.holds(grant.ticket), "nor prolonged");
}

#[test]
fn a_lease_that_ended_in_its_sleep_is_over_when_it_wakes() {
    let mut world = World::new();
    let grant = world.ask().ttl(1).grant();
    let memory = world.state.suspend().unwrap();
    assert_eq!(memory.deadline(), Some(world.now.mono + 1_001));
    world.now.mono += 1_001;
    world.now.wall += 1_001;
    let rows = world.rows.clone();
    world.state = LockState::resume(
        world.state.options(),
        rows,
        &world.terms,
        world.now,
        &memory,
    );
    let dead = Answer::Refused(Refusal::Dead(Some(EndReason::Expired)));
    assert_eq!(world.renew(grant.ticket, None), dead);
    assert!(!world.state.is_locked());
}

#[test]
fn a_renewal_after_sleep_extends_the_lease_as_any_other() {
    let mut world = World::new();
    let grant = world.ask().ttl(10).grant();
    world.pass(9_000);
    assert!(world.sleep_and_wake());
    world.renew(grant.ticket, None);
    world.pass(10_000);
    assert!(world.holds(grant.ticket));
    world.pass(1);
    assert!(!world.holds(grant.ticket));
}

#[test]
fn the_life_of_a_lease_is_bounded_from_its_start_not_from_its_waking() {
    let mut world = World::new();
    world.terms.lease_seconds_max = small_resource_server::lock::Seconds::new(20).unwrap();
    let grant = world.ask().ttl(15).grant();
    world.pass(10_000);
    assert!(world.sleep_and_wake());
    world.renew(grant.ticket, None);
    world.pass(10_001);
    assert!(!world.holds(grant.ticket));
}

#[test]
fn a_grant_whose_client_turns_out_to_be_gone_is_taken_back_after_sleep_too() {
    let mut world = World::new();
    let request = world.ask().send();
    assert!(world.state.is_held());
    assert!(world.sleep_and_wake());
    world.vanish(request);
    assert!(!world.state.is_locked());
}

#[test]
fn what_is_not_all_in_the_rows_stays_awake() {
    let mut free = World::new();
    assert!(!free.sleep_and_wake(), "free");
    let mut waited = World::new();
    waited.hold();
    waited.queue();
    assert!(!waited.sleep_and_wake(), "somebody waits");
    let mut shortened = World::new();
    let grant = shortened.ask().ttl(30).grant();
    shortened.renew(grant.ticket, Some(5));
    assert!(
        !shortened.sleep_and_wake(),
        "the stored TTL is not the one of renewals"
    );
    let mut answering = World::new();
    answering.delivers = false;
    answering.ask().send();
    assert!(!answering.sleep_and_wake(), "its answer is on the way");
}

#[test]
fn a_memory_of_another_lease_counts_for_nothing_and_ends_none_early() {
    let mut world = World::new();
    let first = world.ask().ttl(10).grant();
    let memory = world.state.suspend().unwrap();
    world.unlock(first.ticket);
    world.pass(9_000);
    let second = world.ask().ttl(10).grant();
    let rows = world.rows.clone();
    world.state = LockState::resume(
        world.state.options(),
        rows,
        &world.terms,
        world.now,
        &memory,
    );
    world.pass(10_000);
    assert!(world.holds(second.ticket));
    world.pass(1);
    assert!(!world.holds(second.ticket));
}
