//! The other verbs of a client.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::session::{Process, Session, text};
use crate::support::{ADMIN, STRANGE_TICKET, Setup, eventually, free_port};

fn json_of(session: &Session, arguments: &[&str]) -> Value {
    let output = session.output(&[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?} {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// With a ticket for `nowhere` and a document to write, for the verbs that take one.
fn with_ticket_and_document(session: &Session, arguments: &[&str]) -> Command {
    // A file for each command: one that still runs would otherwise read what is written for the next.
    let mut document = tempfile::tempfile().unwrap();
    document.write_all(b"1").unwrap();
    document.rewind().unwrap();
    let mut command = session.command(arguments);
    command
        .env("LOCK_KEY", ADMIN)
        .env("LOCK_NAME", "nowhere")
        .env("LOCK_TICKET", STRANGE_TICKET)
        .stdin(document);
    command
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
}

/// Without the times of renewals: they are worked out from two clocks for each answer, and differ by a millisecond.
fn without_renewals(text: &str) -> String {
    let mut parts = text.split("\"renewedAt\":\"");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part.split_once('"').expect("a time in quotation marks").1
    })
}

#[test]
fn json_is_printed_as_the_server_sent_it() {
    let session = Session::new();
    session.server.lock("a/x").owner("me").granted();
    let printed = |arguments: &[&str]| {
        let output = session.output(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?} {output:?}");
        without_renewals(&text(&output.stdout))
    };
    let described = session.server.describe("a").expect(200);
    assert_eq!(
        printed(&["show", "a"]),
        format!("{}\n", without_renewals(described.text()))
    );
    let listed = session.server.list("limit=1000").expect(200);
    let listed = listed.text().strip_prefix("{\"resources\":").unwrap();
    let listed = listed.strip_suffix(",\"next\":null}").unwrap();
    assert_eq!(
        printed(&["locks"]),
        format!("{}\n", without_renewals(listed))
    );
    session.force_off("a");
    let past = session.server.call("GET", "/history/a").expect(200);
    let past = past.text().strip_prefix("{\"leases\":").unwrap();
    let past = past.strip_suffix('}').unwrap();
    assert_eq!(printed(&["history", "a"]), format!("{past}\n"));
}

#[test]
fn what_does_not_exist_is_1_whatever_was_asked() {
    let session = Session::new();
    for arguments in [
        &["show", "nowhere"][..],
        &["history", "nowhere"],
        &["get", "nowhere", "x"],
        &["get", "a", "never-written"],
        &["put", "nowhere", "x"],
        &["renew"],
        &["unlock"],
        &["force-unlock", "nowhere", "--reason", "it hangs"],
    ] {
        let mut command = with_ticket_and_document(&session, arguments);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?} {output:?}");
        let verb = format!("{}: ", arguments[0]);
        assert!(text(&output.stderr).starts_with(&verb), "{output:?}");
    }
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
fn input_without_an_end_is_refused() {
    let session = Session::new();
    let key_file = "--key-file=/dev/zero";
    for (arguments, code, said) in [
        (&["locks", key_file][..], 64, "larger than 1 MiB"),
        (&["lock", "a", key_file, "-c", ":"], 64, "larger than 1 MiB"),
        (&["put", "a", "x"], 64, "is not JSON"),
        (&["hash-key"], 1, "at most 64 KiB"),
    ] {
        let endless = File::open("/dev/zero").unwrap();
        let mut command = session.command(arguments);
        let output = command.stdin(endless).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {output:?}");
        assert!(text(&output.stderr).contains(said), "{output:?}");
    }
    // As a file is that is being rewritten in place: not a key.
    let output = session.output(&["locks", "--key-file=/dev/null"]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(text(&output.stderr).contains("it is empty"), "{output:?}");
}

#[test]
fn output_that_cannot_be_written_is_an_error_and_leaves_no_lock() {
    let session = Session::new();
    for (arguments, code) in [(&["locks"][..], 1), (&["lock", "a", "--print-env"], 125)] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = session.command(arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {output:?}");
        assert!(
            text(&output.stderr).contains("Standard output"),
            "{output:?}"
        );
    }
    assert!(!session.server.is_locked("a"));
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
fn a_server_that_is_not_there_is_125_whatever_was_asked() {
    let session = Session::new();
    let nobody = format!("http://127.0.0.1:{}", free_port());
    // At the same time: each tries for as long as a request may take.
    let start = |arguments: &'static [&'static str]| {
        let mut command = with_ticket_and_document(&session, arguments);
        (
            arguments[0],
            Process::of(command.env("LOCK_SERVER", &nobody)),
        )
    };
    let started = [
        start(&["lock", "a", "--", "true"]),
        start(&["locks"]),
        start(&["show", "a"]),
        start(&["history", "a"]),
        start(&["watch"]),
        start(&["get", "a", "x"]),
        start(&["put", "a", "x"]),
        start(&["renew"]),
        start(&["unlock"]),
        start(&["force-unlock", "a", "--reason", "it hangs"]),
    ];
    for (verb, process) in started {
        let (status, _, err) = process.end();
        assert_eq!(status.code(), Some(125), "{verb}: {err}");
        assert!(err.starts_with(&format!("{verb}: ")), "{err}");
    }
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
        (
            &["watch", "shop:", "--json"][..],
            r#"{"kind":"granted","name":"shop:1","selector":"#,
        ),
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
        process.signal(rustix::process::Signal::TERM);
    }
}

#[test]
fn events_are_followed_again_once_the_server_is_back() {
    let port = free_port().to_string();
    let mut session = Session::with(&Setup::new().with("HTTP_PORT", &port));
    let mut process = session.start(&["watch"]);
    let lines = process.lines();
    let follows = |session: &Session, name: &str| {
        eventually("an event is told", || {
            let output = session.output(&["lock", name, "-c", ":"]);
            assert!(output.status.success(), "{output:?}");
            let told = format!(" granted {name} ");
            lines.try_iter().find(|line| line.contains(&told))
        });
    };
    follows(&session, "before");
    session.server.kill();
    let away = process.complaint();
    assert!(away.starts_with("watch: "), "{away}");
    assert!(away.ends_with("Connecting again.\n"), "{away}");
    session.server.start_again();
    let back = process.complaint();
    assert!(back.contains("events in between are missing"), "{back}");
    follows(&session, "after");
}

#[test]
fn events_are_followed_no_longer_once_the_server_refuses() {
    let port = free_port().to_string();
    let setup = Setup::new().with("HTTP_PORT", &port);
    let mut session = Session::with(&setup);
    let mut wrong_key = session.command(&["watch"]);
    let output = wrong_key.env("LOCK_KEY", "wrong").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let mut process = session.start(&["watch"]);
    let lines = process.lines();
    eventually("an event is told", || {
        assert!(session.output(&["lock", "a", "-c", ":"]).status.success());
        lines.try_iter().next()
    });
    session.server.stop();
    let _with_another_key = setup.with("RESOURCE_WRITE", "another-key").start();
    assert_eq!(process.ended().code(), Some(1));
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
