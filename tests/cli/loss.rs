//! The command is dead before anybody else can hold its lock, whatever happens to whom.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::session::{Session, is_alive, until_gone};
use crate::support::{eventually, until};

/// A command that goes on until it is killed.
const STUBBORN: &str = "trap '' TERM INT HUP; touch ready; while :; do sleep 0.05; done";
const LONG: &str = "while :; do sleep 0.05; done";
const SHORT: [&str; 4] = ["--ttl", "3s", "-k", "1s"];

#[test]
fn a_wrapper_that_is_killed_takes_the_command_with_it() {
    let session = Session::new();
    let script = format!("sh -c '{LONG}' & echo $! > child; {LONG}");
    let (process, shell) = session.start_script(&SHORT, &script);
    let child = session.number_in("child");
    process.signal(Signal::KILL);
    until_gone(shell);
    until_gone(child);
    // Nobody gave the lock back: the command was gone long before it was free.
    assert!(session.server.is_locked("a"));
}

#[test]
fn a_wrapper_that_is_stopped_past_the_ttl_costs_the_command_its_life() {
    let session = Session::new();
    let (process, shell) = session.start_script(&SHORT, STUBBORN);
    process.signal(Signal::STOP);
    session.is_gone_for_the_next_holder(shell);
    process.signal(Signal::CONT);
    let (status, _, err) = process.end();
    assert_eq!(status.code(), Some(76), "{err}");
    assert!(err.contains("lost"), "{err}");
}

#[test]
fn a_server_that_does_not_answer_for_a_ttl_ends_the_command_first() {
    let session = Session::new();
    let (process, shell) = session.start_script(&SHORT, STUBBORN);
    session.server.pause();
    let (status, _, err) = process.end();
    assert!(!is_alive(shell));
    session.server.resume();
    assert_eq!(status.code(), Some(76), "{err}");
    assert!(err.contains("no renewal was answered"), "{err}");
    session.is_gone_for_the_next_holder(shell);
}

#[test]
fn a_server_that_is_gone_for_less_than_a_ttl_costs_nothing() {
    let session = Session::new();
    let script = "while [ ! -e go ]; do sleep 0.05; done; exit 6";
    let (process, _) = session.start_script(&["--ttl", "30s", "--events-fd", "1"], script);
    session.server.pause();
    std::thread::sleep(std::time::Duration::from_millis(500));
    session.server.resume();
    std::fs::write(session.file("go"), "").unwrap();
    assert_eq!(process.end().0.code(), Some(6));
}

#[test]
fn a_command_whose_lock_is_forced_off_is_asked_to_end_and_told_why() {
    let session = Session::new();
    let script = "trap 'echo asked; exit 0' TERM; while :; do sleep 0.05; done";
    let (process, _) = session.start_script(&SHORT, script);
    session.force_off("a");
    let (status, out, err) = process.end();
    assert_eq!((status.code(), out.trim()), (Some(76), "asked"), "{err}");
    assert!(
        err.contains("it was forced off by admin: it hangs"),
        "{err}"
    );
}

#[test]
fn programs_are_told_who_forced_the_lock_off_and_why() {
    let session = Session::new();
    let options = [&SHORT[..], &["--events-fd", "1"]].concat();
    let (process, _) = session.start_script(&options, LONG);
    session.force_off("a");
    let (_, out, _) = process.end();
    let events: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let lost = events.iter().find(|event| event["event"] == "lost");
    let lost = lost.expect("an event of the loss");
    assert_eq!(lost["code"], "lease_forced_off");
    assert_eq!(lost["forced"], json!({"reason": "it hangs", "by": "admin"}));
}

#[test]
fn a_command_that_ignores_the_signal_is_killed() {
    let session = Session::new();
    let (process, shell) = session.start_script(&SHORT, STUBBORN);
    until("it ignores signals", || session.file("ready").exists());
    session.force_off("a");
    let (status, _, err) = process.end();
    assert!(!is_alive(shell));
    assert_eq!(status.code(), Some(76), "{err}");
    assert!(err.contains("killed"), "{err}");
}

#[test]
fn another_signal_may_be_asked_for() {
    let session = Session::new();
    let script = "trap 'echo usr1; exit 0' USR1; touch ready; while :; do sleep 0.05; done";
    let options = [&SHORT[..], &["--signal", "SIGUSR1"]].concat();
    let (process, _) = session.start_script(&options, script);
    until("it listens", || session.file("ready").exists());
    session.force_off("a");
    assert_eq!(process.end().1.trim(), "usr1");
}

#[test]
fn a_command_whose_resource_is_deleted_is_asked_to_end_at_once() {
    let session = Session::new();
    let script = "echo $LOCK_TICKET > ticket.new; mv ticket.new ticket; trap 'echo asked; exit 0' TERM; while :; do sleep 0.05; done";
    let (process, _) = session.start_script(&SHORT, script);
    let ticket = eventually("the ticket is written", || {
        std::fs::read_to_string(session.file("ticket")).ok()
    });
    let delete = session.server.delete("a").ticket(ticket.trim());
    delete.expect(204);
    let (status, out, err) = process.end();
    assert_eq!((status.code(), out.trim()), (Some(76), "asked"), "{err}");
    assert!(err.contains("the resource was deleted"), "{err}");
}
