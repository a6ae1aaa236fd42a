//! Several instances on one database, all of which answer: what a client behind a balancer that asks them in turn
//! sees, and what it does not see.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::instance::{LEASE, has_all, launch, metric, name_at, serving, setup, share, slots};
use crate::support::{
    ADMIN, Connection, DEADLINE, Database, Program, Proxy, State, free_port, until,
};
use crate::{turn, wait};

/// Beyond the lease and the hold, on any machine.
const SOON: Duration = Duration::from_secs(20);

/// The one whose names the tests ask for, and one that is asked for them.
fn pair(database: &Database) -> (Program, Program) {
    let owner = serving(&database.options());
    has_all(&owner);
    let front = launch(&database.options());
    share(&[&owner, &front]);
    (owner, front)
}

/// A resource of a name that `owner` answers for, made through `front`: the name, and the path of its lock and data.
fn lock_at(database: &Database, owner: &Program, front: &Program) -> (String, String) {
    let name = name_at(database, owner);
    front.prepare(&name);
    let path = format!("{name}/s");
    (name, path)
}

#[test]
fn a_lock_taken_at_one_is_refused_at_the_other_and_released_there() {
    let Some(database) = Database::new() else {
        return;
    };
    let (owner, front) = pair(&database);
    let (printer, at) = &lock_at(&database, &owner, &front);
    assert_eq!(owner.data(at), r#"{"v":1}"#);
    let (ticket, token) = owner.hold(at);
    let refused = front.lock(at).query("queue=0").send();
    assert_eq!((refused.status, refused.code().as_str()), (409, "locked"));
    assert_eq!(front.unlock(at, &ticket).send().status, 200);
    let (ticket, later) = front.hold(at);
    assert!(later > token);
    let refused = owner.lock(at).query("queue=0").send();
    assert_eq!((refused.status, refused.code().as_str()), (409, "locked"));
    let written = front.put(at, "[2]").ticket(&ticket).send();
    assert_eq!(written.status, 204);
    assert_eq!(
        written.header("X-Fencing-Token"),
        Some(later.to_string().as_str())
    );
    assert_eq!(owner.renew(at, &ticket).send().token(), later);
    assert_eq!(owner.unlock(at, &ticket).send().status, 200);
    assert!(!front.is_locked(printer));
    assert!(metric(&front, "forwarded_requests_total") > 0);
    assert!(metric(&owner, "forwarded_requests_received_total") > 0);
}

#[test]
fn every_route_answers_at_both_as_it_does_at_one() {
    let Some(database) = Database::new() else {
        return;
    };
    let (owner, front) = pair(&database);
    for name in ["a", "b", "c"] {
        front.prepare(name);
    }
    let (ticket, _) = front.hold("b/s");
    for path in [
        "/resource",
        "/resource?sort=held&limit=2",
        "/resource?locked=1",
        "/resource?limit=1&after=a",
        "/resource/b",
        "/resource/b?selectors=10",
        "/resource/unknown",
        "/resource/a/s?lock=0",
        "/resource/a/s?lock=0&raw=1",
        "/resource/a/unknown?lock=0",
        "/history/b",
        "/history/unknown",
    ] {
        let (here, there) = (
            owner.call("GET", path).send(),
            front.call("GET", path).send(),
        );
        assert_eq!(
            (here.status, here.code()),
            (there.status, there.code()),
            "{path}"
        );
        let stable = |text: &str| -> String {
            let mut lines = text.replace(",\"", ",\n\"");
            lines = lines
                .lines()
                .filter(|line| !line.contains("expires") && !line.contains("renewedAt"))
                .collect();
            lines
        };
        assert_eq!(stable(here.text()), stable(there.text()), "{path}");
        assert_eq!(here.header("Etag"), there.header("Etag"), "{path}");
    }
    let status = |instance: &Program| {
        let mut status = instance.call("GET", "/status").expect(200).json();
        status["now"].take();
        let instances = status["instances"].as_array_mut().unwrap();
        let you: Vec<bool> = instances
            .iter_mut()
            .map(|one| one["you"].take().as_bool().unwrap())
            .collect();
        (status, you)
    };
    let (told, you) = status(&front);
    let (told_there, you_there) = status(&owner);
    assert_eq!(told, told_there);
    let turned: Vec<bool> = you.iter().map(|is_front| !is_front).collect();
    assert_eq!((you.len(), &you_there), (2, &turned));
    for instance in told["instances"].as_array().unwrap() {
        let fields: Vec<&String> = instance.as_object().unwrap().keys().collect();
        assert_eq!(
            fields,
            ["id", "address", "you", "state", "version", "slots"]
        );
        assert_eq!(instance["state"], "serving");
        assert_eq!(instance["version"], env!("CARGO_PKG_VERSION"));
    }
    let slots = told["instances"].as_array().unwrap().iter();
    assert_eq!(
        slots.filter_map(|one| one["slots"].as_u64()).sum::<u64>(),
        1024
    );
    assert_eq!(told["locks"]["held"], 1);
    let gone = front.unlock("b/s", &ticket).send();
    assert_eq!(gone.status, 200);
    assert_eq!(front.delete("c").send().status, 204);
    front.delete("c").refused(404, "resource_unknown");
    front
        .call("GET", "/resource/a")
        .key("wrong")
        .refused(401, "key_unknown");
    front
        .lock("a/s")
        .query("wait=soon")
        .refused(400, "malformed");
    let forced = front.hold("a/s").1;
    let force = front
        .force_unlock("a")
        .key(ADMIN)
        .body(r#"{"reason":"it hangs"}"#);
    assert_eq!(force.send().status, 200);
    let history = owner.call("GET", "/history/a").expect(200).json();
    assert_eq!(history["leases"][0]["fencingToken"], forced);
}

#[test]
fn a_waiter_at_one_is_granted_by_a_release_at_the_other() {
    let Some(database) = Database::new() else {
        return;
    };
    let (owner, front) = pair(&database);
    let (_, at) = &lock_at(&database, &owner, &front);
    let (ticket, token) = owner.hold(at);
    let mut first = front.wait(at);
    let mut second = owner.wait(at);
    let mut third = front.wait(at);
    assert_eq!(front.unlock(at, &ticket).send().status, 200);
    let mut last = token;
    for (waiter, asked) in [
        (&mut first, &owner),
        (&mut second, &front),
        (&mut third, &owner),
    ] {
        let granted = waiter.answer();
        assert_eq!(granted.json()["locked"], true, "{granted:?}");
        assert!(granted.token() > last);
        last = granted.token();
        assert_eq!(asked.unlock(at, &granted.ticket()).send().status, 200);
    }
}

#[test]
fn a_client_that_hangs_up_leaves_the_queue_wherever_it_asked() {
    let Some(database) = Database::new() else {
        return;
    };
    let (owner, front) = pair(&database);
    let (printer, at) = &lock_at(&database, &owner, &front);
    let (ticket, token) = owner.hold(at);
    let leaving = front.wait(at);
    let mut staying = front.wait(at);
    assert_eq!(owner.waiting(printer), 2);
    leaving.hang_up();
    until("it is noticed", || owner.waiting(printer) == 1);
    assert_eq!(owner.unlock(at, &ticket).send().status, 200);
    assert_eq!(
        staying.answer().token(),
        token + 1,
        "nobody was granted in between"
    );
}

#[test]
fn all_requests_of_an_instance_that_dies_vanish_at_once() {
    let Some(database) = Database::new() else {
        return;
    };
    let (owner, mut front) = pair(&database);
    let (printer, at) = &lock_at(&database, &owner, &front);
    let (ticket, token) = owner.hold(at);
    let _lost: Vec<Connection> = (0..3).map(|_| front.wait(at)).collect();
    let mut staying = owner.wait(at);
    front.kill();
    let killed = Instant::now();
    until("they have vanished", || owner.waiting(printer) == 1);
    println!("vanished {:?} after the kill", killed.elapsed());
    assert_eq!(owner.unlock(at, &ticket).send().status, 200);
    assert_eq!(
        staying.answer().token(),
        token + 1,
        "nobody was granted in between"
    );
}

#[test]
fn when_the_owner_is_killed_requests_are_held_and_waiters_keep_their_places() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let (mut owner, front) = pair(&database);
    let third = launch(&database.options());
    share(&[&owner, &front, &third]);
    let (printer, at) = &lock_at(&database, &owner, &front);
    let (ticket, token) = front.hold(at);
    let mut first = front.wait(at);
    let mut second = third.wait(at);
    let mut last = front.wait(at);
    owner.kill();
    let killed = Instant::now();
    // Asked at once, answered after the take-over: no client notices more than a pause.
    assert_eq!(front.data(at), r#"{"v":1}"#);
    println!("answered {:?} after the kill", killed.elapsed());
    assert!(killed.elapsed() < LEASE + SOON);
    until("all have asked again", || third.waiting(printer) == 3);
    let renewed = third.renew(at, &ticket).settled();
    assert_eq!(renewed.token(), token);
    assert_eq!(front.unlock(at, &ticket).settled().status, 200);
    let mut before = token;
    for waiter in [&mut first, &mut second, &mut last] {
        let granted = waiter.answer();
        assert_eq!(granted.status, 200, "{granted:?}");
        assert_eq!(granted.json()["locked"], true, "{granted:?}");
        assert!(granted.token() > before);
        before = granted.token();
        let unlocked = third.unlock(at, &granted.ticket()).settled();
        assert_eq!(unlocked.status, 200);
    }
}

#[test]
fn metrics_say_what_each_instance_has_and_how_many_requests_are_held() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let (mut owner, front) = pair(&database);
    let (_, at) = &lock_at(&database, &owner, &front);
    fn instances(instance: &Program) -> u64 {
        metric(instance, "instances")
    }
    assert_eq!((instances(&owner), instances(&front)), (2, 2));
    assert_eq!(metric(&front, "forwarded_requests_held"), 0);
    owner.kill();
    let mut held = front.lock(at).open();
    let leaving = front.lock(at).query("queue=0").open();
    until("they are held", || {
        metric(&front, "forwarded_requests_held") == 2
    });
    leaving.hang_up();
    assert_eq!(held.answer().json()["locked"], true);
    until("none is held", || {
        metric(&front, "forwarded_requests_held") == 0
    });
    assert_eq!((instances(&front), slots(&front)), (1, 1024));
    assert!(metric(&front, "forwarded_retries_total") > 0);
}

#[test]
fn when_the_owner_is_told_to_stop_no_client_of_another_instance_sees_an_error() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let (mut owner, front) = pair(&database);
    let third = launch(&database.options());
    share(&[&owner, &front, &third]);
    let printer = &name_at(&database, &owner);
    let at = &format!("{printer}/s");
    let scanner = &name_at(&database, &owner);
    let beside = &format!("{scanner}/s");
    front.prepare(printer);
    front.prepare(scanner);
    let (ticket, token) = front.hold(at);
    let mut first = front.wait(at);
    let mut second = third.wait(at);
    owner.signal(Signal::TERM);
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed() < Duration::from_secs(2) || rounds < 20 {
        rounds += 1;
        let (asked, other) = if rounds % 2 == 0 {
            (&front, &third)
        } else {
            (&third, &front)
        };
        let locked = asked.lock(beside).send();
        assert_eq!(locked.status, 200, "{locked:?}");
        let unlocked = other.unlock(beside, &locked.ticket()).send();
        assert_eq!(unlocked.status, 200, "{unlocked:?}");
        let written = asked.put(beside, &rounds.to_string()).send();
        assert_eq!(written.status, 204, "{written:?}");
    }
    println!("{rounds} rounds over the hand-over");
    assert!(owner.end().success());
    assert_eq!(front.unlock(at, &ticket).send().status, 200);
    let mut before = token;
    for waiter in [&mut first, &mut second] {
        let granted = waiter.answer();
        assert_eq!(granted.status, 200, "{granted:?}");
        assert!(granted.token() > before);
        before = granted.token();
        assert_eq!(front.unlock(at, &granted.ticket()).send().status, 200);
    }
}

#[test]
fn an_instance_that_is_told_to_stop_ends_what_waits_there() {
    let Some(database) = Database::new() else {
        return;
    };
    let (owner, mut front) = pair(&database);
    let (printer, at) = &lock_at(&database, &owner, &front);
    let (_ticket, _) = owner.hold(at);
    let mut waiting = front.wait(at);
    front.signal(Signal::TERM);
    let refused = waiting.answer();
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (503, "shutting_down")
    );
    assert!(front.end().success());
    until("its place is gone", || owner.waiting(printer) == 0);
}

#[test]
fn whoever_waits_with_an_idempotency_key_at_an_instance_that_stops_keeps_its_place() {
    let Some(database) = Database::new() else {
        return;
    };
    let (mut owner, front) = pair(&database);
    let (printer, at) = &lock_at(&database, &owner, &front);
    let (ticket, token) = front.hold(at);
    let lock = |instance: &Program| instance.lock(at).header("idempotency-key", "attempt-1");
    let mut waiting = owner.wait_with(lock(&owner));
    owner.signal(Signal::TERM);
    let refused = waiting.answer();
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (503, "shutting_down")
    );
    assert!(owner.end().success());
    assert_eq!(front.waiting(printer), 1);
    let mut again = lock(&front).query("wait=60").open();
    assert_eq!(front.unlock(at, &ticket).send().status, 200);
    let granted = again.answer();
    assert_eq!(granted.json()["locked"], true, "{granted:?}");
    assert_eq!(granted.token(), token + 1);
}

/// The one whose names the tests ask for, one that is asked for them, and what is between the two.
fn pair_with_a_proxy_between(database: &Database) -> (Program, Program, Proxy) {
    let port = free_port();
    let proxy = Proxy::to_peer(port);
    let owner = setup(&database.options())
        .with("PEER_PORT", &port.to_string())
        .with("ADVERTISE_ADDRESS", &proxy.address().to_string())
        .launch();
    has_all(&owner);
    let front = launch(&database.options());
    share(&[&owner, &front]);
    (owner, front, proxy)
}

#[test]
fn a_cut_link_is_told_apart_from_a_dead_owner_and_mended() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let (owner, front, proxy) = pair_with_a_proxy_between(&database);
    let (printer, at) = &lock_at(&database, &owner, &front);
    let (ticket, _) = front.hold(at);
    let leaving = front.wait(at);
    proxy.set(State::Down);
    until("they have vanished", || owner.waiting(printer) == 0);
    until("it says so", || {
        front.ready().send().code() == "owner_unreachable"
    });
    front.read(at).refused(503, "owner_unreachable");
    assert_eq!(metric(&front, "peers_unreachable"), 1);
    assert_eq!((slots(&owner), slots(&front)), (512, 512), "nothing moves");
    front.logged(&[&proxy.address().to_string(), "cannot be reached"]);
    drop(leaving);
    proxy.set(State::Up);
    until("it is reached again", || front.is_ready());
    assert_eq!(metric(&front, "peers_unreachable"), 0);
    assert_eq!(front.unlock(at, &ticket).settled().status, 200);
}

#[test]
fn an_instance_that_does_not_reach_itself_where_the_others_look_for_it_says_so() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let owner = serving(&database.options());
    has_all(&owner);
    let nowhere = format!("127.0.0.1:{}", free_port());
    let lost = setup(&database.options())
        .with("ADVERTISE_ADDRESS", &nowhere)
        .launch();
    lost.logged(&["does not reach itself", &nowhere, "ADVERTISE_ADDRESS"]);
    owner.logged(&["cannot be reached", &nowhere]);
    assert_eq!(slots(&lost), 0);
}

#[test]
fn a_link_on_which_nothing_is_heard_ends_and_its_requests_with_it() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let (owner, front) = pair(&database);
    let (printer, at) = &lock_at(&database, &owner, &front);
    let (_ticket, _) = owner.hold(at);
    let _waiting = front.wait(at);
    front.pause();
    until("it has vanished", || owner.waiting(printer) == 0);
    front.resume();
    until("it asks again", || owner.waiting(printer) == 1);
}

#[test]
fn whoever_does_not_know_the_secret_of_the_database_is_told_nothing() {
    let Some(database) = Database::new() else {
        return;
    };
    let owner = serving(&database.options());
    let addresses = wait(database.texts("SELECT address FROM resource_instance"));
    // A check of the port: it is not refused.
    drop(TcpStream::connect(&addresses[0]).unwrap());
    let mut stranger = TcpStream::connect(&addresses[0]).unwrap();
    stranger.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut hello = b"srs-peer".to_vec();
    hello.extend([0, 1, 0, 1]);
    hello.extend([7; 16]);
    stranger.write_all(&hello).unwrap();
    let mut answer = [0; 52];
    stranger.read_exact(&mut answer).unwrap();
    stranger.write_all(&[0; 32]).unwrap();
    let mut rest = Vec::new();
    let _ = stranger.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{rest:?}");
    owner.logged(&["does not know the secret"]);
    assert_eq!(metric(&owner, "peer_connections_refused_total"), 1);
    owner.prepare("printer");
}

#[test]
fn events_come_through_another_instance_and_end_with_the_owner() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let (mut owner, front) = pair(&database);
    let (printer, at) = &lock_at(&database, &owner, &front);
    let prefix = format!("prefix={printer}");
    let mut events = front.call("GET", "/events").query(&prefix).open();
    let head = until_text(&mut events, ": following");
    assert!(head.contains("200 OK"), "{head}");
    let (ticket, token) = owner.hold(at);
    front.prepare("other");
    let seen = until_text(&mut events, "granted");
    assert!(seen.contains("granted"), "{seen}");
    let unlock = front.unlock(at, &ticket);
    assert_eq!(unlock.send().status, 200);
    let seen = until_text(&mut events, "released");
    assert!(
        seen.contains(&format!("\"fencingToken\":{token}")),
        "{seen}"
    );
    assert!(
        seen.contains("\"client\":\"127.0.0.1\"") || seen.contains("\"key\""),
        "{seen}"
    );
    assert!(!seen.contains("other"), "{seen}");
    owner.kill();
    // The last chunk: the client asks anew.
    until_text(&mut events, "0\r\n\r\n");
    has_all(&front);
}

/// As many large ones as a pair of sockets takes, and more than the feed keeps for a reader that does not look.
const TOO_MANY_EVENTS: usize = 14_000;

/// A connection on which little is on its way.
fn narrow(address: SocketAddr) -> Connection {
    let connecting = async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        socket.connect(address).await?.into_std()
    };
    let stream = wait(connecting).unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    Connection::over(stream)
}

#[test]
fn whoever_reads_events_of_another_instance_too_slowly_is_told_how_many_it_missed() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let (owner, front) = pair(&database);
    let printer = &name_at(&database, &owner);
    let mut events = narrow(front.address());
    events.write(&front.call("GET", "/events").bytes());
    until_text(&mut events, ": following");
    let mut taken = Vec::new();
    std::thread::scope(|scope| {
        let busy = (0..16).map(|_| {
            let (owner, busy) = (&owner, name_at(&database, &owner));
            scope.spawn(move || {
                let path = format!("{busy}/s");
                let long = "\"".repeat(200);
                let asked = json!({"owner": long, "reason": long});
                owner.prepare(&busy);
                let lock = owner.lock(&path).json(&asked);
                let mut connection = owner.connect();
                // Granted and released.
                for _ in 0..TOO_MANY_EVENTS / 16 / 2 {
                    let ticket = connection.exchange(&lock).ticket();
                    let unlock = owner.unlock(&path, &ticket);
                    assert_eq!(connection.exchange(&unlock).status, 200);
                }
            })
        });
        let busy: Vec<_> = busy.collect();
        // Whoever takes nothing at all for 20 s is given up.
        while busy.iter().any(|thread| !thread.is_finished()) {
            let mut chunk = [0; 1024];
            events.stream.read_exact(&mut chunk).unwrap();
            taken.extend_from_slice(&chunk);
            // However slow the others are, it must not keep up with them.
            std::thread::sleep(Duration::from_millis(1_000));
        }
    });
    // It may have been told while it was busy.
    until_text_after(&mut events, taken, "event: lagged");
    front.prepare(printer);
    until_text(&mut events, printer);
}

#[test]
fn documents_on_their_way_do_not_hold_up_a_lock() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let (owner, front, proxy) = pair_with_a_proxy_between(&database);
    let printer = &name_at(&database, &owner);
    let at = &format!("{printer}/s");
    let archive = &name_at(&database, &owner);
    front.prepare(printer);
    front.prepare(archive);
    let _ = front.hold(at);
    let before = metric(&front, "forwarded_requests_total");
    // So much at a time for each connection: 64 KiB.
    proxy.set(State::Slow(Duration::from_millis(100)));
    let document = format!("\"{}\"", "x".repeat(1 << 20));
    let path = |writer| format!("{archive}/s{writer}");
    let mut writes: Vec<Connection> = (0..4)
        .map(|writer| front.put(&path(writer), &document).open())
        .collect();
    until("they are on their way", || {
        metric(&front, "forwarded_requests_total") == before + 4
    });
    let refused = front.lock(at).query("queue=0").send();
    assert_eq!(refused.code(), "locked", "{refused:?}");
    // Had it waited behind them, all of them would be there.
    let arrived = metric(&owner, "forwarded_requests_received_total");
    assert!(arrived < metric(&front, "forwarded_requests_total"));
    proxy.set(State::Up);
    for write in &mut writes {
        assert_eq!(write.answer().status, 204);
    }
    assert_eq!(owner.data(&path(3)), document);
}

/// Everything that comes until this does.
fn until_text(connection: &mut Connection, text: &str) -> String {
    until_text_after(connection, Vec::new(), text)
}

/// As [`until_text`], where this came before.
fn until_text_after(connection: &mut Connection, mut seen: Vec<u8>, text: &str) -> String {
    // A stream of events goes on for ever, with a comment now and then.
    let until = Instant::now() + Duration::from_secs(120);
    let mut chunk = [0; 64 << 10];
    let mut from = 0;
    while Instant::now() < until {
        let mut windows = seen[from..].windows(text.len());
        if windows.any(|window| window == text.as_bytes()) {
            return String::from_utf8_lossy(&seen).into_owned();
        }
        from = seen.len().saturating_sub(text.len());
        let count = connection.stream.read(&mut chunk).unwrap();
        assert!(count > 0, "it ended: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&chunk[..count]);
    }
    panic!("no {text} in {}", String::from_utf8_lossy(&seen));
}

#[test]
fn the_log_of_the_owner_names_the_client_and_the_request_of_another_instance() {
    let Some(database) = Database::new() else {
        return;
    };
    let (owner, front) = pair(&database);
    let (_, at) = &lock_at(&database, &owner, &front);
    let lock = front.lock(at).header("x-request-id", "from-the-other-one");
    assert_eq!(lock.send().status, 200);
    let line = owner.logged(&["granted", "from-the-other-one"]);
    assert!(
        line.contains("client=127.0.0.1") && line.contains("key="),
        "{line}"
    );
}

#[test]
fn a_change_whose_answer_is_lost_is_not_made_twice() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let (owner, front, proxy) = pair_with_a_proxy_between(&database);
    let printer = &name_at(&database, &owner);
    let at = &format!("{printer}/s");
    let scanner = &name_at(&database, &owner);
    let there = &format!("{scanner}/s");
    front.prepare(printer);
    front.prepare(scanner);
    proxy.hold_answers(true);
    let mut write = front.put(there, "2").open();
    let mut lock = front.lock(at).open();
    until("it is written", || owner.data(there) == "2");
    until("it is locked", || owner.is_locked(printer));
    proxy.set(State::Down);
    let lost = write.answer();
    assert_eq!((lost.status, lost.code().as_str()), (503, "answer_lost"));
    proxy.hold_answers(false);
    proxy.set(State::Up);
    let granted = lock.answer();
    assert_eq!(granted.json()["locked"], true, "{granted:?}");
    assert_eq!(owner.unlock(at, &granted.ticket()).send().status, 200);
    assert_eq!(owner.data(there), "2");
    assert!(!owner.is_locked(printer));
}

#[test]
fn a_request_that_hangs_at_an_owner_whose_database_is_silent_goes_on_at_the_next_one() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let proxy = Proxy::to(&database.options());
    // The store's own time-out must not be what ends it.
    let owner = setup(&proxy.between(database.options()))
        .with("STORE_TIMEOUT_SECONDS", "60")
        .launch();
    has_all(&owner);
    let front = launch(&database.options());
    share(&[&owner, &front]);
    let (_, at) = &lock_at(&database, &owner, &front);
    proxy.set(State::Hung);
    let mut lock = front.lock(at).open();
    let mut write = front.put(at, "2").open();
    let granted = lock.answer();
    assert_eq!(granted.json()["locked"], true, "{granted:?}");
    // Which of the two is said hangs on whether the owner still says anything.
    let lost = write.answer();
    let unknown = ["answer_lost", "store_unavailable"].contains(&lost.code().as_str());
    assert!(lost.status == 503 && unknown, "{lost:?}");
    has_all(&front);
    assert_eq!(front.unlock(at, &granted.ticket()).send().status, 200);
    proxy.set(State::Up);
    share(&[&owner, &front]);
    assert_eq!(owner.data(at), front.data(at));
}

/// Neither of the two can know how the other one is, and one is back first.
#[test]
fn after_an_outage_that_both_had_each_still_has_its_names() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let (to_owner, to_front) = (
        Proxy::to(&database.options()),
        Proxy::to(&database.options()),
    );
    // The owner has that long to come back.
    let lease = 2 * LEASE;
    let launch = |proxy: &Proxy| {
        let setup = setup(&proxy.between(database.options()));
        let seconds = lease.as_secs().to_string();
        setup.with("INSTANCE_LEASE_SECONDS", &seconds).launch()
    };
    let owner = launch(&to_owner);
    has_all(&owner);
    let front = launch(&to_front);
    share(&[&owner, &front]);
    owner.prepare("printer");
    let lock = owner.lock("printer/s").body(r#"{"ttl":3000}"#);
    let (ticket, token) = owner.hold_with(lock);
    let named = || {
        let sql =
            "SELECT address FROM resource_slot JOIN resource_instance ON id = owner ORDER BY slot";
        wait(database.texts(sql))
    };
    let before = named();
    let is_away = |instance: &Program| instance.ready().send().code() == "store_unavailable";
    for state in [State::Down, State::Hung] {
        to_front.set(state);
        to_owner.set(state);
        until("both notice", || is_away(&owner) && is_away(&front));
        std::thread::sleep(lease);
        to_front.set(State::Up);
        // By what this one sees first, the other has been silent for longer than its lease.
        until("it has looked", || !is_away(&front));
        to_owner.set(State::Up);
        until("both are back", || owner.is_ready() && front.is_ready());
        share(&[&owner, &front]);
        assert!(named() == before, "others than before, after {state:?}");
    }
    let said = front.lines();
    assert!(
        !said.iter().any(|line| line.contains("is silent")),
        "{said:#?}"
    );
    let kept = front.renew("printer/s", &ticket).settled();
    assert_eq!((kept.status, kept.token()), (200, token), "{kept:?}");
}

/// Hands on every byte to this port, and keeps a copy. Where to connect, and the copy.
fn overheard(port: u16) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let copy = Arc::<Mutex<Vec<u8>>>::default();
    let heard = copy.clone();
    std::thread::spawn(move || {
        while let Ok((here, _)) = listener.accept() {
            let there = TcpStream::connect(("127.0.0.1", port)).unwrap();
            for (mut from, mut to) in [
                (here.try_clone().unwrap(), there.try_clone().unwrap()),
                (there, here),
            ] {
                let heard = heard.clone();
                std::thread::spawn(move || {
                    let mut bytes = [0; 4096];
                    while let Ok(length @ 1..) = from.read(&mut bytes) {
                        heard.lock().unwrap().extend(&bytes[..length]);
                        if to.write_all(&bytes[..length]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    (address, copy)
}

#[test]
fn where_the_owner_has_a_certificate_nobody_in_between_reads_what_crosses() {
    for tls in [false, true] {
        let Some(database) = Database::new() else {
            return;
        };
        let port = free_port();
        let (address, copy) = overheard(port);
        let setup = setup(&database.options())
            .with("PEER_PORT", &port.to_string())
            .with("ADVERTISE_ADDRESS", &address.to_string());
        let owner = if tls { setup.tls() } else { setup }.launch();
        // It serves, whatever it speaks.
        owner.logged(&["this instance shares the database"]);
        let front = launch(&database.options());
        until("it has its share", || slots(&front) == 512);
        let (printer, at) = &lock_at(&database, &owner, &front);
        let (ticket, _) = front.hold(at);
        assert_eq!(front.unlock(at, &ticket).send().status, 200);
        let copy = copy.lock().unwrap();
        let name = printer.as_bytes();
        let is_read = copy.windows(name.len()).any(|bytes| bytes == name);
        assert_eq!(is_read, !tls, "{} bytes crossed", copy.len());
    }
}
