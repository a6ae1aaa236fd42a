//! The OpenAPI document: the copy, what a server shows, and what it does.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};
use small_resource_server::http::errors::CODES;
use small_resource_server::http::paths::PATTERNS;

use crate::support::{ADMIN, Answer, Call, Program, Setup, eventually};

const GET: &str = "GET /resource/{name}/{selector}";
const PUT: &str = "PUT /resource/{name}/{selector}";
const DELETE: &str = "DELETE /resource/{name}/{selector}";
const LOCK: &str = "PUT /resource/{name}/{selector}/lock";
const RENEW: &str = "PUT /resource/{name}/{selector}/renew";
const UNLOCK: &str = "POST /resource/{name}/{selector}/unlock";
const FORCE: &str = "POST /resource/{name}/force-unlock";

/// Headers that are HTTP's own.
const OF_HTTP: [&str; 5] = [
    "Connection",
    "Content-Length",
    "Content-Type",
    "Date",
    "Transfer-Encoding",
];

/// Query parameters that take any text: no value of theirs is refused.
const FREE_TEXT: [&str; 3] = ["after", "prefix", "selectorsAfter"];

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

#[test]
fn every_route_and_every_code_is_in_the_document_and_nothing_else_is() {
    let document = document();
    let described = document["paths"].as_object().unwrap().keys();
    let described: BTreeSet<&str> = described.map(String::as_str).collect();
    // The page is not part of the API.
    let others = ["/", "/page/{file}"];
    let served = PATTERNS.iter().filter(|pattern| !others.contains(pattern));
    assert_eq!(described, served.copied().collect());
    let responses = document["components"]["responses"].as_object().unwrap();
    let enums = responses.values().filter_map(|response| {
        let schema = &response["content"]["application/json"]["schema"];
        schema["allOf"][1]["properties"]["code"]["enum"].as_array()
    });
    let described: BTreeSet<&str> = enums.flatten().filter_map(Value::as_str).collect();
    let given: BTreeSet<&str> = CODES.iter().map(|(_, code)| *code).collect();
    assert_eq!(described, given);
}

#[test]
fn every_schema_has_an_example_with_its_fields() {
    let document = document();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(schema["example"].is_object(), "{name} has no example");
        assert_described(&document, name, &schema["example"]);
    }
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

/// A server, and the document that describes it.
struct Api {
    document: Value,
    server: Program,
}

impl Api {
    fn start(setup: &Setup) -> Api {
        Api {
            document: document(),
            server: setup.start(),
        }
    }

    /// Method, path and description of every operation. Without GET `/events`, whose answer has no end.
    fn operations(&self) -> Vec<(String, &str, &Value)> {
        let mut operations = Vec::new();
        for (path, item) in self.document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                if path != "/events" {
                    operations.push((method.to_uppercase(), path.as_str(), operation));
                }
            }
        }
        operations
    }

    /// A request with the key that has all rights.
    fn call(&self, method: &str, path: &str) -> Call {
        self.server.call(method, &target(path)).key(ADMIN)
    }

    /// Sends a request, of which each part is described, as is its answer. `asked`: method, path of the document,
    /// and query.
    #[track_caller]
    fn ask(&self, status: u16, asked: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let (method, rest) = asked.split_once(' ').unwrap();
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let operation = &self.document["paths"][path][&method.to_lowercase()];
        let mut call = self.call(method, path);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, _) = pair.split_once('=').unwrap();
            assert!(has_parameter(operation, "query", name), "{asked}: {name}");
            call = call.query(pair);
        }
        for (name, value) in headers {
            assert!(has_parameter(operation, "header", name), "{asked}: {name}");
            call = call.header(name, value);
        }
        if !body.is_empty() {
            assert!(operation["requestBody"].is_object(), "{asked}: a body");
            call = call.body(body);
        }
        let answer = call.expect(status);
        assert_answer_described(&self.document, operation, &answer);
        answer
    }
}

fn has_parameter(operation: &Value, place: &str, name: &str) -> bool {
    let parameters = operation["parameters"].as_array();
    parameters.into_iter().flatten().any(|parameter| {
        let known = parameter["name"].as_str().unwrap();
        parameter["in"] == place && known.eq_ignore_ascii_case(name)
    })
}

/// The operation's description of this status has these headers.
#[track_caller]
fn assert_headers_described<'a>(
    operation: &Value,
    status: u16,
    headers: impl Iterator<Item = &'a str>,
) {
    let (id, response) = (
        &operation["operationId"],
        &operation["responses"][&status.to_string()],
    );
    assert!(response.is_object(), "{id}: {status} is not described");
    let described = response["headers"].as_object().unwrap();
    for header in headers {
        let is_described = described.keys().any(|n| n.eq_ignore_ascii_case(header));
        assert!(
            is_described || OF_HTTP.contains(&header),
            "{id}: {header} of {status} is not described"
        );
    }
}

/// The status, the headers, the code and the fields of this answer are described.
#[track_caller]
fn assert_answer_described(document: &Value, operation: &Value, answer: &Answer) {
    let names = answer.headers.iter().map(|(name, _)| name.as_str());
    assert_headers_described(operation, answer.status, names);
    let response = &operation["responses"][&answer.status.to_string()];
    let schema = &response["content"]["application/json"]["schema"];
    if answer.status >= 400 {
        let codes = schema["allOf"][1]["properties"]["code"]["enum"].as_array();
        let mut codes = codes.into_iter().flatten();
        assert!(codes.any(|code| *code == answer.code()), "{answer:?}");
        assert_described(document, "Error", &answer.json());
    }
    if let Some(place) = schema["$ref"].as_str() {
        let name = place.rsplit('/').next().unwrap();
        assert_described(document, name, &answer.json());
    }
}

/// The names of the query parameters that the handlers read.
fn parameters_read() -> BTreeSet<String> {
    let http = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    let handlers = fs::read_dir(http.join("handlers")).unwrap();
    let handlers = handlers.map(|entry| entry.unwrap().path());
    let mut names = BTreeSet::new();
    for file in handlers.chain([http.join("query.rs")]) {
        let text = fs::read_to_string(file).unwrap();
        for call in [".get(\"", ".flag(\"", ".count(\""] {
            let read = text.split(call).skip(1);
            names.extend(read.map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
    names
}

/// A value that no parameter takes is refused, by the name of the parameter, where the handler reads it.
#[test]
fn each_operation_reads_the_query_parameters_that_are_described() {
    let api = Api::start(&Setup::new());
    let mut described = BTreeSet::new();
    for (_, _, operation) in api.operations() {
        let parameters = operation["parameters"].as_array().unwrap().iter();
        let of_query = parameters.filter(|parameter| parameter["in"] == "query");
        described.extend(of_query.map(|p| p["name"].as_str().unwrap().to_owned()));
    }
    assert_eq!(described, parameters_read());
    for (method, path, operation) in api.operations() {
        for name in &described {
            let call = api.call(&method, path).query(&format!("{name}=%21"));
            let answer = call.send();
            assert_answer_described(&api.document, operation, &answer);
            let sentence = format!("The query parameter {name} is not accepted");
            let is_refused = answer.text().contains(&sentence);
            let is_described = has_parameter(operation, "query", name);
            assert_eq!(
                is_refused,
                is_described && !FREE_TEXT.contains(&name.as_str()),
                "{call:?}: {answer:?}"
            );
        }
    }
}

#[test]
fn each_operation_takes_the_conditions_and_idempotency_keys_that_are_described() {
    let api = Api::start(&Setup::new());
    let too_long = "k".repeat(256);
    for (method, path, operation) in api.operations() {
        let call = api.call(&method, path);
        // A document is read under a condition without the lock only.
        let call = match has_parameter(operation, "query", "lock") {
            true => call.query("lock=0"),
            false => call,
        };
        for header in ["If-Match", "If-None-Match", "If-Unmodified-Since"] {
            let answer = call.clone().header(header, "*").send();
            assert_answer_described(&api.document, operation, &answer);
            let is_refused = answer.status == 400 && answer.code() == "condition_not_offered";
            let is_described = has_parameter(operation, "header", header);
            assert_ne!(is_refused, is_described, "{call:?}: {header}");
        }
        let answer = call.clone().idempotency_key(&too_long).send();
        assert_answer_described(&api.document, operation, &answer);
        let is_read = answer
            .text()
            .contains("The Idempotency-Key is not accepted");
        let is_described = has_parameter(operation, "header", "Idempotency-Key");
        assert_eq!(is_read, is_described, "{call:?}: {answer:?}");
    }
}

#[test]
fn each_operation_needs_a_key_and_reads_a_body_where_that_is_described() {
    let api = Api::start(&Setup::new().with("MAX_BODY_BYTES", "100"));
    let too_long = "1".repeat(101);
    for (method, path, operation) in api.operations() {
        let call = api.call(&method, path);
        let without_key = call.clone().no_key().send();
        assert_answer_described(&api.document, operation, &without_key);
        let has_key = operation["security"].is_array();
        assert_eq!(without_key.status == 401, has_key, "{call:?}");
        let answer = call.clone().body(too_long.as_str()).send();
        assert_answer_described(&api.document, operation, &answer);
        let has_body = operation["requestBody"].is_object();
        assert_eq!(answer.status == 413, has_body, "{call:?}: {answer:?}");
    }
}

#[test]
fn what_locks_are_asked_and_answer_is_described() {
    let api = Api::start(&Setup::new());
    let key = ("Idempotency-Key", "k");
    let shared = r#"{"owner":"o","ttl":600,"reason":"r","mode":"shared"}"#;
    let first = format!("{LOCK}?create=1&wait=0");
    let first = api.ask(200, &first, &[key, ("X-Request-Id", "mine")], shared);
    assert_described(&api.document, "Granted", &first.json());
    let first = first.ticket();
    let holds = ("X-Ticket", first.as_str());
    api.ask(409, LOCK, &[key], r#"{"owner":"p"}"#);
    api.ask(200, LOCK, &[], shared);
    // Another client shares the lock: a holder is not promoted and changes nothing.
    api.ask(409, LOCK, &[holds], r#"{"mode":"exclusive"}"#);
    api.ask(409, PUT, &[holds], "1");
    api.ask(409, "DELETE /resource/{name}", &[holds], "");
    let second = api.ask(200, LOCK, &[], "");
    assert_described(&api.document, "Queued", &second.json());
    let second = second.ticket();
    let waits = ("X-Ticket", second.as_str());
    api.ask(409, LOCK, &[waits], shared);
    api.ask(400, &format!("{LOCK}?queue=0&wait=1"), &[waits], "");
    api.ask(409, &format!("{LOCK}?queue=0"), &[], "");
    api.ask(200, RENEW, &[holds], r#"{"ttl":600,"exact":true}"#);
    api.ask(409, RENEW, &[waits], "");
    api.ask(400, RENEW, &[], "");
    api.ask(400, UNLOCK, &[], "");
    api.ask(200, UNLOCK, &[holds], "");
    api.ask(403, RENEW, &[holds], "");
    let anew = api.ask(200, LOCK, &[holds], "");
    assert_eq!(anew.header("X-Ticket-Ended"), Some("ticket_released"));
}

#[test]
fn what_documents_are_asked_and_answer_is_described() {
    let api = Api::start(&Setup::new().with("MAX_SELECTORS", "1"));
    let missing = ("If-None-Match", "*");
    api.ask(204, &format!("{PUT}?create=1"), &[missing], "1");
    api.ask(412, PUT, &[missing], "2");
    let read = api.ask(200, &format!("{GET}?lock=0&raw=1"), &[], "");
    let tag = read.header("Etag").unwrap();
    let locked = format!("{GET}?lock=1&wait=0");
    let locked = api.ask(200, &locked, &[("Idempotency-Key", "k")], "");
    assert_described(&api.document, "Document", &locked.json());
    let ticket = locked.ticket();
    let holds = ("X-Ticket", ticket.as_str());
    let unchanged = format!("{GET}?lock=0&wait=0.01");
    api.ask(304, &unchanged, &[("If-None-Match", tag), holds], "");
    api.ask(202, GET, &[], "");
    api.ask(409, PUT, &[], "2");
    api.ask(412, PUT, &[missing, holds], "2");
    let matches = ("If-Match", tag);
    api.ask(204, &format!("{PUT}?unlock=0"), &[matches, holds], "2");
    api.ask(409, "PUT /resource/{name}/force-unlock", &[holds], "2");
    api.ask(409, DELETE, &[], "");
    api.ask(204, DELETE, &[holds], "");
    api.ask(404, DELETE, &[holds], "");
    api.ask(404, GET, &[holds], "");
    api.ask(204, &format!("{PUT}?unlock=1"), &[holds], "3");
    api.ask(403, PUT, &[holds], "4");
}

#[test]
fn what_the_server_is_asked_about_locks_and_tells_is_described() {
    let api = Api::start(&Setup::new());
    for path in ["/health", "/ready", "/metrics", "/openapi.json", "/status"] {
        api.ask(200, &format!("GET {path}"), &[], "");
    }
    let resource = r#"{"name":"n","slots":2,"lockDelay":1}"#;
    api.ask(201, "POST /resource", &[], resource);
    api.ask(409, "POST /resource", &[], r#"{"name":"n"}"#);
    let (ticket, _) = api.server.hold("n/s");
    api.server.hold("n/s");
    api.server.queue("n/s");
    let holds = ("X-Ticket", ticket.as_str());
    let describe = "GET /resource/{name}?queue=1&selectors=1&selectorsAfter=a";
    let description = api.ask(200, describe, &[holds], "");
    let described = description.json();
    for (name, part) in [
        ("You", &described["you"]),
        ("Holding", &described["holders"][0]),
        ("Place", &described["queue"][0]),
    ] {
        assert_described(&api.document, name, part);
    }
    let tag = description.header("Etag").unwrap();
    let known = [("If-None-Match", tag), holds];
    api.ask(304, "GET /resource/{name}?wait=0.01", &known, "");
    let list = "GET /resource?prefix=n&after=a&limit=1&locked=1&reserved=0&sort=name";
    api.ask(200, list, &[], "");

    api.ask(409, FORCE, &[], r#"{"reason":"r","fencingToken":1000000}"#);
    let stranger = r#"{"reason":"r","waiter":"0123456789abcdef"}"#;
    api.ask(409, FORCE, &[], stranger);
    let waiter = json!({"reason": "r", "waiter": described["queue"][0]["id"]});
    api.ask(200, FORCE, &[], &waiter.to_string());
    api.ask(200, FORCE, &[], r#"{"reason":"r"}"#);
    let forced = api.ask(403, UNLOCK, &[holds], "").json();
    assert_described(&api.document, "ForcedBy", &forced["forced"]);
    let past_lease = eventually("the lease is in the history", || {
        let history = api.ask(200, "GET /history/{name}?limit=1", &[], "").json();
        Some(history["leases"][0].clone()).filter(Value::is_object)
    });
    assert_described(&api.document, "PastLease", &past_lease);
}

#[test]
fn what_the_php_profile_answers_is_described() {
    let api = Api::start(&Setup::new().with("COMPATIBILITY", "php"));
    api.ask(201, "POST /resource", &[], r#"{"name":"n","timeout":1}"#);
    let ticket = api.ask(202, GET, &[], "").ticket();
    let holds = ("X-Ticket", ticket.as_str());
    api.ask(200, UNLOCK, &[holds], "");
    let again = api.ask(200, UNLOCK, &[holds], "");
    assert_eq!(again.json()["code"], "ticket_released");
}

#[test]
fn a_limited_answer_is_described() {
    let api = Api::start(&Setup::new().with("RATE_LIMIT_PER_SECOND", "1"));
    let call = api.call("GET", "/resource");
    let limited = eventually("a 429", || Some(call.send()).filter(|a| a.status == 429));
    let operation = &api.document["paths"]["/resource"]["get"];
    assert_answer_described(&api.document, operation, &limited);
}

#[test]
fn events_are_described() {
    let api = Api::start(&Setup::new());
    let mut stream = api.call("GET", "/events?prefix=n").open().stream;
    let mut text = String::new();
    let mut read_until = |wanted: &str| {
        let mut bytes = [0; 4096];
        while !text.contains(wanted) {
            let count = stream.read(&mut bytes).unwrap();
            assert!(count > 0, "the stream ended: {text}");
            text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    };
    read_until(": following\n\n");
    api.server.create("n", 0).expect(201);
    read_until("}\n\n");
    let (head, events) = text.split_once("\r\n\r\n").unwrap();
    let headers = head.lines().skip(1);
    let names = headers.map(|line| line.split(':').next().unwrap());
    let operation = &api.document["paths"]["/events"]["get"];
    assert_headers_described(operation, 200, names);
    let (_, data) = events.split_once("data: ").unwrap();
    let event: Value = serde_json::from_str(data.lines().next().unwrap()).unwrap();
    assert_described(&api.document, "Event", &event);
}
