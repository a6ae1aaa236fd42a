//! GET `/resource/{name}/{selector}`, row by row.

use serde_json::json;

use crate::stores::CLEARLY;
use crate::support::{LOCK, READ, STRANGE_TICKET, Server, until};

api_tests! {
    fn lock_0_reads_the_data_and_touches_no_lock(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let answer = app.read("printer/s").expect(200);
        assert_eq!(answer.header("X-Ticket"), None);
        assert_eq!(answer.header("X-Fencing-Token"), None);
        assert!(!app.is_locked("printer"));
        let (ticket, _) = app.hold("printer/s");
        assert_eq!(app.read("printer/s").expect(200).header("X-Ticket"), None);
        assert_eq!(app.waiting("printer"), 0);
        app.unlock("printer/s", &ticket).expect(200);
    }

    fn lock_0_names_the_ticket_only_when_a_live_one_is_presented(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (holder, token) = app.hold("printer/s");
        let waiter = app.queue("printer/s");
        let answer = app.read("printer/s").ticket(&holder).expect(200);
        assert_eq!((answer.ticket(), answer.token()), (holder.clone(), token));
        let answer = app.read("printer/s").ticket(&waiter).expect(200);
        assert_eq!(answer.ticket(), waiter);
        assert_eq!(answer.header("X-Fencing-Token"), None);
        app.unlock("printer/s", &holder).expect(200);
        for dead in [holder.as_str(), STRANGE_TICKET, "nonsense", ""] {
            let answer = app.read("printer/s").ticket(dead).expect(200);
            assert_eq!(answer.header("X-Ticket"), None, "{dead}");
        }
    }

    fn a_holder_that_asks_again_has_waited_for_nothing(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (ticket, _) = app.hold("printer/s");
        for again in [app.get("printer/s"), app.lock("printer/s")] {
            let answer = again.ticket(&ticket).send();
            assert_eq!(answer.header("X-Waited-Ms"), Some("0"), "{}", answer.status);
        }
    }

    fn lock_1_is_the_default_and_takes_the_lock(store) {
        let app = Server::start(store);
        app.prepare("printer");
        for flag in ["", "?lock=1", "?lock=true"] {
            let answer = app.get(&format!("printer/s{flag}")).expect(200);
            let ticket = answer.ticket();
            assert!(answer.token() > 0);
            assert!(app.is_locked("printer"), "{flag}");
            app.unlock("printer/s", &ticket).expect(200);
        }
        for flag in ["lock=0", "lock=false"] {
            app.get("printer/s").query(flag).expect(200);
            assert!(!app.is_locked("printer"), "{flag}");
        }
    }

    fn the_holder_keeps_its_lock_under_the_same_ticket_and_token(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let first = app.get("printer/s").expect(200);
        let again = app.get("printer/s").ticket(&first.ticket()).expect(200);
        assert_eq!(again.ticket(), first.ticket());
        assert_eq!(again.token(), first.token());
        assert_eq!(again.json(), first.json());
    }

    fn while_someone_else_holds_it_is_202_with_a_place_in_the_queue(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (holder, _) = app.hold("printer/s");
        let first = app.get("printer/s").expect(202);
        assert_eq!(first.json(), json!({"unavailable": true, "position": 1}));
        assert_eq!(first.header("Retry-After"), Some("1"));
        assert_eq!(first.header("X-Fencing-Token"), None);
        let second = app.get("printer/s").expect(202);
        assert_eq!(second.json()["position"], 2);
        assert_ne!(first.ticket(), second.ticket());
        let again = app.get("printer/s").ticket(&first.ticket()).expect(202);
        assert_eq!(again.ticket(), first.ticket());
        assert_eq!(again.json()["position"], 1);
        app.unlock("printer/s", &holder).expect(200);
        let granted = app.get("printer/s").ticket(&first.ticket()).expect(200);
        assert_eq!(granted.ticket(), first.ticket());
    }

    fn an_unknown_resource_is_404_with_either_intent(store) {
        let app = Server::start(store);
        app.get("printer/s").refused(404, "resource_unknown");
        app.read("printer/s").refused(404, "resource_unknown");
        assert!(app.names().is_empty());
    }

    fn a_selector_never_written_is_404_and_takes_neither_lock_nor_place(store) {
        let app = Server::start(store);
        app.prepare("printer");
        app.read("printer/other").refused(404, "selector_unknown");
        app.get("printer/other").refused(404, "selector_unknown");
        app.get("printer/other").query("wait=30").refused(404, "selector_unknown");
        assert!(!app.is_locked("printer"));
        let (_, _) = app.hold("printer/s");
        app.get("printer/other").refused(404, "selector_unknown");
        app.get("printer/other").query("wait=30").refused(404, "selector_unknown");
        app.get("printer/other").ticket(STRANGE_TICKET).refused(404, "selector_unknown");
        assert_eq!(app.waiting("printer"), 0);
    }

    /// Lock, GET, PUT, unlock: how a selector is initialised without a race.
    fn a_live_ticket_presented_at_a_404_is_kept_and_renewed(store) {
        let app = Server::start(store);
        app.create("printer", 60).expect(201);
        let (ticket, token) = app.hold("printer/s");
        let before = app.expires_at("printer");
        until("the lease is renewed", || {
            app.get("printer/s").ticket(&ticket).refused(404, "selector_unknown");
            app.expires_at("printer") > before + CLEARLY
        });
        let written = app.put("printer/s", "1").ticket(&ticket).expect(204);
        assert_eq!(written.token(), token);
        app.unlock("printer/s", &ticket).expect(200);
        assert_eq!(app.data("printer/s"), "1");
    }

    fn a_waiting_ticket_presented_at_a_404_keeps_its_place(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let waiter = app.queue("printer/s");
        app.get("printer/s").ticket(&waiter).refused(404, "selector_unknown");
        assert_eq!(app.waiting("printer"), 1);
        app.unlock("printer/s", &holder).expect(200);
        let granted = app.lock("printer/s").ticket(&waiter).expect(200);
        assert_eq!(granted.json()["locked"], true);
    }

    fn the_right_to_lock_is_needed_for_lock_1_only(store) {
        let app = Server::start(store);
        app.prepare("printer");
        app.read("printer/s").key(READ).expect(200);
        app.get("printer/s").key(READ).refused(401, "key_insufficient");
        app.get("printer/s").query("lock=1").key(READ).refused(401, "key_insufficient");
        assert!(!app.is_locked("printer"));
        app.get("printer/s").key(LOCK).expect(200);
    }

    fn another_lock_is_400(store) {
        let app = Server::start(store);
        app.prepare("printer");
        for flag in ["2", "yes", "TRUE", "", "-1", "01", "1.0", "%31%32"] {
            let answer = app.get(&format!("printer/s?lock={flag}")).send();
            assert_eq!((answer.status, answer.code().as_str()), (400, "malformed"), "{flag}");
        }
        app.get("printer/s").query("raw=maybe").refused(400, "malformed");
        assert!(!app.is_locked("printer"));
    }

    fn data_is_a_string_that_holds_the_text_byte_for_byte(store) {
        let app = Server::start(store);
        let id = app.create("printer", 0).expect(201).json()["id"].clone();
        let texts = [
            r#"{"n":1,"txt":"h\u00e9 \ud83d\ude00 \"q\" \\ \/","list":[1,2,{"k":null}],"f":1.50}"#,
            " [1 ,\t2]\r\n", "\"\"", "null", "0", "-0.0", "1e999", "123456789012345678901234567890",
            "{\"b\":1,\"a\":2,\"b\":3}", "\"日本 😀 é e\u{301}\"", "[]", "{}", "\"\\u0000\"",
            "\"\u{2028}\u{7f}\"",
        ];
        for text in texts {
            app.put("printer/s", text).expect(204);
            let answer = app.read("printer/s").expect(200);
            let body = answer.json();
            assert_eq!(body["data"], text);
            assert_eq!(body["selector"], "s");
            assert_eq!(body["idResource"], id);
            assert!(body["id"].as_str().is_some_and(|id| !id.is_empty()));
            assert_eq!(body.as_object().unwrap().len(), 4, "{answer:?}");
            let raw = app.read("printer/s").query("raw=1").expect(200);
            assert_eq!(raw.text(), text);
        }
    }

    fn raw_takes_the_lock_as_well(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let answer = app.get("printer/s").query("raw=1").expect(200);
        assert_eq!(answer.text(), r#"{"v":1}"#);
        assert_eq!(app.read("printer/s").ticket(&answer.ticket()).expect(200).token(), answer.token());
    }

    fn each_selector_has_its_own_data_under_one_lock(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        app.put("printer/a", "\"a\"").expect(204);
        app.put("printer/b", "\"b\"").expect(204);
        assert_eq!(app.data("printer/a"), "\"a\"");
        assert_eq!(app.data("printer/b"), "\"b\"");
        let holder = app.get("printer/a").expect(200).ticket();
        app.get("printer/b").expect(202);
        app.get("printer/b").ticket(&holder).expect(200);
    }

    fn the_answer_to_a_waiting_get_carries_what_the_holder_wrote(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (holder, token) = app.hold("printer/s");
        let mut waiter = app.get("printer/s").query("wait=60").open();
        until("the waiter queues", || app.waiting("printer") == 1);
        app.put("printer/s?unlock=1", "\"news\"").ticket(&holder).expect(204);
        let answer = waiter.answer();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["data"], "\"news\"");
        assert!(answer.token() > token);
    }
}
