//! The OpenAPI document: the copy, what a server shows, and what it does.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{ADMIN, Program, Setup};

fn generated() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_small-resource-server"))
        .arg("openapi")
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_committed_copy_is_what_the_program_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/openapi.json");
    let copy = std::fs::read_to_string(path).unwrap();
    assert!(
        copy == generated(),
        "run: small-resource-server openapi > config/openapi.json"
    );
}

#[test]
fn a_server_shows_it_with_its_own_longest_wait() {
    let server = Setup::new().with_all(&[("MAX_WAIT_SECONDS", "7")]).start();
    let answer = server.call("GET", "/openapi.json").no_key().expect(200);
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    let shown = answer.json();
    assert_eq!(shown["openapi"], "3.1.0");
    let default: Value = serde_json::from_str(&generated()).unwrap();
    assert_ne!(shown, default);
    let seven = answer.text().replace("0 to 7,", "0 to 300,");
    let seven: Value = serde_json::from_str(&seven).unwrap();
    let paths = |document: &Value| -> Vec<String> {
        document["paths"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect()
    };
    assert_eq!(paths(&seven), paths(&default));
    assert_eq!(seven["components"], default["components"]);
}

/// A path of the document with its parameters filled in.
fn target(pattern: &str) -> String {
    pattern.replace("{name}", "n").replace("{selector}", "s")
}

#[test]
fn every_operation_is_served_and_every_other_method_is_refused() {
    let document: Value = serde_json::from_str(&generated()).unwrap();
    let server = Program::new();
    for (pattern, item) in document["paths"].as_object().unwrap() {
        let mut allowed: Vec<String> = Vec::new();
        for method in ["get", "put", "post", "delete", "patch", "options", "trace"] {
            let call = server.call(&method.to_uppercase(), &target(pattern));
            let answer = call.key(ADMIN).send();
            if item.get(method).is_some() {
                assert_ne!(answer.status, 405, "{method} {pattern}: {answer:?}");
                let code = if answer.status < 400 {
                    String::new()
                } else {
                    answer.code()
                };
                assert_ne!(code, "route_unknown", "{method} {pattern}: {answer:?}");
                allowed.push(method.to_uppercase());
            } else {
                assert_eq!(answer.status, 405, "{method} {pattern}: {answer:?}");
            }
        }
        let refused = server.call("PATCH", &target(pattern)).send();
        let allow = refused.header("Allow").expect("Allow");
        let mut listed: Vec<&str> = allow.split(", ").filter(|m| *m != "HEAD").collect();
        listed.sort_unstable();
        allowed.sort_unstable();
        assert_eq!(listed, allowed, "{pattern}");
    }
}

#[test]
fn every_status_of_an_operation_is_described() {
    let document: Value = serde_json::from_str(&generated()).unwrap();
    for (pattern, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            let statuses: Vec<&str> = responses.keys().map(String::as_str).collect();
            assert!(
                statuses.iter().any(|status| status.starts_with('2')),
                "{method} {pattern}: {statuses:?}"
            );
            if pattern.starts_with("/resource") {
                for status in ["400", "401", "404", "405", "429", "503"] {
                    assert!(statuses.contains(&status), "{method} {pattern}: {status}");
                }
                assert!(operation["security"].is_array(), "{method} {pattern}");
            }
            for response in responses.values() {
                assert!(response["headers"]["X-Request-Id"].is_object());
            }
        }
    }
}
