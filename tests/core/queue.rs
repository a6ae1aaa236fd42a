//! "Queue": strict arrival order among near tickets, reservation, passing over, dropping.

use small_resource_server::lock::command::Event;
use small_resource_server::lock::{Answer, Command, EndReason, Mode, Refusal, Terms};

use crate::world::{World, presented};

#[test]
fn the_first_asker_of_a_free_lock_gets_it_and_the_second_gets_a_place() {
    let mut world = World::new();
    let first = world.hold();
    assert!(first.new);
    let second = world.ask().send();
    assert_eq!(world.queued(second).1, 1);
    assert!(world.holds(first.ticket));
}

#[test]
fn positions_count_from_1_in_order_of_arrival_and_move_up() {
    let mut world = World::new();
    let holder = world.hold();
    let places: Vec<_> = (0..3).map(|_| world.ask().place()).collect();
    assert_eq!(places.iter().map(|p| p.1).collect::<Vec<_>>(), [1, 2, 3]);
    world.unlock(places[0].0);
    assert_eq!(world.ask().ticket(places[2].0).place().1, 2);
    assert!(world.holds(holder.ticket));
}

#[test]
fn asking_again_keeps_the_place() {
    let mut world = World::new();
    world.hold();
    let a = world.queue();
    let b = world.queue();
    for _ in 0..3 {
        assert_eq!(world.ask().ticket(b).place(), (b, 2));
        assert_eq!(world.ask().ticket(a).place(), (a, 1));
    }
    assert_eq!(world.state.waiting(), 2);
}

#[test]
fn a_release_grants_at_once_to_the_first_near_ticket_whose_request_is_open() {
    let mut world = World::new();
    let holder = world.hold();
    let a = world.ask().wait(10).send();
    let b = world.ask().wait(10).send();
    assert!(world.waits(a) && world.waits(b));
    world.unlock(holder.ticket);
    assert!(world.granted(a).new);
    assert!(world.waits(b), "a release wakes exactly one successor");
}

#[test]
fn a_release_reserves_the_lock_for_the_first_near_ticket_without_an_open_request() {
    let mut world = World::new();
    let holder = world.hold();
    let a = world.queue();
    let b = world.ask().wait(10).send();
    world.unlock(holder.ticket);
    assert!(world.is_reserved());
    assert!(world.waits(b), "the one behind does not overtake");
    let stranger = world.ask().send();
    assert_eq!(world.queued(stranger).1, 3);
    assert!(world.ask().ticket(a).grant().new);
}

#[test]
fn a_reservation_lasts_as_long_as_its_ticket_is_near_and_then_goes_to_the_next() {
    let mut world = World::new();
    let holder = world.hold();
    let _silent = world.queue();
    let b = world.ask().wait(60).send();
    world.pass(1_000);
    world.unlock(holder.ticket);
    world.pass(3_999);
    assert!(world.waits(b));
    world.pass(1);
    assert!(world.granted(b).new, "5 s after the last sign of life");
}

#[test]
fn any_number_of_silent_waiters_cost_the_one_behind_them_claim_seconds_once() {
    let mut world = World::new();
    let holder = world.hold();
    for _ in 0..50 {
        world.queue();
    }
    let live = world.ask().wait(60).send();
    world.unlock(holder.ticket);
    world.pass(5_000);
    assert!(world.granted(live).new);
}

#[test]
fn a_ticket_that_was_passed_over_keeps_its_place() {
    let mut world = World::new();
    let holder = world.hold();
    let far = world.queue();
    world.pass(6_000);
    let near = world.ask().wait(60).send();
    world.unlock(holder.ticket);
    let second = world.granted(near).ticket;
    assert_eq!(world.ask().ticket(far).place(), (far, 1));
    world.queue();
    world.unlock(second);
    assert!(world.ask().ticket(far).grant().new);
}

#[test]
fn when_none_is_near_the_next_request_gets_the_lock_whatever_its_place() {
    let mut world = World::new();
    let holder = world.hold();
    let first = world.queue();
    let second = world.queue();
    world.pass(6_000);
    world.unlock(holder.ticket);
    assert!(!world.state.is_locked());
    assert!(world.ask().ticket(second).grant().new);
    assert_eq!(world.ask().ticket(first).place(), (first, 1));
}

#[test]
fn a_newcomer_gets_a_free_lock_while_far_tickets_wait() {
    let mut world = World::new();
    let holder = world.hold();
    let far = world.queue();
    world.pass(6_000);
    world.unlock(holder.ticket);
    assert!(world.hold().new);
    assert_eq!(world.ask().ticket(far).place(), (far, 1));
}

#[test]
fn a_reservation_is_not_lost_to_an_earlier_ticket_that_comes_back() {
    let mut world = World::new();
    let holder = world.hold();
    let early = world.queue();
    world.pass(6_000);
    let late = world.queue();
    world.unlock(holder.ticket);
    assert_eq!(world.ask().ticket(early).place(), (early, 1));
    assert!(world.ask().ticket(late).grant().new);
}

#[test]
fn a_far_ticket_that_shows_itself_finds_a_free_lock_kept_for_it() {
    let mut world = World::new();
    let holder = world.hold();
    let far = world.queue();
    world.pass(6_000);
    world.unlock(holder.ticket);
    assert_eq!(world.touch(presented(far)), Answer::Touched { live: true });
    assert!(world.is_reserved());
    assert_eq!(
        world.write(presented(far)),
        Answer::Writable {
            token: Some(world.state.token())
        }
    );
}

#[test]
fn showing_a_reserved_ticket_keeps_the_reservation() {
    let mut world = World::new();
    let holder = world.hold();
    let first = world.queue();
    let behind = world.ask().wait(60).send();
    world.unlock(holder.ticket);
    for _ in 0..4 {
        world.pass(4_000);
        world.touch(presented(first));
    }
    assert!(world.waits(behind));
    assert!(world.ask().ticket(first).grant().new);
}

#[test]
fn a_waiting_ticket_not_presented_for_60_seconds_is_dropped() {
    let mut world = World::new();
    world.hold();
    let silent = world.queue();
    world.pass(59_999);
    assert!(world.state.is_live(silent));
    world.now.mono += 1;
    let outcome = world.apply(Command::Tick);
    let dropped = Event::PlaceEnded {
        reason: EndReason::Expired,
        owner: None,
        mode: Mode::Exclusive,
        forced: None,
    };
    assert_eq!(outcome.events, [dropped]);
    assert!(!world.state.is_live(silent));
    assert!(world.rows.waiting.is_empty());
    assert_eq!(
        world.renew(silent, None),
        Answer::Refused(Refusal::Dead(None)),
        "ticket_unknown"
    );
}

#[test]
fn presenting_a_ticket_starts_its_60_seconds_anew() {
    let mut world = World::new();
    world.hold();
    let slow = world.queue();
    for _ in 0..5 {
        world.pass(59_000);
        assert_eq!(world.ask().ticket(slow).place(), (slow, 1));
    }
}

#[test]
fn an_open_request_keeps_its_ticket_near_and_alive_however_long_it_waits() {
    let mut world = World::new();
    let holder = world.hold();
    let waiting = world.ask().wait(300).send();
    world.pass(299_999);
    assert!(world.waits(waiting));
    world.unlock(holder.ticket);
    assert!(world.granted(waiting).new);
}

#[test]
fn a_wait_that_is_over_is_answered_with_the_place() {
    let mut world = World::new();
    world.hold();
    world.queue();
    let waiting = world.ask().wait(2).send();
    world.pass(1_999);
    assert!(world.waits(waiting));
    world.pass(1);
    assert_eq!(world.queued(waiting).1, 2);
}

#[test]
fn after_a_wait_that_was_over_the_ticket_is_near_for_claim_seconds_from_its_answer() {
    let mut world = World::new();
    let holder = world.hold();
    let waiting = world.ask().wait(2).send();
    world.pass(2_000);
    let (ticket, _) = world.queued(waiting);
    world.pass(4_999);
    world.unlock(holder.ticket);
    assert!(world.is_reserved());
    assert!(world.ask().ticket(ticket).grant().new);
}

#[test]
fn a_request_is_open_until_its_answer_has_left() {
    let mut world = World::new();
    let holder = world.hold();
    world.delivers = false;
    let polled = world.ask().send();
    world.pass(20_000);
    world.unlock(holder.ticket);
    assert!(
        world.is_reserved(),
        "a slow answer does not make its ticket far"
    );
    world.deliver(polled);
    world.pass(4_999);
    assert!(world.is_reserved());
    world.pass(1);
    assert!(!world.state.is_locked());
}

#[test]
fn two_requests_with_one_ticket_are_one_place_and_both_learn_of_the_grant() {
    let mut world = World::new();
    let holder = world.hold();
    let ticket = world.queue();
    let one = world.ask().ticket(ticket).wait(10).send();
    let two = world.ask().ticket(ticket).wait(10).send();
    assert_eq!(world.state.waiting(), 1);
    world.unlock(holder.ticket);
    assert_eq!(world.granted(one).ticket, ticket);
    assert_eq!(
        world.granted(two).holder.token,
        world.granted(one).holder.token
    );
}

#[test]
fn one_of_two_waits_that_is_over_leaves_the_other_waiting() {
    let mut world = World::new();
    let holder = world.hold();
    let ticket = world.queue();
    let short = world.ask().ticket(ticket).wait(1).send();
    let long = world.ask().ticket(ticket).wait(10).send();
    world.pass(1_000);
    assert_eq!(world.queued(short), (ticket, 1));
    world.unlock(holder.ticket);
    assert_eq!(world.granted(long).ticket, ticket);
}

#[test]
fn queue_0_takes_a_free_lock_and_never_a_place() {
    let mut world = World::new();
    let grant = world.ask().owner("a").no_queue().grant();
    let refused = world.ask().no_queue().answer();
    let holder = world.holder();
    assert_eq!(holder.as_ref().map(|h| h.token), Some(grant.holder.token));
    assert_eq!(refused, world.locked());
    assert_eq!(world.state.waiting(), 0);
}

#[test]
fn queue_0_is_refused_while_the_lock_is_reserved_for_another() {
    let mut world = World::new();
    let holder = world.hold();
    let next = world.queue();
    world.unlock(holder.ticket);
    assert_eq!(world.ask().no_queue().answer(), world.locked());
    assert!(world.ask().ticket(next).no_queue().grant().new);
}

#[test]
fn queue_0_with_a_waiting_ticket_is_refused_and_keeps_the_place() {
    let mut world = World::new();
    world.hold();
    let ticket = world.queue();
    world.queue();
    let refused = world.ask().ticket(ticket).no_queue().answer();
    assert_eq!(refused, world.locked());
    assert_eq!(world.ask().ticket(ticket).place(), (ticket, 1));
}

#[test]
fn a_queue_that_is_full_refuses_newcomers_only() {
    let terms = Terms {
        waiters_max: 2,
        ..Terms::default()
    };
    let mut world = World::with(terms, 0);
    let holder = world.hold();
    let first = world.queue();
    let second = world.queue();
    assert_eq!(
        world.ask().answer(),
        Answer::Refused(Refusal::TooManyWaiters)
    );
    assert_eq!(world.ask().ticket(first).place(), (first, 1));
    assert!(!world.ask().ticket(holder.ticket).grant().new);
    world.unlock(second);
    assert_eq!(world.ask().place().1, 2);
}

#[test]
fn a_waiting_ticket_that_unlocks_leaves_the_queue() {
    let mut world = World::new();
    let holder = world.hold();
    let leaver = world.queue();
    let next = world.queue();
    assert_eq!(world.unlock(leaver), Answer::Unlocked { dead: None });
    assert_eq!(world.ask().ticket(next).place(), (next, 1));
    world.unlock(holder.ticket);
    assert!(world.ask().ticket(next).grant().new);
}

#[test]
fn a_reserved_ticket_that_unlocks_hands_the_lock_on_at_once() {
    let mut world = World::new();
    let holder = world.hold();
    let reserved = world.queue();
    let behind = world.ask().wait(10).send();
    world.unlock(holder.ticket);
    assert_eq!(world.unlock(reserved), Answer::Unlocked { dead: None });
    assert!(world.granted(behind).new);
}

#[test]
fn an_open_request_whose_ticket_is_unlocked_learns_that_it_was_released() {
    let mut world = World::new();
    world.hold();
    let ticket = world.queue();
    let waiting = world.ask().ticket(ticket).wait(10).send();
    world.unlock(ticket);
    let released = small_resource_server::lock::EndReason::Released;
    assert_eq!(
        world.take(waiting),
        Answer::Refused(Refusal::Dead(Some(released)))
    );
}

#[test]
fn a_grant_wins_over_a_wait_that_ends_at_the_same_instant() {
    let mut world = World::new();
    world.ask().ttl(2).grant();
    // The first millisecond after the lease is the last of this wait.
    world.pass(1);
    let waiting = world.ask().wait(2).send();
    world.pass(2_000);
    assert!(world.granted(waiting).new);
}

#[test]
fn the_end_of_a_reservation_wins_over_a_wait_that_ends_at_the_same_instant() {
    let mut world = World::new();
    let holder = world.hold();
    world.queue();
    let waiting = world.ask().wait(5).send();
    world.unlock(holder.ticket);
    world.pass(5_000);
    assert!(world.granted(waiting).new);
}
