//! Which lock is stuck, by whom, since when, and how many wait: one request.

use serde_json::Value;

use crate::session::{hold, wait};
use crate::support::{Connection, Program, Setup, until};

fn names(listing: &Value) -> Vec<&str> {
    let resources = listing["resources"].as_array().unwrap();
    resources
        .iter()
        .map(|resource| resource["name"].as_str().unwrap())
        .collect()
}

fn list(server: &Program, query: &str) -> Value {
    let path = format!("/resource?{query}");
    server.call("GET", &path).expect(200).json()
}

/// `b` is held first, with one waiter; `d` after it, with two; `a` and `c` are free.
struct Scene {
    server: Program,
    _waiters: Vec<Connection>,
}

fn scene() -> Scene {
    let server = Program::new();
    for name in ["a", "b", "c", "d"] {
        server.create(name, 0).expect(201);
    }
    hold(&server, "b", "early");
    let since = |name: &str| server.described(name)["holder"]["acquiredAt"].clone();
    // Times are told in milliseconds; the later one must be later.
    until("a later time", || {
        let ticket = hold(&server, "d", "late");
        let later = since("d").as_str() > since("b").as_str();
        if !later {
            server.unlock("d/s", &ticket).expect(200);
        }
        later
    });
    let waiters = [("b", "w1"), ("d", "w2"), ("d", "w3")];
    let waiters = waiters.map(|(name, owner)| wait(&server, name, owner));
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
    let server = Setup::new().with_all(&[("CLAIM_SECONDS", "60")]).start();
    server.create("a", 0).expect(201);
    let ticket = hold(&server, "a", "x");
    server.lock("a/s").owner("y").expect(200);
    server.unlock("a/s", &ticket).expect(200);
    let listing = list(&server, "locked=true");
    assert_eq!(names(&listing), ["a"]);
    assert_eq!(listing["resources"][0]["holder"], Value::Null);
    assert_eq!(listing["resources"][0]["waiting"], 1);
    assert_eq!(names(&list(&server, "locked=false")), Vec::<&str>::new());
}

#[test]
fn a_lock_shows_up_and_disappears_as_it_is_taken_and_released() {
    let server = Program::new();
    server.create("a", 0).expect(201);
    for _ in 0..20 {
        assert_eq!(names(&list(&server, "locked=1")), Vec::<&str>::new());
        let ticket = hold(&server, "a", "x");
        assert_eq!(names(&list(&server, "locked=1")), ["a"]);
        server.unlock("a/s", &ticket).expect(200);
    }
}

#[test]
fn locks_that_nobody_asked_for_since_the_start_are_listed_from_the_store() {
    let mut server = Setup::new().sqlite().start();
    for name in ["a", "b", "c"] {
        server.create(name, 0).expect(201);
    }
    hold(&server, "b", "from before");
    server.lock("b/s").owner("waits").queued();
    server.stop();
    server.start_again();
    for query in ["locked=1", "sort=waiting&limit=1", "sort=held&limit=1"] {
        let listing = list(&server, query);
        assert_eq!(names(&listing), ["b"], "{query}");
        assert_eq!(listing["resources"][0]["holder"]["owner"], "from before");
        assert_eq!(listing["resources"][0]["waiting"], 1);
    }
    hold(&server, "c", "new");
    assert_eq!(names(&list(&server, "locked=1")), ["b", "c"]);
    assert_eq!(names(&list(&server, "sort=held&limit=2")), ["b", "c"]);
}

#[test]
fn an_order_that_changes_all_the_time_has_no_next_page() {
    let server = Program::new();
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
