//! How slots should be shared out: pure, so that every instance works out the same from the same rows.

use std::collections::BTreeMap;

/// A slot, by its number, goes from the first to the second.
pub type Move<Id> = (usize, Id, Id);

/// How many slots each should own: all the same, and the first by their ids one more where it does not divide.
pub fn quotas<Id: Copy + Ord>(live: &[Id], slots: usize) -> BTreeMap<Id, usize> {
    let mut ids = live.to_vec();
    ids.sort_unstable();
    let count = ids.len();
    let quota = |(at, id)| (id, (slots + count - 1 - at) / count);
    ids.into_iter().enumerate().map(quota).collect()
}

/// All slots that should move, so that each moves once at most. Everybody works out all of it, and gives what is its own
/// to give. `owners`: whose each slot is. `live`: those that take slots; one that ends is not among them.
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
