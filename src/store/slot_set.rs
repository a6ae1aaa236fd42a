//! A set of slots. Each instance knows only its own names, so its answer says which slots it covers.

use serde::{Deserialize, Serialize};

use super::members::{SLOTS, Slot};

const WORDS: usize = SLOTS / u64::BITS as usize;

/// A set of slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotSet([u64; WORDS]);

fn place(slot: Slot) -> (usize, u64) {
    let bits = u64::BITS as usize;
    (slot.number() / bits, 1 << (slot.number() % bits))
}

impl SlotSet {
    /// The set of these slots.
    pub fn of(slots: impl Iterator<Item = Slot>) -> SlotSet {
        let mut set = SlotSet::default();
        for (word, bit) in slots.map(place) {
            set.0[word] |= bit;
        }
        set
    }

    pub fn has(&self, slot: Slot) -> bool {
        let (word, bit) = place(slot);
        self.0[word] & bit != 0
    }

    /// The slots that are in both sets.
    pub fn and(mut self, other: SlotSet) -> SlotSet {
        for (ours, theirs) in self.0.iter_mut().zip(other.0) {
            *ours &= theirs;
        }
        self
    }

    /// Whether each slot is in exactly one of these sets.
    pub fn are_whole(parts: impl Iterator<Item = SlotSet>) -> bool {
        let mut sum = SlotSet::default();
        for part in parts {
            for (sum, part) in sum.0.iter_mut().zip(part.0) {
                if *sum & part != 0 {
                    return false;
                }
                *sum |= part;
            }
        }
        sum.0.iter().all(|word| *word == u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_whole_when_each_slot_is_in_one_of_them() {
        let part = |rest| SlotSet::of(Slot::all().filter(|slot| slot.number() % 3 == rest));
        assert!(SlotSet::are_whole([part(0), part(1), part(2)].into_iter()));
        assert!(!SlotSet::are_whole([part(0), part(1)].into_iter()));
        let twice = [part(0), part(1), part(2), part(1)];
        assert!(!SlotSet::are_whole(twice.into_iter()));
        assert!(SlotSet::are_whole([SlotSet::of(Slot::all())].into_iter()));
    }

    #[test]
    fn what_both_have_is_in_each() {
        let first = |count| SlotSet::of(Slot::all().take(count));
        let last = |from| SlotSet::of(Slot::all().skip(from));
        let both = first(100).and(last(90));
        for slot in Slot::all() {
            assert_eq!(both.has(slot), (90..100).contains(&slot.number()));
        }
    }
}
