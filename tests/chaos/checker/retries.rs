//! A retry with the same Idempotency-Key is answered with the same ticket for as long as that lives.

use std::collections::HashMap;

use super::{Rule, View, Violation, holder_of, violation};
use crate::history::{Op, Outcome, Record, Ticket};

pub fn check(view: &View) -> Option<Violation> {
    let last_alive = last_alive(view);
    let mut told: HashMap<u64, (Ticket, &Record)> = HashMap::new();
    for record in &view.records {
        let Op::Lock {
            attempt,
            keyed: true,
            presented: None,
            ..
        } = record.op
        else {
            continue;
        };
        let Some(ticket) = ticket_told(record) else {
            continue;
        };
        if let Some((first, before)) = told.get(&attempt)
            && *first != ticket
            && let Some(proof) = last_alive.get(first)
            && proof.sent > record.done
        {
            let text = format!("{first:?} was alive, and its key made {ticket:?}");
            return Some(violation(
                Rule::KeyForgotten,
                text,
                &[before, record, proof],
            ));
        }
        told.entry(attempt).or_insert((ticket, record));
    }
    None
}

fn ticket_told(record: &Record) -> Option<Ticket> {
    match record.outcome {
        Outcome::Queued { ticket, .. } | Outcome::Granted { ticket, .. } => Some(ticket),
        _ => None,
    }
}

/// The last request of each ticket that proves it alive.
fn last_alive<'a>(view: &View<'a>) -> HashMap<Ticket, &'a Record> {
    let mut alive = HashMap::new();
    for record in &view.records {
        if let Some(ticket) = ticket_told(record).or(holder_of(record)) {
            alive.insert(ticket, *record);
        }
    }
    alive
}
