//! Who should own which slots: the rule by which they move between instances, run with up to 100 of them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use small_resource_server::persistence::shares::{Move, plan, quotas};
use small_resource_server::store::members::SLOTS;

/// Slots that one instance gives away in a step.
const STEP_MAX: usize = 64;

fn owned(owners: &[u64]) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for owner in owners {
        *counts.entry(*owner).or_insert(0) += 1;
    }
    counts
}

/// As one might think of it first: each fills up those that lack, without a thought of the others that do.
fn plan_alone(owners: &[u64], live: &[u64]) -> Vec<Move<u64>> {
    let together = plan(owners, live);
    let lacks: Vec<u64> = together.iter().map(|(.., to)| *to).collect();
    let mut given = BTreeMap::new();
    let each = together.into_iter().map(|(slot, from, _)| {
        let count = given.entry(from).or_insert(0);
        *count += 1;
        (slot, from, lacks[*count - 1])
    });
    each.collect()
}

/// In steps all give at once what they should, by their reading of the same rows, until nobody gives any more.
/// Returns how often each slot moved.
fn settle(owners: &mut [u64], plan: impl Fn(&[u64]) -> Vec<Move<u64>>) -> Vec<usize> {
    let mut moved = vec![0; owners.len()];
    for _ in 0..1000 {
        let moves = plan(owners);
        if moves.is_empty() {
            return moved;
        }
        let mut given = BTreeMap::new();
        for (slot, from, to) in moves {
            let count = given.entry(from).or_insert(0);
            if *count < STEP_MAX {
                *count += 1;
                assert_eq!(owners[slot], from, "a slot is given by its owner");
                owners[slot] = to;
                moved[slot] += 1;
            }
        }
    }
    panic!("it never comes to rest");
}

fn is_even(owners: &[u64], live: &[u64]) -> bool {
    owned(owners) == quotas(live, owners.len())
}

/// Ids in no order, as random ones are.
fn id(n: usize) -> u64 {
    (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn ids(count: usize) -> Vec<u64> {
    (0..count).map(id).collect()
}

#[test]
fn a_join_moves_its_share_alone_up_to_100_instances_and_back() {
    let mut owners = vec![id(0); SLOTS];
    for count in 2..=100 {
        let live = ids(count);
        let before = owners.clone();
        let moved = settle(&mut owners, |owners| plan(owners, &live));
        assert!(is_even(&owners, &live), "{count} instances");
        let share = SLOTS.div_ceil(count);
        assert!(moved.iter().sum::<usize>() <= share, "{count} instances");
        let to_the_new =
            |slot: usize| owners[slot] == before[slot] || owners[slot] == id(count - 1);
        assert!((0..SLOTS).all(to_the_new), "{count} instances");
    }
    // Whoever leaves gives all, and nobody else gives anything.
    for count in (1..100).rev() {
        let (live, leaving) = (ids(count), id(count));
        let had = owned(&owners)[&leaving];
        let moved = settle(&mut owners, |owners| plan(owners, &live));
        assert!(is_even(&owners, &live), "{count} instances");
        assert_eq!(moved.iter().sum::<usize>(), had, "{count} instances");
    }
}

#[test]
fn givers_that_do_not_think_of_each_other_move_slots_twice() {
    let live = ids(6);
    let start = || -> Vec<u64> { (0..SLOTS).map(|slot| id(slot % 4)).collect() };
    let mut owners = start();
    let moved = settle(&mut owners, |owners| plan(owners, &live));
    assert_eq!(moved.iter().max(), Some(&1));
    let mut owners = start();
    let moved = settle(&mut owners, |owners| plan_alone(owners, &live));
    assert!(
        moved.iter().max() > Some(&1),
        "the check sees no slot move twice"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whoever comes, leaves or was fenced at the same time: everybody reads the same plan, whatever the order of the
    /// rows; no slot moves twice, and no more of them than have to.
    #[test]
    fn any_change_moves_each_slot_once_at_most(
        before in prop::collection::btree_set(0usize..100, 1..100),
        after in prop::collection::btree_set(0usize..100, 1..100),
        turn in 0usize..100,
    ) {
        let before: Vec<u64> = before.into_iter().map(id).collect();
        let mut live: Vec<u64> = after.into_iter().map(id).collect();
        let mut owners = vec![before[0]; SLOTS];
        settle(&mut owners, |owners| plan(owners, &before));
        let whole = plan(&owners, &live);
        let count = live.len();
        live.rotate_left(turn % count);
        prop_assert_eq!(&whole, &plan(&owners, &live));
        let moved = settle(&mut owners, |owners| plan(owners, &live));
        prop_assert!(is_even(&owners, &live));
        prop_assert!(moved.iter().all(|times| *times <= 1));
        prop_assert_eq!(moved.iter().sum::<usize>(), whole.len());
    }

    /// Instances that do not agree for a while who is there cost moves, and no slot.
    #[test]
    fn views_that_differ_come_to_rest_once_they_agree(
        views in prop::collection::vec(prop::collection::btree_set(0usize..12, 1..12), 12),
        count in 1usize..12,
    ) {
        let mut owners: Vec<u64> = (0..SLOTS).map(|slot| id(slot % 12)).collect();
        let before = owners.clone();
        for (n, view) in views.into_iter().enumerate() {
            let view: Vec<u64> = view.into_iter().map(id).collect();
            for (slot, from, to) in plan(&before, &view) {
                if from == id(n) {
                    owners[slot] = to;
                }
            }
        }
        let live = ids(count);
        let moved = settle(&mut owners, |owners| plan(owners, &live));
        prop_assert!(is_even(&owners, &live));
        prop_assert!(moved.iter().all(|times| *times <= 1));
    }
}
