//! SIGTERM: balancers are told, waiters are answered, what is under way finishes, nothing acknowledged is
//! lost, and it ends in time.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    Answer, Connection, DEADLINE, LOCK, Program, Setup, StopWhenDropped, WRITE, eventually,
    request, until,
};

#[test]
fn balancers_are_told_first_while_requests_are_still_served() {
    let mut server = Setup::new().with("SHUTDOWN_DELAY_SECONDS", "3").start();
    server.create("a", 0).expect(201);
    let mut kept = server.connect();
    assert_eq!(kept.ask("GET", "/ready", &[], "").status, 200);
    server.signal(Signal::TERM);
    server.logged(&["SIGTERM"]);
    let ready = eventually("it is not ready", || {
        let answer = server.ready().send();
        (answer.status == 503).then_some(answer)
    });
    ready.assert_refused(503, "shutting_down");
    server.health().expect(200);
    // Served as ever, and told to connect anew for the next request: elsewhere, by then.
    let answer = kept.ask("PUT", "/resource/a/b/lock", &[("x-api-key", LOCK)], "");
    assert_eq!(answer.json()["locked"], true);
    assert_eq!(answer.header("Connection"), Some("close"));
    kept.assert_closed();
    assert!(server.end().success());
}

#[test]
fn waiters_are_answered_503_and_told_to_come_back() {
    let mut server = Program::new();
    server.create("a", 0).expect(201);
    server.hold("a/main");
    let wait = server.lock("a/b").query("wait=100");
    let mut waiters: Vec<_> = (0..20).map(|_| wait.open()).collect();
    until("they wait", || server.waiting("a") == 20);
    server.signal(Signal::TERM);
    for waiter in &mut waiters {
        let answer = waiter.answer();
        answer.assert_refused(503, "shutting_down");
        assert!(answer.header("Retry-After").is_some(), "{answer:?}");
        waiter.assert_closed();
    }
    assert!(server.end().success());
}

#[test]
fn a_request_whose_body_is_still_coming_is_finished() {
    let mut server = Setup::new().with("SHUTDOWN_DELAY_SECONDS", "1").start();
    let body = "{\"name\":\"late\"}";
    let head = request("POST", "/resource", &[("x-api-key", WRITE)], body);
    let (first, rest) = head.split_at(head.len() - 3);
    let mut client = server.connect();
    client.write(first);
    server.signal(Signal::TERM);
    server.logged(&["SIGTERM"]);
    client.write(rest);
    let answer = client.answer();
    assert_eq!(answer.status, 201, "{answer:?}");
    assert!(server.end().success());
}

#[test]
fn neither_a_body_that_never_ends_nor_idle_connections_keep_it_from_ending() {
    let mut server = Setup::new()
        .with("SHUTDOWN_SECONDS", "1")
        .with("BODY_TIMEOUT_SECONDS", "3600")
        .with("KEEP_ALIVE_SECONDS", "3600")
        .start();
    let mut slow = server.connect();
    slow.write(&format!(
        "POST /resource HTTP/1.1\r\nHost: x\r\nX-Api-Key: {WRITE}\r\nContent-Length: 100\r\n\r\n{{"
    ));
    let mut idle = server.connect();
    assert_eq!(idle.ask("GET", "/health", &[], "").status, 200);
    let _silent = server.connect();
    server.signal(Signal::TERM);
    // Far less than the body's hour; how much less is not measured here.
    assert!(server.end().success());
    idle.assert_closed();
}

#[test]
fn a_signal_while_it_shuts_down_does_not_hurry_it() {
    let mut server = Setup::new().with("SHUTDOWN_DELAY_SECONDS", "1").start();
    server.signal(Signal::TERM);
    server.logged(&["SIGTERM"]);
    server.signal(Signal::TERM);
    server.signal(Signal::HUP);
    assert!(server.is_running());
    assert!(server.end().success());
    assert!(server.log().contains("stopped"), "{}", server.log());
}

/// What a client saw of the restarts.
#[derive(Default)]
struct Seen {
    cycles: AtomicU64,
    told_to_come_back: AtomicU64,
    cut_off: Mutex<Vec<String>>,
}

/// A client that increments a counter under the lock, on a connection that it keeps, and repeats what was
/// not answered.
struct Incrementing<'a> {
    address: std::net::SocketAddr,
    name: String,
    client: Option<Connection>,
    seen: &'a Seen,
    stop: &'a AtomicBool,
}

impl Incrementing<'_> {
    /// An answer other than 503; `None` when it is time to stop. Every request here may be repeated.
    fn ask(
        &mut self,
        method: &str,
        action: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Option<Answer> {
        let path = format!("/resource/{}/count{action}", self.name);
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            match self.try_once(method, &path, headers, body) {
                Ok(answer) if answer.status != 503 => return Some(answer),
                Ok(answer) => {
                    assert!(answer.header("Retry-After").is_some(), "{answer:?}");
                    self.seen.told_to_come_back.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => self.client = None,
            }
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{method} {path} was never answered");
    }

    fn try_once(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<Answer> {
        if self.client.is_none() {
            self.client = Some(Connection::try_to(self.address)?);
        }
        let Some(client) = &mut self.client else {
            unreachable!();
        };
        use std::io::Write;
        client
            .stream
            .write_all(&request(method, path, headers, body))?;
        let answer = client.try_answer(false);
        if let Ok(answer) = &answer {
            answer.check();
        }
        match &answer {
            Ok(answer) if answer.header("Connection") == Some("close") => self.client = None,
            Ok(_) => {}
            Err(error) => {
                // Closed before anything was answered: the request may be repeated. Closed in the middle
                // of an answer: that must not happen.
                if client.has_unread() {
                    let mut cut_off = self.seen.cut_off.lock().unwrap();
                    cut_off.push(format!("{method} {path}: {error}"));
                }
            }
        }
        answer
    }

    /// One cycle; the number that was acknowledged last.
    fn increment(&mut self, number: u64, attempt: &str) -> Option<u64> {
        let key = ("x-api-key", WRITE);
        let again = [key, ("Idempotency-Key", attempt)];
        let granted = self.ask("POST", "/lock?wait=5", &again, "")?;
        assert_eq!(granted.status, 200, "{granted:?}");
        assert_eq!(granted.json()["locked"], true, "{granted:?}");
        let ticket = granted.ticket();
        let with_ticket = [key, ("X-Ticket", ticket.as_str())];
        let written = self.ask("PUT", "", &with_ticket, &number.to_string())?;
        assert_eq!(written.status, 204, "{written:?}");
        let unlocked = self.ask("PUT", "/unlock", &with_ticket, "")?;
        assert_eq!(unlocked.status, 200, "{unlocked:?}");
        self.seen.cycles.fetch_add(1, Ordering::Relaxed);
        Some(number)
    }
}

#[test]
fn restarts_under_load_lose_nothing_acknowledged_and_cut_no_answer_off() {
    const CLIENTS: usize = 6;
    const RESTARTS: usize = 3;
    let mut server = Setup::new().sqlite().start();
    for client in 0..CLIENTS {
        server.create(&format!("r{client}"), 0).expect(201);
    }
    let (address, seen, stop) = (server.address(), Seen::default(), AtomicBool::new(false));
    let acknowledged = Mutex::new(HashMap::new());
    std::thread::scope(|scope| {
        let _stop = StopWhenDropped(&stop);
        for index in 0..CLIENTS {
            let (seen, stop, acknowledged) = (&seen, &stop, &acknowledged);
            scope.spawn(move || {
                let name = format!("r{index}");
                let mut client = Incrementing {
                    address,
                    name: name.clone(),
                    client: None,
                    seen,
                    stop,
                };
                for number in 1.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let attempt = format!("{name}-{number}");
                    match client.increment(number, &attempt) {
                        Some(number) => acknowledged.lock().unwrap().insert(name.clone(), number),
                        None => break,
                    };
                }
            });
        }
        for _ in 0..RESTARTS {
            let before = seen.cycles.load(Ordering::Relaxed);
            until("the clients get on", || {
                seen.cycles.load(Ordering::Relaxed) > before + 60
            });
            server.signal(Signal::TERM);
            assert!(server.end().success());
            let port = server.address().port().to_string();
            server = server.setup().clone().with("HTTP_PORT", &port).start();
        }
        let before = seen.cycles.load(Ordering::Relaxed);
        until("the clients get on", || {
            seen.cycles.load(Ordering::Relaxed) > before + 60
        });
    });
    assert_eq!(*seen.cut_off.lock().unwrap(), Vec::<String>::new());
    let acknowledged = acknowledged.into_inner().unwrap();
    assert_eq!(acknowledged.len(), CLIENTS);
    for (name, number) in acknowledged {
        let stored: u64 = server.data(&format!("{name}/count")).parse().unwrap();
        // The last one may have been written without the answer having been waited for.
        assert!(
            stored == number || stored == number + 1,
            "{name}: {stored} stored, {number} acknowledged"
        );
    }
}
