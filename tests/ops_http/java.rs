//! The JDK's own client, which asks to upgrade to HTTP/2 and keeps connections.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Program, WRITE, skip};

#[test]
fn the_clients_of_the_jdk_never_meet_a_connection_that_is_closed_without_a_word() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let with_java = root.join("scripts/with-java");
    let found = Command::new(&with_java)
        .arg("true")
        .stdout(Stdio::null())
        .status();
    if !found.is_ok_and(|status| status.success()) {
        skip("there is no JDK here (Debian's package default-jdk-headless)");
        return;
    }
    let server = Program::new();
    for thread in 0..8 {
        server.create(&format!("java{thread}"), 0).expect(201);
    }
    let done = Command::new(with_java)
        .arg("java")
        .arg(root.join("tests/ops_http/DefaultClient.java"))
        .arg(format!("http://{}", server.address()))
        .args([WRITE, "8", "100"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{}: {said}", done.status);
}
