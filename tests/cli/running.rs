//! The command as it runs: what it sees, its exit code, its signals, and what it leaves behind.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::session::{Process, Session, is_alive, text};
use crate::support::{Setup, certificate_file, until};

#[test]
fn the_exit_code_is_that_of_the_command() {
    let session = Session::new();
    let code = |script: &str| {
        session
            .output(&["lock", "a", "--", "sh", "-c", script])
            .status
            .code()
    };
    assert_eq!(code("exit 0"), Some(0));
    assert_eq!(code("exit 7"), Some(7));
    assert_eq!(code("kill -TERM $$"), Some(128 + 15));
    assert_eq!(code("kill -KILL $$"), Some(128 + 9));
    let output = session.output(&["lock", "a", "-c", "exit 9"]);
    assert_eq!(output.status.code(), Some(9));
    until("it is free", || !session.server.is_locked("a"));
}

#[test]
fn what_cannot_be_run_is_refused_before_anything_is_locked() {
    let session = Session::new();
    std::fs::write(session.file("data"), "no program").unwrap();
    for (arguments, code) in [
        (&["lock", "a", "--", "no-such-command"][..], 127),
        (&["lock", "a", "--", "./no-such-command"], 127),
        (&["lock", "a", "--", "./data"], 126),
        (&["lock", "a"], 64),
        (&["lock", "a", "--"], 64),
        (&["lock", "--", "true"], 64),
        (&["lock", "a", "a", "--", "true"], 64),
        (&["lock", "a", "--ttl", "2s", "--", "true"], 64),
        (&["lock", "a", "--ttl", "10s", "-k", "5s", "--", "true"], 64),
        (&["lock", "a", "-w", "soon", "--", "true"], 64),
        (&["lock", "a", "--signal", "SEGV", "--", "true"], 64),
        (&["lock", "a", "--no-such-option", "--", "true"], 64),
        (&["lock", "a", "-s", "locks:9501", "--", "true"], 64),
        (&["lock", "a", "--key-file", "missing", "--", "true"], 64),
        (&["lock", "a", "--events-fd", "77", "--", "true"], 64),
        (&["lock", "..", "--", "true"], 64),
        (&["--config", "any.conf", "lock", "a", "--no-such"], 64),
    ] {
        let output = session.output(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {output:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    assert_eq!(session.server.described("a")["holder"], Value::Null);
}

#[test]
fn an_argument_that_is_not_utf_8_is_a_usage_error() {
    let session = Session::new();
    let strange = OsStr::from_bytes(b"\xff");
    for (arguments, code) in [(&["lock"][..], 64), (&["show"], 64), (&[], 2)] {
        let output = session.command(arguments).arg(strange).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {output:?}");
        assert!(text(&output.stderr).starts_with("error: "), "{output:?}");
    }
}

#[test]
fn a_key_that_is_not_utf_8_is_not_taken_for_none() {
    let session = Session::new();
    for arguments in [&["lock", "a", "--", "true"][..], &["locks"]] {
        let mut command = session.command(arguments);
        let output = command.env("LOCK_KEY", OsStr::from_bytes(b"\xff")).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?} {output:?}");
        assert!(text(&output.stderr).contains("LOCK_KEY"), "{output:?}");
    }
}

#[test]
fn a_tip_names_no_hidden_command_and_no_way_that_does_not_work() {
    let session = Session::new();
    let output = session.output(&["lcok", "a", "--", "true"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let told = text(&output.stderr);
    assert!(told.contains("'lock'") && !told.contains("guard"), "{told}");
    // After `--` stands the command.
    let output = session.output(&["lock", "-x", "--", "true"]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    let told = text(&output.stderr);
    assert!(told.contains("'-x'") && !told.contains("-- -x"), "{told}");
}

#[test]
fn what_the_server_refuses_is_125_and_not_retried() {
    let session = Session::new();
    let wrong_key = session
        .command(&["lock", "a", "--", "true"])
        .env("LOCK_KEY", "wrong")
        .output()
        .unwrap();
    assert_eq!(wrong_key.status.code(), Some(125));
    assert!(text(&wrong_key.stderr).contains("key"), "{wrong_key:?}");
    let missing = session.output(&["lock", "nowhere", "--no-create", "--", "true"]);
    assert_eq!(missing.status.code(), Some(125));
    // The key from a file, with the newline that editors leave.
    std::fs::write(session.file("key"), format!("{}\n", crate::support::LOCK)).unwrap();
    let mut by_file = session.command(&["lock", "a", "--key-file", "key", "--", "true"]);
    assert!(by_file.env_remove("LOCK_KEY").status().unwrap().success());
}

#[test]
fn the_command_sees_its_lock_and_keeps_its_input() {
    let session = Session::new();
    session.server.prepare("b");
    let script = "cat; echo \"$LOCK_NAME $LOCK_TICKET $LOCK_FENCING_TOKEN $LOCK_OWNER $LOCK_SERVER\"; echo \"$LOCKS\"; env";
    let mut command =
        session.command(&["lock", "b", "a", "--owner", "me", "--", "sh", "-c", script]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"input\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let out = text(&output.stdout);
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some("input"));
    let line = lines.next().unwrap();
    let fields: Vec<&str> = line.split(' ').collect();
    assert_eq!([fields[0], fields[3]], ["a", "me"], "{line}");
    assert!(
        crate::support::is_ticket(fields[1]) && fields[2].parse::<u64>().is_ok(),
        "{line}"
    );
    let locks: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(locks[0]["name"], "a");
    assert_eq!(locks[0]["ticket"], fields[1]);
    assert_eq!(locks[1]["name"], "b");
    assert!(locks[1]["fencingToken"].is_u64());
    assert!(!out.contains("SMALL_RESOURCE_LOCK_GUARD"), "{out}");
}

#[test]
fn signals_are_the_commands_and_the_lock_is_kept_until_it_has_ended() {
    let session = Session::new();
    let script = "trap 'echo told; while [ ! -e go ]; do sleep 0.05; done; exit 5' USR1; touch ready; while :; do sleep 0.05; done";
    let (process, _) = session.start_script(&[], script);
    until("it listens", || session.file("ready").exists());
    process.signal(Signal::USR1);
    assert!(session.server.is_locked("a"));
    std::fs::write(session.file("go"), "").unwrap();
    let (status, out, _) = process.end();
    assert_eq!((status.code(), out.trim()), (Some(5), "told"));
    assert!(!session.server.is_locked("a"));
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let session = Session::new();
    let script = format!(
        "trap '' HUP; exec {} lock a -- sh -c 'echo $$ > pid.new; mv pid.new pid; while [ ! -e go ]; do sleep 0.05; done'",
        crate::session::BINARY
    );
    let mut shell = Command::new("sh");
    let example = session.command(&[]);
    for (name, value) in example.get_envs() {
        shell.env(name, value.unwrap());
    }
    let child = shell
        .args(["-c", &script])
        .current_dir(session.file(""))
        .spawn()
        .unwrap();
    let command = session.number_in("pid");
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, Signal::HUP).unwrap();
    rustix::process::kill_process(id, Signal::HUP).unwrap();
    assert!(is_alive(command));
    std::fs::write(session.file("go"), "").unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
}

#[test]
fn what_the_command_leaves_behind_ends_before_the_lock_is_given_back() {
    let session = Session::new();
    let (process, _) = session.start_script(&["-k", "1s"], "(trap '' TERM; echo > left; exec sleep 1000) & echo $! > child; wait_for() { while [ ! -e left ]; do sleep 0.05; done; }; wait_for; exit 3");
    let child = session.number_in("child");
    session.is_gone_for_the_next_holder(child);
    assert_eq!(process.end().0.code(), Some(3));
    assert!(!is_alive(child));
}

#[test]
fn what_happens_is_told_to_programs() {
    let session = Session::new();
    let mut command =
        session.command(&["lock", "a", "--events-fd", "1", "--", "sh", "-c", "exit 4"]);
    let output = command.output().unwrap();
    let events = text(&output.stdout);
    assert!(
        events.starts_with("{\"event\":\"acquired\",\"name\":\"a\","),
        "{events}"
    );
    let events: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<&str> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["acquired", "started", "exited", "released"]);
    assert_eq!(events[0]["name"], "a");
    assert_eq!(events[2]["code"], 4);
    assert!(!text(&output.stdout).contains("ticket"));
}

#[test]
fn a_pipe_that_nobody_reads_costs_neither_the_lock_nor_the_command() {
    let session = Session::new();
    let (_reader, mut writer) = std::io::pipe().unwrap();
    let set = |nonblocking| rustix::io::ioctl_fionbio(&writer, nonblocking).unwrap();
    set(true);
    while (&writer).write(&[0; 4096]).is_ok() {}
    while (&writer).write(&[0]).is_ok() {}
    set(false);
    let arguments = [
        "lock",
        "a",
        "--ttl",
        "3s",
        "-k",
        "1s",
        "-v",
        "--events-fd",
        "1",
    ];
    // Longer than the lease would last without renewals.
    let arguments = [&arguments[..], &["--", "sleep", "7"]].concat();
    let mut command = session.command(&arguments);
    command.stdout(writer.try_clone().unwrap());
    command.stderr(writer.try_clone().unwrap());
    assert_eq!(Process::of(&mut command).ended().code(), Some(0));
    writer.flush().unwrap();
}

#[test]
fn names_may_have_anything_in_them() {
    let session = Session::new();
    for name in ["shop/42 inventory", "grün 🔒", "%2e%2e", "a'b\"c"] {
        let output = session.output(&["lock", name, "--", "sh", "-c", "printf %s \"$LOCK_NAME\""]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(text(&output.stdout), name);
    }
    // They were made for their locks, and went with them.
    assert_eq!(session.server.names(), ["a"]);
}

#[test]
fn the_ticket_is_in_no_argument_and_on_no_line() {
    let session = Session::new();
    let (process, shell) = session.start_script(
        &["-v"],
        "echo $LOCK_TICKET > ticket; while [ ! -e go ]; do sleep 0.05; done",
    );
    until("the ticket is written", || {
        session
            .file("ticket")
            .metadata()
            .is_ok_and(|data| data.len() > 30)
    });
    let ticket = std::fs::read_to_string(session.file("ticket")).unwrap();
    for pid in [process.id() as i32, shell] {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(!text(&arguments).contains(ticket.trim()));
    }
    std::fs::write(session.file("go"), "").unwrap();
    let (_, out, err) = process.end();
    assert!(!out.contains(ticket.trim()) && !err.contains(ticket.trim()));
}

#[test]
fn a_command_that_reads_what_is_piped_into_it_ends_with_that() {
    let session = Session::new();
    let mut command = session.command(&["lock", "a", "--", "wc", "-c"]);
    let mut process = Process::of(command.stdin(Stdio::piped()));
    process.write("12345");
    let (status, out, _) = process.end();
    assert_eq!((status.code(), out.trim()), (Some(0), "5"));
}

#[test]
fn a_server_that_speaks_tls_is_believed_by_its_certificate() {
    let session = Session::new();
    let server = Setup::new().tls().start();
    let url = format!("https://{}", server.address());
    let run = |trusted: &str| {
        let mut command = session.command(&["lock", "b", "-s", &url, "-w", "1s", "--", "true"]);
        command.env("SSL_CERT_FILE", certificate_file(trusted));
        command.output().unwrap()
    };
    let output = run("cert.pem");
    assert!(output.status.success(), "{output:?}");
    let output = run("other-cert.pem");
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(text(&output.stderr).contains("certificate"), "{output:?}");
}

#[test]
fn the_help_has_the_exit_codes_and_what_the_command_finds() {
    let help = text(&Session::new().output(&["lock", "--help"]).stdout);
    for told in [
        "64",
        "75",
        "76",
        "125",
        "126",
        "127",
        "LOCK_FENCING_TOKEN",
        "LOCKS",
    ] {
        assert!(help.contains(told), "no {told} in {help}");
    }
}
