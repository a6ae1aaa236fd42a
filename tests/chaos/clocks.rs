//! The whole process under wall clocks that step and a monotonic clock that is slow. Left out, with a
//! word, where libfaketime is not installed.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

use crate::server::{Instance, KEY, until};
use crate::wire::{self, Answer, Wire};

const HOUR: Duration = Duration::from_secs(3600);

/// A server whose clock is what a file says.
struct Clocked {
    instance: Instance,
    folder: TempDir,
}

fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    let places = folders.chain([PathBuf::from("/usr/lib")]);
    let mut files = places.map(|place| place.join("faketime/libfaketimeMT.so.1"));
    let found = files.find(|file| file.exists());
    if found.is_none() {
        eprintln!("skipped: libfaketime (Debian package faketime) is not installed");
    }
    found
}

impl Clocked {
    /// `None`: there is no libfaketime here.
    fn start(clock: &str, settings: &[(&str, &str)]) -> Option<Clocked> {
        let library = library()?;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clock").display().to_string();
        let mut all: Vec<(&str, String)> = vec![
            ("STORE", "sqlite".into()),
            (
                "SQLITE_PATH",
                folder.path().join("clocks.db").display().to_string(),
            ),
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1".into()),
        ];
        all.extend(
            settings
                .iter()
                .map(|(name, value)| (*name, value.to_string())),
        );
        let instance = Instance::new(folder.path(), &all);
        let mut clocked = Clocked { instance, folder };
        clocked.turn(clock);
        clocked.start_again();
        let made = clocked.ask("POST", "/resource", None, r#"{"name":"a","timeout":2}"#);
        assert_eq!(made.status, 201);
        Some(clocked)
    }

    /// Its wall clock steps by an hour; its monotonic clock is the real one.
    fn stepping() -> Option<Clocked> {
        Clocked::start("+0", &[("FAKETIME_DONT_FAKE_MONOTONIC", "1")])
    }

    fn start_again(&mut self) {
        self.instance.start();
        until("the server is ready", || self.instance.is_ready());
    }

    /// Sets the clock from now on.
    fn turn(&self, clock: &str) {
        let fresh = self.folder.path().join("clock.new");
        std::fs::write(&fresh, format!("{clock}\n")).unwrap();
        std::fs::rename(fresh, self.folder.path().join("clock")).unwrap();
    }

    fn ask(&self, method: &str, target: &str, ticket: Option<&str>, body: &str) -> Answer {
        let mut headers = vec![("x-api-key", KEY.to_owned())];
        headers.extend(ticket.map(|ticket| ("X-Ticket", ticket.to_owned())));
        let bytes = wire::request(method, target, &headers, body);
        let address = self.instance.address().unwrap();
        let answer = Wire::default().exchange(address, &bytes, Duration::from_secs(30), None);
        answer.unwrap_or_else(|failure| panic!("{method} {target}: {failure:?}"))
    }

    fn lock(&self, query: &str, ticket: Option<&str>, body: &str) -> Answer {
        self.ask("PUT", &format!("/resource/a/s/lock{query}"), ticket, body)
    }

    fn hold(&self, body: &str) -> String {
        let answer = self.lock("", None, body);
        assert_eq!(answer.json()["locked"], true);
        answer.header("X-Ticket").unwrap().to_owned()
    }

    fn is_taken(&self) -> bool {
        self.lock("?queue=0", None, "").status == 409
    }

    /// How far its wall clock is from the real one.
    fn wall_clock_is_off(&self) -> i64 {
        let described = self.ask("GET", "/resource/a", None, "").json();
        let acquired = described["holder"]["acquiredAt"]
            .as_str()
            .expect("a holder")
            .to_owned();
        let told = humantime::parse_rfc3339(&acquired).unwrap();
        let seconds = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs()
        };
        seconds(told) as i64 - seconds(SystemTime::now()) as i64
    }
}

/// The step is seen in times that are told, so that it is not this test that does nothing.
fn check_step(server: &Clocked, by: i64) {
    let off = server.wall_clock_is_off();
    assert!(
        (off - by).abs() < 60,
        "the wall clock is off by {off} s instead of {by} s"
    );
}

#[test]
fn a_wall_clock_that_steps_while_running_neither_ends_nor_prolongs_a_lease() {
    let Some(server) = Clocked::stepping() else {
        return;
    };
    for (clock, by) in [("+3600", 3600), ("-3600", -3600)] {
        server.turn("+0");
        let sent = Instant::now();
        let ticket = server.hold("");
        server.turn(clock);
        assert!(server.is_taken() || sent.elapsed() >= Duration::from_secs(2));
        // A new grant shows the step; it comes when two seconds, not an hour, are over.
        let next = server.lock("?wait=20", None, "");
        assert_eq!(next.json()["locked"], true);
        assert!(
            sent.elapsed() >= Duration::from_secs(2),
            "the lease ended early"
        );
        check_step(&server, by);
        assert_eq!(
            server
                .ask("PUT", "/resource/a/s/renew", Some(&ticket), "")
                .status,
            403
        );
        let ticket = next.header("X-Ticket").unwrap().to_owned();
        assert_eq!(
            server
                .ask("PUT", "/resource/a/s/unlock", Some(&ticket), "")
                .status,
            200
        );
    }
}

#[test]
fn a_wall_clock_that_steps_between_stop_and_start_loses_no_lease_and_no_place() {
    let Some(mut server) = Clocked::stepping() else {
        return;
    };
    let ticket = server.hold(r#"{"ttl": 60}"#);
    let released = server
        .lock("", None, "")
        .header("X-Ticket")
        .unwrap()
        .to_owned();
    server.ask("PUT", "/resource/a/s/unlock", Some(&released), "");
    let queued = server
        .lock("", None, "")
        .header("X-Ticket")
        .unwrap()
        .to_owned();
    for clock in ["-3600", "+3600", "+0"] {
        server.instance.kill();
        server.turn(clock);
        server.start_again();
        assert!(server.is_taken());
        let renewed = server.ask("PUT", "/resource/a/s/renew", Some(&ticket), "");
        assert_eq!(renewed.json()["ttl"], 60);
        let place = server.lock("", Some(&queued), "");
        assert_eq!(place.header("X-Ticket"), Some(queued.as_str()));
        assert_eq!(place.json()["position"], 1);
        // What ended a moment ago is remembered for five minutes of no wall clock.
        let again = server.ask("PUT", "/resource/a/s/unlock", Some(&released), "");
        assert_eq!(again.status, 200, "{:?}", again.json());
    }
    server.turn("+3600");
    assert_eq!(
        server
            .ask("PUT", "/resource/a/s/unlock", Some(&ticket), "")
            .status,
        200
    );
    let next = server.lock("?wait=20", Some(&queued), "");
    assert_eq!(next.json()["locked"], true);
    check_step(&server, HOUR.as_secs() as i64);
}

#[test]
fn a_slow_monotonic_clock_ends_no_lease_early_and_all_leases_at_last() {
    let Some(server) = Clocked::start("+0 x0.5", &[]) else {
        return;
    };
    let sent = Instant::now();
    server.hold(r#"{"ttl": 1}"#);
    let next = server.lock("?wait=20", None, "");
    assert_eq!(next.json()["locked"], true);
    assert!(
        sent.elapsed() >= Duration::from_secs(1),
        "{:?}",
        sent.elapsed()
    );
}
