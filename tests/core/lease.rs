//! "Lease" and "TTL": when a lease starts, what renews it, when it ends, and its fencing token.

use small_resource_server::lock::command::Event;
use small_resource_server::lock::{
    Answer, Command, EndReason, FencingToken, Refusal, Seconds, Terms, Ttl,
};

use crate::world::{START, World, presented, seconds};

fn capped(seconds_max: i64) -> World {
    let terms = Terms {
        lease_seconds_max: Seconds::new(seconds_max).unwrap(),
        ..Terms::default()
    };
    World::with(terms, 0)
}

#[test]
fn fencing_tokens_grow_with_every_grant() {
    let mut world = World::new();
    let mut last = FencingToken(0);
    for _ in 0..5 {
        let grant = world.hold();
        assert!(grant.holder.token > last);
        last = grant.holder.token;
        world.unlock(grant.ticket);
    }
}

#[test]
fn a_new_resource_starts_above_the_highest_token_of_deleted_ones() {
    let mut world = World::new();
    world.state = small_resource_server::lock::LockState::new(Default::default(), FencingToken(41));
    world.rows.head.token = FencingToken(41);
    assert_eq!(world.hold().holder.token, FencingToken(42));
}

#[test]
fn the_holder_that_asks_again_keeps_its_lease_and_token() {
    let mut world = World::new();
    let first = world.hold();
    let again = world.ask().ticket(first.ticket).grant();
    assert!(!again.new);
    assert_eq!(again.ticket, first.ticket);
    assert_eq!(again.holder.token, first.holder.token);
}

#[test]
fn a_lease_holds_through_its_last_millisecond_and_ends_in_the_next() {
    let mut world = World::new();
    let grant = world.ask().ttl(2).grant();
    world.pass(2_000);
    assert!(world.holds(grant.ticket));
    world.pass(1);
    assert!(!world.state.is_locked());
    assert_eq!(
        world.renew(grant.ticket, None),
        Answer::Refused(Refusal::Dead(Some(EndReason::Expired)))
    );
}

#[test]
fn a_lease_without_its_own_ttl_runs_for_the_timeout_of_the_resource() {
    let mut world = World::with_timeout(3);
    let grant = world.hold();
    assert_eq!(grant.ttl, seconds(3));
    assert_eq!(grant.holder.expires_at, Some(START.wall + 3_000));
    world.pass(3_000);
    assert!(world.holds(grant.ticket));
    world.pass(1);
    assert!(!world.holds(grant.ticket));
}

#[test]
fn its_own_ttl_wins_over_the_timeout() {
    let mut world = World::with_timeout(3);
    let grant = world.ask().ttl(10).grant();
    world.pass(9_000);
    assert!(world.holds(grant.ticket));
}

#[test]
fn a_ttl_of_0_means_no_expiry_even_where_the_resource_has_a_timeout() {
    let mut world = World::with_timeout(3);
    let grant = world.ask().ttl(0).grant();
    assert_eq!((grant.ttl, grant.holder.expires_at), (Ttl::ZERO, None));
    world.pass(1_000_000_000);
    assert!(world.holds(grant.ticket));
}

#[test]
fn a_timeout_of_0_means_no_expiry() {
    let mut world = World::new();
    let grant = world.hold();
    assert_eq!(world.state.deadline(), None);
    world.pass(1_000_000_000);
    assert!(world.holds(grant.ticket));
}

#[test]
fn the_longest_ttl_is_taken() {
    let mut world = World::new();
    let grant = world.ask().ttl(i64::from(Seconds::MAX)).grant();
    world.jump(u64::from(Seconds::MAX) * 1_000);
    assert!(world.holds(grant.ticket));
    world.jump(1);
    assert!(!world.holds(grant.ticket));
}

#[test]
fn a_lease_starts_when_the_holder_is_answered() {
    let mut world = World::new();
    world.delivers = false;
    let request = world.ask().ttl(2).send();
    let ticket = world.granted(request).ticket;
    world.pass(10_000);
    assert!(world.holds(ticket), "not before the answer left");
    world.deliver(request);
    world.pass(2_000);
    assert!(world.holds(ticket));
    world.pass(1);
    assert!(!world.holds(ticket));
}

#[test]
fn every_request_with_lock_intent_renews_the_lease() {
    type Renewing = fn(&mut World, small_resource_server::lock::Ticket);
    let renewing: [(&str, Renewing); 4] = [
        ("acquire", |world, ticket| {
            world.ask().ticket(ticket).grant();
        }),
        ("renew", |world, ticket| {
            world.renew(ticket, None);
        }),
        ("write", |world, ticket| {
            world.write(presented(ticket));
        }),
        ("a GET that finds no data", |world, ticket| {
            world.touch(presented(ticket));
        }),
    ];
    for (name, renew) in renewing {
        let mut world = World::with_timeout(3);
        let grant = world.hold();
        for _ in 0..4 {
            world.pass(2_000);
            renew(&mut world, grant.ticket);
        }
        world.pass(3_000);
        assert!(world.holds(grant.ticket), "{name}");
        world.pass(1);
        assert!(!world.holds(grant.ticket), "{name}");
    }
}

#[test]
fn a_renewal_may_give_another_ttl_which_later_renewals_use() {
    let mut world = World::new();
    let grant = world.ask().ttl(2).grant();
    let renewed = world.renew(grant.ticket, Some(20));
    assert_eq!(
        renewed,
        Answer::Renewed {
            ttl: seconds(20),
            expires_at: Some(START.wall + 20_000),
            expires_in_ms: Some(20_000),
            token: grant.holder.token,
        }
    );
    world.pass(15_000);
    world.renew(grant.ticket, None);
    world.pass(20_000);
    assert!(world.holds(grant.ticket));
    world.pass(1);
    assert!(!world.holds(grant.ticket));
}

#[test]
fn a_shorter_ttl_never_ends_a_lease_early() {
    let mut world = World::new();
    let grant = world.ask().ttl(30).grant();
    world.renew(grant.ticket, Some(5));
    world.pass(30_000);
    assert!(world.holds(grant.ticket));
    world.pass(1);
    assert!(!world.holds(grant.ticket));
}

#[test]
fn a_shorter_ttl_takes_effect_once_the_longer_one_has_run_down() {
    let mut world = World::new();
    let grant = world.ask().ttl(30).grant();
    world.renew(grant.ticket, Some(5));
    world.pass(28_000);
    world.renew(grant.ticket, None);
    world.pass(5_000);
    assert!(world.holds(grant.ticket));
    world.pass(1);
    assert!(!world.holds(grant.ticket));
}

#[test]
fn a_lease_without_expiry_keeps_that_whatever_ttl_a_renewal_gives() {
    let mut world = World::new();
    let grant = world.hold();
    world.renew(grant.ticket, Some(5));
    world.pass(1_000_000);
    assert!(world.holds(grant.ticket));
}

#[test]
fn a_ttl_shortened_while_the_grant_is_on_its_way_does_not_break_what_the_grant_promises() {
    let mut world = World::new();
    let holder = world.hold();
    let ticket = world.queue();
    let waiting = world.ask().ticket(ticket).ttl(30).wait(10).send();
    world.delivers = false;
    world.unlock(holder.ticket);
    assert_eq!(world.granted(waiting).ttl, seconds(30));
    world.renew(ticket, Some(5));
    world.deliver(waiting);
    world.pass(30_000);
    assert!(world.holds(ticket));
    world.restart();
    world.pass(30_000);
    assert!(world.holds(ticket), "nor after a restart");
}

#[test]
fn a_ttl_lengthened_while_the_grant_is_on_its_way_counts() {
    let mut world = World::new();
    world.delivers = false;
    let request = world.ask().ttl(5).send();
    let ticket = world.granted(request).ticket;
    let again = world.ask().ticket(ticket).ttl(30).send();
    world.deliver(request);
    assert_eq!(world.granted(again).ttl, seconds(30));
    world.pass(30_000);
    assert!(world.holds(ticket));
    world.pass(1);
    assert!(!world.holds(ticket));
}

#[test]
fn an_expired_lease_goes_to_the_first_near_waiter() {
    let mut world = World::new();
    let first = world.ask().ttl(2).grant();
    let next = world.ask().wait(60).send();
    world.pass(2_001);
    let grant = world.granted(next);
    assert!(grant.holder.token > first.holder.token);
    assert_eq!(
        world.unlock(first.ticket),
        Answer::Refused(Refusal::Dead(Some(EndReason::Expired)))
    );
    assert!(world.holds(grant.ticket));
}

#[test]
fn the_timer_of_an_earlier_lease_never_ends_a_later_one() {
    let mut world = World::new();
    let first = world.ask().ttl(2).grant();
    world.pass(1_000);
    world.unlock(first.ticket);
    let second = world.ask().ttl(10).grant();
    world.pass(5_000);
    assert!(world.holds(second.ticket));
}

#[test]
fn max_lease_seconds_bounds_a_lease_however_often_it_is_renewed() {
    let mut world = capped(10);
    let grant = world.ask().ttl(4).grant();
    for _ in 0..4 {
        world.pass(2_500);
        world.renew(grant.ticket, None);
    }
    assert!(world.holds(grant.ticket), "never early");
    world.pass(1);
    assert!(!world.holds(grant.ticket));
    assert_eq!(
        world.unlock(grant.ticket),
        Answer::Refused(Refusal::Dead(Some(EndReason::Expired)))
    );
}

#[test]
fn max_lease_seconds_bounds_a_lease_without_expiry() {
    let mut world = capped(10);
    let grant = world.hold();
    assert_eq!(grant.holder.expires_at, Some(START.wall + 10_000));
    world.pass(10_000);
    assert!(world.holds(grant.ticket));
    world.pass(1);
    assert!(!world.holds(grant.ticket));
}

#[test]
fn nobody_is_told_a_ttl_beyond_max_lease_seconds() {
    let mut world = capped(10);
    let grant = world.ask().ttl(30).grant();
    assert_eq!(grant.ttl, seconds(10));
    world.pass(6_500);
    let Answer::Renewed { ttl, .. } = world.renew(grant.ticket, None) else {
        panic!("not renewed");
    };
    assert_eq!(
        ttl.millis(),
        3_500,
        "and not one that is longer than what is left"
    );
    world.unlock(grant.ticket);
    assert_eq!(world.hold().ttl, seconds(10), "without expiry, but bounded");
}

#[test]
fn a_lease_that_is_about_to_reach_max_lease_seconds_is_not_told_as_one_without_expiry() {
    let mut world = capped(10);
    let grant = world.ask().ttl(30).grant();
    world.pass(10_000);
    let Answer::Renewed { ttl, .. } = world.renew(grant.ticket, None) else {
        panic!("not renewed");
    };
    assert_eq!(ttl.millis(), 1);
}

#[test]
fn a_refused_renewal_changes_nothing() {
    let mut world = World::new();
    let holder = world.ask().ttl(10).grant();
    let waiting = world.queue();
    assert_eq!(
        world.renew(waiting, Some(99)),
        Answer::Refused(Refusal::NotHolder)
    );
    assert_eq!(world.ask().ticket(waiting).place(), (waiting, 1));
    let request = world.request();
    world.apply(Command::Renew {
        request,
        presented: small_resource_server::lock::PresentedTicket::Absent,
        ttl: None,
        exact: false,
    });
    assert_eq!(world.take(request), Answer::Refused(Refusal::TicketMissing));
    world.pass(10_001);
    assert!(!world.holds(holder.ticket));
}

#[test]
fn a_renewal_that_keeps_its_ttl_stores_nothing() {
    let mut world = World::new();
    let grant = world.ask().ttl(10).grant();
    let request = world.request();
    let outcome = world.apply(Command::Renew {
        request,
        presented: presented(grant.ticket),
        ttl: None,
        exact: false,
    });
    assert!(outcome.changes.is_empty());
}

#[test]
fn the_end_of_a_lease_is_an_event_with_its_holder() {
    let mut world = World::new();
    world.ask().owner("ann").ttl(1).grant();
    world.now.mono += 1_001;
    let outcome = world.apply(Command::Tick);
    let [Event::Ended { reason, holder, .. }] = &outcome.events[..] else {
        panic!("{:?}", outcome.events);
    };
    assert_eq!(*reason, EndReason::Expired);
    assert_eq!(holder.owner.as_ref().map(|o| o.as_str()), Some("ann"));
}

#[test]
fn a_ttl_given_while_waiting_is_the_leases() {
    let mut world = World::new();
    let holder = world.hold();
    let ticket = world.queue();
    world.ask().ticket(ticket).ttl(7).place();
    world.unlock(holder.ticket);
    assert_eq!(world.ask().ticket(ticket).grant().ttl, seconds(7));
}
