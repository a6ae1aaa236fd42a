//! What is checked: the protocol in every order of steps, and every broken one until it is caught.
//!
//! `MODEL_DEPTH` (0) as for the rest of the model.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Property, UniformChooser};

use super::faults::Fault;
use super::world::{
    JUSTLY_FENCED, KEPT, ONE_HOLDER, ONE_SERVES, SERVED_AGAIN, Setting, Step, TOKENS_GROW,
    WHOLE_LOGS, World, seen,
};
use crate::walk::{Happened, assert_seen, depth, report, walk};

struct Cluster {
    setting: Setting,
    /// Only this rule is judged, so that it is shown to be broken and not only another one on the way there.
    rule: Option<&'static str>,
    /// Which of [`seen`] have happened.
    seen: Arc<Mutex<Happened>>,
}

impl Cluster {
    fn new(setting: Setting) -> Cluster {
        Cluster {
            setting,
            rule: None,
            seen: Arc::default(),
        }
    }
}

impl Model for Cluster {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::start(&self.setting)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.broken.is_none() {
            steps.extend(world.steps(&self.setting));
        }
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.after(step, &self.setting)?;
        if let Some(seen) = world.seen.take() {
            self.seen.lock().unwrap().insert(seen);
        }
        if self.rule.is_some() {
            world.broken.take_if(|broken| self.rule != Some(*broken));
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(TOKENS_GROW, |_, w: &World| w.broken != Some(TOKENS_GROW)),
            Property::always(ONE_HOLDER, |_, w: &World| w.broken != Some(ONE_HOLDER)),
            Property::always(KEPT, |_, w: &World| w.broken != Some(KEPT)),
            Property::always(ONE_SERVES, |_, w: &World| w.broken != Some(ONE_SERVES)),
            Property::always(WHOLE_LOGS, |_, w: &World| w.broken != Some(WHOLE_LOGS)),
            Property::always(JUSTLY_FENCED, |_, w: &World| {
                w.broken != Some(JUSTLY_FENCED)
            }),
            Property::always(SERVED_AGAIN, |model: &Cluster, w: &World| {
                !model.setting.recovers || w.is_served_again(&model.setting)
            }),
        ]
    }
}

/// Two instances with a share each, one of which has the only slot, on one database.
const GROUP: Setting = Setting {
    processes: 2,
    slots: 1,
    nodes: 1,
    one_owner: false,
    tokens: 1,
    deletes: false,
    expiry: false,
    checkpoints: false,
    moves: 0,
    crashes: 0,
    cuts: 0,
    outages: 0,
    lives: 1,
    logs: 1,
    late_beats: false,
    watches: false,
    recovers: false,
    lease: 4,
    gate: 3,
    fault: None,
};

/// One instance has all, another one waits. Each may be the owner twice.
const ONE_OWNER: Setting = Setting {
    one_owner: true,
    lives: 2,
    logs: 2,
    ..GROUP
};

impl Setting {
    fn coarse(self) -> Setting {
        Setting {
            lease: 2,
            gate: 1,
            ..self
        }
    }

    fn three(self) -> Setting {
        Setting {
            processes: 3,
            ..self
        }
    }

    fn on_two_nodes(self) -> Setting {
        Setting { nodes: 2, ..self }
    }
}

/// The sound protocol in every order of steps, of which there must be `at_least` so many different states.
fn prove(name: &str, at_least: usize, setting: Setting) -> Happened {
    let model = Cluster::new(setting);
    let seen = model.seen.clone();
    walk(name, at_least, model, &seen)
}

// ---- one owner, others wait -----------------------------------------------------------------------

#[test]
fn whoever_takes_the_place_of_an_only_owner_breaks_no_rule() {
    let more = depth();
    let cut = Setting {
        cuts: 1,
        logs: 3 + more,
        lives: 1 + more,
        ..ONE_OWNER
    };
    let mut happened = prove("one owner, a commit is cut", 4_000, cut);
    let crash = Setting {
        crashes: 1,
        lives: 1 + more,
        ..ONE_OWNER
    };
    happened.extend(prove("one owner, two wait, a crash", 24_000, crash.three()));
    let again = Setting {
        tokens: 2,
        deletes: true,
        crashes: more,
        ..ONE_OWNER
    };
    happened.extend(prove("one owner, names are deleted", 36_000, again));
    assert_seen(
        &happened,
        &[
            seen::TAKEN_OVER,
            seen::REOPENED,
            seen::SEALED_OUT,
            seen::LANDS_LATE,
            seen::FENCED_GRANT,
            seen::UNTOLD,
            seen::MADE_AGAIN,
        ],
    );
}

#[test]
fn whoever_does_so_at_a_node_that_is_behind_breaks_no_rule() {
    let more = depth();
    let setting = Setting {
        lives: 1 + more,
        ..ONE_OWNER
    };
    let setting = setting.three().on_two_nodes();
    let happened = prove("one owner, two wait, two nodes", 60_000, setting);
    assert_seen(&happened, &[seen::TAKEN_OVER, seen::FENCED_GRANT]);
    let cut = Setting {
        cuts: 1,
        logs: 3,
        lives: 1,
        ..ONE_OWNER
    };
    let name = "one owner, two nodes, a commit is cut";
    prove(name, 30_000, cut.on_two_nodes().coarse());
}

// ---- slots ----------------------------------------------------------------------------------------

#[test]
fn fencing_one_of_two_instances_breaks_no_rule() {
    let more = depth();
    let two = Setting { slots: 2, ..GROUP };
    let mut happened = prove("two instances, two slots", 50_000, two);
    let cut = Setting {
        cuts: 1,
        logs: 2 + more,
        ..GROUP
    };
    happened.extend(prove("two instances, a commit is cut", 28_000, cut));
    let back = Setting {
        lives: 2,
        logs: 2,
        ..GROUP
    };
    happened.extend(prove("two instances that come back", 10_000, back.coarse()));
    assert_seen(
        &happened,
        &[
            seen::REPLAYED,
            seen::REOPENED,
            seen::SEALED_OUT,
            seen::FENCED_GRANT,
            seen::UNTOLD,
        ],
    );
}

#[test]
fn giving_a_slot_away_breaks_no_rule() {
    let setting = Setting {
        moves: 1 + depth(),
        deletes: true,
        ..GROUP
    };
    let happened = prove("a slot is given away", 13_000, setting);
    assert_seen(&happened, &[seen::GIVEN, seen::SWEPT, seen::FENCED_GRANT]);
    let again = Setting {
        moves: depth(),
        tokens: 2,
        ..setting
    };
    let happened = prove("a name is made again", 10_000, again.coarse());
    assert_seen(&happened, &[seen::MADE_AGAIN]);
}

#[test]
fn nodes_that_are_behind_break_no_rule() {
    let setting = Setting {
        moves: 1,
        cuts: depth(),
        logs: 1 + depth(),
        ..GROUP
    };
    let name = "two nodes, a slot is given away";
    let happened = prove(name, 84_000, setting.on_two_nodes().coarse());
    assert_seen(&happened, &[seen::GIVEN, seen::SWEPT, seen::REPLAYED]);
}

#[test]
fn three_instances_break_no_rule() {
    let more = depth();
    let setting = GROUP.three().coarse();
    let mut happened = prove("three instances", 48_000, setting);
    let given = Setting {
        slots: 2,
        moves: 1,
        tokens: more,
        ..setting
    };
    let name = "three instances, two slots, one is given away";
    happened.extend(prove(name, 10_000, given));
    assert_seen(
        &happened,
        &[
            seen::REPLAYED,
            seen::OTHER_EXECUTOR,
            seen::SWEPT,
            seen::GIVEN,
        ],
    );
}

/// More than can be walked through to the end: the nearest states, and single runs of any length at random.
#[test]
fn everything_at_once_breaks_no_rule() {
    let setting = Setting {
        slots: 2,
        tokens: 4,
        deletes: true,
        expiry: true,
        checkpoints: true,
        moves: 4,
        crashes: 3,
        cuts: 4,
        outages: 2,
        lives: 8,
        logs: 16,
        late_beats: true,
        ..GROUP.three().on_two_nodes()
    };
    let started = Instant::now();
    let states = 50_000 << (4 * depth());
    let all = Cluster::new(setting)
        .checker()
        .threads(2)
        .target_state_count(states);
    let nearest = all.spawn_bfs().join();
    nearest.assert_properties();
    let runs = Cluster::new(setting)
        .checker()
        .target_state_count(states)
        .target_max_depth(400);
    let runs = runs.spawn_simulation(1, UniformChooser).join();
    runs.assert_properties();
    report(&format!(
        "everything: the nearest {} states; {} at random, {} steps deep; {:.1} s",
        nearest.state_count(),
        runs.state_count(),
        runs.max_depth(),
        started.elapsed().as_secs_f32(),
    ));
}

#[test]
fn a_watch_allows_no_fence_before_its_time() {
    let setting = Setting {
        watches: true,
        outages: 1,
        tokens: 0,
        ..GROUP
    };
    let happened = prove("two instances that look", 30_000, setting);
    assert_seen(&happened, &[seen::INTERRUPTED]);
}

#[test]
fn every_slot_is_served_again() {
    let slots = Setting {
        moves: 1,
        crashes: 1,
        tokens: 0,
        recovers: true,
        ..GROUP
    };
    prove("recovery of slots", 700, slots);
    let three = slots.three().coarse();
    prove("recovery, three instances", 22_000, three);
    let one_owner = Setting {
        crashes: 1,
        cuts: 1,
        logs: 3,
        lives: 1,
        recovers: true,
        ..ONE_OWNER
    };
    prove("recovery of an only owner's slots", 500, one_owner);
}

// ---- broken ones ----------------------------------------------------------------------------------

/// The checker finds that `rule` is broken, and finds nothing where the protocol is followed in the very same
/// setting.
fn is_caught(fault: Fault, setting: Setting, rule: &'static str) {
    let sound = Cluster::new(setting)
        .checker()
        .threads(2)
        .spawn_bfs()
        .join();
    sound.assert_properties();

    let broken = Cluster {
        rule: Some(rule),
        ..Cluster::new(Setting {
            fault: Some(fault),
            ..setting
        })
    };
    let checker = broken
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let found = checker.discoveries();
    let path = found.get(rule).map(|path| path.clone().into_actions());
    let (states, all) = (checker.state_count(), sound.state_count());
    report(&format!(
        "{fault:?}: caught after {states} states, of the protocol's {all} ({rule}): {path:?}"
    ));
    assert!(path.is_some(), "{fault:?} is not caught");
}

#[test]
fn the_guard_of_version_2_is_caught() {
    let setting = ONE_OWNER.on_two_nodes().coarse();
    is_caught(Fault::EpochGuard, setting, TOKENS_GROW);
}

#[test]
fn a_guard_by_shared_lock_is_caught() {
    let setting = GROUP.on_two_nodes().coarse();
    is_caught(Fault::SharedSlotGuard, setting, TOKENS_GROW);
}

#[test]
fn a_row_without_a_seal_is_caught() {
    let setting = GROUP.on_two_nodes().coarse();
    is_caught(Fault::RowWithoutSeal, setting, TOKENS_GROW);
}

#[test]
fn a_seal_without_a_row_is_caught() {
    let setting = Setting { logs: 2, ..GROUP };
    is_caught(Fault::SealWithoutRow, setting, ONE_SERVES);
    is_caught(Fault::SealWithoutRow, setting, WHOLE_LOGS);
}

#[test]
fn a_slot_given_without_a_checkpoint_is_caught() {
    let setting = Setting { moves: 1, ..GROUP };
    is_caught(Fault::GivenWithoutCheckpoint, setting.coarse(), TOKENS_GROW);
}

#[test]
fn a_log_that_is_not_replayed_is_caught() {
    is_caught(Fault::NoReplay, GROUP, ONE_HOLDER);
    is_caught(Fault::NoReplay, GROUP, TOKENS_GROW);
}

#[test]
fn slots_taken_before_the_replay_are_caught() {
    is_caught(Fault::SlotsBeforeReplay, GROUP, TOKENS_GROW);
}

#[test]
fn a_token_floor_that_is_cached_is_caught() {
    let setting = Setting {
        moves: 1,
        deletes: true,
        ..GROUP
    };
    is_caught(Fault::FloorCached, setting.coarse(), TOKENS_GROW);
}

#[test]
fn reading_at_another_node_is_caught() {
    let setting = GROUP.on_two_nodes().coarse();
    is_caught(Fault::ReadElsewhere, setting, KEPT);
}

#[test]
fn a_gate_without_a_margin_is_caught() {
    is_caught(Fault::GateWithoutMargin, GROUP, ONE_SERVES);
    is_caught(Fault::GateWithoutMargin, GROUP, KEPT);
}

#[test]
fn a_gate_that_counts_from_the_answer_is_caught() {
    let setting = Setting {
        late_beats: true,
        ..GROUP
    };
    is_caught(Fault::GateFromAnswer, setting, ONE_SERVES);
}

#[test]
fn a_watch_that_goes_on_after_an_interruption_is_caught() {
    let setting = Setting {
        watches: true,
        outages: 1,
        tokens: 0,
        ..GROUP
    };
    is_caught(Fault::WatchWithoutContinuity, setting, JUSTLY_FENCED);
}

#[test]
fn a_checkpoint_that_leaves_no_row_is_caught() {
    let setting = Setting {
        checkpoints: true,
        ..GROUP
    };
    let setting = setting.on_two_nodes().coarse();
    is_caught(Fault::LastRowDeleted, setting, WHOLE_LOGS);
    is_caught(Fault::LastRowDeleted, setting, KEPT);
}

#[test]
fn going_on_in_doubt_is_caught() {
    let setting = Setting {
        processes: 1,
        expiry: true,
        cuts: 1,
        checkpoints: true,
        logs: 3,
        ..GROUP
    };
    is_caught(Fault::GoesOnInDoubt, setting, KEPT);
}

#[test]
fn a_new_log_that_does_not_name_the_old_one_is_caught() {
    let setting = Setting {
        cuts: 1,
        logs: 2,
        ..GROUP
    };
    is_caught(Fault::PredecessorForgotten, setting.coarse(), TOKENS_GROW);
}

#[test]
fn slots_that_nobody_sweeps_are_caught() {
    let setting = Setting {
        moves: 1,
        tokens: 0,
        recovers: true,
        ..GROUP
    };
    is_caught(Fault::NobodySweeps, setting.coarse(), SERVED_AGAIN);
}
