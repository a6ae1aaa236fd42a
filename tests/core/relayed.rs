//! Requests that another instance passes on: it chose the id of the ticket, and may send a copy.

use small_resource_server::lock::{
    Answer, Command, EndReason, LockOptions, LockRequest, PresentedTicket, Refusal, Ticket,
    WaitPolicy,
};

use crate::world::World;

fn relay(world: &mut World, made: Ticket, policy: WaitPolicy) -> u64 {
    let request = world.request();
    world.apply(Command::Acquire(LockRequest {
        request,
        presented: PresentedTicket::Absent,
        fresh: made,
        options: LockOptions {
            relayed: true,
            ..LockOptions::default()
        },
        policy,
    }));
    request
}

fn soon(world: &World) -> WaitPolicy {
    WaitPolicy::Until(world.now.mono + 60_000)
}

#[test]
fn a_place_that_is_waited_for_is_stored_at_once_and_gone_with_its_request() {
    let mut world = World::new();
    let holder = world.hold();
    let made = world.fresh();
    let policy = soon(&world);
    let waiting = relay(&mut world, made, policy);
    assert!(world.waits(waiting));
    assert_eq!(world.rows.waiting.len(), 1);
    world.vanish(waiting);
    assert!(world.rows.waiting.is_empty());
    world.unlock(holder.ticket);
    assert_eq!(world.state.token().0, 1, "nobody was granted");
}

#[test]
fn after_a_restart_a_copy_finds_the_place_and_is_gone_with_its_request_too() {
    let mut world = World::new();
    let holder = world.hold();
    let made = world.fresh();
    let policy = soon(&world);
    relay(&mut world, made, policy);
    let second = world.ask().place().0;
    world.restart();
    let policy = soon(&world);
    let copy = relay(&mut world, made, policy);
    assert_eq!(world.state.waiting(), 2);
    world.unlock(holder.ticket);
    let grant = world.granted(copy);
    assert_eq!(grant.ticket, made);
    world.unlock(made);
    let next = relay(&mut world, made, WaitPolicy::Never);
    assert_eq!(
        world.answer(next),
        Some(&Answer::Refused(Refusal::Dead(Some(EndReason::Released)))),
        "a ticket does not come back to life"
    );
    assert!(world.ask().ticket(second).grant().new);
}

#[test]
fn a_copy_whose_client_leaves_takes_the_place_with_it() {
    let mut world = World::new();
    let _holder = world.hold();
    let made = world.fresh();
    let policy = soon(&world);
    relay(&mut world, made, policy);
    world.restart();
    let policy = soon(&world);
    let copy = relay(&mut world, made, policy);
    world.vanish(copy);
    assert_eq!(world.state.waiting(), 0);
    assert!(world.rows.waiting.is_empty());
}

#[test]
fn a_copy_finds_the_lease_that_the_first_one_got() {
    let mut world = World::new();
    let made = world.fresh();
    let first = relay(&mut world, made, WaitPolicy::Poll);
    let token = world.granted(first).holder.token;
    let copy = relay(&mut world, made, WaitPolicy::Poll);
    let again = world.granted(copy);
    assert_eq!((again.ticket, again.holder.token), (made, token));
}
