//! On a terminal: the command is in its foreground, what started us has it back afterwards, and both stop and go on
//! as one job.

use std::process::{Command, Stdio};

use crate::session::{BINARY, Process, Session, is_alive, text, until_gone};
use crate::support::until;

/// What the terminal sends for Ctrl-Z.
const SUSPEND: &str = "\x1a";
/// Prints its argument if this process is in the foreground of its terminal. The fifth field of a process' stat is its
/// group, the eighth the one in the foreground of its terminal.
const IN_FRONT: &str = "read -r id name state parent group session tty front rest < /proc/$$/stat; [ $group = $front ] && echo";

/// A command of its own: bash leaves a loop when one of its jobs stops.
const UNTIL_BACK: &str = "sh -c 'while [ ! -e back ]; do sleep 0.05; done'";

/// A script for a shell with job control, on a terminal of its own.
fn on_terminal(session: &Session, script: &str) -> Command {
    std::fs::write(session.file("script"), script).unwrap();
    let mut command = Command::new("script");
    command
        .args(["-qec", "bash -m script", "/dev/null"])
        .current_dir(session.file(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for (name, value) in session.command(&[]).get_envs() {
        command.env(name, value.unwrap());
    }
    command
}

fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.contains(") T ")
}

fn lines(output: &str) -> Vec<&str> {
    output.lines().map(str::trim).collect()
}

#[test]
fn the_command_has_the_terminal_and_gives_it_back() {
    let session = Session::new();
    let script = format!(
        "{BINARY} lock a -- sh -c '{IN_FRONT} inside'; {IN_FRONT} after; stty -a > tty && echo usable"
    );
    let output = on_terminal(&session, &script).stdin(Stdio::null()).output();
    let output = output.expect("script is part of every Debian");
    let out = text(&output.stdout);
    assert_eq!(lines(&out), ["inside", "after", "usable"], "{out}");
}

/// A job that is suspended with Ctrl-Z as soon as it runs, and continued when there is a file `back`; it ends when
/// something is written to `go`. It waits without a child: Debian's `sh` starts children by vfork, and one that is
/// suspended just then leaves its parent hanging.
fn suspended(session: &Session, options: &str) -> (Process, i32) {
    let script = format!(
        "mkfifo go
        {BINARY} lock a {options} -- sh -c 'echo $$ > pid.new; mv pid.new pid; read word < go; {IN_FRONT} ended'
        echo code $? > suspended.new; mv suspended.new suspended
        {UNTIL_BACK}
        fg > name; echo code $?"
    );
    let mut process = Process::of(&mut on_terminal(session, &script));
    let command = session.number_in("pid");
    process.type_in(SUSPEND);
    until("the shell sees that the job is suspended", || {
        session.file("suspended").exists()
    });
    let seen = std::fs::read_to_string(session.file("suspended")).unwrap();
    assert_eq!(seen.trim(), "code 148");
    (process, command)
}

#[test]
fn a_job_that_is_suspended_keeps_its_lock_and_goes_on() {
    let session = Session::new();
    let (process, command) = suspended(&session, "");
    assert!(is_stopped(command));
    assert!(session.server.is_locked("a"));
    for file in ["back", "go"] {
        std::fs::write(session.file(file), "").unwrap();
    }
    let (_, out, _) = process.end();
    // What was typed is shown before it.
    let lines = lines(&out).join(" ");
    assert!(lines.ends_with("ended code 0"), "{out}");
    assert!(!session.server.is_locked("a"));
}

#[test]
fn a_job_that_is_suspended_past_its_lease_is_killed_before_the_next_holder() {
    let session = Session::new();
    let (process, command) = suspended(&session, "--ttl 3s -k 1s");
    assert!(is_alive(command));
    session.is_gone_for_the_next_holder(command);
    until_gone(command);
    std::fs::write(session.file("back"), "").unwrap();
    let (_, out, _) = process.end();
    assert_eq!(lines(&out).last(), Some(&"code 76"), "{out}");
    assert!(out.contains("lost"), "{out}");
}

#[test]
fn a_command_in_the_background_has_the_terminal_when_it_is_fetched() {
    let session = Session::new();
    // It reads the terminal, which stops who is in the background, and the job with it.
    let script = format!(
        "{BINARY} lock a -- sh -c 'read line; echo got $line' &
        echo $! > job.new; mv job.new job
        {UNTIL_BACK}
        fg > name; echo code $?"
    );
    let mut process = Process::of(&mut on_terminal(&session, &script));
    let job = session.number_in("job");
    until("the job is stopped", || is_stopped(job));
    assert!(session.server.is_locked("a"));
    std::fs::write(session.file("back"), "").unwrap();
    process.type_in("word\n");
    let (_, out, _) = process.end();
    assert!(lines(&out).ends_with(&["got word", "code 0"]), "{out}");
}

#[test]
fn in_a_pipeline_the_terminal_stays_with_the_whole() {
    let session = Session::new();
    // As a pager does: it is the last part that asks the terminal.
    let script = format!(
        "{BINARY} lock a -- sh -c 'echo from the command' | sh -c 'read line; {IN_FRONT} $line; read word < /dev/tty; echo $word'; echo code $?"
    );
    let mut process = Process::of(&mut on_terminal(&session, &script));
    process.type_in("word\n");
    let (_, out, _) = process.end();
    assert!(
        lines(&out).ends_with(&["from the command", "word", "code 0"]),
        "{out}"
    );
}
