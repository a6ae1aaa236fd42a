//! On a terminal: the command is in its foreground, and what started us has it back afterwards.

use std::process::Command;

use crate::session::{BINARY, Session, text};

#[test]
fn the_command_has_the_terminal_and_gives_it_back() {
    let session = Session::new();
    // The fifth field of a process' stat is its group, the eighth the one in the foreground of its terminal.
    let ours = "read -r id name state parent group session tty front rest < /proc/self/stat; [ $group = $front ] && echo";
    let script = format!(
        "{BINARY} lock a -- sh -c '{ours} inside'; {ours} after; stty -a > tty && echo usable"
    );
    let script = script.replace("/proc/self/stat", "/proc/$$/stat");
    let mut command = Command::new("script");
    command
        .args(["-qec", &script, "/dev/null"])
        .current_dir(session.file(""));
    for (name, value) in session.command(&[]).get_envs() {
        command.env(name, value.unwrap());
    }
    let output = command.output().expect("script is part of every Debian");
    let out = text(&output.stdout);
    let lines: Vec<&str> = out.lines().map(str::trim).collect();
    assert_eq!(lines, ["inside", "after", "usable"], "{out}");
}
