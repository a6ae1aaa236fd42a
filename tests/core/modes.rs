//! "Mode and slots" and "Lock-delay": who may hold beside whom, promotion and demotion, and when nobody may.

use small_resource_server::lock::{
    Answer, EndReason, FencingToken, Mode, PresentedTicket, Refusal, WaitPolicy,
};

use crate::world::{World, presented};

#[test]
fn shared_leases_stand_beside_each_other_and_each_has_its_token() {
    let mut world = World::new();
    let first = world.ask().shared().grant();
    let second = world.ask().shared().grant();
    assert!(second.holder.token > first.holder.token);
    assert!(world.holds(first.ticket) && world.holds(second.ticket));
    assert_eq!(world.state.holders(&world.terms, world.now).count(), 2);
    assert_eq!(world.holder().unwrap().token, first.holder.token);
    world.restart();
    assert!(world.holds(first.ticket) && world.holds(second.ticket));
    world.unlock(first.ticket);
    assert_eq!(world.holder().unwrap().token, second.holder.token);
    world.restart();
    assert!(world.holds(second.ticket) && !world.holds(first.ticket));
}

#[test]
fn an_exclusive_lease_stands_alone() {
    let mut world = World::new();
    let reader = world.ask().shared().grant();
    let (writer, _) = world.ask().exclusive().place();
    world.unlock(reader.ticket);
    world.ask().ticket(writer).grant();
    world.ask().shared().place();
}

#[test]
fn no_reader_is_granted_past_a_near_writer() {
    let mut world = World::new();
    let reader = world.ask().shared().grant();
    let writer = world.ask().exclusive().wait(100).send();
    let late = world.ask().shared().wait(100).send();
    assert!(world.waits(writer) && world.waits(late));
    assert_eq!(world.ask().shared().no_queue().answer(), world.locked());
    world.unlock(reader.ticket);
    let writer = world.granted(writer);
    assert!(world.waits(late));
    world.unlock(writer.ticket);
    world.granted(late);
}

#[test]
fn a_writer_that_went_far_holds_up_no_reader() {
    let mut world = World::new();
    world.ask().shared().grant();
    world.ask().exclusive().place();
    let late = world.ask().shared().wait(100).send();
    world.pass(4_999);
    assert!(world.waits(late));
    world.pass(1);
    world.granted(late);
}

#[test]
fn the_readers_at_the_head_of_the_queue_are_granted_together() {
    let mut world = World::new();
    let writer = world.hold();
    let readers = [(); 3].map(|()| world.ask().shared().wait(100).send());
    let next = world.ask().wait(100).send();
    let behind = world.ask().shared().wait(100).send();
    world.unlock(writer.ticket);
    for reader in readers {
        world.granted(reader);
    }
    assert!(world.waits(next) && world.waits(behind));
}

#[test]
fn a_reader_that_polls_is_kept_its_turn_and_those_behind_it_wait_for_it() {
    let mut world = World::new();
    let writer = world.hold();
    let (polling, _) = world.ask().shared().place();
    let behind = world.ask().shared().wait(100).send();
    world.unlock(writer.ticket);
    assert!(world.is_reserved() && world.waits(behind));
    world.ask().ticket(polling).grant();
    world.granted(behind);
}

#[test]
fn a_resource_with_slots_has_so_many_exclusive_holders() {
    let mut world = World::with_slots(2);
    let first = world.hold();
    world.hold();
    let third = world.ask().wait(100).send();
    assert!(world.waits(third));
    world.unlock(first.ticket);
    world.granted(third);
    assert_eq!(world.ask().no_queue().answer(), world.locked());
}

#[test]
fn a_resource_with_slots_is_not_shared() {
    let mut world = World::with_slots(2);
    assert_eq!(
        world.ask().shared().answer(),
        Answer::Refused(Refusal::ModeNotOffered)
    );
    let holder = world.hold();
    let again = world.ask().ticket(holder.ticket).shared().answer();
    assert_eq!(again, Answer::Refused(Refusal::ModeNotOffered));
}

#[test]
fn leases_beside_each_other_expire_each_at_its_time() {
    let mut world = World::with_slots(3);
    let short = world.ask().ttl(1).grant();
    let long = world.ask().ttl(3).grant();
    world.pass(1_001);
    assert!(!world.holds(short.ticket) && world.holds(long.ticket));
    let (dead, long_ticket) = (
        Answer::Refused(Refusal::Dead(Some(EndReason::Expired))),
        long.ticket,
    );
    assert_eq!(world.renew(short.ticket, None), dead);
    world.pass(2_000);
    assert!(!world.holds(long_ticket) && !world.state.is_held());
}

#[test]
fn a_live_ticket_without_a_mode_keeps_its_own() {
    let mut world = World::new();
    let reader = world.ask().shared().grant();
    let again = world.ask().ticket(reader.ticket).grant();
    assert_eq!(again.holder.mode, Mode::Shared);
    let (writer, _) = world.ask().place();
    assert_eq!(world.ask().ticket(writer).place(), (writer, 1));
    let differs = world.ask().ticket(writer).shared().answer();
    assert_eq!(differs, Answer::Refused(Refusal::ModeDiffers));
}

#[test]
fn a_demoted_holder_keeps_lease_and_token_and_lets_readers_in() {
    let mut world = World::new();
    let writer = world.ask().ttl(10).grant();
    let reader = world.ask().shared().wait(100).send();
    let demoted = world.ask().ticket(writer.ticket).shared().grant();
    assert_eq!(demoted.holder.token, writer.holder.token);
    assert_eq!(demoted.holder.mode, Mode::Shared);
    assert!(!demoted.new);
    world.granted(reader);
    world.restart();
    assert_eq!(world.holder().unwrap().mode, Mode::Shared);
}

#[test]
fn the_only_holder_is_promoted_past_whoever_waits_and_gets_a_new_token() {
    let mut world = World::new();
    let reader = world.ask().shared().grant();
    let writer = world.ask().wait(100).send();
    let promoted = world.ask().ticket(reader.ticket).exclusive().grant();
    assert!(promoted.holder.token > reader.holder.token);
    assert_eq!(promoted.ticket, reader.ticket);
    assert!(world.waits(writer));
    world.restart();
    assert_eq!(world.holder().unwrap().token, promoted.holder.token);
    assert_eq!(world.holder().unwrap().mode, Mode::Exclusive);
}

#[test]
fn a_promotion_takes_what_was_reserved_for_a_reader() {
    let mut world = World::new();
    let writer = world.hold();
    let (polling, _) = world.ask().shared().place();
    world.ask().ticket(writer.ticket).shared().grant();
    assert!(world.state.is_reserved());
    world.ask().ticket(writer.ticket).exclusive().grant();
    assert!(!world.state.is_reserved());
    assert_eq!(world.ask().ticket(polling).place(), (polling, 1));
}

#[test]
fn while_others_share_a_promotion_is_refused_at_once() {
    let mut world = World::new();
    let first = world.ask().shared().grant();
    let second = world.ask().shared().grant();
    for (asks, other) in [(&first, &second), (&second, &first)] {
        let waits = WaitPolicy::Forever;
        let refused = world
            .ask()
            .ticket(asks.ticket)
            .exclusive()
            .with_policy(waits);
        let Answer::Refused(Refusal::Locked { holder, .. }) = refused.answer() else {
            panic!("promoted beside another");
        };
        assert_eq!(holder.unwrap().token, other.holder.token);
        assert!(world.holds(asks.ticket), "it still shares");
    }
}

#[test]
fn a_shared_holder_changes_no_data() {
    let mut world = World::new();
    let reader = world.ask().shared().grant();
    let ticket = presented(reader.ticket);
    assert_eq!(world.write(ticket), Answer::Refused(Refusal::NotExclusive));
    assert_eq!(world.delete(ticket), Answer::Refused(Refusal::NotExclusive));
    assert_eq!(world.write(PresentedTicket::Absent), world.locked());
    world.ask().ticket(reader.ticket).exclusive().grant();
    assert!(matches!(world.write(ticket), Answer::Writable { .. }));
}

#[test]
fn the_holder_of_any_slot_changes_data() {
    let mut world = World::with_slots(2);
    let (first, second) = (world.hold(), world.hold());
    for grant in [first, second] {
        let token = Some(grant.holder.token);
        assert_eq!(
            world.write(presented(grant.ticket)),
            Answer::Writable { token }
        );
    }
    assert_eq!(world.write(PresentedTicket::Absent), world.locked());
}

#[test]
fn a_grant_beside_others_that_nobody_took_is_taken_back() {
    let mut world = World::new();
    world.ask().shared().grant();
    world.delivers = false;
    let lost = world.ask().shared().send();
    let ticket = world.granted(lost).ticket;
    world.vanish(lost);
    assert!(!world.holds(ticket));
    assert_eq!(world.state.holders(&world.terms, world.now).count(), 1);
}

#[test]
fn force_unlock_ends_every_lease_or_the_one_it_names() {
    let mut world = World::new();
    let readers = [(); 3].map(|()| world.ask().shared().grant());
    let Answer::Forced(ended) = world.force(Some(readers[1].holder.token)) else {
        panic!("not forced");
    };
    assert_eq!(ended.len(), 1);
    assert!(!world.holds(readers[1].ticket) && world.holds(readers[0].ticket));
    let Answer::Forced(ended) = world.force(None) else {
        panic!("not forced");
    };
    let tokens: Vec<FencingToken> = ended.iter().map(|view| view.token).collect();
    assert_eq!(tokens, [readers[0].holder.token, readers[2].holder.token]);
    assert!(!world.state.is_held());
}

#[test]
fn after_an_expiry_nobody_is_granted_for_the_lock_delay() {
    let mut world = World::with_delay(10);
    world.ask().ttl(1).grant();
    let waits = world.ask().wait(100).send();
    world.pass(1_001);
    assert!(world.state.is_reserved() && !world.state.is_held());
    assert_eq!(world.write(PresentedTicket::Absent), world.locked());
    assert_eq!(world.ask().no_queue().answer(), world.locked());
    world.pass(9_999);
    assert!(world.waits(waits));
    world.pass(1);
    world.granted(waits);
}

#[test]
fn a_lease_that_was_forced_off_delays_and_a_released_one_does_not() {
    let mut world = World::with_delay(10);
    let grant = world.hold();
    world.unlock(grant.ticket);
    world.hold();
    world.force(None);
    assert_eq!(world.ask().no_queue().answer(), world.locked());
    world.pass(10_000);
    world.hold();
}

#[test]
fn the_lock_delay_runs_anew_after_a_restart_and_not_once_it_is_over() {
    let mut world = World::with_delay(10);
    world.ask().ttl(1).grant();
    world.pass(9_001);
    world.restart();
    world.pass(9_999);
    assert!(world.state.is_reserved());
    world.pass(1);
    assert!(!world.state.is_reserved());
    world.restart();
    world.hold();
}

#[test]
fn during_the_lock_delay_no_lease_begins_beside_others_and_none_is_promoted() {
    let mut world = World::with_delay(10);
    let stays = world.ask().shared().grant();
    world.ask().shared().ttl(1).grant();
    world.pass(1_001);
    assert_eq!(world.ask().shared().no_queue().answer(), world.locked());
    let promotion = world.ask().ticket(stays.ticket).exclusive().answer();
    assert_eq!(
        promotion,
        Answer::Refused(Refusal::Locked {
            holder: None,
            reserved: true
        })
    );
    world.ask().ticket(stays.ticket).grant();
    world.pass(10_000);
    world.ask().ticket(stays.ticket).exclusive().grant();
}
