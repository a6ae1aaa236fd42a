//! A rolling restart of two instances behind a proxy: clients see less than a second without service, and nothing
//! but what may be tried again.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::proxy::{BOTH, Kind, ReverseProxy};
use crate::support::{
    Connection, Database, Program, Setup, StopWhenDropped, Store, WRITE, free_port, request, until,
};

const ONE_SECOND: Duration = Duration::from_secs(1);
/// A machine that stalls makes a restart cost more; one that costs too much each time is at fault.
const TRIES: usize = 4;

/// What a client saw.
struct Seen {
    served_at: Instant,
    longest: Duration,
    served: u64,
    /// Statuses other than 200, and `closed`, with how often each came.
    others: BTreeMap<String, u64>,
}

impl Seen {
    fn new() -> Seen {
        Seen {
            served_at: Instant::now(),
            longest: Duration::ZERO,
            served: 0,
            others: BTreeMap::new(),
        }
    }

    fn note(&mut self, outcome: Result<u16, ()>) {
        if outcome == Ok(200) {
            self.longest = self.longest.max(self.served_at.elapsed());
            self.served_at = Instant::now();
            self.served += 1;
            return;
        }
        let word = outcome.map_or("closed".to_owned(), |status| status.to_string());
        *self.others.entry(word).or_default() += 1;
    }
}

/// Takes the lock and gives it back, over and over, as a client that tries again what was not served.
fn use_the_lock(at: SocketAddr, name: &str, seen: &Mutex<Seen>, stop: &AtomicBool) {
    let mut connection = None;
    let mut ticket = String::new();
    while !stop.load(Ordering::Relaxed) {
        let action = if ticket.is_empty() { "lock" } else { "unlock" };
        let path = format!("/resource/{name}/s/{action}");
        let mut headers = vec![("x-api-key", WRITE)];
        if !ticket.is_empty() {
            headers.push(("X-Ticket", &ticket));
        }
        let text = request("PUT", &path, &headers, "{\"owner\":\"rolling\"}");
        let answer = connection
            .take()
            .map_or_else(|| Connection::try_to(at), Ok)
            .and_then(|mut client: Connection| {
                client.stream.write_all(&text)?;
                let answer = client.try_answer(false)?;
                if answer.header("Connection") != Some("close") {
                    connection = Some(client);
                }
                Ok(answer)
            });
        seen.lock()
            .unwrap()
            .note(answer.as_ref().map(|answer| answer.status).map_err(|_| ()));
        match answer {
            Ok(answer) if answer.status == 200 => {
                let granted = action == "lock" && answer.json()["locked"] == true;
                ticket = if granted {
                    answer.ticket()
                } else {
                    String::new()
                };
            }
            // What was not answered may have happened: the lock is this client's all the same.
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// In the order of a rolling update: one is replaced, and then the other.
fn roll(instances: &mut [Program; 2]) {
    for instance in instances {
        instance.signal(Signal::TERM);
        assert!(instance.end().success());
        instance.launch_again();
        instance.until_ready();
    }
}

/// The longest time without service, and what else was answered.
fn cost(kind: Kind, instances: &mut [Program; 2]) -> (Duration, BTreeMap<String, u64>) {
    let ports = [0, 1].map(|n| instances[n].address().port());
    let proxy = ReverseProxy::start_before(kind, &ports);
    let (at, stop, seen) = (
        proxy.address(),
        AtomicBool::new(false),
        Mutex::new(Seen::new()),
    );
    let name = format!("{kind:?}-{}", at.port());
    let has_served = |more: u64| {
        let goal = seen.lock().unwrap().served + more;
        until("clients are served", || seen.lock().unwrap().served > goal);
    };
    until("the proxy has found who serves", || {
        let body = format!("{{\"name\":\"{name}\"}}");
        let mut client = proxy.connect();
        client.write(&request(
            "POST",
            "/resource",
            &[("x-api-key", WRITE)],
            &body,
        ));
        let created = client.unchecked_answer().expect("an answer").status;
        created == 201 || created == 409
    });
    std::thread::scope(|scope| {
        let _stop = StopWhenDropped(&stop);
        scope.spawn(|| use_the_lock(at, &name, &seen, &stop));
        has_served(50);
        seen.lock().unwrap().longest = Duration::ZERO;
        roll(instances);
        has_served(50);
    });
    let seen = seen.into_inner().unwrap();
    (seen.longest, seen.others)
}

#[test]
fn a_rolling_restart_costs_less_than_a_second() {
    if Database::is_skipped() {
        return;
    }
    let base = Setup::on(Store::Mysql).with("INSTANCE_LEASE_SECONDS", "4");
    let base = base.with("PEER_PORT", "0");
    let on_a_port = || base.clone().with("HTTP_PORT", &free_port().to_string());
    let mut instances = [on_a_port().start(), on_a_port().launch()];
    for kind in BOTH {
        let mut costs = Vec::new();
        let is_cheap = (0..TRIES).any(|_| {
            let (longest, others) = cost(kind, &mut instances);
            let may_be_tried_again = |word: &String| ["502", "503", "504"].contains(&word.as_str());
            assert!(
                others.keys().all(may_be_tried_again),
                "{kind:?}: {others:?}"
            );
            costs.push((longest, others));
            longest < ONE_SECOND
        });
        assert!(is_cheap, "{kind:?}: {costs:?}");
    }
}
