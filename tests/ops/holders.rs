//! Which lock is stuck, by whom, since when, and how many wait: one request.

use serde_json::Value;

use crate::client::until;
use crate::server::Server;

fn names(listing: &Value) -> Vec<&str> {
    let resources = listing["resources"].as_array().unwrap();
    resources
        .iter()
        .map(|resource| resource["name"].as_str().unwrap())
        .collect()
}

fn list(server: &Server, query: &str) -> Value {
    let path = format!("/resource?{query}");
    server.call("GET", &path).expect(200).json()
}

/// `b` is held first, with one waiter; `d` after it, with two; `a` and `c` are free.
struct Scene {
    server: Server,
    _waiters: Vec<crate::client::Connection>,
}

fn scene() -> Scene {
    let server = Server::start(&[]);
    for name in ["a", "b", "c", "d"] {
        server.prepare(name);
    }
    server.hold("b", "early");
    let since = |name: &str| server.described(name)["holder"]["acquiredAt"].clone();
    // Times are told in milliseconds; the later one must be later.
    until("a later time", || {
        let ticket = server.hold("d", "late");
        let later = since("d").as_str() > since("b").as_str();
        if !later {
            server.unlock("d", &ticket);
        }
        later
    });
    let waiters = [("b", "w1"), ("d", "w2"), ("d", "w3")];
    let waiters = waiters.map(|(name, owner)| server.wait(name, owner));
    Scene {
        server,
        _waiters: waiters.into(),
    }
}

#[test]
fn the_most_waited_for_lock_comes_first_with_its_holder() {
    let scene = scene();
    let listing = list(&scene.server, "sort=waiting&limit=2");
    assert_eq!(names(&listing), ["d", "b"]);
    assert_eq!(listing["next"], Value::Null);
    let worst = &listing["resources"][0];
    assert_eq!(worst["waiting"], 2);
    assert_eq!(worst["locked"], true);
    assert_eq!(worst["holder"]["owner"], "late");
    assert!(worst["holder"]["acquiredAt"].is_string());
}

#[test]
fn the_longest_held_lock_comes_first() {
    let scene = scene();
    assert_eq!(
        names(&list(&scene.server, "sort=held")),
        ["b", "d", "a", "c"]
    );
    assert_eq!(names(&list(&scene.server, "sort=held&limit=1")), ["b"]);
    let held = list(&scene.server, "sort=held&locked=1&prefix=d");
    assert_eq!(names(&held), ["d"]);
}

#[test]
fn locked_and_free_resources_are_listed_by_themselves_page_by_page() {
    let scene = scene();
    let server = &scene.server;
    assert_eq!(names(&list(server, "locked=1")), ["b", "d"]);
    assert_eq!(names(&list(server, "locked=0")), ["a", "c"]);
    let first = list(server, "locked=1&limit=1");
    assert_eq!(names(&first), ["b"]);
    assert_eq!(first["next"], "b");
    let second = list(server, "locked=1&limit=1&after=b");
    assert_eq!(names(&second), ["d"]);
    assert_eq!(second["next"], Value::Null);
}

#[test]
fn a_lock_that_is_reserved_for_a_waiter_counts_as_locked() {
    let server = Server::start(&[("CLAIM_SECONDS", "60")]);
    server.prepare("a");
    let ticket = server.hold("a", "x");
    server.lock("a", "y").expect(200);
    server.unlock("a", &ticket);
    let listing = list(&server, "locked=true");
    assert_eq!(names(&listing), ["a"]);
    assert_eq!(listing["resources"][0]["holder"], Value::Null);
    assert_eq!(listing["resources"][0]["waiting"], 1);
    assert_eq!(names(&list(&server, "locked=false")), Vec::<&str>::new());
}

#[test]
fn a_lock_shows_up_and_disappears_as_it_is_taken_and_released() {
    let server = Server::start(&[]);
    server.prepare("a");
    for _ in 0..20 {
        assert_eq!(names(&list(&server, "locked=1")), Vec::<&str>::new());
        let ticket = server.hold("a", "x");
        assert_eq!(names(&list(&server, "locked=1")), ["a"]);
        server.unlock("a", &ticket);
    }
}

#[test]
fn locks_that_nobody_asked_for_since_the_start_are_listed_from_the_store() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("resources.db");
    let variables = [("STORE", "sqlite"), ("SQLITE_PATH", path.to_str().unwrap())];
    let ready = |server: &Server| {
        until("it is ready", || {
            server.call("GET", "/ready").send().status == 200
        });
    };
    let mut before = Server::start(&variables);
    ready(&before);
    for name in ["a", "b", "c"] {
        before.prepare(name);
    }
    before.hold("b", "from before");
    before.lock("b", "waits").expect(200);
    before.stop();
    let after = Server::start(&variables);
    ready(&after);
    for query in ["locked=1", "sort=waiting&limit=1", "sort=held&limit=1"] {
        let listing = list(&after, query);
        assert_eq!(names(&listing), ["b"], "{query}");
        assert_eq!(listing["resources"][0]["holder"]["owner"], "from before");
        assert_eq!(listing["resources"][0]["waiting"], 1);
    }
    after.hold("c", "new");
    assert_eq!(names(&list(&after, "locked=1")), ["b", "c"]);
    assert_eq!(names(&list(&after, "sort=held&limit=2")), ["b", "c"]);
}

#[test]
fn an_order_that_changes_all_the_time_has_no_next_page() {
    let server = Server::start(&[]);
    for query in ["sort=waiting&after=a", "sort=held&after="] {
        let call = server.call("GET", &format!("/resource?{query}"));
        call.refused(400, "malformed");
    }
    for query in ["sort=size", "sort=", "locked=2", "locked="] {
        let call = server.call("GET", &format!("/resource?{query}"));
        call.refused(400, "malformed");
    }
    server
        .call("GET", "/resource?sort=name&after=a")
        .expect(200);
}
