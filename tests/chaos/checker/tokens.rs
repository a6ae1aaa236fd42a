//! Fencing tokens strictly grow with every grant, whatever happens to the server; each belongs to one
//! ticket; and what was accepted under a token came before everything under a higher one.

use std::collections::HashMap;

use super::{Rule, View, Violation, holder_of, violation};
use crate::history::{Op, Outcome, Record};

pub fn check(view: &View) -> Vec<Violation> {
    let found = [of_two_tickets(view), went_back(view)];
    found.into_iter().flatten().collect()
}

fn of_two_tickets(view: &View) -> Option<Violation> {
    let mut holders: HashMap<u64, &Record> = HashMap::new();
    for record in &view.records {
        let (Some(token), Some(ticket)) = (record.token(), holder_of(record)) else {
            continue;
        };
        let known = holders.entry(token).or_insert(record);
        if holder_of(known) != Some(ticket) {
            let told = format!("token {token} was given to two tickets");
            return Some(violation(Rule::TokenOfTwoTickets, told, &[known, record]));
        }
    }
    None
}

/// Whether this record proves that its token held when it was sent, or came after: where several hold, only
/// one that arrived without a ticket and was granted.
fn is_newest(view: &View, record: &Record) -> bool {
    let arrived = matches!(
        record.op,
        Op::Lock {
            keyed: false,
            presented: None,
            ..
        }
    );
    !view.kind.has_several() || (arrived && matches!(record.outcome, Outcome::Granted { .. }))
}

/// An answer that names a token, sent for after an answer with a higher one was there.
fn went_back(view: &View) -> Option<Violation> {
    let mut by_done: Vec<&Record> = view.records.clone();
    by_done.retain(|record| record.token().is_some());
    by_done.sort_by_key(|record| record.done);
    let mut finished = by_done.into_iter().peekable();
    let mut highest: Option<&Record> = None;
    for record in &view.records {
        let Some(token) = record.token() else {
            continue;
        };
        while let Some(earlier) = finished.next_if(|earlier| earlier.done < record.sent) {
            if highest.is_none_or(|h| h.token() < earlier.token()) {
                highest = Some(earlier);
            }
        }
        if let Some(higher) = highest.filter(|h| h.token() > Some(token))
            && is_newest(view, record)
        {
            let told = format!("token {token} was valid after {:?} was", higher.token());
            return Some(violation(Rule::TokenWentBack, told, &[higher, record]));
        }
    }
    None
}
