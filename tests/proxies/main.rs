//! Behind real proxies, with the configurations that `config/` offers: what the PHP client needs gets
//! through, waits are not cut off, client addresses arrive, and who vanishes is noticed.

mod manifests;
mod proxy;
mod rolling;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use proxy::{AskThrough, BOTH, Kind, ReverseProxy, read};
use rustix::process::Signal;
use support::{Setup, WRITE, eventually, request, until};

const KEY: [(&str, &str); 1] = [("x-api-key", WRITE)];

fn setup() -> Setup {
    Setup::new().with("TRUSTED_PROXIES", "127.0.0.1")
}

/// What the original's PHP client does, byte for byte where it matters: it reads `X-Ticket` in this case
/// only, and sends no Content-Length with lock and unlock.
#[test]
fn a_php_client_lives_its_life() {
    for kind in BOTH {
        let server = setup().start();
        let proxy = ReverseProxy::start(kind, &server);
        let mut client = proxy.connect();
        let created = client.ask_through(
            "POST",
            "/resource",
            &KEY,
            "{\"name\":\"printer\",\"timeout\":300}",
        );
        assert_eq!(created.status, 201, "{kind:?} {created:?}");
        assert_eq!(
            created.header("Location"),
            Some("/resource/printer"),
            "{kind:?}"
        );
        let lock = client.ask_through("PUT", "/resource/printer/paper/lock", &KEY, "");
        assert_eq!(lock.json()["locked"], true, "{kind:?} {lock:?}");
        let ticket = lock
            .header("X-Ticket")
            .unwrap_or_else(|| panic!("{kind:?} {lock:?}"));
        assert!(
            lock.header("X-Fencing-Token").is_some(),
            "{kind:?} {lock:?}"
        );
        let mine = [("x-api-key", WRITE), ("X-Ticket", ticket)];
        let written =
            client.ask_through("PUT", "/resource/printer/paper", &mine, "{\"sheets\": 500}");
        assert_eq!(written.status, 204, "{kind:?} {written:?}");
        let other = client.ask_through("GET", "/resource/printer/paper", &KEY, "");
        assert_eq!(other.status, 202, "{kind:?} {other:?}");
        assert!(other.header("X-Ticket").is_some(), "{kind:?} {other:?}");
        assert_eq!(other.header("Retry-After"), Some("1"), "{kind:?}");
        let read = client.ask_through("GET", "/resource/printer/paper", &mine, "");
        assert_eq!(read.json()["data"], "{\"sheets\": 500}", "{kind:?}");
        assert_eq!(read.header("X-Ticket"), Some(ticket), "{kind:?} {read:?}");
        let unlocked = client.ask_through("PUT", "/resource/printer/paper/unlock", &mine, "");
        assert_eq!(unlocked.status, 200, "{kind:?} {unlocked:?}");
        assert_eq!(
            unlocked.header("Content-Type"),
            Some("application/json"),
            "{kind:?}"
        );
        let unknown = client.ask_through("GET", "/resource/nobody", &KEY, "");
        assert_eq!(
            (unknown.status, unknown.code().as_str()),
            (404, "resource_unknown")
        );
    }
}

#[test]
fn names_arrive_as_they_were_sent() {
    for kind in BOTH {
        let server = setup().start();
        let proxy = ReverseProxy::start(kind, &server);
        let mut client = proxy.connect();
        for (name, path) in [
            ("a/b", "a%2Fb"),
            ("100%", "100%25"),
            ("shop:42", "shop:42"),
            ("shop:43", "shop%3A43"),
            ("a b", "a%20b"),
            ("ä", "%C3%A4"),
            ("c+d", "c+d"),
        ] {
            let body = format!("{{\"name\":\"{name}\"}}");
            let created = client.ask_through("POST", "/resource", &KEY, &body);
            assert_eq!(created.status, 201, "{kind:?} {name} {created:?}");
            let described = client.ask_through("GET", &format!("/resource/{path}"), &KEY, "");
            assert_eq!(described.json()["name"], name, "{kind:?}");
        }
        // The PHP client leaves dots as they are.
        for selector in [".", ".."] {
            let path = format!("/resource/shop:42/{selector}");
            assert_eq!(
                client.ask_through("PUT", &path, &KEY, "1").status,
                204,
                "{kind:?} {selector}"
            );
            let read = client.ask_through("GET", &format!("{path}?lock=0"), &KEY, "");
            assert_eq!(read.json()["selector"], selector, "{kind:?} {read:?}");
        }
    }
}

#[test]
fn a_wait_is_not_cut_off_and_ends_with_the_release() {
    for kind in BOTH {
        let server = setup().start();
        let proxy = ReverseProxy::start(kind, &server);
        server.create("a", 0).expect(201);
        let ticket = server.hold("a/main").0;
        let wait = || {
            let mut waiter = proxy.connect();
            waiter.write(&request("PUT", "/resource/a/b/lock?wait=250", &KEY, ""));
            waiter
        };
        let mut first = wait();
        until("the first waits", || server.waiting("a") == 1);
        let _others: Vec<_> = (0..49).map(|_| wait()).collect();
        until("they wait", || server.waiting("a") == 50);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            assert_eq!(server.waiting("a"), 50, "{kind:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
        server.unlock("a/b", &ticket).expect(200);
        let granted = first.unchecked_answer().expect("an answer");
        assert_eq!(granted.json()["locked"], true, "{kind:?} {granted:?}");
        assert_eq!(server.waiting("a"), 49, "{kind:?}");
    }
}

#[test]
fn waits_of_any_length_that_the_server_takes_fit_the_time_outs() {
    let seconds = |line: &str| -> u64 {
        let value = line.split_whitespace().last().unwrap();
        value
            .trim_end_matches(';')
            .trim_end_matches('s')
            .parse()
            .unwrap()
    };
    for (name, setting) in [
        ("nginx.conf", "proxy_read_timeout"),
        ("haproxy.cfg", "timeout client"),
        ("haproxy.cfg", "timeout server"),
    ] {
        let text = read(name);
        let line = text.lines().find(|line| line.trim().starts_with(setting));
        // MAX_WAIT_SECONDS is 300 unless it is set.
        assert!(seconds(line.unwrap()) > 300, "{name}: {setting}");
    }
    let text = read("nginx.conf");
    let kept = text
        .lines()
        .find(|line| line.trim().starts_with("keepalive_timeout"));
    // KEEP_ALIVE_SECONDS is 75 unless it is set.
    assert!(seconds(kept.unwrap()) < 75);
}

#[test]
fn a_client_that_vanishes_while_it_waits_is_noticed() {
    for kind in BOTH {
        let server = setup().start();
        let proxy = ReverseProxy::start(kind, &server);
        server.create("a", 0).expect(201);
        server.hold("a/main");
        let mut stays = proxy.connect();
        stays.write(&request("PUT", "/resource/a/b/lock?wait=250", &KEY, ""));
        let mut leaves = proxy.connect();
        leaves.write(&request("PUT", "/resource/a/b/lock?wait=250", &KEY, ""));
        until("both wait", || server.waiting("a") == 2);
        drop(leaves);
        until("one has left", || server.waiting("a") == 1);
    }
}

#[test]
fn the_clients_address_arrives_whatever_the_client_claims() {
    for kind in BOTH {
        let server = setup().with("ACCESS_LOG", "true").start();
        let proxy = ReverseProxy::start(kind, &server);
        let claims = [("x-api-key", WRITE), ("X-Forwarded-For", "203.0.113.7")];
        let mut client = proxy.connect_from(5);
        client.ask_through("GET", "/resource/who-am-i", &claims, "");
        let line = server.logged(&["/resource/who-am-i 404"]);
        assert!(line.contains("client=127.0.0.5 "), "{kind:?}: {line}");
    }
}

#[test]
fn clients_behind_a_proxy_are_limited_one_by_one() {
    for kind in BOTH {
        let server = setup().with("RATE_LIMIT_PER_SECOND", "1").start();
        let proxy = ReverseProxy::start(kind, &server);
        let mut greedy = proxy.connect_from(6);
        let limited = eventually("it is limited", || {
            let answer = greedy.ask_through("GET", "/resource", &KEY, "");
            (answer.status == 429).then_some(answer)
        });
        assert!(
            limited.header("Retry-After").is_some(),
            "{kind:?} {limited:?}"
        );
        let mut modest = proxy.connect_from(7);
        assert_eq!(
            modest.ask_through("GET", "/resource", &KEY, "").status,
            200,
            "{kind:?}"
        );
    }
}

#[test]
fn large_bodies_pass_and_too_large_ones_have_the_servers_answer() {
    for kind in BOTH {
        let server = setup().start();
        let proxy = ReverseProxy::start(kind, &server);
        server.create("a", 0).expect(201);
        let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        let mut client = proxy.connect();
        let large = text(2_000_000);
        assert_eq!(
            client
                .ask_through("PUT", "/resource/a/b", &KEY, &large)
                .status,
            204,
            "{kind:?}"
        );
        let read = client.ask_through("GET", "/resource/a/b?lock=0&raw=1", &KEY, "");
        assert!(read.body == large.as_bytes(), "{kind:?}");
        let refused = proxy
            .connect()
            .ask_through("PUT", "/resource/a/b", &KEY, &text(2_100_000));
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (413, "body_too_large")
        );
        // Nobody can fill the proxy's disk: nginx warns when a body or an answer goes there.
        assert!(!proxy.log().contains("temporary file"), "{}", proxy.log());
    }
}

/// Connections to this port of which the kernel knows, those that were closed a while ago included.
fn connections_to(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = format!("0100007F:{port:04X}");
    let to_port = |line: &&str| line.split_whitespace().nth(2) == Some(remote.as_str());
    table.lines().filter(to_port).count()
}

#[test]
fn connections_to_the_server_are_kept() {
    for kind in BOTH {
        let server = setup().start();
        let proxy = ReverseProxy::start(kind, &server);
        let before = connections_to(server.address().port());
        let mut client = proxy.connect();
        for _ in 0..100 {
            assert_eq!(client.ask_through("GET", "/health", &[], "").status, 200);
        }
        let opened = connections_to(server.address().port()).saturating_sub(before);
        // Health checks open some, too.
        assert!(opened < 50, "{kind:?}: {opened}");
    }
}

/// A client behind a proxy sees 502 and 503 at worst while the server restarts, and every answer is whole.
#[test]
fn a_restart_behind_a_proxy_is_over_when_the_server_is_back() {
    for kind in BOTH {
        let mut server = setup().sqlite().start();
        let proxy = ReverseProxy::start(kind, &server);
        server.create("a", 0).expect(201);
        let mut client = proxy.connect();
        server.signal(Signal::TERM);
        assert!(server.end().success());
        let answer = client.ask_through("GET", "/resource/a", &KEY, "");
        assert!([502, 503].contains(&answer.status), "{kind:?} {answer:?}");
        let port = server.address().port().to_string();
        let _server = server.setup().clone().with("HTTP_PORT", &port).start();
        eventually("it is served again", || {
            let answer = proxy.connect().ask_through("GET", "/resource/a", &KEY, "");
            if answer.status == 200 {
                return Some(());
            }
            assert!([502, 503].contains(&answer.status), "{kind:?} {answer:?}");
            None
        });
        assert!(matches!(proxy.kind, Kind::Nginx | Kind::Haproxy));
    }
}
