//! Whether this instance may answer requests for resources, and why not.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Why requests for resources are refused with 503.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Closed {
    #[error("the server is starting: its store is not open yet")]
    Starting,
    #[error("this instance does not answer for names yet")]
    Standby,
    /// The cause is for the log and `/ready`, see [`Gate::reason`]; it never contains a secret.
    #[error("the store is not available")]
    StoreAway,
    #[error("the server is shutting down")]
    Stopping,
    /// The request was held for as long as one may be. For `/ready`: no owner of slots is alive.
    #[error("no instance answers for this now; another one may be taking over")]
    Moving,
    #[error("the instance that answers for this cannot be reached from this one")]
    OwnerUnreachable,
    /// The answer to a forwarded change was lost.
    #[error(
        "the instance that answers for this did not answer: the change may or may not have been made"
    )]
    AnswerLost,
    #[error(
        "the instance that answers for this speaks no version of the protocol that this one speaks; the log says which"
    )]
    OtherProtocol,
    /// A listing would cost the store, and so other clients, more time than one may.
    #[error("not now: this listing would take too long. Try again")]
    ListingTooLong,
    #[error("not now: the maximum number of clients follows the events already. Try again")]
    TooManyReaders,
}

/// Value of `Gate::closed` while the gate is open.
const OPEN: u8 = u8::MAX;

impl Closed {
    const ALL: [Closed; 10] = [
        Closed::Starting,
        Closed::Standby,
        Closed::StoreAway,
        Closed::Stopping,
        Closed::Moving,
        Closed::OwnerUnreachable,
        Closed::AnswerLost,
        Closed::OtherProtocol,
        Closed::ListingTooLong,
        Closed::TooManyReaders,
    ];

    /// The stable `code` of the error body.
    pub fn code(&self) -> &'static str {
        match self {
            Closed::Starting => "starting",
            Closed::Standby => "standby",
            Closed::StoreAway => "store_unavailable",
            Closed::Stopping => "shutting_down",
            Closed::Moving => "moving",
            Closed::OwnerUnreachable | Closed::OtherProtocol => "owner_unreachable",
            Closed::AnswerLost => "answer_lost",
            Closed::ListingTooLong | Closed::TooManyReaders => "too_busy",
        }
    }
}

/// Open while this instance has the store and the store answers.
///
/// A shared store adds a time limit: the gate closes by itself when the last successful heartbeat was sent too
/// long ago. The clock also runs while the machine is suspended, so that an instance that was paused past its
/// lease answers nothing when it wakes up.
///
/// Every request checks the gate twice, so the check takes no lock.
pub struct Gate {
    /// The number of a [`Closed`], or [`OPEN`].
    closed: AtomicU8,
    draining: AtomicBool,
    stopping: AtomicBool,
    /// When the gate closes by itself, in [`boottime_ms`]; `u64::MAX`: never.
    valid_until_ms: AtomicU64,
    /// Why the store is unavailable, in the words of the store and without secrets. Only for `/ready`.
    reason: Mutex<String>,
}

impl Default for Gate {
    fn default() -> Self {
        Gate {
            closed: AtomicU8::new(Closed::Starting as u8),
            draining: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            valid_until_ms: AtomicU64::new(u64::MAX),
            reason: Mutex::default(),
        }
    }
}

impl Gate {
    /// May a request be accepted?
    pub fn check(&self) -> Result<(), Closed> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(Closed::Stopping);
        }
        self.check_answer()
    }

    /// Should a balancer send requests here?
    pub fn check_ready(&self) -> Result<(), Closed> {
        if self.draining.load(Ordering::Acquire) {
            return Err(Closed::Stopping);
        }
        self.check()
    }

    /// May an answer leave? Unlike [`Gate::check`], also while the server shuts down.
    pub fn check_answer(&self) -> Result<(), Closed> {
        let closed = self.closed.load(Ordering::Acquire);
        if closed != OPEN {
            let why = Closed::ALL.get(usize::from(closed));
            return Err(why.cloned().unwrap_or(Closed::StoreAway));
        }
        let valid_until = self.valid_until_ms.load(Ordering::Acquire);
        if valid_until != u64::MAX && boottime_ms() >= valid_until {
            return Err(Closed::StoreAway);
        }
        Ok(())
    }

    pub fn open(&self) {
        self.closed.store(OPEN, Ordering::Release);
    }

    /// Closes the gate because the store is unavailable. `reason`: why, in the words of the store.
    pub fn lose_store(&self, reason: &str) {
        reason.clone_into(&mut self.reason.lock());
        self.close(Closed::StoreAway);
    }

    /// The reason of the last [`Gate::lose_store`]; empty if there was none.
    pub fn reason(&self) -> String {
        self.reason.lock().clone()
    }

    pub fn close(&self, why: Closed) {
        self.closed.store(why as u8, Ordering::Release);
    }

    /// Answers may leave until this time on the clock of [`boottime_ms`].
    pub fn valid_until(&self, boottime_ms: u64) {
        self.valid_until_ms.store(boottime_ms, Ordering::Release);
    }

    /// Tells load balancers to send requests elsewhere. Requests are still answered.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Refuses all requests from now on; [`Gate::check_answer`] is not affected.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }
}

/// Milliseconds on a clock that never steps and also counts the time the machine was suspended.
pub fn boottime_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_gate_says_why() {
        let gate = Gate::default();
        for why in Closed::ALL {
            gate.close(why.clone());
            assert_eq!(gate.check_answer(), Err(why));
        }
    }

    #[test]
    fn a_gate_closes_by_itself_when_its_time_is_over() {
        let gate = Gate::default();
        gate.open();
        gate.valid_until(boottime_ms() + 60_000);
        assert_eq!(gate.check(), Ok(()));
        gate.valid_until(boottime_ms());
        assert_eq!(gate.check(), Err(Closed::StoreAway));
        assert_eq!(gate.check_answer(), Err(Closed::StoreAway));
    }
}
