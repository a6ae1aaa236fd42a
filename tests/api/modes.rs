//! Shared locks and slots, lock-delay, ephemeral names, and how a resource is watched.

use serde_json::{Value, json};

use crate::support::{Call, LOCK, READ, Server, WRITE, until};

fn create(app: &Server, body: &Value) -> Call {
    app.call("POST", "/resource")
        .key(WRITE)
        .body(body.to_string())
}

fn shared(app: &Server, path: &str) -> Call {
    app.lock(path).body(r#"{"mode":"shared"}"#)
}

api_tests! {
    fn readers_share_a_lock_and_a_writer_waits_for_them(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let first = shared(&app, "printer/s").expect(200);
        let second = shared(&app, "printer/s").expect(200);
        assert_eq!(second.json()["mode"], "shared");
        assert!(second.token() > first.token());
        app.put("printer/s", "2").ticket(&first.ticket()).refused(409, "not_exclusive");
        let writer = app.lock("printer/s").expect(200);
        assert_eq!(writer.json()["locked"], false);
        let late = shared(&app, "printer/s").query("queue=0").expect(409);
        assert_eq!(late.json()["holder"]["fencingToken"], first.token());
        app.lock("printer/s").ticket(&writer.ticket()).body(r#"{"mode":"shared"}"#).refused(409, "mode_differs");
        let promotion = app.lock("printer/s").ticket(&first.ticket()).query("wait=60").body(r#"{"mode":"exclusive"}"#);
        assert_eq!(promotion.expect(409).json()["holder"]["fencingToken"], second.token());
        app.unlock("printer/s", &second.ticket()).expect(200);
        let promoted = promotion.expect(200);
        assert!(promoted.token() > second.token());
        app.put("printer/s", "2").ticket(&first.ticket()).expect(204);
        assert_eq!(app.described("printer")["holders"].as_array().unwrap().len(), 1);
    }

    fn a_shared_holder_that_is_refused_is_told_its_token(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let first = shared(&app, "printer/s").expect(200);
        shared(&app, "printer/s").expect(200);
        for (call, code) in [
            (app.put("printer/s", "2"), "not_exclusive"), (app.delete("printer/s"), "not_exclusive"),
            (app.lock("printer/s").body(r#"{"mode":"exclusive"}"#), "locked"),
        ] {
            let refused = call.ticket(&first.ticket()).refused(409, code);
            assert_eq!(refused.token(), first.token());
        }
    }

    fn an_ephemeral_name_goes_with_its_last_lease_and_its_tokens_go_on(store) {
        let app = Server::start(store);
        app.lock("job:1/s").refused(404, "resource_unknown");
        let mut last = 0;
        for _ in 0..3 {
            let grant = app.lock("job:1/s").query("create=1").key(LOCK).expect(200);
            assert!(grant.token() > last);
            last = grant.token();
            assert_eq!(app.described("job:1")["ephemeral"], true);
            let waiting = app.queue("job:1/s");
            app.unlock("job:1/s", &grant.ticket()).expect(200);
            app.unlock("job:1/s", &waiting).expect(200);
            app.describe("job:1").refused(404, "resource_unknown");
            app.unlock("job:1/s", &grant.ticket()).refused(404, "resource_unknown");
        }
        assert!(app.names().is_empty());
    }

    fn a_lost_ticket_of_an_ephemeral_name_is_told_why_although_the_name_is_gone(store) {
        let app = Server::start(store);
        let grant = app.lock("job:1/s").query("create=1").body(r#"{"ttl":0.05}"#).expect(200);
        until("the lease is over", || app.describe("job:1").send().status == 404);
        app.renew("job:1/s", &grant.ticket()).refused(403, "lease_expired");
        app.unlock("job:1/s", &grant.ticket()).refused(403, "lease_expired");
        app.put("job:1/s", "1").ticket(&grant.ticket()).query("create=1").refused(403, "lease_expired");
        let again = app.lock("job:1/s").query("create=1").ticket(&grant.ticket()).expect(200);
        assert_eq!(again.header("X-Ticket-Ended"), Some("lease_expired"));
        app.unlock("job:1/s", &again.ticket()).expect(200);
        let keyed = app.lock("job:2/s").query("create=1").idempotency_key("k");
        app.unlock("job:2/s", &keyed.expect(200).ticket()).expect(200);
        keyed.refused(403, "ticket_released");
        app.describe("job:2").refused(404, "resource_unknown");
    }

    fn an_ephemeral_name_with_data_stays_until_the_data_goes(store) {
        let app = Server::start(store);
        let grant = app.lock("job:1/s").query("create=1").expect(200);
        app.put("job:1/s", "1").ticket(&grant.ticket()).query("unlock=1").expect(204);
        assert_eq!(app.described("job:1")["ephemeral"], true);
        app.delete("job:1/s").expect(204);
        app.describe("job:1").refused(404, "resource_unknown");
    }

    fn many_ephemeral_names_leave_nothing_behind(store) {
        let app = Server::start(store);
        let mut connection = app.connect();
        for n in 0..200 {
            let path = format!("job:{n}/s");
            let grant = connection.exchange(&app.lock(&path).query("create=1"));
            assert_eq!(grant.status, 200);
            assert_eq!(connection.exchange(&app.unlock(&path, &grant.ticket())).status, 200);
        }
        assert!(app.names().is_empty());
    }

    fn after_a_lease_was_forced_off_the_lock_delay_runs(store) {
        let app = Server::start(store);
        create(&app, &json!({"name": "printer", "lockDelay": 1})).expect(201);
        app.hold("printer/s");
        app.force_unlock("printer").expect(200);
        let refused = app.lock("printer/s").query("queue=0").expect(409).json();
        assert_eq!((&refused["holder"], &refused["reserved"]), (&Value::Null, &json!(true)));
        app.put("printer/s", "1").refused(409, "locked");
        let granted = app.lock("printer/s").query("wait=60").expect(200);
        assert!(granted.json()["waitedMs"].as_u64().unwrap() > 500);
    }

    fn a_watcher_is_answered_when_who_holds_or_waits_changes(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let described = app.describe("printer").key(READ).expect(200);
        let tag = described.header("Etag").unwrap().to_owned();
        let watch = |tag: &str, wait: &str| app.describe("printer").header("If-None-Match", tag).query(wait);
        for known in [format!("W/{tag}"), format!("\"0\", W/{tag}"), "*".to_owned()] {
            let same = watch(&known, "wait=0.05").expect(304);
            assert_eq!(same.header("Etag"), Some(tag.as_str()));
        }
        std::thread::scope(|scope| {
            let watcher = scope.spawn(|| watch(&tag, "wait=60").expect(200));
            app.put("printer/s", "1").expect(204);
            let (ticket, _) = app.hold("printer/s");
            let changed = watcher.join().unwrap();
            assert_eq!(changed.json()["locked"], true);
            assert_ne!(changed.header("Etag"), Some(tag.as_str()));
            app.renew("printer/s", &ticket).expect(200);
            assert_eq!(app.describe("printer").expect(200).header("Etag"), changed.header("Etag"));
        });
        for (queue, shown) in [("queue=0", 0), ("queue=1", 1)] {
            app.queue("printer/s");
            let body = app.describe("printer").query(queue).expect(200).json();
            assert_eq!(body["queue"].as_array().unwrap().len(), shown);
        }
        app.describe("printer").query("queue=1001").refused(400, "malformed");
    }
}

mod durable {
    use super::*;

    durable_tests! {
        fn leases_beside_each_other_outlive_a_restart(store) {
            let mut app = Server::start(store);
            create(&app, &json!({"name": "pool", "slots": 3, "lockDelay": 5})).expect(201);
            let body = r#"{"owner":"a","reason":"nightly","ttl":600.5}"#;
            let held: Vec<_> = (0..3).map(|_| app.lock("pool/s").body(body).expect(200)).collect();
            app.unlock("pool/s", &held[0].ticket()).expect(200);
            assert_eq!(held[0].json()["ttl"], 600.5);
            app.restart_with(&[]);
            let pool = app.described("pool");
            assert_eq!((&pool["slots"], &pool["lockDelay"]), (&json!(3), &json!(5)));
            let tokens: Vec<_> = pool["holders"].as_array().unwrap().iter().map(|h| h["fencingToken"].clone()).collect();
            assert_eq!(tokens, [held[1].token(), held[2].token()]);
            assert_eq!(pool["holders"][0]["reason"], "nightly");
            for grant in &held[1..] {
                assert_eq!(app.renew("pool/s", &grant.ticket()).expect(200).json()["ttl"], 600.5);
            }
            app.lock("pool/s").expect(200);
            app.lock("pool/s").query("queue=0").refused(409, "locked");
            app.lock("pool/s").body(r#"{"mode":"shared"}"#).refused(400, "mode_not_offered");
        }

        fn the_tokens_of_an_ephemeral_name_go_on_after_a_restart(store) {
            let mut app = Server::start(store);
            let grant = app.lock("job:1/s").query("create=1").expect(200);
            app.unlock("job:1/s", &grant.ticket()).expect(200);
            app.restart_with(&[]);
            let next = app.lock("job:1/s").query("create=1").expect(200);
            assert!(next.token() > grant.token());
            app.restart_with(&[]);
            assert_eq!(app.described("job:1")["ephemeral"], true);
            app.unlock("job:1/s", &next.ticket()).expect(200);
            app.describe("job:1").refused(404, "resource_unknown");
        }

        fn a_put_makes_an_ordinary_name_and_a_post_makes_an_ephemeral_one_ordinary(store) {
            let mut app = Server::start(store);
            app.put("notes/s", "1").refused(404, "resource_unknown");
            app.put("notes/s", "1").query("create=1").key(WRITE).expect(204);
            assert_eq!(app.described("notes")["ephemeral"], false);
            let grant = app.lock("job:1/s").query("create=1").expect(200);
            create(&app, &json!({"name": "job:1", "timeout": 7, "slots": 2})).expect(201);
            create(&app, &json!({"name": "job:1", "timeout": 7})).refused(409, "resource_exists");
            app.unlock("job:1/s", &grant.ticket()).expect(200);
            app.restart_with(&[]);
            let ordinary = app.described("job:1");
            assert_eq!((&ordinary["ephemeral"], &ordinary["slots"], &ordinary["timeout"]), (&json!(false), &json!(2), &json!(7)));
        }
    }
}
