//! DELETE `/resource/{name}/{selector}` and DELETE `/resource/{name}`.

use crate::stores::CLEARLY;
use crate::support::{STRANGE_TICKET, Server, until};

api_tests! {
    fn a_selector_is_gone_and_the_others_stay(store) {
        let app = Server::start(store);
        app.prepare("printer");
        app.put("printer/other", "2").expect(204);
        app.delete("printer/s").expect(204);
        app.read("printer/s").refused(404, "selector_unknown");
        assert_eq!(app.data("printer/other"), "2");
        assert_eq!(app.described("printer")["selectors"], 1);
        app.delete("printer/s").refused(404, "selector_unknown");
        app.put("printer/s", "3").expect(204);
        assert_eq!(app.data("printer/s"), "3");
    }

    fn a_selector_is_under_the_same_lock_rules_as_put(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (ticket, token) = app.hold("printer/s");
        let waiter = app.queue("printer/s");
        app.delete("printer/s").refused(409, "locked");
        app.delete("printer/s").ticket(&waiter).refused(409, "locked");
        app.delete("printer/s").ticket(STRANGE_TICKET).refused(403, "ticket_unknown");
        assert_eq!(app.data("printer/s"), r#"{"v":1}"#);
        let answer = app.delete("printer/s").ticket(&ticket).expect(204);
        assert_eq!(answer.token(), token);
        assert!(app.is_locked("printer"));
        app.unlock("printer/s", &ticket).expect(200);
    }

    fn a_selector_that_does_not_exist_is_404_and_renews_the_holder_s_lease(store) {
        let app = Server::start(store);
        app.create("printer", 60).expect(201);
        let (ticket, _) = app.hold("printer/s");
        let before = app.expires_at("printer");
        until("the lease is renewed", || {
            app.delete("printer/none").ticket(&ticket).refused(404, "selector_unknown");
            app.expires_at("printer") > before + CLEARLY
        });
        app.delete("printer/none").ticket(STRANGE_TICKET).refused(404, "selector_unknown");
    }

    fn a_name_is_gone_with_its_data_and_its_lock(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (ticket, _) = app.hold("printer/s");
        app.delete("printer").ticket(&ticket).expect(204);
        app.describe("printer").refused(404, "resource_unknown");
        app.read("printer/s").refused(404, "resource_unknown");
        app.delete("printer").refused(404, "resource_unknown");
        assert!(app.names().is_empty());
        app.create("printer", 0).expect(201);
        app.read("printer/s").refused(404, "selector_unknown");
        assert!(!app.is_locked("printer"));
        assert_eq!(app.described("printer")["selectors"], 0);
    }

    fn a_name_is_under_the_same_lock_rules_as_put(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (ticket, _) = app.hold("printer/s");
        let waiter = app.queue("printer/s");
        let refused = app.delete("printer").refused(409, "locked");
        assert!(refused.json()["holder"]["fencingToken"].is_u64());
        app.delete("printer").ticket(&waiter).refused(409, "locked");
        app.delete("printer").ticket(STRANGE_TICKET).refused(403, "ticket_unknown");
        app.unlock("printer/s", &ticket).expect(200);
        app.delete("printer").ticket(&ticket).refused(403, "ticket_released");
        app.delete("printer").refused(409, "locked");
        // Reserved for this one.
        app.delete("printer").ticket(&waiter).expect(204);
        assert!(app.names().is_empty());
    }

    fn a_free_name_is_deleted_without_a_ticket(store) {
        let app = Server::start(store);
        app.prepare("printer");
        app.delete("printer").expect(204);
        assert!(app.names().is_empty());
    }

    fn open_waiters_get_404(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (ticket, _) = app.hold("printer/s");
        let mut locking = app.wait("printer/s");
        let mut reading = app.get("printer/s").query("wait=60").open();
        until("both wait", || app.waiting("printer") == 2);
        app.delete("printer").ticket(&ticket).expect(204);
        for waiter in [&mut locking, &mut reading] {
            let answer = waiter.answer();
            assert_eq!((answer.status, answer.code().as_str()), (404, "resource_unknown"));
        }
    }

    fn a_get_that_waits_for_a_selector_gets_404_when_it_is_deleted(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (ticket, _) = app.hold("printer/s");
        let mut reading = app.get("printer/s").query("wait=60").open();
        until("it waits", || app.waiting("printer") == 1);
        app.delete("printer/s").ticket(&ticket).expect(204);
        let answer = reading.answer();
        assert_eq!((answer.status, answer.code().as_str()), (404, "selector_unknown"));
        until("its place is gone", || app.waiting("printer") == 0);
    }

    fn tickets_of_a_deleted_name_are_404_and_unknown_once_it_is_created_anew(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (released, _) = app.hold("printer/s");
        app.unlock("printer/s", &released).expect(200);
        let (holder, _) = app.hold("printer/s");
        let waiter = app.queue("printer/s");
        app.delete("printer").ticket(&holder).expect(204);
        for ticket in [&released, &holder, &waiter] {
            app.lock("printer/s").ticket(ticket).refused(404, "resource_unknown");
            app.unlock("printer/s", ticket).refused(404, "resource_unknown");
            app.renew("printer/s", ticket).refused(404, "resource_unknown");
            app.put("printer/s", "1").ticket(ticket).refused(404, "resource_unknown");
        }
        app.create("printer", 0).expect(201);
        for ticket in [&released, &holder, &waiter] {
            app.unlock("printer/s", ticket).refused(403, "ticket_unknown");
            app.renew("printer/s", ticket).refused(403, "ticket_unknown");
            app.put("printer/s", "1").ticket(ticket).refused(403, "ticket_unknown");
        }
    }

    fn a_created_resource_starts_above_every_token_of_deleted_ones(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let mut highest = 0;
        for _ in 0..4 {
            let (ticket, token) = app.hold("printer/s");
            assert!(token > highest);
            highest = token;
            app.unlock("printer/s", &ticket).expect(200);
        }
        for _ in 0..3 {
            app.delete("printer").expect(204);
            app.create("printer", 0).expect(201);
            let (ticket, token) = app.hold("printer/s");
            assert!(token > highest, "{token} after {highest}");
            highest = token;
            app.unlock("printer/s", &ticket).expect(200);
        }
        app.create("another", 0).expect(201);
        let (_, token) = app.hold("another/s");
        let deleted = highest - 1;
        assert!(token >= deleted, "{token} after {deleted}");
    }
}
