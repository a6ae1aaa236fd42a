//! While a lease certainly holds, nobody holds who may not hold beside it, the lock is not free, and its
//! holder is not told that it lost it: no lease ends early, and no acknowledged grant is lost.

use std::collections::HashMap;

use super::{LeaseSeen, Rule, View, Violation, violation};
use crate::history::{Kind, Mode, Op, Outcome, Record};

pub fn check(view: &View) -> Vec<Violation> {
    let mut found: Vec<Violation> = too_many(view).into_iter().collect();
    for lease in &view.leases {
        if let Some(record) = within(view, lease).find(|r| is_other_holder(view, lease, r)) {
            found.push(broken(Rule::TwoHolders, lease, record));
        }
        if let Some(record) = within(view, lease).find(|r| is_turned_away(lease, r)) {
            found.push(broken(Rule::HolderTurnedAway, lease, record));
        }
        if !found.is_empty() {
            break;
        }
    }
    found
}

/// What was sent and answered while this lease certainly held.
fn within<'a>(view: &'a View, lease: &LeaseSeen) -> impl Iterator<Item = &'a Record> {
    let until = lease.certain_until;
    let records = view.sent_within(lease.first.done, until).iter().copied();
    records.filter(move |record| record.done < until)
}

/// Proof that somebody holds who may not while this lease does, or that nobody does.
fn is_other_holder(view: &View, lease: &LeaseSeen, record: &Record) -> bool {
    let other = record.token().is_some_and(|token| token != lease.token);
    record.saw_no_holder()
        || match view.kind {
            // Counted.
            Kind::Slots(_) => false,
            Kind::Shared => other && (record.done < lease.exclusive_until || is_exclusive(record)),
            Kind::Plain | Kind::Delayed(_) | Kind::Ephemeral => other,
        }
}

fn is_exclusive(record: &Record) -> bool {
    match record.outcome {
        Outcome::Granted { mode, .. } => mode == Mode::Exclusive,
        Outcome::Written { token } => token.is_some(),
        _ => false,
    }
}

/// One who holds although all slots were certainly taken by others.
fn too_many(view: &View) -> Option<Violation> {
    let Kind::Slots(slots) = view.kind else {
        return None;
    };
    let mut others: HashMap<*const Record, Vec<&LeaseSeen>> = HashMap::new();
    for lease in &view.leases {
        let holds_too = |r: &&Record| r.token().is_some_and(|token| token != lease.token);
        for record in within(view, lease).filter(holds_too) {
            others.entry(record).or_default().push(lease);
        }
    }
    let mut records = view.records.iter();
    let (record, others) = records.find_map(|record| {
        let others = others.get(&std::ptr::from_ref(*record))?;
        (others.len() >= slots).then_some((*record, others))
    })?;
    let told = format!("token {:?} beside {slots} others", record.token());
    let mut piece: Vec<&Record> = others.iter().take(3).map(|lease| lease.first).collect();
    piece.push(record);
    Some(violation(Rule::TwoHolders, told, &piece))
}

fn is_turned_away(lease: &LeaseSeen, record: &Record) -> bool {
    if lease.ticket.is_none() || record.presented() != lease.ticket {
        return false;
    }
    match &record.outcome {
        Outcome::Dead(_) | Outcome::Queued { .. } => true,
        // Others share, or the lock-delay runs.
        Outcome::Locked { .. } => !matches!(record.op, Op::Lock { mode: Some(_), .. }),
        Outcome::NotExclusive => record.done < lease.exclusive_until,
        // A renewal is refused so when its ticket waits; a name that is gone has no holder.
        Outcome::Refused(409 | 404) => true,
        Outcome::Granted { ticket, .. } => Some(*ticket) != lease.ticket,
        _ => false,
    }
}

fn broken(rule: Rule, lease: &LeaseSeen, record: &Record) -> Violation {
    let told = format!(
        "the lease of token {} was certain until {} ms",
        lease.token,
        lease.certain_until / 1000
    );
    let mut piece = vec![lease.first, record];
    piece.extend(lease.renewed_by);
    violation(rule, told, &piece)
}
