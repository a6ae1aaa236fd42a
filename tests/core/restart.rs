//! What is there again after the process ended: the stored rows, and nothing else.

use small_resource_server::lock::command::HolderView;
use small_resource_server::lock::{Answer, FencingToken, LockState, Refusal};

use crate::world::{World, presented, seconds};

#[test]
fn the_holder_is_still_the_holder_and_the_queue_still_the_queue() {
    let mut world = World::new();
    let holder = world.ask().owner("ann").ttl(30).grant();
    let places: Vec<_> = (0..3).map(|_| world.queue()).collect();
    let view = world.holder();
    world.restart();
    let unseen = view.map(|view| HolderView {
        renewed_at: None,
        ..view
    });
    assert_eq!(world.holder(), unseen);
    for (index, ticket) in places.iter().enumerate() {
        assert_eq!(world.ask().ticket(*ticket).place(), (*ticket, index + 1));
    }
    assert!(world.holds(holder.ticket));
}

#[test]
fn fencing_tokens_go_on_growing() {
    let mut world = World::new();
    let first = world.hold();
    world.unlock(first.ticket);
    world.restart();
    assert!(world.hold().holder.token > first.holder.token);
}

#[test]
fn a_lease_gets_its_full_ttl_again() {
    let mut world = World::new();
    let grant = world.ask().ttl(10).grant();
    world.pass(9_000);
    world.restart();
    world.pass(10_000);
    assert!(world.holds(grant.ticket));
    world.pass(1);
    assert!(!world.holds(grant.ticket));
}

#[test]
fn leases_may_be_told_to_run_from_a_later_moment() {
    let mut world = World::new();
    let grant = world.ask().ttl(10).grant();
    let from = world.now.mono + 3_000;
    world.state = LockState::restore(
        world.state.options(),
        world.rows.clone(),
        &world.terms,
        world.now,
        from,
    );
    world.pass(13_000);
    assert!(world.holds(grant.ticket));
    world.pass(1);
    assert!(!world.holds(grant.ticket));
}

#[test]
fn a_lease_whose_ttl_was_shortened_still_does_not_end_early() {
    let mut world = World::new();
    let grant = world.ask().ttl(30).grant();
    world.renew(grant.ticket, Some(5));
    world.restart();
    world.pass(30_000);
    assert!(world.holds(grant.ticket));
}

#[test]
fn a_lease_whose_ttl_was_lengthened_runs_for_the_longer_one() {
    let mut world = World::new();
    let grant = world.ask().ttl(5).grant();
    world.renew(grant.ticket, Some(30));
    world.restart();
    world.pass(30_000);
    assert!(world.holds(grant.ticket));
    world.pass(1);
    assert!(!world.holds(grant.ticket));
}

#[test]
fn a_lease_without_expiry_that_was_given_a_ttl_has_none_after_a_restart_either() {
    let mut world = World::new();
    let grant = world.ask().ttl(0).grant();
    world.renew(grant.ticket, Some(5));
    world.restart();
    world.pass(1_000_000);
    assert!(world.holds(grant.ticket));
}

#[test]
fn every_waiting_ticket_counts_as_just_seen() {
    let mut world = World::new();
    let holder = world.hold();
    let first = world.queue();
    world.pass(50_000);
    world.restart();
    world.pass(59_999);
    assert!(world.state.is_live(first));
    world.restart();
    world.unlock(holder.ticket);
    assert!(world.is_reserved(), "near again");
}

#[test]
fn a_free_lock_with_a_stored_queue_is_reserved_for_its_first() {
    let mut world = World::new();
    let holder = world.hold();
    let first = world.queue();
    let second = world.queue();
    world.unlock(holder.ticket);
    world.restart();
    assert_eq!(world.ask().ticket(second).place(), (second, 2));
    assert!(world.ask().ticket(first).grant().new);
}

#[test]
fn whoever_was_told_nothing_is_gone() {
    let mut world = World::new();
    world.hold();
    world.ask().wait(60).send();
    world.restart();
    assert_eq!(world.state.waiting(), 0);
}

#[test]
fn a_grant_that_was_not_durable_never_was_and_its_token_may_be_given_again() {
    let mut world = World::new();
    world.delivers = false;
    let lost = world.ask().send();
    let ticket = world.granted(lost).ticket;
    world.restart_without_last();
    assert!(!world.state.is_locked());
    assert_eq!(
        world.renew(ticket, None),
        Answer::Refused(Refusal::Dead(None))
    );
    assert_eq!(world.state.token(), FencingToken(0));
}

#[test]
fn a_release_that_was_not_durable_leaves_the_holder_holding() {
    let mut world = World::new();
    let grant = world.hold();
    world.unlock(grant.ticket);
    world.restart_without_last();
    assert!(world.holds(grant.ticket));
    assert_eq!(world.unlock(grant.ticket), Answer::Unlocked { dead: None });
}

#[test]
fn a_lease_that_expired_durably_stays_ended() {
    let mut world = World::new();
    let grant = world.ask().ttl(1).grant();
    world.pass(1_001);
    world.restart();
    assert!(!world.holds(grant.ticket));
}

#[test]
fn a_newcomer_after_a_restart_comes_behind_everyone_stored() {
    let mut world = World::new();
    world.hold();
    let first = world.queue();
    world.restart();
    assert_eq!(world.ask().place().1, 2);
    assert_eq!(world.ask().ticket(first).place(), (first, 1));
}

#[test]
fn a_ttl_given_while_waiting_survives() {
    let mut world = World::new();
    let holder = world.hold();
    let ticket = world.queue();
    world.ask().ticket(ticket).ttl(7).place();
    world.restart();
    world.unlock(holder.ticket);
    assert_eq!(world.ask().ticket(ticket).grant().ttl, seconds(7));
}

#[test]
fn a_told_ticket_whose_grant_was_lost_has_its_place_after_a_restart() {
    let mut world = World::new();
    let holder = world.hold();
    let ticket = world.queue();
    let open = world.ask().ticket(ticket).wait(60).send();
    world.queue();
    world.delivers = false;
    world.unlock(holder.ticket);
    world.vanish(open);
    world.restart();
    world.delivers = true;
    assert!(world.touch(presented(ticket)) == Answer::Touched { live: true });
    assert!(world.ask().ticket(ticket).grant().new);
}
