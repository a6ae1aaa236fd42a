//! GET `/health` and GET `/ready`.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Database, Server, Store};

api_tests! {
    fn health_is_200_without_a_key(store) {
        let app = Server::start(store);
        let answer = app.call("GET", "/health").no_key().expect(200);
        assert_eq!(answer.json(), json!({"status": "ok"}));
    }

    fn ready_is_200_without_a_key_when_resources_are_served(store) {
        let app = Server::start(store);
        let answer = app.call("GET", "/ready").no_key().expect(200);
        assert_eq!(answer.json(), json!({"status": "ready"}));
        app.create("printer", 0).expect(201);
    }

    fn head_is_answered_without_a_body(store) {
        let app = Server::start(store);
        for target in ["/health", "/ready"] {
            let mut connection = app.connect();
            connection.write(format!("HEAD {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
            let answer = connection.bodiless_answer();
            assert_eq!(answer.status, 200);
            assert!(connection.is_closed_by_server());
        }
    }

    fn neither_shows_a_name_a_ticket_or_a_key(store) {
        let app = Server::start(store);
        app.create("very-secret-name", 0).expect(201);
        let (ticket, _) = app.hold("very-secret-name/s");
        for target in ["/health", "/ready"] {
            let answer = app.call("GET", target).expect(200);
            for secret in ["very-secret-name", ticket.as_str(), crate::support::WRITE] {
                assert!(!answer.text().contains(secret), "{answer:?}");
            }
        }
    }

    fn before_the_end_ready_says_so_while_requests_are_still_served(store) {
        let mut app = Server::start_with(store, &[("SHUTDOWN_DELAY_SECONDS", "2")]);
        app.create("printer", 0).expect(201);
        let start = Instant::now();
        let thread = app.begin_stop().unwrap();
        crate::support::until("balancers are told", || {
            let answer = app.call("GET", "/ready").send();
            if answer.status == 503 {
                assert_eq!(answer.code(), "shutting_down");
            }
            answer.status == 503
        });
        let over = || start.elapsed() >= Duration::from_secs(2);
        let answer = app.describe("printer").send();
        assert!(answer.status == 200 || over(), "{answer:?}");
        thread.join().unwrap();
    }
}

#[test]
fn another_instance_answers_as_the_first_does_and_goes_on_when_that_is_gone() {
    if Database::is_skipped() {
        return;
    }
    let mut first = Server::start(Store::Mysql);
    first.prepare("printer");
    let (ticket, token) = first.hold("printer/s");
    let other = first.start_beside();
    other.call("GET", "/health").no_key().expect(200);
    other.until_ready();
    let renewed = other.renew("printer/s", &ticket).expect(200);
    assert_eq!(renewed.token(), token);
    other.create("another", 1).expect(201);
    assert_eq!(first.names(), other.names());
    other.read("printer/s").no_key().refused(401, "key_missing");
    other.call("GET", "/nothing").refused(404, "route_unknown");
    first.stop();
    let kept = other.lock("printer/s").ticket(&ticket).expect(200);
    assert_eq!((kept.ticket(), kept.token()), (ticket, token));
}
