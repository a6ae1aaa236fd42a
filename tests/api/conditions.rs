//! Conditional headers: understood or refused, never ignored. And bodies that count as none.

use crate::support::{Server, WRITE};

api_tests! {
    fn a_condition_that_the_route_does_not_offer_is_refused_and_nothing_happens(store) {
        let app = Server::start(store);
        app.prepare("a");
        for header in ["If-Match", "If-None-Match", "If-Unmodified-Since"] {
            let lock = app.lock("a/s").key(WRITE).header(header, "\"x\"");
            lock.refused(400, "condition_not_offered");
            assert!(!app.is_locked("a"), "{header}");
            let unknown = app.lock("a/s").key("wrong").header(header, "\"x\"");
            unknown.refused(401, "key_unknown");
        }
        app.put("a/s", "1").expect(204);
        for tag in ["\"x\"", "*"] {
            app.get("a/s").header("If-None-Match", tag).refused(400, "condition_not_offered");
            assert!(!app.is_locked("a"), "{tag}");
        }
    }

    fn a_condition_is_refused_on_the_routes_that_need_no_key_too(store) {
        let app = Server::start(store);
        for target in ["/health", "/ready", "/metrics", "/openapi.json"] {
            for header in ["If-Match", "If-None-Match", "If-Unmodified-Since"] {
                let call = app.call("GET", target).no_key().header(header, "*");
                call.refused(400, "condition_not_offered");
            }
        }
        for target in ["/", "/page/app.js"] {
            let call = app.call("GET", target).no_key();
            let tag = call.expect(200).header("Etag").unwrap().to_owned();
            call.clone().header("If-None-Match", &tag).expect(304);
            call.header("If-Match", &tag).refused(400, "condition_not_offered");
        }
    }

    fn an_empty_list_and_null_count_as_no_body(store) {
        let app = Server::start(store);
        app.prepare("a");
        for body in ["[]", "null", " [ ] \n"] {
            let locked = app.lock("a/s").body(body).expect(200);
            let ticket = locked.ticket();
            app.renew("a/s", &ticket).body(body).expect(200);
            app.unlock("a/s", &ticket).body(body).expect(200);
        }
        app.lock("a/s").body("[1]").refused(400, "malformed");
    }
}
