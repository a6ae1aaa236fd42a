//! The predicates are themselves checked: a core with a bug takes one step, and the rule that it breaks
//! says so. Each broken core is the sound one that was told something else than what is: other options, or
//! rows from which something is missing.

use small_resource_server::lock::invariants::{Broken, check_step};
use small_resource_server::lock::rows::LockRows;
use small_resource_server::lock::{
    Command, FencingToken, LockOptions, LockRequest, LockState, Mode, PresentedTicket,
    ResourceOptions, Ticket, Ttl, WaitPolicy,
};

use crate::world::{World, presented};

const REQUEST: u64 = 1_000;

fn asks(presented: PresentedTicket, mode: Mode) -> Command {
    Command::Acquire(LockRequest {
        request: REQUEST,
        presented,
        fresh: Ticket::from_bits(0xf5e5),
        options: LockOptions {
            mode: Some(mode),
            ..LockOptions::default()
        },
        policy: WaitPolicy::Poll,
    })
}

impl World {
    /// What the rules say of a step that a core makes which was told these options and rows. What it was
    /// not told of the queue is there nevertheless.
    fn judge(
        &self,
        command: Command,
        options: ResourceOptions,
        rows: LockRows,
    ) -> Result<(), Broken> {
        let now = self.now;
        let restored =
            |options, rows| LockState::restore(options, rows, &self.terms, now, now.mono);
        let mut stored = self.rows.clone();
        let outcome = restored(options, rows).apply(&self.terms, now, command.clone());
        outcome.changes.overlay(&mut stored);
        let after = restored(self.state.options(), stored);
        check_step(&self.state, &command, &after, now, &outcome)
    }

    fn judge_rows(&self, command: Command, rows: LockRows) -> Result<(), Broken> {
        self.judge(command, self.state.options(), rows)
    }
}

#[test]
fn a_sound_step_breaks_no_rule() {
    let mut world = World::new();
    world.ask().shared().grant();
    let command = asks(PresentedTicket::Absent, Mode::Shared);
    assert_eq!(world.judge_rows(command, world.rows.clone()), Ok(()));
}

#[test]
fn a_reader_let_past_a_waiting_writer_breaks_a_rule() {
    let mut world = World::new();
    world.ask().shared().grant();
    world.ask().exclusive().place();
    let mut rows = world.rows.clone();
    rows.waiting.clear();
    // Whoever comes now still comes after it.
    rows.head.holder.as_mut().unwrap().ticket.seq = 10;
    let late = asks(PresentedTicket::Absent, Mode::Shared);
    let broken = world.judge_rows(late, rows);
    assert_eq!(broken, Err("a grant overtook a near ticket"));
}

#[test]
fn a_third_holder_of_two_slots_breaks_a_rule() {
    let mut world = World::with_slots(2);
    world.hold();
    world.hold();
    let options = ResourceOptions {
        slots: 3,
        ..world.state.options()
    };
    let third = asks(PresentedTicket::Absent, Mode::Exclusive);
    let broken = world.judge(third, options, world.rows.clone());
    let rule = "more leases live at once than there are slots";
    assert_eq!(broken, Err(rule));
}

#[test]
fn a_writer_beside_a_reader_breaks_a_rule() {
    let mut world = World::new();
    world.ask().shared().grant();
    let mut rows = world.rows.clone();
    rows.head.holder = None;
    let writer = asks(PresentedTicket::Absent, Mode::Exclusive);
    let broken = world.judge_rows(writer, rows);
    assert_eq!(broken, Err("a lease began beside one of another mode"));
}

#[test]
fn a_reader_promoted_beside_another_breaks_a_rule() {
    let mut world = World::new();
    let first = world.ask().shared().grant();
    world.ask().shared().grant();
    let mut rows = world.rows.clone();
    rows.holding.clear();
    let promotion = asks(presented(first.ticket), Mode::Exclusive);
    let broken = world.judge_rows(promotion, rows);
    assert_eq!(broken, Err("a lease was promoted while others held"));
}

#[test]
fn a_lock_delay_that_is_skipped_breaks_a_rule() {
    let mut world = World::with_delay(10);
    world.hold();
    world.force(None);
    let mut rows = world.rows.clone();
    rows.head.delayed = false;
    let early = asks(PresentedTicket::Absent, Mode::Exclusive);
    let broken = world.judge_rows(early, rows);
    assert_eq!(broken, Err("a lease began during the lock-delay"));
}

#[test]
fn a_promotion_during_the_lock_delay_breaks_a_rule() {
    let mut world = World::with_delay(10);
    let stays = world.ask().shared().grant();
    world.ask().shared().ttl(1).grant();
    world.pass(1_001);
    let mut rows = world.rows.clone();
    rows.head.delayed = false;
    let promotion = asks(presented(stays.ticket), Mode::Exclusive);
    let broken = world.judge_rows(promotion, rows);
    let rule = "a lease was promoted during the lock-delay";
    assert_eq!(broken, Err(rule));
}

#[test]
fn an_ephemeral_name_that_forgets_its_token_breaks_a_rule() {
    let mut world = World::of(Default::default(), ResourceOptions::ephemeral());
    let first = world.hold();
    world.unlock(first.ticket);
    // As it was made again: above what the name reached, and from the start.
    let reached = world.state.token();
    world.state = LockState::new(world.state.options(), reached);
    let again = || asks(PresentedTicket::Absent, Mode::Exclusive);
    let mut rows = LockRows::default();
    rows.head.token = reached;
    assert_eq!(world.judge_rows(again(), rows.clone()), Ok(()));
    rows.head.token = FencingToken(0);
    let broken = world.judge_rows(again(), rows);
    assert_eq!(broken, Err("a fencing token did not grow"));
}

#[test]
fn a_write_by_one_who_shares_breaks_a_rule() {
    let mut world = World::new();
    let reader = world.ask().shared().grant();
    let mut rows = world.rows.clone();
    rows.head.holder.as_mut().unwrap().ticket.mode = Mode::Exclusive;
    let write = Command::Write {
        request: REQUEST,
        presented: presented(reader.ticket),
        fresh: Ticket::from_bits(0xf5e5),
        policy: WaitPolicy::Never,
    };
    let broken = world.judge_rows(write, rows);
    let rule = "a write was allowed to a holder that shares";
    assert_eq!(broken, Err(rule));
}

#[test]
fn a_plain_renewal_that_cuts_a_lease_breaks_a_rule() {
    let mut world = World::new();
    let holder = world.ask().ttl(60).grant();
    let renewal = |exact| Command::Renew {
        request: REQUEST,
        presented: presented(holder.ticket),
        ttl: Ttl::from_millis(1_000),
        exact,
    };
    let mut after = world.state.clone();
    let outcome = after.apply(&world.terms, world.now, renewal(true));
    let check = |judged| check_step(&world.state, &judged, &after, world.now, &outcome);
    assert_eq!(check(renewal(true)), Ok(()));
    let rule = "a renewal made a lease end earlier";
    assert_eq!(check(renewal(false)), Err(rule));
}
