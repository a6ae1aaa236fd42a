//! "Idempotency-Key": one attempt, one ticket, however often it is sent.

use small_resource_server::lock::{Answer, EndReason, Refusal};

use crate::world::{World, seconds};

#[test]
fn the_same_key_answers_the_holder_with_the_same_lease() {
    let mut world = World::new();
    let first = world.ask().key("k").owner("ann").ttl(30).grant();
    let retry = world.ask().key("k").owner("ann").ttl(30).grant();
    assert_eq!(retry.ticket, first.ticket);
    assert_eq!(retry.holder.token, first.holder.token);
    assert!(!retry.new);
}

#[test]
fn the_same_key_answers_a_waiter_with_the_same_place() {
    let mut world = World::new();
    world.hold();
    let first = world.ask().key("k").place();
    world.queue();
    assert_eq!(world.ask().key("k").place(), first);
    assert_eq!(world.state.waiting(), 2);
}

#[test]
fn another_key_is_another_attempt() {
    let mut world = World::new();
    world.hold();
    let first = world.ask().key("k").place();
    assert_ne!(world.ask().key("l").place().0, first.0);
}

#[test]
fn the_same_key_with_another_owner_or_ttl_is_refused() {
    let mut world = World::new();
    world.ask().key("holds").owner("ann").ttl(30).grant();
    world.ask().key("waits").owner("ann").ttl(30).place();
    for key in ["holds", "waits"] {
        let reused = Answer::Refused(Refusal::KeyReused);
        assert_eq!(world.ask().key(key).owner("bob").ttl(30).answer(), reused);
        assert_eq!(world.ask().key(key).ttl(30).answer(), reused);
        assert_eq!(world.ask().key(key).owner("ann").ttl(31).answer(), reused);
        assert_eq!(world.ask().key(key).owner("ann").answer(), reused);
    }
    assert_eq!(world.state.waiting(), 1);
}

#[test]
fn a_renewal_with_another_ttl_does_not_make_the_retry_a_reuse() {
    let mut world = World::new();
    let grant = world.ask().key("k").ttl(30).grant();
    world.renew(grant.ticket, Some(60));
    let retry = world.ask().key("k").ttl(30).grant();
    assert_eq!(retry.ticket, grant.ticket);
    assert_eq!(
        retry.ttl,
        seconds(60),
        "nor does the retry undo the renewal"
    );
}

#[test]
fn a_late_retry_of_a_waiter_does_not_undo_a_ttl_given_since() {
    let mut world = World::new();
    let holder = world.hold();
    let (ticket, _) = world.ask().key("k").ttl(30).place();
    world.ask().ticket(ticket).ttl(60).place();
    world.ask().key("k").ttl(30).place();
    world.unlock(holder.ticket);
    assert_eq!(world.ask().ticket(ticket).grant().ttl, seconds(60));
}

#[test]
fn a_live_ticket_wins_over_the_key() {
    let mut world = World::new();
    let holder = world.ask().key("k").grant();
    let waiting = world.queue();
    assert_eq!(world.ask().ticket(waiting).key("k").place().0, waiting);
    let kept = world
        .ask()
        .ticket(holder.ticket)
        .key("l")
        .owner("x")
        .grant();
    assert_eq!(kept.ticket, holder.ticket);
}

#[test]
fn a_dead_ticket_does_not_win_over_the_key() {
    let mut world = World::new();
    let old = world.hold().ticket;
    world.unlock(old);
    let grant = world.ask().key("k").grant();
    let retry = world.ask().ticket(old).key("k").grant();
    assert_eq!(retry.ticket, grant.ticket);
    assert_eq!(retry.ended, Some(EndReason::Released));
}

#[test]
fn the_key_of_a_ticket_that_ended_makes_no_new_one_as_long_as_that_is_remembered() {
    let mut world = World::new();
    let first = world.ask().key("k").grant();
    let (left, _) = world.ask().key("w").place();
    world.unlock(left);
    world.unlock(first.ticket);
    for key in ["k", "w"] {
        let late = world.ask().key(key).answer();
        assert_eq!(
            late,
            Answer::Refused(Refusal::Dead(Some(EndReason::Released)))
        );
    }
    world.pass(300_001);
    assert!(world.ask().key("k").owner("other").grant().new);
}

#[test]
fn a_place_asked_for_with_a_key_stays_when_the_client_vanishes_untold() {
    let mut world = World::new();
    world.hold();
    let lost = world.ask().key("k").wait(10).send();
    world.queue();
    assert_eq!(
        world.rows.waiting.len(),
        2,
        "and is stored before it is told"
    );
    world.vanish(lost);
    assert_eq!(world.ask().key("k").place().1, 1);
}

#[test]
fn a_grant_asked_for_with_a_key_stays_when_its_answer_could_not_be_delivered() {
    let mut world = World::new();
    let holder = world.hold();
    let lost = world.ask().key("k").ttl(10).wait(60).send();
    let behind = world.ask().wait(60).send();
    world.delivers = false;
    world.unlock(holder.ticket);
    let ticket = world.granted(lost).ticket;
    world.vanish(lost);
    assert!(world.waits(behind));
    assert_eq!(world.ask().key("k").ttl(10).grant().ticket, ticket);
    world.pass(10_001);
    assert!(!world.waits(behind), "but no longer than its TTL");
}

#[test]
fn the_lease_of_a_keyed_grant_that_nobody_took_runs_from_the_loss() {
    let mut world = World::new();
    world.delivers = false;
    let lost = world.ask().key("k").ttl(10).send();
    let ticket = world.granted(lost).ticket;
    world.pass(5_000);
    world.vanish(lost);
    world.pass(10_000);
    assert!(world.holds(ticket));
    world.pass(1);
    assert!(!world.holds(ticket));
}

#[test]
fn a_key_finds_its_ticket_after_a_restart() {
    let mut world = World::new();
    let held = world.ask().key("h").ttl(30).grant();
    world.renew(held.ticket, Some(60));
    let (waits, _) = world.ask().key("w").owner("ann").place();
    world.restart();
    assert_eq!(world.ask().key("h").ttl(30).grant().ticket, held.ticket);
    assert_eq!(world.ask().key("w").owner("ann").place().0, waits);
    assert_eq!(
        world.ask().key("w").answer(),
        Answer::Refused(Refusal::KeyReused)
    );
}

#[test]
fn a_second_request_with_the_key_of_a_waiting_first_one_waits_too() {
    let mut world = World::new();
    let holder = world.hold();
    let one = world.ask().key("k").wait(10).send();
    let two = world.ask().key("k").wait(10).send();
    assert_eq!(world.state.waiting(), 1);
    world.unlock(holder.ticket);
    assert_eq!(world.granted(one).ticket, world.granted(two).ticket);
}
