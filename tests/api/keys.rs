//! Keys, their rights, and the order of checks.

use small_resource_server::config::Settings;

use crate::support::{ADMIN, Call, LOCK, READ, STRANGE_TICKET, Server, WRITE};

/// Every route with the least key it takes. None of them succeeds: they name what does not exist.
fn routes(app: &Server) -> Vec<(Call, &'static str)> {
    let call = |method: &str, target: &str| app.call(method, target);
    let mut routes = vec![
        (call("GET", "/resource?limit=0"), READ),
        (call("GET", "/resource/none"), READ),
        (call("GET", "/resource/none/s?lock=0"), READ),
        (call("GET", "/resource/none/s?lock=false"), READ),
        (call("GET", "/resource/none/s"), LOCK),
        (call("GET", "/resource/none/s?lock=1"), LOCK),
        (call("POST", "/resource").body("{"), WRITE),
        (call("PUT", "/resource/none/s").body("1"), WRITE),
        (call("DELETE", "/resource/none/s"), WRITE),
        (call("DELETE", "/resource/none"), WRITE),
        (
            call("POST", "/resource/none/force-unlock").body(r#"{"reason":"x"}"#),
            ADMIN,
        ),
    ];
    for method in ["PUT", "POST"] {
        for action in ["lock", "unlock", "renew"] {
            let target = format!("/resource/none/s/{action}");
            routes.push((call(method, &target).ticket(STRANGE_TICKET), LOCK));
        }
    }
    routes
}

fn rank(key: &str) -> usize {
    [READ, LOCK, WRITE, ADMIN]
        .iter()
        .position(|k| *k == key)
        .unwrap()
}

api_tests! {
    fn each_key_has_its_own_right_and_those_of_the_keys_before_it(store) {
        let app = Server::start(store);
        for (call, least) in routes(&app) {
            for key in [READ, LOCK, WRITE, ADMIN] {
                if rank(key) < rank(least) {
                    call.clone().key(key).refused(401, "key_insufficient");
                } else {
                    let answer = call.clone().key(key).send();
                    assert!(matches!(answer.status, 400 | 404), "{key}: {answer:?}");
                }
            }
        }
    }

    fn a_missing_or_unknown_key_is_401_everywhere(store) {
        let app = Server::start(store);
        for (call, _) in routes(&app) {
            call.clone().no_key().refused(401, "key_missing");
            for unknown in ["", "x", "key-to-writ", "key-to-write1", "KEY-TO-WRITE", "key-to-write,key-to-write"] {
                call.clone().key(unknown).refused(401, "key_unknown");
            }
        }
    }

    fn without_a_valid_key_nothing_is_learnt_about_what_exists(store) {
        let app = Server::start(store);
        app.prepare("printer");
        app.hold("printer/s");
        for (method, path) in [
            ("GET", ""), ("DELETE", ""), ("GET", "/s"), ("GET", "/s?lock=0"), ("PUT", "/s"), ("DELETE", "/s"),
            ("PUT", "/s/lock"), ("PUT", "/s/unlock"), ("PUT", "/s/renew"), ("POST", "/force-unlock"),
        ] {
            let ask = |name: &str| {
                let call = app.call(method, &format!("/resource/{name}{path}")).body("{");
                let answer = call.key("unknown").expect(401);
                (answer.body.clone(), answer.headers.len())
            };
            assert_eq!(ask("printer"), ask("nothing"), "{method} {path}");
        }
        app.create("printer", 1).key("unknown").refused(401, "key_unknown");
        app.create("printer", 1).key(LOCK).refused(401, "key_insufficient");
    }

    fn the_route_is_checked_before_the_key(store) {
        let app = Server::start(store);
        app.call("GET", "/nothing").no_key().refused(404, "route_unknown");
        app.call("PATCH", "/resource").no_key().refused(405, "method_not_allowed");
    }

    fn the_key_is_checked_before_the_body(store) {
        let app = Server::start_with(store, &[("MAX_BODY_BYTES", "10")]);
        let call = app.call("POST", "/resource").body("not JSON and too long");
        call.clone().key(READ).refused(401, "key_insufficient");
        call.refused(413, "body_too_large");
        app.call("GET", "/resource/%FF/s").key("unknown").refused(401, "key_unknown");
        app.call("GET", "/resource/a/s?lock=7").key("unknown").refused(401, "key_unknown");
        app.call("GET", "/resource/a/s?lock=0&x=%FF").key("unknown").refused(401, "key_unknown");
    }

    fn the_body_is_checked_before_existence(store) {
        let app = Server::start(store);
        app.put("none/s", "{").refused(400, "malformed");
        app.lock("none/s").body("{").refused(400, "malformed");
        app.lock("none/s").query("wait=x").refused(400, "malformed");
        app.lock("none/s").idempotency_key("a b").refused(400, "malformed");
        app.renew("none/s", STRANGE_TICKET).body("{").refused(400, "malformed");
        app.force_unlock("none").body("{}").refused(400, "malformed");
        app.get("none/s").query("lock=x").refused(400, "malformed");
    }

    fn existence_is_checked_before_state(store) {
        let app = Server::start(store);
        app.call("PUT", "/resource/none/s/unlock").refused(404, "resource_unknown");
        app.renew("none/s", STRANGE_TICKET).refused(404, "resource_unknown");
        app.put("none/s", "1").ticket(STRANGE_TICKET).refused(404, "resource_unknown");
        app.create("printer", 0).expect(201);
        app.hold("printer/s");
        app.delete("printer/never-written").refused(404, "selector_unknown");
    }

    fn the_header_s_name_may_be_written_in_any_case(store) {
        let app = Server::start(store);
        for name in ["x-api-key", "X-Api-Key", "X-API-KEY"] {
            app.call("GET", "/resource").no_key().header(name, READ).expect(200);
        }
    }

    fn previous_keys_are_accepted_beside_the_current_ones(store) {
        let app = Server::start_with(store, &[
            ("RESOURCE_READ_PREVIOUS", "old-read"), ("RESOURCE_READ_LOCK_PREVIOUS", "old-lock"),
            ("RESOURCE_WRITE_PREVIOUS", "old-write"), ("RESOURCE_ADMIN_PREVIOUS", "old-admin"),
        ]);
        let previous = [(READ, "old-read"), (LOCK, "old-lock"), (WRITE, "old-write"), (ADMIN, "old-admin")];
        for (call, _) in routes(&app) {
            for (current, old) in previous {
                let new = call.clone().key(current).send();
                let answer = call.clone().key(old).send();
                assert_eq!((answer.status, answer.code()), (new.status, new.code()), "{old}");
            }
        }
    }

    fn where_keys_are_equal_the_highest_right_wins(store) {
        let app = Server::start_with(store, &[("RESOURCE_READ", "same"), ("RESOURCE_READ_LOCK", "same"), ("RESOURCE_WRITE", "same")]);
        app.create("printer", 0).key("same").expect(201);
        app.put("printer/s", "1").key("same").expect(204);
        app.force_unlock("printer").key("same").refused(401, "key_insufficient");
    }
}

#[test]
fn a_server_without_one_of_the_three_keys_refuses_to_start_and_names_the_variable() {
    let all = ["RESOURCE_READ", "RESOURCE_READ_LOCK", "RESOURCE_WRITE"];
    for missing in all {
        for empty in [false, true] {
            let given = all.iter().filter(|name| empty || **name != missing);
            let value = |name: &str| if name == missing { "" } else { "some-key" }.to_owned();
            let pairs = given.map(|name| (name.to_string(), value(name)));
            let error = Settings::from_pairs(pairs, None).unwrap_err();
            let named = |name: &str| error.contains(&format!("{name} is missing or empty"));
            assert!(named(missing), "{error}");
            assert!(
                all.iter().all(|name| *name == missing || !named(name)),
                "{error}"
            );
        }
    }
}
