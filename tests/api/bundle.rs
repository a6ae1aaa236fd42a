//! The requests of the original's PHP client, as they were captured on the wire, sent again byte for byte.
//!
//! The captured answers are those of a small stand-in that the client accepted. Tickets in them stand for
//! whatever this server gives out: the client object that once got a ticket sends ours instead. Where this
//! server answers differently on purpose, [`DEVIATIONS`] says so and why.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::support::{Answer, Connection, Database, Server, Store, WRITE, until};

const EXCHANGES: &str = include_str!("../data/bundle-exchanges.jsonl");

#[derive(Deserialize)]
struct Exchange {
    step: String,
    request: String,
    sent: Headers,
    body: Option<String>,
    status: u16,
    headers: Headers,
    answer: String,
}

/// In the order and the case in which they were captured.
struct Headers(Vec<(String, String)>);

impl Headers {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Headers, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Headers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("headers")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut headers = Vec::new();
                while let Some(header) = map.next_entry()? {
                    headers.push(header);
                }
                Ok(Headers(headers))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Profile {
    Php,
    Default,
}

/// What is different from the captured answer.
#[derive(Clone, Copy, PartialEq)]
enum Differs {
    /// A refusal with this status and code.
    Refused(u16, &'static str),
    /// `locked` is false.
    Queued,
    /// A read without lock intent carries `X-Ticket`, which the captured one does not.
    TicketToo,
}

use Differs::{Queued, Refused, TicketToo};
use Profile::{Default, Php};

/// Each step that is answered differently: in which profiles, how, and the rule behind it.
const DEVIATIONS: &[(&str, &[Profile], Differs, &str)] = &[
    (
        "create: empty name",
        &[Php, Default],
        Refused(400, "malformed"),
        "names have 1 to 255 characters",
    ),
    (
        "create: negative timeout",
        &[Php, Default],
        Refused(400, "malformed"),
        "a timeout is 0 to 2147483647",
    ),
    (
        "name of 300 characters",
        &[Php, Default],
        Refused(400, "malformed"),
        "names have 1 to 255 characters",
    ),
    (
        "main: getData(lock) never written",
        &[Default],
        Refused(404, "selector_unknown"),
        "a selector never written is 404 and not locked",
    ),
    (
        "main: getData(lock) again",
        &[Default],
        Refused(404, "selector_unknown"),
        "a selector never written is 404 and not locked",
    ),
    (
        "main: getData(no lock) never written",
        &[Php, Default],
        Refused(404, "selector_unknown"),
        "a selector never written is 404 without lock intent",
    ),
    (
        "main: getData(no lock) by the holder",
        &[Php, Default],
        TicketToo,
        "lock=0 names the ticket when a live one was presented",
    ),
    (
        "name *: read",
        &[Default],
        TicketToo,
        "the lock stays after a write, and lock=0 names the ticket",
    ),
    (
        "selector *: lock, write, read, unlock",
        &[Default],
        TicketToo,
        "the lock stays after a write, and lock=0 names the ticket",
    ),
    (
        "two: B getData(lock) while A holds",
        &[Default],
        Refused(404, "selector_unknown"),
        "a selector never written is 404 even while someone holds",
    ),
    (
        "facts: B lock after A wrote and did not unlock (true: a write releases)",
        &[Default],
        Queued,
        "the lock stays after a write",
    ),
    (
        "facts: C unlock x without a ticket",
        &[Php, Default],
        Refused(400, "ticket_missing"),
        "an unlock needs a ticket",
    ),
    (
        "wait: B lock, A unlocks 0.6 s later",
        &[Default],
        Queued,
        "the timeout of a resource is no wait",
    ),
];

/// Steps that the client took without leaving an exchange, told by the step they belong to.
const A_UNLOCKS_MEANWHILE: &str = "wait: B lock, A unlocks 0.6 s later";
const B_GAVE_UP_BEFORE: &str = "zero: A unlock";

/// The capture shows the start of this body only.
fn whole_body(exchange: &Exchange) -> Option<String> {
    match &exchange.body {
        Some(_) if exchange.step == "data: 300 kB" => {
            Some(format!("\"{}\"", "ab ".repeat(100_000)))
        }
        body => body.clone(),
    }
}

fn exchanges() -> Vec<Exchange> {
    let lines = EXCHANGES.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The client's objects during one replay.
struct Replay<'a> {
    app: &'a Server,
    profile: Profile,
    /// By captured ticket, the one that this server gave out in its place.
    tickets: HashMap<String, String>,
    /// By path, what was written there last.
    written: HashMap<String, String>,
}

impl Replay<'_> {
    fn bytes(&self, exchange: &Exchange) -> Vec<u8> {
        let mut head = format!(
            "{} HTTP/1.1\r\nHost: {}\r\n",
            exchange.request,
            self.app.address()
        );
        for (name, value) in &exchange.sent.0 {
            let value = match name.as_str() {
                "X-Ticket" => self.tickets.get(value),
                _ => Some(value),
            };
            if let Some(value) = value {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        let body = self.body(exchange);
        if let Some(body) = &body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        format!("{head}\r\n{}", body.unwrap_or_default()).into_bytes()
    }

    /// In the default profile a timeout ends leases, which would end this replay's on a slow machine.
    fn body(&self, exchange: &Exchange) -> Option<String> {
        let body = whole_body(exchange);
        match self.profile {
            Php => body,
            Default => body.map(|body| body.replace("\"timeout\":1}", "\"timeout\":0}")),
        }
    }

    fn send(&self, exchange: &Exchange) -> Connection {
        let mut connection = self.app.connect();
        connection.write(&self.bytes(exchange));
        connection
    }

    fn play(&mut self, exchange: &Exchange, before: Option<&Exchange>) {
        if exchange.step == B_GAVE_UP_BEFORE && self.profile == Php {
            self.give_up(before.expect("a lock"));
        }
        let mut connection = self.send(exchange);
        if exchange.step == A_UNLOCKS_MEANWHILE && self.profile == Php {
            self.unlock_meanwhile(&mut connection, before.expect("a lock"));
        }
        let answer = connection.answer();
        self.check(exchange, &answer);
        self.learn(exchange, &answer);
        if exchange.step == A_UNLOCKS_MEANWHILE && self.profile == Default {
            self.unlock(before.expect("a lock"));
        }
    }

    /// Another object asks for the lock, waits, and closes its connection.
    fn give_up(&self, lock: &Exchange) {
        let waiter = self.send(lock);
        until("it waits", || self.app.waiting("p-zero") == 1);
        waiter.hang_up();
    }

    fn unlock_meanwhile(&self, waiter: &mut Connection, lock: &Exchange) {
        until("it waits", || self.app.waiting("p-wait") == 1);
        assert!(waiter.is_silent());
        self.unlock(lock);
    }

    /// By the object that got its ticket in that exchange.
    fn unlock(&self, lock: &Exchange) {
        let ticket = &self.tickets[lock.headers.get("X-Ticket").unwrap()];
        self.app.unlock("p-wait/q", ticket).expect(200);
    }

    fn deviation(&self, exchange: &Exchange) -> Option<Differs> {
        let listed = DEVIATIONS.iter().find(|(step, profiles, ..)| {
            matches(step, exchange) && profiles.contains(&self.profile)
        });
        listed.map(|(_, _, differs, _)| *differs)
    }

    fn check(&self, exchange: &Exchange, answer: &Answer) {
        let step = &exchange.step;
        let differs = self.deviation(exchange);
        if let Some(Refused(status, code)) = differs {
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (status, code),
                "{step}: {answer:?}"
            );
            return;
        }
        assert_eq!(answer.status, exchange.status, "{step}: {answer:?}");
        let reads = exchange.request.ends_with("?lock=0");
        let ticket =
            exchange.headers.get("X-Ticket").is_some() || (reads && differs == Some(TicketToo));
        assert_eq!(
            answer.header("X-Ticket").is_some(),
            ticket,
            "{step}: {answer:?}"
        );
        if let Ok(captured) = serde_json::from_str::<Value>(&exchange.answer) {
            check_shape(&captured, &answer.json(), step);
            check_values(&captured, &answer.json(), differs, step);
        }
        if exchange.request.starts_with("GET") && answer.status == 200 {
            let path = path(exchange);
            assert_eq!(
                answer.json()["data"].as_str(),
                self.written.get(path).map(String::as_str),
                "{step}"
            );
        }
    }

    /// As the client does: a ticket is read from GET and lock only, and kept after unlocking.
    fn learn(&mut self, exchange: &Exchange, answer: &Answer) {
        if exchange.status == 204 {
            let body = self.body(exchange).unwrap_or_default();
            self.written.insert(path(exchange).to_owned(), body);
        }
        let reads = exchange.request.starts_with("GET") || exchange.request.ends_with("/lock");
        let captured = exchange
            .headers
            .get("X-Ticket")
            .or(exchange.sent.get("X-Ticket"));
        if let (true, Some(captured), Some(ticket)) = (reads, captured, answer.header("X-Ticket")) {
            self.tickets.insert(captured.to_owned(), ticket.to_owned());
        }
    }
}

/// `*` stands for anything.
fn matches(step: &str, exchange: &Exchange) -> bool {
    match step.split_once('*') {
        Some((start, end)) => exchange.step.starts_with(start) && exchange.step.ends_with(end),
        None => exchange.step == step,
    }
}

fn path(exchange: &Exchange) -> &str {
    let target = exchange.request.split(' ').nth(1).unwrap();
    target.split('?').next().unwrap()
}

/// Everything that was there is there, with the same type.
fn check_shape(captured: &Value, ours: &Value, step: &str) {
    for (key, value) in captured.as_object().expect("an object") {
        let same = std::mem::discriminant(value) == std::mem::discriminant(&ours[key]);
        assert!(same, "{step}: {key} in {ours}");
    }
}

fn check_values(captured: &Value, ours: &Value, differs: Option<Differs>, step: &str) {
    for key in [
        "name",
        "timeout",
        "locked",
        "unlocked",
        "unavailable",
        "selector",
        "data",
    ] {
        let Some(value) = captured.get(key) else {
            continue;
        };
        if key == "locked" && differs == Some(Queued) {
            assert_eq!(ours[key], false, "{step}");
        } else if key != "timeout" || ours[key] != 0 {
            assert_eq!(ours[key], *value, "{step}");
        }
    }
}

/// Resources whose exchanges wait for their timeouts and concern nobody else.
const ALONE: [&str; 5] = ["two:", "three:", "facts:", "wait:", "zero:"];

fn settings(profile: Profile) -> [(&'static str, &'static str); 5] {
    let name = if profile == Php { "php" } else { "default" };
    [
        ("COMPATIBILITY", name),
        ("RESOURCE_READ", "wkey-read"),
        ("RESOURCE_READ_LOCK", "wkey-lock"),
        ("RESOURCE_WRITE", "wkey"),
        ("RESOURCE_WRITE_PREVIOUS", WRITE),
    ]
}

fn start(store: Store, profile: Profile) -> Server {
    Server::start_with(store, &settings(profile))
}

fn replay(app: &Server, profile: Profile) {
    let all = exchanges();
    assert_eq!(all.len(), 245);
    let group = |exchange: &Exchange| ALONE.iter().find(|start| exchange.step.starts_with(*start));
    std::thread::scope(|scope| {
        for this in ALONE.iter().map(Some).chain([None]) {
            let steps: Vec<&Exchange> = all
                .iter()
                .filter(|exchange| group(exchange) == this)
                .collect();
            let mut replay = Replay {
                app,
                profile,
                tickets: HashMap::new(),
                written: HashMap::new(),
            };
            scope.spawn(move || {
                for (index, exchange) in steps.iter().enumerate() {
                    let before = index.checked_sub(1).map(|index| steps[index]);
                    replay.play(exchange, before);
                }
            });
        }
    });
}

api_tests! {
    fn the_client_s_life_in_the_php_profile(store) {
        replay(&start(store, Php), Php);
    }

    fn the_client_s_life_in_the_default_profile(store) {
        replay(&start(store, Default), Default);
    }
}

#[test]
fn the_client_s_life_at_an_instance_that_passes_requests_on() {
    if Database::is_skipped() {
        return;
    }
    for profile in [Php, Default] {
        let first = start(Store::Mysql, profile);
        let other = first.start_beside_with(&settings(profile));
        other.until_ready();
        replay(&other, profile);
    }
}

#[test]
fn every_listed_deviation_concerns_a_step_that_was_captured_and_has_a_reason() {
    let all = exchanges();
    for (step, profiles, _, reason) in DEVIATIONS {
        let captured = all.iter().any(|exchange| matches(step, exchange));
        assert!(captured, "{step}");
        assert!(!profiles.is_empty() && !reason.is_empty(), "{step}");
    }
}
