//! Strict arrival order among tickets that are surely near, places that are kept, and a lock that is
//! never free for longer than the bounds while someone surely waits.

use std::collections::HashMap;

use super::{LeaseSeen, Rule, View, Violation, violation};
use crate::history::{Kind, Micros, Op, Outage, Outcome, Reason, Record, SECOND, Terms, Ticket};

/// `TICKET_TTL_SECONDS`, which the runs leave as it is.
const TICKET_TTL: Micros = 60 * SECOND;
/// A resource remembers 64 ended tickets; only far below that its not knowing one proves something.
const ENDED_SURELY_KNOWN: usize = 30;

/// A place in the queue, as far as answers prove it.
struct Place<'a> {
    ticket: Ticket,
    /// The first and the last answer that told a place.
    told: &'a Record,
    last_told: &'a Record,
    /// Its ticket was certainly near from `told.done` until then.
    near_until: Micros,
    /// The first lease of this ticket.
    token: Option<u64>,
}

pub fn check(view: &View, terms: &Terms, outages: &[Outage]) -> Vec<Violation> {
    let mut places = places(view, terms);
    places.sort_by_key(|place| place.told.done);
    let found = [
        overtaken(view, &places),
        place_lost(view),
        waited_while_free(view, &places, terms, outages),
    ];
    found.into_iter().flatten().collect()
}

fn ticket_told(record: &Record) -> Option<Ticket> {
    match record.outcome {
        Outcome::Queued { ticket, .. } | Outcome::Granted { ticket, .. } => Some(ticket),
        _ => None,
    }
}

/// When each attempt, with all its retries, was first sent.
fn attempts(view: &View) -> HashMap<u64, Micros> {
    let mut first_sent = HashMap::new();
    for record in &view.records {
        if let Op::Lock { attempt, .. } = record.op {
            first_sent.entry(attempt).or_insert(record.sent);
        }
    }
    first_sent
}

fn places<'a>(view: &View<'a>, terms: &Terms) -> Vec<Place<'a>> {
    let mut by_ticket: HashMap<Ticket, Place> = HashMap::new();
    for record in &view.records {
        let (Op::Lock { wait, .. }, Outcome::Queued { ticket, .. }) = (&record.op, &record.outcome)
        else {
            continue;
        };
        let near_until = record.done.min(record.sent + wait) + terms.claim;
        let place = by_ticket.entry(*ticket).or_insert_with(|| Place {
            ticket: *ticket,
            told: record,
            last_told: record,
            near_until,
            token: None,
        });
        // The server had this request at the latest `wait` before it answered it.
        let came = record.done.saturating_sub(*wait);
        if came <= place.near_until {
            place.near_until = place.near_until.max(near_until);
            place.last_told = record;
        }
    }
    for lease in &view.leases {
        let place = lease.ticket.and_then(|ticket| by_ticket.get_mut(&ticket));
        if let Some(place) = place {
            place.token = place.token.or(Some(lease.token));
        }
    }
    by_ticket.into_values().collect()
}

// ---- order ----------------------------------------------------------------------------------------------

/// Between which moments a lease was granted, and when its ticket joined the queue at the earliest.
struct GrantSpan<'a> {
    lease: &'a LeaseSeen<'a>,
    ticket: Ticket,
    joined_after: Micros,
    from: Micros,
    until: Micros,
}

fn grant_spans<'a>(view: &'a View<'a>) -> Vec<GrantSpan<'a>> {
    let first_sent = attempts(view);
    let mut joined: HashMap<Ticket, Micros> = HashMap::new();
    let mut waited: HashMap<Ticket, Micros> = HashMap::new();
    for record in &view.records {
        let (Op::Lock { attempt, .. }, Some(ticket)) = (&record.op, ticket_told(record)) else {
            continue;
        };
        let sent = first_sent.get(attempt).copied().unwrap_or(record.sent);
        joined
            .entry(ticket)
            .and_modify(|j| *j = sent.min(*j))
            .or_insert(sent);
        if matches!(record.outcome, Outcome::Queued { .. }) {
            waited.insert(ticket, record.sent);
        }
    }
    let mut firsts: HashMap<Ticket, u64> = HashMap::new();
    for lease in view.leases.iter().filter(|_| view.kind == Kind::Shared) {
        lease
            .ticket
            .map(|ticket| firsts.entry(ticket).or_insert(lease.token));
    }
    let mut until = Micros::MAX;
    let mut spans = Vec::new();
    for lease in view.leases.iter().rev() {
        until = until.min(lease.first.done);
        let Some((ticket, joined_after)) = lease.ticket.and_then(|t| Some((t, *joined.get(&t)?)))
        else {
            continue;
        };
        // A promotion passes whoever waits.
        if firsts
            .get(&ticket)
            .is_some_and(|first| *first != lease.token)
        {
            continue;
        }
        let waited = waited.get(&ticket).copied().unwrap_or(joined_after);
        let from = lease.granted_after.max(waited);
        spans.push(GrantSpan {
            lease,
            ticket,
            joined_after,
            from,
            until,
        });
    }
    spans
}

/// A grant to one who came later, while one who came earlier was near and waited on.
fn overtaken(view: &View, places: &[Place]) -> Option<Violation> {
    let longest = places
        .iter()
        .map(|p| p.near_until.saturating_sub(p.told.done))
        .max()?;
    for span in grant_spans(view) {
        let first = places.partition_point(|p| p.told.done < span.from.saturating_sub(longest));
        let candidates = places[first..]
            .iter()
            .take_while(|p| p.told.done < span.from);
        for earlier in candidates {
            let came_earlier =
                earlier.ticket != span.ticket && earlier.told.done < span.joined_after;
            let was_near = earlier.near_until > span.until;
            if came_earlier && was_near && still_waited(earlier, &span) {
                let told = format!(
                    "{:?} came before {:?} and was near",
                    earlier.ticket, span.ticket
                );
                let piece = [earlier.told, earlier.last_told, span.lease.first];
                return Some(violation(Rule::QueueOrder, told, &piece));
            }
        }
    }
    None
}

/// Did this ticket wait at the moment of the grant, wherever in its span that was?
fn still_waited(place: &Place, span: &GrantSpan) -> bool {
    match place.token {
        Some(token) => token > span.lease.token,
        None => place.last_told.sent > span.until,
    }
}

// ---- places ---------------------------------------------------------------------------------------------

/// A ticket that was told a place not long ago and is not known any more.
fn place_lost(view: &View) -> Option<Violation> {
    let mut last_told: HashMap<Ticket, &Record> = HashMap::new();
    for record in &view.records {
        if let Some(told) = record.presented().and_then(|ticket| last_told.get(&ticket))
            && is_forgotten(record)
            && told.done < record.sent
            && record.done < told.sent + TICKET_TTL
            && ended_between(view, told.sent, record.done) < ENDED_SURELY_KNOWN
            && (view.kind != Kind::Ephemeral || surely_waited(view, told, record))
        {
            let text = "a ticket that was told is not known any more";
            return Some(violation(Rule::PlaceLost, text, &[told, record]));
        }
        if let Some(ticket) = ticket_told(record) {
            last_told.insert(ticket, record);
        }
    }
    None
}

/// Of an ephemeral name that is gone nothing is remembered but lost leases, and those only until a restart:
/// that a ticket had been told proves something as long as nothing but waiting can have become of it.
fn surely_waited(view: &View, told: &Record, record: &Record) -> bool {
    let (Outcome::Queued { ticket, .. }, Op::Lock { attempt: of, .. }) = (&told.outcome, &told.op)
    else {
        return false;
    };
    let mut between = view.records.iter().filter(|other| {
        let same = matches!(other.op, Op::Lock { attempt, .. } if attempt == *of);
        (same || other.presented() == Some(*ticket)) && other.sent < record.done
    });
    between.all(|other| {
        std::ptr::eq(*other, record) || (other.done <= told.done && !other.outcome.is_unknown())
    })
}

fn is_forgotten(record: &Record) -> bool {
    match record.outcome {
        Outcome::Dead(reason) => reason == Reason::Unknown,
        Outcome::Granted { ticket, ended, .. } | Outcome::Queued { ticket, ended, .. } => {
            record.presented() != Some(ticket) && ended.is_none()
        }
        _ => false,
    }
}

/// How many tickets may have ended in that time.
fn ended_between(view: &View, from: Micros, until: Micros) -> usize {
    let records = view.sent_within(from.saturating_sub(10 * SECOND), until);
    let ends = |record: &&&Record| {
        matches!(
            record.op,
            Op::Unlock { .. } | Op::Force { .. } | Op::Lock { .. }
        ) || matches!(record.op, Op::Write { release: true, .. })
    };
    records.iter().filter(ends).count()
}

// ---- nobody waits for a free lock -----------------------------------------------------------------------

fn waited_while_free(
    view: &View,
    places: &[Place],
    terms: &Terms,
    outages: &[Outage],
) -> Option<Violation> {
    let lasts = Lasts::of(view);
    let mut others_until = 0;
    for (index, lease) in view.leases.iter().enumerate() {
        let end = lasts.end_of(lease, terms, outages);
        if view.kind.has_several() {
            let end = end.map_or(
                lease.first.done + terms.ttl_max + terms.slack,
                |(end, _)| end,
            );
            others_until = others_until.max(end);
        }
        let Some((free_from, by)) = end else {
            continue;
        };
        let free_from = free_from.max(others_until);
        let next = view.leases.get(index + 1);
        let next_at = next.map_or(Micros::MAX, |next| next.first.done);
        // Leases that nobody was told of, between this one and the next.
        let unseen = match next {
            Some(next) => next.token - lease.token - 1,
            None => unknown_grants(view),
        };
        let delay = view.kind.delay();
        let bound =
            terms.claim + terms.slack + delay + unseen * (terms.ttl_max + terms.claim + delay);
        let waiting = places.iter().filter(|p| p.told.done < free_from);
        for place in waiting.filter(|p| p.token.is_none_or(|token| token > lease.token)) {
            let until = next_at.min(place.last_told.done);
            let free = until.saturating_sub(free_from);
            if free > bound && free - bound > outage_time(outages, free_from, until, terms) {
                let told = format!(
                    "{:?} waited for {} ms while the lock was free",
                    place.ticket,
                    free / 1000
                );
                let mut piece = vec![by, place.told, place.last_told];
                piece.extend(next.map(|next| next.first));
                return Some(violation(Rule::WaitedWhileFree, told, &piece));
            }
        }
    }
    None
}

fn unknown_grants(view: &View) -> u64 {
    let lost = |r: &&&Record| matches!(r.op, Op::Lock { .. }) && r.outcome.is_unknown();
    view.records.iter().filter(lost).count() as u64
}

/// Outages in that time; what comes after one is given some time to settle, and leases run anew.
fn outage_time(outages: &[Outage], from: Micros, until: Micros, terms: &Terms) -> Micros {
    let within = outages.iter().filter(|o| o.from < until && o.until > from);
    let lasted = |o: &Outage| o.until - o.from + terms.slack + terms.ttl_max + terms.claim;
    within.map(lasted).sum()
}

/// The last things that holders did, to tell when their leases were over at the latest.
struct Lasts<'a> {
    released: HashMap<Ticket, &'a Record>,
    presented: HashMap<Ticket, (Micros, Micros, &'a Record)>,
}

impl<'a> Lasts<'a> {
    fn of(view: &View<'a>) -> Lasts<'a> {
        let mut lasts = Lasts {
            released: HashMap::new(),
            presented: HashMap::new(),
        };
        for record in &view.records {
            let ticket = ticket_told(record).or(record.presented());
            let Some(ticket) = ticket else {
                continue;
            };
            if is_release(record) {
                lasts.released.entry(ticket).or_insert(record);
            }
            let ttl = match record.op {
                Op::Lock { ttl, .. } | Op::Renew { ttl, .. } => ttl,
                _ => 0,
            };
            let last = lasts.presented.entry(ticket).or_insert((0, 0, record));
            if last.0 <= record.done {
                *last = (record.done, last.1, record);
            }
            last.1 = last.1.max(ttl);
        }
        lasts
    }

    /// When this lease was certainly over, and by what. `None`: not known.
    fn end_of(
        &self,
        lease: &LeaseSeen,
        terms: &Terms,
        outages: &[Outage],
    ) -> Option<(Micros, &'a Record)> {
        let ticket = lease.ticket?;
        if let Some(released) = self.released.get(&ticket) {
            return Some((released.done.max(lease.first.done), released));
        }
        let (touched, ttl, record) = *self.presented.get(&ticket)?;
        let mut end = touched.max(lease.first.done) + ttl + terms.slack;
        for outage in outages {
            if outage.from < end {
                end = end.max(outage.until + ttl + terms.slack);
            }
        }
        Some((end, record))
    }
}

fn is_release(record: &Record) -> bool {
    match record.op {
        Op::Unlock { .. } => record.outcome == Outcome::Unlocked,
        Op::Write { release, .. } => release && matches!(record.outcome, Outcome::Written { .. }),
        _ => false,
    }
}
