//! Numbers that many threads count up and somebody adds up now and then.
//!
//! Each thread has a stripe of its own, so that threads which count the same thing do not fight over a cache
//! line. More threads than stripes share some, which costs speed and nothing else.

use std::sync::atomic::{AtomicUsize, Ordering};

const STRIPES: usize = 16;

/// Alone on its cache lines, and on those that are fetched along with them.
#[derive(Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// A `T` of atomics for each thread.
pub struct Striped<T>([Apart<T>; STRIPES]);

impl<T: Default> Default for Striped<T> {
    fn default() -> Self {
        Striped(std::array::from_fn(|_| Apart::default()))
    }
}

thread_local! {
    static STRIPE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES
    };
}

impl<T> Striped<T> {
    /// Where this thread counts.
    pub fn mine(&self) -> &T {
        let Apart(mine) = &self.0[STRIPE.with(|stripe| *stripe)];
        mine
    }

    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|Apart(stripe)| stripe)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn what_all_threads_counted_adds_up() {
        let counts = Striped::<AtomicU64>::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * STRIPES {
                scope.spawn(|| counts.mine().fetch_add(1, Ordering::Relaxed));
            }
        });
        let sum: u64 = counts.all().map(|n| n.load(Ordering::Relaxed)).sum();
        assert_eq!(sum, 2 * STRIPES as u64);
    }
}
