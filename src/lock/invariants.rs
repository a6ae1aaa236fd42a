//! The rules that must never break, each written once, beside the sentence it comes from.
//!
//! Debug builds check the cheap ones after every command; the property tests and the model checker call
//! all of them. What clients believe, which the core cannot see, is judged by the tests alone.

use std::collections::BTreeMap;

use super::command::{Answer, Command, EndReason, Event, Outcome, PresentedTicket};
use super::names::{FencingToken, IdempotencyKey, Millis, Now, Ticket};
use super::queue::{Queue, Seq, TicketDelivery, Waiter};
use super::rows::{Change, LockRows, TicketRow};
use super::state::{Lease, LeaseClock, Lock, LockState};
use super::step::later;
use super::terms::Terms;

/// A rule that did not hold, as a sentence.
pub type Broken = &'static str;

fn rule(holds: bool, broken: Broken) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(broken) }
}

/// All rules that one state can be held against. Looks at every waiter.
pub fn check(state: &LockState, terms: &Terms, now: Now) -> Result<(), Broken> {
    check_cheap(state, terms, now)?;
    rule(
        state.queue_ref().is_none_or(Queue::is_consistent),
        "the queue disagrees with itself",
    )?;
    // "a dead ticket never comes back to life"
    rule(
        state.ended.tickets().all(|ticket| !state.is_live(ticket)),
        "a ticket that ended is alive",
    )
}

/// The rules that cost no more than a hand-off, however many wait.
pub fn check_cheap(state: &LockState, terms: &Terms, now: Now) -> Result<(), Broken> {
    match &state.lock {
        // "the lock is never free while a near ticket waits"
        Lock::Free => rule(
            state.queue_ref().and_then(Queue::first_near).is_none(),
            "the lock is free while a near ticket waits",
        ),
        Lock::Reserved(seq) => check_reservation(state, *seq),
        Lock::Held(lease) => check_lease(state, lease, terms, now),
    }
}

/// "the first near ticket gets the lock: at once if its request is open, else it is reserved for as long
/// as the ticket stays near"
fn check_reservation(state: &LockState, seq: Seq) -> Result<(), Broken> {
    let queue = state.queue_ref();
    rule(
        queue.is_some_and(|q| q.is_near(seq)),
        "the lock is reserved for a ticket that is not near",
    )?;
    let waiter = queue.and_then(|q| q.get(seq));
    rule(
        waiter.is_some_and(|w| w.parked().next().is_none()),
        "the lock is reserved for a ticket whose request waits for it",
    )
}

fn check_lease(state: &LockState, lease: &Lease, terms: &Terms, now: Now) -> Result<(), Broken> {
    // "an integer, growing with every grant of that name"
    rule(
        lease.token == state.token,
        "the lease does not carry the highest token granted",
    )?;
    // "one place in the queue, then one lease"
    let waits = state
        .queue_ref()
        .and_then(|q| q.with_ticket(lease.row.ticket));
    rule(waits.is_none(), "the holder also waits")?;
    match &lease.clock {
        // Else nothing could ever end it.
        LeaseClock::Answering(requests) => rule(
            !requests.is_empty(),
            "a lease waits for answers that nobody gets",
        ),
        // "a lease never ends early", not by a restart either: then the stored TTL runs anew, and not
        // before the moment from which an earlier restart made it run.
        LeaseClock::Running { since, expires, .. } => {
            let from = now.mono.max(*since);
            let anew = state.expiry(terms, lease.stored_ttl, from, from);
            rule(
                later(anew, *expires) == anew,
                "a restart would end the lease early",
            )
        }
    }
}

/// The stored rows say all that a restart must know.
pub fn check_rows(state: &LockState, rows: &LockRows) -> Result<(), Broken> {
    rule(
        rows.head == state.head(),
        "the stored head is not the state's",
    )?;
    let stored: BTreeMap<Ticket, &TicketRow> =
        rows.waiting.iter().map(|row| (row.ticket, row)).collect();
    let mut expected = BTreeMap::new();
    for (_, waiter) in state.queue_ref().into_iter().flat_map(Queue::iter) {
        // "a ticket is durable once told"
        let untold = waiter.delivery == TicketDelivery::NotSent;
        rule(waiter.stored || untold, "a told ticket is not stored")?;
        rule(
            !(waiter.stored && waiter.ticketless_write),
            "the place of a write that waits is stored",
        )?;
        if waiter.stored {
            expected.insert(waiter.row.ticket, &waiter.row);
        }
    }
    rule(stored == expected, "the stored queue is not the state's")?;
    let remembered = |ticket| rows.ended.iter().any(|row| row.ticket == ticket);
    rule(
        state.ended.tickets().all(remembered),
        "why a ticket ended is not stored",
    )
}

/// What has to be known of the state before a command, to judge the step.
pub struct Before {
    token: FencingToken,
    holder: Option<Holder>,
    reserved: Option<Seq>,
    /// What the command presents.
    presented: Option<PresentedTicket>,
    key: Option<IdempotencyKey>,
    cause: Cause,
}

struct Holder {
    ticket: Ticket,
    token: FencingToken,
    clock: LeaseClock,
}

/// What a command can do to a lease.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Whoever presents the ticket may write, and release its own lease.
    Presented,
    Force,
    Vanish,
    Delete,
    Nothing,
}

impl Before {
    pub fn of(state: &LockState, command: &Command) -> Before {
        Before {
            token: state.token,
            holder: state.lease().map(|lease| Holder {
                ticket: lease.row.ticket,
                token: lease.token,
                clock: lease.clock.clone(),
            }),
            reserved: match state.lock {
                Lock::Reserved(seq) => Some(seq),
                _ => None,
            },
            presented: command.presented(),
            key: match command {
                Command::Acquire { key, .. } => key.clone(),
                _ => None,
            },
            cause: match command {
                Command::Unlock { .. } | Command::Write { .. } => Cause::Presented,
                Command::ForceUnlock { .. } => Cause::Force,
                Command::Vanished { .. } => Cause::Vanish,
                Command::Delete { .. } => Cause::Delete,
                _ => Cause::Nothing,
            },
        }
    }

    /// The rules about one step.
    pub fn check(&self, after: &LockState, now: Now, outcome: &Outcome) -> Result<(), Broken> {
        self.check_leases(after, now.mono, outcome)?;
        self.check_order(after)?;
        self.check_writes(after, outcome)?;
        if deleted(outcome) {
            return Ok(());
        }
        self.check_stored(after, outcome)
    }

    /// "at most one live lease for a resource; a lease never ends early", and "fencing tokens strictly
    /// grow".
    fn check_leases(
        &self,
        after: &LockState,
        now: Millis,
        outcome: &Outcome,
    ) -> Result<(), Broken> {
        let mut live = self.holder.as_ref().map(|holder| holder.token);
        let mut highest = self.token;
        for event in &outcome.events {
            match event {
                Event::Granted(view) => {
                    rule(live.is_none(), "two leases live at once")?;
                    rule(view.token > highest, "a fencing token did not grow")?;
                    highest = view.token;
                    live = Some(view.token);
                }
                Event::Ended { reason, holder } => {
                    rule(live == Some(holder.token), "a lease ended that was none")?;
                    rule(
                        self.may_end(*reason, holder.token, now),
                        "a lease ended early",
                    )?;
                    live = None;
                }
                Event::TakenBack(token) => {
                    rule(live == Some(*token), "a grant was taken back that was none")?;
                    rule(
                        self.cause == Cause::Vanish,
                        "a grant was taken back and nobody vanished",
                    )?;
                    live = None;
                }
                Event::WaiterDropped => {}
            }
        }
        if deleted(outcome) {
            live = None;
        }
        rule(
            live == after.lease().map(|lease| lease.token),
            "the holder changed without an event",
        )?;
        rule(
            highest == after.token,
            "the highest token changed without a grant",
        )?;
        self.check_extended(after)
    }

    fn may_end(&self, reason: EndReason, token: FencingToken, now: Millis) -> bool {
        let before = self.holder.as_ref().filter(|holder| holder.token == token);
        match (reason, before) {
            (EndReason::Expired, Some(holder)) => matches!(
                holder.clock,
                LeaseClock::Running { expires: Some(last), .. } if last < now
            ),
            // "a timer of an earlier lease never ends a later one"
            (EndReason::Expired, None) => false,
            (EndReason::Released, Some(holder)) => {
                self.cause == Cause::Presented
                    && self.presented == Some(PresentedTicket::Ticket(holder.ticket))
            }
            // A write that waited was granted, done and over, all in this step.
            (EndReason::Released, None) => true,
            (EndReason::ForcedOff, _) => self.cause == Cause::Force,
        }
    }

    /// "expiry becomes the later of what it was and now + ttl"
    fn check_extended(&self, after: &LockState) -> Result<(), Broken> {
        let (Some(before), Some(lease)) = (&self.holder, after.lease()) else {
            return Ok(());
        };
        rule(
            lease.token != before.token || extends(&before.clock, &lease.clock),
            "a renewal made a lease end earlier",
        )
    }

    fn asks(&self, waiter: &Waiter) -> bool {
        let key = waiter.row.key.as_ref().map(|key| &key.key);
        self.presented == Some(PresentedTicket::Ticket(waiter.row.ticket))
            || (key.is_some() && key == self.key.as_ref())
    }

    /// "grants follow queue order among near tickets"
    fn check_order(&self, after: &LockState) -> Result<(), Broken> {
        let Some(lease) = after.lease().filter(|lease| lease.token > self.token) else {
            return Ok(());
        };
        // Whoever asks in this step may have come near after time had made the grant.
        let overtaken = after.queue_ref().is_some_and(|queue| {
            queue
                .near_before(lease.row.seq)
                .any(|waiter| !self.asks(waiter))
        });
        rule(
            !overtaken || self.reserved == Some(lease.row.seq),
            "a grant overtook a near ticket",
        )
    }

    /// "data changes only by a holder, or while the lock is free"
    fn check_writes(&self, after: &LockState, outcome: &Outcome) -> Result<(), Broken> {
        for (_, answer) in &outcome.answers {
            let Answer::Writable { token } = answer else {
                continue;
            };
            let before = self.holder.as_ref().map(|holder| holder.token);
            match token {
                Some(token) if Some(*token) == before => {
                    let ticket = self
                        .holder
                        .as_ref()
                        .map(|h| PresentedTicket::Ticket(h.ticket));
                    rule(
                        self.cause == Cause::Presented && self.presented == ticket,
                        "a write was allowed to somebody else than the holder",
                    )?;
                }
                Some(token) => rule(
                    *token > self.token,
                    "a write was allowed with a stale token",
                )?,
                None => rule(
                    before.is_none() || before != after.lease().map(|lease| lease.token),
                    "a write without a ticket was allowed while the lock was held",
                )?,
            }
        }
        Ok(())
    }

    /// "a change is answered only after it is committed": whoever holds now is what the last head row
    /// says.
    fn check_stored(&self, after: &LockState, outcome: &Outcome) -> Result<(), Broken> {
        let stored = outcome
            .changes
            .iter()
            .rev()
            .find_map(|change| match change {
                Change::Head(head) => Some(head),
                _ => None,
            });
        let before = self.holder.as_ref().map(|holder| holder.token);
        let now = after.lease().map(|lease| lease.token);
        match stored {
            Some(head) => rule(*head == after.head(), "the stored head is not the state's"),
            None => rule(
                before == now && self.token == after.token,
                "the holder changed and nothing was stored",
            ),
        }
    }
}

fn deleted(outcome: &Outcome) -> bool {
    outcome
        .answers
        .iter()
        .any(|(_, answer)| *answer == Answer::Deletable)
}

fn extends(before: &LeaseClock, after: &LeaseClock) -> bool {
    match (before, after) {
        (LeaseClock::Running { expires: old, .. }, LeaseClock::Running { expires: new, .. }) => {
            later(*old, *new) == *new
        }
        (LeaseClock::Running { .. }, LeaseClock::Answering(_)) => false,
        (LeaseClock::Answering(_), _) => true,
    }
}
