//! The rules that must never break. Each is written once, with the sentence it implements in quotes.
//!
//! Debug builds check the cheap rules after every command. The property tests and the model checker check all
//! of them, and in addition what clients believe, which the core cannot see.

use std::collections::BTreeMap;

use super::command::{Answer, Command, Event, HolderView, LockRequest, Outcome, PresentedTicket};
use super::leases::Lease;
use super::names::{FencingToken, Millis, Mode, Now, Ticket};
use super::queue::{Queue, Seq, TicketDelivery, Waiter};
use super::rows::{EndReason, HolderRow, LockRows, TicketRow};
use super::state::{LockState, later};
use super::terms::Terms;

/// The rule that was broken, as a sentence.
pub type Broken = &'static str;

fn rule(holds: bool, broken: Broken) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(broken) }
}

/// Checks all rules about one state. Its time grows with the number of waiters.
///
/// # Errors
///
/// The first rule that is broken; the same goes for the other checks in this file.
pub fn check(state: &LockState, terms: &Terms, now: Now) -> Result<(), Broken> {
    check_cheap(state, terms, now)?;
    rule(
        state.queue_ref().is_none_or(Queue::is_consistent),
        "the indexes of the queue do not match its waiters",
    )?;
    rule(
        state.leases.is_consistent(),
        "the indexes of the leases do not match the leases",
    )?;
    // "a dead ticket never comes back to life"
    rule(
        state.ended.tickets().all(|ticket| !state.is_live(ticket)),
        "a ticket that ended is alive",
    )
}

/// Checks the rules that cost no more than a hand-off, however many tickets wait.
pub fn check_cheap(state: &LockState, terms: &Terms, now: Now) -> Result<(), Broken> {
    check_together(state)?;
    for lease in state.leases.iter() {
        check_lease(state, lease, terms, now)?;
    }
    match state.reserved {
        Some(seq) => check_reservation(state, seq),
        // "the lock is never free while a near ticket waits for what is free"
        None => rule(
            !state
                .first_near()
                .is_some_and(|seq| state.admits_waiter(seq)),
            "the lock is free while a near ticket waits",
        ),
    }
}

/// "leases that stand together are all shared, or at most `slots` exclusive ones"
fn check_together(state: &LockState) -> Result<(), Broken> {
    let modes = || state.leases.iter().map(|lease| lease.row.mode);
    let exclusive = modes().filter(|mode| *mode == Mode::Exclusive).count();
    let alike = exclusive == 0 || exclusive == state.leases.len();
    rule(alike, "an exclusive lease stands beside a shared one")?;
    rule(
        exclusive <= usize::from(state.options.slots),
        "more exclusive leases than slots",
    )
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
        waiter.is_some_and(|w| !w.is_parked()),
        "the lock is reserved for a ticket whose request waits for it",
    )?;
    rule(
        state.admits_waiter(seq),
        "the lock is reserved for a ticket that cannot be granted now",
    )
}

fn check_lease(state: &LockState, lease: &Lease, terms: &Terms, now: Now) -> Result<(), Broken> {
    // "an integer, growing with every grant of that name"
    rule(
        lease.token <= state.token,
        "a lease has a token above the highest one granted",
    )?;
    // "one place in the queue, then one lease"
    let waits = state
        .queue_ref()
        .and_then(|q| q.with_ticket(lease.row.ticket));
    rule(waits.is_none(), "the holder also waits")?;
    match lease.since {
        // Without an open answer nothing would ever start this lease, or end it.
        None => {
            rule(
                !lease.unconfirmed.is_empty(),
                "a lease waits for the delivery of answers, and there are none",
            )?;
            rule(lease.expires.is_none(), "a lease ends that has not begun")
        }
        // "a lease never ends early": not by a restart either, which runs the stored TTL anew. `since` may be
        // later than now: after a restart it is the time from which leases run again.
        Some(since) => {
            let from = now.mono.max(since);
            let anew = state.expiry(terms, lease.stored_ttl, from, from);
            rule(
                later(anew, lease.expires) == anew,
                "a restart would end the lease early",
            )
        }
    }
}

/// Checks that the stored rows contain all that a restart needs.
pub fn check_rows(state: &LockState, rows: &LockRows) -> Result<(), Broken> {
    rule(
        rows.head == state.head(),
        "the stored head row is out of date",
    )?;
    let holding: BTreeMap<Ticket, HolderRow> = rows
        .holding
        .iter()
        .map(|row| (row.ticket.ticket, row.clone()))
        .collect();
    let beside = state.leases.iter().skip(1);
    let expected = beside.map(|lease| (lease.row.ticket, lease.holder_row()));
    rule(
        holding == expected.collect(),
        "the stored leases are out of date",
    )?;
    let stored: BTreeMap<Ticket, &TicketRow> =
        rows.waiting.iter().map(|row| (row.ticket, row)).collect();
    let mut expected = BTreeMap::new();
    for (_, waiter) in state.queue_ref().into_iter().flat_map(Queue::iter) {
        // "a ticket is durable once told"
        let unsent = waiter.delivery == TicketDelivery::NotSent;
        rule(waiter.stored || unsent, "a told ticket is not stored")?;
        rule(
            !(waiter.stored && waiter.ticketless_write),
            "the place of a ticketless write is stored",
        )?;
        if waiter.stored {
            expected.insert(waiter.row.ticket, &waiter.row);
        }
    }
    rule(stored == expected, "the stored queue is out of date")?;
    let remembered = |ticket| rows.ended.iter().any(|row| row.ticket == ticket);
    rule(
        state.ended.tickets().all(remembered),
        "an ended ticket is not stored",
    )
}

/// What [`check_step`] needs of the state before a command: not the queue, which may be long.
pub fn before_step(state: &LockState) -> LockState {
    LockState {
        leases: state.leases.clone(),
        reserved: state.reserved,
        delay_until: state.delay_until,
        ..LockState::new(state.options, state.token)
    }
}

/// Checks the rules about one step: `command` made the state `after` of the state `before`.
pub fn check_step(
    before: &LockState,
    command: &Command,
    after: &LockState,
    now: Now,
    outcome: &Outcome,
) -> Result<(), Broken> {
    check_leases(before, command, after, now.mono, outcome)?;
    check_order(before, command, after, outcome)?;
    check_writes(before, command, after, outcome)?;
    if deleted(outcome) {
        return Ok(());
    }
    check_stored(before, after, outcome)
}

/// Whether the command presents the ticket of this row.
fn presents(command: &Command, row: &TicketRow) -> bool {
    command.presented() == PresentedTicket::Ticket(row.ticket)
}

/// The live leases while the events of one step are replayed: token and mode.
type LiveLeases = BTreeMap<FencingToken, Mode>;

fn live_leases(state: &LockState) -> LiveLeases {
    let leases = state.leases.iter();
    leases.map(|lease| (lease.token, lease.row.mode)).collect()
}

/// "leases that stand together are all shared, or at most `slots` exclusive ones; a lease never ends
/// early", and "fencing tokens strictly grow".
fn check_leases(
    before: &LockState,
    command: &Command,
    after: &LockState,
    now: Millis,
    outcome: &Outcome,
) -> Result<(), Broken> {
    let mut live = live_leases(before);
    let mut highest = before.token;
    let delayed = before.delay_until.is_some_and(|until| now < until);
    for event in &outcome.events {
        match event {
            Event::Granted(view) => {
                rule(!delayed, "a lease began during the lock-delay")?;
                check_granted(before, &live, view)?;
                rule(view.token > highest, "a fencing token did not grow")?;
                highest = view.token;
                live.insert(view.token, view.mode);
            }
            Event::Promoted { from, holder } => {
                rule(!delayed, "a lease was promoted during the lock-delay")?;
                rule(
                    live.remove(from) == Some(Mode::Shared) && live.is_empty(),
                    "a lease was promoted while others held",
                )?;
                rule(holder.token > highest, "a fencing token did not grow")?;
                highest = holder.token;
                live.insert(holder.token, holder.mode);
            }
            Event::Demoted(holder) => {
                let was = live.insert(holder.token, holder.mode);
                rule(
                    was == Some(Mode::Exclusive),
                    "a lease was demoted that was not exclusive",
                )?;
            }
            Event::Ended { reason, holder, .. } => {
                let was = live.remove(&holder.token);
                rule(was.is_some(), "a lease ended that did not exist")?;
                rule(
                    may_end(before, command, *reason, holder.token, now),
                    "a lease ended early",
                )?;
            }
            Event::TakenBack(token) => check_taken_back(command, &mut live, *token)?,
            Event::Queued { .. } => {}
            Event::PlaceEnded { reason, .. } => rule(
                *reason != EndReason::ForcedOff || matches!(command, Command::RemoveWaiter { .. }),
                "a waiter was removed by another command than RemoveWaiter",
            )?,
        }
    }
    if deleted(outcome) {
        live.clear();
    }
    rule(
        live == live_leases(after),
        "the holders changed without an event",
    )?;
    rule(
        highest == after.token,
        "the highest token changed without a grant",
    )?;
    check_extended(before, command, after)
}

fn check_taken_back(
    command: &Command,
    live: &mut LiveLeases,
    token: FencingToken,
) -> Result<(), Broken> {
    let was = live.remove(&token);
    rule(was.is_some(), "a grant was taken back that did not exist")?;
    rule(
        matches!(command, Command::Vanished { .. }),
        "a grant was taken back by another command than Vanished",
    )
}

fn check_granted(before: &LockState, live: &LiveLeases, view: &HolderView) -> Result<(), Broken> {
    rule(
        live.values().all(|mode| *mode == view.mode),
        "a lease began beside one of another mode",
    )?;
    rule(
        view.mode == Mode::Shared || live.len() < usize::from(before.options.slots.max(1)),
        "more leases live at once than there are slots",
    )
}

fn may_end(
    before: &LockState,
    command: &Command,
    reason: EndReason,
    token: FencingToken,
    now: Millis,
) -> bool {
    match (reason, before.leases.get(token)) {
        (EndReason::Expired, Some(lease)) => lease.expires.is_some_and(|last| last < now),
        (EndReason::Released, Some(lease)) => {
            matches!(command, Command::Unlock { .. }) && presents(command, &lease.row)
        }
        (EndReason::ForcedOff, _) => matches!(command, Command::ForceUnlock { .. }),
        // "a timer of an earlier lease never ends a later one"
        (EndReason::Expired | EndReason::Released, None) => false,
    }
}

/// "expiry becomes the later of what it was and now + ttl", unless the holder asks for an exact TTL.
fn check_extended(before: &LockState, command: &Command, after: &LockState) -> Result<(), Broken> {
    for lease in after.leases.iter() {
        let Some(old) = before.leases.get(lease.token) else {
            continue;
        };
        let is_exact = matches!(command, Command::Renew { exact: true, .. });
        let may_shorten = is_exact && presents(command, &old.row);
        let extends = match (old.since, lease.since) {
            (Some(_), Some(_)) => later(old.expires, lease.expires) == lease.expires,
            (Some(_), None) => false,
            (None, _) => true,
        };
        rule(may_shorten || extends, "a renewal made a lease end earlier")?;
    }
    Ok(())
}

/// Whether the command presents this waiter's ticket or idempotency key.
fn asks(command: &Command, waiter: &Waiter) -> bool {
    let asked = match command {
        Command::Acquire(LockRequest { options, .. }) => options.key.as_ref(),
        _ => None,
    };
    let made = waiter.row.key.as_ref().map(|row| &row.key);
    presents(command, &waiter.row) || (made.is_some() && made == asked)
}

/// "grants follow queue order among near tickets"
fn check_order(
    before: &LockState,
    command: &Command,
    after: &LockState,
    outcome: &Outcome,
) -> Result<(), Broken> {
    for event in &outcome.events {
        let Event::Granted(view) = event else {
            continue;
        };
        let Some(lease) = after.leases.get(view.token) else {
            continue;
        };
        // The ticket that asks in this step does not count: due events are carried out before the command,
        // so the grant may have been made before that ticket became near.
        let overtaken = after.queue_ref().is_some_and(|queue| {
            let mut ahead = queue.near_before(lease.row.seq);
            ahead.any(|waiter| !asks(command, waiter))
        });
        rule(
            !overtaken || before.reserved == Some(lease.row.seq),
            "a grant overtook a near ticket",
        )?;
    }
    Ok(())
}

/// "data changes only by a holder that may write, or while nobody holds"
fn check_writes(
    before: &LockState,
    command: &Command,
    after: &LockState,
    outcome: &Outcome,
) -> Result<(), Broken> {
    for (_, answer) in &outcome.answers {
        let Answer::Writable { token } = answer else {
            continue;
        };
        match token.map(|token| (token, before.leases.get(token))) {
            Some((_, Some(lease))) => {
                let writes = matches!(command, Command::Write { .. });
                rule(
                    writes && presents(command, &lease.row),
                    "a write was allowed to a caller that does not hold the lock",
                )?;
                rule(
                    lease.row.mode == Mode::Exclusive,
                    "a write was allowed to a holder that shares",
                )?;
            }
            Some((token, None)) => rule(
                token > before.token,
                "a write was allowed with a stale token",
            )?,
            None => {
                let mut still = after.leases.iter();
                rule(
                    !still.any(|lease| before.leases.get(lease.token).is_some()),
                    "a write without a ticket was allowed while the lock was held",
                )?;
            }
        }
    }
    Ok(())
}

/// "a change is answered only after it is committed": the changed rows contain the new holders.
fn check_stored(before: &LockState, after: &LockState, outcome: &Outcome) -> Result<(), Broken> {
    let changes = &outcome.changes;
    let in_head = |state: &LockState| state.leases.first().map(|lease| lease.token);
    match &changes.head {
        Some(head) => rule(*head == after.head(), "the stored head row is out of date")?,
        None => rule(
            in_head(before) == in_head(after)
                && before.token == after.token
                && before.delay_until.is_some() == after.delay_until.is_some(),
            "the head changed, and its row was not stored",
        )?,
    }
    for lease in after.leases.iter().skip(1) {
        let stored = changes.holding.get(&lease.row.ticket);
        rule(
            stored.is_some_and(Option::is_some) || before.leases.get(lease.token).is_some(),
            "a lease began, and its row was not stored",
        )?;
    }
    Ok(())
}

fn deleted(outcome: &Outcome) -> bool {
    let mut answers = outcome.answers.iter();
    answers.any(|(_, answer)| *answer == Answer::Deletable)
}
