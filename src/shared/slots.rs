//! Which names this instance answers for. Every request checks it, so it uses atomics and no lock.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::lock::{Millis, ResourceName};
use crate::store::members::{SLOTS, Slot};
use crate::store::slot_set::SlotSet;

/// Not owned by this instance.
const ELSEWHERE: u8 = 0;
/// Owned by this instance, which answers for it.
const HERE: u8 = 1;
/// Owned by this instance, which is giving it away and does not answer for it any more.
const LEAVING: u8 = 2;

/// The state of all slots. If the store is not shared, these states are not used: all names are here.
pub struct Slots {
    is_shared: AtomicBool,
    states: Vec<AtomicU8>,
    /// By slot: when the TTL of a lease that is read from the store begins, in monotonic milliseconds.
    leases_from: Vec<AtomicU64>,
}

impl Default for Slots {
    fn default() -> Slots {
        Slots {
            is_shared: AtomicBool::new(false),
            states: (0..SLOTS).map(|_| AtomicU8::new(ELSEWHERE)).collect(),
            leases_from: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Slots {
    fn state(&self, slot: Slot) -> u8 {
        self.states[slot.number()].load(Ordering::Acquire)
    }

    fn set(&self, slot: Slot, state: u8) {
        self.states[slot.number()].store(state, Ordering::Release);
    }

    /// The store is shared: from now on only slots that were given to [`Slots::gain`] are here.
    pub fn share(&self) {
        self.is_shared.store(true, Ordering::Release);
    }

    pub fn are_shared(&self) -> bool {
        self.is_shared.load(Ordering::Acquire)
    }

    /// Whether this instance answers for this name.
    pub fn is_here(&self, name: &ResourceName) -> bool {
        !self.is_shared.load(Ordering::Acquire) || self.state(Slot::of(name)) == HERE
    }

    /// Whether this instance answers for the names of this slot. Only asked if the store is shared.
    pub fn has(&self, slot: Slot) -> bool {
        self.state(slot) == HERE
    }

    /// The slots that this instance answers for now.
    pub fn here(&self) -> SlotSet {
        SlotSet::of(Slot::all().filter(|slot| self.has(*slot)))
    }

    /// Whether another instance or nobody owns this slot.
    pub fn is_elsewhere(&self, slot: Slot) -> bool {
        self.state(slot) == ELSEWHERE
    }

    /// From now on this instance answers for the slot: it has become the owner, or keeps what it was about to give
    /// away. Leases get their full TTL again, because nobody knows any more how much of it is left.
    pub fn gain(&self, slot: Slot, now: Millis) {
        self.leases_from[slot.number()].store(now, Ordering::Release);
        self.set(slot, HERE);
    }

    /// From now on this instance does not answer for the slot; it still owns it.
    pub fn leave(&self, slot: Slot) {
        self.set(slot, LEAVING);
    }

    /// This instance does not own the slot any more.
    pub fn lose(&self, slot: Slot) {
        self.set(slot, ELSEWHERE);
    }

    pub fn lose_all(&self) {
        Slot::all().for_each(|slot| self.lose(slot));
    }

    /// When the TTL of a lease of this name begins if it is read from the store: when its slot came here.
    pub fn leases_from(&self, name: &ResourceName) -> Millis {
        self.leases_from[Slot::of(name).number()].load(Ordering::Acquire)
    }

    /// Number of slots that this instance owns, including those that it is giving away.
    pub fn count(&self) -> usize {
        Slot::all().filter(|slot| !self.is_elsewhere(*slot)).count()
    }
}
