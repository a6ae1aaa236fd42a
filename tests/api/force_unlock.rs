//! POST `/resource/{name}/force-unlock`.

use serde_json::json;

use small_resource_server::lock::Ticket;

use crate::support::{ADMIN, Call, Client, LOCK, READ, Server, WRITE};

api_tests! {
    fn it_ends_the_lease_and_says_which(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (ticket, token) = app.hold("printer/s");
        let answer = app.force_unlock("printer").expect(200);
        assert_eq!(answer.json(), json!({"forced": true, "fencingToken": token, "fencingTokens": [token]}));
        assert!(!app.is_locked("printer"));
        let told = app.unlock("printer/s", &ticket).expect(403);
        assert_eq!(told.code(), "lease_forced_off");
        assert_eq!(told.json()["forced"], json!({"reason": "the test says so", "by": "admin"}));
    }

    fn a_free_lock_is_answered_false(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let body = app.force_unlock("printer").expect(200).json();
        assert_eq!(body["forced"], false);
        assert!(body["fencingToken"].is_null());
    }

    fn the_next_waiter_is_granted(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (_, token) = app.hold("printer/s");
        let mut first = app.wait("printer/s");
        let second = app.wait("printer/s");
        app.force_unlock("printer").expect(200);
        let granted = first.answer();
        assert_eq!(granted.json()["locked"], true);
        assert!(granted.token() > token);
        assert_eq!(app.waiting("printer"), 1);
        drop(second);
    }

    fn with_a_token_only_that_very_lease_is_ended(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (ticket, token) = app.hold("printer/s");
        let force = |token: u64| {
            let body = json!({"reason": "stuck", "fencingToken": token});
            app.force_unlock("printer").body(body.to_string())
        };
        force(token + 1).expect(409);
        assert!(app.is_locked("printer"));
        app.unlock("printer/s", &ticket).expect(200);
        let (_, newer) = app.hold("printer/s");
        force(token).expect(409);
        assert!(app.is_locked("printer"));
        assert_eq!(force(newer).expect(200).json()["forced"], true);
        force(newer).expect(409);
    }

    fn the_reason_is_required(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        app.hold("printer/s");
        let bodies = [
            "", "{}", "{", "[]",
            r#"["x"]"#, r#"{"reason":null}"#, r#"{"reason":""}"#, r#"{"reason":7}"#,
            r#"{"fencingToken":1}"#, r#"{"reason":"x","fencingToken":"abc"}"#, r#"{"reason":"x","fencingToken":-1}"#,
            r#"{"reason":"a\u0007b"}"#,
        ];
        for body in bodies {
            let answer = app.force_unlock("printer").body(body).send();
            assert_eq!((answer.status, answer.code().as_str()), (400, "malformed"), "{body}");
        }
        assert!(app.is_locked("printer"));
    }

    fn it_takes_the_admin_key(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        app.hold("printer/s");
        for key in [READ, LOCK, WRITE] {
            app.force_unlock("printer").key(key).refused(401, "key_insufficient");
        }
        app.force_unlock("printer").no_key().refused(401, "key_missing");
        assert!(app.is_locked("printer"));
        app.force_unlock("printer").key(ADMIN).expect(200);
    }

    fn without_an_admin_key_nobody_can(store) {
        let app = Server::start_with(store, &[("RESOURCE_ADMIN", "")]);
        app.create("printer", 0).expect(201);
        app.hold("printer/s");
        for key in ["", ADMIN] {
            app.force_unlock("printer").key(key).refused(401, "key_unknown");
        }
        app.force_unlock("printer").key(WRITE).refused(401, "key_insufficient");
        assert!(app.is_locked("printer"));
    }

    fn an_unknown_resource_is_404(store) {
        let app = Server::start(store);
        app.force_unlock("printer").refused(404, "resource_unknown");
    }

    fn a_waiter_is_removed_by_the_id_that_the_queue_shows(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (holds, _) = app.hold("printer/s");
        let mut open = app.wait("printer/s");
        let polls = app.lock("printer/s").expect(200).ticket();
        let ids = waiters(&app);
        assert_eq!(ids.len(), 2);
        assert_eq!(ids[1], id_of(&polls));
        for id in &ids {
            let removed = json!({"forced": true, "fencingToken": null, "fencingTokens": [], "waiter": id});
            assert_eq!(remove(&app, id).expect(200).json(), removed);
            // As when the answer was lost.
            assert_eq!(remove(&app, id).expect(200).json()["forced"], false);
        }
        let forced = json!({"reason": "stuck", "by": "admin"});
        let told = open.answer();
        assert_eq!((told.status, told.code().as_str()), (403, "lease_forced_off"));
        assert_eq!(told.json()["forced"], forced);
        let told = app.unlock("printer/s", &polls).expect(403);
        assert_eq!(told.code(), "lease_forced_off");
        assert_eq!(told.json()["forced"], forced);
        assert_eq!(app.waiting("printer"), 0);
        app.renew("printer/s", &holds).expect(200);
        // With lock intent it counts as none, and is told what became of it.
        let anew = app.lock("printer/s").ticket(&polls).expect(200);
        assert_ne!(anew.ticket(), polls);
        assert_eq!(anew.header("X-Ticket-Ended"), Some("lease_forced_off"));
    }

    fn only_a_ticket_that_waits_can_be_removed(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (holds, token) = app.hold("printer/s");
        let first = app.lock("printer/s").expect(200).ticket();
        app.unlock("printer/s", &first).expect(200);
        for ticket in [&holds, &first] {
            remove(&app, &id_of(ticket)).refused(409, "not_waiting");
        }
        app.unlock("printer/s", &holds).expect(200);
        let (next, _) = app.hold("printer/s");
        remove(&app, &id_of(&next)).refused(409, "not_waiting");
        assert!(app.is_locked("printer"));
        for waiter in [json!(""), json!("x"), json!(7), json!(holds), json!("0123456789ABCDEF")] {
            let body = json!({"reason": "stuck", "waiter": waiter});
            app.force_unlock("printer").body(body.to_string()).refused(400, "malformed");
        }
        let both = json!({"reason": "stuck", "waiter": id_of(&holds), "fencingToken": token});
        app.force_unlock("printer").body(both.to_string()).refused(400, "malformed");
        let id = id_of(&holds);
        for key in [READ, LOCK, WRITE] {
            remove(&app, &id).key(key).refused(401, "key_insufficient");
        }
    }
}

/// The ids of those who wait, in order.
fn waiters(app: &Client) -> Vec<String> {
    let described = app.describe("printer").expect(200).json();
    let queue = described["queue"].as_array().unwrap();
    let ids = queue
        .iter()
        .map(|place| place["id"].as_str().unwrap().to_owned());
    ids.collect()
}

fn id_of(ticket: &str) -> String {
    Ticket::parse(ticket).unwrap().id().to_string()
}

fn remove(app: &Client, id: &str) -> Call {
    let body = json!({"reason": "stuck", "waiter": id});
    app.force_unlock("printer").body(body.to_string())
}
