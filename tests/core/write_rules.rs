//! The table of the PUT route, in the default profile.

use small_resource_server::lock::{
    Answer, EndReason, PresentedTicket, Refusal, Ticket, WaitPolicy,
};

use crate::world::{World, by_force, presented};

#[test]
fn the_holder_writes_and_the_lock_stays_held() {
    let mut world = World::new();
    let grant = world.hold();
    let token = Some(grant.holder.token);
    assert_eq!(
        world.write(presented(grant.ticket)),
        Answer::Writable { token }
    );
    assert!(world.holds(grant.ticket));
}

#[test]
fn the_ticket_that_the_lock_is_reserved_for_writes_and_holds_from_then_on() {
    let mut world = World::new();
    let holder = world.hold();
    let ticket = world.queue();
    world.unlock(holder.ticket);
    let Answer::Writable { token: Some(token) } = world.write(presented(ticket)) else {
        panic!("refused");
    };
    assert!(token > holder.holder.token);
    assert!(world.holds(ticket));
}

#[test]
fn a_write_would_be_granted_the_lock_that_is_reserved_for_its_ticket() {
    let mut world = World::new();
    let holder = world.hold();
    let (next, last) = (world.queue(), world.queue());
    let (reader, _) = world.ask().shared().place();
    let would = |world: &World| {
        let tickets = [holder.ticket, next, last, reader];
        tickets.map(|ticket| world.state.would_grant_write(ticket))
    };
    assert_eq!(would(&world), [false; 4]);
    world.unlock(holder.ticket);
    assert_eq!(would(&world), [false, true, false, false]);
    world.unlock(next);
    world.unlock(last);
    assert!(world.state.is_reserved());
    assert_eq!(would(&world), [false; 4], "a reader does not write");
}

#[test]
fn a_waiting_ticket_is_refused_while_someone_else_holds() {
    let mut world = World::new();
    world.ask().owner("ann").grant();
    let ticket = world.queue();
    assert_eq!(world.write(presented(ticket)), world.locked());
    assert_eq!(world.ask().ticket(ticket).place(), (ticket, 1));
}

#[test]
fn a_waiting_ticket_is_refused_while_the_lock_is_reserved_for_another() {
    let mut world = World::new();
    let holder = world.hold();
    world.queue();
    let second = world.queue();
    world.unlock(holder.ticket);
    assert_eq!(world.write(presented(second)), world.locked());
}

#[test]
fn a_write_without_a_ticket_is_refused_while_someone_holds_or_it_is_reserved() {
    let mut world = World::new();
    let holder = world.hold();
    assert_eq!(world.write(PresentedTicket::Absent), world.locked());
    world.queue();
    world.unlock(holder.ticket);
    assert_eq!(world.write(PresentedTicket::Absent), world.locked());
    assert_eq!(world.state.waiting(), 1, "and leaves no place");
}

#[test]
fn a_refused_write_is_refused_at_once_whatever_wait_policy_it_names() {
    let mut world = World::new();
    world.hold();
    let request = world.write_with(PresentedTicket::Absent, WaitPolicy::Forever);
    assert_eq!(world.take(request), world.locked());
}

#[test]
fn a_write_without_a_ticket_happens_while_the_lock_is_free_and_leaves_no_lock() {
    let mut world = World::new();
    let rows = world.rows.clone();
    assert_eq!(
        world.write(PresentedTicket::Absent),
        Answer::Writable { token: None }
    );
    assert!(!world.state.is_locked());
    assert_eq!(world.rows, rows);
}

#[test]
fn a_dead_or_unknown_ticket_never_writes_even_while_the_lock_is_free() {
    let mut world = World::new();
    let expired = world.ask().ttl(1).grant().ticket;
    world.pass(1_001);
    let forced = world.hold().ticket;
    world.force(None);
    let released = world.hold().ticket;
    world.unlock(released);
    let unknown = presented(Ticket::from_bits(0xbad));
    for (presented, death) in [
        (
            presented(expired),
            Answer::Refused(Refusal::Dead(Some(EndReason::Expired))),
        ),
        (presented(forced), by_force()),
        (
            presented(released),
            Answer::Refused(Refusal::Dead(Some(EndReason::Released))),
        ),
        (unknown, Answer::Refused(Refusal::Dead(None))),
        (
            PresentedTicket::Malformed,
            Answer::Refused(Refusal::Dead(None)),
        ),
    ] {
        assert_eq!(world.write(presented), death);
    }
    assert!(!world.state.is_locked());
}

#[test]
fn a_far_ticket_that_writes_on_a_free_lock_takes_it() {
    let mut world = World::new();
    let holder = world.hold();
    let far = world.queue();
    world.pass(6_000);
    world.unlock(holder.ticket);
    assert!(matches!(
        world.write(presented(far)),
        Answer::Writable { token: Some(_) }
    ));
    assert!(world.holds(far));
}
