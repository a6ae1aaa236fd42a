//! Waiting for the lock: in order, for as long as was asked, and without a trace when it is given up.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::session::{Session, lines, text};
use crate::support::{Setup, eventually, free_port, until};

#[test]
fn who_does_not_wait_long_enough_exits_with_75_and_is_told_who_holds_it() {
    let session = Session::new();
    let ticket = session.server.lock("a/x").owner("me").granted().ticket();
    for options in [&["-n"][..], &["-w", "300ms"]] {
        let arguments = [&["lock", "a"], options, &["--", "true"]].concat();
        let output = session.output(&arguments);
        assert_eq!(output.status.code(), Some(75), "{output:?}");
        assert!(text(&output.stderr).contains("me"), "{output:?}");
        assert_eq!(session.server.waiting("a"), 0);
    }
    let output = session.output(&["lock", "a", "-n", "-E", "3", "-q", "--", "true"]);
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(3), String::new())
    );
    session.server.unlock("a/x", &ticket).expect(200);
    assert!(
        session
            .output(&["lock", "a", "-n", "--", "true"])
            .status
            .success()
    );
}

#[test]
fn whoever_waits_is_told_who_holds_it_and_their_place() {
    let session = Session::new();
    let ticket = session.server.lock("a/x").owner("me").granted().ticket();
    let mut process = session.start(&["lock", "a", "--", "echo", "done"]);
    let line = process.complaint();
    assert!(line.contains("\"a\" is held by me since 20"), "{line}");
    assert!(
        line.trim_end().ends_with("our place in the queue is 1"),
        "{line}"
    );
    session.server.unlock("a/x", &ticket).expect(200);
    let (status, out, err) = process.end();
    assert_eq!(
        (status.code(), out.trim(), err.as_str()),
        (Some(0), "done", "")
    );
}

#[test]
fn programs_are_told_of_the_holder_what_the_server_tells() {
    let session = Session::new();
    let ticket = session.server.lock("a/x").owner("me").granted().ticket();
    let mut process = session.start(&["lock", "a", "--events-fd", "1", "--", "true"]);
    let event = process.lines().recv().unwrap();
    let event: Value = serde_json::from_str(&event).unwrap();
    assert_eq!(event["event"], "waiting");
    assert_eq!(event["holder"], session.server.described("a")["holder"]);
    session.server.unlock("a/x", &ticket).expect(200);
    assert!(process.ended().success());
}

#[test]
fn a_signal_while_waiting_leaves_no_ticket() {
    let session = Session::new();
    let _ticket = session.server.hold("a/x");
    for (signal, number) in [(Signal::TERM, 15), (Signal::INT, 2), (Signal::HUP, 1)] {
        let process = session.start(&["lock", "a", "--", "true"]);
        until("it waits", || session.server.waiting("a") == 1);
        process.signal(signal);
        assert_eq!(process.end().0.code(), Some(128 + number));
        assert_eq!(session.server.waiting("a"), 0);
    }
}

#[test]
fn a_second_signal_ends_at_once_if_the_server_does_not_answer() {
    let session = Session::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", silent.local_addr().unwrap());
    let process = session.start(&["lock", "a", "-s", &server, "--", "true"]);
    let _asked = silent.accept().unwrap();
    process.signal(Signal::TERM);
    // It tries to leave the queue, for as long as a request may take.
    let _left = silent.accept().unwrap();
    let began = Instant::now();
    process.signal(Signal::INT);
    assert_eq!(process.ended().code(), Some(128 + 15));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_queue_that_was_never_reached_is_not_left_and_the_server_is_named() {
    let session = Session::new();
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let began = Instant::now();
    let output = session.output(&["lock", "a", "-w", "300ms", "-s", &nobody, "--", "true"]);
    // To leave it would be tried for as long as a request may take: 10 s, less the last pause.
    assert!(began.elapsed() < Duration::from_secs(4), "{output:?}");
    assert_eq!(output.status.code(), Some(125));
    let told = text(&output.stderr);
    let named = format!("lock: no answer from {nobody}: ");
    assert!(told.starts_with(&named), "{told}");
}

#[test]
fn a_hundred_that_wait_run_in_the_order_of_their_arrival() {
    let session = Session::new();
    let (ticket, _) = session.server.hold("a/x");
    let mut processes = Vec::new();
    for number in 0..100 {
        let script = format!("echo {number} >> order");
        processes.push(session.start(&["lock", "a", "-w", "10m", "-c", &script]));
        until("it waits", || session.server.waiting("a") == number + 1);
    }
    session.server.unlock("a/x", &ticket).expect(200);
    for process in processes {
        let (status, _, err) = process.end();
        assert!(status.success(), "{err}");
    }
    let expected: Vec<String> = (0..100).map(|number: u32| number.to_string()).collect();
    assert_eq!(lines(&session.file("order")), expected);
}

#[test]
fn several_names_are_taken_all_or_none() {
    let session = Session::new();
    session.server.prepare("b");
    let (ticket, _) = session.server.hold("b/x");
    let output = session.output(&["lock", "b", "a", "-w", "300ms", "--", "true"]);
    assert_eq!(output.status.code(), Some(75));
    assert!(!session.server.is_locked("a") && session.server.waiting("b") == 0);
    session.server.unlock("b/x", &ticket).expect(200);
    assert!(
        session
            .output(&["lock", "b", "a", "--", "true"])
            .status
            .success()
    );
}

#[test]
fn a_lock_outlives_its_ttl_while_its_command_runs() {
    let session = Session::new();
    let (process, _) = session.start_script(&["--ttl", "3s"], "sleep 4; exit 8");
    std::thread::sleep(Duration::from_secs(3));
    assert!(session.server.is_locked("a"));
    assert_eq!(process.end().0.code(), Some(8));
}

#[test]
fn who_shares_runs_beside_who_shares_and_beside_nobody_else() {
    let session = Session::new();
    let options = ["--shared", "--reason", "reading"];
    let script = "while [ ! -e go ]; do sleep 0.05; done";
    let (first, _) = session.start_script(&options, script);
    let second = session.output(&["lock", "a", "--shared", "-n", "--", "true"]);
    assert!(second.status.success(), "{second:?}");
    let third = session.output(&["lock", "a", "-n", "--", "true"]);
    assert_eq!(third.status.code(), Some(75));
    let holders = &session.server.described("a")["holders"];
    assert_eq!(holders.as_array().unwrap().len(), 1);
    assert_eq!(
        (&holders[0]["mode"], &holders[0]["reason"]),
        (&"shared".into(), &"reading".into())
    );
    std::fs::write(session.file("go"), "").unwrap();
    assert!(first.end().0.success());
}

#[test]
fn a_server_that_lets_nobody_wait_for_long_is_asked_again() {
    let session = Session::with(&Setup::new().with("MAX_WAIT_SECONDS", "1"));
    let (ticket, _) = session.server.hold("a/x");
    let process = session.start(&["lock", "a", "--", "echo", "done"]);
    until("it waits", || session.server.waiting("a") == 1);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(session.server.waiting("a"), 1);
    session.server.unlock("a/x", &ticket).expect(200);
    let (status, out, err) = process.end();
    assert_eq!((status.code(), out.trim()), (Some(0), "done"), "{err}");
}

#[test]
fn of_several_servers_one_that_answers_is_enough() {
    let session = Session::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = nobody.local_addr().unwrap();
    drop(nobody);
    let servers = format!("http://{gone}, http://{}", session.server.address());
    let output = session.output(&["lock", "a", "-s", &servers, "--", "true"]);
    assert!(output.status.success(), "{output:?}");
    let mut watch = session.start(&["watch", "-s", &servers]);
    let events = watch.lines();
    eventually("an event is told", || {
        assert!(session.output(&["lock", "a", "-c", ":"]).status.success());
        events.try_iter().next()
    });
}
