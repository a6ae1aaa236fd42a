//! The other verbs of a client.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::session::{Process, Session, text};
use crate::support::{ADMIN, eventually};

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
fn a_waiter_is_removed_by_the_id_that_show_tells() {
    let session = Session::new();
    session.server.hold("a/x");
    session.server.lock("a/x").owner("waits").queued();
    let shown = json_of(&session, &["show", "a"]);
    let id = shown["queue"][0]["id"].as_str().unwrap();
    assert!(text(&session.output(&["show", "a"]).stdout).contains(id));
    let remove = || {
        let arguments = ["force-unlock", "a", "--reason", "no need", "--waiter", id];
        let mut command = session.command(&arguments);
        command.env("LOCK_KEY", ADMIN).output().unwrap()
    };
    assert_eq!(text(&remove().stdout), "removed\n");
    assert_eq!(text(&remove().stdout), "it was removed before\n");
    assert!(session.server.is_locked("a"));
    assert_eq!(session.server.waiting("a"), 0);
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

#[test]
fn the_history_of_a_name_tells_who_had_it_and_how_it_ended() {
    let session = Session::new();
    let output = session.output(&[
        "lock", "a", "--owner", "me", "--reason", "nightly", "-c", ":",
    ]);
    assert!(output.status.success(), "{output:?}");
    let (_, token) = session.server.hold("a/x");
    session.force_off("a");
    let leases = json_of(&session, &["history", "a"]);
    assert_eq!(leases[0]["fencingToken"], token);
    assert_eq!(leases[0]["end"], "forced_off");
    assert_eq!(
        leases[0]["forced"],
        json!({"reason": "it hangs", "by": "admin"})
    );
    assert_eq!(
        (&leases[1]["end"], &leases[1]["owner"]),
        (&json!("released"), &json!("me"))
    );
    let people = text(&session.output(&["history", "a"]).stdout);
    assert!(people.starts_with("TOKEN"), "{people}");
    let lines: Vec<&str> = people.lines().collect();
    assert!(
        lines[1].contains("forced_off by admin: it hangs"),
        "{people}"
    );
    assert!(
        lines[2].contains("released") && lines[2].contains("nightly"),
        "{people}"
    );
}

#[test]
fn what_happens_is_followed_as_it_happens() {
    let session = Session::new();
    for (arguments, told) in [
        (&["watch", "shop:", "--json"][..], r#""name":"shop:1""#),
        (&["watch", "shop:"], " granted shop:1 owner="),
    ] {
        let mut process = session.start(arguments);
        let lines = process.lines();
        let line = eventually("an event is told", || {
            // Nothing says from when on it follows.
            for name in ["other", "shop:1"] {
                assert!(session.output(&["lock", name, "-c", ":"]).status.success());
            }
            lines.try_iter().find(|line| line.contains("granted"))
        });
        assert!(line.contains(told), "{line}");
        // The server ends the stream when it stops, which is no success: events are missing from then on.
        process.signal(rustix::process::Signal::TERM);
    }
}

#[test]
fn a_stream_of_events_that_ends_is_no_success() {
    let mut session = Session::new();
    let mut process = session.start(&["watch"]);
    let lines = process.lines();
    eventually("an event is told", || {
        assert!(session.output(&["lock", "a", "-c", ":"]).status.success());
        lines.try_iter().next()
    });
    session.server.kill();
    drop(lines);
    let status = process.ended();
    assert_eq!(status.code(), Some(125));
}

#[test]
fn everything_about_a_name_is_shown() {
    let session = Session::new();
    let lock = session.server.lock("a/x");
    let lock = lock.json(&json!({"owner": "me", "reason": "nightly", "mode": "shared"}));
    lock.granted();
    session.server.lock("a/x").owner("next").queued();
    let people = text(&session.output(&["show", "a"]).stdout);
    for told in [
        "holds",
        "nightly",
        "shared",
        "waits, 1",
        "next",
        "exclusive",
    ] {
        assert!(people.contains(told), "no {told} in {people}");
    }
    let seen = json_of(&session, &["show", "a"]);
    assert_eq!(seen["holders"][0]["mode"], "shared");
    assert_eq!(seen["queue"][0]["owner"], "next");
}
