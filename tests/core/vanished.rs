//! Clients that are gone: before they were told, after they were told, and while a grant was on its way.

use small_resource_server::lock::command::Event;
use small_resource_server::lock::{Answer, WaitPolicy};

use crate::world::{World, presented};

#[test]
fn a_waiter_that_was_never_told_its_ticket_leaves_at_once() {
    let mut world = World::new();
    let holder = world.hold();
    let gone = world.ask().wait(60).send();
    let next = world.ask().wait(60).send();
    world.vanish(gone);
    assert_eq!(world.state.waiting(), 1);
    world.unlock(holder.ticket);
    assert!(world.granted(next).new);
}

#[test]
fn a_waiter_whose_first_answer_was_not_delivered_leaves_at_once() {
    for delivered_first in [false, true] {
        let mut world = World::new();
        world.hold();
        world.delivers = false;
        let polled = world.ask().send();
        if delivered_first {
            world.deliver(polled);
        }
        world.vanish(polled);
        assert_eq!(world.state.waiting(), 0);
        assert!(world.rows.waiting.is_empty());
    }
}

#[test]
fn a_reservation_for_a_client_that_was_never_told_goes_on_at_once() {
    let mut world = World::new();
    let holder = world.hold();
    world.delivers = false;
    let polled = world.ask().send();
    let next = world.ask().wait(60).send();
    world.unlock(holder.ticket);
    assert!(world.is_reserved());
    world.vanish(polled);
    assert!(world.granted(next).new);
}

#[test]
fn a_waiter_that_knows_its_ticket_keeps_its_place_and_is_near_for_claim_seconds() {
    let mut world = World::new();
    let holder = world.hold();
    let ticket = world.queue();
    let behind = world.ask().wait(60).send();
    let open = world.ask().ticket(ticket).wait(60).send();
    world.pass(20_000);
    world.vanish(open);
    world.unlock(holder.ticket);
    assert!(world.waits(behind));
    world.pass(5_000);
    assert!(world.granted(behind).new);
    assert_eq!(world.ask().ticket(ticket).place(), (ticket, 1));
}

#[test]
fn a_grant_to_a_client_that_was_never_told_its_ticket_goes_on_to_the_next() {
    let mut world = World::new();
    let holder = world.hold();
    let gone = world.ask().wait(60).send();
    let next = world.ask().wait(60).send();
    world.delivers = false;
    world.unlock(holder.ticket);
    let lost = world.granted(gone);
    let outcome = world.vanish(gone);
    assert!(
        outcome
            .events
            .contains(&Event::TakenBack(lost.holder.token))
    );
    assert!(world.granted(next).holder.token > lost.holder.token);
    assert!(!world.state.is_live(lost.ticket));
}

#[test]
fn a_grant_that_went_out_and_never_arrived_goes_on_to_the_next() {
    let mut world = World::new();
    world.delivers = false;
    let gone = world.ask().send();
    let next = world.ask().wait(60).send();
    world.deliver(gone);
    world.vanish(gone);
    assert!(world.granted(next).new);
}

#[test]
fn a_taken_back_grant_leaves_a_free_lock_when_nobody_waits() {
    let mut world = World::new();
    world.delivers = false;
    let gone = world.ask().send();
    world.vanish(gone);
    assert!(world.state.is_idle());
    assert_eq!(world.rows.head.holder, None);
    assert_eq!(
        world.rows.head.token,
        world.state.token(),
        "the token stays spent"
    );
}

#[test]
fn a_grant_to_a_client_that_knows_its_ticket_goes_back_to_its_place_and_is_kept_for_it() {
    let mut world = World::new();
    let holder = world.hold();
    let ticket = world.queue();
    let behind = world.ask().wait(60).send();
    let open = world.ask().ticket(ticket).wait(60).send();
    world.delivers = false;
    world.unlock(holder.ticket);
    let lost = world.granted(open).holder.token;
    world.vanish(open);
    assert!(world.is_reserved());
    assert!(world.waits(behind));
    let grant = world.ask().ticket(ticket).grant();
    assert!(grant.new && grant.holder.token > lost);
}

#[test]
fn a_told_client_that_stays_away_after_a_lost_grant_costs_the_next_claim_seconds() {
    let mut world = World::new();
    let holder = world.hold();
    let ticket = world.queue();
    let behind = world.ask().wait(60).send();
    let open = world.ask().ticket(ticket).wait(60).send();
    world.delivers = false;
    world.unlock(holder.ticket);
    world.vanish(open);
    world.pass(4_999);
    assert!(world.waits(behind));
    world.pass(1);
    assert!(world.granted(behind).new);
}

#[test]
fn a_client_that_vanishes_after_it_used_its_lease_keeps_it() {
    let mut world = World::new();
    let request = world.ask().send();
    let ticket = world.granted(request).ticket;
    world.write(presented(ticket));
    world.vanish(request);
    assert!(world.holds(ticket));
}

#[test]
fn a_grant_that_one_of_two_requests_received_is_not_taken_back_when_the_other_is_lost() {
    for lost_first in [false, true] {
        let mut world = World::new();
        let holder = world.hold();
        let ticket = world.queue();
        let old = world.ask().ticket(ticket).wait(60).send();
        let new = world.ask().ticket(ticket).wait(60).send();
        world.delivers = false;
        world.unlock(holder.ticket);
        world.deliver(old);
        if lost_first {
            world.vanish(old);
            world.deliver(new);
        } else {
            world.deliver(new);
            world.vanish(old);
        }
        assert!(
            world.holds(ticket),
            "the client knows of it by the other answer"
        );
    }
}

#[test]
fn a_grant_that_neither_of_two_requests_received_is_taken_back() {
    let mut world = World::new();
    let holder = world.hold();
    let ticket = world.queue();
    let one = world.ask().ticket(ticket).wait(60).send();
    let two = world.ask().ticket(ticket).wait(60).send();
    let behind = world.ask().wait(60).send();
    world.delivers = false;
    world.unlock(holder.ticket);
    world.deliver(one);
    world.vanish(one);
    world.vanish(two);
    world.pass(5_000);
    assert!(world.granted(behind).new);
}

#[test]
fn asking_while_the_grant_is_on_its_way_does_not_pin_a_lock_that_nobody_learns_of() {
    let mut world = World::new();
    let holder = world.hold();
    let ticket = world.queue();
    let open = world.ask().ticket(ticket).wait(60).send();
    let behind = world.ask().wait(60).send();
    world.delivers = false;
    world.unlock(holder.ticket);
    let poll = world.ask().ticket(ticket).send();
    world.touch(presented(ticket));
    world.vanish(open);
    assert!(world.holds(ticket), "the poll may still tell it");
    world.vanish(poll);
    world.pass(5_000);
    assert!(world.granted(behind).new);
}

#[test]
fn a_write_by_the_reserved_ticket_whose_answer_is_lost_does_not_pin_the_lock() {
    let mut world = World::new();
    let holder = world.hold();
    let ticket = world.queue();
    let behind = world.ask().wait(60).send();
    world.unlock(holder.ticket);
    world.delivers = false;
    let write = world.write_with(presented(ticket), WaitPolicy::Never);
    world.vanish(write);
    world.pass(5_000);
    assert!(world.granted(behind).new);
    assert!(matches!(world.take(write), Answer::Writable { .. }));
}

#[test]
fn news_of_a_request_that_is_long_over_changes_nothing() {
    let mut world = World::new();
    let first = world.ask().send();
    let ticket = world.granted(first).ticket;
    world.unlock(ticket);
    let second = world.hold();
    world.vanish(first);
    world.deliver(first);
    assert!(world.holds(second.ticket));
}
