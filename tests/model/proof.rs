//! What is checked: the sound server in every interleaving, and every broken one until it is caught.
//!
//! `MODEL_DEPTH` (0) deepens the exhaustive runs: 1 takes minutes, 2 takes hours and much memory.

use stateright::{Checker, HasDiscoveries, Model};

use small_resource_server::lock::ResourceOptions;

use crate::checker::{
    Checked, DELAYED, GUARDED, IN_ORDER, KEPT, LINEARIZABLE, NOT_EARLY, Op, Plan, Setting,
    TOGETHER, TOKENS_GROW, WOKEN, seen,
};
use crate::server::{
    DelayForgotten, DelaySkipped, EveryoneGranted, Fault, FloorForgotten, GuardMissing,
    HolderForgotten, LeaseEndsEarly, OthersForgotten, PromotedBesideOthers, QueueForgotten,
    QueueReversed, ReaderLetPast, ReaderMayWrite, ReleaseWakesNobody, RenewalCuts, SlotTooMany,
    Sound, StaleWriterAccepted, TokenReused, WriteDropped,
};
use crate::walk::{Happened, assert_seen, depth, report, walk};

const ALL: &[Op] = &[
    Op::Poll,
    Op::Wait,
    Op::Renew,
    Op::Write,
    Op::WriteAndRelease,
    Op::Unlock,
];
const QUEUEING: &[Op] = &[Op::Wait, Op::Unlock];
const WRITING: &[Op] = &[
    Op::Wait,
    Op::Write,
    Op::WriteAndRelease,
    Op::Read,
    Op::Unlock,
];
const READING: &[Op] = &[Op::PollShared, Op::WaitShared, Op::Unlock];
const PROMOTING: &[Op] = &[
    Op::WaitShared,
    Op::PollShared,
    Op::Promote,
    Op::Write,
    Op::Unlock,
];
const CHANGING: &[Op] = &[Op::Wait, Op::PollShared, Op::Promote, Op::Write, Op::Unlock];

impl Setting {
    fn of(plans: Vec<Plan>) -> Setting {
        Setting {
            plans,
            keyed: false,
            options: ResourceOptions::default(),
            ttl: 1,
            ticks: 0,
            crashes: 0,
            losses: 0,
            linear: false,
        }
    }

    /// A client for each of these, which it does in this order.
    fn scripts(scripts: &[&'static [Op]]) -> Setting {
        Setting::of(scripts.iter().copied().map(Plan::Script).collect())
    }

    fn linear(self) -> Setting {
        Setting {
            linear: true,
            ..self
        }
    }

    fn slots(mut self, slots: u16) -> Setting {
        self.options.slots = slots;
        self
    }

    /// A lock-delay of this many ticks.
    fn delay(mut self, ticks: u8) -> Setting {
        self.options.lock_delay = ticks;
        self
    }

    fn ephemeral(self) -> Setting {
        Setting {
            options: ResourceOptions::ephemeral(),
            ..self
        }
    }
}

/// The sound server in every interleaving, of which there must be `at_least` so many different states.
fn prove(name: &str, at_least: usize, setting: Setting) -> Happened {
    let model = Checked::new(setting, Sound);
    let seen = model.seen.clone();
    walk(name, at_least, model, &seen)
}

#[test]
fn two_clients_that_do_anything_break_no_rule() {
    let more = depth();
    let base = Setting {
        ticks: 2 + more,
        ..Setting::of(vec![Plan::Any(2, ALL); 2])
    };
    let crashing = Setting {
        crashes: 1,
        losses: more.min(1),
        ..base.clone()
    };
    let losing = Setting { losses: 1, ..base };
    let mut seen = prove("two clients, a crash", 300_000, crashing);
    seen.extend(prove("two clients, a lost answer", 250_000, losing.clone()));
    let keyed = Setting {
        keyed: true,
        ..losing
    };
    prove("two clients, one with a key, a lost answer", 240_000, keyed);
    assert_seen(
        &seen,
        &[
            seen::EXPIRY,
            seen::WOKEN_UP,
            seen::TAKEN_BACK,
            seen::STALE_REFUSED,
            seen::RESERVED_USED,
        ],
    );
}

#[test]
fn three_clients_in_a_queue_break_no_rule() {
    let more = depth();
    let setting = Setting {
        ticks: 1 + more,
        crashes: 1,
        losses: more.min(1),
        ..Setting::of(vec![
            Plan::Any(2, QUEUEING),
            Plan::Any(2, QUEUEING),
            Plan::Any(2, &[Op::Poll, Op::Wait]),
        ])
    };
    prove("three clients in a queue, a crash", 170_000, setting);
}

#[test]
fn every_history_of_two_clients_is_linearizable() {
    let more = depth();
    let base = Setting {
        linear: true,
        ..Setting::of(vec![Plan::Any(2, WRITING), Plan::Any(1 + more, WRITING)])
    };
    let timed = Setting {
        ticks: 2,
        ..base.clone()
    };
    prove("histories with time passing", 25_000, timed);
    let crashing = Setting {
        crashes: 1,
        losses: 1,
        ..base
    };
    prove("histories with a crash and a lost answer", 19_000, crashing);
}

#[test]
fn readers_and_writers_break_no_rule() {
    let more = depth();
    let setting = Setting {
        ticks: 1 + more,
        crashes: 1,
        losses: more.min(1),
        ..Setting::of(vec![
            Plan::Any(2, READING),
            Plan::Any(2, &[Op::WaitShared, Op::Unlock]),
            Plan::Any(1 + more, &[Op::Wait]),
        ])
    };
    let happened = prove("two readers and a writer, a crash", 90_000, setting);
    assert_seen(
        &happened,
        &[
            seen::BESIDE,
            seen::WOKEN_UP,
            seen::READER_WAITS,
            seen::RESERVED_USED,
        ],
    );
}

#[test]
fn promotion_and_demotion_break_no_rule() {
    let more = depth();
    let base = Setting::of(vec![
        Plan::Any(2 + more, CHANGING),
        Plan::Any(2 + more, PROMOTING),
    ]);
    let timed = Setting {
        ticks: 2,
        ..base.clone()
    };
    let mut happened = prove("two that promote and demote, time passing", 95_000, timed);
    let crashing = Setting {
        crashes: 1,
        losses: 1,
        ..base
    };
    let name = "two that promote and demote, a crash and a lost answer";
    happened.extend(prove(name, 37_000, crashing));
    let waiting = Setting::of(vec![
        Plan::Any(2, &[Op::WaitShared, Op::Promote, Op::PollShared]),
        Plan::Any(2, &[Op::WaitShared, Op::Promote, Op::PollShared]),
        Plan::Any(1, &[Op::Wait, Op::WaitShared]),
    ]);
    happened.extend(prove("two that promote, and one who waits", 2_500, waiting));
    assert_seen(
        &happened,
        &[
            seen::BESIDE,
            seen::PROMOTED,
            seen::PROMOTED_PAST,
            seen::NOT_PROMOTED,
            seen::DEMOTED,
            seen::NOT_EXCLUSIVE,
        ],
    );
}

#[test]
fn three_clients_on_two_slots_break_no_rule() {
    let more = depth();
    let timed = Setting {
        ticks: 2 + more,
        ..Setting::of(vec![
            Plan::Any(2, &[Op::Wait, Op::Write]),
            Plan::Any(1, &[Op::Wait]),
            Plan::Any(1 + more, &[Op::Wait]),
        ])
        .slots(2)
    };
    let mut happened = prove("three clients on two slots, time passing", 50_000, timed);
    let crashing = Setting {
        crashes: 1,
        losses: more.min(1),
        ..Setting::of(vec![
            Plan::Any(2, &[Op::Wait, Op::Write, Op::Unlock]),
            Plan::Any(2, QUEUEING),
            Plan::Any(1 + more, &[Op::Poll, Op::Wait]),
        ])
        .slots(2)
    };
    happened.extend(prove(
        "three clients on two slots, a crash",
        18_000,
        crashing,
    ));
    assert_seen(&happened, &[seen::BESIDE, seen::WOKEN_UP, seen::EXPIRY]);
}

#[test]
fn clients_under_a_lock_delay_break_no_rule() {
    let more = depth();
    let base = Setting::of(vec![
        Plan::Any(2, &[Op::Poll, Op::Force]),
        Plan::Any(2, &[Op::Wait, Op::WaitShared, Op::Write]),
    ])
    .delay(1);
    let timed = Setting {
        ticks: 3 + more,
        ..base.clone()
    };
    let mut happened = prove("two clients and a lock-delay, time passing", 70_000, timed);
    let crashing = Setting {
        ticks: 1 + more,
        crashes: 1,
        ..base
    };
    happened.extend(prove(
        "two clients and a lock-delay, a crash",
        26_000,
        crashing,
    ));
    let beside = Setting {
        ticks: 3,
        ..Setting::scripts(&[
            &[Op::PollShared, Op::Promote],
            &[Op::PollShared],
            &[Op::WaitShared],
        ])
        .delay(1)
    };
    happened.extend(prove("readers beside a lock-delay", 100_000, beside));
    assert_seen(
        &happened,
        &[
            seen::EXPIRY,
            seen::HELD_OFF,
            seen::AFTER_DELAY,
            seen::BESIDE,
            seen::NOT_PROMOTED,
        ],
    );
}

#[test]
fn clients_of_an_ephemeral_name_break_no_rule() {
    let more = depth();
    let base = Setting::of(vec![
        Plan::Any(3, &[Op::Poll, Op::Wait, Op::Unlock]),
        Plan::Any(2, &[Op::WaitThenLeave, Op::PollShared, Op::Unlock]),
    ])
    .ephemeral();
    let timed = Setting {
        ticks: 2 + more,
        ..base.clone()
    };
    let mut happened = prove(
        "two clients of an ephemeral name, time passing",
        40_000,
        timed,
    );
    let crashing = Setting {
        crashes: 1,
        losses: 1,
        ..base
    };
    let name = "two clients of an ephemeral name, a crash and a lost answer";
    happened.extend(prove(name, 32_000, crashing));
    assert_seen(
        &happened,
        &[
            seen::GONE,
            seen::AGAIN,
            seen::LOSS_TOLD,
            seen::LEFT,
            seen::TAKEN_BACK,
        ],
    );
}

#[test]
fn exact_renewals_break_no_rule() {
    let more = depth();
    let setting = Setting {
        ttl: 3,
        ticks: 3 + more,
        crashes: 1,
        ..Setting::of(vec![
            Plan::Any(3, &[Op::Poll, Op::Renew, Op::RenewExact]),
            Plan::Any(1 + more, &[Op::Wait]),
        ])
    };
    let happened = prove(
        "a lease that is made to end earlier, a crash",
        60_000,
        setting,
    );
    assert_seen(&happened, &[seen::CUT, seen::EXPIRY, seen::WOKEN_UP]);
}

/// The checker finds that `rule` is broken, and finds nothing in the sound server that goes through the
/// very same.
fn is_caught<F: Fault>(fault: F, setting: Setting, rule: &'static str) {
    let sound = Checked::new(setting.clone(), Sound).checker();
    sound.spawn_bfs().join().assert_properties();

    let checker = Checked::new(setting, fault)
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let found = checker.discoveries();
    let path = found.get(rule).map(|path| path.clone().into_actions());
    let states = checker.state_count();
    report(&format!(
        "{fault:?}: caught after {states} states ({rule}): {path:?}"
    ));
    assert!(
        path.is_some(),
        "{fault:?} is not caught: {:?}",
        found.keys()
    );
}

#[test]
fn a_lease_that_ends_early_is_caught() {
    let setting = Setting {
        ttl: 3,
        ticks: 3,
        ..Setting::scripts(&[&[Op::Poll], &[Op::Wait]])
    };
    is_caught(LeaseEndsEarly, setting, NOT_EARLY);
}

#[test]
fn a_grant_out_of_order_is_caught() {
    let setting = Setting {
        crashes: 1,
        ..Setting::scripts(&[
            &[Op::Poll, Op::Unlock],
            &[Op::Poll, Op::Wait],
            &[Op::Poll, Op::Wait],
        ])
    };
    is_caught(QueueReversed, setting, IN_ORDER);
}

#[test]
fn an_acknowledged_write_that_is_dropped_is_caught() {
    let setting = Setting {
        crashes: 1,
        ..Setting::scripts(&[&[Op::Write, Op::Read]])
    };
    is_caught(WriteDropped, setting.clone(), KEPT);
    is_caught(WriteDropped, setting.linear(), LINEARIZABLE);
}

#[test]
fn an_accepted_stale_writer_is_caught() {
    let setting = Setting {
        ticks: 2,
        ..Setting::scripts(&[&[Op::Poll, Op::Write], &[Op::Poll]])
    };
    is_caught(StaleWriterAccepted, setting.clone(), GUARDED);
    is_caught(StaleWriterAccepted, setting.linear(), LINEARIZABLE);
}

#[test]
fn a_token_that_is_used_again_after_a_restart_is_caught() {
    let setting = Setting {
        crashes: 1,
        ..Setting::scripts(&[&[Op::Poll, Op::Unlock], &[Op::Poll]])
    };
    is_caught(TokenReused, setting.clone(), TOKENS_GROW);
    is_caught(TokenReused, setting.linear(), LINEARIZABLE);
}

#[test]
fn two_holders_at_once_are_caught() {
    let setting = Setting::scripts(&[&[Op::Poll], &[Op::Poll]]);
    is_caught(EveryoneGranted, setting, TOGETHER);
}

#[test]
fn a_release_that_wakes_nobody_is_caught() {
    let setting = Setting::scripts(&[&[Op::Poll, Op::Unlock], &[Op::Wait]]);
    is_caught(ReleaseWakesNobody, setting, WOKEN);
}

#[test]
fn a_holder_forgotten_by_a_restart_is_caught() {
    let setting = Setting {
        crashes: 1,
        ..Setting::scripts(&[&[Op::Poll]])
    };
    is_caught(HolderForgotten, setting, NOT_EARLY);
}

#[test]
fn a_queue_forgotten_by_a_restart_is_caught() {
    let setting = Setting {
        crashes: 1,
        ..Setting::scripts(&[&[Op::Poll], &[Op::Poll]])
    };
    is_caught(QueueForgotten, setting, KEPT);
}

#[test]
fn a_write_past_the_holder_is_caught() {
    let setting = Setting::scripts(&[&[Op::Poll], &[Op::Write]]);
    is_caught(GuardMissing, setting.clone(), GUARDED);
    is_caught(GuardMissing, setting.linear(), LINEARIZABLE);
}

#[test]
fn a_reader_let_past_a_waiting_writer_is_caught() {
    let setting = Setting::scripts(&[&[Op::PollShared], &[Op::Wait], &[Op::PollShared]]);
    is_caught(ReaderLetPast, setting, IN_ORDER);
}

#[test]
fn a_third_holder_of_two_slots_is_caught() {
    let setting = Setting::of(vec![Plan::Script(&[Op::Poll]); 3]).slots(2);
    is_caught(SlotTooMany, setting, TOGETHER);
}

#[test]
fn a_reader_promoted_beside_another_is_caught() {
    let setting = Setting::scripts(&[&[Op::PollShared, Op::Promote], &[Op::PollShared]]);
    is_caught(PromotedBesideOthers, setting, TOGETHER);
}

#[test]
fn a_reader_that_may_write_is_caught() {
    let setting = Setting::scripts(&[&[Op::PollShared, Op::Write], &[Op::PollShared]]);
    is_caught(ReaderMayWrite, setting, GUARDED);
}

#[test]
fn a_lock_delay_that_is_skipped_is_caught() {
    let expiring = Setting {
        ticks: 2,
        ..Setting::scripts(&[&[Op::Poll], &[Op::Poll]]).delay(2)
    };
    is_caught(DelaySkipped, expiring, DELAYED);
    let forced = Setting::scripts(&[&[Op::PollShared, Op::Force], &[Op::WaitShared]]);
    is_caught(DelaySkipped, forced.delay(2), DELAYED);
}

#[test]
fn a_lock_delay_that_is_forgotten_by_a_restart_is_caught() {
    let setting = Setting {
        crashes: 1,
        ..Setting::scripts(&[&[Op::Poll, Op::Force], &[Op::Wait]])
    };
    is_caught(DelayForgotten, setting.delay(2), DELAYED);
}

#[test]
fn a_holder_beside_others_forgotten_by_a_restart_is_caught() {
    let setting = Setting {
        crashes: 1,
        ..Setting::of(vec![Plan::Script(&[Op::PollShared]); 2])
    };
    is_caught(OthersForgotten, setting, NOT_EARLY);
}

#[test]
fn an_ephemeral_name_that_forgets_its_token_is_caught() {
    let setting = Setting::scripts(&[&[Op::Poll, Op::Unlock], &[Op::Poll]]);
    is_caught(FloorForgotten, setting.ephemeral(), TOKENS_GROW);
}

#[test]
fn a_plain_renewal_that_makes_a_lease_end_earlier_is_caught() {
    let setting = Setting {
        ttl: 3,
        ticks: 2,
        ..Setting::scripts(&[&[Op::Poll, Op::Renew], &[Op::Wait]])
    };
    is_caught(RenewalCuts, setting, NOT_EARLY);
}

/// The linearizability check by itself, on histories that no rule of the checker has looked at.
mod histories {
    use small_resource_server::lock::FencingToken;
    use stateright::semantics::{ConsistencyTester, LinearizabilityTester};

    use crate::linear::{LockedRegister, Op, Ret};

    fn consistent(calls: &[(u64, Op, Ret)]) -> bool {
        let mut history = LinearizabilityTester::new(LockedRegister::default());
        for (thread, op, ret) in calls {
            history.on_invret(*thread, op.clone(), ret.clone()).unwrap();
        }
        history.is_consistent()
    }

    const FIRST: FencingToken = FencingToken(1);
    const SECOND: FencingToken = FencingToken(2);

    fn write(value: u8) -> Op {
        Op::Write {
            value,
            release: false,
        }
    }

    fn locked(token: FencingToken) -> Ret {
        Ret::Held(token, true)
    }

    #[test]
    fn a_sound_history_is_linearizable() {
        assert!(consistent(&[
            (1, Op::Lock, locked(FIRST)),
            (1, write(7), Ret::Wrote(Some(FIRST))),
            (2, Op::Lock, Ret::Nothing),
            (1, Op::Unlock, Ret::Ended(FIRST)),
            (2, Op::Lock, locked(SECOND)),
            (2, Op::Read, Ret::Value(7)),
            (3, Op::Lapse, Ret::Ended(SECOND)),
            (1, write(8), Ret::Wrote(None)),
        ]));
    }

    #[test]
    fn a_lost_write_is_not() {
        assert!(!consistent(&[
            (1, write(7), Ret::Wrote(None)),
            (2, Op::Read, Ret::Value(0)),
        ]));
    }

    #[test]
    fn two_holders_are_not() {
        assert!(!consistent(&[
            (1, Op::Lock, locked(FIRST)),
            (2, Op::Lock, locked(SECOND)),
        ]));
    }

    #[test]
    fn a_token_given_twice_is_not() {
        assert!(!consistent(&[
            (1, Op::Lock, locked(FIRST)),
            (1, Op::Unlock, Ret::Ended(FIRST)),
            (2, Op::Lock, locked(FIRST)),
        ]));
    }

    #[test]
    fn a_write_after_the_lease_lapsed_is_not() {
        assert!(!consistent(&[
            (1, Op::Lock, locked(FIRST)),
            (3, Op::Lapse, Ret::Ended(FIRST)),
            (1, write(7), Ret::Wrote(Some(FIRST))),
        ]));
    }

    #[test]
    fn a_write_past_the_holder_is_not() {
        assert!(!consistent(&[
            (1, Op::Lock, locked(FIRST)),
            (2, write(7), Ret::Wrote(None)),
        ]));
    }
}
