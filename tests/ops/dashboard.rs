//! The Grafana dashboard asks only for what `/metrics` shows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::metrics::samples;
use crate::session::session;
use crate::support::Program;

/// What Prometheus' query language brings itself.
const WORDS: [&str; 18] = [
    "job",
    "instance",
    "sum",
    "rate",
    "by",
    "le",
    "histogram_quantile",
    "max",
    "min",
    "increase",
    "clamp_min",
    "avg",
    "topk",
    "without",
    "or",
    "and",
    "on",
    "time",
];

fn dashboard() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/grafana-dashboard.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Every query of every panel, with the panel's title.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title} asks for nothing");
        for target in targets {
            queries.push((
                title.to_owned(),
                target["expr"].as_str().unwrap().to_owned(),
            ));
        }
    }
    queries
}

/// The words of a query outside of quotes, durations in brackets left out.
fn words(query: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quoted, mut range) = (false, false);
    for c in query.chars() {
        match c {
            '"' => quoted = !quoted,
            '[' => range = true,
            ']' => range = false,
            _ => {}
        }
        let part = !quoted && !range && (c.is_ascii_alphanumeric() || c == '_' || c == ':');
        match part {
            true => words.last_mut().unwrap().push(c),
            false => words.push(String::new()),
        }
    }
    words.retain(|word| word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'));
    words
}

/// The metrics of a scrape with the labels they have.
fn shown(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for series in samples(text).into_keys() {
        let (name, labels) = series.split_once('{').unwrap_or((&series, ""));
        let labels = words(labels).into_iter();
        shown.entry(name.to_owned()).or_default().extend(labels);
    }
    shown
}

#[test]
fn each_panel_names_only_metrics_and_labels_that_a_server_shows() {
    let server = Program::new();
    session(&server);
    let text = server.metrics();
    let shown = shown(&text);
    let queries = queries(&dashboard());
    assert!(queries.len() >= 10, "{queries:?}");
    for (title, query) in queries {
        let words = words(&query);
        let metrics: Vec<&String> = words
            .iter()
            .filter(|word| shown.contains_key(*word))
            .collect();
        assert!(!metrics.is_empty(), "{title}: no metric in {query}");
        for word in &words {
            let label = metrics.iter().any(|metric| shown[*metric].contains(word));
            let known = shown.contains_key(word) || label || WORDS.contains(&word.as_str());
            assert!(known, "{title}: {word} of {query} is not in\n{text}");
        }
    }
}

#[test]
fn each_metric_that_says_how_locks_and_instances_are_is_on_a_panel() {
    let queries = queries(&dashboard());
    let named: BTreeSet<String> = queries.iter().flat_map(|(_, query)| words(query)).collect();
    for name in [
        "lock_grants_total",
        "lock_ends_total",
        "lock_wait_seconds_bucket",
        "lock_held_seconds_bucket",
        "locks_held",
        "waiters",
        "refusals_total",
        "store_errors_total",
        "commit_seconds_bucket",
        "persistence_queue_resources",
        "actors_live",
        "data_cache_bytes",
        "ready",
        "http_requests_total",
        "http_request_seconds_bucket",
        "active",
        "instances",
        "slots",
        "slots_gained_total",
        "takeovers_total",
        "forwarded_requests_total",
        "forwarded_requests_received_total",
        "forwarded_retries_total",
        "forwarded_requests_refused_total",
        "forwarded_requests_held",
        "peer_connections_refused_total",
        "peer_round_trip_seconds_bucket",
        "peers_unreachable",
    ] {
        assert!(named.contains(&format!("resource_server_{name}")), "{name}");
    }
}
