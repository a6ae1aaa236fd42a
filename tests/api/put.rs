//! PUT `/resource/{name}/{selector}`, row by row.

use crate::stores::CLEARLY;
use crate::support::{STRANGE_TICKET, Server, until};

api_tests! {
    fn the_holder_writes_and_keeps_its_lock(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (ticket, token) = app.hold("printer/s");
        let answer = app.put("printer/s", "2").ticket(&ticket).expect(204);
        assert_eq!(answer.token(), token);
        assert_eq!(answer.header("X-Ticket"), None);
        assert!(answer.body.is_empty());
        assert!(app.is_locked("printer"));
        assert_eq!(app.data("printer/s"), "2");
        app.put("printer/other", "3").ticket(&ticket).expect(204);
        assert_eq!(app.data("printer/other"), "3");
    }

    fn unlock_1_writes_and_releases_in_one_step(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (ticket, _) = app.hold("printer/s");
        app.put("printer/s?unlock=1", "2").ticket(&ticket).expect(204);
        assert!(!app.is_locked("printer"));
        assert_eq!(app.data("printer/s"), "2");
        // A retry learns that it had happened.
        app.put("printer/s?unlock=1", "2").ticket(&ticket).refused(403, "ticket_released");
        app.put("printer/s?unlock=perhaps", "2").refused(400, "malformed");
    }

    fn unlock_1_without_a_ticket_on_a_free_lock_is_a_plain_write(store) {
        let app = Server::start(store);
        app.prepare("printer");
        app.put("printer/s?unlock=1", "2").expect(204);
        assert_eq!(app.data("printer/s"), "2");
        assert!(!app.is_locked("printer"));
    }

    fn the_ticket_that_the_lock_is_reserved_for_writes_and_holds(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (holder, token) = app.hold("printer/s");
        let waiter = app.queue("printer/s");
        app.unlock("printer/s", &holder).expect(200);
        app.put("printer/s", "9").refused(409, "locked");
        let answer = app.put("printer/s", "2").ticket(&waiter).expect(204);
        assert!(answer.token() > token);
        assert!(app.is_locked("printer"));
        let kept = app.lock("printer/s").ticket(&waiter).expect(200);
        assert_eq!(kept.token(), answer.token());
        assert_eq!(app.data("printer/s"), "2");
    }

    fn the_ticket_that_the_lock_is_reserved_for_may_write_and_release(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (holder, _) = app.hold("printer/s");
        let waiter = app.queue("printer/s");
        app.unlock("printer/s", &holder).expect(200);
        app.put("printer/s?unlock=1", "2").ticket(&waiter).expect(204);
        assert!(!app.is_locked("printer"));
        app.unlock("printer/s", &waiter).expect(200);
    }

    fn while_someone_else_holds_it_is_409_with_the_holder_and_never_a_ticket(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let granted = app.lock("printer/s").body(r#"{"owner":"first"}"#).expect(200);
        let waiter = app.queue("printer/s");
        for call in [app.put("printer/s", "9"), app.put("printer/s", "9").ticket(&waiter), app.put("printer/new", "9")] {
            let refused = call.refused(409, "locked");
            assert_eq!(refused.json()["holder"]["owner"], "first");
            assert_eq!(refused.json()["holder"]["fencingToken"], granted.token());
            assert_eq!(refused.header("X-Ticket"), None);
        }
        assert_eq!(app.data("printer/s"), r#"{"v":1}"#);
        app.read("printer/new").refused(404, "selector_unknown");
        assert_eq!(app.waiting("printer"), 1);
    }

    fn while_it_is_reserved_for_someone_else_it_is_409_without_a_holder(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (holder, _) = app.hold("printer/s");
        app.queue("printer/s");
        let third = app.queue("printer/s");
        app.unlock("printer/s", &holder).expect(200);
        for call in [app.put("printer/s", "9"), app.put("printer/s", "9").ticket(&third)] {
            let refused = call.refused(409, "locked");
            assert!(refused.json()["holder"].is_null(), "{refused:?}");
        }
        assert_eq!(app.data("printer/s"), r#"{"v":1}"#);
    }

    fn without_a_ticket_a_free_lock_stays_free(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let answer = app.put("printer/s", "2").expect(204);
        assert_eq!(answer.header("X-Fencing-Token"), None);
        assert!(!app.is_locked("printer"));
        assert_eq!(app.data("printer/s"), "2");
    }

    fn a_dead_or_unknown_ticket_must_not_write(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        app.put("printer/s", "1").expect(204);
        let (released, _) = app.hold("printer/s");
        app.unlock("printer/s", &released).expect(200);
        let (forced, _) = app.hold("printer/s");
        app.force_unlock("printer").expect(200);
        let expired = app.lock("printer/s").body(r#"{"ttl":1}"#).expect(200).ticket();
        until("the lease expires", || !app.is_locked("printer"));
        let dead = [
            (released.as_str(), "ticket_released"), (forced.as_str(), "lease_forced_off"),
            (expired.as_str(), "lease_expired"), (STRANGE_TICKET, "ticket_unknown"), ("nonsense", "ticket_unknown"),
        ];
        for (ticket, code) in dead {
            app.put("printer/s", "9").ticket(ticket).refused(403, code);
        }
        let (holder, _) = app.hold("printer/s");
        for (ticket, code) in dead {
            app.put("printer/s", "9").ticket(ticket).refused(403, code);
        }
        assert_eq!(app.data("printer/s"), "1");
        app.put("printer/s", "2").ticket(&holder).expect(204);
    }

    fn an_empty_body_stores_an_empty_object(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        app.put("printer/a", "").expect(204);
        assert_eq!(app.data("printer/a"), "{}");
        app.call("PUT", "/resource/printer/b").expect(204);
        assert_eq!(app.data("printer/b"), "{}");
    }

    fn what_is_not_json_is_400_and_not_stored(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let bodies: [&[u8]; 12] = [
            b"{", b"nul", b"[1,]", b"'a'", b"{\"a\":1}x", b"{a:1}", b"\xef\xbb\xbf1", b"\"\xff\"", b"\"\x01\"", b" ",
            b"NaN", b"01",
        ];
        for body in bodies {
            let text = String::from_utf8_lossy(body).into_owned();
            let mut call = app.put("printer/s", "");
            call = call.body(body);
            let answer = call.send();
            assert_eq!((answer.status, answer.code().as_str()), (400, "malformed"), "{text}");
        }
        assert_eq!(app.data("printer/s"), r#"{"v":1}"#);
    }

    fn any_or_no_content_type_is_accepted(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        for kind in ["application/json", "text/plain", "application/x-www-form-urlencoded", "nonsense"] {
            app.put("printer/s", &format!("{kind:?}")).header("Content-Type", kind).expect(204);
            assert_eq!(app.data("printer/s"), format!("{kind:?}"));
        }
    }

    fn an_unknown_resource_is_404(store) {
        let app = Server::start(store);
        app.put("printer/s", "1").refused(404, "resource_unknown");
        app.put("printer/s", "1").ticket(STRANGE_TICKET).refused(404, "resource_unknown");
        assert!(app.names().is_empty());
    }

    fn a_resource_has_as_many_selectors_as_it_may_have(store) {
        let app = Server::start_with(store, &[("MAX_SELECTORS", "2")]);
        app.create("printer", 0).expect(201);
        app.put("printer/a", "1").expect(204);
        app.put("printer/b", "1").expect(204);
        app.put("printer/c", "1").refused(409, "too_many_selectors");
        app.put("printer/a", "2").expect(204);
        app.delete("printer/b").expect(204);
        app.put("printer/c", "3").expect(204);
        assert_eq!(app.data("printer/c"), "3");
    }

    fn the_ticket_and_the_lock_are_looked_at_before_the_room(store) {
        let app = Server::start_with(store, &[("MAX_SELECTORS", "1")]);
        app.prepare("printer");
        let (released, _) = app.hold("printer/s");
        app.unlock("printer/s", &released).expect(200);
        app.put("printer/new", "1").ticket(&released).refused(403, "ticket_released");
        let (ticket, token) = app.hold("printer/s");
        app.put("printer/new", "1").refused(409, "locked");
        let write = app.put("printer/new", "1").ticket(&ticket).query("unlock=1");
        let refused = write.refused(409, "too_many_selectors");
        assert_eq!(refused.token(), token);
        assert_eq!(refused.json()["error"], "The resource has the maximum number of selectors, 1.");
        assert!(app.is_locked("printer"), "a refused write releases nothing");
    }

    fn a_write_for_which_there_is_no_room_renews_the_lease(store) {
        let app = Server::start_with(store, &[("MAX_SELECTORS", "1")]);
        app.create("printer", 60).expect(201);
        app.put("printer/s", "1").expect(204);
        let (ticket, _) = app.hold("printer/s");
        let before = app.expires_at("printer");
        until("the lease is renewed", || {
            app.put("printer/t", "1").ticket(&ticket).refused(409, "too_many_selectors");
            app.expires_at("printer") > before + CLEARLY
        });
    }

    fn a_write_renews_the_lease(store) {
        let app = Server::start(store);
        app.create("printer", 60).expect(201);
        let (ticket, _) = app.hold("printer/s");
        let before = app.expires_at("printer");
        until("the lease is renewed", || {
            app.put("printer/s", "1").ticket(&ticket).expect(204);
            app.expires_at("printer") > before + CLEARLY
        });
    }
}
