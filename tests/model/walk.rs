//! What both models have in common: how their states are walked through, and what is said of it.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use stateright::{Checker, Model};

/// What has happened in some state.
pub type Happened = BTreeSet<&'static str>;

/// `MODEL_DEPTH`: how much deeper the exhaustive runs go.
pub fn depth() -> u8 {
    std::env::var("MODEL_DEPTH").map_or(0, |text| text.parse().expect("MODEL_DEPTH is a number"))
}

/// Past the capture of the test harness: the counts are what a reader wants to see.
pub fn report(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("standard output");
}

/// Walks through every order of steps; prints how many states there were, of which there must be `at_least` so many
/// different ones. Says what of `seen` happened in some.
pub fn walk<M>(name: &str, at_least: usize, model: M, seen: &Arc<Mutex<Happened>>) -> Happened
where
    M: Model<
            State: Clone + Debug + Hash + PartialEq + Send + Sync,
            Action: Clone + Debug + PartialEq,
        >,
    M: Send + Sync + 'static,
{
    let started = Instant::now();
    let checker = model.checker().threads(2).spawn_bfs().join();
    let different = checker.unique_state_count();
    report(&format!(
        "{name}: {} states, {different} of them different, {} steps deep, {:.1} s",
        checker.state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f32(),
    ));
    checker.assert_properties();
    assert!(different >= at_least, "{name}: only {different} states");
    let seen = seen.lock().unwrap();
    seen.clone()
}

#[track_caller]
pub fn assert_seen(happened: &Happened, of_note: &[&'static str]) {
    let missing: Vec<_> = of_note.iter().filter(|s| !happened.contains(*s)).collect();
    assert!(missing.is_empty(), "never: {missing:?} among {happened:?}");
}
