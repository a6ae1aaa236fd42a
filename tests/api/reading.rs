//! GET `lock=0` while the document changes: a read sees what was answered before it was sent, whichever
//! worker takes it and whether or not it has to ask the resource's actor.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::support::{Connection, READ, Server};

/// More connections than workers, so that each worker has several.
const READERS: usize = 4;

/// Two threads serve, so that half of the reads come from another one than the actor's.
fn start(store: crate::support::Store, given: &[(&str, &str)]) -> Server {
    Server::start_with(store, &[&[("HTTP_WORKERS", "2")], given].concat())
}

fn connections(app: &Server) -> Vec<Connection> {
    (0..READERS).map(|_| app.connect()).collect()
}

/// What the document at `printer/s` says, a number; `None`: 404.
fn version(app: &Server, connection: &mut Connection) -> Option<u64> {
    let answer = connection.exchange(&app.read("printer/s").key(READ).query("raw=1"));
    match answer.status {
        200 => Some(answer.text().parse().expect("a number")),
        404 => None,
        _ => panic!("{answer:?}"),
    }
}

fn write(app: &Server, connection: &mut Connection, version: u64) {
    let answer = connection.exchange(&app.put("printer/s", &version.to_string()));
    assert_eq!(answer.status, 204, "{answer:?}");
}

api_tests! {
    fn every_connection_sees_each_write_that_was_answered(store) {
        let app = start(store, &[]);
        app.create("printer", 0).expect(201);
        let mut writer = app.connect();
        let mut readers = connections(&app);
        for written in 1..=50 {
            write(&app, &mut writer, written);
            for reader in &mut readers {
                assert_eq!(version(&app, reader), Some(written));
            }
            // A second time: the first may have had to ask.
            for reader in &mut readers {
                assert_eq!(version(&app, reader), Some(written));
            }
        }
    }

    fn every_connection_sees_that_a_document_or_its_resource_is_gone(store) {
        let app = start(store, &[]);
        let mut readers = connections(&app);
        let mut see = |expected| {
            for reader in readers.iter_mut().chain(&mut connections(&app)) {
                assert_eq!(version(&app, reader), expected);
                assert_eq!(version(&app, reader), expected);
            }
        };
        for round in 0..5 {
            app.create("printer", 0).expect(201);
            see(None);
            app.put("printer/s", "1").expect(204);
            see(Some(1));
            app.delete("printer/s").expect(204);
            see(None);
            app.put("printer/s", "2").expect(204);
            see(Some(2));
            app.delete("printer").expect(204);
            app.read("printer/s").refused(404, "resource_unknown");
            see(None);
            assert!(app.names().is_empty(), "{round}");
        }
    }

    fn a_read_by_the_holder_still_names_its_ticket_and_others_see_no_lock(store) {
        let app = start(store, &[]);
        app.prepare("printer");
        app.read("printer/s").expect(200);
        let (ticket, token) = app.hold("printer/s");
        let own = app.read("printer/s").ticket(&ticket).expect(200);
        assert_eq!((own.ticket(), own.token()), (ticket.clone(), token));
        let other = app.read("printer/s").expect(200);
        assert_eq!((other.header("X-Ticket"), other.header("X-Fencing-Token")), (None, None));
        assert_eq!(own.json(), other.json());
    }

    /// The key counts before anything is looked at.
    fn a_document_that_is_shown_is_shown_to_nobody_without_a_key(store) {
        let app = start(store, &[]);
        app.prepare("printer");
        for _ in 0..READERS {
            app.read("printer/s").expect(200);
            app.read("printer/s").no_key().refused(401, "key_missing");
            app.read("printer/s").key("another").refused(401, "key_unknown");
        }
    }

    /// Each document is pushed out of memory by the other one.
    fn documents_that_have_no_room_in_memory_are_read_as_they_are(store) {
        let app = start(store, &[("DATA_CACHE_BYTES", "3000")]);
        app.create("printer", 0).expect(201);
        let text = |name: &str, version: u64| format!("\"{name}{version}{}\"", "x".repeat(2000));
        for version in 0..10 {
            for name in ["a", "b"] {
                app.put(&format!("printer/{name}"), &text(name, version)).expect(204);
            }
            for name in ["a", "b", "a", "b"] {
                assert_eq!(app.data(&format!("printer/{name}")), text(name, version));
            }
        }
    }

    /// Versions grow, and go on growing over deletions; nobody ever reads one that is older than what had
    /// been answered, to anybody, before the read was sent.
    fn no_read_is_older_than_what_was_answered_before_it(store) {
        let app = start(store, &[("DATA_CACHE_BYTES", "10")]);
        app.prepare("printer");
        app.create("other", 0).expect(201);
        app.put("printer/s", "1").expect(204);
        let (answered, over) = (AtomicU64::new(1), AtomicBool::new(false));
        thread::scope(|scope| {
            let read = || {
                let mut connection = app.connect();
                while !over.load(Ordering::SeqCst) {
                    let before = answered.load(Ordering::SeqCst);
                    if let Some(version) = version(&app, &mut connection) {
                        assert!(version >= before, "read {version} after {before}");
                        answered.fetch_max(version, Ordering::SeqCst);
                    }
                }
            };
            let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
            let mut writer = app.connect();
            for version in 2..=150 {
                match version % 10 {
                    0 => drop(app.delete("printer/s").expect(204)),
                    // Pushes the document out of memory.
                    3 => drop(app.put("other/s", "\"0123456789\"").expect(204)),
                    7 => {
                        app.delete("printer").expect(204);
                        app.create("printer", 0).expect(201);
                    }
                    _ => {}
                }
                write(&app, &mut writer, version);
                answered.fetch_max(version, Ordering::SeqCst);
            }
            over.store(true, Ordering::SeqCst);
            readers.into_iter().for_each(|reader| reader.join().expect("no older version"));
        });
    }
}
