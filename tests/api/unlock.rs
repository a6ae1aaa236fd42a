//! POST or PUT `/resource/{name}/{selector}/unlock`.

use serde_json::json;

use crate::support::{STRANGE_TICKET, Server, until};

api_tests! {
    fn post_and_put_both_unlock(store) {
        let app = Server::start(store);
        app.prepare("printer");
        for method in ["POST", "PUT"] {
            let (ticket, _) = app.hold("printer/s");
            let answer = app.call(method, "/resource/printer/s/unlock").ticket(&ticket).expect(200);
            assert_eq!(answer.json(), json!({"unlocked": true}));
            assert_eq!(answer.header("X-Ticket"), None);
            assert!(!app.is_locked("printer"));
        }
    }

    fn any_selector_of_the_name_unlocks(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (ticket, _) = app.hold("printer/a");
        app.unlock("printer/never-written", &ticket).expect(200);
        assert!(!app.is_locked("printer"));
    }

    fn a_waiting_ticket_leaves_the_queue(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let first = app.queue("printer/s");
        let second = app.queue("printer/s");
        assert_eq!(app.unlock("printer/s", &first).expect(200).json(), json!({"unlocked": true}));
        assert_eq!(app.waiting("printer"), 1);
        assert_eq!(app.lock("printer/s").ticket(&second).expect(200).json()["position"], 1);
        app.unlock("printer/s", &first).expect(200);
        app.unlock("printer/s", &holder).expect(200);
        assert_eq!(app.lock("printer/s").ticket(&second).expect(200).json()["locked"], true);
    }

    fn the_ticket_that_the_lock_is_reserved_for_gives_it_up(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let first = app.queue("printer/s");
        let mut second = app.wait("printer/s");
        app.unlock("printer/s", &holder).expect(200);
        assert!(second.is_silent());
        app.unlock("printer/s", &first).expect(200);
        assert_eq!(second.answer().json()["locked"], true);
    }

    fn a_released_ticket_unlocks_again_and_frees_nobody_else_s_lock(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (ticket, _) = app.hold("printer/s");
        app.unlock("printer/s", &ticket).expect(200);
        assert_eq!(app.unlock("printer/s", &ticket).expect(200).json(), json!({"unlocked": true}));
        app.hold("printer/s");
        app.unlock("printer/s", &ticket).expect(200);
        assert!(app.is_locked("printer"));
    }

    fn other_dead_tickets_are_403_with_the_reason(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let expired = app.lock("printer/s").body(r#"{"ttl":1}"#).expect(200).ticket();
        until("the lease expires", || !app.is_locked("printer"));
        app.unlock("printer/s", &expired).refused(403, "lease_expired");
        let (forced, _) = app.hold("printer/s");
        app.force_unlock("printer").expect(200);
        app.unlock("printer/s", &forced).refused(403, "lease_forced_off");
        app.hold("printer/s");
        app.unlock("printer/s", STRANGE_TICKET).refused(403, "ticket_unknown");
        app.unlock("printer/s", "nonsense").refused(403, "ticket_unknown");
        assert!(app.is_locked("printer"));
    }

    fn no_ticket_is_400(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        app.hold("printer/s");
        app.call("POST", "/resource/printer/s/unlock").refused(400, "ticket_missing");
        app.unlock("printer/s", "").refused(400, "ticket_missing");
        assert!(app.is_locked("printer"));
    }

    fn an_unknown_resource_is_404(store) {
        let app = Server::start(store);
        app.unlock("printer/s", STRANGE_TICKET).refused(404, "resource_unknown");
        app.call("PUT", "/resource/printer/s/unlock").refused(404, "resource_unknown");
    }

    fn a_ticket_is_good_for_its_own_resource_only(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        app.create("scanner", 0).expect(201);
        let (ticket, _) = app.hold("printer/s");
        app.hold("scanner/s");
        app.unlock("scanner/s", &ticket).refused(403, "ticket_unknown");
        app.renew("scanner/s", &ticket).refused(403, "ticket_unknown");
        app.put("scanner/s", "1").ticket(&ticket).refused(403, "ticket_unknown");
        assert!(app.is_locked("scanner") && app.is_locked("printer"));
    }
}
