//! The operator's page as files, and `/status`. What the page does is shown in a browser: `scripts/test-page`.

use serde_json::Value;

use crate::session::hold;
use crate::support::{ADMIN, KEYS, LOCK, Program, READ, WRITE, until};

/// The values of `src="…"`, `href="…"` and imports that lead to files of the page.
fn referred(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (before, path) in [
        ("\"page/", "page/"),
        ("from\"./", "page/"),
        ("from \"./", "page/"),
    ] {
        for rest in text.split(before).skip(1) {
            let name = rest.split('"').next().unwrap();
            paths.push(format!("/{path}{name}"));
        }
    }
    paths
}

#[test]
fn the_page_and_all_that_it_loads_come_without_a_key_and_are_small() {
    let server = Program::new();
    let mut to_load = vec!["/".to_owned()];
    let mut loaded: Vec<String> = Vec::new();
    let mut bytes = 0;
    while let Some(path) = to_load.pop() {
        if loaded.contains(&path) {
            continue;
        }
        let answer = server.call("GET", &path).no_key().expect(200);
        bytes += answer.text().len();
        to_load.extend(referred(answer.text()));
        loaded.push(path);
    }
    assert!(loaded.len() > 10, "{loaded:?}");
    assert!(bytes < 150_000, "{bytes}");
}

#[test]
fn the_page_may_load_nothing_from_elsewhere_and_sets_no_cookie() {
    let server = Program::new();
    for path in ["/", "/page/app.js", "/page/style.css", "/page/icon.svg"] {
        let answer = server.call("GET", path).no_key().expect(200);
        let policy = answer.header("Content-Security-Policy").unwrap();
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(!policy.contains("http"), "{policy}");
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
        assert_eq!(answer.header("Set-Cookie"), None);
    }
}

#[test]
fn a_file_that_the_browser_has_already_is_not_sent_again() {
    let server = Program::new();
    let first = server.call("GET", "/page/app.js").no_key().expect(200);
    assert_eq!(first.header("Cache-Control"), Some("no-cache"));
    let tag = first.header("Etag").unwrap();
    for known in [tag.to_owned(), format!("\"other\", W/{tag}")] {
        let again = server.call("GET", "/page/app.js").no_key();
        again.header("If-None-Match", &known).expect(304);
    }
    let changed = server.call("GET", "/page/app.js").no_key();
    changed.header("If-None-Match", "\"other\"").expect(200);
    let malformed = server.call("GET", "/page/app.js").no_key();
    malformed
        .header("If-None-Match", "unquoted")
        .refused(400, "malformed");
}

#[test]
fn what_is_no_file_of_the_page_is_a_404_and_other_methods_a_405() {
    let server = Program::new();
    for path in ["/page/", "/page/nothing", "/page/../app.js", "/page"] {
        let answer = server.call("GET", path).no_key().expect(404);
        assert_eq!(answer.code(), "route_unknown", "{path}");
    }
    let refused = server.call("POST", "/").no_key().expect(405);
    assert_eq!(refused.header("Allow"), Some("GET, HEAD"));
}

fn status(server: &Program, key: &str) -> Value {
    server.call("GET", "/status").key(key).expect(200).json()
}

#[test]
fn status_tells_each_key_its_rights() {
    let server = Program::new();
    let rights = KEYS.map(|key| status(&server, key)["key"]["rights"].clone());
    assert_eq!(rights, ["read", "read_lock", "write", "admin"]);
    let told = status(&server, READ);
    assert_eq!(told["store"], "memory");
    assert_eq!(told["profile"], "default");
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    server.call("GET", "/status").key("other").expect(401);
    server.call("GET", "/status").no_key().expect(401);
}

#[test]
fn status_and_listings_tell_since_when_somebody_waits() {
    let server = Program::new();
    let oldest = || status(&server, READ)["locks"]["oldestWait"].clone();
    assert_eq!(oldest(), Value::Null);
    for name in ["a", "b"] {
        server.create(name, 0).expect(201);
        hold(&server, name, "holder");
    }
    let first = server.lock("b/s").owner("first").queued().ticket();
    let since = oldest();
    assert_eq!(since["name"], "b");
    // By the millisecond: the next wait begins later.
    until("time passes", || {
        status(&server, READ)["now"].as_str() > since["since"].as_str()
    });
    server.lock("a/s").owner("second").queued();
    assert_eq!(oldest(), since);
    let listed = server.list("sort=name").expect(200).json();
    assert_eq!(listed["resources"][1]["waitsSince"], since["since"]);
    server.unlock("b/s", &first).expect(200);
    assert_eq!(oldest()["name"], "a");
    let listed = server.list("sort=name").expect(200).json();
    assert_eq!(listed["resources"][1]["waitsSince"], Value::Null);
}

#[test]
fn status_counts_what_is_held_and_who_waits() {
    let server = Program::new();
    let counts = |key| {
        let locks = status(&server, key)["locks"].clone();
        ["held", "reserved", "waiting", "grants"].map(|of| locks[of].as_u64().unwrap())
    };
    assert_eq!(counts(READ), [0, 0, 0, 0]);
    for name in ["a", "b", "c"] {
        server.create(name, 0).expect(201);
    }
    let first = hold(&server, "a", "first");
    hold(&server, "b", "other");
    server.lock("a/s").owner("second").queued();
    server.lock("a/s").owner("third").queued();
    assert_eq!(counts(LOCK), [2, 0, 2, 2]);
    server.unlock("a/s", &first).expect(200);
    // Reserved for the second, which is near.
    assert_eq!(counts(WRITE), [1, 1, 2, 2]);
    assert_eq!(counts(ADMIN), [1, 1, 2, 2]);
}
