//! Stop and start: what outlives the process and what begins anew.

use std::time::{Duration, Instant};

use crate::sleep::until_asleep;
use crate::stores::check_granted;
use crate::support::{Server, Store, until};

#[test]
fn nothing_in_memory_outlives_the_process() {
    let mut app = Server::start(Store::Memory);
    app.prepare("printer");
    app.restart_with(&[]);
    assert!(app.names().is_empty());
    app.create("printer", 0).expect(201);
    app.read("printer/s").refused(404, "selector_unknown");
}

durable_tests! {
    fn resources_and_data_come_back_byte_for_byte(store) {
        let mut app = Server::start(store);
        let texts = [
            r#" {"b":1,"a":2,"b":3} "#, "1e999", "123456789012345678901234567890", "\"\\ud83d\\ude00 😀 \\/\"", "null",
            "\"\\u0000\"", "\"e\u{301} é\"", "\"\u{2028}\"",
        ];
        let names = ["printer", "Printer", "printer ", "a/b", "日本", ".", "%"];
        let mut ids = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let created = app.create(name, number as u32).expect(201);
            ids.push(created.json()["id"].clone());
        }
        for (number, text) in texts.iter().enumerate() {
            app.put(&format!("printer/{number}"), text).expect(204);
        }
        let large = format!("\"{}\"", "é".repeat(1_048_000));
        app.put("printer/large", &large).expect(204);
        let before = app.call("GET", "/resource").expect(200).json();
        app.restart_with(&[]);
        assert_eq!(app.call("GET", "/resource").expect(200).json(), before);
        for (number, text) in texts.iter().enumerate() {
            assert_eq!(app.data(&format!("printer/{number}")), *text);
        }
        assert!(app.data("printer/large") == large);
        assert_eq!(app.described("Printer")["id"], ids[1]);
        assert_eq!(app.described("printer%20")["timeout"], 2);
        app.create("a/b", 0).refused(409, "resource_exists");
        app.read("printer/never").refused(404, "selector_unknown");
    }

    /// Whether or not the worker has to ask the resource's actor: the second look of each connection needs not.
    fn a_document_that_was_read_is_what_was_written_last(store) {
        let mut app = Server::start(store);
        app.create("printer", 0).expect(201);
        for written in ["1", "2", "3"] {
            app.put("printer/s", written).expect(204);
            assert_eq!([app.data("printer/s"), app.data("printer/s")], [written, written]);
            app.restart_with(&[]);
            assert_eq!([app.data("printer/s"), app.data("printer/s")], [written, written]);
        }
    }

    fn a_listing_knows_which_leases_have_ended_since(store) {
        let mut app = Server::start(store);
        for name in ["short", "long"] {
            app.create(name, u32::from(name == "short")).expect(201);
            app.lock(&format!("{name}/s")).expect(200);
        }
        app.restart_with(&[]);
        let held = || app.call("GET", "/resource").query("locked=1").expect(200).json()["resources"].clone();
        until("the short lease is over", || held().as_array().map(Vec::len) == Some(1));
        assert_eq!(held()[0]["name"], "long");
        assert_eq!(held()[0]["locked"], true);
        assert_eq!(app.call("GET", "/resource").expect(200).json()["resources"][1]["locked"], false);
    }

    fn what_is_stuck_is_found_behind_many_leases_that_have_ended(store) {
        let mut app = Server::start(store);
        for n in 0..12 {
            let name = format!("short{n}");
            app.create(&name, 1).expect(201);
            app.lock(&format!("{name}/s")).expect(200);
        }
        app.prepare("long");
        app.lock("long/s").expect(200);
        app.restart_with(&[]);
        until("the short leases are over", || !app.is_locked("short11"));
        let stuck = app.call("GET", "/resource").query("sort=held").query("locked=1").query("limit=5");
        let names: Vec<_> = stuck.expect(200).json()["resources"].as_array().unwrap()
            .iter().map(|resource| resource["name"].clone()).collect();
        assert_eq!(names, ["long"]);
    }

    fn the_holder_still_holds(store) {
        let mut app = Server::start(store);
        app.create("printer", 0).expect(201);
        let granted = app.lock("printer/s").body(r#"{"owner":"me"}"#).expect(200);
        app.restart_with(&[]);
        let holder = app.described("printer")["holder"].clone();
        assert_eq!(holder["owner"], "me");
        assert_eq!(holder["fencingToken"], granted.token());
        assert_eq!(holder["acquiredAt"], granted.json()["acquiredAt"]);
        app.lock("printer/s").query("queue=0").refused(409, "locked");
        let kept = app.lock("printer/s").ticket(&granted.ticket()).expect(200);
        assert_eq!((kept.ticket(), kept.token()), (granted.ticket(), granted.token()));
        app.put("printer/s", "1").ticket(&granted.ticket()).expect(204);
        app.unlock("printer/s", &granted.ticket()).expect(200);
        assert!(!app.is_locked("printer"));
    }

    fn a_sleeping_lease_outlives_the_process_as_any_other(store) {
        let mut app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (ticket, token) = app.hold("printer/s");
        until_asleep(&app, 1);
        app.restart_with(&[]);
        assert_eq!(app.described("printer")["holder"]["fencingToken"], token);
        app.unlock("printer/s", &ticket).expect(200);
    }

    fn the_queue_is_in_its_order(store) {
        let mut app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let queue: Vec<String> = (0..5).map(|_| app.queue("printer/s")).collect();
        app.unlock("printer/s", &queue[1]).expect(200);
        app.restart_with(&[]);
        assert_eq!(app.waiting("printer"), 4);
        for (position, ticket) in [(1, &queue[0]), (2, &queue[2]), (3, &queue[3]), (4, &queue[4])] {
            let place = app.lock("printer/s").ticket(ticket).expect(200);
            assert_eq!((place.ticket(), place.json()["position"].as_u64()), (ticket.clone(), Some(position)));
        }
        assert_eq!(app.lock("printer/s").expect(200).json()["position"], 5);
        app.unlock("printer/s", &holder).expect(200);
        assert_eq!(app.lock("printer/s").ticket(&queue[2]).expect(200).json()["locked"], false);
        check_granted(&app.lock("printer/s").ticket(&queue[0]).expect(200));
    }

    /// Every ticket counts as just seen, so that a release still goes to the first.
    fn after_a_restart_a_release_goes_to_the_first_in_the_queue(store) {
        let mut app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let first = app.queue("printer/s");
        app.restart_with(&[]);
        app.unlock("printer/s", &holder).expect(200);
        assert_eq!(app.lock("printer/s").expect(200).json()["position"], 2);
        check_granted(&app.lock("printer/s").ticket(&first).expect(200));
    }

    fn a_lease_gets_its_full_ttl_again(store) {
        let mut app = Server::start(store);
        app.create("printer", 2).expect(201);
        // On a machine that stalls, the lease may be over before the server stops.
        for _ in 0..5 {
            let (ticket, _) = app.hold("printer/s");
            app.stop();
            let stopped = Instant::now();
            app.start_again(&[]);
            let granted = app.lock("printer/s").query("wait=60").expect(200);
            check_granted(&granted);
            app.unlock("printer/s", &ticket).refused(403, "lease_expired");
            if stopped.elapsed() >= Duration::from_secs(2) {
                return;
            }
            app.unlock("printer/s", &granted.ticket()).expect(200);
        }
        panic!("the lease ended early every time");
    }

    fn a_lease_of_its_own_ttl_and_one_that_never_ends_stay_so(store) {
        let mut app = Server::start(store);
        app.create("printer", 7).expect(201);
        app.create("scanner", 7).expect(201);
        let own = app.lock("printer/s").body(r#"{"ttl":4000}"#).expect(200);
        let endless = app.lock("scanner/s").body(r#"{"ttl":0}"#).expect(200);
        app.restart_with(&[]);
        let renewed = app.renew("printer/s", &own.ticket()).expect(200).json();
        assert_eq!(renewed["ttl"], 4000);
        let renewed = app.renew("scanner/s", &endless.ticket()).expect(200).json();
        assert_eq!((renewed["ttl"].as_u64(), renewed["expiresAt"].is_null()), (Some(0), true));
    }

    fn fencing_tokens_go_on_growing(store) {
        let mut app = Server::start(store);
        app.create("printer", 0).expect(201);
        app.create("scanner", 0).expect(201);
        let mut highest = 0;
        for _ in 0..3 {
            for _ in 0..3 {
                let (ticket, token) = app.hold("printer/s");
                assert!(token > highest, "{token} after {highest}");
                highest = token;
                app.unlock("printer/s", &ticket).expect(200);
            }
            app.restart_with(&[]);
        }
        app.delete("printer").expect(204);
        app.restart_with(&[]);
        app.create("printer", 0).expect(201);
        let (_, token) = app.hold("printer/s");
        assert!(token > highest, "{token} after {highest}");
    }

    fn reasons_of_ended_tickets_are_remembered(store) {
        let mut app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (released, _) = app.hold("printer/s");
        app.unlock("printer/s", &released).expect(200);
        let (forced, _) = app.hold("printer/s");
        app.force_unlock("printer").expect(200);
        let expired = app.lock("printer/s").body(r#"{"ttl":1}"#).expect(200).ticket();
        until("the lease expires", || !app.is_locked("printer"));
        app.restart_with(&[]);
        app.renew("printer/s", &released).refused(403, "ticket_released");
        app.renew("printer/s", &forced).refused(403, "lease_forced_off");
        app.renew("printer/s", &expired).refused(403, "lease_expired");
        app.unlock("printer/s", &released).expect(200);
    }

    fn idempotency_keys_are_remembered(store) {
        let mut app = Server::start(store);
        app.create("printer", 0).expect(201);
        let lock = |app: &Server, key: &str, body: &str| app.lock("printer/s").idempotency_key(key).body(body);
        let body = r#"{"owner":"a","ttl":3000}"#;
        let holder = lock(&app, "h", body).expect(200).ticket();
        let waiter = lock(&app, "w", body).expect(200).ticket();
        app.restart_with(&[]);
        assert_eq!(lock(&app, "h", body).expect(200).ticket(), holder);
        assert_eq!(lock(&app, "w", body).expect(200).ticket(), waiter);
        lock(&app, "h", "{}").refused(409, "idempotency_key_reused");
        lock(&app, "w", r#"{"owner":"b","ttl":3000}"#).refused(409, "idempotency_key_reused");
        assert_eq!(app.waiting("printer"), 1);
    }

    fn a_deleted_resource_stays_deleted(store) {
        let mut app = Server::start(store);
        app.prepare("printer");
        app.prepare("scanner");
        app.delete("scanner/s").expect(204);
        let (ticket, _) = app.hold("printer/s");
        app.queue("printer/s");
        app.delete("printer").ticket(&ticket).expect(204);
        app.restart_with(&[]);
        assert_eq!(app.names(), ["scanner"]);
        app.read("scanner/s").refused(404, "selector_unknown");
        app.create("printer", 0).expect(201);
        assert_eq!(app.waiting("printer"), 0);
        app.read("printer/s").refused(404, "selector_unknown");
        app.unlock("printer/s", &ticket).refused(403, "ticket_unknown");
    }

    fn data_does_not_depend_on_the_cache(store) {
        let tiny: &[(&str, &str)] = &[("DATA_CACHE_BYTES", "0")];
        let mut app = Server::start_with(store, tiny);
        app.create("printer", 0).expect(201);
        for number in 0..20 {
            app.put(&format!("printer/{number}"), &format!("\"{}\"", "x".repeat(1000 + number))).expect(204);
        }
        let check = |app: &Server| {
            for number in (0..20).rev() {
                assert_eq!(app.data(&format!("printer/{number}")).len(), 1002 + number);
            }
        };
        check(&app);
        app.restart_with(tiny);
        check(&app);
        let (ticket, _) = app.hold("printer/s");
        let mut reader = app.get("printer/3").query("wait=60").open();
        until("it waits", || app.waiting("printer") == 1);
        app.put("printer/3?unlock=1", "\"new\"").ticket(&ticket).expect(204);
        assert_eq!(reader.answer().json()["data"], "\"new\"");
    }

    fn a_change_of_the_profile_takes_effect_at_the_next_start(store) {
        let mut app = Server::start(store);
        app.create("printer", 1).expect(201);
        app.restart_with(&[("COMPATIBILITY", "php")]);
        let locked = app.get("printer/s").expect(202);
        assert!(locked.token() > 0);
        app.put("printer/s", "1").ticket(&locked.ticket()).expect(204);
        assert!(!app.is_locked("printer"));
        app.restart_with(&[]);
        let (ticket, _) = app.hold("printer/s");
        app.put("printer/s", "2").ticket(&ticket).expect(204);
        assert!(app.is_locked("printer"));
    }

    fn what_was_answered_outlives_a_kill(store) {
        // An instance that was killed is waited for this long.
        let given: &[(&str, &str)] = &[("INSTANCE_LEASE_SECONDS", "3")];
        let mut app = Server::start(store);
        let mut program = app.restart_as_program(given);
        app.create("printer", 0).expect(201);
        let (holder, token) = app.hold("printer/s");
        let queue: Vec<String> = (0..3).map(|_| app.queue("printer/s")).collect();
        let text = " [\"é\", 1e999]";
        app.put("printer/s", text).ticket(&holder).expect(204);
        program.kill();

        let mut program = app.restart_as_program(given);
        assert_eq!(app.data("printer/s"), text);
        app.lock("printer/s").query("queue=0").refused(409, "locked");
        let kept = app.lock("printer/s").ticket(&holder).expect(200);
        assert_eq!(kept.token(), token);
        for (index, ticket) in queue.iter().enumerate() {
            let place = app.lock("printer/s").ticket(ticket).expect(200);
            assert_eq!(place.json()["position"], index + 1);
            assert_eq!(place.ticket(), *ticket);
        }
        app.unlock("printer/s", &holder).expect(200);
        let granted = app.lock("printer/s").ticket(&queue[0]).expect(200);
        assert!(granted.token() > token);
        program.kill();

        app.restart_with(given);
        app.unlock("printer/s", &holder).expect(200);
        let kept = app.lock("printer/s").ticket(&queue[0]).expect(200);
        assert_eq!((kept.ticket(), kept.token()), (granted.ticket(), granted.token()));
        assert_eq!(app.waiting("printer"), 2);
    }
}
