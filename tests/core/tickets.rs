//! "Ticket" and "Ended tickets": capabilities, why they ended, and how long that is remembered.

use small_resource_server::lock::{Answer, EndReason, PresentedTicket, Refusal, Ticket};

use crate::world::{World, presented};

#[test]
fn a_ticket_of_the_clients_own_making_is_never_adopted() {
    let mut world = World::new();
    let made_up = Ticket::from_bits(0xbad);
    let grant = world.ask().ticket(made_up).grant();
    assert_ne!(grant.ticket, made_up);
    assert_eq!(grant.ended, None);
    let queued = world.ask().ticket(made_up).place();
    assert_ne!(queued.0, made_up);
    assert_ne!(
        world.ask().presented(PresentedTicket::Malformed).place().0,
        made_up
    );
}

#[test]
fn a_waiting_ticket_is_stored_when_it_is_told_and_not_before() {
    let mut world = World::new();
    world.hold();
    world.ask().wait(2).send();
    assert!(world.rows.waiting.is_empty());
    world.pass(2_000);
    assert_eq!(world.rows.waiting.len(), 1);
}

#[test]
fn a_grant_stores_the_holder_and_takes_its_place_out_of_the_stored_queue() {
    let mut world = World::new();
    let holder = world.hold();
    let next = world.queue();
    world.unlock(holder.ticket);
    world.ask().ticket(next).grant();
    assert!(world.rows.waiting.is_empty());
    let stored = world.rows.head.holder.as_ref().unwrap();
    assert_eq!(stored.ticket.ticket, next);
}

#[test]
fn a_poll_that_changes_nothing_stores_nothing() {
    let mut world = World::new();
    world.hold();
    let ticket = world.queue();
    let before = world.rows.clone();
    world.ask().ticket(ticket).place();
    assert_eq!(world.rows, before);
}

#[test]
fn a_released_ticket_is_dead_and_says_so() {
    let mut world = World::new();
    let grant = world.hold();
    assert_eq!(world.unlock(grant.ticket), Answer::Unlocked { dead: None });
    let released = Some(EndReason::Released);
    assert_eq!(
        world.renew(grant.ticket, None),
        Answer::Refused(Refusal::Dead(released))
    );
    assert_eq!(
        world.write(presented(grant.ticket)),
        Answer::Refused(Refusal::Dead(released))
    );
    assert_eq!(
        world.delete(presented(grant.ticket)),
        Answer::Refused(Refusal::Dead(released))
    );
}

#[test]
fn unlocking_twice_succeeds_twice() {
    let mut world = World::new();
    let grant = world.hold();
    world.unlock(grant.ticket);
    assert_eq!(world.unlock(grant.ticket), Answer::Unlocked { dead: None });
}

#[test]
fn unlocking_twice_does_not_release_the_next_holder() {
    let mut world = World::new();
    let first = world.hold();
    world.unlock(first.ticket);
    let second = world.hold();
    world.unlock(first.ticket);
    assert!(world.holds(second.ticket));
}

#[test]
fn unlocking_without_a_ticket_or_with_an_unknown_one_is_refused() {
    let mut world = World::new();
    let grant = world.hold();
    assert_eq!(
        world.unlock(Ticket::from_bits(0xbad)),
        Answer::Refused(Refusal::Dead(None))
    );
    for (presented, expected) in [
        (
            PresentedTicket::Absent,
            Answer::Refused(Refusal::TicketMissing),
        ),
        (
            PresentedTicket::Malformed,
            Answer::Refused(Refusal::Dead(None)),
        ),
    ] {
        let request = world.request();
        world.apply(small_resource_server::lock::Command::Unlock { request, presented });
        assert_eq!(world.take(request), expected);
    }
    assert!(world.holds(grant.ticket));
}

#[test]
fn a_dead_ticket_presented_with_lock_intent_counts_as_none_and_the_reason_is_told() {
    let mut world = World::new();
    let released = world.hold().ticket;
    world.unlock(released);
    let expired = world.ask().ttl(1).grant().ticket;
    world.pass(1_001);
    let forced = world.hold().ticket;
    world.force(None);
    for (ticket, reason) in [
        (released, EndReason::Released),
        (expired, EndReason::Expired),
        (forced, EndReason::ForcedOff),
    ] {
        let grant = world.ask().ticket(ticket).grant();
        assert_ne!(grant.ticket, ticket);
        assert!(grant.new);
        assert_eq!(grant.ended, Some(reason));
        world.unlock(grant.ticket);
    }
}

#[test]
fn a_request_that_waits_tells_why_its_old_ticket_ended_when_it_is_answered() {
    let mut world = World::new();
    let old = world.hold().ticket;
    world.unlock(old);
    let holder = world.hold();
    let granted = world.ask().ticket(old).wait(10).send();
    let queued = world.ask().ticket(old).wait(1).send();
    world.pass(1_000);
    assert!(matches!(
        world.take(queued),
        Answer::Queued {
            ended: Some(EndReason::Released),
            ..
        }
    ));
    world.unlock(holder.ticket);
    assert_eq!(world.granted(granted).ended, Some(EndReason::Released));
}

#[test]
fn the_reason_is_remembered_for_300_seconds_and_then_the_ticket_is_unknown() {
    let mut world = World::new();
    let ticket = world.hold().ticket;
    world.unlock(ticket);
    world.pass(300_000);
    assert_eq!(
        world.renew(ticket, None),
        Answer::Refused(Refusal::Dead(Some(EndReason::Released)))
    );
    world.pass(1);
    assert_eq!(
        world.renew(ticket, None),
        Answer::Refused(Refusal::Dead(None))
    );
}

#[test]
fn the_last_64_ended_tickets_are_remembered() {
    let mut world = World::new();
    let tickets: Vec<Ticket> = (0..65)
        .map(|_| {
            let ticket = world.hold().ticket;
            world.unlock(ticket);
            ticket
        })
        .collect();
    assert_eq!(
        world.renew(tickets[0], None),
        Answer::Refused(Refusal::Dead(None))
    );
    for ticket in &tickets[1..] {
        assert_eq!(
            world.renew(*ticket, None),
            Answer::Refused(Refusal::Dead(Some(EndReason::Released)))
        );
    }
    assert_eq!(world.rows.ended.len(), 64, "the oldest row is overwritten");
}

#[test]
fn the_reason_survives_a_restart() {
    let mut world = World::new();
    let expired = world.ask().ttl(1).grant().ticket;
    world.pass(1_001);
    world.restart();
    assert_eq!(
        world.renew(expired, None),
        Answer::Refused(Refusal::Dead(Some(EndReason::Expired)))
    );
}

#[test]
fn after_a_restart_new_reasons_do_not_overwrite_the_newest_stored_ones() {
    let mut world = World::new();
    let old = world.hold().ticket;
    world.unlock(old);
    world.restart();
    for _ in 0..63 {
        let ticket = world.hold().ticket;
        world.unlock(ticket);
    }
    world.restart();
    assert_eq!(
        world.renew(old, None),
        Answer::Refused(Refusal::Dead(Some(EndReason::Released)))
    );
    assert_eq!(world.rows.ended.len(), 64);
}

#[test]
fn touching_changes_nothing_for_a_caller_that_has_no_live_ticket() {
    let mut world = World::new();
    for presented in [
        PresentedTicket::Absent,
        PresentedTicket::Malformed,
        presented(Ticket::from_bits(0xbad)),
    ] {
        assert_eq!(world.touch(presented), Answer::Touched { live: false });
    }
    assert!(!world.state.is_locked());
    assert_eq!(world.state.waiting(), 0);
}

#[test]
fn touching_keeps_a_waiting_ticket_alive() {
    let mut world = World::new();
    world.hold();
    let ticket = world.queue();
    for _ in 0..3 {
        world.pass(50_000);
        assert_eq!(
            world.touch(presented(ticket)),
            Answer::Touched { live: true }
        );
    }
    assert_eq!(world.ask().ticket(ticket).place(), (ticket, 1));
}

#[test]
fn one_change_of_the_lock_is_one_head_row() {
    let mut world = World::new();
    let grant = world.hold();
    world.ask().wait(10).send();
    let request = world.request();
    let outcome = world.apply(small_resource_server::lock::Command::Unlock {
        request,
        presented: presented(grant.ticket),
    });
    let head = outcome.changes.head.unwrap();
    assert!(
        head.holder.is_some(),
        "the successor is stored with the release"
    );
}
