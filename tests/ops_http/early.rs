//! Requests that are refused before they reach a route are refused like all others: a sentence and a code
//! in JSON, header names in title case.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::server::{Server, Setup, WRITE, find, request};

#[test]
fn malformed_heads_are_answered_400() {
    let server = Server::start();
    for head in [
        "GARBAGE\r\n\r\n",
        "GET /health\r\n\r\n",
        "GET /health HTTP/9.9\r\n\r\n",
        "GET /health HTTP/1.1\r\nno colon\r\n\r\n",
        "GET /health HTTP/1.1\r\n: no name\r\n\r\n",
        "GET /health HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        "GET /health HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "GET /he\0lth HTTP/1.1\r\n\r\n",
        "POST /resource HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    ] {
        let mut client = server.connect();
        client.send(head);
        let answer = client.answer().unwrap();
        answer.assert_error(400, "malformed");
        assert_eq!(answer.header("Connection"), Some("close"), "{head:?}");
        client.assert_closed();
    }
    assert_eq!(server.ask("GET", "/health", &[], "").status, 200);
}

#[test]
fn a_malformed_head_behind_good_ones_does_not_spoil_their_answers() {
    let server = Server::start();
    server.create("a");
    let mut client = server.connect();
    let good = request("GET", "/resource/a", &[("x-api-key", WRITE)], "");
    let missing = request("GET", "/resource/b", &[("x-api-key", WRITE)], "");
    client.send([&good[..], &missing, b"GARBAGE\r\n\r\n"].concat());
    assert_eq!(client.answer().unwrap().json()["name"], "a");
    client
        .answer()
        .unwrap()
        .assert_error(404, "resource_unknown");
    client.answer().unwrap().assert_error(400, "malformed");
    client.assert_closed();
}

#[test]
fn a_head_that_is_too_large_is_answered_431() {
    let server = Server::start();
    let mut client = server.connect();
    // The server stops reading at some point, so that writing may fail.
    let head = format!("GET /health HTTP/1.1\r\nX-Filler: {}", "x".repeat(300_000));
    let _ = client.stream.write_all(head.as_bytes());
    client.answer().unwrap().assert_error(431, "head_too_large");
    client.assert_closed();
}

#[test]
fn a_client_that_is_slow_with_its_first_head_is_answered_408() {
    let server = Setup::new().with("REQUEST_TIMEOUT_SECONDS", "0.2").start();
    for start in ["", "GET /hea"] {
        let mut client = server.connect();
        client.send(start);
        client.answer().unwrap().assert_error(408, "head_timeout");
        client.assert_closed();
    }
}

#[test]
fn a_client_that_is_slow_with_a_later_head_is_answered_408() {
    let server = Setup::new().with("REQUEST_TIMEOUT_SECONDS", "0.2").start();
    let mut client = server.connect();
    assert_eq!(client.ask("GET", "/health", &[], "").status, 200);
    client.send("GET /health HT");
    client.answer().unwrap().assert_error(408, "head_timeout");
    client.assert_closed();
}

#[test]
fn a_head_that_drips_has_no_more_time_than_one_that_stalls() {
    let server = Setup::new().with("REQUEST_TIMEOUT_SECONDS", "0.3").start();
    let mut client = server.connect();
    assert_eq!(client.ask("GET", "/health", &[], "").status, 200);
    let mut writer = client.stream.try_clone().unwrap();
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
    client.answer().unwrap().assert_error(408, "head_timeout");
    drop(client);
    assert!(dripping.join().unwrap() < 10_000);
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
fn a_malformed_chunked_body_is_answered_once() {
    let server = Server::start();
    for (path, status, code) in [
        ("/resource", 400, "malformed"),
        ("/nowhere", 404, "route_unknown"),
    ] {
        let mut client = server.connect();
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {WRITE}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\nzz\r\n"
        ));
        client.answer().unwrap().assert_error(status, code);
        client.assert_closed();
    }
}

#[test]
fn a_request_behind_a_chunked_body_that_nobody_read_is_seen_as_what_it_is() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(
        "POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nGARBAGE\r\n\r\n",
    );
    client.answer().unwrap().assert_error(404, "route_unknown");
    client.answer().unwrap().assert_error(400, "malformed");
    client.assert_closed();
}

#[test]
fn a_chunked_body_is_read_and_what_follows_is_a_request_of_its_own() {
    let server = Server::start();
    let mut client = server.connect();
    let head = format!(
        "POST /resource HTTP/1.1\r\nHost: x\r\nX-Api-Key: {WRITE}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    client.send(format!(
        "{head}5\r\n{{\"nam\r\n7\r\ne\":\"a\"}}\r\n0\r\n\r\nGARBAGE\r\n\r\n"
    ));
    assert_eq!(client.answer().unwrap().status, 201);
    client.answer().unwrap().assert_error(400, "malformed");
    client.assert_closed();
}

#[test]
fn a_chunked_body_that_nobody_reads_and_that_never_ends_does_not_keep_its_connection() {
    let server = Setup::new()
        .with("REQUEST_TIMEOUT_SECONDS", "0.2")
        .with("KEEP_ALIVE_SECONDS", "0.5")
        .start();
    let mut client = server.connect();
    client.send(format!(
        "POST /nowhere HTTP/1.1\r\nHost: x\r\nX-Api-Key: {WRITE}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"
    ));
    client.answer().unwrap().assert_error(404, "route_unknown");
    client.assert_closed();
}

#[test]
fn answers_to_head_requests_keep_their_place() {
    let server = Server::start();
    let mut client = server.connect();
    let head = request("HEAD", "/health", &[], "");
    client.send([&head[..], &head, b"GARBAGE\r\n\r\n"].concat());
    for _ in 0..2 {
        assert_eq!(client.answer_to(true).unwrap().status, 200);
    }
    client.answer().unwrap().assert_error(400, "malformed");
    client.assert_closed();
}

#[test]
fn large_documents_pass_unchanged_to_a_client_that_reads_slowly() {
    let server = Server::start();
    server.create("big");
    // Looks like an answer of the dispatcher's as far as JSON can.
    let line = r"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let text = format!("[\"{}\"]\r\n\r\n", line.repeat(20_000));
    let key = [("x-api-key", WRITE)];
    let put = server.ask("PUT", "/resource/big/main", &key, &text);
    assert_eq!(put.status, 204, "{put:?}");
    let mut client = server.connect();
    let get = request("GET", "/resource/big/main?lock=0&raw=1", &key, "");
    client.send([&get[..], &get, &get, b"GARBAGE\r\n\r\n"].concat());
    std::thread::sleep(Duration::from_millis(100));
    for _ in 0..3 {
        let answer = client.answer().unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.body == text.as_bytes());
    }
    client.answer().unwrap().assert_error(400, "malformed");
    client.assert_closed();
    assert_eq!(find(text.as_bytes(), b"\r\n\r\n"), Some(text.len() - 4));
}

#[test]
fn a_client_that_takes_a_large_document_slowly_is_not_taken_for_idle() {
    let server = Setup::new()
        .with("KEEP_ALIVE_SECONDS", "1")
        .with("MAX_BODY_BYTES", "33554432")
        .start();
    server.create("big");
    let text = format!("\"{}\"", "x".repeat(30 << 20));
    let key = [("x-api-key", WRITE)];
    let put = server.ask("PUT", "/resource/big/main", &key, &text);
    assert_eq!(put.status, 204, "{put:?}");
    let mut client = server.connect();
    let get = request("GET", "/resource/big/main?lock=0&raw=1", &key, "");
    client.send(get);
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

#[test]
fn a_malformed_head_after_a_request_of_http_1_0_is_refused_as_everywhere() {
    let server = Server::start();
    let mut client = server.connect();
    client.send("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.answer().unwrap().status, 200);
    client.send("GARBAGE\r\n\r\n");
    client.answer().unwrap().assert_error(400, "malformed");
    client.assert_closed();
}

/// More than the server takes in at a time, behind a request that waits.
#[test]
fn requests_that_pile_up_behind_a_waiter_cost_nothing_and_are_all_answered() {
    const MANY: usize = 6_000;
    let server = Server::start();
    server.create("a");
    let ticket = server.lock("a");
    let key = ("x-api-key", WRITE);
    let mut waiter = server.connect();
    let wait = request("PUT", "/resource/a/main/lock?wait=100", &[key], "");
    let other = request("GET", "/health", &[], "");
    let mut sender = waiter.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        sender.write_all(&wait).unwrap();
        sender.write_all(&other.repeat(MANY)).unwrap();
    });
    let waiting = || server.ask("GET", "/resource/a", &[key], "").json()["waiting"].as_u64();
    crate::server::eventually("it waits", || (waiting() == Some(1)).then_some(()));
    let before = server.cpu_seconds();
    std::thread::sleep(Duration::from_secs(1));
    let used = server.cpu_seconds() - before;
    assert!(used < 0.5, "{used} s of CPU in a second");
    let headers = [key, ("X-Ticket", ticket.as_str())];
    server.ask("PUT", "/resource/a/main/unlock", &headers, "");
    for _ in 0..=MANY {
        assert_eq!(waiter.answer().unwrap().status, 200);
    }
    sending.join().unwrap();
}

#[test]
fn a_waiter_that_closes_its_side_is_gone_at_once() {
    let server = Server::start();
    server.create("a");
    let ticket = server.lock("a");
    let key = ("x-api-key", WRITE);
    let mut waiter = server.connect();
    waiter.send(request("PUT", "/resource/a/main/lock?wait=100", &[key], ""));
    let waiting = || server.ask("GET", "/resource/a", &[key], "").json()["waiting"].as_u64();
    crate::server::eventually("it waits", || (waiting() == Some(1)).then_some(()));
    waiter.stream.shutdown(std::net::Shutdown::Write).unwrap();
    crate::server::eventually("it is gone", || (waiting() == Some(0)).then_some(()));
    let headers = [key, ("X-Ticket", ticket.as_str())];
    assert_eq!(
        server
            .ask("PUT", "/resource/a/main/unlock", &headers, "")
            .status,
        200
    );
}
