//! `Idempotency-Key` on GET `lock=1` and lock.

use crate::stores::check_granted;
use crate::support::{Server, until};

api_tests! {
    fn the_same_key_gets_the_same_ticket_while_it_holds(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let first = app.lock("printer/s").idempotency_key("attempt-1").expect(200);
        check_granted(&first);
        let again = app.lock("printer/s").idempotency_key("attempt-1").expect(200);
        assert_eq!((again.ticket(), again.token()), (first.ticket(), first.token()));
        let read = app.get("printer/s").idempotency_key("attempt-1").expect(200);
        assert_eq!((read.ticket(), read.token()), (first.ticket(), first.token()));
        assert_eq!(app.waiting("printer"), 0);
    }

    fn the_same_key_gets_the_same_place_while_it_waits(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (holder, _) = app.hold("printer/s");
        let first = app.get("printer/s").idempotency_key("k").expect(202);
        app.queue("printer/s");
        let again = app.get("printer/s").idempotency_key("k").expect(202);
        assert_eq!(again.ticket(), first.ticket());
        assert_eq!(again.json()["position"], 1);
        assert_eq!(app.waiting("printer"), 2);
        app.unlock("printer/s", &holder).expect(200);
        let granted = app.lock("printer/s").idempotency_key("k").expect(200);
        assert_eq!((granted.ticket(), granted.json()["locked"] == true), (first.ticket(), true));
    }

    fn another_key_is_another_attempt(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        app.create("scanner", 0).expect(201);
        let first = app.lock("printer/s").idempotency_key("k").expect(200);
        let second = app.lock("printer/s").idempotency_key("K").expect(200);
        assert_eq!(second.json()["locked"], false);
        let elsewhere = app.lock("scanner/s").idempotency_key("k").expect(200);
        check_granted(&elsewhere);
        assert_ne!(elsewhere.ticket(), first.ticket());
    }

    fn a_late_copy_of_an_attempt_does_not_take_the_lock_anew(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let first = app.lock("printer/s").idempotency_key("k").expect(200);
        app.unlock("printer/s", &first.ticket()).expect(200);
        app.lock("printer/s").idempotency_key("k").refused(403, "ticket_released");
        let other = app.lock("printer/s").idempotency_key("k").body(r#"{"owner":"b"}"#);
        other.refused(409, "idempotency_key_reused");
        assert!(!app.is_locked("printer"));
    }

    fn with_another_owner_or_ttl_it_is_409(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let body = r#"{"owner":"a","ttl":30}"#;
        let lock = |key: &str, body: &str| app.lock("printer/s").idempotency_key(key).body(body);
        let first = lock("k", body).expect(200);
        for other in [r#"{"owner":"b","ttl":30}"#, r#"{"owner":"a","ttl":31}"#, r#"{"owner":"a"}"#, r#"{"ttl":30}"#, ""] {
            lock("k", other).refused(409, "idempotency_key_reused");
        }
        assert_eq!(lock("k", r#"{"ttl":"30","owner":"a"}"#).expect(200).ticket(), first.ticket());
        let waiting = lock("w", body).expect(200);
        lock("w", r#"{"owner":"b","ttl":30}"#).refused(409, "idempotency_key_reused");
        assert_eq!(lock("w", body).expect(200).ticket(), waiting.ticket());
        assert_eq!(app.waiting("printer"), 1);
    }

    fn a_live_ticket_wins_over_the_key(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let keyed = app.lock("printer/s").idempotency_key("k").expect(200);
        let waiter = app.queue("printer/s");
        let answer = app.lock("printer/s").ticket(&waiter).idempotency_key("k").expect(200);
        assert_eq!(answer.ticket(), waiter);
        let answer = app.lock("printer/s").ticket(&keyed.ticket()).idempotency_key("another").expect(200);
        assert_eq!(answer.token(), keyed.token());
    }

    fn a_dead_ticket_beside_the_key_counts_as_none(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (old, _) = app.hold("printer/s");
        app.unlock("printer/s", &old).expect(200);
        let first = app.lock("printer/s").ticket(&old).idempotency_key("k").expect(200);
        let again = app.lock("printer/s").ticket(&old).idempotency_key("k").expect(200);
        assert_eq!(again.ticket(), first.ticket());
    }

    fn keys_are_1_to_255_visible_ascii_characters(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let longest = "k".repeat(255);
        for key in ["", "a b", "a\tb", "é", "k".repeat(256).as_str()] {
            app.lock("printer/s").idempotency_key(key).refused(400, "malformed");
            app.get("printer/s").idempotency_key(key).refused(400, "malformed");
        }
        assert!(!app.is_locked("printer"));
        for key in [longest.as_str(), "!", "~", "\"'\\,;"] {
            let granted = app.lock("printer/s").idempotency_key(key).expect(200);
            assert_eq!(app.lock("printer/s").idempotency_key(key).expect(200).ticket(), granted.ticket());
            app.unlock("printer/s", &granted.ticket()).expect(200);
        }
    }

    fn a_place_taken_with_a_key_stays_for_the_retry(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let lost = app.lock("printer/s").query("wait=60").idempotency_key("k").open();
        until("it queues", || app.waiting("printer") == 1);
        lost.reset();
        let behind = app.queue("printer/s");
        let retry = app.lock("printer/s").idempotency_key("k").expect(200);
        assert_eq!(retry.json()["position"], 1);
        app.unlock("printer/s", &holder).expect(200);
        assert_eq!(app.lock("printer/s").ticket(&behind).expect(200).json()["locked"], false);
        let granted = app.lock("printer/s").idempotency_key("k").expect(200);
        assert_eq!((granted.ticket(), granted.json()["locked"] == true), (retry.ticket(), true));
    }

    /// The grant and the end of the connection race; either way the retry finds its lock.
    fn a_grant_whose_answer_was_lost_stays_for_the_retry(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        for round in 0..6 {
            let key = format!("attempt-{round}");
            let (holder, _) = app.hold("printer/s");
            let lost = app.lock("printer/s").query("wait=60").idempotency_key(&key).open();
            until("it queues", || app.waiting("printer") == 1);
            let mut unlocking = app.connect();
            unlocking.write(&app.unlock("printer/s", &holder).bytes());
            lost.reset();
            assert_eq!(unlocking.answer().status, 200);
            let retry = app.lock("printer/s").idempotency_key(&key).expect(200);
            check_granted(&retry);
            app.unlock("printer/s", &retry.ticket()).expect(200);
        }
    }

    fn two_requests_of_one_key_at_once_are_one_attempt(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let open: Vec<_> = (0..8).map(|_| app.lock("printer/s").idempotency_key("k").open()).collect();
        let tickets: Vec<String> = open.into_iter().map(|mut connection| connection.answer().ticket()).collect();
        assert!(tickets.iter().all(|ticket| *ticket == tickets[0]), "{tickets:?}");
        assert_eq!(app.waiting("printer"), 0);
    }
}
