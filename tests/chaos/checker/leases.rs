//! While a lease certainly holds, no other one does, the lock is not free, and its holder is not told that
//! it lost it: no lease ends early, and no acknowledged grant is lost.

use super::{LeaseSeen, Rule, View, Violation, violation};
use crate::history::{Outcome, Record};

pub fn check(view: &View) -> Vec<Violation> {
    let mut found = Vec::new();
    for lease in &view.leases {
        let within = view.sent_within(lease.first.done, lease.certain_until);
        let within = || within.iter().filter(|r| r.done < lease.certain_until);
        if let Some(record) = within().find(|r| is_other_holder(lease, r)) {
            found.push(broken(Rule::TwoHolders, lease, record));
        }
        if let Some(record) = within().find(|r| is_turned_away(lease, r)) {
            found.push(broken(Rule::HolderTurnedAway, lease, record));
        }
        if !found.is_empty() {
            break;
        }
    }
    found
}

fn is_other_holder(lease: &LeaseSeen, record: &Record) -> bool {
    record.saw_no_holder() || record.token().is_some_and(|token| token != lease.token)
}

fn is_turned_away(lease: &LeaseSeen, record: &Record) -> bool {
    if lease.ticket.is_none() || record.presented() != lease.ticket {
        return false;
    }
    match &record.outcome {
        Outcome::Dead(_) | Outcome::Queued { .. } | Outcome::Locked { .. } => true,
        // A renewal is refused so when its ticket waits.
        Outcome::Refused(409) => true,
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
