//! The OpenAPI document: the copy, what a server shows, and what it does.

use serde_json::Value;

use crate::support::{ADMIN, Program, Setup};

fn printed() -> String {
    let output = Setup::new().output(&["openapi"]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// With everything in its place that stands elsewhere in it.
fn document() -> Value {
    let document: Value = serde_json::from_str(&printed()).unwrap();
    resolved(&document, &document)
}

fn resolved(part: &Value, whole: &Value) -> Value {
    match part {
        Value::Object(fields) => match fields.get("$ref").and_then(Value::as_str) {
            Some(place) if !place.contains("/schemas/") => {
                let place = place.trim_start_matches('#');
                resolved(whole.pointer(place).expect(place), whole)
            }
            _ => {
                let fields = fields.iter();
                fields
                    .map(|(name, value)| (name.clone(), resolved(value, whole)))
                    .collect()
            }
        },
        Value::Array(items) => items.iter().map(|item| resolved(item, whole)).collect(),
        other => other.clone(),
    }
}

#[test]
fn a_server_shows_what_the_program_prints() {
    let server = Program::new();
    let answer = server.call("GET", "/openapi.json").no_key().expect(200);
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert_eq!(answer.text().trim(), printed().trim());
    assert_eq!(answer.json()["openapi"], "3.1.0");
}

/// The schema of this name describes these fields and no others, and all it requires are there.
#[track_caller]
fn assert_described(document: &Value, name: &str, answer: &Value) {
    let schema = &document["components"]["schemas"][name];
    let properties = schema["properties"].as_object().unwrap();
    let fields = answer.as_object().unwrap();
    for field in fields.keys() {
        assert!(
            properties.contains_key(field),
            "{name}.{field} is not described"
        );
    }
    for field in schema["required"].as_array().into_iter().flatten() {
        let field = field.as_str().unwrap();
        assert!(fields.contains_key(field), "{name}.{field} is not sent");
    }
}

#[test]
fn answers_have_the_fields_that_are_described() {
    let document = document();
    let server = Program::new();
    let ask = |method: &str, path: &str, body: &str| {
        let call = server.call(method, path).key(ADMIN).body(body);
        call.send().json()
    };
    let created = ask("POST", "/resource", "{\"name\":\"n\"}");
    assert_described(&document, "Created", &created);
    let granted = ask("PUT", "/resource/n/s/lock", "{\"owner\":\"o\"}");
    assert_described(&document, "Granted", &granted);
    assert_described(&document, "Queued", &ask("PUT", "/resource/n/s/lock", ""));
    assert_described(
        &document,
        "Error",
        &ask("PUT", "/resource/n/s/lock?queue=0", ""),
    );
    server.put("m/s", "{}").query("create=1").expect(204);
    let documents = ask("GET", "/resource/m?selectors=1", "");
    assert_described(&document, "Resource", &documents);
    assert_described(&document, "DocumentSize", &documents["documents"][0]);
    let described = ask("GET", "/resource/n", "");
    assert_described(&document, "Place", &described["queue"][0]);
    assert_described(&document, "Resource", &described);
    assert_described(&document, "Holder", &described["holder"]);
    assert_described(&document, "Resources", &ask("GET", "/resource", ""));
    let force = ask("POST", "/resource/n/force-unlock", "{\"reason\":\"r\"}");
    assert_described(&document, "Forced", &force);
    assert_described(&document, "Status", &ask("GET", "/health", ""));
    let status = ask("GET", "/status", "");
    assert_described(&document, "ServerStatus", &status);
    assert_described(&document, "Key", &status["key"]);
    assert_described(&document, "LockCounts", &status["locks"]);
}

/// A path of the document with its parameters filled in.
fn target(pattern: &str) -> String {
    pattern.replace("{name}", "n").replace("{selector}", "s")
}

#[test]
fn every_operation_is_served_and_every_other_method_is_refused() {
    let document = document();
    let server = Program::new();
    for (pattern, item) in document["paths"].as_object().unwrap() {
        let mut allowed: Vec<String> = Vec::new();
        for method in ["get", "put", "post", "delete", "patch", "options", "trace"] {
            if (method, pattern.as_str()) == ("get", "/events") {
                // Its answer has no end; `api events` reads it.
                allowed.push("GET".to_owned());
                continue;
            }
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
    let document = document();
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
