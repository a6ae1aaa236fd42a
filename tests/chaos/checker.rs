//! Proves that a history is one that a correct lock server can have. One file per rule:
//!
//! - `tokens`: fencing tokens grow, none is given to two tickets, none stale is accepted;
//! - `retries`: a retry with the same Idempotency-Key finds the same ticket;
//! - `leases`: while a lease certainly holds, nobody holds who may not hold beside it, and its holder is not
//!   turned away;
//! - `delay`: after a lease that was not released nobody is granted for the lock-delay;
//! - `register`: reads and writes are those of one register, with the fencing tokens as its order;
//! - `queue`: grants follow the order of the queue, places are kept, and nobody waits for a free lock.
//!
//! Every rule uses only what an answer proves: something happened between the moment its request was sent
//! and the moment the answer was there. Requests without an answer may have happened at any time since.

use std::collections::HashMap;
use std::fmt;

use crate::history::{History, Kind, Micros, Mode, Op, Outcome, Record, Terms, Ticket};

#[path = "checker/delay.rs"]
mod delay;
#[path = "checker/leases.rs"]
mod leases;
#[path = "checker/queue.rs"]
mod queue;
#[path = "checker/register.rs"]
mod register;
#[path = "checker/retries.rs"]
mod retries;
#[path = "checker/tokens.rs"]
mod tokens;

/// A rule that was broken, and the records that show it.
#[derive(Clone, Debug)]
pub struct Violation {
    pub rule: Rule,
    pub told: String,
    pub piece: Vec<Record>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    TokenOfTwoTickets,
    TokenWentBack,
    /// More than may hold beside each other.
    TwoHolders,
    HolderTurnedAway,
    DelaySkipped,
    KeyForgotten,
    ValueFromNowhere,
    RefusedWriteHappened,
    StaleWrite,
    ResourceLost,
    NotOneRegister,
    QueueOrder,
    PlaceLost,
    WaitedWhileFree,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}: {}", self.rule, self.told)?;
        self.piece
            .iter()
            .try_for_each(|record| writeln!(f, "    {record}"))
    }
}

fn violation(rule: Rule, told: impl Into<String>, piece: &[&Record]) -> Violation {
    let mut piece: Vec<Record> = piece.iter().map(|record| (*record).clone()).collect();
    piece.sort_by_key(|record| record.sent);
    piece.dedup();
    let told = told.into();
    Violation { rule, told, piece }
}

/// Everything that is wrong with this history, at most one violation per rule and name.
pub fn check(history: &History, terms: &Terms) -> Vec<Violation> {
    let mut by_name: HashMap<usize, Vec<&Record>> = HashMap::new();
    for record in &history.records {
        by_name.entry(record.name).or_default().push(record);
    }
    let mut violations = Vec::new();
    for (name, mut records) in by_name {
        records.sort_by_key(|record| (record.sent, record.done));
        let kind = history.kinds.get(name).copied().unwrap_or_default();
        let view = View::new(kind, records, &history.deaths);
        violations.extend(tokens::check(&view));
        violations.extend(leases::check(&view));
        violations.extend(delay::check(&view));
        violations.extend(retries::check(&view));
        violations.extend(register::check(&view));
        violations.extend(queue::check(&view, terms, &history.outages));
    }
    violations
}

/// One lease, as far as answers prove it.
#[derive(Clone, Debug)]
pub struct LeaseSeen<'a> {
    pub token: u64,
    pub ticket: Option<Ticket>,
    /// The answer that was there first of those that name it.
    pub first: &'a Record,
    /// It cannot have been granted before this moment.
    pub granted_after: Micros,
    /// The last answer to its holder that renewed it, by when it was sent.
    pub renewed_by: Option<&'a Record>,
    /// It certainly held until then: until its holder's own count of the TTL was over, or until someone
    /// may have ended it.
    pub certain_until: Micros,
    /// Until then it certainly had the lock to itself, or a slot of it; 0 if it never did.
    pub exclusive_until: Micros,
}

/// The records of one name, in the order in which they were sent, with what follows from them.
pub struct View<'a> {
    pub kind: Kind,
    pub records: Vec<&'a Record>,
    /// By token.
    pub leases: Vec<LeaseSeen<'a>>,
}

impl<'a> View<'a> {
    fn new(kind: Kind, records: Vec<&'a Record>, deaths: &[Micros]) -> View<'a> {
        let leases = leases_of(kind, &records, deaths);
        View {
            kind,
            records,
            leases,
        }
    }

    /// Records sent after `from` and not after `until`.
    pub fn sent_within(&self, from: Micros, until: Micros) -> &[&'a Record] {
        let start = self.records.partition_point(|r| r.sent <= from);
        let end = self.records.partition_point(|r| r.sent <= until);
        &self.records[start.min(end)..end]
    }
}

/// The ticket that a record proves to have held, or been granted, its token.
pub fn holder_of(record: &Record) -> Option<Ticket> {
    match (&record.outcome, &record.op) {
        (Outcome::Granted { ticket, .. }, _) => Some(*ticket),
        (Outcome::Renewed { .. }, Op::Renew { presented, .. }) => Some(*presented),
        (Outcome::Written { token: Some(_) }, Op::Write { presented, .. }) => *presented,
        _ => None,
    }
}

fn leases_of<'a>(kind: Kind, records: &[&'a Record], deaths: &[Micros]) -> Vec<LeaseSeen<'a>> {
    let mut by_token: HashMap<u64, Vec<&'a Record>> = HashMap::new();
    for record in records {
        if let Some(token) = record.token() {
            by_token.entry(token).or_default().push(record);
        }
    }
    let mut tokens: Vec<u64> = by_token.keys().copied().collect();
    tokens.sort_unstable();
    let ends = Ends::of(kind, records);
    let mut earlier_sent = 0;
    let mut leases = Vec::with_capacity(tokens.len());
    for token in tokens {
        let seen = &by_token[&token];
        let Some(first) = seen.iter().min_by_key(|record| record.done) else {
            continue;
        };
        let ticket = seen.iter().find_map(|record| holder_of(record));
        let promises = seen
            .iter()
            .filter_map(|r| Some((promised(r, earlier_sent)?, *r)));
        let promise = promises.max_by_key(|(until, _)| *until);
        let may_have_ended = ends.first_of(ticket, token);
        let promised_until = promise.map_or(0, |(until, record)| {
            lengthened(until, ttl_of(&record.op), deaths)
        });
        let certain_until = promised_until.min(may_have_ended);
        leases.push(LeaseSeen {
            token,
            ticket,
            first,
            granted_after: earlier_sent,
            renewed_by: promise.map(|(_, record)| record),
            certain_until,
            exclusive_until: match kind {
                Kind::Shared => exclusive_until(records, seen, ticket).min(certain_until),
                _ => certain_until,
            },
        });
        // Where several hold, an earlier one may be seen long after.
        if !kind.has_several() {
            earlier_sent = seen.iter().map(|r| r.sent).fold(earlier_sent, Micros::max);
        }
    }
    leases
}

/// Until its holder first asked to share it. 0: it was never answered that the lock was its own.
fn exclusive_until(records: &[&Record], seen: &[&Record], ticket: Option<Ticket>) -> Micros {
    let own = |record: &&&Record| {
        matches!(
            record.outcome,
            Outcome::Granted {
                mode: Mode::Exclusive,
                ..
            }
        )
    };
    let Some(own) = seen.iter().filter(own).map(|record| record.sent).min() else {
        return 0;
    };
    let asks_to_share = |record: &&&Record| {
        let shares = matches!(
            record.op,
            Op::Lock {
                mode: Some(Mode::Shared),
                ..
            }
        );
        shares && record.sent > own && record.presented() == ticket
    };
    let shared = records.iter().filter(asks_to_share).map(|r| r.sent).min();
    shared.unwrap_or(Micros::MAX)
}

/// Until when the holder may count on its lease after this answer: from when it sent the request, or from
/// when an earlier lease still held, if that was later.
fn promised(record: &Record, earlier_sent: Micros) -> Option<Micros> {
    match (&record.op, &record.outcome) {
        (Op::Lock { ttl, .. }, Outcome::Granted { .. })
        | (Op::Renew { ttl, .. }, Outcome::Renewed { .. }) => {
            Some(record.sent.max(earlier_sent).saturating_add(*ttl))
        }
        _ => None,
    }
}

fn ttl_of(op: &Op) -> Micros {
    match op {
        Op::Lock { ttl, .. } | Op::Renew { ttl, .. } => *ttl,
        _ => 0,
    }
}

/// A lease that held when the server died gets its full TTL again.
fn lengthened(until: Micros, ttl: Micros, deaths: &[Micros]) -> Micros {
    let mut deaths = deaths.to_vec();
    deaths.sort_unstable();
    deaths.into_iter().fold(until, |until, death| {
        if death < until {
            until.max(death + ttl)
        } else {
            until
        }
    })
}

/// Requests that may have ended leases.
struct Ends {
    /// With the token of the lease that they made of the one they ended, if that is known.
    by_ticket: HashMap<Ticket, Vec<(Micros, Option<u64>)>>,
    by_token: HashMap<u64, Micros>,
    /// Of whichever lease held.
    any: Vec<(Micros, Outcome)>,
    /// Such a request ends more than the lease that its answer names.
    ends_all: bool,
}

impl Ends {
    fn of(kind: Kind, records: &[&Record]) -> Ends {
        let mut ends = Ends {
            by_ticket: HashMap::new(),
            by_token: HashMap::new(),
            any: Vec::new(),
            ends_all: kind.has_several(),
        };
        for record in records {
            if record.outcome == Outcome::NotSent {
                continue;
            }
            match record.op {
                Op::Unlock { presented }
                | Op::Write {
                    presented: Some(presented),
                    release: true,
                    ..
                } => ends.add(presented, record, None),
                Op::Lock {
                    presented: Some(presented),
                    mode: Some(Mode::Exclusive),
                    ..
                } if kind == Kind::Shared => ends.add(presented, record, record.token()),
                Op::Force { token: Some(token) } => {
                    let sent = ends.by_token.entry(token).or_insert(record.sent);
                    *sent = record.sent.min(*sent);
                }
                Op::Force { token: None } => {
                    ends.any.push((record.sent, record.outcome.clone()));
                }
                _ => {}
            }
        }
        ends
    }

    fn add(&mut self, ticket: Ticket, record: &Record, made: Option<u64>) {
        let ends = self.by_ticket.entry(ticket).or_default();
        ends.push((record.sent, made));
    }

    /// The first moment at which this lease may have been ended by a request.
    fn first_of(&self, ticket: Option<Ticket>, token: u64) -> Micros {
        let by_ticket = ticket.and_then(|ticket| self.by_ticket.get(&ticket));
        let by_ticket = by_ticket.into_iter().flatten();
        let by_ticket = by_ticket.filter(|(_, made)| *made != Some(token));
        let by_token = self.by_token.get(&token);
        let any = self.any.iter().filter(|(_, outcome)| match outcome {
            Outcome::Forced { token: None } => false,
            Outcome::Forced { token: forced } => self.ends_all || *forced == Some(token),
            outcome => outcome.is_unknown(),
        });
        let sent = by_ticket.map(|(sent, _)| *sent);
        let first = sent
            .chain(by_token.copied())
            .chain(any.map(|(sent, _)| *sent));
        first.min().unwrap_or(Micros::MAX)
    }
}
