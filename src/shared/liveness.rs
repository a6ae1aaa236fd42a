//! Whether the vital threads and actors still run. Each proves it regularly. If one is gone or stands still,
//! the process ends and its supervisor starts it again: otherwise it would keep its part of a shared store by
//! its heartbeat and serve nobody.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use crate::store::StoreError;
use parking_lot::Mutex;

/// How often each part proves that it runs, and how often this is checked.
pub const PROOF_PAUSE: Duration = Duration::from_millis(500);
/// A part without a new proof at this many checks in a row stands still. Checks are counted and not time: a
/// process that was stopped, or a machine that was suspended, has lost time but no checks.
const CHECKS_MAX: u32 = 20;
/// The name of each thread that serves connections and resources. Such a part may end: the framework starts it again. An
/// actor that ends while the server runs has panicked.
const WORKER: &str = "a thread that serves requests";

/// Why the server did not start, or the process cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// What the system or the cryptography refused.
    #[error("{0}")]
    Refused(String),
    #[error("{0} has ended, which is a bug of this program")]
    Gone(&'static str),
    #[error("{0} stands still")]
    Stalled(&'static str),
    /// The store cannot be used, which was found only after the server had begun to serve `/health`.
    #[error("{0}")]
    Store(StoreError),
}

impl Failure {
    /// Whether a server that is started again would fail in the same way.
    pub fn is_lasting(&self) -> bool {
        matches!(self, Failure::Store(_))
    }
}

/// The vital parts of the process; one per server.
#[derive(Default)]
pub struct Liveness {
    /// The name of each part, and its number of checks since its last proof, which its [`LivenessGuard`] holds.
    parts: Mutex<Vec<(&'static str, Weak<AtomicU32>)>>,
    unusable: OnceLock<StoreError>,
}

/// Held by a part as long as it runs.
pub struct LivenessGuard(Arc<AtomicU32>);

impl LivenessGuard {
    pub fn prove(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Proves regularly that the thread that polls this runs. Never returns.
    pub async fn prove_on(self) {
        loop {
            self.prove();
            tokio::time::sleep(PROOF_PAUSE).await;
        }
    }
}

impl Liveness {
    /// Adds an actor without which no request is served.
    pub fn actor(&self, name: &'static str) -> LivenessGuard {
        let guard = LivenessGuard(Arc::default());
        self.parts.lock().push((name, Arc::downgrade(&guard.0)));
        guard
    }

    /// Adds a thread that serves connections and resources.
    pub fn worker(&self) -> LivenessGuard {
        self.actor(WORKER)
    }

    /// Reports, after the start, that the store cannot be used as it is.
    pub fn give_up(&self, error: StoreError) {
        let _ = self.unusable.set(error);
    }

    /// Resolves when the process cannot go on. Only one task may await it. `is_excused`: may a part stand still now?
    pub async fn failure(&self, is_excused: impl Fn(&str) -> bool) -> Failure {
        loop {
            if let Some(failure) = self.check(&is_excused) {
                return failure;
            }
            tokio::time::sleep(PROOF_PAUSE).await;
        }
    }

    fn check(&self, is_excused: impl Fn(&str) -> bool) -> Option<Failure> {
        if let Some(error) = self.unusable.get() {
            return Some(Failure::Store(error.clone()));
        }
        let mut parts = self.parts.lock();
        parts.retain(|(name, checks)| *name != WORKER || checks.strong_count() > 0);
        for &(name, ref checks) in parts.iter() {
            let Some(checks) = checks.upgrade() else {
                return Some(Failure::Gone(name));
            };
            if is_excused(name) {
                checks.store(0, Ordering::Relaxed);
            }
            if checks.fetch_add(1, Ordering::Relaxed) >= CHECKS_MAX {
                return Some(Failure::Stalled(name));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_proves_itself_is_excused_or_is_a_worker_that_ended_is_no_failure() {
        let liveness = Liveness::default();
        let guard = liveness.worker();
        let _blocked = liveness.actor("excused");
        drop(liveness.worker());
        let failure = (0..CHECKS_MAX * 3).find_map(|_| {
            guard.prove();
            liveness.check(|name| name == "excused")
        });
        assert_eq!(failure, None);
    }
}
