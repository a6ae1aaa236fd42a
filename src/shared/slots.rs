//! Which names this instance answers for itself. Every request looks at it, so that there is nothing in it to be locked.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::lock::{Millis, ResourceName};
use crate::store::members::{SLOTS, Slot};
use crate::store::slot_set::SlotSet;

/// Not this instance's.
const ELSEWHERE: u8 = 0;
/// This instance's, and answered for.
const HERE: u8 = 1;
/// This instance's, which is giving it away.
const LEAVING: u8 = 2;

/// All slots. Where the store is this process's alone, all are here and stay here.
pub struct Slots {
    is_shared: AtomicBool,
    states: Vec<AtomicU8>,
    /// From when on a lease of its names that is read from the store gets its TTL anew.
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

    /// Several instances share the store: from here on only what [`Slots::gain`] says is here.
    pub fn share(&self) {
        self.is_shared.store(true, Ordering::Release);
    }

    pub fn are_shared(&self) -> bool {
        self.is_shared.load(Ordering::Acquire)
    }

    /// Does this instance answer for this name?
    pub fn is_here(&self, name: &ResourceName) -> bool {
        !self.is_shared.load(Ordering::Acquire) || self.state(Slot::of(name)) == HERE
    }

    /// Does this instance answer for its names? Where the store is this process's alone, nobody asks.
    pub fn has(&self, slot: Slot) -> bool {
        self.state(slot) == HERE
    }

    /// What this instance answers for now.
    pub fn here(&self) -> SlotSet {
        SlotSet::of(Slot::all().filter(|slot| self.has(*slot)))
    }

    /// Is it another instance's, or nobody's?
    pub fn is_elsewhere(&self, slot: Slot) -> bool {
        self.state(slot) == ELSEWHERE
    }

    /// Has become this instance's at this time, or is to stay after it was left, and is answered for from here on. Its
    /// leases get their TTL anew: whoever knew what they had left to run is gone.
    pub fn gain(&self, slot: Slot, now: Millis) {
        self.leases_from[slot.number()].store(now, Ordering::Release);
        self.set(slot, HERE);
    }

    /// Is answered for no more, and stays this instance's for now.
    pub fn leave(&self, slot: Slot) {
        self.set(slot, LEAVING);
    }

    /// Is not this instance's any more.
    pub fn lose(&self, slot: Slot) {
        self.set(slot, ELSEWHERE);
    }

    pub fn lose_all(&self) {
        Slot::all().for_each(|slot| self.lose(slot));
    }

    /// When the leases of this name came here, in the time of this process.
    pub fn leases_from(&self, name: &ResourceName) -> Millis {
        self.leases_from[Slot::of(name).number()].load(Ordering::Acquire)
    }

    /// How many are here.
    pub fn count(&self) -> usize {
        Slot::all().filter(|slot| !self.is_elsewhere(*slot)).count()
    }
}
