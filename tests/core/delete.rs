//! `DELETE /resource/{name}`: the lock rules of a write, and the end of holder and queue.

use small_resource_server::lock::{Answer, EndReason, LockState, PresentedTicket, Refusal, Ticket};

use crate::world::{World, presented};

#[test]
fn the_holder_deletes_and_open_waiters_learn_that_the_resource_is_gone() {
    let mut world = World::new();
    let holder = world.hold();
    let first = world.ask().wait(10).send();
    let second = world.ask().wait(10).send();
    assert_eq!(world.delete(presented(holder.ticket)), Answer::Deletable);
    assert_eq!(world.take(first), Answer::Refused(Refusal::NoResource));
    assert_eq!(world.take(second), Answer::Refused(Refusal::NoResource));
    assert!(world.state.is_idle());
}

#[test]
fn a_free_lock_may_be_deleted_without_a_ticket() {
    let mut world = World::new();
    assert_eq!(world.delete(PresentedTicket::Absent), Answer::Deletable);
}

#[test]
fn whoever_does_not_hold_may_not_delete_a_locked_resource() {
    let mut world = World::new();
    let holder = world.hold();
    let waiting = world.queue();
    assert_eq!(world.delete(PresentedTicket::Absent), world.locked());
    assert_eq!(world.delete(presented(waiting)), world.locked());
    world.unlock(holder.ticket);
    assert_eq!(world.delete(PresentedTicket::Absent), world.locked());
    assert_eq!(
        world.delete(presented(waiting)),
        Answer::Deletable,
        "reserved for it"
    );
}

#[test]
fn a_dead_ticket_may_not_delete() {
    let mut world = World::new();
    let holder = world.hold();
    world.unlock(holder.ticket);
    let released = Some(EndReason::Released);
    assert_eq!(
        world.delete(presented(holder.ticket)),
        Answer::Refused(Refusal::Dead(released))
    );
    assert_eq!(
        world.delete(PresentedTicket::Malformed),
        Answer::Refused(Refusal::Dead(None))
    );
}

#[test]
fn tickets_of_a_deleted_resource_are_unknown_to_the_one_created_anew_and_tokens_go_on() {
    let mut world = World::new();
    let holder = world.hold();
    let waiting = world.queue();
    world.delete(presented(holder.ticket));
    world.state = LockState::new(world.state.options(), world.state.token());
    world.rows.head.token = world.state.token();
    for old in [holder.ticket, waiting, Ticket::from_bits(0xbad)] {
        assert_eq!(world.renew(old, None), Answer::Refused(Refusal::Dead(None)));
    }
    assert!(world.hold().holder.token > holder.holder.token);
}

#[test]
fn what_becomes_of_answers_after_a_delete_changes_nothing() {
    let mut world = World::new();
    world.delivers = false;
    let granted = world.ask().send();
    let queued = world.ask().send();
    let ticket = world.granted(granted).ticket;
    world.delete(presented(ticket));
    world.vanish(granted);
    world.deliver(queued);
    assert!(world.state.is_idle());
}
