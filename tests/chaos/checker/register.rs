//! The document of a resource is one register: each read returns the last value that was written, each
//! acknowledged write is there until the next one, a refused one never was, and writes under a fencing
//! token come before those under a higher one.
//!
//! Every value is written by one request, so the test of Gibbons and Korach decides it: a value together
//! with its reads takes up a zone, from the first answer that proves it to the last request that asked
//! for it; the zones of two values must not overlap where each is certain.

use std::collections::HashMap;

use super::{Rule, View, Violation, violation};
use crate::history::{Kind, Micros, Op, Outcome, Record};

/// A value and everything that proves when it was there.
struct Zone<'a> {
    write: &'a Record,
    /// The write took effect not before this, and this is the latest start of a request that met it.
    last_start: Micros,
    last: &'a Record,
    /// The earliest moment by which the value was certainly there.
    first_finish: Micros,
    /// By then a lease with a higher token than the write's had been granted.
    superseded: Micros,
    /// The write was acknowledged, or someone read it.
    happened: bool,
}

impl Zone<'_> {
    /// The value was certainly there from the first to the last of these.
    fn is_forward(&self) -> bool {
        self.first_finish < self.last_start
    }

    fn low(&self) -> Micros {
        self.first_finish.min(self.last_start)
    }

    fn high(&self) -> Micros {
        self.first_finish.max(self.last_start)
    }
}

pub fn check(view: &View) -> Vec<Violation> {
    let lost = view
        .records
        .iter()
        .find(|r| r.outcome == Outcome::Refused(404))
        .filter(|_| view.kind != Kind::Ephemeral);
    if let Some(record) = lost {
        let told = "the resource was gone";
        return vec![violation(Rule::ResourceLost, told, &[record])];
    }
    let mut zones = writes(view);
    if let Some(found) = read_all(view, &mut zones) {
        return vec![found];
    }
    let mut zones: Vec<Zone> = zones.into_values().filter(|zone| zone.happened).collect();
    zones.sort_by_key(Zone::low);
    let stale = zones.iter().find(|zone| zone.superseded < zone.write.sent);
    let stale = stale.map(|zone| {
        let told =
            "a write was accepted although a later lease had been granted before it was sent";
        violation(Rule::StaleWrite, told, &[zone.write, zone.last])
    });
    stale.or_else(|| overlap(&zones)).into_iter().collect()
}

fn writes<'a>(view: &View<'a>) -> HashMap<u64, Zone<'a>> {
    let bounds = Bounds::of(view);
    let mut zones = HashMap::new();
    for record in &view.records {
        let Op::Write {
            value, presented, ..
        } = record.op
        else {
            continue;
        };
        let (acknowledged, token) = match record.outcome {
            Outcome::Written { token } => (true, token),
            _ => (false, None),
        };
        // A lost write of a holder can only have happened under its own lease, unless it had several.
        let of_ticket = || {
            view.leases
                .iter()
                .filter(|_| view.kind != Kind::Shared)
                .rfind(|l| l.ticket.is_some() && l.ticket == presented)
        };
        let token = token.or_else(|| of_ticket().map(|lease| lease.token));
        // The holders of several slots write in no order.
        let token = token.filter(|_| !matches!(view.kind, Kind::Slots(_)));
        let answered = if acknowledged {
            record.done
        } else {
            Micros::MAX
        };
        let (after, before) = token.map_or((0, Micros::MAX), |token| bounds.around(token));
        let zone = Zone {
            write: record,
            last_start: record.sent.max(after),
            last: record,
            first_finish: answered.min(before),
            superseded: before,
            happened: acknowledged,
        };
        zones.insert(value, zone);
    }
    zones
}

/// Between which moments what happened under a token must have happened.
struct Bounds {
    /// Token, and the latest start of a request that met it or a lower one.
    lower: Vec<(u64, Micros)>,
    /// Token, and the earliest end of a request that met it or a higher one.
    higher: Vec<(u64, Micros)>,
}

impl Bounds {
    fn of(view: &View) -> Bounds {
        let mut spans: Vec<(u64, Micros, Micros)> = view
            .records
            .iter()
            .filter_map(|r| Some((r.token()?, r.sent, r.done)))
            .collect();
        spans.sort_unstable();
        let mut latest = 0;
        let lower = spans.iter().map(|(token, sent, _)| {
            latest = latest.max(*sent);
            (*token, latest)
        });
        let lower = lower.collect();
        let mut earliest = Micros::MAX;
        let higher = spans.iter().rev().map(|(token, _, done)| {
            earliest = earliest.min(*done);
            (*token, earliest)
        });
        let mut higher: Vec<_> = higher.collect();
        higher.reverse();
        Bounds { lower, higher }
    }

    fn around(&self, token: u64) -> (Micros, Micros) {
        let below = self.lower.partition_point(|(t, _)| *t < token);
        let above = self.higher.partition_point(|(t, _)| *t <= token);
        let after = below.checked_sub(1).map_or(0, |index| self.lower[index].1);
        let before = self.higher.get(above).map_or(Micros::MAX, |(_, end)| *end);
        (after, before)
    }
}

/// Adds what reads prove to the zones of the values that they returned.
fn read_all<'a>(view: &View<'a>, zones: &mut HashMap<u64, Zone<'a>>) -> Option<Violation> {
    for record in &view.records {
        let Outcome::Value(value) = record.outcome else {
            continue;
        };
        let Some(zone) = value.and_then(|value| zones.get_mut(&value)) else {
            let first = zones
                .values()
                .find(|z| z.happened && z.write.done < record.sent);
            let (None, None) = (value, first.map(|zone| zone.write)) else {
                let told = "this was never written, or what was written is gone";
                return Some(violation(Rule::ValueFromNowhere, told, &[record]));
            };
            continue;
        };
        let (write, outcome) = (zone.write, &zone.write.outcome);
        let is_written = matches!(outcome, Outcome::Written { .. }) || outcome.is_unknown();
        if !is_written {
            let told = "a write that was refused was read";
            return Some(violation(
                Rule::RefusedWriteHappened,
                told,
                &[write, record],
            ));
        }
        if record.done < write.sent {
            let told = "a value was read before it was written";
            return Some(violation(Rule::ValueFromNowhere, told, &[write, record]));
        }
        zone.happened = true;
        zone.first_finish = zone.first_finish.min(record.done);
        if zone.last_start < record.sent {
            zone.last_start = record.sent;
            zone.last = record;
        }
    }
    None
}

/// Two values that were both certainly there at one time, or one that came and went while another one was
/// certainly there. `zones` are ordered by their low ends.
fn overlap(zones: &[Zone]) -> Option<Violation> {
    let mut widest: Option<&Zone> = None;
    for zone in zones {
        if let Some(earlier) = widest {
            let overlaps = zone.is_forward() && zone.low() < earlier.high();
            if overlaps || zone.high() < earlier.high() {
                return Some(not_one_register(earlier, zone));
            }
        }
        if zone.is_forward() && widest.is_none_or(|w| w.high() < zone.high()) {
            widest = Some(zone);
        }
    }
    None
}

fn not_one_register(a: &Zone, b: &Zone) -> Violation {
    let told =
        "no order of these fits: a stale value was read, a write was lost, or it came too late";
    let piece = [a.write, a.last, b.write, b.last];
    violation(Rule::NotOneRegister, told, &piece)
}
