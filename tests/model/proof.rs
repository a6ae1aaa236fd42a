//! What is checked: the sound server in every interleaving, and every broken one until it is caught.
//!
//! `MODEL_DEPTH` (0) deepens the exhaustive runs: 1 takes minutes, 2 takes hours and much memory.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use crate::checker::{
    Checked, GUARDED, IN_ORDER, KEPT, LINEARIZABLE, NOT_EARLY, ONE_BELIEVER, Op, Plan, SEEN,
    Setting, TOKENS_GROW, WOKEN,
};
use crate::server::{
    EveryoneGranted, Fault, GuardMissing, HolderForgotten, LeaseEndsEarly, QueueForgotten,
    QueueReversed, ReleaseWakesNobody, Sound, StaleWriterAccepted, TokenReused, WriteDropped,
};

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

fn depth() -> u8 {
    std::env::var("MODEL_DEPTH").map_or(0, |text| text.parse().expect("MODEL_DEPTH is a number"))
}

impl Setting {
    fn of(plans: Vec<Plan>) -> Setting {
        Setting {
            plans,
            keyed: false,
            ttl: 1,
            ticks: 0,
            crashes: 0,
            losses: 0,
            linear: false,
        }
    }

    fn linear(self) -> Setting {
        Setting {
            linear: true,
            ..self
        }
    }
}

/// Past the capture of the test harness: the counts are what a reader wants to see.
fn report(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("standard output");
}

/// Walks through every interleaving; prints how many states there were. Says what happened in some.
fn prove(name: &str, setting: Setting) -> BTreeSet<&'static str> {
    let started = Instant::now();
    let model = Checked::new(setting, Sound);
    let seen = model.seen.clone();
    let checker = model.checker().threads(2).spawn_bfs().join();
    report(&format!(
        "{name}: {} states, {} of them different, {} steps deep, {:.1} s",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f32(),
    ));
    checker.assert_properties();
    let seen = seen.lock().unwrap();
    seen.clone()
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
    let mut seen = prove("two clients, a crash", crashing);
    seen.extend(prove("two clients, a lost answer", losing.clone()));
    let keyed = Setting {
        keyed: true,
        ..losing
    };
    prove("two clients, one with a key, a lost answer", keyed);
    assert_eq!(seen, BTreeSet::from(SEEN), "everything of note happened");
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
    prove("three clients in a queue, a crash", setting);
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
    prove("histories with time passing", timed);
    let crashing = Setting {
        crashes: 1,
        losses: 1,
        ..base
    };
    prove("histories with a crash and a lost answer", crashing);
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
        ..Setting::of(vec![Plan::Script(&[Op::Poll]), Plan::Script(&[Op::Wait])])
    };
    is_caught(LeaseEndsEarly, setting, NOT_EARLY);
}

#[test]
fn a_grant_out_of_order_is_caught() {
    let setting = Setting {
        crashes: 1,
        ..Setting::of(vec![
            Plan::Script(&[Op::Poll, Op::Unlock]),
            Plan::Script(&[Op::Poll, Op::Wait]),
            Plan::Script(&[Op::Poll, Op::Wait]),
        ])
    };
    is_caught(QueueReversed, setting, IN_ORDER);
}

#[test]
fn an_acknowledged_write_that_is_dropped_is_caught() {
    let setting = Setting {
        crashes: 1,
        ..Setting::of(vec![Plan::Script(&[Op::Write, Op::Read])])
    };
    is_caught(WriteDropped, setting.clone(), KEPT);
    is_caught(WriteDropped, setting.linear(), LINEARIZABLE);
}

#[test]
fn an_accepted_stale_writer_is_caught() {
    let setting = Setting {
        ticks: 2,
        ..Setting::of(vec![
            Plan::Script(&[Op::Poll, Op::Write]),
            Plan::Script(&[Op::Poll]),
        ])
    };
    is_caught(StaleWriterAccepted, setting.clone(), GUARDED);
    is_caught(StaleWriterAccepted, setting.linear(), LINEARIZABLE);
}

#[test]
fn a_token_that_is_used_again_after_a_restart_is_caught() {
    let setting = Setting {
        crashes: 1,
        ..Setting::of(vec![
            Plan::Script(&[Op::Poll, Op::Unlock]),
            Plan::Script(&[Op::Poll]),
        ])
    };
    is_caught(TokenReused, setting.clone(), TOKENS_GROW);
    is_caught(TokenReused, setting.linear(), LINEARIZABLE);
}

#[test]
fn two_holders_at_once_are_caught() {
    let setting = Setting::of(vec![Plan::Script(&[Op::Poll]), Plan::Script(&[Op::Poll])]);
    is_caught(EveryoneGranted, setting, ONE_BELIEVER);
}

#[test]
fn a_release_that_wakes_nobody_is_caught() {
    let setting = Setting::of(vec![
        Plan::Script(&[Op::Poll, Op::Unlock]),
        Plan::Script(&[Op::Wait]),
    ]);
    is_caught(ReleaseWakesNobody, setting, WOKEN);
}

#[test]
fn a_holder_forgotten_by_a_restart_is_caught() {
    let setting = Setting {
        crashes: 1,
        ..Setting::of(vec![Plan::Script(&[Op::Poll])])
    };
    is_caught(HolderForgotten, setting, NOT_EARLY);
}

#[test]
fn a_queue_forgotten_by_a_restart_is_caught() {
    let setting = Setting {
        crashes: 1,
        ..Setting::of(vec![Plan::Script(&[Op::Poll]), Plan::Script(&[Op::Poll])])
    };
    is_caught(QueueForgotten, setting, KEPT);
}

#[test]
fn a_write_past_the_holder_is_caught() {
    let setting = Setting::of(vec![Plan::Script(&[Op::Poll]), Plan::Script(&[Op::Write])]);
    is_caught(GuardMissing, setting.clone(), GUARDED);
    is_caught(GuardMissing, setting.linear(), LINEARIZABLE);
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
