//! GET `/events`: server-sent events.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Client, DEADLINE, LOCK, READ, Server, Store, until};

/// A client that follows the events of names with a prefix.
struct Follower {
    stream: TcpStream,
    text: String,
}

impl Follower {
    fn of(app: &Client, prefix: &str) -> Follower {
        let mut stream = TcpStream::connect(app.address()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(
            stream,
            "GET /events?prefix={prefix} HTTP/1.1\r\nHost: x\r\nx-api-key: {READ}\r\n\r\n"
        )
        .unwrap();
        let mut follower = Follower {
            stream,
            text: String::new(),
        };
        follower.read_until(": following");
        assert!(
            follower.text.contains("Content-Type: text/event-stream"),
            "{}",
            follower.text
        );
        follower
    }

    fn read_until(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            self.read_more();
        }
    }

    fn read_more(&mut self) {
        let mut bytes = [0; 4096];
        let count = self.stream.read(&mut bytes).unwrap();
        assert!(count > 0, "the stream ended: {}", self.text);
        // Chunks begin and end between events.
        self.text
            .push_str(&String::from_utf8_lossy(&bytes[..count]));
    }

    /// What happened, up to and with the first event of this kind.
    fn events_until(&mut self, last: &str) -> Vec<(String, Value)> {
        loop {
            let events = self.events();
            if events.iter().any(|(kind, _)| kind == last) {
                return events;
            }
            self.read_more();
        }
    }

    /// The events that have arrived whole.
    fn events(&self) -> Vec<(String, Value)> {
        let whole = self.text.rfind("\n\n").map_or("", |end| &self.text[..end]);
        let mut events = Vec::new();
        let mut lines = whole.lines();
        while let Some(line) = lines.next() {
            if let Some(kind) = line.strip_prefix("event: ") {
                let data = lines
                    .next()
                    .and_then(|line| line.strip_prefix("data: "))
                    .unwrap();
                events.push((kind.to_owned(), serde_json::from_str(data).unwrap()));
            }
        }
        events
    }
}

fn kinds(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(kind, _)| kind.as_str()).collect()
}

/// What the kernel keeps in the server's buffer of this connection, in bytes.
fn unsent(follower: &Follower) -> u64 {
    let hex = |address: std::net::SocketAddr| format!("0100007F:{:04X}", address.port());
    let server = hex(follower.stream.peer_addr().unwrap());
    let client = hex(follower.stream.local_addr().unwrap());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    // sl, local_address, rem_address, st, tx_queue:rx_queue
    let mut rows = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row[1] == server && row[2] == client);
    let (unsent, _) = row.expect("the connection")[4].split_once(':').unwrap();
    u64::from_str_radix(unsent, 16).unwrap()
}

#[test]
fn a_reader_that_takes_nothing_has_little_kept_for_it() {
    const PAIRS: usize = 800;
    let app = Server::start(Store::Memory);
    app.create("printer", 0).expect(201);
    let stuck = Follower::of(&app, "printer");
    let long = "x".repeat(250);
    let lock = app
        .lock("printer/s")
        .json(&json!({"owner": long, "reason": long}));
    let mut connection = app.connect();
    let start = Instant::now();
    let mut pairs = 0;
    // For longer than the server needs to send what there is to send.
    while pairs < PAIRS || start.elapsed() < Duration::from_secs(3) {
        let ticket = connection.exchange(&lock).ticket();
        let unlocked = connection.exchange(&app.unlock("printer/s", &ticket));
        assert_eq!(unlocked.status, 200);
        pairs += 1;
    }
    let unsent = unsent(&stuck);
    assert!(0 < unsent && unsent < 256 << 10, "{unsent} bytes");
    // It is told what it missed, or still finds it, when it goes on.
    let mut follower = stuck;
    follower.read_until("event: released");
}

api_tests! {
    fn each_change_of_a_lock_or_a_document_is_an_event(store) {
        let app = Server::start(store);
        let mut follower = Follower::of(&app, "printer");
        app.create("printer", 0).expect(201);
        let body = json!({"owner": "worker-7", "reason": "nightly"});
        let granted = app.lock("printer/s").json(&body).granted();
        app.put("printer/s", "{}").ticket(&granted.ticket()).expect(204);
        let waiting = app.queue("printer/s");
        app.unlock("printer/s", &waiting).expect(200);
        app.unlock("printer/s", &granted.ticket()).expect(200);
        app.hold("printer/s");
        app.force_unlock("printer").json(&json!({"reason": "it hangs"})).expect(200);
        app.delete("printer").expect(204);
        let events = follower.events_until("deleted");
        assert_eq!(
            kinds(&events),
            ["created", "granted", "written", "queued", "left", "released", "granted", "forced_off", "deleted"]
        );
        let grant = &events[1].1;
        assert_eq!(grant["name"], "printer");
        assert_eq!(grant["owner"], "worker-7");
        assert_eq!(grant["reason"], "nightly");
        assert_eq!(grant["mode"], "exclusive");
        assert_eq!(grant["fencingToken"], granted.token());
        assert_eq!(grant["client"], "127.0.0.1");
        assert!(grant["at"].is_string());
        assert_eq!(events[2].1["selector"], "s");
        assert_eq!(events[7].1["reason"], "it hangs");
        assert!(!follower.text.contains(&granted.ticket()), "never a ticket");
    }

    fn a_write_that_releases_the_lock_is_told_before_the_release_and_the_next_grant(store) {
        let app = Server::start(store);
        let mut follower = Follower::of(&app, "printer");
        app.create("printer", 0).expect(201);
        // The first write makes the document, the second one replaces it.
        for data in ["1", "2"] {
            let (holder, _) = app.hold("printer/s");
            let mut waiting = app.lock("printer/s").query("wait=60").open();
            until("it waits", || app.waiting("printer") == 1);
            app.put("printer/s", data).ticket(&holder).query("unlock=1").expect(204);
            let next = waiting.answer().ticket();
            app.unlock("printer/s", &next).expect(200);
        }
        app.delete("printer").expect(204);
        let round = ["granted", "queued", "written", "released", "granted", "released"];
        let all = [&["created"][..], &round, &round, &["deleted"]].concat();
        assert_eq!(kinds(&follower.events_until("deleted")), all);
    }

    fn a_deletion_that_releases_the_lock_is_told_before_the_release_and_the_next_grant(store) {
        let app = Server::start_with(store, &[("COMPATIBILITY", "php")]);
        let mut follower = Follower::of(&app, "printer");
        app.create("printer", 60).expect(201);
        app.put("printer/s", "1").expect(204);
        let (holder, _) = app.hold("printer/s");
        let mut waiting = app.lock("printer/s").query("wait=60").open();
        until("it waits", || app.waiting("printer") == 1);
        app.delete("printer/s").ticket(&holder).expect(204);
        assert_eq!(waiting.answer().status, 200);
        app.force_unlock("printer").expect(200);
        let told = ["created", "written", "granted", "queued", "deleted", "released", "granted", "forced_off"];
        assert_eq!(kinds(&follower.events_until("forced_off")), told);
    }

    fn a_resource_that_a_write_creates_is_told_before_the_write(store) {
        let app = Server::start(store);
        let mut follower = Follower::of(&app, "printer");
        let create = app.put("printer/s", "1").query("create=1");
        create.clone().header("If-Match", "*").refused(412, "precondition_failed");
        create.expect(204);
        app.put("printer/s", "2").query("create=1").expect(204);
        app.delete("printer").expect(204);
        let events = follower.events_until("deleted");
        assert_eq!(kinds(&events), ["created", "written", "written", "deleted"]);
        assert_eq!((&events[0].1["name"], &events[0].1["key"]), (&json!("printer"), &json!("write")));
    }

    fn a_waiter_that_is_removed_left_and_it_is_told_by_whom(store) {
        let app = Server::start(store);
        let mut follower = Follower::of(&app, "printer");
        app.create("printer", 0).expect(201);
        app.hold("printer/s");
        app.lock("printer/s").json(&json!({"owner": "worker-9", "reason": "nightly"})).expect(200);
        let id = app.describe("printer").expect(200).json()["queue"][0]["id"].clone();
        app.force_unlock("printer").json(&json!({"reason": "it hangs", "waiter": id})).expect(200);
        let events = follower.events_until("left");
        assert_eq!(kinds(&events), ["created", "granted", "queued", "left"]);
        let left = &events[3].1;
        assert_eq!(left["owner"], "worker-9");
        assert_eq!(left["reason"], "it hangs");
        assert_eq!(left["key"], "admin");
    }

    fn a_wait_is_told_when_it_begins_and_how_it_ends(store) {
        let app = Server::start(store);
        let mut follower = Follower::of(&app, "printer");
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let lock = |owner: &str| app.lock("printer/s").query("wait=60").json(&json!({"owner": owner}));
        let vanishing = lock("first").open();
        let events = follower.events_until("queued");
        assert_eq!(kinds(&events), ["created", "granted", "queued"]);
        assert_eq!(events[2].1["owner"], "first");
        vanishing.hang_up();
        let left = &follower.events_until("left")[3].1;
        assert_eq!((&left["owner"], &left["mode"]), (&json!("first"), &json!("exclusive")));
        // With a key its place is stored at once.
        let mut waiting = lock("second").header("Idempotency-Key", "attempt").open();
        until("it waits", || app.waiting("printer") == 1);
        app.unlock("printer/s", &holder).expect(200);
        waiting.answer();
        while follower.events().len() < 7 {
            follower.read_more();
        }
        let told = follower.events();
        assert_eq!(
            kinds(&told),
            ["created", "granted", "queued", "left", "queued", "released", "granted"]
        );
        assert_eq!(told[4].1["owner"], "second");
    }

    fn a_promotion_is_a_grant_with_a_new_token(store) {
        let app = Server::start(store);
        let mut follower = Follower::of(&app, "printer");
        app.create("printer", 0).expect(201);
        let shared = app.lock("printer/s").json(&json!({"mode": "shared"})).granted();
        let promoted = app.lock("printer/s").ticket(&shared.ticket()).json(&json!({"mode": "exclusive"}));
        let promoted = promoted.granted();
        app.unlock("printer/s", &shared.ticket()).expect(200);
        let events = follower.events_until("released");
        assert_eq!(kinds(&events), ["created", "granted", "granted", "released"]);
        assert_eq!(events[2].1["fencingToken"], promoted.token());
        assert_eq!(events[2].1["mode"], "exclusive");
    }

    fn a_lease_that_expires_is_one_too_and_names_without_the_prefix_are_not_told(store) {
        let app = Server::start(store);
        let mut follower = Follower::of(&app, "a");
        for name in ["b", "a"] {
            app.create(name, 0).expect(201);
            app.lock(&format!("{name}/s")).json(&json!({"ttl": 0.05})).granted();
        }
        let events = follower.events_until("expired");
        assert_eq!(kinds(&events), ["created", "granted", "expired"]);
        assert!(events.iter().all(|(_, event)| event["name"] == "a"));
    }

    fn a_key_is_needed(store) {
        let app = Server::start(store);
        app.call("GET", "/events").no_key().refused(401, "key_missing");
        app.call("POST", "/events").key(LOCK).expect(405);
    }

    fn readers_that_read_nothing_hold_up_nobody(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let idle: Vec<Follower> = (0..50).map(|_| Follower::of(&app, "")).collect();
        for _ in 0..100 {
            let (ticket, _) = app.hold("printer/s");
            app.unlock("printer/s", &ticket).expect(200);
        }
        for mut follower in idle {
            follower.stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            follower.read_until("event: released");
        }
    }
}
