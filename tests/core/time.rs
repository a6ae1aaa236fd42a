//! Time: long pauses, far jumps, and the wall clock, which decides nothing.

use small_resource_server::lock::{Answer, EndReason, Now, Refusal};

use crate::world::{START, World, presented};

#[test]
fn after_a_long_pause_everything_happens_in_the_order_in_which_it_was_due() {
    let mut world = World::new();
    world.ask().ttl(10).grant();
    let silent = world.queue();
    let short = world.ask().wait(4).send();
    let long = world.ask().wait(60).send();
    world.jump(30_000);
    // The short wait was over before the lease was; the silent ticket was far by then. The request of the
    // short wait was still open, so its ticket is the first near one.
    let (kept, position) = world.queued(short);
    assert_eq!(position, 2);
    assert!(world.waits(long));
    assert!(world.ask().ticket(kept).grant().new);
    assert_eq!(world.ask().ticket(silent).place(), (silent, 1));
}

#[test]
fn a_pause_longer_than_lease_and_wait_together_grants_what_came_before_the_wait_ended() {
    let mut world = World::new();
    world.ask().ttl(2).grant();
    let waiting = world.ask().wait(10).send();
    world.jump(3_600_000);
    assert!(world.granted(waiting).new);
}

#[test]
fn a_command_after_a_pause_finds_what_time_has_done() {
    let mut world = World::new();
    let holder = world.ask().ttl(2).grant();
    world.now.mono += 2_001;
    assert_eq!(
        world.write(presented(holder.ticket)),
        Answer::Refused(Refusal::Dead(Some(EndReason::Expired)))
    );
}

#[test]
fn a_renewal_in_the_last_millisecond_counts_even_when_no_timer_rang() {
    let mut world = World::new();
    let holder = world.ask().ttl(2).grant();
    world.now.mono += 2_000;
    assert!(matches!(
        world.renew(holder.ticket, None),
        Answer::Renewed { .. }
    ));
    world.pass(2_000);
    assert!(world.holds(holder.ticket));
}

#[test]
fn a_long_pause_drops_the_silent_and_serves_the_waiting() {
    let mut world = World::new();
    let holder = world.hold();
    let silent = world.queue();
    let waiting = world.ask().wait(300).send();
    world.jump(250_000);
    assert!(!world.state.is_live(silent));
    world.unlock(holder.ticket);
    assert!(world.granted(waiting).new);
}

#[test]
fn one_pause_over_many_silent_tickets_passes_each_of_them_over() {
    let mut world = World::new();
    world.ask().ttl(2).grant();
    for _ in 0..20 {
        world.queue();
    }
    world.jump(59_999);
    assert!(!world.state.is_locked());
    assert_eq!(world.state.waiting(), 20);
    world.jump(1);
    assert_eq!(world.state.waiting(), 0);
    assert!(world.state.is_idle());
}

#[test]
fn there_is_no_deadline_when_nothing_can_happen_by_itself() {
    let mut world = World::new();
    assert_eq!(world.state.deadline(), None);
    let grant = world.ask().ttl(3).grant();
    assert_eq!(world.state.deadline(), Some(START.mono + 3_001));
    world.unlock(grant.ticket);
    assert_eq!(world.state.deadline(), None);
}

#[test]
fn steps_of_the_wall_clock_change_what_is_shown_and_nothing_else() {
    let hour = 3_600_000;
    for step in [-hour, hour] {
        let mut world = World::with_timeout(10);
        let grant = world.hold();
        let waiting = world.ask().wait(30).send();
        world.now = Now {
            wall: world.now.wall.checked_add_signed(step).unwrap(),
            ..world.now
        };
        world.pass(10_000);
        assert!(world.holds(grant.ticket));
        assert!(world.waits(waiting));
        world.pass(1);
        assert!(world.granted(waiting).new);
    }
}

#[test]
fn the_wall_clock_may_go_back_over_a_restart() {
    let mut world = World::new();
    let grant = world.ask().ttl(10).grant();
    world.now.wall -= 86_400_000;
    world.restart();
    let shown = world.holder().unwrap().expires_at;
    assert_eq!(shown, Some(world.now.wall + 10_000));
    world.pass(10_000);
    assert!(world.holds(grant.ticket));
    world.pass(1);
    assert!(!world.holds(grant.ticket));
}

#[test]
fn a_monotonic_clock_that_starts_anew_after_a_restart_is_as_good() {
    let mut world = World::new();
    let grant = world.ask().ttl(10).grant();
    world.pass(5_000);
    world.now.mono = 0;
    world.restart();
    world.pass(10_000);
    assert!(world.holds(grant.ticket));
    world.pass(1);
    assert!(!world.holds(grant.ticket));
}

#[test]
fn a_clock_that_stands_still_ends_nothing() {
    let mut world = World::new();
    let grant = world.ask().ttl(1).grant();
    for _ in 0..100 {
        world.jump(0);
    }
    assert!(world.holds(grant.ticket));
}
