//! The checker is itself checked: histories that a correct server can have pass, and each way of breaking
//! one is caught for what it is.

use crate::checker::{Rule, check};
use crate::history::{
    History, Kind, Micros, Mode, Op, Outage, Outcome, Reason, Record, SECOND, Terms, Ticket,
};

const MS: Micros = 1000;

const TERMS: Terms = Terms {
    claim: SECOND,
    ttl_max: 2 * SECOND,
    slack: SECOND,
};

const A: Ticket = Ticket(0xa);
const B: Ticket = Ticket(0xb);
const C: Ticket = Ticket(0xc);

/// A history in the making. Times are in milliseconds.
#[derive(Default)]
struct Story(History);

fn granted(ticket: Ticket, token: u64, mode: Mode) -> Outcome {
    Outcome::Granted {
        ticket,
        token,
        mode,
        ended: None,
    }
}

impl Story {
    fn of(kind: Kind) -> Story {
        let kinds = vec![kind];
        Story(History {
            kinds,
            ..History::default()
        })
    }

    fn say(mut self, sent: u64, done: u64, op: Op, outcome: Outcome) -> Story {
        let client = self.0.records.len();
        let (sent, done) = (sent * MS, done * MS);
        self.0.records.push(Record {
            client,
            name: 0,
            op,
            sent,
            done,
            outcome,
        });
        self
    }

    fn granted(self, sent: u64, done: u64, ticket: Ticket, token: u64) -> Story {
        let outcome = granted(ticket, token, Mode::Exclusive);
        self.say(sent, done, lock(ticket, None), outcome)
    }

    /// A poll with the ticket that was told before.
    fn granted_later(self, sent: u64, done: u64, ticket: Ticket, token: u64) -> Story {
        let outcome = granted(ticket, token, Mode::Exclusive);
        self.say(sent, done, lock(ticket, Some(ticket)), outcome)
    }

    /// In a mode that it asked for, with or without its ticket.
    fn in_mode(
        self,
        (sent, done): (u64, u64),
        presented: Option<Ticket>,
        ticket: Ticket,
        token: u64,
        mode: Mode,
    ) -> Story {
        let op = match lock(ticket, presented) {
            Op::Lock {
                attempt,
                keyed,
                presented,
                ttl,
                wait,
                ..
            } => Op::Lock {
                attempt,
                keyed,
                presented,
                mode: Some(mode),
                ttl,
                wait,
            },
            other => other,
        };
        self.say(sent, done, op, granted(ticket, token, mode))
    }

    fn shares(self, sent: u64, done: u64, ticket: Ticket, token: u64) -> Story {
        self.in_mode((sent, done), None, ticket, token, Mode::Shared)
    }

    fn queued(self, sent: u64, done: u64, ticket: Ticket, presented: Option<Ticket>) -> Story {
        let outcome = Outcome::Queued {
            ticket,
            position: 1,
            ended: None,
        };
        self.say(sent, done, lock(ticket, presented), outcome)
    }

    fn wrote(self, sent: u64, done: u64, ticket: Ticket, value: u64, token: u64) -> Story {
        let outcome = Outcome::Written { token: Some(token) };
        self.say(sent, done, write(Some(ticket), value), outcome)
    }

    fn read(self, sent: u64, done: u64, value: u64) -> Story {
        self.say(sent, done, Op::Read, Outcome::Value(Some(value)))
    }

    fn released(self, sent: u64, done: u64, ticket: Ticket) -> Story {
        self.say(
            sent,
            done,
            Op::Unlock { presented: ticket },
            Outcome::Unlocked,
        )
    }

    fn outage(mut self, from: u64, until: u64) -> Story {
        let (from, until) = (from * MS, until * MS);
        self.0.outages.push(Outage {
            kind: "kill -9",
            from,
            until,
        });
        self.0.deaths.push(from);
        self
    }

    #[track_caller]
    fn is_fine(&self) {
        let found = check(&self.0, &TERMS);
        assert!(found.is_empty(), "{}", found[0]);
    }

    #[track_caller]
    fn breaks(&self, rule: Rule) {
        let found = check(&self.0, &TERMS);
        let caught = found.iter().find(|violation| violation.rule == rule);
        let violation = caught.unwrap_or_else(|| panic!("{rule:?} was not caught: {found:?}"));
        assert!(
            !violation.piece.is_empty() && violation.piece.len() <= 4,
            "{violation}"
        );
    }
}

/// One attempt per ticket; leases of one second.
fn lock(ticket: Ticket, presented: Option<Ticket>) -> Op {
    let attempt = ticket.0 as u64;
    Op::Lock {
        attempt,
        keyed: false,
        presented,
        mode: None,
        ttl: SECOND,
        wait: 0,
    }
}

fn write(presented: Option<Ticket>, value: u64) -> Op {
    Op::Write {
        presented,
        value,
        release: false,
    }
}

/// A holds, writes and releases; B, who waited, follows.
fn good() -> Story {
    Story::default()
        .granted(0, 10, A, 1)
        .queued(20, 30, B, None)
        .wrote(40, 50, A, 1, 1)
        .read(60, 70, 1)
        .released(80, 90, A)
        .granted_later(100, 110, B, 2)
        .wrote(120, 130, B, 2, 2)
        .read(140, 150, 2)
}

#[test]
fn a_good_history_passes() {
    good().is_fine();
    Story::default().is_fine();
}

#[test]
fn a_lease_that_ends_early_is_caught() {
    let granted = || Story::default().granted(0, 10, A, 1);
    granted().granted(500, 600, B, 2).breaks(Rule::TwoHolders);
    granted().granted(900, 1100, B, 2).is_fine();
    let expired = |sent, done| {
        let outcome = Outcome::Dead(Reason::Expired);
        granted().say(sent, done, write(Some(A), 1), outcome)
    };
    expired(500, 999).breaks(Rule::HolderTurnedAway);
    expired(500, 1000).is_fine();
}

#[test]
fn a_renewed_lease_that_ends_by_its_first_ttl_is_caught() {
    let op = Op::Renew {
        presented: A,
        ttl: SECOND,
    };
    let renewed = Story::default().granted(0, 10, A, 1);
    let renewed = renewed.say(800, 810, op, Outcome::Renewed { token: 1 });
    renewed.granted(1500, 1600, B, 2).breaks(Rule::TwoHolders);
}

#[test]
fn a_lease_that_a_restart_cut_short_is_caught() {
    let granted = || Story::default().granted(0, 10, A, 1).outage(900, 950);
    granted().granted(1500, 1600, B, 2).breaks(Rule::TwoHolders);
    granted().granted(1500, 1901, B, 2).is_fine();
}

#[test]
fn a_lost_grant_is_caught() {
    let granted = || Story::default().granted(0, 10, A, 1).outage(100, 200);
    let none = Outcome::Described { holder: None };
    granted()
        .say(300, 310, Op::Describe, none)
        .breaks(Rule::TwoHolders);
    let unknown = Outcome::Dead(Reason::Unknown);
    let op = Op::Renew {
        presented: A,
        ttl: SECOND,
    };
    granted()
        .say(300, 310, op, unknown)
        .breaks(Rule::HolderTurnedAway);
}

#[test]
fn a_release_that_may_have_happened_ends_certainty() {
    let lost = |outcome| {
        let granted = Story::default().granted(0, 10, A, 1);
        granted
            .say(20, 30, Op::Unlock { presented: A }, outcome)
            .granted(40, 50, B, 2)
    };
    lost(Outcome::Lost).is_fine();
    lost(Outcome::NotSent).breaks(Rule::TwoHolders);
}

#[test]
fn a_write_past_someone_elses_lease_is_caught() {
    let outcome = Outcome::Written { token: None };
    let story = Story::default()
        .granted(0, 10, A, 1)
        .say(20, 30, write(None, 1), outcome);
    story.breaks(Rule::TwoHolders);
}

#[test]
fn a_grant_out_of_order_is_caught() {
    let waiting = || {
        Story::default()
            .granted(0, 10, A, 1)
            .queued(20, 30, B, None)
            .queued(40, 50, C, None)
    };
    let overtaken = waiting()
        .released(60, 70, A)
        .granted_later(80, 90, C, 2)
        .queued(100, 110, B, Some(B));
    overtaken.breaks(Rule::QueueOrder);
    // B was not near any more.
    let late = waiting()
        .queued(2000, 2010, C, Some(C))
        .granted_later(2020, 2030, C, 2);
    late.granted_later(4000, 4010, B, 3).is_fine();
    // Those who came at the same time have no order.
    let together = Story::default()
        .granted(0, 10, A, 1)
        .queued(20, 50, B, None)
        .queued(40, 60, C, None);
    together
        .released(70, 80, A)
        .granted_later(90, 100, C, 2)
        .queued(110, 120, B, Some(B))
        .is_fine();
}

#[test]
fn a_place_that_was_lost_is_caught() {
    let waiting = || {
        Story::default()
            .granted(0, 10, A, 1)
            .queued(20, 30, B, None)
    };
    waiting().queued(40, 50, C, Some(B)).breaks(Rule::PlaceLost);
    let unknown = Outcome::Dead(Reason::Unknown);
    waiting()
        .say(40, 50, Op::Unlock { presented: B }, unknown)
        .breaks(Rule::PlaceLost);
    waiting().queued(40, 50, B, Some(B)).is_fine();
}

#[test]
fn a_retry_that_makes_a_second_ticket_is_caught() {
    let keyed = |attempt| Op::Lock {
        attempt,
        keyed: true,
        presented: None,
        mode: None,
        ttl: SECOND,
        wait: 0,
    };
    let queued = |ticket| Outcome::Queued {
        ticket,
        position: 1,
        ended: None,
    };
    let first = || {
        Story::default()
            .granted(0, 10, A, 1)
            .say(20, 30, keyed(7), queued(B))
    };
    let twice = || first().say(40, 50, keyed(7), queued(C));
    twice()
        .queued(60, 70, B, Some(B))
        .breaks(Rule::KeyForgotten);
    twice().is_fine();
    first()
        .say(40, 50, keyed(7), queued(B))
        .queued(60, 70, B, Some(B))
        .is_fine();
}

#[test]
fn an_acknowledged_write_that_was_dropped_is_caught() {
    good().read(160, 170, 1).breaks(Rule::NotOneRegister);
    let unwritten = good().say(160, 170, Op::Read, Outcome::Value(None));
    unwritten.breaks(Rule::ValueFromNowhere);
    let gone = good().say(160, 170, Op::Read, Outcome::Refused(404));
    gone.breaks(Rule::ResourceLost);
}

#[test]
fn a_lost_write_may_have_happened_or_not_but_not_both() {
    let lost = || good().say(160, 170, write(Some(B), 3), Outcome::Lost);
    lost().read(180, 190, 2).is_fine();
    lost().read(180, 190, 3).is_fine();
    lost().read(180, 190, 2).read(200, 210, 3).is_fine();
    lost()
        .read(180, 190, 3)
        .read(200, 210, 2)
        .breaks(Rule::NotOneRegister);
}

#[test]
fn a_value_that_nobody_wrote_or_that_was_refused_is_caught() {
    good().read(160, 170, 77).breaks(Rule::ValueFromNowhere);
    let dead = Outcome::Dead(Reason::Released);
    let refused = good().say(160, 170, write(Some(A), 3), dead);
    refused.read(180, 190, 3).breaks(Rule::RefusedWriteHappened);
}

#[test]
fn a_stale_token_that_is_accepted_is_caught() {
    good().wrote(160, 170, A, 3, 1).breaks(Rule::TokenWentBack);
    // Its answer was lost, but it was read.
    let late = good().say(160, 170, write(Some(A), 3), Outcome::Lost);
    late.read(180, 190, 3).breaks(Rule::StaleWrite);
}

#[test]
fn a_write_that_lands_after_the_next_holders_is_caught() {
    let story = Story::default()
        .granted(0, 10, A, 1)
        .say(20, 30, write(Some(A), 1), Outcome::Lost)
        .granted(1100, 1110, B, 2)
        .wrote(1120, 1130, B, 2, 2);
    story.read(1140, 1150, 1).breaks(Rule::NotOneRegister);
}

#[test]
fn a_token_that_is_used_again_after_a_restart_is_caught() {
    let before = || good().released(200, 210, B).outage(300, 400);
    before()
        .granted(500, 510, C, 2)
        .breaks(Rule::TokenOfTwoTickets);
    before().granted(500, 510, C, 1).breaks(Rule::TokenWentBack);
    before().granted(500, 510, C, 3).is_fine();
}

#[test]
fn a_lock_that_stays_free_while_someone_waits_is_caught() {
    let waiting = |until: u64| {
        let mut story = Story::default()
            .granted(0, 10, A, 1)
            .queued(20, 30, B, None)
            .released(40, 50, A);
        for sent in (60..until).step_by(100) {
            story = story.queued(sent, sent + 10, B, Some(B));
        }
        story.granted_later(until, until + 10, B, 2)
    };
    waiting(3000).breaks(Rule::WaitedWhileFree);
    waiting(1000).is_fine();
    waiting(3000).outage(200, 2500).is_fine();
}

#[test]
fn readers_beside_each_other_are_fine_and_a_writer_beside_them_is_caught() {
    let readers = || {
        Story::of(Kind::Shared)
            .shares(0, 10, A, 1)
            .shares(20, 30, B, 2)
    };
    readers().is_fine();
    readers().granted(40, 50, C, 3).breaks(Rule::TwoHolders);
    let described = Outcome::Described { holder: Some(1) };
    readers().say(40, 50, Op::Describe, described).is_fine();
    let none = Outcome::Described { holder: None };
    readers()
        .say(40, 50, Op::Describe, none)
        .breaks(Rule::TwoHolders);
    // On a lock that nobody asks to share even readers would be two.
    let plain = Story::default().shares(0, 10, A, 1).shares(20, 30, B, 2);
    plain.breaks(Rule::TwoHolders);
}

#[test]
fn a_reader_beside_a_writer_is_caught_until_the_writer_lets_others_share() {
    let writer = || Story::of(Kind::Shared).granted(0, 10, A, 1);
    writer().shares(20, 30, B, 2).breaks(Rule::TwoHolders);
    let demoted = writer().in_mode((20, 30), Some(A), A, 1, Mode::Shared);
    demoted.shares(25, 40, B, 2).is_fine();
}

#[test]
fn a_reader_promoted_beside_another_is_caught() {
    let readers = || {
        Story::of(Kind::Shared)
            .shares(0, 10, A, 1)
            .shares(20, 30, B, 2)
    };
    let exclusive = Mode::Exclusive;
    let promoted = readers().in_mode((40, 50), Some(A), A, 3, exclusive);
    promoted.breaks(Rule::TwoHolders);
    let alone = readers().released(32, 35, B);
    alone.in_mode((40, 50), Some(A), A, 3, exclusive).is_fine();
    // The promoted one has it to itself.
    let alone = readers().released(32, 35, B);
    let promoted = alone.in_mode((40, 50), Some(A), A, 3, exclusive);
    promoted.shares(60, 70, C, 4).breaks(Rule::TwoHolders);
}

#[test]
fn a_promotion_passes_whoever_waits_and_a_reader_does_not() {
    let waiting = || {
        Story::of(Kind::Shared)
            .shares(0, 10, A, 1)
            .queued(20, 30, B, None)
    };
    let promoted = waiting().in_mode((40, 50), Some(A), A, 2, Mode::Exclusive);
    promoted.queued(60, 70, B, Some(B)).is_fine();
    let past = waiting().shares(40, 50, C, 2);
    past.queued(60, 70, B, Some(B)).breaks(Rule::QueueOrder);
}

#[test]
fn a_refused_promotion_is_fine_and_a_refused_renewal_is_caught() {
    let readers = || {
        Story::of(Kind::Shared)
            .shares(0, 10, A, 1)
            .shares(20, 30, B, 2)
    };
    let Op::Lock {
        attempt,
        keyed,
        presented,
        ttl,
        wait,
        ..
    } = lock(A, Some(A))
    else {
        unreachable!()
    };
    let promote = Op::Lock {
        attempt,
        keyed,
        presented,
        mode: Some(Mode::Exclusive),
        ttl,
        wait,
    };
    let locked = || Outcome::Locked { holder: Some(2) };
    readers().say(40, 50, promote, locked()).is_fine();
    let again = readers().say(40, 50, lock(A, Some(A)), locked());
    again.breaks(Rule::HolderTurnedAway);
}

#[test]
fn a_writer_that_is_told_that_it_shares_is_caught() {
    let refused = |story: Story| story.say(40, 50, write(Some(A), 1), Outcome::NotExclusive);
    refused(Story::of(Kind::Shared).shares(0, 10, A, 1)).is_fine();
    let writer = Story::of(Kind::Shared).granted(0, 10, A, 1);
    refused(writer).breaks(Rule::HolderTurnedAway);
}

#[test]
fn a_write_by_one_who_shares_is_caught() {
    let readers = Story::of(Kind::Shared)
        .shares(0, 10, A, 1)
        .shares(20, 30, B, 2);
    readers.wrote(40, 50, A, 1, 1).breaks(Rule::TwoHolders);
}

#[test]
fn a_third_holder_of_two_slots_is_caught() {
    let two = || {
        Story::of(Kind::Slots(2))
            .granted(0, 10, A, 1)
            .granted(20, 30, B, 2)
    };
    two().is_fine();
    two().granted(40, 50, C, 3).breaks(Rule::TwoHolders);
    two().released(32, 35, A).granted(40, 50, C, 3).is_fine();
    two().granted(1100, 1110, C, 3).is_fine();
    // Writes under two slots have no order.
    let writes = two().wrote(40, 50, B, 1, 2).wrote(60, 70, A, 2, 1);
    writes.read(80, 90, 2).is_fine();
}

#[test]
fn a_token_that_does_not_grow_beside_others_is_caught() {
    let readers = Story::of(Kind::Shared)
        .shares(0, 10, A, 1)
        .shares(20, 30, B, 3);
    readers.shares(40, 50, C, 2).breaks(Rule::TokenWentBack);
}

#[test]
fn a_lock_delay_that_is_skipped_is_caught() {
    let expired = |sent| {
        Story::of(Kind::Delayed(SECOND))
            .granted(0, 10, A, 1)
            .granted(sent, sent + 10, B, 2)
    };
    expired(1500).breaks(Rule::DelaySkipped);
    expired(1990).is_fine();
    let granted = || Story::of(Kind::Delayed(SECOND)).granted(0, 10, A, 1);
    let released = granted().released(20, 30, A);
    released.granted(40, 50, B, 2).is_fine();
    let force = || Op::Force { token: Some(1) };
    let forced = || granted().say(20, 30, force(), Outcome::Forced { token: Some(1) });
    forced().granted(500, 510, B, 2).breaks(Rule::DelaySkipped);
    forced().granted(1100, 1110, B, 2).is_fine();
}

#[test]
fn an_ephemeral_name_may_go_and_its_token_may_not() {
    let gone = || {
        Story::of(Kind::Ephemeral)
            .granted(0, 10, A, 1)
            .released(20, 30, A)
            .say(40, 50, Op::Read, Outcome::Refused(404))
    };
    gone().granted(60, 70, B, 2).is_fine();
    gone().granted(60, 70, B, 1).breaks(Rule::TokenOfTwoTickets);
    let higher = gone().granted(60, 70, B, 2).released(80, 90, B);
    higher.granted(100, 110, C, 1).breaks(Rule::TokenWentBack);
    // Nor may it go under its holder or who waits.
    let held = || Story::of(Kind::Ephemeral).granted(0, 10, A, 1);
    let unlock = Op::Unlock { presented: A };
    let renew = Op::Renew {
        presented: A,
        ttl: SECOND,
    };
    held()
        .say(20, 30, renew, Outcome::Refused(404))
        .breaks(Rule::HolderTurnedAway);
    held().say(20, 30, unlock, Outcome::Refused(404)).is_fine();
    let waits = held().queued(20, 30, B, None);
    waits.queued(40, 50, C, Some(B)).breaks(Rule::PlaceLost);
}
