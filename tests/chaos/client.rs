//! A client: takes tickets, waits, holds, writes, retries, forgets and vanishes, and writes down what it
//! saw.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::history::{Kind, Micros, Mode, Op, Outcome, Reason, Record, SECOND, Ticket};
use crate::plan::Random;
use crate::support::{self, ADMIN, Answer, WRITE};
use crate::wire::{Cut, Failure, Wire};

/// The longest lease that a client asks for which may vanish.
pub const TTL_MAX_SECONDS: u64 = 2;
/// How long clients wait for an answer beyond what they asked for, in milliseconds: some give an instance
/// up while it is paused, and go to another one.
const PATIENCE: (u64, u64) = (300, 4000);

/// What all clients of a run share.
pub struct Stage {
    pub start: Instant,
    pub names: Vec<String>,
    /// What is behind them.
    pub kinds: Vec<Kind>,
    /// Where the instances listen.
    pub instances: RwLock<Vec<SocketAddr>>,
    /// Whose turn it is, as a balancer has it.
    turn: AtomicUsize,
    pub over: AtomicBool,
    next_number: AtomicU64,
}

impl Stage {
    pub fn new(names: Vec<String>, kinds: Vec<Kind>) -> Arc<Stage> {
        Arc::new(Stage {
            start: Instant::now(),
            names,
            kinds,
            instances: RwLock::default(),
            turn: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            next_number: AtomicU64::new(1),
        })
    }

    pub fn now(&self) -> Micros {
        self.start.elapsed().as_micros() as Micros
    }

    /// For values and attempts: no two are the same.
    pub fn number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Of the next instance in turn.
    fn address(&self) -> Option<SocketAddr> {
        let instances = self.instances.read().unwrap();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        instances.get(turn % instances.len().max(1)).copied()
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

pub struct Client {
    id: usize,
    stage: Arc<Stage>,
    random: Random,
    wire: Wire,
    /// Tickets of earlier lives, to be presented when they should be dead.
    old: Vec<(usize, Ticket)>,
    pub records: Vec<Record>,
}

/// A lease as its holder knows it.
#[derive(Clone, Copy)]
struct Held {
    name: usize,
    ticket: Ticket,
    attempt: u64,
    mode: Mode,
    ttl: Micros,
}

impl Client {
    pub fn new(id: usize, seed: u64, stage: Arc<Stage>) -> Client {
        Client {
            id,
            stage,
            random: Random::new(seed, (id as u64).wrapping_add(1)),
            wire: Wire::default(),
            old: Vec::new(),
            records: Vec::new(),
        }
    }

    /// Lives until the run is over; what it saw.
    pub fn live(mut self) -> Vec<Record> {
        while !self.stage.is_over() {
            let name = self.random.below(self.stage.names.len() as u64) as usize;
            match self.random.below(100) {
                0..72 => self.take_a_turn(name),
                72..80 => self.write_without_lock(name),
                80..88 => drop(self.call(name, Op::Read)),
                88..92 => drop(self.call(name, Op::Describe)),
                92..94 => self.force(name),
                _ => self.haunt(),
            }
        }
        self.records
    }

    // ---- what clients do --------------------------------------------------------------------------------

    fn take_a_turn(&mut self, name: usize) {
        let attempt = self.stage.number();
        let keyed = self.random.percent(50);
        let kind = self.stage.kinds[name];
        let shares = kind == Kind::Shared && self.random.percent(70);
        let mode = shares.then_some(Mode::Shared);
        let ttl = self.random.pick(&[1, 1, TTL_MAX_SECONDS]) * SECOND;
        let wait = self.random.pick(&[0, 200_000, 500_000, 1_000_000]);
        let mut presented = self
            .random
            .percent(10)
            .then(|| self.old_ticket(name))
            .flatten();
        for _ in 0..12 {
            let op = Op::Lock {
                attempt,
                keyed,
                presented,
                // A waiting ticket keeps its own.
                mode: mode.filter(|_| presented.is_none()),
                ttl,
                wait,
            };
            let outcome = self.call(name, op.clone());
            if keyed && presented.is_none() && self.random.percent(15) {
                // As one whose answer was lost.
                self.call(name, op);
            }
            match outcome {
                Outcome::Granted { ticket, mode, .. } => {
                    return self.hold(Held {
                        name,
                        ticket,
                        attempt,
                        mode,
                        ttl,
                    });
                }
                Outcome::Queued { ticket, .. } => {
                    presented = Some(ticket);
                    if !self.waits_on(name, ticket) {
                        return;
                    }
                }
                outcome if outcome.is_unknown() && !keyed && presented.is_none() => return,
                _ => {}
            }
            if self.stage.is_over() {
                return;
            }
        }
    }

    /// A waiter's own whims; `false`: it gave up.
    fn waits_on(&mut self, name: usize, ticket: Ticket) -> bool {
        match self.random.below(100) {
            0..3 => return false,
            3..9 => {
                self.old.push((name, ticket));
                self.call(name, Op::Unlock { presented: ticket });
                return false;
            }
            12..16 => {
                self.write(name, Some(ticket), false);
            }
            16..19 => {
                self.call(
                    name,
                    Op::Renew {
                        presented: ticket,
                        ttl: 0,
                    },
                );
            }
            _ => {}
        }
        // A poll without a wait comes back after a moment, as the server asks for.
        std::thread::sleep(Duration::from_millis(self.random.below(40)));
        true
    }

    fn hold(&mut self, mut held: Held) {
        let Held {
            name, ticket, ttl, ..
        } = held;
        self.old.push((name, ticket));
        for _ in 0..self.random.below(5) {
            if matches!(self.do_something(&mut held), Outcome::Dead(_)) {
                return;
            }
        }
        match self.random.below(100) {
            0..4 => {}
            4..7 => {
                std::thread::sleep(Duration::from_micros(ttl) + self.random.millis(0, 600));
                self.write(name, Some(ticket), false);
                self.release(name, ticket);
            }
            7..25 => {
                let outcome = self.write(name, Some(ticket), true);
                if !matches!(outcome, Outcome::Written { .. }) {
                    self.release(name, ticket);
                }
            }
            _ => self.release(name, ticket),
        }
    }

    fn do_something(&mut self, held: &mut Held) -> Outcome {
        let Held {
            name, ticket, ttl, ..
        } = *held;
        match self.random.below(8) {
            0 | 1 => self.call(name, Op::Read),
            2..5 => self.write(name, Some(ticket), false),
            5 => self.call(
                name,
                Op::Renew {
                    presented: ticket,
                    ttl,
                },
            ),
            6 => self.ask_as_holder(held),
            _ => {
                std::thread::sleep(Duration::from_millis(self.random.below(30)));
                Outcome::NotSent
            }
        }
    }

    /// Where others may share, mostly for the other mode.
    fn ask_as_holder(&mut self, held: &mut Held) -> Outcome {
        let other = match held.mode {
            Mode::Exclusive => Mode::Shared,
            Mode::Shared => Mode::Exclusive,
        };
        let changes = self.stage.kinds[held.name] == Kind::Shared && self.random.percent(80);
        let outcome = self.call(
            held.name,
            Op::Lock {
                attempt: held.attempt,
                keyed: false,
                presented: Some(held.ticket),
                mode: changes.then_some(other),
                ttl: held.ttl,
                // A promotion is refused at once all the same.
                wait: 0,
            },
        );
        if let Outcome::Granted { mode, .. } = outcome {
            held.mode = mode;
        }
        outcome
    }

    /// Until it is known to be over.
    fn release(&mut self, name: usize, ticket: Ticket) {
        for _ in 0..10 {
            let outcome = self.call(name, Op::Unlock { presented: ticket });
            if !outcome.is_unknown() && outcome != Outcome::NotSent {
                return;
            }
        }
    }

    fn write(&mut self, name: usize, presented: Option<Ticket>, release: bool) -> Outcome {
        if self.stage.kinds[name] == Kind::Ephemeral {
            // With a document it would stay.
            return self.call(name, Op::Describe);
        }
        let value = self.stage.number();
        self.call(
            name,
            Op::Write {
                presented,
                value,
                release,
            },
        )
    }

    fn write_without_lock(&mut self, name: usize) {
        self.write(name, None, false);
    }

    fn force(&mut self, name: usize) {
        let described = self.call(name, Op::Describe);
        let token = match described {
            Outcome::Described { holder } => holder.filter(|_| self.random.percent(70)),
            _ => None,
        };
        self.call(name, Op::Force { token });
    }

    /// With a ticket that should be dead.
    fn haunt(&mut self) {
        let index = self.random.below(self.old.len() as u64) as usize;
        let Some((name, presented)) = self.old.get(index).copied() else {
            return;
        };
        match self.random.below(3) {
            0 => drop(self.call(
                name,
                Op::Renew {
                    presented,
                    ttl: SECOND,
                },
            )),
            1 => drop(self.call(name, Op::Unlock { presented })),
            _ => drop(self.write(name, Some(presented), false)),
        }
    }

    fn old_ticket(&self, name: usize) -> Option<Ticket> {
        let found = self.old.iter().rfind(|(of, _)| *of == name);
        found.map(|(_, ticket)| *ticket)
    }

    // ---- one request ------------------------------------------------------------------------------------

    /// A value or an attempt that there was not yet.
    pub fn number(&self) -> u64 {
        self.stage.number()
    }

    fn cut(&mut self) -> Option<Cut> {
        match self.random.below(100) {
            0..1 => Some(Cut::MidRequest(self.random.below(101))),
            1..3 => Some(Cut::MidAnswer(self.random.millis(0, 60))),
            _ => None,
        }
    }

    /// Sends it, and writes down what became of it.
    pub fn call(&mut self, name: usize, op: Op) -> Outcome {
        let cut = self.cut();
        self.call_with(name, op, cut)
    }

    pub fn call_with(&mut self, name: usize, op: Op, cut: Option<Cut>) -> Outcome {
        let kind = self.stage.kinds[name];
        let bytes = request(&self.stage.names[name], kind, &op);
        let wait = match op {
            Op::Lock { wait, .. } => Duration::from_micros(wait),
            _ => Duration::ZERO,
        };
        let address = self.stage.address();
        let patience = self.random.millis(PATIENCE.0, PATIENCE.1);
        let sent = self.stage.now();
        let answer = match address {
            Some(address) => self.wire.exchange(address, &bytes, wait + patience, cut),
            None => Err(Failure::NotSent),
        };
        let done = self.stage.now();
        let outcome = match answer {
            Ok(answer) => outcome(kind, &op, &answer),
            Err(Failure::Lost) => Outcome::Lost,
            Err(Failure::NotSent) => Outcome::NotSent,
        };
        let elsewhere = matches!(outcome, Outcome::Unavailable | Outcome::NotSent);
        if elsewhere || (outcome == Outcome::Lost && cut.is_none()) {
            // As Retry-After asks for, scaled to the length of a run.
            std::thread::sleep(self.random.millis(10, 50));
        }
        let client = self.id;
        self.records.push(Record {
            client,
            name,
            op,
            sent,
            done,
            outcome: outcome.clone(),
        });
        outcome
    }
}

fn request(name: &str, kind: Kind, op: &Op) -> Vec<u8> {
    let key = if matches!(op, Op::Force { .. }) {
        ADMIN
    } else {
        WRITE
    };
    let mut headers = vec![("x-api-key", key.to_owned())];
    let ticket = match op {
        Op::Lock { presented, .. } | Op::Write { presented, .. } => *presented,
        Op::Renew { presented, .. } | Op::Unlock { presented } => Some(*presented),
        _ => None,
    };
    headers.extend(ticket.map(|ticket| ("X-Ticket", format!("{:032x}", ticket.0))));
    let (method, rest, body) = match op {
        Op::Lock {
            attempt,
            keyed,
            mode,
            ttl,
            wait,
            ..
        } => {
            if *keyed {
                headers.push(("Idempotency-Key", format!("attempt-{attempt}")));
            }
            let wait = *wait as f64 / SECOND as f64;
            let mut body = json!({"owner": "chaos", "ttl": ttl / SECOND});
            match mode {
                Some(Mode::Shared) => body["mode"] = "shared".into(),
                Some(Mode::Exclusive) => body["mode"] = "exclusive".into(),
                None => {}
            }
            let create = match kind {
                Kind::Ephemeral => "&create=1",
                _ => "",
            };
            let rest = format!("/s/lock?wait={wait}{create}");
            ("PUT", rest, body.to_string())
        }
        Op::Read => ("GET", "/s?lock=0&raw=1".into(), String::new()),
        Op::Write { value, release, .. } => {
            let query = if *release { "?unlock=1" } else { "" };
            ("PUT", format!("/s{query}"), json!({"w": value}).to_string())
        }
        Op::Renew { .. } => ("PUT", "/s/renew".into(), String::new()),
        Op::Unlock { .. } => ("PUT", "/s/unlock".into(), String::new()),
        Op::Force { token } => {
            let mut body = json!({"reason": "chaos"});
            if let Some(token) = token {
                body["fencingToken"] = (*token).into();
            }
            ("POST", "/force-unlock".into(), body.to_string())
        }
        Op::Describe => ("GET", String::new(), String::new()),
    };
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    support::request(method, &format!("/resource/{name}{rest}"), &headers, &body)
}

fn outcome(kind: Kind, op: &Op, answer: &Answer) -> Outcome {
    let body = match answer.status {
        204 => Value::Null,
        _ => answer.json(),
    };
    match answer.status {
        503 => Outcome::Unavailable,
        403 => Outcome::Dead(reason(body["code"].as_str().unwrap_or(""))),
        404 if body["code"] == "selector_unknown" => Outcome::Value(None),
        404 if kind == Kind::Ephemeral && *op == Op::Describe => {
            Outcome::Described { holder: None }
        }
        409 if body["code"] == "not_exclusive" => Outcome::NotExclusive,
        409 if body["code"] == "locked" => Outcome::Locked {
            holder: body["holder"]["fencingToken"].as_u64(),
        },
        200 | 204 => success(op, answer, &body),
        status => Outcome::Refused(status),
    }
}

fn success(op: &Op, answer: &Answer, body: &Value) -> Outcome {
    let token = answer
        .header("X-Fencing-Token")
        .map(|text| text.parse().unwrap());
    match op {
        Op::Lock { .. } => {
            let ticket = answer.header("X-Ticket").expect("a ticket");
            let ticket = Ticket(u128::from_str_radix(ticket, 16).expect("a ticket"));
            let ended = answer.header("X-Ticket-Ended").map(reason);
            match token {
                Some(token) => Outcome::Granted {
                    ticket,
                    token,
                    mode: match body["mode"].as_str() {
                        Some("exclusive") => Mode::Exclusive,
                        Some("shared") => Mode::Shared,
                        other => panic!("no mode: {other:?}"),
                    },
                    ended,
                },
                None => {
                    let position = body["position"].as_u64().expect("a position");
                    Outcome::Queued {
                        ticket,
                        position,
                        ended,
                    }
                }
            }
        }
        Op::Read => Outcome::Value(Some(body["w"].as_u64().expect("a value of ours"))),
        Op::Write { .. } => Outcome::Written { token },
        Op::Renew { .. } => Outcome::Renewed {
            token: token.expect("a token"),
        },
        Op::Unlock { .. } => Outcome::Unlocked,
        Op::Force { .. } => Outcome::Forced {
            token: body["fencingToken"].as_u64(),
        },
        Op::Describe => Outcome::Described {
            holder: body["holder"]["fencingToken"].as_u64(),
        },
    }
}

fn reason(code: &str) -> Reason {
    match code {
        "ticket_released" => Reason::Released,
        "lease_expired" => Reason::Expired,
        "lease_forced_off" => Reason::ForcedOff,
        "ticket_unknown" => Reason::Unknown,
        other => panic!("no reason: {other:?}"),
    }
}
