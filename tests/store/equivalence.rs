//! Random histories: stored one snapshot at a time, merged, and beside another name in a batch, they leave the
//! same rows, and the same as a plain model of them. `STORE_SEED` replays a failure.

use std::cell::RefCell;
use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use small_resource_server::lock::rows::{LockChanges, LockRows, TicketRow};
use small_resource_server::lock::{EndReason, FencingToken, ResourceOptions, Seconds, Ticket};
use small_resource_server::store::{ResourceId, Snapshot, Store};

use crate::bed::Bed;
use crate::rows::*;

const HISTORIES: u32 = 48;
const SELECTORS: [&str; 3] = ["state", "State", "state "];

/// One thing that happens to a resource.
#[derive(Clone, Debug)]
enum Step {
    /// Unless it exists.
    Create(ResourceOptions),
    /// These only while it exists.
    Remove(u64),
    Options(ResourceOptions),
    Lock(LockChanges),
    Put(usize, String),
    Delete(usize),
    /// The snapshot so far is handed over.
    HandOver,
    /// What was handed over so far is merged into one snapshot.
    Commit,
}

fn ticket_row() -> impl Strategy<Value = TicketRow> {
    (0..6_u128, any::<u64>(), any::<bool>()).prop_map(|(bits, seq, full)| TicketRow {
        seq,
        ..if full {
            full_ticket(bits)
        } else {
            plain_ticket(bits)
        }
    })
}

fn lock_change() -> impl Strategy<Value = LockChanges> {
    let reason = prop_oneof![
        Just(EndReason::Released),
        Just(EndReason::Expired),
        Just(EndReason::ForcedOff),
    ];
    prop_oneof![
        (any::<u64>(), ticket_row(), 0..u64::MAX / 2).prop_map(|(t, row, at)| held(t, row, at)),
        any::<u64>().prop_map(free),
        ticket_row().prop_map(waiting),
        (0..6_u128).prop_map(|bits| left(Ticket::from_bits(bits))),
        // Its number is given to it when it is played.
        reason.prop_map(|reason| over(ended(0, reason))),
    ]
}

fn options() -> impl Strategy<Value = ResourceOptions> {
    let some = (0..=Seconds::MAX, 1..3_u16, 0..2_u8, any::<bool>());
    some.prop_map(|(timeout, slots, lock_delay, ephemeral)| ResourceOptions {
        slots,
        lock_delay,
        ephemeral,
        ..plain(i64::from(timeout))
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => options().prop_map(Step::Create),
        1 => any::<u64>().prop_map(Step::Remove),
        1 => options().prop_map(Step::Options),
        9 => lock_change().prop_map(Step::Lock),
        4 => (0..SELECTORS.len(), "[ -~é\u{1f600}]{0,12}").prop_map(|(s, json)| Step::Put(s, json)),
        2 => (0..SELECTORS.len()).prop_map(Step::Delete),
        6 => Just(Step::HandOver),
        2 => Just(Step::Commit),
    ]
}

/// What is stored of a resource that exists.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    id: ResourceId,
    options: ResourceOptions,
    lock: LockRows,
    data: BTreeMap<usize, (String, Bytes)>,
}

/// Plays a history under one name, into snapshots and into the model.
struct Player {
    snapshot: Snapshot,
    /// What was handed over, in parts that `persistence` would merge.
    parts: Vec<Vec<Snapshot>>,
    model: Option<Model>,
    lives: usize,
    token_floor: u64,
    /// How many tickets ended.
    ended: u64,
    /// The id that a selector's document got in this life. A document that is deleted and written again may
    /// have its earlier id where both were merged, so the history writes it under that one.
    first_ids: BTreeMap<usize, String>,
}

impl Player {
    fn new(text: &str) -> Player {
        Player {
            snapshot: Snapshot::empty(name(text), ResourceId::new(text)),
            parts: vec![Vec::new()],
            model: None,
            lives: 0,
            token_floor: 0,
            ended: 0,
            first_ids: BTreeMap::new(),
        }
    }

    fn play(history: &[Step], text: &str) -> Player {
        let mut player = Player::new(text);
        for (at, step) in history.iter().enumerate() {
            player.step(at, step);
        }
        player.step(history.len(), &Step::HandOver);
        player
    }

    fn step(&mut self, at: usize, step: &Step) {
        match (step, &mut self.model) {
            (Step::HandOver, _) => self.hand_over(),
            (Step::Commit, _) => self.parts.push(Vec::new()),
            (Step::Create(options), None) => self.create(*options),
            (Step::Options(options), Some(model)) => {
                let mut changes = next(&self.snapshot);
                changes.options = Some(*options);
                self.snapshot.merge(changes);
                model.options = *options;
            }
            (Step::Remove(token), Some(_)) => {
                self.snapshot.remove(FencingToken(*token));
                self.token_floor = self.token_floor.max(*token);
                self.model = None;
            }
            (Step::Lock(change), Some(model)) => {
                let mut change = change.clone();
                if let Some(row) = change.ended.first_mut() {
                    *row = ended(self.ended, row.reason);
                    self.ended += 1;
                }
                change.overlay(&mut model.lock);
                self.snapshot.lock.merge(&change);
            }
            (Step::Put(s, json), Some(_)) => self.put(at, *s, json),
            (Step::Delete(s), Some(model)) => {
                self.snapshot.document(selector(SELECTORS[*s]), None);
                model.data.remove(s);
            }
            (Step::Create(_), Some(_)) | (_, None) => {}
        }
    }

    fn hand_over(&mut self) {
        let empty = next(&self.snapshot);
        let full = std::mem::replace(&mut self.snapshot, empty);
        self.parts.last_mut().unwrap().push(full);
    }

    fn create(&mut self, options: ResourceOptions) {
        self.lives += 1;
        let id = ResourceId::new(&format!("{} {}", self.snapshot.name, self.lives));
        self.snapshot.create(id.clone(), options);
        self.first_ids.clear();
        self.model = Some(Model {
            id,
            options,
            lock: LockRows::default(),
            data: BTreeMap::new(),
        });
    }

    fn put(&mut self, at: usize, s: usize, json: &str) {
        let Some(model) = &mut self.model else { return };
        // Ids are unique in the whole store.
        let fresh = format!("document {at} of {}", model.id);
        let id = match model.data.contains_key(&s) {
            true => fresh,
            false => self.first_ids.entry(s).or_insert(fresh).clone(),
        };
        put(&mut self.snapshot, SELECTORS[s], &id, json.to_owned());
        let row = model.data.entry(s).or_insert((id, Bytes::new()));
        row.1 = Bytes::from(json.to_owned());
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        self.parts.concat()
    }

    /// The snapshots of each part merged into one.
    fn merged(&self) -> Vec<Snapshot> {
        let merge = |part: &Vec<Snapshot>| {
            part.iter().cloned().reduce(|mut earlier, later| {
                earlier.merge(later);
                earlier
            })
        };
        self.parts.iter().filter_map(merge).collect()
    }
}

async fn stored(store: &dyn Store, text: &str) -> Option<Model> {
    let found = load(store, text).await?;
    let mut data = BTreeMap::new();
    for (s, at) in SELECTORS.iter().enumerate() {
        if let Some(row) = document(store, &found.id, at).await {
            data.insert(s, (row.id, row.json));
        }
    }
    assert_eq!(found.selectors, data.len());
    Some(Model {
        id: found.id,
        options: found.options,
        lock: found.lock,
        data,
    })
}

/// Each way under names of its own, in one store.
async fn check(store: &dyn Store, text: &str, history: &[Step], token_floor: &RefCell<u64>) {
    let ways = ["single", "merged", "batched", "beside"];
    let [single, merged, batched, beside] =
        ways.map(|way| Player::play(history, &format!("{text} {way}")));
    for (at, snapshot) in single.snapshots().into_iter().enumerate() {
        commit(store, &[snapshot]).await;
        if at % 3 == 2 {
            store.checkpoint().await.unwrap();
        }
    }
    for snapshot in merged.merged() {
        commit(store, &[snapshot]).await;
    }
    for (one, other) in batched.merged().into_iter().zip(beside.merged()) {
        commit(store, &[one, other]).await;
    }
    let players = [single, merged, batched, beside];
    for player in &players {
        let mut highest = token_floor.borrow_mut();
        *highest = player.token_floor.max(*highest);
    }
    is_as_played(store, &players).await;
    // What is not checkpointed yet is, from what the store wrote down.
    let (floor, _) = store.open().await.unwrap();
    assert_eq!(floor.0, *token_floor.borrow());
    is_as_played(store, &players).await;
    for player in &players {
        leaves_nothing_of_earlier_lives(store, player).await;
    }
}

/// A resource with the id of one that is gone finds none of its rows.
async fn leaves_nothing_of_earlier_lives(store: &dyn Store, player: &Player) {
    for life in 1..=player.lives {
        let id = ResourceId::new(&format!("{} {life}", player.snapshot.name));
        if player.model.as_ref().is_some_and(|model| model.id == id) {
            continue;
        }
        let again = format!("{id} again");
        let mut snapshot = Snapshot::empty(name(&again), id.clone());
        snapshot.create(id, plain(5));
        commit(store, &[snapshot]).await;
        store.checkpoint().await.unwrap();
        let found = load(store, &again).await.unwrap();
        let rows = (found.options, found.lock, found.selectors);
        assert_eq!(rows, (plain(5), LockRows::default(), 0), "{again}");
    }
}

async fn is_as_played(store: &dyn Store, players: &[Player]) {
    for player in players {
        let mut expected = player.model.clone();
        if let Some(model) = &mut expected {
            in_order(&mut model.lock);
        }
        let found = stored(store, player.snapshot.name.as_str()).await;
        assert_eq!(found, expected, "{}", player.snapshot.name);
    }
}

fn seed() -> u64 {
    let given = std::env::var("STORE_SEED").ok();
    given.map_or_else(rand_seed, |seed| {
        seed.parse().expect("STORE_SEED: a number")
    })
}

fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

pub async fn one_at_a_time_merged_and_batched_store_the_same<B: Bed>() {
    let seed = seed();
    println!("STORE_SEED={seed}");
    let mut runner = TestRunner::new(Config {
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    });
    let histories = prop::collection::vec(step(), 0..60);
    let bed = B::fresh().await;
    let token_floor = RefCell::new(0);
    for i in 0..HISTORIES {
        let history = histories.new_tree(&mut runner).unwrap().current();
        println!("history {i}: {history:?}");
        check(bed.store(), &format!("{i}"), &history, &token_floor).await;
    }
}
