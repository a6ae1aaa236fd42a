//! The other verbs of a client.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::session::{Process, Session, text};
use crate::support::ADMIN;

fn json_of(session: &Session, arguments: &[&str]) -> Value {
    let output = session.output(&[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?} {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn who_holds_what_is_shown_to_people_and_to_programs() {
    let session = Session::new();
    let (_, token) = session.server.hold("a/x");
    let locks = json_of(&session, &["locks"]);
    assert_eq!(
        (&locks[0]["name"], &locks[0]["locked"]),
        (&json!("a"), &json!(true))
    );
    assert_eq!(json_of(&session, &["locks", "nothing"]), json!([]));
    let shown = json_of(&session, &["show", "a"]);
    assert_eq!(shown["holder"]["fencingToken"], token);
    let people = session.output(&["locks"]);
    assert!(text(&people.stdout).starts_with("NAME"), "{people:?}");
    assert!(text(&session.output(&["show", "a"]).stdout).contains("holds"));
    assert_ne!(session.output(&["show", "nowhere"]).status.code(), Some(0));
}

#[test]
fn a_lock_that_was_printed_goes_on_with_its_variables() {
    let session = Session::new();
    let output = session.output(&["lock", "a", "--print-env"]);
    let line = text(&output.stdout);
    assert!(line.starts_with("export LOCK_TICKET="), "{line}");
    assert!(line.contains(" LOCK_FENCING_TOKEN="), "{line}");
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    let variables: Vec<(&str, &str)> = words
        .iter()
        .map(|word| word.split_once('=').unwrap())
        .collect();
    let run = |arguments: &[&str]| {
        let mut command = session.command(arguments);
        command.envs(
            variables
                .iter()
                .map(|(name, value)| (*name, value.trim_matches('\''))),
        );
        command
    };
    assert!(session.server.is_locked("a"));
    assert!(run(&["renew", "-t", "40s"]).status().unwrap().success());
    let mut put = run(&["put", "a", "stock"]);
    let mut process = Process::of(put.stdin(Stdio::piped()));
    process.write("{\"n\": 1}\n");
    assert!(process.end().0.success());
    let got = session.output(&["get", "a", "stock"]);
    assert_eq!(text(&got.stdout), "{\"n\": 1}\n");
    // Without the ticket it is somebody else's.
    let mut without = session.command(&["put", "a", "stock"]);
    let mut process = Process::of(without.stdin(Stdio::piped()));
    process.write("2");
    assert_eq!(process.end().0.code(), Some(1));
    assert!(run(&["unlock"]).status().unwrap().success());
    assert!(
        run(&["unlock"]).status().unwrap().success(),
        "a second time is the same"
    );
    assert!(!session.server.is_locked("a"));
    assert_eq!(run(&["renew"]).status().unwrap().code(), Some(1));
    assert_eq!(session.output(&["unlock"]).status.code(), Some(64));
}

#[test]
fn a_lease_is_forced_off_by_its_token_or_not_at_all() {
    let session = Session::new();
    let (_, token) = session.server.hold("a/x");
    let force = |token: u64| {
        let token = token.to_string();
        let arguments = [
            "force-unlock",
            "a",
            "--reason",
            "it hangs",
            "--fencing-token",
            &token,
        ];
        session
            .command(&arguments)
            .env("LOCK_KEY", ADMIN)
            .output()
            .unwrap()
    };
    assert_eq!(force(token + 1).status.code(), Some(1));
    assert!(session.server.is_locked("a"));
    assert_eq!(text(&force(token).stdout), "forced off\n");
    assert!(!session.server.is_locked("a"));
    assert_eq!(
        session.output(&["force-unlock", "a"]).status.code(),
        Some(64)
    );
}

#[test]
fn a_server_that_is_not_there_is_125() {
    let session = Session::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let output = session.output(&["locks", "-s", &format!("http://{nobody}")]);
    assert_eq!(output.status.code(), Some(125), "{output:?}");
}
