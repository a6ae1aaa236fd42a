//! The right-hand column of the table of the two profiles.

use small_resource_server::lock::{
    Answer, EndReason, PresentedTicket, Refusal, Ticket, WaitPolicy,
};

use crate::world::{World, by_force, presented};

fn until(world: &World, seconds: u64) -> WaitPolicy {
    WaitPolicy::Until(world.now.mono + seconds * 1_000)
}

#[test]
fn leases_do_not_expire_unless_a_ttl_was_given() {
    let mut world = World::php();
    let grant = world.hold();
    assert_eq!(grant.holder.expires_at, None);
    world.pass(1_000_000);
    assert!(world.holds(grant.ticket), "the timeout of 1 is a wait");
    world.unlock(grant.ticket);
    let short = world.ask().ttl(2).grant();
    world.pass(2_001);
    assert!(!world.holds(short.ticket));
}

#[test]
fn unlocking_with_a_dead_ticket_succeeds_and_names_the_reason() {
    let mut world = World::php();
    let expired = world.ask().ttl(1).grant().ticket;
    world.pass(1_001);
    let released = world.hold().ticket;
    world.unlock(released);
    for (ticket, death) in [
        (expired, Some(EndReason::Expired)),
        (released, Some(EndReason::Released)),
        (Ticket::from_bits(0xbad), None),
    ] {
        assert_eq!(world.unlock(ticket), Answer::Unlocked { dead: Some(death) });
    }
}

#[test]
fn a_released_or_unknown_ticket_writes_as_nobody() {
    let mut world = World::php();
    let released = world.hold().ticket;
    world.unlock(released);
    let unknown = Ticket::from_bits(0xbad);
    for spent in [
        presented(released),
        presented(unknown),
        PresentedTicket::Malformed,
    ] {
        assert_eq!(world.write(spent), Answer::Writable { token: None });
    }
    let holder = world.hold();
    for spent in [
        presented(released),
        presented(unknown),
        PresentedTicket::Malformed,
    ] {
        assert_eq!(world.write(spent), world.locked());
    }
    assert!(world.holds(holder.ticket));
}

#[test]
fn an_expired_or_forced_off_ticket_does_not_write() {
    let mut world = World::php();
    let expired = world.ask().ttl(1).grant().ticket;
    world.pass(1_001);
    let forced = world.hold().ticket;
    world.force(None);
    assert_eq!(
        world.write(presented(expired)),
        Answer::Refused(Refusal::Dead(Some(EndReason::Expired)))
    );
    assert_eq!(world.write(presented(forced)), by_force());
}

#[test]
fn a_write_without_a_ticket_waits_its_turn_and_leaves_no_lock() {
    let mut world = World::php();
    let holder = world.hold();
    let policy = until(&world, 10);
    let write = world.write_with(PresentedTicket::Absent, policy);
    assert!(world.waits(write));
    world.unlock(holder.ticket);
    assert_eq!(world.take(write), Answer::Writable { token: None });
    assert!(!world.state.is_locked());
    assert_eq!(world.state.waiting(), 0);
}

#[test]
fn writes_that_wait_take_their_turn_among_those_who_wait_for_the_lock() {
    let mut world = World::php();
    let holder = world.hold();
    let policy = until(&world, 10);
    let first = world.write_with(PresentedTicket::Absent, policy);
    let second = world.write_with(PresentedTicket::Absent, policy);
    let lock = world.ask().wait(10).send();
    let third = world.write_with(PresentedTicket::Absent, policy);
    world.unlock(holder.ticket);
    assert_eq!(world.take(first), Answer::Writable { token: None });
    assert_eq!(world.take(second), Answer::Writable { token: None });
    let grant = world.granted(lock);
    assert!(world.waits(third));
    world.unlock(grant.ticket);
    assert_eq!(world.take(third), Answer::Writable { token: None });
}

#[test]
fn a_write_that_waited_in_vain_is_refused_and_leaves_nothing() {
    let mut world = World::php();
    world.hold();
    let rows = world.rows.clone();
    let policy = until(&world, 2);
    let write = world.write_with(PresentedTicket::Absent, policy);
    assert_eq!(world.rows, rows, "its place is never stored");
    world.pass(2_000);
    assert_eq!(world.take(write), world.locked());
    assert_eq!(world.state.waiting(), 0);
    assert_eq!(world.rows, rows);
}

#[test]
fn a_write_that_waits_and_whose_client_vanishes_never_happens() {
    let mut world = World::php();
    let holder = world.hold();
    let write = world.write_with(PresentedTicket::Absent, WaitPolicy::Forever);
    world.vanish(write);
    assert_eq!(world.state.waiting(), 0);
    world.unlock(holder.ticket);
    assert!(world.waits(write));
}

#[test]
fn a_waiting_ticket_that_writes_waits_in_its_place_and_holds_from_then_on() {
    let mut world = World::php();
    let holder = world.hold();
    let ticket = world.queue();
    let behind = world.ask().wait(60).send();
    let policy = until(&world, 10);
    let write = world.write_with(presented(ticket), policy);
    world.unlock(holder.ticket);
    assert!(matches!(
        world.take(write),
        Answer::Writable { token: Some(_) }
    ));
    assert!(world.holds(ticket) && world.waits(behind));
}

#[test]
fn a_waiting_ticket_whose_write_waited_in_vain_keeps_its_place() {
    let mut world = World::php();
    world.hold();
    let ticket = world.queue();
    let policy = until(&world, 2);
    let write = world.write_with(presented(ticket), policy);
    world.pass(2_000);
    assert_eq!(world.take(write), world.locked());
    assert_eq!(world.ask().ticket(ticket).place(), (ticket, 1));
}

#[test]
fn a_wait_without_limit_is_answered_by_the_release_alone() {
    let mut world = World::php();
    let holder = world.hold();
    let write = world.write_with(PresentedTicket::Absent, WaitPolicy::Forever);
    world.pass(100_000_000);
    assert!(world.waits(write));
    world.unlock(holder.ticket);
    assert_eq!(world.take(write), Answer::Writable { token: None });
}

#[test]
fn two_writes_that_wait_with_one_ticket_both_happen_in_its_turn() {
    let mut world = World::php();
    let holder = world.hold();
    let ticket = world.queue();
    let one = world.write_with(presented(ticket), WaitPolicy::Forever);
    let two = world.write_with(presented(ticket), WaitPolicy::Forever);
    world.unlock(holder.ticket);
    assert!(matches!(
        world.take(one),
        Answer::Writable { token: Some(_) }
    ));
    assert!(matches!(
        world.take(two),
        Answer::Writable { token: Some(_) }
    ));
}
