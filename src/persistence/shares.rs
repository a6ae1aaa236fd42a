//! How slots should be divided among the instances. Pure, so that every instance computes the same from the same rows.

use std::collections::BTreeMap;

/// The move of a slot: its number, the instance that gives it, and the instance that receives it.
pub type Move<Id> = (usize, Id, Id);

/// How many of `slots` each instance should own: equal shares, of which the first in the order of ids are one larger if
/// the division leaves a remainder.
pub fn quotas<Id: Copy + Ord>(live: &[Id], slots: usize) -> BTreeMap<Id, usize> {
    let mut ids = live.to_vec();
    ids.sort_unstable();
    let count = ids.len();
    let quota = |(at, id)| (id, (slots + count - 1 - at) / count);
    ids.into_iter().enumerate().map(quota).collect()
}

/// All moves after which each instance owns its share; a slot moves once at most. Every instance computes the whole
/// plan and gives the slots of its own in it. `owners`: the owner of each slot, by the slot's number. `live`: the
/// instances that take slots; one that is ending is not among them.
pub fn plan<Id: Copy + Ord>(owners: &[Id], live: &[Id]) -> Vec<Move<Id>> {
    let quotas = quotas(live, owners.len());
    let mut owned = BTreeMap::new();
    for owner in owners {
        *owned.entry(*owner).or_insert(0) += 1;
    }
    let lacks = quotas.iter().flat_map(|(id, quota)| {
        let has: usize = owned.get(id).copied().unwrap_or(0);
        std::iter::repeat_n(*id, quota.saturating_sub(has))
    });
    let mut kept = BTreeMap::new();
    let mut surplus: Vec<(Id, usize)> = Vec::new();
    for (slot, owner) in owners.iter().enumerate() {
        let kept = kept.entry(*owner).or_insert(0);
        if *kept < quotas.get(owner).copied().unwrap_or(0) {
            *kept += 1;
        } else {
            surplus.push((*owner, slot));
        }
    }
    surplus.sort_unstable();
    let moves = surplus.into_iter().zip(lacks);
    moves.map(|((from, slot), to)| (slot, from, to)).collect()
}
