//! The rules that must never break, each written once, beside the sentence it comes from.
//!
//! Debug builds check them after every command; the property tests and the model checker call the same
//! predicates.

use super::command::{Answer, Outcome};
use super::names::{FencingToken, Ticket};
use super::queue::Queue;
use super::rows::Change;
use super::state::{LeaseClock, Lock, LockState};

/// A rule that did not hold, as a sentence.
pub type Broken = &'static str;

/// The rules that one state can be held against.
pub fn check(state: &LockState) -> Result<(), Broken> {
    let near = state.queue_ref().and_then(Queue::first_near);
    match &state.lock {
        // "the lock is never free while a near ticket waits"
        Lock::Free if near.is_some() => return Err("the lock is free while a near ticket waits"),
        Lock::Free => {}
        Lock::Reserved(seq) => {
            if !state.queue_ref().is_some_and(|q| q.is_near(*seq)) {
                return Err("the lock is reserved for a ticket that is not near");
            }
            let parked = state
                .queue_ref()
                .and_then(|q| q.get(*seq))
                .is_some_and(|w| w.parked().next().is_some());
            if parked {
                return Err("the lock is reserved for a ticket whose request waits for it");
            }
        }
        Lock::Held(lease) => {
            if lease.token != state.token {
                return Err("the lease does not carry the highest token granted");
            }
            // "at most one live lease for a resource": a ticket never holds and waits at once.
            if state
                .queue_ref()
                .is_some_and(|q| q.with_ticket(lease.row.ticket).is_some())
            {
                return Err("the holder also waits");
            }
        }
    }
    if state.queue_ref().is_some_and(|q| !q.is_consistent()) {
        return Err("the queue disagrees with itself");
    }
    Ok(())
}

/// What has to be known of the state before a command, to judge the step.
pub struct Before {
    token: FencingToken,
    holder: Option<(Ticket, FencingToken, LeaseClock)>,
}

impl Before {
    pub fn of(state: &LockState) -> Before {
        Before {
            token: state.token,
            holder: state
                .lease()
                .map(|lease| (lease.row.ticket, lease.token, lease.clock.clone())),
        }
    }

    /// The rules about one step.
    pub fn check(&self, after: &LockState, outcome: &Outcome) -> Result<(), Broken> {
        // "fencing tokens strictly grow"
        if after.token < self.token {
            return Err("the fencing token went back");
        }
        let deleted = outcome
            .answers
            .iter()
            .any(|(_, answer)| *answer == Answer::Deletable);
        if deleted {
            return Ok(());
        }
        if let (Some((ticket, token, clock)), Some(lease)) = (&self.holder, after.lease()) {
            let same = lease.row.ticket == *ticket && lease.token == *token;
            if !same && lease.token <= *token {
                return Err("a new lease does not carry a higher token");
            }
            if same && !extends(clock, &lease.clock) {
                return Err("a renewal made a lease end earlier");
            }
        }
        // "a change of the lock is stored": whoever holds now is what the last head row says.
        let stored = outcome
            .changes
            .iter()
            .rev()
            .find_map(|change| match change {
                Change::Head(head) => Some(head),
                _ => None,
            });
        let before = self.holder.as_ref().map(|(_, token, _)| *token);
        let now = after.lease().map(|lease| lease.token);
        match stored {
            Some(head) if *head != after.head() => Err("the stored head is not the state's"),
            None if before != now || self.token != after.token => {
                Err("the holder changed and nothing was stored")
            }
            _ => Ok(()),
        }
    }
}

fn extends(before: &LeaseClock, after: &LeaseClock) -> bool {
    match (before, after) {
        (LeaseClock::Running { expires: old, .. }, LeaseClock::Running { expires: new, .. }) => {
            match (old, new) {
                (_, None) => true,
                (None, Some(_)) => false,
                (Some(old), Some(new)) => new >= old,
            }
        }
        (LeaseClock::Running { .. }, LeaseClock::Answering(_)) => false,
        (LeaseClock::Answering(_), _) => true,
    }
}
