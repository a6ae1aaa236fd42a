//! The table of `COMPATIBILITY=default|php`: each row in the `php` profile. What the other files show is
//! the `default` profile; where both agree is shown there.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::stores::check_granted;
use crate::support::{STRANGE_TICKET, Server, until};

const PHP: (&str, &str) = ("COMPATIBILITY", "php");

fn start(store: crate::support::Store) -> Server {
    Server::start_with(store, &[PHP])
}

api_tests! {
    fn timeout_is_how_long_lock_get_and_put_wait(store) {
        let app = start(store);
        app.create("printer", 1).expect(201);
        app.put("printer/s", "1").expect(204);
        app.hold("printer/s");
        for (call, status) in [(app.lock("printer/s"), 200), (app.get("printer/s"), 202), (app.put("printer/s", "9"), 409)] {
            let start = Instant::now();
            call.expect(status);
            assert!(start.elapsed() >= Duration::from_secs(1));
        }
        assert_eq!(app.data("printer/s"), "1");
    }

    fn a_wait_in_the_query_goes_before_the_timeout(store) {
        let app = start(store);
        app.create("printer", 2147483647).expect(201);
        app.put("printer/s", "1").expect(204);
        app.hold("printer/s");
        assert_eq!(app.lock("printer/s").query("wait=0").expect(200).json()["locked"], false);
        app.get("printer/s").query("wait=0.1").expect(202);
        app.lock("printer/s").query("queue=0").refused(409, "locked");
    }

    fn timeout_0_waits_without_limit(store) {
        let app = Server::start_with(store, &[PHP, ("MAX_WAIT_SECONDS", "0.2")]);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let mut waiter = app.lock("printer/s").open();
        until("it waits", || app.waiting("printer") == 1);
        // Longer than any `wait=` may be on this server.
        std::thread::sleep(Duration::from_millis(600));
        assert!(waiter.is_silent());
        app.unlock("printer/s", &holder).expect(200);
        check_granted(&waiter.answer());
    }

    fn leases_do_not_expire_unless_a_ttl_was_given(store) {
        let app = start(store);
        app.create("printer", 1).expect(201);
        let granted = app.lock("printer/s").expect(200);
        assert!(granted.json()["expiresAt"].is_null(), "{granted:?}");
        assert_eq!(granted.json()["ttl"], 0);
        // This one waits for longer than the timeout, in vain.
        assert_eq!(app.lock("printer/s").query("wait=1.5").expect(200).json()["locked"], false);
        app.unlock("printer/s", &granted.ticket()).expect(200);
        let queued = app.described("printer")["waiting"].as_u64();
        assert_eq!(queued, Some(1));
    }

    fn a_ttl_of_its_own_ends_a_lease_here_too(store) {
        let app = start(store);
        app.create("printer", 2147483647).expect(201);
        let granted = app.lock("printer/s").body(r#"{"ttl":1}"#).expect(200);
        assert!(granted.json()["expiresAt"].is_string());
        let mut waiter = app.lock("printer/s").open();
        check_granted(&waiter.answer());
        app.put("printer/s", "9").ticket(&granted.ticket()).refused(403, "lease_expired");
    }

    fn a_write_releases_the_lock(store) {
        let app = start(store);
        app.create("printer", 1).expect(201);
        let (ticket, token) = app.hold("printer/s");
        let mut waiter = app.lock("printer/s").query("wait=60").open();
        until("it waits", || app.waiting("printer") == 1);
        let written = app.put("printer/s", "2").ticket(&ticket).expect(204);
        assert_eq!(written.token(), token);
        check_granted(&waiter.answer());
        assert_eq!(app.data("printer/s"), "2");
    }

    fn a_write_with_a_reserved_ticket_releases_too(store) {
        let app = start(store);
        app.create("printer", 1).expect(201);
        let (holder, _) = app.hold("printer/s");
        let waiter = app.lock("printer/s").query("wait=0").expect(200).ticket();
        app.unlock("printer/s", &holder).expect(200);
        app.put("printer/s", "2").ticket(&waiter).expect(204);
        assert!(!app.is_locked("printer"));
        assert_eq!(app.data("printer/s"), "2");
    }

    fn a_selector_never_written_is_202_and_locked(store) {
        let app = start(store);
        app.create("printer", 1).expect(201);
        let answer = app.get("printer/s").expect(202);
        assert_eq!(answer.json(), json!({"unavailable": true}));
        assert!(answer.token() > 0);
        assert!(app.is_locked("printer"));
        let again = app.get("printer/s").ticket(&answer.ticket()).expect(202);
        assert_eq!((again.ticket(), again.token()), (answer.ticket(), answer.token()));
        app.put("printer/s", "1").ticket(&answer.ticket()).expect(204);
        assert_eq!(app.data("printer/s"), "1");
        app.read("printer/other").refused(404, "selector_unknown");
        app.get("nothing/s").refused(404, "resource_unknown");
    }

    fn a_selector_never_written_is_waited_for_like_any_other(store) {
        let app = start(store);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let mut waiter = app.get("printer/s").open();
        until("it waits", || app.waiting("printer") == 1);
        app.put("printer/s", "\"first\"").ticket(&holder).expect(204);
        let answer = waiter.answer();
        assert_eq!((answer.status, answer.json()["data"].as_str()), (200, Some("\"first\"")));
    }

    fn unlock_with_a_dead_ticket_is_200_with_the_reason_in_code(store) {
        let app = start(store);
        app.create("printer", 1).expect(201);
        let (released, _) = app.hold("printer/s");
        assert_eq!(app.unlock("printer/s", &released).expect(200).json(), json!({"unlocked": true}));
        let (forced, _) = app.hold("printer/s");
        app.force_unlock("printer").expect(200);
        let expired = app.lock("printer/s").body(r#"{"ttl":1}"#).expect(200).ticket();
        until("the lease expires", || !app.is_locked("printer"));
        app.hold("printer/s");
        for (dead, code) in [
            (released.as_str(), "ticket_released"), (&forced, "lease_forced_off"), (&expired, "lease_expired"),
            (STRANGE_TICKET, "ticket_unknown"), ("nonsense", "ticket_unknown"),
        ] {
            let answer = app.unlock("printer/s", dead).expect(200);
            assert_eq!(answer.json(), json!({"unlocked": true, "code": code}));
        }
        assert!(app.is_locked("printer"));
        app.call("PUT", "/resource/printer/s/unlock").refused(400, "ticket_missing");
        app.renew("printer/s", &released).refused(403, "ticket_released");
    }

    fn put_with_a_released_or_unknown_ticket_is_as_without_one(store) {
        let app = start(store);
        app.create("printer", 1).expect(201);
        let (released, _) = app.hold("printer/s");
        app.unlock("printer/s", &released).expect(200);
        for (number, ticket) in [released.as_str(), STRANGE_TICKET, "nonsense"].iter().enumerate() {
            app.put("printer/s", &number.to_string()).ticket(ticket).expect(204);
            assert_eq!(app.data("printer/s"), number.to_string());
            assert!(!app.is_locked("printer"));
        }
        app.hold("printer/s");
        app.put("printer/s", "9").ticket(&released).refused(409, "locked");
        assert_eq!(app.data("printer/s"), "2");
    }

    fn put_with_an_expired_or_forced_off_ticket_is_403(store) {
        let app = start(store);
        app.create("printer", 1).expect(201);
        let (forced, _) = app.hold("printer/s");
        app.force_unlock("printer").expect(200);
        let expired = app.lock("printer/s").body(r#"{"ttl":1}"#).expect(200).ticket();
        until("the lease expires", || !app.is_locked("printer"));
        app.put("printer/s", "9").ticket(&forced).refused(403, "lease_forced_off");
        app.put("printer/s", "9").ticket(&expired).refused(403, "lease_expired");
        app.read("printer/s").refused(404, "selector_unknown");
    }

    fn put_without_a_ticket_waits_its_turn_and_leaves_no_lock(store) {
        let app = start(store);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let mut writer = app.put("printer/s", "\"late\"").open();
        until("it waits", || app.waiting("printer") == 1);
        assert!(writer.is_silent());
        app.unlock("printer/s", &holder).expect(200);
        let written = writer.answer();
        assert_eq!((written.status, written.header("X-Ticket")), (204, None));
        assert!(!app.is_locked("printer"));
        assert_eq!(app.data("printer/s"), "\"late\"");
    }

    fn put_that_waited_in_vain_leaves_nothing_in_the_queue(store) {
        let app = start(store);
        app.create("printer", 1).expect(201);
        let (holder, _) = app.hold("printer/s");
        app.put("printer/s", "9").refused(409, "locked");
        assert_eq!(app.waiting("printer"), 0);
        let writer = app.put("printer/s", "9").open();
        until("it waits", || app.waiting("printer") == 1);
        writer.hang_up();
        until("it left", || app.waiting("printer") == 0);
        app.unlock("printer/s", &holder).expect(200);
        app.read("printer/s").refused(404, "selector_unknown");
    }

    fn put_with_a_waiting_ticket_waits_and_writes_in_its_turn(store) {
        let app = start(store);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let waiter = app.lock("printer/s").query("wait=0").expect(200).ticket();
        let mut writer = app.put("printer/s", "3").ticket(&waiter).open();
        let mut other = app.connect();
        other.write(&app.lock("printer/s").bytes());
        until("both wait", || app.waiting("printer") == 2);
        app.unlock("printer/s", &holder).expect(200);
        assert_eq!(writer.answer().status, 204);
        assert_eq!(app.data("printer/s"), "3");
        check_granted(&other.answer());
    }

    /// A bundle call that gives up closes its connection without ever having seen a ticket.
    fn a_caller_that_gave_up_leaves_nothing_behind(store) {
        let app = start(store);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        for call in [app.lock("printer/s"), app.get("printer/s"), app.put("printer/s", "1")] {
            let waiter = call.open();
            until("it waits", || app.waiting("printer") == 1);
            waiter.hang_up();
            until("its place is gone", || app.waiting("printer") == 0);
        }
        let mut holder = holder;
        for _ in 0..6 {
            let waiter = app.lock("printer/s").open();
            until("it waits", || app.waiting("printer") == 1);
            waiter.hang_up();
            app.unlock("printer/s", &holder).expect(200);
            until("a lock granted meanwhile is gone", || {
                !app.is_locked("printer") && app.waiting("printer") == 0
            });
            (holder, _) = app.hold("printer/s");
        }
    }

    fn a_write_that_is_refused_for_its_condition_releases_nothing(store) {
        let app = start(store);
        app.create("printer", 0).expect(201);
        app.put("printer/s", "1").expect(204);
        let (ticket, _) = app.hold("printer/s");
        for (header, value) in [("If-Match", "\"other\""), ("If-None-Match", "*")] {
            let write = app.put("printer/s", "2").ticket(&ticket).header(header, value);
            write.refused(412, "precondition_failed");
            assert!(app.is_locked("printer"), "{header}");
        }
        assert_eq!(app.data("printer/s"), "1");
        app.put("printer/s", "2").ticket(&ticket).header("If-Match", "*").expect(204);
        assert!(!app.is_locked("printer"));
    }

    fn a_write_that_is_refused_at_once_leaves_the_lock_reserved_for_its_ticket(store) {
        let app = start(store);
        app.create("printer", 60).expect(201);
        app.put("printer/s", "1").expect(204);
        let (holder, _) = app.hold("printer/s");
        let next = app.lock("printer/s").query("wait=0").expect(200).ticket();
        app.unlock("printer/s", &holder).expect(200);
        let write = app.put("printer/s", "2").ticket(&next);
        write.clone().header("If-None-Match", "*").refused(412, "precondition_failed");
        let described = app.described("printer");
        assert!(described["holder"].is_null() && described["locked"] == true, "{described}");
        write.header("If-Match", "*").expect(204);
        assert!(!app.is_locked("printer"));
    }

    fn the_condition_of_a_write_that_waits_is_judged_when_it_has_the_lock(store) {
        let app = start(store);
        app.create("printer", 60).expect(201);
        let tag_of = |data: &str| {
            let written = app.put("printer/s", data).expect(204);
            written.header("Etag").unwrap().to_owned()
        };
        let (one, two) = (tag_of("1"), tag_of("2"));
        for (tag, status) in [(one, 412), (two, 204)] {
            app.put("printer/s", "1").expect(204);
            let (holder, _) = app.hold("printer/s");
            let waiting = app.lock("printer/s").query("wait=0").expect(200).ticket();
            let seen = || app.described("printer")["queue"][0]["lastSeenAt"].clone();
            let before = seen();
            std::thread::sleep(Duration::from_millis(20));
            let mut writer = app.put("printer/s", "3").ticket(&waiting).header("If-Match", &tag).open();
            until("it waits", || seen() != before);
            app.put("printer/s", "2").ticket(&holder).expect(204);
            let answer = writer.answer();
            assert_eq!(answer.status, status, "{answer:?}");
            assert!(answer.token() > 0);
            assert_eq!(app.is_locked("printer"), status == 412, "released when written");
            app.unlock("printer/s", &waiting).expect(200);
        }
        assert_eq!(app.data("printer/s"), "3");
    }

    fn a_read_key_locks_nothing_here_either(store) {
        let app = start(store);
        app.create("printer", 1).expect(201);
        app.get("printer/s").key(crate::support::READ).refused(401, "key_insufficient");
        app.lock("printer/s").key(crate::support::READ).refused(401, "key_insufficient");
        assert!(!app.is_locked("printer"));
    }
}
