//! One key for a start, keys for some names only, keys in files, and files that change.

use std::fs;
use std::path::Path;

use serde_json::json;
use small_resource_server::config::key_hash;

use crate::support::{ADMIN, Program, READ, Setup, WRITE, replace_file, until};

const BILLING: &str = "the key of billing";
/// The second one is within a prefix to which the key has more rights.
const READABLE: &str = "[\"shop:\", \"billing:b\"]";

fn entry(key: &str, rights: &str, prefixes: &str, more: &str) -> String {
    let hash = key_hash(key);
    format!(
        "[[key]]\nname = \"billing\"\nsha256 = \"{hash}\"\nrights = \"{rights}\"\nprefixes = {prefixes}\n{more}\n"
    )
}

fn start(text: &str) -> Program {
    let setup = Setup::new();
    let path = keys_path(setup.folder());
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    setup.with("KEYS_FILE", &path).start()
}

fn keys_path(folder: &Path) -> std::path::PathBuf {
    folder.join("keys.toml")
}

#[test]
fn a_scoped_key_is_an_unknown_one_to_names_outside_its_prefixes() {
    let text =
        entry(BILLING, "write", "[\"billing:\"]", "") + &entry(BILLING, "read", READABLE, "");
    let server = start(&text);
    for name in ["billing:a", "shop:a", "other", "billing"] {
        server.prepare(name);
    }
    server.lock("billing:a/s").key(BILLING).expect(200);
    server.logged(&["granted resource=\"billing:a\"", " key=billing "]);
    server.describe("shop:a").key(BILLING).expect(200);
    server
        .lock("shop:a/s")
        .key(BILLING)
        .refused(401, "key_insufficient");
    for name in ["other", "billing", "none"] {
        server
            .describe(name)
            .key(BILLING)
            .refused(401, "key_unknown");
        server
            .lock(&format!("{name}/s"))
            .key(BILLING)
            .refused(401, "key_unknown");
        server
            .create(name, 0)
            .key(BILLING)
            .refused(401, "key_unknown");
    }
    for path in ["/resource/%zz", "/history/%zz"] {
        let call = server.call("GET", path);
        call.clone().key(BILLING).refused(401, "key_unknown");
        call.key(READ).refused(400, "malformed");
    }
    server
        .call("GET", "/history/other")
        .key(BILLING)
        .refused(401, "key_unknown");
    server.create("billing:b", 0).key(BILLING).expect(201);
    server
        .create("shop:b", 0)
        .key(BILLING)
        .refused(401, "key_insufficient");
    let names = |query: &str| {
        let listed = server.list(query).key(BILLING).expect(200).json();
        let names = listed["resources"].as_array().unwrap().clone();
        let names: Vec<String> = names
            .iter()
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect();
        (names.join(" "), listed["next"].as_str().map(str::to_owned))
    };
    assert_eq!(names(""), ("billing:a billing:b shop:a".to_owned(), None));
    assert_eq!(names("limit=2").0, "billing:a billing:b");
    assert_eq!(names("limit=2").1.as_deref(), Some("billing:b"));
    assert_eq!(names("limit=2&after=billing%3Ab").0, "shop:a");
    assert_eq!(names("prefix=billing%3Ab").0, "billing:b");
    assert_eq!(names("prefix=o").0, "");
    assert_eq!(names("sort=held&locked=1").0, "billing:a");
    let status = server
        .call("GET", "/status")
        .key(BILLING)
        .expect(200)
        .json();
    assert_eq!(status["key"]["name"], "billing");
    assert_eq!(status["key"]["prefixes"], json!(["billing:", "shop:"]));
    assert_eq!(status["locks"]["held"], 1);
}

#[test]
fn a_change_of_the_keys_file_takes_effect_without_a_signal() {
    let server = start(&entry(BILLING, "read", "[\"\"]", ""));
    server.list("").key(BILLING).expect(200);
    let path = keys_path(server.setup().folder());
    replace_file(
        &path,
        entry(BILLING, "read", "[\"\"]", "expires = 2020-01-31"),
    );
    until("it has expired", || {
        server.list("").key(BILLING).send().status == 401
    });
    replace_file(&path, "this is no TOML");
    server.logged(&["settings not reloaded", "KEYS_FILE"]);
    replace_file(&path, entry(BILLING, "read", "[\"\"]", ""));
    until("it is there again", || {
        server.list("").key(BILLING).send().status == 200
    });
    server.list("").key(READ).expect(200);
    // As a file is that is being rewritten in place.
    fs::write(&path, "").unwrap();
    server.logged(&["settings not reloaded", "no [[key]] entry"]);
    server.list("").key(BILLING).expect(200);
    let refused = server.setup().output(&["check-config"]);
    assert_eq!(refused.status.code(), Some(78));
}

#[test]
fn each_previous_key_that_is_still_used_is_counted_and_said_once() {
    let previous = [
        ("RESOURCE_WRITE_PREVIOUS", "old"),
        ("RESOURCE_READ_PREVIOUS", "older"),
    ];
    let server = Setup::new().with_all(&previous).start();
    for _ in 0..3 {
        server.list("").key("old").expect(200);
        server.list("").key("older").expect(200);
    }
    server.list("").key(WRITE).expect(200);
    let metrics = server.metrics();
    for right in ["write", "read"] {
        let counted = format!("resource_server_previous_key_requests_total{{right=\"{right}\"}} 3");
        assert!(metrics.contains(&counted), "{metrics}");
        server.logged(&[&format!("the previous {right} key is still used")]);
    }
    assert_eq!(server.log().matches("is still used").count(), 2);
}

#[test]
fn one_key_is_enough_for_a_start_and_none_of_the_others_may_stand_beside_it() {
    let setup = Setup::new();
    for (name, value) in setup.settings() {
        assert!(name != "API_KEY", "{value}");
    }
    let with = |pairs: &[(&str, &str)]| {
        let names = [
            "RESOURCE_READ",
            "RESOURCE_READ_LOCK",
            "RESOURCE_WRITE",
            "RESOURCE_ADMIN",
        ];
        let empty = names.map(|name| (name, ""));
        Setup::new().with_all(&empty).with_all(pairs)
    };
    let server = with(&[("API_KEY", WRITE)]).start();
    server.create("a", 0).key(WRITE).expect(201);
    server.lock("a/b").key(WRITE).expect(200);
    server
        .force_unlock("a")
        .key(WRITE)
        .refused(401, "key_insufficient");
    server.list("").key(ADMIN).refused(401, "key_unknown");
    let refused = with(&[("API_KEY", "x"), ("RESOURCE_READ", "y")]).output(&["check-config"]);
    assert_eq!(refused.status.code(), Some(78));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        said.contains("API_KEY and RESOURCE_READ are both set"),
        "{said}"
    );
}

#[test]
fn a_secret_may_stand_in_a_file_of_its_own() {
    let setup = Setup::new();
    let path = setup.folder().join("write-key");
    fs::write(&path, "from a file\n").unwrap();
    let path = path.to_str().unwrap().to_owned();
    let server = setup
        .with("RESOURCE_WRITE", "")
        .with("RESOURCE_WRITE_FILE", &path)
        .start();
    server.create("a", 0).key("from a file").expect(201);
    // As some editors write it.
    replace_file(Path::new(&path), "\u{feff}another\r\n");
    until("the new one counts", || {
        server.list("").key("another").send().status == 200
    });
    server
        .list("")
        .key("from a file")
        .refused(401, "key_unknown");
    let both = Setup::new().with("RESOURCE_READ_FILE", &path);
    let refused = both.output(&["check-config"]);
    assert_eq!(refused.status.code(), Some(78));
}

#[test]
fn an_empty_secret_file_turns_no_key_off() {
    let setup = Setup::new();
    let path = setup.folder().join("admin-key");
    fs::write(&path, ADMIN).unwrap();
    let named = path.to_str().unwrap().to_owned();
    let server = setup
        .with("RESOURCE_ADMIN", "")
        .with("RESOURCE_ADMIN_FILE", &named)
        .start();
    server.list("").key(ADMIN).expect(200);
    // As a file is that is being rewritten in place.
    fs::write(&path, "").unwrap();
    server.logged(&[
        "settings not reloaded",
        "RESOURCE_ADMIN_FILE names",
        "it is empty",
    ]);
    server.list("").key(ADMIN).expect(200);
    let refused = server.setup().output(&["check-config"]);
    assert_eq!(refused.status.code(), Some(78));
}
