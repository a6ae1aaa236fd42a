//! What the head of an answer looks like, on every path that an answer can come from. That names are in
//! title case, bodies JSON and tickets never empty is checked on every answer of these tests, see `client`.

use crate::support::{Answer, Call, READ, Server};

fn names(call: Call) -> Vec<String> {
    let headers = call.send().headers;
    headers.into_iter().map(|(name, _)| name).collect()
}

api_tests! {
    fn every_kind_of_answer_has_its_header_names_in_title_case(store) {
        let app = Server::start_with(store, &[("MAX_BODY_BYTES", "100")]);
        app.prepare("printer");
        let calls = [
            (app.get("printer/s"), 200),
            (app.get("printer/s"), 202),
            (app.create("scanner", 1), 201),
            (app.put("scanner/s", "1"), 204),
            (app.put("printer/s", "{"), 400),
            (app.call("GET", "/resource").no_key(), 401),
            (app.call("GET", "/resource").key(READ), 200),
            (app.unlock("printer/s", "f"), 403),
            (app.get("nothing/s"), 404),
            (app.call("GET", "/nothing"), 404),
            (app.call("GET", "/"), 200),
            (app.call("GET", "/resource/a/b/c/d"), 404),
            (app.call("PATCH", "/resource/printer/s"), 405),
            (app.create("printer", 1), 409),
            (app.put("printer/s", &" ".repeat(101)), 413),
            (app.call("GET", "/health").no_key(), 200),
            (app.call("GET", "/ready").no_key(), 200),
        ];
        for (call, status) in calls {
            let answer = call.expect(status);
            assert!(!answer.headers.is_empty(), "{answer:?}");
        }
        assert!(names(app.get("printer/s")).iter().any(|name| name == "X-Ticket"));
        assert!(names(app.lock("scanner/s")).iter().any(|name| name == "X-Fencing-Token"));
    }

    fn an_unknown_route_is_404(store) {
        let app = Server::start(store);
        for target in [
            "/nothing", "/resources", "/Resource", "/resource/a/b/c", "/resource/a/b/lock/d", "/resource/a/b/Lock",
            "/health/x", "//resource", "/resource/a/b/force-unlock", "/page", "/resource/", "/resource//x", "/resource/a/",
            "/resource/a//lock", "/resource/a/b/", "/resource/a/b/lock/", "/history", "/history/", "/history/a/b",
            "/events/a",
        ] {
            for method in ["GET", "POST", "PUT", "DELETE"] {
                let answer = app.call(method, target).send();
                assert_eq!((answer.status, answer.code().as_str()), (404, "route_unknown"), "{method} {target}");
            }
        }
    }

    fn another_method_is_405_and_allow_names_those_there_are(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let all = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"];
        let routes = [
            ("/resource", vec!["GET", "POST"]),
            ("/resource/printer", vec!["DELETE", "GET"]),
            ("/resource/printer/s", vec!["DELETE", "GET", "PUT"]),
            ("/resource/printer/s/lock", vec!["POST", "PUT"]),
            ("/resource/printer/s/unlock", vec!["POST", "PUT"]),
            ("/resource/printer/s/renew", vec!["POST", "PUT"]),
            ("/health", vec!["GET", "HEAD"]),
            ("/ready", vec!["GET", "HEAD"]),
        ];
        for (target, allowed) in routes {
            for method in all.iter().filter(|method| !allowed.contains(method)) {
                let answer = app.call(method, target).refused(405, "method_not_allowed");
                let mut allow: Vec<&str> = answer.header("Allow").unwrap().split(", ").collect();
                allow.sort_unstable();
                assert_eq!(allow, allowed, "{method} {target}");
            }
        }
        assert_eq!(app.data("printer/s"), r#"{"v":1}"#);
    }

    fn force_unlock_takes_post_only(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        app.hold("printer/s");
        app.call("PATCH", "/resource/printer/force-unlock").expect(405);
        // The same path names a selector for the other methods.
        app.get("printer/force-unlock").refused(404, "selector_unknown");
        assert!(app.is_locked("printer"));
    }

    fn only_the_answers_that_ask_to_come_back_say_when(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let free = app.get("printer/s").expect(200);
        assert_eq!(free.header("Retry-After"), None);
        assert_eq!(app.get("printer/s").expect(202).header("Retry-After"), Some("1"));
        assert_eq!(app.put("printer/s", "1").expect(409).header("Retry-After"), None);
    }

    fn every_answer_of_a_resource_to_its_holder_has_the_fencing_token(store) {
        let app = Server::start_with(store, &[("MAX_SELECTORS", "1")]);
        app.prepare("printer");
        let (ticket, token) = app.hold("printer/s");
        let described = app.describe("printer").ticket(&ticket).expect(200);
        let read = app.read("printer/s").ticket(&ticket).expect(200);
        assert_eq!((described.token(), read.token()), (token, token));
        let unless = |call: Call, had: &Answer| call.header("If-None-Match", had.header("Etag").unwrap());
        for (call, status) in [
            (unless(app.describe("printer"), &described), 304), (unless(app.read("printer/s"), &read), 304),
            (app.read("printer/none"), 404), (app.get("printer/none"), 404), (app.delete("printer/none"), 404),
            (app.put("printer/none", "2"), 409), (app.put("printer/s", "2").header("If-Match", "\"0\""), 412),
        ] {
            assert_eq!(call.ticket(&ticket).expect(status).token(), token);
        }
        for call in [app.describe("printer"), app.read("printer/s")] {
            assert_eq!(call.expect(200).header("X-Fencing-Token"), None);
        }
    }

    fn refused_requests_never_carry_a_ticket(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (ticket, _) = app.hold("printer/s");
        for call in [
            app.get("printer/s").query("wait=x").ticket(&ticket), app.put("printer/s", "{").ticket(&ticket),
            app.get("printer/none").ticket(&ticket), app.create("printer", 1).ticket(&ticket),
        ] {
            let answer = call.send();
            assert!(answer.status >= 400);
            assert!(!answer.text().contains(&ticket));
        }
    }

    fn a_connection_serves_many_requests(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let mut connection = app.connect();
        let (ticket, _) = app.hold("printer/s");
        let calls = [
            (app.read("printer/s"), 200), (app.get("none/s"), 404), (app.put("printer/s", "{"), 400),
            (app.call("PATCH", "/resource"), 405), (app.put("printer/s", "2").ticket(&ticket), 204),
            (app.call("GET", "/resource").no_key(), 401), (app.renew("printer/s", &ticket), 200),
            (app.call("GET", "/nothing"), 404), (app.lock("printer/s").query("queue=0"), 409),
        ];
        for _ in 0..3 {
            for (call, status) in &calls {
                let answer = connection.exchange(call);
                assert_eq!(answer.status, *status, "{answer:?}");
                assert_eq!(answer.header("Connection"), None, "{answer:?}");
            }
        }
    }

    fn after_a_body_nobody_reads_the_connection_goes_on_or_the_answer_says_that_it_does_not(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (ticket, _) = app.hold("printer/s");
        for (call, status) in [
            (app.unlock("printer/s", &ticket).body("a body"), 200), (app.call("GET", "/nothing").body("a body"), 404),
            (app.put("printer/s", "1").no_key(), 401),
        ] {
            let mut connection = app.connect();
            let answer = connection.exchange(&call);
            assert_eq!(answer.status, status);
            match answer.header("Connection") {
                Some(close) => {
                    assert_eq!(close, "close");
                    assert!(connection.is_closed_by_server());
                }
                None => assert_eq!(connection.exchange(&app.describe("printer")).status, 200),
            }
        }
    }

    fn requests_sent_at_once_are_answered_in_their_order(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let mut connection = app.connect();
        let mut bytes = Vec::new();
        for number in 0..20 {
            bytes.extend(app.put(&format!("printer/{number}"), &number.to_string()).bytes());
            bytes.extend(app.read(&format!("printer/{number}")).bytes());
        }
        connection.write(&bytes);
        for number in 0..20 {
            assert_eq!(connection.answer().status, 204);
            assert_eq!(connection.answer().json()["data"], number.to_string());
        }
    }
}
