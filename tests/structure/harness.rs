//! `tests/support` is the only harness: no other test starts the program or stands between it and others.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::rust_files;

/// Who listens besides `tests/support`, and why.
const LISTENS: [(&str, &str); 4] = [
    ("mysql/outages.rs", "finds a port where nobody listens"),
    (
        "ops_http/stalled_log.rs",
        "finds a free port for a server whose log is not read",
    ),
    ("outage/private.rs", "finds a free port for a database"),
    (
        "proxies/proxy.rs",
        "finds a free port for nginx and HAProxy",
    ),
];

#[test]
fn tests_have_one_harness() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut listens = BTreeSet::new();
    for file in rust_files(&tests) {
        let path = file.strip_prefix(&tests).unwrap().to_str().unwrap();
        if path.starts_with("support/") || path.starts_with("structure/") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let starts = text.contains("CARGO_BIN_EXE");
        assert!(
            !starts,
            "{path} starts the program; tests/support does that"
        );
        if text.contains("TcpListener") || text.contains("UnixListener") {
            listens.insert(path.to_owned());
        }
    }
    let known = LISTENS.map(|(path, _)| path.to_owned());
    assert_eq!(listens, BTreeSet::from(known), "tests/support does that");
}
