//! A request renews and takes its place when it has been read, before anything is loaded for it; an exact
//! renewal; `queue=0` with a wait; what is told of time.

use small_resource_server::lock::command::Role;
use small_resource_server::lock::{
    Answer, Command, EndReason, LockOptions, LockRequest, PresentedTicket, Refusal, WaitPolicy,
};

use crate::world::{World, forced, presented, seconds};

/// Sends a request for the lock whose document is still to be loaded.
fn arrive(world: &mut World, ticket: PresentedTicket) -> u64 {
    let request = world.request();
    again(world, request, ticket, WaitPolicy::Loading);
    request
}

/// The same request once more.
fn again(world: &mut World, request: u64, ticket: PresentedTicket, policy: WaitPolicy) {
    let fresh = world.fresh();
    world.apply(Command::Acquire(LockRequest {
        request,
        presented: ticket,
        fresh,
        options: LockOptions::default(),
        policy,
    }));
}

#[test]
fn whoever_arrived_first_is_granted_although_its_document_is_loaded_last() {
    let mut world = World::new();
    let first = arrive(&mut world, PresentedTicket::Absent);
    world.pass(30);
    let second = world.ask().wait(10).send();
    assert!(world.waits(first) && world.waits(second));
    world.pass(170);
    again(&mut world, first, PresentedTicket::Absent, WaitPolicy::Poll);
    let grant = world.granted(first);
    assert_eq!(grant.waited_ms, 200);
    assert!(world.waits(second));
    world.unlock(grant.ticket);
    assert_eq!(world.granted(second).waited_ms, 170);
}

#[test]
fn a_place_is_kept_in_order_while_a_document_is_loaded() {
    let mut world = World::new();
    let holder = world.hold();
    let first = arrive(&mut world, PresentedTicket::Absent);
    let (_, second) = world.ask().place();
    assert_eq!(second, 2);
    again(&mut world, first, PresentedTicket::Absent, WaitPolicy::Poll);
    assert_eq!(world.queued(first).1, 1);
    world.unlock(holder.ticket);
}

#[test]
fn a_request_that_finds_no_document_leaves_nothing_behind() {
    let mut world = World::new();
    let first = arrive(&mut world, PresentedTicket::Absent);
    let second = world.ask().wait(10).send();
    world.vanish(first);
    world.granted(second);
    assert_eq!(world.state.waiting(), 0);
    assert_eq!(world.state.token().0, 1, "no grant was made for it");
}

#[test]
fn a_holder_renews_when_its_request_arrives() {
    let mut world = World::new();
    let grant = world.ask().ttl(1).grant();
    world.pass(900);
    let request = arrive(&mut world, presented(grant.ticket));
    world.pass(900);
    assert!(world.holds(grant.ticket));
    again(
        &mut world,
        request,
        presented(grant.ticket),
        WaitPolicy::Poll,
    );
    assert!(!world.granted(request).new);
}

#[test]
fn a_write_without_a_ticket_is_not_overtaken_while_it_is_looked_what_exists() {
    let mut world = World::new();
    let write = world.write_with(PresentedTicket::Absent, WaitPolicy::Loading);
    let lock = world.ask().wait(10).send();
    assert!(world.waits(write) && world.waits(lock));
    let fresh = world.fresh();
    world.apply(Command::Write {
        request: write,
        presented: PresentedTicket::Absent,
        fresh,
        policy: WaitPolicy::Never,
    });
    assert_eq!(world.take(write), Answer::Writable { token: None });
    world.granted(lock);
}

/// Its document was written by somebody else meanwhile, and has left memory again.
#[test]
fn a_write_without_a_ticket_that_loads_twice_keeps_its_place_and_is_answered_once() {
    let mut world = World::php();
    let holder = world.hold();
    let write = world.write_with(PresentedTicket::Absent, WaitPolicy::Loading);
    world.unlock(holder.ticket);
    let again = |world: &mut World, policy| {
        let fresh = world.fresh();
        world.apply(Command::Write {
            request: write,
            presented: PresentedTicket::Absent,
            fresh,
            policy,
        });
    };
    again(&mut world, WaitPolicy::Loading);
    assert!(world.waits(write) && world.is_reserved());
    again(&mut world, WaitPolicy::Never);
    assert_eq!(world.take(write), Answer::Writable { token: None });
}

#[test]
fn a_write_that_is_refused_is_refused_before_anything_is_loaded() {
    let mut world = World::new();
    world.hold();
    let write = world.write_with(PresentedTicket::Absent, WaitPolicy::Loading);
    assert_eq!(world.take(write), world.locked());
}

#[test]
fn an_exact_renewal_sets_the_expiry_earlier_too() {
    let mut world = World::new();
    let grant = world.ask().ttl(100).grant();
    let renewed = world.renew_exactly(grant.ticket, Some(2));
    assert!(matches!(
        renewed,
        Answer::Renewed {
            expires_in_ms: Some(2_000),
            ..
        }
    ));
    assert!(world.sleep_and_wake());
    world.restart();
    world.pass(2_000);
    assert!(world.holds(grant.ticket));
    world.pass(1);
    assert!(!world.holds(grant.ticket));
    let forever = world.hold();
    world.renew_exactly(forever.ticket, Some(3));
    world.pass(3_001);
    assert!(!world.holds(forever.ticket), "from none to a time");
}

#[test]
fn queue_0_with_a_wait_leaves_its_place_with_the_refusal() {
    let mut world = World::new();
    let holder = world.hold();
    let asked = world.ask().wait_then_leave(3).send();
    let behind = world.ask().wait(100).send();
    world.pass(3_000);
    assert_eq!(world.take(asked), world.locked());
    assert_eq!(world.state.waiting(), 1);
    let asked = world.ask().wait_then_leave(3).send();
    world.unlock(holder.ticket);
    let next = world.granted(behind).ticket;
    world.pass(1_000);
    world.unlock(next);
    assert_eq!(world.granted(asked).waited_ms, 1_000);
    let (waiting, _) = world.ask().place();
    let answer = world.ask().ticket(waiting).wait_then_leave(3).answer();
    assert_eq!(answer, Answer::Refused(Refusal::WaitsAlready));
}

#[test]
fn a_late_copy_of_an_attempt_does_not_take_the_lock_anew() {
    let mut world = World::new();
    let grant = world.ask().key("k").owner("ann").ttl(5).grant();
    world.unlock(grant.ticket);
    let released = Answer::Refused(Refusal::Dead(Some(EndReason::Released)));
    for _ in 0..2 {
        assert_eq!(world.ask().key("k").owner("ann").ttl(5).answer(), released);
        assert_eq!(
            world.ask().key("k").owner("bob").ttl(5).answer(),
            Answer::Refused(Refusal::KeyReused)
        );
        assert_eq!(
            world.ask().key("k").owner("ann").ttl(5).shared().answer(),
            Answer::Refused(Refusal::KeyReused)
        );
        world.restart();
    }
    world.pass(300_001);
    world.ask().key("k").owner("bob").grant();
}

#[test]
fn a_key_whose_wait_without_a_place_is_over_does_not_queue_anew() {
    let mut world = World::new();
    world.hold();
    let asked = world.ask().key("k").wait_then_leave(1).send();
    world.pass(1_000);
    assert_eq!(world.take(asked), world.locked());
    let late = world.ask().key("k").wait_then_leave(1).answer();
    assert_eq!(
        late,
        Answer::Refused(Refusal::Dead(Some(EndReason::Released)))
    );
}

#[test]
fn a_ticket_that_was_forced_off_is_told_by_whom() {
    let mut world = World::new();
    let grant = world.ask().key("k").grant();
    world.force(None);
    let told = Answer::Refused(Refusal::DeadByForce(Box::new(forced())));
    for _ in 0..2 {
        assert_eq!(world.renew(grant.ticket, None), told);
        assert_eq!(world.write(presented(grant.ticket)), told);
        assert_eq!(world.unlock(grant.ticket), told);
        assert_eq!(world.ask().key("k").answer(), told);
        world.restart();
    }
}

#[test]
fn a_ttl_counts_in_milliseconds() {
    let mut world = World::new();
    let ttl = small_resource_server::lock::Ttl::from_millis(1_500);
    let grant = world.hold();
    let request = world.request();
    world.apply(Command::Renew {
        request,
        presented: presented(grant.ticket),
        ttl,
        exact: true,
    });
    world.pass(1_500);
    assert!(world.holds(grant.ticket));
    world.pass(1);
    assert!(!world.holds(grant.ticket));
}

#[test]
fn who_holds_and_who_waits_is_shown_in_order() {
    let mut world = World::new();
    let grant = world.ask().owner("ann").ttl(10).grant();
    world.pass(1_000);
    let (waiting, _) = world.ask().owner("bob").place();
    world.ask().shared().place();
    let before = world.state.fingerprint();
    world.pass(2_000);
    world.renew(grant.ticket, None);
    let holder = world.holder().unwrap();
    assert_eq!(holder.renewed_at, Some(world.now.wall));
    assert_eq!(holder.expires_in_ms, Some(10_000));
    let places = world.state.places(world.now, 20);
    assert_eq!(places.len(), 2);
    assert_eq!(places[0].owner.as_ref().unwrap().as_str(), "bob");
    assert_eq!((places[0].position, places[0].near), (1, true));
    assert_eq!(places[0].waiting_since, world.now.wall - 2_000);
    assert_eq!(world.state.places(world.now, 1).len(), 1);
    let holds = Role::Holder(grant.holder.token);
    assert_eq!(world.state.role(grant.ticket), Some(holds));
    assert_eq!(world.state.role(waiting), Some(Role::Waiting(1)));
    assert_eq!(world.state.fingerprint(), before, "times do not count");
    world.unlock(waiting);
    assert_ne!(world.state.fingerprint(), before);
    assert_eq!(grant.ttl, seconds(10));
}
