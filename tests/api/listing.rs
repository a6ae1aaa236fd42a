//! GET `/resource` and GET `/resource/{name}`.

use serde_json::{Value, json};

use crate::support::{READ, Server};

fn names(page: &Value) -> Vec<&str> {
    let resources = page["resources"].as_array().unwrap();
    resources
        .iter()
        .map(|r| r["name"].as_str().unwrap())
        .collect()
}

api_tests! {
    fn nothing_lists_as_nothing(store) {
        let app = Server::start(store);
        let answer = app.call("GET", "/resource").key(READ).expect(200);
        assert_eq!(answer.json(), json!({"resources": [], "next": null}));
    }

    fn resources_come_in_the_order_of_their_names_bytes(store) {
        let app = Server::start(store);
        let mut given = ["b", "B", "a", "é", "a ", "a/b", "Z", "日", "10", "9", "e\u{301}", "😀"];
        for name in given {
            app.create(name, 1).expect(201);
        }
        given.sort_unstable();
        assert_eq!(app.names(), given);
    }

    fn pages_follow_one_another(store) {
        let app = Server::start(store);
        for number in 0..7 {
            app.create(&format!("r{number}"), 1).expect(201);
        }
        let mut after = String::new();
        let mut pages: Vec<usize> = Vec::new();
        let mut all: Vec<String> = Vec::new();
        loop {
            let query = format!("limit=3{after}");
            let page = app.call("GET", "/resource").query(&query).expect(200).json();
            pages.push(names(&page).len());
            all.extend(names(&page).iter().map(|name| name.to_string()));
            let Some(next) = page["next"].as_str() else { break };
            assert_eq!(Some(next), all.last().map(String::as_str));
            after = format!("&after={next}");
        }
        assert_eq!(pages, [3, 3, 1]);
        assert_eq!(all, ["r0", "r1", "r2", "r3", "r4", "r5", "r6"]);
        let exact = app.call("GET", "/resource").query("limit=7").expect(200).json();
        assert!(exact["next"].is_null(), "{exact}");
        let beyond = app.call("GET", "/resource").query("after=r3x").expect(200).json();
        assert_eq!(names(&beyond), ["r4", "r5", "r6"]);
    }

    fn a_prefix_is_taken_byte_for_byte(store) {
        let app = Server::start(store);
        for name in ["shop:1", "shop:2", "Shop:3", "shopping", "a%b", "a%c", "a_b", "axb", "日本", "日中"] {
            app.create(name, 1).expect(201);
        }
        let list = |query: &str| {
            let page = app.call("GET", &format!("/resource?{query}")).expect(200).json();
            names(&page).iter().map(|name| name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(list("prefix=shop%3A"), ["shop:1", "shop:2"]);
        assert_eq!(list("prefix=a%25"), ["a%b", "a%c"]);
        assert_eq!(list("prefix=a_"), ["a_b"]);
        assert_eq!(list("prefix=%E6%97%A5"), ["日中", "日本"]);
        assert_eq!(list("prefix=shop&after=shop%3A1&limit=1"), ["shop:2"]);
        assert_eq!(list("prefix=shop&after=a"), ["shop:1", "shop:2", "shopping"]);
        assert!(list("prefix=nothing").is_empty());
        assert!(list("prefix=shop&after=z").is_empty());
    }

    fn the_limit_is_1_to_1000(store) {
        let app = Server::start(store);
        for limit in ["0", "1001", "-1", "x", "", "1.5"] {
            app.call("GET", &format!("/resource?limit={limit}")).refused(400, "malformed");
        }
        for limit in ["1", "1000"] {
            app.call("GET", &format!("/resource?limit={limit}")).expect(200);
        }
    }

    fn the_limit_is_100_unless_given(store) {
        let app = Server::start(store);
        let mut connection = app.connect();
        for number in 0..101 {
            assert_eq!(connection.exchange(&app.create(&format!("r{number:03}"), 1)).status, 201);
        }
        let page = app.call("GET", "/resource").expect(200).json();
        assert_eq!(names(&page).len(), 100);
        assert_eq!(page["next"], "r099");
    }

    fn a_resource_is_described_in_full_and_never_with_a_ticket(store) {
        let app = Server::start(store);
        let id = app.create("printer", 300).expect(201).json()["id"].clone();
        app.put("printer/a", "1").expect(204);
        app.put("printer/b", "1").expect(204);
        let granted = app.lock("printer/s").body(r#"{"owner":"me"}"#).expect(200);
        let waiter = app.queue("printer/s");
        let answer = app.describe("printer").key(READ).ticket(&waiter).expect(200);
        let body = answer.json();
        let lease = granted.json();
        let holders = &body["holders"][0];
        assert_eq!((&holders["client"], &holders["reason"]), (&json!("127.0.0.1"), &Value::Null));
        assert!(holders["expiresInMs"].is_number() && holders["renewedAt"].is_string());
        // In the order of the documentation.
        let members: Vec<_> = holders.as_object().unwrap().keys().collect();
        assert_eq!(members, [
            "owner", "reason", "mode", "acquiredAt", "expiresAt", "expiresInMs", "fencingToken", "renewedAt", "client",
        ]);
        let place = &body["queue"][0];
        assert_eq!((&place["position"], &place["near"], &place["mode"]), (&json!(1), &json!(true), &json!("exclusive")));
        assert_eq!(body["you"], json!({"role": "waiting", "position": 1}));
        assert_eq!(body, json!({
            "id": id, "name": "printer", "timeout": 300, "locked": true, "waiting": 1, "selectors": 2,
            "slots": 1, "lockDelay": 0, "ephemeral": false, "holders": body["holders"], "queue": body["queue"],
            "you": body["you"], "waitsSince": body["queue"][0]["waitingSince"],
            "holder": {
                "owner": "me", "acquiredAt": lease["acquiredAt"], "expiresAt": body["holder"]["expiresAt"],
                "fencingToken": granted.token(),
            },
        }));
        assert!(body["holder"]["expiresAt"].is_string());
        let listed = app.call("GET", "/resource").expect(200);
        let mut same = listed.json()["resources"][0].clone();
        for field in ["holder", "holders", "queue", "you"] {
            same[field] = body[field].clone();
        }
        assert_eq!(same, body);
        for shown in [&answer, &listed] {
            assert!(!shown.text().contains(&granted.ticket()) && !shown.text().contains(&waiter));
            assert_eq!(shown.header("X-Ticket"), None);
        }
    }

    fn a_reserved_lock_has_no_holder(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        app.queue("printer/s");
        app.unlock("printer/s", &holder).expect(200);
        let body = app.described("printer");
        assert!(body["holder"].is_null(), "{body}");
        assert_eq!(body["waiting"], 1);
    }

    fn reserved_locks_can_be_listed_alone(store) {
        let app = Server::start(store);
        for name in ["free", "held", "kept1", "kept2"] {
            app.create(name, 0).expect(201);
        }
        app.hold("held/s");
        for name in ["kept1", "kept2"] {
            let path = format!("{name}/s");
            let (holder, _) = app.hold(&path);
            app.queue(&path);
            app.unlock(&path, &holder).expect(200);
        }
        let list = |query: &str| {
            let page = app.list(query).expect(200).json();
            names(&page).iter().map(|name| name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(list("reserved=1"), ["kept1", "kept2"]);
        assert_eq!(list("reserved=1&sort=waiting"), ["kept1", "kept2"]);
        assert_eq!(list("reserved=1&prefix=kept2"), ["kept2"]);
        assert_eq!(list("reserved=1&after=kept1"), ["kept2"]);
        assert_eq!(list("reserved=1&locked=0"), [""; 0]);
        assert_eq!(list("reserved=0"), ["free", "held"]);
        assert_eq!(list("reserved=0&locked=1"), ["held"]);
        app.list("reserved=x").refused(400, "malformed");
        let page = app.list("reserved=1&limit=1").expect(200).json();
        assert_eq!((names(&page), &page["next"]), (vec!["kept1"], &json!("kept1")));
    }

    fn documents_are_told_with_their_sizes_page_by_page(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        for (selector, json) in [("b", "[1, 2]"), ("a", "\"\u{20ac}\""), ("c", "{}")] {
            app.put(&format!("printer/{selector}"), json).expect(204);
        }
        let ask = |query: &str| app.describe("printer").query(query).expect(200).json();
        let plain = ask("");
        assert_eq!((&plain["documents"], &plain["selectorsNext"]), (&Value::Null, &Value::Null));
        assert_eq!(ask("selectors=0"), plain);
        let first = ask("selectors=2");
        assert_eq!(first["documents"], json!([{"selector": "a", "bytes": 5}, {"selector": "b", "bytes": 6}]));
        assert_eq!(first["selectorsNext"], "b");
        let rest = ask("selectors=2&selectorsAfter=b");
        assert_eq!(rest["documents"], json!([{"selector": "c", "bytes": 2}]));
        assert_eq!((&rest["selectorsNext"], &rest["selectors"]), (&Value::Null, &json!(3)));
        assert!(ask("selectors=3")["selectorsNext"].is_null());
        for bad in ["selectors=1001", "selectors=-1", "selectors=x"] {
            app.describe("printer").query(bad).refused(400, "malformed");
        }
        app.put("printer/a", "1").expect(204);
        app.delete("printer/b").expect(204);
        let now = json!([{"selector": "a", "bytes": 1}, {"selector": "c", "bytes": 2}]);
        assert_eq!(ask("selectors=10")["documents"], now);
    }

    fn an_unknown_name_is_404(store) {
        let app = Server::start(store);
        app.describe("printer").refused(404, "resource_unknown");
    }

    fn a_deleted_resource_is_listed_no_more(store) {
        let app = Server::start(store);
        app.create("a", 0).expect(201);
        app.create("b", 0).expect(201);
        app.delete("a").expect(204);
        assert_eq!(app.names(), ["b"]);
    }
}
