//! The whole process under wall clocks that step and a monotonic clock that is slow. Left out, with a
//! word, where libfaketime is not installed.

use std::time::{Duration, Instant, SystemTime};

use crate::support::{Program, Setup, replace_file};

const HOUR: Duration = Duration::from_secs(3600);

/// A server whose clock is what a file says, with a resource `a`. `None`: skipped.
fn start(clock: &str, settings: &[(&str, &str)]) -> Option<Program> {
    let setup = Setup::new().sqlite().with_all(settings);
    let file = setup.folder().join("clock");
    let variables = [
        ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
    ];
    let setup = setup.faketime(&variables)?;
    turn(&setup, clock);
    let server = setup.start();
    server.create("a", 2).expect(201);
    Some(server)
}

/// Its wall clock steps by an hour; its monotonic clock is the real one.
fn start_stepping() -> Option<Program> {
    start("+0", &[("FAKETIME_DONT_FAKE_MONOTONIC", "1")])
}

/// Sets the clock from now on.
fn turn(setup: &Setup, clock: &str) {
    replace_file(&setup.folder().join("clock"), format!("{clock}\n"));
}

fn is_taken(server: &Program) -> bool {
    server.lock("a/s").query("queue=0").send().status == 409
}

/// How far its wall clock is from the real one, in seconds.
fn wall_clock_is_off(server: &Program) -> i64 {
    let acquired = &server.described("a")["holder"]["acquiredAt"];
    let told = humantime::parse_rfc3339(acquired.as_str().expect("a holder")).unwrap();
    let seconds = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap().as_secs() as i64
    };
    seconds(told) - seconds(SystemTime::now())
}

/// The step is seen in times that are told, so that it is not this test that does nothing.
fn check_step(server: &Program, by: i64) {
    let off = wall_clock_is_off(server);
    assert!(
        (off - by).abs() < 60,
        "the wall clock is off by {off} s instead of {by} s"
    );
}

#[test]
fn a_wall_clock_that_steps_while_running_neither_ends_nor_prolongs_a_lease() {
    let Some(server) = start_stepping() else {
        return;
    };
    for (clock, by) in [("+3600", 3600), ("-3600", -3600)] {
        turn(server.setup(), "+0");
        let sent = Instant::now();
        let ticket = server.lock("a/s").granted().ticket();
        turn(server.setup(), clock);
        assert!(is_taken(&server) || sent.elapsed() >= Duration::from_secs(2));
        // A new grant shows the step; it comes when two seconds, not an hour, are over.
        let next = server.lock("a/s").query("wait=20").granted();
        assert!(
            sent.elapsed() >= Duration::from_secs(2),
            "the lease ended early"
        );
        check_step(&server, by);
        server.renew("a/s", &ticket).expect(403);
        server.unlock("a/s", &next.ticket()).expect(200);
    }
}

#[test]
fn a_wall_clock_that_steps_between_stop_and_start_loses_no_lease_and_no_place() {
    let Some(mut server) = start_stepping() else {
        return;
    };
    let long = server.lock("a/s").body(r#"{"ttl": 60}"#);
    let ticket = long.granted().ticket();
    let released = server.lock("a/s").expect(200).ticket();
    server.unlock("a/s", &released).expect(200);
    let queued = server.lock("a/s").expect(200).ticket();
    for clock in ["-3600", "+3600", "+0"] {
        server.kill();
        turn(server.setup(), clock);
        server.start_again();
        assert!(is_taken(&server));
        let renewed = server.renew("a/s", &ticket).expect(200);
        assert_eq!(renewed.json()["ttl"], 60);
        let place = server.lock("a/s").ticket(&queued).expect(200);
        assert_eq!(place.ticket(), queued);
        assert_eq!(place.json()["position"], 1);
        // What ended a moment ago is remembered for five minutes of no wall clock.
        server.unlock("a/s", &released).expect(200);
    }
    turn(server.setup(), "+3600");
    server.unlock("a/s", &ticket).expect(200);
    let wait = server.lock("a/s").query("wait=20");
    wait.ticket(&queued).granted();
    check_step(&server, HOUR.as_secs() as i64);
}

#[test]
fn a_slow_monotonic_clock_ends_no_lease_early_and_all_leases_at_last() {
    let Some(server) = start("+0 x0.5", &[]) else {
        return;
    };
    let sent = Instant::now();
    server.lock("a/s").body(r#"{"ttl": 1}"#).granted();
    server.lock("a/s").query("wait=20").granted();
    assert!(
        sent.elapsed() >= Duration::from_secs(1),
        "{:?}",
        sent.elapsed()
    );
}
