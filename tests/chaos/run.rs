//! One run: servers, clients and faults, then the verdict on what the clients saw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::checker::{self, Violation};
use crate::client::{Client, Stage, TTL_MAX_SECONDS};
use crate::faults::Cluster;
use crate::history::{History, Op, Outcome, Record, SECOND, Terms, Ticket};
use crate::plan::{Plan, Random};
use crate::server::KEY;
use crate::wire::{self, Wire};

/// `CLAIM_SECONDS` of the servers.
pub const CLAIM_SECONDS: u64 = 1;
const NAMES: usize = 4;

/// Runs the plan against these servers and panics when a rule was broken.
pub fn run(plan: &Plan, store: &str, mut cluster: Cluster) {
    println!(
        "chaos on {store}: CHAOS_SEED={} CHAOS_CLIENTS={}",
        plan.seed, plan.clients
    );
    let names: Vec<String> = (0..NAMES).map(|n| format!("chaos-{n}")).collect();
    let stage = Stage::new(names);
    cluster.start(&stage);
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
    // What was acknowledged is on disk, whatever was in memory.
    for instance in &mut cluster.instances {
        instance.kill();
    }
    cluster.start(&stage);
    records.extend(look_once_more(&stage, &records));
    let history = History { records, outages };
    let violations = checker::check(&history, &terms());
    print_figures(store, &history, &violations);
    let complaints: Vec<String> = cluster
        .instances
        .iter()
        .flat_map(|i| i.complaints())
        .collect();
    assert!(
        complaints.is_empty(),
        "in the server's log: {complaints:#?}"
    );
    give_verdict(plan, &violations);
    assert!(
        count(&history, |o| matches!(o, Outcome::Granted { .. })) > 20,
        "hardly any grants"
    );
    assert!(
        count(&history, |o| matches!(o, Outcome::Written { .. })) > 20,
        "hardly any writes"
    );
}

fn terms() -> Terms {
    Terms {
        claim: CLAIM_SECONDS * SECOND,
        ttl_max: TTL_MAX_SECONDS * SECOND,
        slack: 3 * SECOND,
    }
}

fn create_resources(stage: &Stage) {
    let address = stage.instances.read().unwrap().clone();
    for name in &stage.names {
        let body = format!("{{\"name\":\"{name}\",\"timeout\":1}}");
        let headers = [("x-api-key", KEY.to_owned())];
        let bytes = wire::request("POST", "/resource", &headers, &body);
        let limit = Duration::from_secs(10);
        let made = address.iter().any(|address| {
            let answer = Wire::default().exchange(*address, &bytes, limit, None);
            answer.is_ok_and(|answer| answer.status == 201)
        });
        assert!(made, "{name} could not be created");
    }
}

/// After the last restart: the documents, the holders, and every ticket that its client may think alive.
fn look_once_more(stage: &Arc<Stage>, records: &[Record]) -> Vec<Record> {
    let mut client = Client::new(999, 0, stage.clone());
    for name in 0..stage.names.len() {
        client.call_with(name, Op::Describe, None);
        for (presented, ttl) in last_holders(records, name) {
            client.call_with(name, Op::Renew { presented, ttl }, None);
        }
        client.call_with(name, Op::Read, None);
        client.call_with(name, Op::Describe, None);
    }
    let unanswered = client.records.iter().find(|r| r.outcome.is_unknown());
    assert!(unanswered.is_none(), "the end is not known: {unanswered:?}");
    client.records
}

/// The tickets of the last grants of a name, with their TTL.
fn last_holders(records: &[Record], name: usize) -> Vec<(Ticket, u64)> {
    let mut granted: Vec<(u64, Ticket, u64)> = records
        .iter()
        .filter(|record| record.name == name)
        .filter_map(|record| match (&record.op, &record.outcome) {
            (Op::Lock { ttl, .. }, Outcome::Granted { ticket, .. }) => {
                Some((record.done, *ticket, *ttl))
            }
            _ => None,
        })
        .collect();
    granted.sort_unstable();
    let last = granted.iter().rev().take(3);
    last.map(|(_, ticket, ttl)| (*ticket, *ttl)).collect()
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
        "chaos on {store}: {} operations ({} grants, {} writes, {} reads, {} unanswered, {} times 503), \
         {} faults ({}), {} violations",
        history.records.len(),
        count(history, |o| matches!(o, Outcome::Granted { .. })),
        count(history, |o| matches!(o, Outcome::Written { .. })),
        count(history, |o| matches!(o, Outcome::Value(_))),
        count(history, |o| *o == Outcome::Lost),
        count(history, |o| *o == Outcome::Unavailable),
        history.outages.len(),
        faults.join(", "),
        violations.len(),
    );
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
