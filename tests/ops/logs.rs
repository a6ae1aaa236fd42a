//! The log: one line for each change of state, and never a secret.

use std::time::Duration;

use crate::session::{hold, session};
use crate::support::{ADMIN, KEYS, LOCK, Program, Setup, WRITE, until};

/// With these parts, and none of them twice.
fn count(server: &Program, parts: &[&str]) -> usize {
    let log = server.log();
    let is_wanted = |line: &&str| parts.iter().all(|part| line.contains(part));
    log.lines().filter(is_wanted).count()
}

#[test]
fn each_change_of_state_leaves_one_line() {
    let server = Program::new();
    session(&server);
    for (parts, times) in [
        (&["created resource=\"printer\"", "client=127.0.0.1"][..], 1),
        (
            &["granted resource=\"printer\" owner=\"first\" token=1 client=127.0.0.1"],
            1,
        ),
        (&["queued resource=\"printer\"", "position=2"], 1),
        (
            &[
                "released resource=\"printer\" owner=\"first\" token=1",
                "held_ms=",
            ],
            1,
        ),
        (
            &[
                "granted resource=\"printer\" owner=\"second\" token=2",
                "waited_ms=",
            ],
            1,
        ),
        (
            &["written resource=\"printer\"", "token=2", "selector=\"s\""],
            1,
        ),
        (
            &[
                "forced_off resource=\"printer\" owner=\"second\" token=2",
                "reason=\"its owner went home\"",
            ],
            1,
        ),
        (&["granted resource=\"printer\" owner=\"third\" token=3"], 1),
        (&["selector_deleted resource=\"printer\"", "token=3"], 1),
        (&["expired resource=\"brief\"", "client=- request=-"], 1),
        (&["deleted resource=\"printer\"", "client=127.0.0.1"], 2),
    ] {
        until("all of them are written", || count(&server, parts) >= times);
        assert_eq!(
            count(&server, parts),
            times,
            "{parts:?} in\n{}",
            server.log()
        );
    }
}

#[test]
fn a_forced_unlock_is_a_warning_with_holder_age_reason_and_client() {
    // `app` says where the server listens.
    let filter = "warn,small_resource_server::app=info";
    let server = Setup::new().with_all(&[("RUST_LOG", filter)]).start();
    server.create("a", 0).expect(201);
    hold(&server, "a", "stuck worker");
    server
        .call("POST", "/resource/a/force-unlock")
        .key(ADMIN)
        .header("X-Request-Id", "on-call-7")
        .body(r#"{"reason": "pager"}"#)
        .expect(200);
    let line = server.logged(&["forced_off"]);
    assert!(line.contains("WARN"), "{line}");
    for part in [
        "resource=\"a\"",
        "owner=\"stuck worker\"",
        "token=1",
        "client=127.0.0.1",
        "request=on-call-7",
        "held_ms=",
        "reason=\"pager\"",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}

#[test]
fn a_wait_counts_from_the_first_request_through_a_restart() {
    let mut server = Setup::new().sqlite().start();
    server.create("a", 0).expect(201);
    let holder = hold(&server, "a", "holder");
    let waiting = server.lock("a/s").owner("waits").queued().ticket();
    server.stop();
    std::thread::sleep(Duration::from_secs(1));
    server.start_again();
    server.unlock("a/s", &holder).expect(200);
    server.lock("a/s").ticket(&waiting).granted();
    let line = server.logged(&["granted", "owner=\"waits\""]);
    let waited = line.rsplit_once("waited_ms=").unwrap().1;
    assert!(waited.trim().parse::<u64>().unwrap() >= 1_000, "{line}");
}

#[test]
fn a_removed_waiter_is_a_warning_with_owner_reason_and_key() {
    let server = Program::new();
    server.create("a", 0).expect(201);
    hold(&server, "a", "holder");
    server.lock("a/s").owner("waits").queued();
    let id = &server.described("a")["queue"][0]["id"];
    let body = format!(r#"{{"reason": "pager", "waiter": {id}}}"#);
    server.force_unlock("a").body(body).expect(200);
    let line = server.logged(&["waiter_removed"]);
    for part in [
        "WARN",
        "resource=\"a\"",
        "owner=\"waits\"",
        "key=admin",
        "reason=\"pager\"",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert_eq!(count(&server, &["waiter_left"]), 0);
}

#[test]
fn a_line_names_the_request_that_did_it_and_the_client_behind_a_trusted_proxy() {
    let server = Setup::new()
        .with_all(&[("TRUSTED_PROXIES", "127.0.0.1")])
        .start();
    server.create("a", 0).expect(201);
    let call = server.lock("a/s").owner("x").header("X-Request-Id", "r-42");
    call.header("X-Forwarded-For", "6.6.6.6, 192.0.2.9")
        .expect(200);
    let line = server.logged(&["granted"]);
    assert!(line.contains("client=192.0.2.9 request=r-42"), "{line}");
}

#[test]
fn a_forwarded_address_from_anyone_else_is_not_believed() {
    let server = Program::new();
    server.create("a", 0).expect(201);
    let call = server.lock("a/s").owner("x");
    call.header("X-Forwarded-For", "192.0.2.9").expect(200);
    let line = server.logged(&["granted"]);
    assert!(line.contains("client=127.0.0.1"), "{line}");
}

#[test]
fn the_line_of_a_grant_after_a_wait_names_the_waiter_not_the_one_who_released() {
    let server = Program::new();
    server.create("a", 0).expect(201);
    let ticket = hold(&server, "a", "x");
    let waiter = server
        .lock("a/s")
        .owner("y")
        .header("X-Request-Id", "waiter-1");
    let mut waiter = waiter.query("wait=60").open();
    until("it queues", || server.described("a")["waiting"] == 1);
    let unlock = server.call("POST", "/resource/a/s/unlock").ticket(&ticket);
    unlock.header("X-Request-Id", "releaser-1").expect(200);
    waiter.answer();
    server.logged(&["released", "owner=\"x\"", "request=releaser-1"]);
    server.logged(&["granted", "owner=\"y\"", "request=waiter-1"]);
}

#[test]
fn no_ticket_and_no_key_is_ever_logged() {
    let server = Setup::new()
        .with_all(&[("RUST_LOG", "trace"), ("ACCESS_LOG", "true")])
        .start();
    let mut secrets = session(&server);
    secrets.extend(KEYS.map(str::to_owned));
    // Refusals and misuse, too.
    let stranger = "0123456789abcdef0123456789abcdef";
    secrets.push(stranger.to_owned());
    secrets.push("no-such-key".to_owned());
    secrets.push("an-idempotency-key".to_owned());
    server
        .call("GET", "/resource")
        .key("no-such-key")
        .expect(401);
    let write = server.call("PUT", "/resource/brief/s").body("1");
    write.ticket(stranger).refused(403, "ticket_unknown");
    let idempotent = server.lock("brief/s").owner("x").key(LOCK);
    let kept = idempotent.idempotency_key("an-idempotency-key").expect(200);
    secrets.push(kept.ticket());
    let last = server
        .call("GET", "/health")
        .header("X-Request-Id", "the-last-one");
    last.expect(200);
    server.logged(&["request=the-last-one"]);
    let log = server.log();
    assert!(log.contains("granted"), "{log}");
    for secret in &secrets {
        let at = log.find(secret.as_str());
        assert_eq!(at, None, "{secret} is in\n{log}");
    }
}

#[test]
fn the_access_log_has_one_line_per_request_and_is_off_unless_asked_for() {
    let quiet = Program::new();
    quiet.call("GET", "/health").expect(200);
    quiet.create("a", 0).expect(201);
    quiet.logged(&["created"]);
    assert_eq!(count(&quiet, &["GET /health"]), 0);

    let server = Setup::new().with_all(&[("ACCESS_LOG", "true")]).start();
    let call = server.call("GET", "/resource/a%20b?limit=1");
    call.header("X-Request-Id", "r-1")
        .refused(404, "resource_unknown");
    let line = server.logged(&["request=r-1"]);
    for part in [
        "access]",
        "GET /resource/a%20b 404 code=resource_unknown ms=",
        "client=127.0.0.1",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert_eq!(count(&server, &["request=r-1"]), 1);
}

#[test]
fn a_busy_second_is_summed_up() {
    let server = Program::new();
    server.create("a", 0).expect(201);
    let mut connection = server.call("GET", "/health").open();
    connection.answer();
    // As many changes as it takes: how many fit into a second is the machine's business.
    until("a summary", || {
        for _ in 0..200 {
            let call = server.call("PUT", "/resource/a/s").key(WRITE).body("1");
            assert_eq!(connection.exchange(&call).status, 204);
        }
        server.line(&["not_shown"]).is_some()
    });
    let summary = server.logged(&["not_shown written="]);
    assert!(summary.contains("INFO"), "{summary}");
}

#[test]
fn a_port_in_use_is_told_with_its_settings_whatever_the_log_filter_hides() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for filter in ["info", "off", "info/no line has this"] {
        let setup = Setup::new().with_all(&[("HTTP_PORT", &port), ("RUST_LOG", filter)]);
        let ended = setup.output(&[]);
        let told = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{filter}: {told}");
        assert_eq!(told.matches("cannot listen").count(), 1, "{filter}: {told}");
        assert!(told.contains("HTTP_PORT"), "{filter}: {told}");

        let full = std::fs::File::create("/dev/full").unwrap();
        let ended = setup.command().stderr(full).status().unwrap();
        assert_eq!(ended.code(), Some(1), "{filter}");
    }
}

#[test]
fn the_start_says_address_store_profile_and_file_on_few_lines() {
    let server = Program::new();
    let address = server.address().to_string();
    server.logged(&["store: memory", "profile: default", "settings file: "]);
    let starts = server.lines();
    let all = starts.join("\n");
    server.logged(&["small-resource-server", &address]);
    assert!(starts.len() <= 4, "{all}");
    assert!(!all.contains("actix"), "{all}");
}
