//! Whether the vital threads and actors still run. Each proves it regularly. If one is gone or stands still,
//! the process ends and its supervisor starts it again: otherwise it would keep its part of a shared store by
//! its heartbeat and serve nobody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use crate::store::StoreError;
use parking_lot::Mutex;

/// How often each part proves that it runs, and how often this is checked.
pub const PROOF_PAUSE: Duration = Duration::from_millis(500);
/// A part without a new proof at this many checks in a row stands still. Checks are counted and not time: a
/// process that was stopped, or a machine that was suspended, has lost time but no checks.
const CHECKS_MAX: u32 = 20;

/// Why the process cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("{0} has ended, which is a bug of this program")]
    Gone(&'static str),
    #[error("{0} stands still")]
    Stalled(&'static str),
    /// The store cannot be used, which was found only after the server had begun to serve `/health`.
    #[error("{0}")]
    Store(StoreError),
}

/// The vital parts of the process; one per server.
#[derive(Default)]
pub struct Liveness {
    parts: Mutex<Vec<VitalPart>>,
    unusable: OnceLock<StoreError>,
}

struct VitalPart {
    name: &'static str,
    /// Number of its proofs. Dropped together with its [`LivenessGuard`].
    proofs: Weak<AtomicU64>,
    /// Whether the part may end. A worker may: the framework starts it again. An actor that ends while the
    /// server runs has panicked.
    may_end: bool,
    /// Number of its proofs at the last check; `None`: it was not checked yet.
    last: Option<u64>,
    /// Number of checks since the last new proof.
    without: u32,
}

/// Held by a part as long as it runs.
pub struct LivenessGuard(Arc<AtomicU64>);

impl LivenessGuard {
    pub fn prove(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
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
        self.add(name, false)
    }

    /// Adds a thread that serves connections and resources.
    pub fn worker(&self) -> LivenessGuard {
        self.add("a thread that serves requests", true)
    }

    fn add(&self, name: &'static str, may_end: bool) -> LivenessGuard {
        let guard = LivenessGuard(Arc::default());
        let mut parts = self.parts.lock();
        parts.push(VitalPart {
            name,
            proofs: Arc::downgrade(&guard.0),
            may_end,
            last: None,
            without: 0,
        });
        guard
    }

    /// Reports that the store cannot be used as it is, after the start is over and nobody waits for it any
    /// more.
    pub fn give_up(&self, error: StoreError) {
        let _ = self.unusable.set(error);
    }

    /// Resolves when the process cannot go on. Only one task may await it. `is_excused`: whether a part may
    /// stand still at the moment.
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
        parts.retain(|part| !part.may_end || part.proofs.strong_count() > 0);
        for part in parts.iter_mut() {
            let Some(proofs) = part.proofs.upgrade() else {
                return Some(Failure::Gone(part.name));
            };
            let proofs = Some(proofs.load(Ordering::Relaxed));
            if part.last != proofs || is_excused(part.name) {
                (part.last, part.without) = (proofs, 0);
                continue;
            }
            part.without += 1;
            if part.without >= CHECKS_MAX {
                return Some(Failure::Stalled(part.name));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(liveness: &Liveness, count: u32, mut between: impl FnMut()) -> Option<Failure> {
        (0..=count).find_map(|_| {
            between();
            liveness.check(|name| name == "excused")
        })
    }

    #[test]
    fn a_part_that_proves_nothing_stands_still() {
        let liveness = Liveness::default();
        let _guard = liveness.actor("the registry");
        assert_eq!(checks(&liveness, CHECKS_MAX - 1, || {}), None);
        let stalled = Some(Failure::Stalled("the registry"));
        assert_eq!(checks(&liveness, 0, || {}), stalled);
    }

    #[test]
    fn a_part_that_proves_itself_or_is_excused_does_not() {
        let liveness = Liveness::default();
        let guard = liveness.worker();
        let _blocked = liveness.actor("excused");
        assert_eq!(checks(&liveness, CHECKS_MAX * 3, || guard.prove()), None);
    }

    #[test]
    fn an_actor_that_is_gone_is_a_failure_and_a_worker_that_ended_is_none() {
        let liveness = Liveness::default();
        drop(liveness.worker());
        assert_eq!(checks(&liveness, CHECKS_MAX, || {}), None);
        drop(liveness.actor("the registry"));
        let gone = Some(Failure::Gone("the registry"));
        assert_eq!(checks(&liveness, 0, || {}), gone);
    }
}
