//! Every cap answers with a clear status, and a client at its caps is in nobody's way.

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{
    Answer, Connection, LOCK, Program, READ, Setup, StopWhenDropped, WRITE, eventually, request,
    until,
};

fn number(answer: &Answer, header: &str) -> u64 {
    let text = answer.header(header);
    let text = text.unwrap_or_else(|| panic!("no {header} in {answer:?}"));
    text.parse().unwrap()
}

/// Asks until the answer has this status.
#[track_caller]
fn until_status(status: u16, mut ask: impl FnMut() -> Answer) -> Answer {
    eventually("an answer of this status", || {
        Some(ask()).filter(|answer| answer.status == status)
    })
}

#[test]
fn a_client_beyond_its_rate_is_answered_429_and_told_when_to_come_back() {
    let server = Setup::new().with("RATE_LIMIT_PER_SECOND", "5").start();
    let mut client = server.connect();
    let mut ask = || client.ask("GET", "/resource", &[("x-api-key", READ)], "");
    let first = ask();
    assert_eq!(first.status, 200);
    assert_eq!(number(&first, "Ratelimit-Limit"), 5);
    assert_eq!(number(&first, "Ratelimit-Remaining"), 4);
    assert_eq!(number(&first, "Ratelimit-Reset"), 1);
    let limited = until_status(429, &mut ask);
    limited.assert_refused(429, "rate_limited");
    assert_eq!(number(&limited, "Ratelimit-Remaining"), 0);
    assert_eq!(number(&limited, "Retry-After"), 1);
    // The connection is kept, and the client is served again.
    until_status(200, ask);
}

#[test]
fn health_and_readiness_are_never_limited() {
    let server = Setup::new().with("RATE_LIMIT_PER_SECOND", "1").start();
    let mut client = server.connect();
    for _ in 0..50 {
        assert_eq!(client.ask("GET", "/health", &[], "").status, 200);
        assert_eq!(client.ask("GET", "/ready", &[], "").status, 200);
    }
}

/// The holder and the first waiter only get 429 for longer than lease and ticket live unless they are kept
/// alive by it.
#[test]
fn a_limit_costs_neither_a_lease_nor_a_place() {
    let server = Setup::new()
        .with("RATE_LIMIT_PER_SECOND", "1")
        .with("TICKET_TTL_SECONDS", "3")
        .with("CLAIM_SECONDS", "3")
        .start();
    until_status(201, || server.create("a", 0).send());
    let lock = |key: &str| {
        let lock = server.lock("a/b").key(key).body(r#"{"ttl":3}"#);
        until_status(200, || lock.send())
    };
    let held = lock(WRITE).ticket();
    let waiting = lock(LOCK).ticket();
    let (mut holder, mut waiter) = (server.connect(), server.connect());
    let mut limited = 0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(7) {
        // Twice a round, so that there is always one that is limited and counts in its stead.
        for _ in 0..2 {
            let holds = [("x-api-key", WRITE), ("X-Ticket", held.as_str())];
            let waits = [("x-api-key", LOCK), ("X-Ticket", waiting.as_str())];
            // A read: where it is not limited, it does not keep anything alive.
            holder.ask("GET", "/resource/a/b?lock=0", &holds, "");
            let answer = waiter.ask("GET", "/resource/a/b?lock=0", &waits, "");
            limited += usize::from(answer.status == 429);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(limited > 20, "{limited}");
    let headers = [("x-api-key", WRITE), ("X-Ticket", held.as_str())];
    assert_eq!(
        holder
            .ask("PUT", "/resource/a/b/unlock", &headers, "")
            .status,
        200
    );
    let mine = [("x-api-key", LOCK), ("X-Ticket", waiting.as_str())];
    let granted = until_status(200, || waiter.ask("PUT", "/resource/a/b/lock", &mine, ""));
    assert_eq!(granted.json()["locked"], true, "{granted:?}");
    assert_eq!(granted.header("X-Ticket"), Some(waiting.as_str()));
}

/// Its key was not used from there since the start, and somebody else at its address guesses keys.
#[test]
fn clients_behind_a_trusted_proxy_have_limits_of_their_own() {
    let server = Setup::new()
        .with("RATE_LIMIT_PER_SECOND", "1")
        .with("TRUSTED_PROXIES", "127.0.0.1")
        .start();
    let mut proxy = server.connect();
    let mut ask = |client: &str| {
        let headers = [("x-api-key", READ), ("X-Forwarded-For", client)];
        proxy.ask("GET", "/resource", &headers, "").status
    };
    for n in 1..30 {
        assert_eq!(ask(&format!("203.0.113.7, 192.0.2.{n}")), 200);
    }
    // What the client wrote itself does not make it another one.
    let mut n = 0;
    eventually("it is limited", || {
        n += 1;
        (ask(&format!("203.0.113.{}, 192.0.2.200", n % 250)) == 429).then_some(())
    });
}

#[test]
fn a_client_that_hammers_does_not_keep_another_from_its_answers() {
    let server = Setup::new().with("RATE_LIMIT_PER_SECOND", "200").start();
    server.create("a", 0).expect(201);
    let ended = AtomicBool::new(false);
    let refused = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut hammering = server.connect_from(9);
            while !ended.load(Ordering::Relaxed) {
                let answer = hammering.ask("GET", "/resource/a", &[("x-api-key", READ)], "");
                refused.fetch_add(usize::from(answer.status == 429), Ordering::Relaxed);
            }
        });
        let _ended = StopWhenDropped(&ended);
        let mut other = server.connect();
        let mut served = 0;
        eventually("both had their share", || {
            let answer = other.ask("GET", "/resource/a", &[("x-api-key", READ)], "");
            assert_eq!(answer.status, 200, "{answer:?}");
            served += 1;
            std::thread::sleep(Duration::from_millis(6));
            (served > 50 && refused.load(Ordering::Relaxed) > 50).then_some(())
        });
    });
}

#[test]
fn renew_and_unlock_with_a_right_key_are_never_limited() {
    let server = Setup::new().with("RATE_LIMIT_PER_SECOND", "1").start();
    until_status(201, || server.create("a", 0).send());
    let granted = until_status(200, || server.lock("a/b").key(LOCK).send());
    let ticket = granted.ticket();
    let mut client = server.connect();
    let ticket = ("X-Ticket", ticket.as_str());
    let headers = [("x-api-key", LOCK), ticket];
    for _ in 0..50 {
        let renewed = client.ask("PUT", "/resource/a/b/renew", &headers, "");
        assert_eq!(renewed.status, 200, "{renewed:?}");
    }
    until_status(429, || client.ask("GET", "/resource/a", &headers, ""));
    assert_eq!(
        client
            .ask("PUT", "/resource/a/b/unlock", &headers, "")
            .status,
        200
    );
    for wrong in [("x-api-key", "wrong"), ("x-api-key", READ)] {
        let headers = [wrong, ticket];
        until_status(429, || {
            client.ask("PUT", "/resource/a/b/renew", &headers, "")
        });
    }
}

#[test]
fn wrong_keys_are_limited_and_right_ones_from_the_same_address_are_not() {
    let server = Setup::new().with("RATE_LIMIT_PER_SECOND", "20").start();
    let mut guesser = server.connect();
    let mut guesses = 0;
    let mut guess = || {
        guesses += 1;
        let key = format!("guess {guesses}");
        guesser.ask("GET", "/resource", &[("x-api-key", &key)], "")
    };
    guess().assert_refused(401, "key_unknown");
    let limited = until_status(429, &mut guess);
    limited.assert_refused(429, "rate_limited");
    assert!(number(&limited, "Retry-After") >= 1);
    for _ in 0..10 {
        let answer = server
            .connect()
            .ask("GET", "/resource", &[("x-api-key", READ)], "");
        assert_eq!(answer.status, 200);
    }
    until_status(401, guess);
}

fn metric(server: &Program, name: &str) -> u64 {
    let text = server.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn connections_beyond_the_limit_are_answered_503_and_can_still_watch_the_server() {
    let server = Setup::new().with("MAX_CONNECTIONS", "2").start();
    let ask = |client: &mut Connection| client.ask("GET", "/resource", &[("x-api-key", READ)], "");
    // The probe of the start has its place until its end was seen.
    let mut hoard = Vec::new();
    let refused = eventually("one is refused", || {
        let mut client = server.connect();
        let answer = ask(&mut client);
        if answer.status == 503 {
            client.assert_closed();
            return Some(answer);
        }
        hoard.push(client);
        None
    });
    refused.assert_refused(503, "too_many_connections");
    assert_eq!(refused.header("Retry-After"), Some("1"));
    assert_eq!(refused.header("Connection"), Some("close"));
    assert_eq!(hoard.len(), 2);
    for path in ["/health", "/ready", "/metrics"] {
        let mut client = server.connect();
        let answer = client.ask("GET", path, &[], "");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("Connection"), Some("close"));
        client.assert_closed();
    }
    assert!(metric(&server, "resource_server_connections") >= 3);
    // A place that is given back is taken again.
    hoard.pop();
    until("there is a place again", || {
        ask(&mut server.connect()).status == 200
    });
}

#[test]
fn connections_beyond_the_reserve_are_closed_and_counted() {
    let server = Setup::new().with("MAX_CONNECTIONS", "1").start();
    let mut hoard: Vec<_> = (0..100).map(|_| server.connect()).collect();
    let closed = |client: &mut Connection| {
        let _ = client
            .stream
            .set_read_timeout(Some(Duration::from_millis(1)));
        matches!(client.rest(), Ok(rest) if rest.is_empty())
    };
    eventually("some are closed", || {
        let before = hoard.len();
        hoard.retain_mut(|client| !closed(client));
        (hoard.len() <= 66 && before == hoard.len()).then_some(())
    });
    hoard.clear();
    eventually("they are counted", || {
        let name = "resource_server_connections_refused_total{reason=\"too_many_connections\"}";
        (metric(&server, name) >= 34).then_some(())
    });
    until("none of them has a place any more", || {
        metric(&server, "resource_server_connections") <= 3
    });
}

#[test]
fn a_body_that_stalls_is_answered_408_and_others_are_served_meanwhile() {
    let server = Setup::new()
        .with("BODY_TIMEOUT_SECONDS", "1")
        .with("REQUEST_TIMEOUT_SECONDS", "1")
        .with("HTTP_WORKERS", "1")
        .start();
    let stalled: Vec<_> = (0..20)
        .map(|n| {
            let mut client = server.connect();
            let framing = if n % 2 == 0 {
                "Content-Length: 100\r\n\r\n{"
            } else {
                "Transfer-Encoding: chunked\r\n\r\n5\r\n{"
            };
            client.write(&format!(
                "POST /resource HTTP/1.1\r\nHost: x\r\nX-Api-Key: {WRITE}\r\n{framing}"
            ));
            client
        })
        .collect();
    server.create("a", 0).expect(201);
    server.describe("a").expect(200);
    for mut client in stalled {
        client.answer().assert_refused(408, "body_timeout");
        client.assert_closed();
    }
}

#[test]
fn a_body_that_is_too_large_is_answered_413_however_it_is_framed() {
    let server = Setup::new().with("MAX_BODY_BYTES", "1000").start();
    server.create("a", 0).expect(201);
    let fits = format!("\"{}\"", "x".repeat(998));
    server.put("a/b", &fits).expect(204);
    let larger = format!("{fits} ");
    server.put("a/b", &larger).refused(413, "body_too_large");
    let chunked = [("x-api-key", WRITE), ("Transfer-Encoding", "chunked")];
    let body = format!("{:x}\r\n{larger}\r\n0\r\n\r\n", larger.len());
    let mut client = server.connect();
    client.write(&request("PUT", "/resource/a/b", &chunked, ""));
    client.write(&body);
    client.answer().assert_refused(413, "body_too_large");
}

#[test]
fn waiters_beyond_the_limit_are_answered_503_and_other_resources_are_not_concerned() {
    for (setting, others_wait) in [("MAX_WAITERS_PER_RESOURCE", true), ("MAX_WAITERS", false)] {
        let server = Setup::new().with(setting, "2").start();
        for name in ["a", "b"] {
            server.create(name, 0).expect(201);
            server.hold(&format!("{name}/main"));
        }
        let wait = |name: &str| server.lock(&format!("{name}/x")).query("wait=100").open();
        let _open = [wait("a"), wait("a")];
        until("two wait", || server.waiting("a") == 2);
        let refused = wait("a").answer();
        refused.assert_refused(503, "too_many_waiters");
        assert_eq!(refused.header("Retry-After"), Some("1"));
        if others_wait {
            let _other = wait("b");
            until("one waits for the other", || server.waiting("b") == 1);
        }
        // Whoever does not wait is served.
        server.create("c", 0).expect(201);
        server.hold("c/main");
    }
}

#[test]
fn selectors_beyond_the_limit_are_answered_409_and_known_ones_are_written() {
    let server = Setup::new().with("MAX_SELECTORS", "2").start();
    server.create("a", 0).expect(201);
    server.create("b", 0).expect(201);
    server.put("a/one", "1").expect(204);
    server.put("a/two", "1").expect(204);
    server
        .put("a/three", "1")
        .refused(409, "too_many_selectors");
    server.put("a/one", "1").expect(204);
    server.put("b/three", "1").expect(204);
}

/// What a client announces to be too large is refused by its head; its body stays where it is.
#[test]
fn a_body_that_is_announced_too_large_is_answered_413_before_it_is_sent() {
    let server = Setup::new().with("MAX_BODY_BYTES", "1000").start();
    server.create("a", 0).expect(201);
    let head = |length: usize, expects: &str| {
        format!(
            "PUT /resource/a/b HTTP/1.1\r\nHost: x\r\nX-Api-Key: {WRITE}\r\nContent-Length: {length}\r\n{expects}\r\n"
        )
    };
    let goes_on = "HTTP/1.1 100 Continue\r\n\r\n";
    let is_told_to_go_on = |client: &mut Connection| {
        let mut said = vec![0; goes_on.len()];
        client.stream.read_exact(&mut said).unwrap();
        assert_eq!(String::from_utf8_lossy(&said), goes_on);
    };
    let expects = "Expect: 100-continue\r\n";
    for expects in ["", expects] {
        let mut client = server.connect();
        client.write(&head(1001, expects));
        // The framework says so to everybody who asks; the answer comes with it.
        if !expects.is_empty() {
            is_told_to_go_on(&mut client);
        }
        client.answer().assert_refused(413, "body_too_large");
        client.assert_closed();
    }
    let mut client = server.connect();
    client.write(&head(3, expects));
    is_told_to_go_on(&mut client);
    client.write("123");
    assert_eq!(client.answer().status, 204);
}
