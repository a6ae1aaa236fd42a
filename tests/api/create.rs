//! POST `/resource`.

use serde_json::json;

use crate::support::Server;

api_tests! {
    fn a_new_resource_is_answered_201_with_its_location_and_what_it_is(store) {
        let app = Server::start(store);
        let answer = app.create("printer", 300).expect(201);
        let body = answer.json();
        assert_eq!(body["name"], "printer");
        assert_eq!(body["timeout"], 300);
        assert!(body["id"].as_str().is_some_and(|id| !id.is_empty()));
        assert_eq!(body.as_object().unwrap().len(), 3, "{answer:?}");
        assert_eq!(answer.header("Location"), Some("/resource/printer"));
    }

    fn location_leads_to_the_resource_whatever_its_name(store) {
        let app = Server::start(store);
        for name in ["a b", "a/b", "%25", "..", ".", "日本", "?q=1#f", "\"'<>\\", "c+d"] {
            let created = app.create(name, 1).expect(201);
            let location = created.header("Location").unwrap().to_owned();
            let found = app.call("GET", &location).expect(200).json();
            assert_eq!(found["name"], name);
            assert_eq!(found["id"], created.json()["id"]);
        }
    }

    fn timeout_is_an_integer_or_a_numeric_string_and_0_when_absent(store) {
        let app = Server::start(store);
        let cases = [
            ("a", json!({"name": "a"}), 0),
            ("b", json!({"name": "b", "timeout": null}), 0),
            ("c", json!({"name": "c", "timeout": "300"}), 300),
            ("d", json!({"name": "d", "timeout": 2147483647}), 2147483647),
            ("e", json!({"name": "e", "timeout": "2147483647"}), 2147483647),
            ("f", json!({"name": "f", "timeout": 0}), 0),
            ("g", json!({"name": "g", "timeout": 30.0}), 30),
        ];
        for (name, body, timeout) in cases {
            let answer = app.call("POST", "/resource").body(body.to_string()).expect(201);
            assert_eq!(answer.json()["timeout"], timeout, "{name}");
            assert_eq!(app.described(name)["timeout"], timeout, "{name}");
        }
    }

    fn an_existing_name_is_409_and_stays_as_it_was(store) {
        let app = Server::start(store);
        let first = app.create("printer", 300).expect(201).json();
        app.create("printer", 5).refused(409, "resource_exists");
        let found = app.described("printer");
        assert_eq!(found["timeout"], 300);
        assert_eq!(found["id"], first["id"]);
        assert_eq!(app.names(), ["printer"]);
    }

    fn of_many_that_create_one_name_at_once_one_gets_201(store) {
        let app = Server::start(store);
        let open: Vec<_> = (0..16).map(|_| app.create("printer", 1).open()).collect();
        let answers = open.into_iter().map(|mut connection| connection.answer().status);
        let mut statuses: Vec<u16> = answers.collect();
        statuses.sort_unstable();
        assert_eq!(statuses[0], 201);
        assert!(statuses[1..].iter().all(|status| *status == 409), "{statuses:?}");
    }

    fn what_is_no_proper_body_is_400_and_creates_nothing(store) {
        let app = Server::start(store);
        let long = format!(r#"{{"name":"{}"}}"#, "n".repeat(256));
        let bodies: Vec<&[u8]> = vec![
            b"", b"{", b"null", b"[]", b"[\"printer\",300]", b"\"printer\"", b"42", b"{}", b"{\"timeout\":1}",
            b"{\"name\":null}", b"{\"name\":7}", b"{\"name\":[\"a\"]}", b"{\"name\":\"\"}",
            b"{\"name\":\"a\\u0000b\"}", b"{\"name\":\"a\\nb\"}", b"{\"name\":\"\\ud800\"}",
            b"{\"name\":\"a\",\"timeout\":-5}", b"{\"name\":\"a\",\"timeout\":1.5}",
            b"{\"name\":\"a\",\"timeout\":\"soon\"}", b"{\"name\":\"a\",\"timeout\":\"\"}",
            b"{\"name\":\"a\",\"timeout\":\" 5\"}", b"{\"name\":\"a\",\"timeout\":2147483648}",
            b"{\"name\":\"a\",\"timeout\":true}", b"{\"name\":\"a\",\"timeout\":[]}",
            b"{\"name\":\"a\",\"timeout\":1e-3}", b"{\"name\":\"a\",\"timeout\":1e300}",
            b"{\"name\":\"a\",\"timeout\":\"1.5\"}", b"{\"name\":\"a\",\"timeout\":\"-1\"}",
            b"{\"name\":\"a\"} x", b"{\"name\":\"\xff\"}", b"name=printer", long.as_bytes(),
        ];
        for body in bodies {
            let text = String::from_utf8_lossy(body).into_owned();
            let answer = app.call("POST", "/resource").body(body).send();
            assert_eq!((answer.status, answer.code().as_str()), (400, "malformed"), "{text}");
        }
        assert!(app.names().is_empty());
    }

    fn keys_that_nobody_asks_for_are_ignored(store) {
        let app = Server::start(store);
        let body = json!({"name": "printer", "timeout": 7, "colour": "red", "id": "mine"});
        let answer = app.call("POST", "/resource").body(body.to_string()).expect(201);
        assert_eq!(answer.json()["timeout"], 7);
        assert_ne!(answer.json()["id"], "mine");
    }

    fn a_created_resource_is_free_and_empty(store) {
        let app = Server::start(store);
        app.create("printer", 300).expect(201);
        let found = app.described("printer");
        assert_eq!(found["locked"], false);
        assert!(found["holder"].is_null());
        assert_eq!((&found["waiting"], &found["selectors"]), (&json!(0), &json!(0)));
    }
}
