//! `docs/operation.md` says what the server does.

use std::path::Path;

use small_resource_server::http::errors::CODES;

use crate::metrics::samples;
use crate::session::session;
use crate::support::{Program, Setup, free_port};

fn text() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operation.md");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn it_explains_every_code() {
    let text = text();
    let (_, rest) = text.split_once("<!-- codes -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- /codes -->").unwrap();
    let mut rows = table.lines();
    assert_eq!(rows.next(), Some("| status | code | meaning |"));
    assert_eq!(rows.next(), Some("|---|---|---|"));
    for (status, code) in CODES {
        let begins = format!("| {} | `{code}` | ", status.as_u16());
        let row = rows.next().unwrap_or_default();
        let meaning = row.strip_prefix(&begins).unwrap_or_default();
        assert!(meaning.len() > " |".len(), "{code}: {row}");
    }
    assert_eq!(rows.next(), None);
}

#[test]
fn it_explains_every_metric() {
    let server = Program::new();
    session(&server);
    let text = text();
    for series in samples(&server.metrics()).keys() {
        let name = series.split('{').next().unwrap();
        // Those that begin with process_ are Prometheus' own, the same for every program.
        let Some(name) = name.strip_prefix("resource_server_") else {
            assert!(name.starts_with("process_"), "{name}");
            continue;
        };
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|part| {
                name.strip_suffix(part)
                    .filter(|n| n.ends_with("seconds") || n.starts_with("commit_batch"))
            })
            .unwrap_or(name);
        let named = [format!("`{name}`"), format!("`{name}{{")];
        assert!(
            named.iter().any(|n| text.contains(n.as_str())),
            "{name} is not explained"
        );
    }
}

#[test]
fn after_restore_makes_no_store_and_leaves_room_for_tokens() {
    let setup = Setup::new().sqlite();
    let output = |setup: &Setup, arguments: &[&str]| {
        let done = setup.output(arguments);
        let said = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
        (done.status.code(), said)
    };
    let (code, said) = output(&setup, &["after-restore"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("SQLITE_PATH"), "{said}");
    assert!(!setup.folder().join("resources.db").exists());
    let (code, said) = output(&Setup::new(), &["after-restore"]);
    assert_eq!(code, Some(1), "{said}");

    let mut server = setup.start();
    server.create("printer", 0).expect(201);
    server.hold("printer/s");
    server.stop();
    let too_large = u64::MAX.to_string();
    let (code, said) = output(&setup, &["after-restore", "--above", &too_large]);
    assert_eq!(code, Some(2), "{said}");
    let largest = ((1_u64 << 53) - 1).to_string();
    let (code, said) = output(&setup, &["after-restore", "--above", &largest]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("was 1."), "{said}");
    server.start_again();
    server.create("new", 0).expect(201);
    assert_eq!(server.hold("new/s").1, 1 << 53);
}

#[test]
fn a_revert_that_reached_no_database_does_not_claim_to_have_begun() {
    let setup = Setup::new().with_all(&[
        ("STORE", "mysql"),
        ("MYSQL_HOST", "127.0.0.1"),
        ("MYSQL_PORT", &free_port().to_string()),
        ("MYSQL_DATABASE", "locks"),
        ("MYSQL_USER", "locks"),
        ("MYSQL_PASSWORD", "locks"),
    ]);
    for (arguments, told) in [
        (&["revert-to-php"][..], "Nothing was changed: "),
        (&["revert-to-php", "--yes"], "if anything was.\n"),
    ] {
        let output = setup.output(arguments);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(told), "{said}");
    }
}
