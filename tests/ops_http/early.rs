//! What never becomes a request: heads that are malformed, too large or too slow, and what is sent ahead. The
//! framework answers it, or nobody; it costs little, ends soon, and is counted.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::support::{LOCK, Program, Setup, WRITE, request, until};

/// Connections that were refused for this reason.
fn refused(server: &Program, reason: &str) -> u64 {
    let text = server.metrics();
    let name = format!("resource_server_connections_refused_total{{reason=\"{reason}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
        .parse()
        .unwrap()
}

#[track_caller]
fn eventually_refused(server: &Program, reason: &str, times: u64) {
    until("it is counted", || refused(server, reason) == times);
}

#[test]
fn malformed_heads_are_answered_400_closed_and_counted() {
    let server = Program::new();
    let heads = [
        "GARBAGE\r\n\r\n",
        "GET /health\r\n\r\n",
        "GET /health HTTP/9.9\r\n\r\n",
        "GET /health HTTP/1.1\r\nno colon\r\n\r\n",
        "GET /health HTTP/1.1\r\n: no name\r\n\r\n",
        "GET /health HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        "GET /health HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "GET /he\0lth HTTP/1.1\r\n\r\n",
        "POST /resource HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    ];
    for head in heads {
        let mut client = server.connect();
        client.write(head);
        let answer = client.unchecked_answer().expect("an answer");
        assert_eq!(answer.status, 400, "{head:?}");
        client.assert_closed();
    }
    eventually_refused(&server, "malformed", heads.len() as u64);
}

#[test]
fn a_head_that_is_too_large_ends_its_connection() {
    let server = Program::new();
    let mut client = server.connect();
    let head = format!("GET /health HTTP/1.1\r\nX-Filler: {}", "x".repeat(50_000));
    // The server stops reading at some point, so that writing may fail.
    client.try_write(&head);
    assert!(client.unchecked_answer().is_none());
    eventually_refused(&server, "head_too_large", 1);
    // One of a size that proxies pass is taken.
    let filler = "x".repeat(8_000);
    let headers = [("X-Filler", filler.as_str())];
    assert_eq!(
        server.connect().ask("GET", "/health", &headers, "").status,
        200
    );
}

#[test]
fn unfinished_heads_take_little_memory() {
    const CLIENTS: usize = 400;
    let server = Setup::new().with("REQUEST_TIMEOUT_SECONDS", "600").start();
    let before = server.memory();
    let head = format!("GET /health HTTP/1.1\r\nX-Filler: {}", "x".repeat(120_000));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = server.connect();
            let no_longer = Some(Duration::from_millis(50));
            client.stream.set_write_timeout(no_longer).unwrap();
            client.try_write(&head);
            client
        })
        .collect();
    eventually_refused(&server, "head_too_large", CLIENTS as u64);
    let grown = server.memory().saturating_sub(before);
    assert!(grown < (CLIENTS as u64) * (64 << 10), "{grown} bytes");
    drop(clients);
}

#[test]
fn a_client_that_is_slow_with_its_first_head_is_answered_408() {
    let server = Setup::new().with("REQUEST_TIMEOUT_SECONDS", "1.5").start();
    let before = refused(&server, "too_slow");
    for start in ["", "GET /hea"] {
        let mut client = server.connect();
        client.write(start);
        let answer = client.unchecked_answer().expect("an answer");
        assert_eq!(answer.status, 408);
        client.assert_closed();
    }
    eventually_refused(&server, "too_slow", before + 2);
}

#[test]
fn a_later_head_that_stalls_or_drips_does_not_keep_its_connection() {
    let server = Setup::new()
        .with("REQUEST_TIMEOUT_SECONDS", "0.2")
        .with("KEEP_ALIVE_SECONDS", "0.3")
        .start();
    let mut stalls = server.connect();
    assert_eq!(stalls.ask("GET", "/health", &[], "").status, 200);
    stalls.write("GET /health HT");
    assert_eq!(stalls.rest().unwrap_or_default(), b"");

    let mut drips = server.connect();
    assert_eq!(drips.ask("GET", "/health", &[], "").status, 200);
    let mut writer = drips.stream.try_clone().unwrap();
    let dripping = std::thread::spawn(move || {
        let endless = std::iter::repeat(b"X-A: b\r\n".as_slice());
        let mut sent = 0;
        writer.write_all(b"GET /health HTTP/1.1\r\n").unwrap();
        for line in endless.take(10_000) {
            if writer.write_all(line).is_err() {
                break;
            }
            sent += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        sent
    });
    assert_eq!(drips.rest().unwrap_or_default(), b"");
    drop(drips);
    assert!(dripping.join().unwrap() < 10_000);
}

#[test]
fn a_malformed_chunked_body_is_answered_once() {
    let server = Program::new();
    for (path, status, code) in [
        ("/resource", 400, "malformed"),
        ("/nowhere", 404, "route_unknown"),
    ] {
        let mut client = server.connect();
        client.write(&format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {WRITE}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\nzz\r\n"
        ));
        client.answer().assert_refused(status, code);
        client.rest().unwrap();
    }
}

#[test]
fn a_chunked_body_is_read_and_what_follows_is_a_request_of_its_own() {
    let server = Program::new();
    let head = format!(
        "POST /resource HTTP/1.1\r\nHost: x\r\nX-Api-Key: {WRITE}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let mut client = server.connect();
    client.write(&format!(
        "{head}5\r\n{{\"nam\r\n7\r\ne\":\"a\"}}\r\n0\r\n\r\n"
    ));
    client.write(&request("GET", "/nowhere", &[], ""));
    assert_eq!(client.answer().status, 201);
    client.answer().assert_refused(404, "route_unknown");
    // Nobody reads this one's.
    let unread = head.replace("/resource", "/nowhere");
    client.write(&format!("{unread}2\r\n{{}}\r\n0\r\n\r\n"));
    client.write(&request("GET", "/health", &[], ""));
    client.answer().assert_refused(404, "route_unknown");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn requests_that_come_all_at_once_are_answered_in_their_order() {
    let server = Program::new();
    server.create("a", 0).expect(201);
    let key = [("x-api-key", WRITE)];
    let found = request("GET", "/resource/a", &key, "");
    let missing = request("GET", "/resource/b", &key, "");
    let mut client = server.connect();
    let all = [&found[..], &missing].concat().repeat(300);
    let mut sender = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || sender.write_all(&all).unwrap());
    for _ in 0..300 {
        assert_eq!(client.answer().json()["name"], "a");
        client.answer().assert_refused(404, "resource_unknown");
    }
    sending.join().unwrap();
}

/// More than the server takes in, behind a request that waits.
#[test]
fn requests_that_pile_up_behind_a_waiter_cost_nothing_and_end_the_connection() {
    let server = Program::new();
    server.create("a", 0).expect(201);
    server.hold("a/main");
    let key = ("x-api-key", LOCK);
    let mut waiter = server.connect();
    waiter.write(&request(
        "PUT",
        "/resource/a/main/lock?wait=100",
        &[key],
        "",
    ));
    until("it waits", || server.waiting("a") == 1);
    let other = request("GET", "/health", &[], "");
    // Some may come ahead.
    waiter.write(&other.repeat(100));
    let before = server.processor_time();
    std::thread::sleep(Duration::from_secs(1));
    let used = server.processor_time() - before;
    assert!(
        used < Duration::from_millis(500),
        "{used:?} of processor time in a second"
    );
    assert_eq!(server.waiting("a"), 1);
    waiter.try_write(&other.repeat(6_000));
    until("it is gone", || server.waiting("a") == 0);
}

/// Java's client asks so with its first request of every connection.
#[test]
fn a_request_to_upgrade_is_answered_and_told_that_the_connection_closes() {
    let server = Program::new();
    let mut client = server.connect();
    let headers = [
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAAQBAAAAAAIAAAAA"),
    ];
    let answer = client.ask("GET", "/health", &headers, "");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("Connection"), Some("close"), "{answer:?}");
    client.assert_closed();
}

#[test]
fn an_idle_connection_is_kept_as_long_as_the_setting_says_and_closed_without_a_word() {
    let server = Setup::new()
        .with("REQUEST_TIMEOUT_SECONDS", "0.2")
        .with("KEEP_ALIVE_SECONDS", "1")
        .start();
    let mut client = server.connect();
    for _ in 0..3 {
        assert_eq!(client.ask("GET", "/health", &[], "").status, 200);
        std::thread::sleep(Duration::from_millis(400));
    }
    client.assert_closed();
}

#[test]
fn a_chunked_body_that_nobody_reads_and_that_never_ends_does_not_keep_its_connection() {
    let server = Setup::new()
        .with("REQUEST_TIMEOUT_SECONDS", "0.2")
        .with("KEEP_ALIVE_SECONDS", "0.5")
        .start();
    let mut client = server.connect();
    client.write(&format!(
        "POST /nowhere HTTP/1.1\r\nHost: x\r\nX-Api-Key: {WRITE}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"
    ));
    client.answer().assert_refused(404, "route_unknown");
    client.assert_closed();
}

#[test]
fn a_client_that_takes_a_large_document_slowly_is_not_taken_for_idle() {
    let server = Setup::new()
        .with("KEEP_ALIVE_SECONDS", "1")
        .with("MAX_BODY_BYTES", "33554432")
        .start();
    server.create("big", 0).expect(201);
    let text = format!("\"{}\"", "x".repeat(30 << 20));
    let key = [("x-api-key", WRITE)];
    server.put("big/main", &text).expect(204);
    let mut client = server.connect();
    let get = request("GET", "/resource/big/main?lock=0&raw=1", &key, "");
    client.write(&get);
    let began = Instant::now();
    let mut taken = 0;
    let mut some = vec![0; 256 << 10];
    // Longer than an idle connection lives, and the document is larger than what lies in buffers.
    while taken < text.len() {
        let count = client.stream.read(&mut some).unwrap();
        assert!(count > 0, "cut off after {taken} bytes");
        taken += count;
        if began.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// More than the server takes in at a time, behind a request that waits.
#[test]
fn a_waiter_that_closes_its_side_is_gone_at_once() {
    let server = Program::new();
    server.create("a", 0).expect(201);
    let ticket = server.hold("a/main").0;
    let key = ("x-api-key", WRITE);
    let mut waiter = server.connect();
    waiter.write(&request(
        "PUT",
        "/resource/a/main/lock?wait=100",
        &[key],
        "",
    ));
    until("it waits", || server.waiting("a") == 1);
    waiter.end_sending();
    until("it is gone", || server.waiting("a") == 0);
    server.unlock("a/main", &ticket).expect(200);
}
