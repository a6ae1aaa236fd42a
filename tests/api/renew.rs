//! PUT or POST `/resource/{name}/{selector}/renew`.

use crate::stores::{CLEARLY, time};
use crate::support::{STRANGE_TICKET, Server, until};

api_tests! {
    fn put_and_post_both_renew(store) {
        let app = Server::start(store);
        app.create("printer", 300).expect(201);
        let (ticket, token) = app.hold("printer/s");
        for method in ["PUT", "POST"] {
            let answer = app.call(method, "/resource/printer/s/renew").ticket(&ticket).expect(200);
            let body = answer.json();
            assert_eq!(body["renewed"], true);
            assert_eq!(body["ttl"], 300);
            assert_eq!(body["fencingToken"], token);
            assert!(body["expiresAt"].is_string());
            assert!(body["expiresInMs"].is_number());
            assert_eq!(body.as_object().unwrap().len(), 5, "{answer:?}");
            assert_eq!(answer.token(), token);
        }
    }

    fn a_renewal_moves_the_expiry(store) {
        let app = Server::start(store);
        app.create("printer", 60).expect(201);
        let granted = app.lock("printer/s").expect(200);
        let first = time(&granted.json()["expiresAt"]);
        until("the expiry moves", || {
            let renewed = app.renew("printer/s", &granted.ticket()).expect(200).json();
            time(&renewed["expiresAt"]) > first + CLEARLY
        });
    }

    fn a_ttl_of_its_own_counts_from_then_on(store) {
        let app = Server::start(store);
        app.create("printer", 60).expect(201);
        let (ticket, _) = app.hold("printer/s");
        let answer = app.renew("printer/s", &ticket).body(r#"{"ttl":"500"}"#).expect(200);
        assert_eq!(answer.json()["ttl"], 500);
        assert_eq!(app.renew("printer/s", &ticket).expect(200).json()["ttl"], 500);
        assert_eq!(app.lock("printer/s").ticket(&ticket).expect(200).json()["ttl"], 500);
    }

    fn a_shorter_ttl_never_brings_the_expiry_forward(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let granted = app.lock("printer/s").body(r#"{"ttl":1000}"#).expect(200);
        let ticket = granted.ticket();
        let far = time(&granted.json()["expiresAt"]);
        let renewed = app.renew("printer/s", &ticket).body(r#"{"ttl":1,"exact":null}"#).expect(200).json();
        assert_eq!(renewed["ttl"], 1);
        assert!(time(&renewed["expiresAt"]) + CLEARLY > far, "{renewed}");
        let endless = app.renew("printer/s", &ticket).body(r#"{"ttl":0}"#).expect(200).json();
        assert!(endless["expiresAt"].is_null(), "{endless}");
        let still = app.renew("printer/s", &ticket).body(r#"{"ttl":5}"#).expect(200).json();
        assert!(still["expiresAt"].is_null(), "{still}");
    }

    fn a_renewed_lease_outlives_its_first_ttl(store) {
        let app = Server::start(store);
        app.create("printer", 1).expect(201);
        let (mut ticket, mut token) = app.hold("printer/s");
        // On a machine that stalls, a lease may be over before its renewal arrives.
        until("a renewal is in time", || {
            let renewed = app.renew("printer/s", &ticket).body(r#"{"ttl":300}"#).send();
            if renewed.status == 403 {
                (ticket, token) = app.hold("printer/s");
            }
            renewed.status == 200
        });
        let mut witness = app.lock("printer/s").query("wait=1.5").open();
        assert_eq!(witness.answer().json()["locked"], false);
        assert_eq!(app.renew("printer/s", &ticket).expect(200).token(), token);
    }

    fn every_request_with_lock_intent_renews_and_a_read_does_not(store) {
        let app = Server::start(store);
        app.create("printer", 60).expect(201);
        app.put("printer/s", "1").expect(204);
        let (ticket, _) = app.hold("printer/s");
        for call in [app.get("printer/s"), app.lock("printer/s"), app.put("printer/s", "2"), app.renew("printer/s", &ticket)] {
            let before = app.expires_at("printer");
            until("the lease is renewed", || {
                call.clone().ticket(&ticket).send();
                app.expires_at("printer") > before + CLEARLY
            });
        }
        let before = app.expires_at("printer");
        std::thread::sleep(CLEARLY * 2);
        app.read("printer/s").ticket(&ticket).expect(200);
        assert!(app.expires_at("printer") < before + CLEARLY);
    }

    fn a_waiting_ticket_is_409(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let waiter = app.queue("printer/s");
        app.renew("printer/s", &waiter).refused(409, "not_holder");
        app.unlock("printer/s", &holder).expect(200);
        // Reserved is not held.
        app.renew("printer/s", &waiter).refused(409, "not_holder");
        assert_eq!(app.lock("printer/s").ticket(&waiter).expect(200).json()["locked"], true);
    }

    fn a_dead_ticket_is_403_and_none_is_400(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (released, _) = app.hold("printer/s");
        app.unlock("printer/s", &released).expect(200);
        app.renew("printer/s", &released).refused(403, "ticket_released");
        let (forced, _) = app.hold("printer/s");
        app.force_unlock("printer").expect(200);
        app.renew("printer/s", &forced).refused(403, "lease_forced_off");
        app.renew("printer/s", STRANGE_TICKET).refused(403, "ticket_unknown");
        app.call("PUT", "/resource/printer/s/renew").refused(400, "ticket_missing");
        let expired = app.lock("printer/s").body(r#"{"ttl":1}"#).expect(200).ticket();
        until("the lease expires", || !app.is_locked("printer"));
        app.renew("printer/s", &expired).refused(403, "lease_expired");
    }

    fn what_is_no_proper_body_is_400(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (ticket, _) = app.hold("printer/s");
        for body in ["{", "[1]", r#"{"ttl":-1}"#, r#"{"ttl":"x"}"#, r#"{"ttl":-1.5}"#, r#"{"exact":1}"#, "30"] {
            app.renew("printer/s", &ticket).body(body).refused(400, "malformed");
        }
        app.renew("printer/s", &ticket).body("{}").expect(200);
    }

    fn an_unknown_resource_is_404(store) {
        let app = Server::start(store);
        app.renew("printer/s", STRANGE_TICKET).refused(404, "resource_unknown");
    }
}
