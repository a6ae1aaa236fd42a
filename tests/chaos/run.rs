//! One run: servers, clients and faults, then the verdict on what the clients saw.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::json;

use crate::checker::{self, Violation};
use crate::client::{Client, Stage, TTL_MAX_SECONDS};
use crate::faults::{Cluster, complaints};
use crate::history::{History, Kind, Mode, Op, Outcome, Record, SECOND, Terms, Ticket};
use crate::plan::{Plan, Random};
use crate::support::{self, DEADLINE};

/// `CLAIM_SECONDS` of the servers, in milliseconds.
pub const CLAIM_MILLIS: u64 = 500;
/// One name for each.
const KINDS: [Kind; 9] = [
    Kind::Plain,
    Kind::Plain,
    Kind::Plain,
    Kind::Plain,
    Kind::Shared,
    Kind::Shared,
    Kind::Slots(2),
    Kind::Delayed(SECOND),
    Kind::Ephemeral,
];

/// Runs the plan against these servers and panics when a rule was broken. One run at a time has the machine.
pub fn run(plan: &Plan, store: &str, cluster: impl FnOnce() -> Cluster) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut cluster = cluster();
    println!(
        "chaos on {store}: CHAOS_SEED={} CHAOS_CLIENTS={}",
        plan.seed, plan.clients
    );
    let names: Vec<String> = (0..KINDS.len()).map(|n| format!("chaos-{n}")).collect();
    let stage = Stage::new(names, KINDS.to_vec());
    cluster.open(&stage);
    create_resources(&stage);
    let clients: Vec<_> = (0..plan.clients)
        .map(|id| {
            let client = Client::new(id, plan.seed, stage.clone());
            std::thread::spawn(move || client.live())
        })
        .collect();
    let mut random = Random::new(plan.seed, 0);
    let outages = cluster.suffer(&stage, &mut random, plan.time);
    stage.over.store(true, Ordering::Relaxed);
    let lived = clients
        .into_iter()
        .map(|client| client.join().expect("a client"));
    let mut records: Vec<Record> = lived.flatten().collect();
    let witnesses = witnesses(&stage);
    let before = on_each_name(&stage, witnesses, Witness::settle);
    cluster.die_and_start(&stage);
    let after = on_each_name(&stage, before, Witness::look_again);
    records.extend(after.into_iter().flat_map(|witness| witness.client.records));
    let deaths = cluster.deaths.clone();
    let history = History {
        kinds: KINDS.to_vec(),
        records,
        outages,
        deaths,
    };
    let passed_on = cluster.passed_on();
    assert!(
        cluster.instances.len() == 1 || passed_on > 0,
        "no instance passed anything on"
    );
    let violations = checker::check(&history, &terms());
    print_figures(store, &history, &violations);
    let complaints: Vec<String> = cluster.instances.iter().flat_map(complaints).collect();
    assert!(
        complaints.is_empty(),
        "in the server's log: {complaints:#?}"
    );
    give_verdict(plan, &violations);
    assert_everything_happened(&history);
}

fn terms() -> Terms {
    Terms {
        claim: CLAIM_MILLIS * SECOND / 1000,
        ttl_max: TTL_MAX_SECONDS * SECOND,
        slack: 3 * SECOND,
    }
}

fn create_resources(stage: &Stage) {
    let addresses = stage.instances.read().unwrap().clone();
    let kinds = stage.names.iter().zip(&stage.kinds);
    for (name, kind) in kinds.filter(|(_, kind)| **kind != Kind::Ephemeral) {
        let mut body = json!({"name": name, "timeout": 1});
        match kind {
            Kind::Slots(slots) => body["slots"] = (*slots).into(),
            Kind::Delayed(delay) => body["lockDelay"] = (delay / SECOND).into(),
            Kind::Plain | Kind::Shared | Kind::Ephemeral => {}
        }
        let made = addresses.iter().any(|address| {
            let create = support::Client::at(*address).create(name, 1).json(&body);
            create.send().status == 201
        });
        assert!(made, "{name} could not be created");
    }
}

/// Sees to it that each resource has as many holders as it may have, a queue and a document when the server
/// dies for the last time, and that they are there afterwards: what was acknowledged is on disk, whatever was
/// in memory.
struct Witness {
    client: Client,
    name: usize,
    kind: Kind,
    holders: Vec<Ticket>,
    queue: Vec<Ticket>,
}

/// Longer than the end of a run takes.
const WITNESS_TTL: u64 = 120 * SECOND;

fn witnesses(stage: &Arc<Stage>) -> Vec<Witness> {
    let witness = |name| Witness {
        client: Client::new(1000 + name, 0, stage.clone()),
        name,
        kind: stage.kinds[name],
        holders: Vec::new(),
        queue: Vec::new(),
    };
    (0..stage.names.len()).map(witness).collect()
}

fn on_each_name(stage: &Stage, witnesses: Vec<Witness>, act: fn(&mut Witness)) -> Vec<Witness> {
    assert_eq!(witnesses.len(), stage.names.len());
    let acting = witnesses.into_iter().map(|mut witness| {
        std::thread::spawn(move || {
            act(&mut witness);
            witness
        })
    });
    let acting: Vec<_> = acting.collect();
    acting
        .into_iter()
        .map(|thread| thread.join().expect("a witness"))
        .collect()
}

impl Witness {
    fn ask(&mut self, op: Op) -> Outcome {
        let start = Instant::now();
        loop {
            let outcome = self.client.call_with(self.name, op.clone(), None);
            if !outcome.is_unknown() && outcome != Outcome::NotSent {
                return outcome;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "no answer at the end of the run"
            );
        }
    }

    fn lock(&mut self, presented: Option<Ticket>, mode: Option<Mode>, wait: u64) -> Outcome {
        let attempt = self.client.number();
        self.ask(Op::Lock {
            attempt,
            keyed: true,
            presented,
            mode,
            ttl: WITNESS_TTL,
            wait,
        })
    }

    fn write(&mut self) {
        let (presented, value) = (self.holders.first().copied(), self.client.number());
        if self.kind != Kind::Ephemeral {
            self.ask(Op::Write {
                presented,
                value,
                release: false,
            });
        }
    }

    fn settle(&mut self) {
        let (wanted, mode) = match self.kind {
            Kind::Slots(slots) => (slots, None),
            Kind::Shared => (3, Some(Mode::Shared)),
            Kind::Plain | Kind::Delayed(_) | Kind::Ephemeral => (1, None),
        };
        let start = Instant::now();
        while self.holders.len() < wanted {
            let presented = self.queue.first().copied();
            let mode = mode.filter(|_| presented.is_none());
            match self.lock(presented, mode, SECOND) {
                Outcome::Granted { ticket, .. } => {
                    self.holders.push(ticket);
                    self.queue.clear();
                }
                Outcome::Queued { ticket, .. } => self.queue = vec![ticket],
                other => panic!("neither granted nor queued: {other:?}"),
            }
            assert!(start.elapsed() < DEADLINE, "the lock was never free");
        }
        self.write();
        while self.queue.len() < 3 {
            let Outcome::Queued { ticket, .. } = self.lock(None, None, 0) else {
                panic!("a lock that is held was granted");
            };
            self.queue.push(ticket);
        }
    }

    fn look_again(&mut self) {
        self.ask(Op::Describe);
        for presented in self.holders.clone() {
            self.ask(Op::Renew {
                presented,
                ttl: WITNESS_TTL,
            });
        }
        self.ask(Op::Read);
        for ticket in self.queue.clone() {
            self.lock(Some(ticket), None, 0);
        }
        self.be_promoted();
        for presented in self.holders.clone() {
            self.ask(Op::Unlock { presented });
        }
        for ticket in self.queue.clone().into_iter().rev() {
            self.lock(Some(ticket), None, 0);
        }
        self.lock(self.queue.first().copied(), None, 0);
        self.ask(Op::Read);
        self.ask(Op::Describe);
        for presented in self.queue.clone() {
            self.ask(Op::Unlock { presented });
        }
        self.ask(Op::Describe);
    }

    /// The first of those that share, once while they do and once when it is the only one.
    fn be_promoted(&mut self) {
        let first = self.holders.first().copied();
        if self.kind != Kind::Shared {
            return;
        }
        self.lock(first, Some(Mode::Exclusive), SECOND);
        for presented in self.holders.split_off(1) {
            self.ask(Op::Unlock { presented });
        }
        self.lock(first, Some(Mode::Exclusive), SECOND);
        self.write();
    }
}

fn count(history: &History, what: impl Fn(&Outcome) -> bool) -> usize {
    history
        .records
        .iter()
        .filter(|record| what(&record.outcome))
        .count()
}

fn print_figures(store: &str, history: &History, violations: &[Violation]) {
    let mut faults: BTreeMap<&str, usize> = BTreeMap::new();
    for outage in &history.outages {
        *faults.entry(outage.kind).or_default() += 1;
    }
    let faults: Vec<String> = faults
        .iter()
        .map(|(kind, n)| format!("{n} x {kind}"))
        .collect();
    println!(
        "chaos on {store}: {} operations ({} grants, {} of them shared, {} writes, {} reads, {} unanswered, {} times 503), \
         {} faults ({}), {} violations",
        history.records.len(),
        count(history, |o| matches!(o, Outcome::Granted { .. })),
        count(history, is_shared),
        count(history, |o| matches!(o, Outcome::Written { .. })),
        count(history, |o| matches!(o, Outcome::Value(_))),
        count(history, |o| *o == Outcome::Lost),
        count(history, |o| *o == Outcome::Unavailable),
        history.outages.len(),
        faults.join(", "),
        violations.len(),
    );
}

fn is_shared(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Granted {
            mode: Mode::Shared,
            ..
        }
    )
}

/// Several holders, promotion and names that go are in every run.
fn assert_everything_happened(history: &History) {
    let happened = |what: &str, least: usize, was: fn(&Outcome) -> bool| {
        assert!(count(history, was) >= least, "hardly any {what}");
    };
    happened("grants", 20, |o| matches!(o, Outcome::Granted { .. }));
    happened("writes", 20, |o| matches!(o, Outcome::Written { .. }));
    happened("shared leases", 6, is_shared);
    happened("writes of one who shares", 2, |o| {
        *o == Outcome::NotExclusive
    });
    let promoted = |record: &&Record| {
        let asked = matches!(
            record.op,
            Op::Lock {
                presented: Some(_),
                mode: Some(Mode::Exclusive),
                ..
            }
        );
        asked && record.token().is_some()
    };
    let promoted = history.records.iter().filter(promoted).count();
    assert!(promoted >= 2, "hardly any promotions");
    let ephemeral = |record: &&Record| KINDS[record.name] == Kind::Ephemeral;
    let mut ephemeral = history.records.iter().filter(ephemeral);
    let gone = Outcome::Described { holder: None };
    assert!(ephemeral.any(|r| r.outcome == gone), "no name ever went");
}

fn give_verdict(plan: &Plan, violations: &[Violation]) {
    if violations.is_empty() {
        return;
    }
    for violation in violations {
        println!("{violation}");
    }
    panic!(
        "{} violations; CHAOS_SEED={} plans the same again",
        violations.len(),
        plan.seed
    );
}
