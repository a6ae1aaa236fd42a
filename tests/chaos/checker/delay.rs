//! Nobody is granted for the lock-delay after a lease that expired or was forced off.

use super::{LeaseSeen, Rule, View, Violation, violation};
use crate::history::{Op, Outcome, Record};

pub fn check(view: &View) -> Option<Violation> {
    let delay = view.kind.delay();
    if delay == 0 {
        return None;
    }
    let pairs = view.leases.iter().zip(view.leases.iter().skip(1));
    // A lease between the two that nobody was told of may have been released.
    let mut pairs = pairs.filter(|(lease, next)| {
        next.token == lease.token + 1 && lease.certain_until > 0 && !may_be_released(view, lease)
    });
    let (lease, next) =
        pairs.find(|(lease, next)| next.first.done < lease.certain_until + delay)?;
    let told = format!(
        "the lease of token {} held until {} ms, was not released, and the next one began within the lock-delay",
        lease.token,
        lease.certain_until / 1000
    );
    let mut piece = vec![lease.first, next.first];
    piece.extend(lease.renewed_by);
    Some(violation(Rule::DelaySkipped, told, &piece))
}

fn may_be_released(view: &View, lease: &LeaseSeen) -> bool {
    let releases = |record: &&&Record| {
        let asked = matches!(
            record.op,
            Op::Unlock { .. } | Op::Write { release: true, .. }
        );
        asked && record.outcome != Outcome::NotSent && record.presented() == lease.ticket
    };
    lease.ticket.is_none() || view.records.iter().any(|record| releases(&record))
}
