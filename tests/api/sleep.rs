//! Held resources that nobody uses for a while leave memory. Nothing that a client sees shows it.

use serde_json::Value;

use crate::stores::{CLEARLY, check_granted, time};
use crate::support::{ADMIN, Server, until};

/// A number that the server shows in its metrics.
fn metric(app: &Server, name: &str) -> u64 {
    let metrics = app.call("GET", "/metrics").key(ADMIN).expect(200);
    let lines = metrics.text().lines();
    let name = format!("resource_server_{name}");
    let mut values = lines.filter_map(|line| line.strip_prefix(&name)?.strip_prefix(' '));
    values
        .next()
        .expect("the metric")
        .parse()
        .expect("a number")
}

pub fn until_asleep(app: &Server, count: u64) {
    until("they sleep", || metric(app, "actors_asleep") == count);
    assert_eq!(metric(app, "actors_live"), 0);
}

fn listed(app: &Server, query: &str) -> Vec<Value> {
    let page = app.call("GET", "/resource").query(query).expect(200).json();
    page["resources"].as_array().expect("a list").clone()
}

api_tests! {
    fn the_holder_of_a_sleeping_resource_still_holds_it(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let granted = app.lock("printer/s").body(r#"{"owner":"me","ttl":600}"#).expect(200);
        let (ticket, before) = (granted.ticket(), app.described("printer"));
        until_asleep(&app, 1);
        assert_eq!(metric(&app, "locks_held"), 1);
        let after = app.described("printer");
        assert_eq!(after["holder"]["acquiredAt"], before["holder"]["acquiredAt"]);
        assert_eq!(after["holder"]["fencingToken"], granted.token());
        let ends = |described: &Value| time(&described["holder"]["expiresAt"]);
        let later = ends(&after).duration_since(ends(&before)).unwrap_or_default();
        assert!(later < CLEARLY, "the lease goes on and does not begin anew");
        until_asleep(&app, 1);
        app.renew("printer/s", &ticket).expect(200);
        until_asleep(&app, 1);
        app.put("printer/s", "2").ticket(&ticket).expect(204);
        until_asleep(&app, 1);
        app.lock("printer/s").query("queue=0").refused(409, "locked");
        app.unlock("printer/s", &ticket).expect(200);
        assert!(!app.is_locked("printer"));
        assert_eq!(metric(&app, "locks_held"), 0);
    }

    fn whoever_asks_for_a_sleeping_resource_queues(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (ticket, token) = app.hold("printer/s");
        until_asleep(&app, 1);
        let mut waiter = app.wait("printer/s");
        assert_eq!(metric(&app, "actors_asleep"), 0);
        app.unlock("printer/s", &ticket).expect(200);
        let granted = waiter.answer();
        check_granted(&granted);
        assert_eq!(granted.token(), token + 1);
    }

    fn a_sleeping_lease_ends_when_it_is_over_and_not_before(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let granted = app.lock("printer/s").body(r#"{"ttl":2}"#).expect(200);
        let ends = time(&granted.json()["expiresAt"]);
        until("nobody holds it", || metric(&app, "locks_held") == 0);
        assert!(std::time::SystemTime::now() + CLEARLY >= ends, "it ended early");
        assert_eq!(metric(&app, "actors_asleep"), 0);
        app.renew("printer/s", &granted.ticket()).refused(403, "lease_expired");
        app.hold("printer/s");
    }

    fn a_lease_that_is_over_goes_to_whoever_waits_for_it(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let held = app.lock("printer/s").body(r#"{"ttl":2}"#).expect(200);
        let ends = time(&held.json()["expiresAt"]);
        let granted = app.lock("printer/s").query("wait=60").expect(200);
        check_granted(&granted);
        assert!(time(&granted.json()["acquiredAt"]) + CLEARLY >= ends, "granted early");
    }

    fn a_list_shows_sleeping_resources_as_they_are(store) {
        let app = Server::start(store);
        for name in ["a", "b", "c", "free"] {
            app.create(name, 0).expect(201);
        }
        for name in ["a", "b", "c"] {
            app.lock(&format!("{name}/s")).body(r#"{"owner":"me","ttl":600}"#).expect(200);
        }
        let described = ["a", "b", "c"].map(|name| app.described(name));
        for query in ["locked=true", "locked=true&sort=held", "sort=waiting", "sort=name"] {
            until_asleep(&app, 3);
            let seen = listed(&app, query);
            for before in &described {
                let row = seen.iter().find(|row| row["name"] == before["name"]);
                let row = row.unwrap_or_else(|| panic!("{query}: {seen:?}"));
                assert_eq!(row["locked"], true);
                assert_eq!(row["holder"]["owner"], "me");
                let ends = |row: &Value| time(&row["holder"]["expiresAt"]);
                let later = ends(row).duration_since(ends(before)).unwrap_or_default();
                let earlier = ends(before).duration_since(ends(row)).unwrap_or_default();
                assert!(later < CLEARLY && earlier < CLEARLY, "{query}: {row}");
            }
        }
        let free = listed(&app, "locked=false");
        assert_eq!(free.len(), 1, "{free:?}");
    }
}
