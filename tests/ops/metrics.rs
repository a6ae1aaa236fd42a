//! `/metrics`.

use std::collections::BTreeMap;

use crate::session::{hold, session, wait};
use crate::support::{KEYS, Program, Setup, until};

/// The samples of a scrape by series, as `name{label="value",…}` with the labels in the order sent.
pub fn samples(text: &str) -> BTreeMap<String, f64> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            (series.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

fn value(samples: &BTreeMap<String, f64>, series: &str) -> f64 {
    let series = format!("resource_server_{series}");
    *samples.get(&series).unwrap_or_else(|| {
        let all: Vec<&String> = samples.keys().collect();
        panic!("no {series} in {all:#?}")
    })
}

#[test]
fn a_session_is_counted() {
    let server = Program::new();
    session(&server);
    let text = server.metrics();
    let samples = samples(&text);
    for (series, expected) in [
        ("store_pending_resources", 0.0),
        ("lock_grants_total", 4.0),
        ("lock_ends_total{reason=\"released\"}", 1.0),
        ("lock_ends_total{reason=\"forced_off\"}", 1.0),
        ("lock_ends_total{reason=\"expired\"}", 1.0),
        ("lock_ends_total{reason=\"deleted\"}", 1.0),
        ("lock_wait_seconds_count", 4.0),
        ("lock_held_seconds_count", 4.0),
        ("locks_held", 0.0),
        ("waiters", 0.0),
        ("waiters_max", 100_000.0),
        ("ready", 1.0),
        ("standby", 0.0),
        ("refusals_total{code=\"lease_forced_off\"}", 1.0),
        ("refusals_total{code=\"key_missing\"}", 1.0),
        ("refusals_total{code=\"store_unavailable\"}", 0.0),
        ("store_errors_total{kind=\"unavailable\"}", 0.0),
        (
            "http_requests_total{method=\"POST\",route=\"/resource\",status=\"201\"}",
            2.0,
        ),
        (
            "http_requests_total{method=\"POST\",route=\"/resource/{name}/force-unlock\",status=\"200\"}",
            1.0,
        ),
        (
            "http_requests_total{method=\"PUT\",route=\"/resource/{name}/{selector}\",status=\"403\"}",
            1.0,
        ),
        (
            "http_request_seconds_count{class=\"4xx\",route=\"/resource/{name}/{selector}\"}",
            1.0,
        ),
        (
            &format!(
                "build_info{{store=\"memory\",version=\"{}\"}}",
                env!("CARGO_PKG_VERSION")
            ),
            1.0,
        ),
    ] {
        assert_eq!(value(&samples, series), expected, "{series} in\n{text}");
    }
    // The second waited for the first, and no lease was shorter than the one that expired.
    assert!(value(&samples, "lock_held_seconds_sum") >= 1.0, "{text}");
    assert!(value(&samples, "commits_inline_total") > 0.0, "{text}");
}

#[test]
fn what_is_held_and_who_waits_shows_as_it_is_now() {
    let server = Program::new();
    server.create("a", 0).expect(201);
    let ticket = hold(&server, "a", "x");
    let waiter = wait(&server, "a", "y");
    let now = samples(&server.metrics());
    assert_eq!(value(&now, "locks_held"), 1.0);
    assert_eq!(value(&now, "waiters"), 1.0);
    assert_eq!(value(&now, "actors_live"), 1.0);
    waiter.hang_up();
    until("the waiter is gone", || {
        value(&samples(&server.metrics()), "waiters") == 0.0
    });
    server.unlock("a/s", &ticket).expect(200);
    assert_eq!(value(&samples(&server.metrics()), "locks_held"), 0.0);
}

#[test]
fn a_promotion_is_one_more_grant_of_the_same_lease() {
    let server = Program::new();
    server.create("a", 0).expect(201);
    let shared = server.lock("a/s").body(r#"{"mode":"shared"}"#).granted();
    let promotion = server.lock("a/s").ticket(&shared.ticket());
    promotion.body(r#"{"mode":"exclusive"}"#).granted();
    server.unlock("a/s", &shared.ticket()).expect(200);
    let samples = samples(&server.metrics());
    for (series, expected) in [
        ("lock_grants_total", 2.0),
        ("lock_wait_seconds_count", 1.0),
        ("lock_ends_total{reason=\"released\"}", 1.0),
    ] {
        assert_eq!(value(&samples, series), expected, "{series}");
    }
    let status = server.call("GET", "/status").expect(200).json();
    assert_eq!(status["locks"]["grants"], 2);
}

#[test]
fn a_store_that_writes_in_batches_shows_them() {
    let server = Setup::new().sqlite().start();
    session(&server);
    let samples = samples(&server.metrics());
    let batches = value(&samples, "commit_batch_resources_count");
    assert!(batches >= 8.0, "{samples:#?}");
    assert_eq!(value(&samples, "commit_batch_rows_count"), batches);
    assert!(value(&samples, "commit_batch_rows_sum") >= batches);
    assert_eq!(value(&samples, "commit_seconds_count"), batches);
    assert!(value(&samples, "commit_seconds_sum") > 0.0);
    assert_eq!(value(&samples, "persistence_queue_resources"), 0.0);
    assert_eq!(value(&samples, "commits_inline_total"), 0.0);
}

#[test]
fn no_label_carries_a_name_an_owner_a_ticket_or_a_key() {
    let server = Program::new();
    let tickets = session(&server);
    let shown = samples(&server.metrics());
    // Between quotes stand the values of labels, and nothing else.
    let values = |series: &String| -> Vec<String> {
        let parts = series.split('"').skip(1).step_by(2);
        parts.map(str::to_owned).collect()
    };
    let values: Vec<String> = shown.keys().flat_map(values).collect();
    let text = values.join("\n");
    assert!(text.contains("forced_off"), "{text}");
    let names = ["printer", "brief", "first", "second", "third", "went home"];
    let tickets = tickets.iter().map(String::as_str);
    for secret in tickets.chain(names).chain(KEYS) {
        assert!(!text.contains(secret), "{secret} is in\n{text}");
    }
    // The number of series hangs on nothing that a client chooses.
    // The second scrape shows the first one.
    let series = samples(&server.metrics()).len();
    for n in 0..50 {
        let path = format!("/resource/other-{n}/s-{n}");
        server
            .call("PUT", &path)
            .body("1")
            .refused(404, "resource_unknown");
    }
    let after = server.metrics();
    let new = samples(&after).len() - series;
    assert!(new <= 1, "{new} new series in\n{after}");
}

#[test]
fn what_leads_nowhere_is_one_route() {
    let server = Program::new();
    for path in ["/a", "/b", "/resource/a/b/c/d"] {
        server.call("GET", path).refused(404, "route_unknown");
    }
    server.call("BREW", "/a").refused(404, "route_unknown");
    let samples = samples(&server.metrics());
    let series = "http_requests_total{method=\"GET\",route=\"unknown\",status=\"404\"}";
    assert_eq!(value(&samples, series), 3.0);
    // A client can send any word as the method.
    let series = "http_requests_total{method=\"other\",route=\"unknown\",status=\"404\"}";
    assert_eq!(value(&samples, series), 1.0);
    assert_eq!(
        value(&samples, "refusals_total{code=\"route_unknown\"}"),
        4.0
    );
}
