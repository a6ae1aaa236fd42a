//! Names and selectors: strict decoding, any text, compared byte for byte.

use serde_json::json;

use crate::support::Server;

/// As it is sent, and the name it is.
const ROUND_TRIPS: [(&str, &str); 24] = [
    ("shop%3A42", "shop:42"),
    ("shop:43", "shop:43"),
    ("a%2Fb", "a/b"),
    ("a%2fc", "a/c"),
    ("%25", "%"),
    ("%2525", "%25"),
    ("%2541", "%41"),
    (".", "."),
    ("..", ".."),
    ("...", "..."),
    ("%20", " "),
    ("a%20", "a "),
    ("%20a%20b", " a b"),
    ("c+d", "c+d"),
    ("c%2Bd", "c+d+"),
    ("%E6%97%A5%E6%9C%AC", "日本"),
    ("%F0%9F%98%80", "😀"),
    ("%C3%A9", "é"),
    ("e%CC%81", "e\u{301}"),
    ("%3Fq=1%23f", "?q=1#f"),
    ("%26x%3D1%3By", "&x=1;y"),
    ("%22%27%3C%3E%5C", "\"'<>\\"),
    ("~!*()@,$", "~!*()@,$"),
    ("%EF%BF%BD", "\u{fffd}"),
];

api_tests! {
    fn selectors_round_trip(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let cases = ROUND_TRIPS.iter().filter(|(sent, _)| *sent != "c%2Bd");
        for (index, (sent, name)) in cases.clone().enumerate() {
            app.put(&format!("printer/{sent}"), &index.to_string()).expect(204);
            assert_eq!(app.read(&format!("printer/{sent}")).expect(200).json()["selector"], *name);
        }
        for (index, (sent, _)) in cases.clone().enumerate() {
            assert_eq!(app.data(&format!("printer/{sent}")), index.to_string(), "{sent}");
        }
        assert_eq!(app.described("printer")["selectors"], cases.count());
    }

    fn names_round_trip_on_every_route(store) {
        let app = Server::start(store);
        for (sent, name) in ROUND_TRIPS.iter().filter(|(sent, _)| *sent != "c%2Bd") {
            app.create(name, 0).expect(201);
            assert_eq!(app.described(sent)["name"], *name);
            let path = format!("{sent}/{sent}");
            let (ticket, _) = app.hold(&path);
            app.put(&path, &json!(name).to_string()).ticket(&ticket).expect(204);
            let answer = app.read(&path).expect(200).json();
            assert_eq!((&answer["selector"], &answer["data"]), (&json!(name), &json!(json!(name).to_string())));
            app.renew(&path, &ticket).expect(200);
            app.force_unlock(sent).expect(200);
            app.delete(&path).expect(204);
            app.delete(sent).expect(204);
        }
        assert!(app.names().is_empty());
    }

    fn different_escapes_of_one_text_are_one_name(store) {
        let app = Server::start(store);
        app.create("shop:42", 0).expect(201);
        for sent in ["shop:42", "shop%3A42", "shop%3a42", "%73hop%3A%34%32"] {
            assert_eq!(app.described(sent)["name"], "shop:42", "{sent}");
        }
    }

    fn invalid_escapes_and_invalid_utf_8_are_400_and_store_nothing(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        app.create("\u{fffd}", 0).expect(201);
        let bad = [
            "%", "%4", "a%", "%zz", "%4z", "%+1", "%%41", "%FF", "%FE", "%C3", "%C3%28", "%ED%A0%80", "%C0%80",
            "%E6%97", "a%FFb", "%F4%90%80%80", "%u0041",
        ];
        for text in bad {
            for call in [
                app.describe(text), app.delete(text), app.force_unlock(text), app.get(&format!("{text}/s")),
                app.read(&format!("printer/{text}")), app.put(&format!("printer/{text}"), "1"),
                app.lock(&format!("printer/{text}")), app.unlock(&format!("printer/{text}"), "x"),
                app.renew(&format!("printer/{text}"), "x"), app.delete(&format!("printer/{text}")),
                app.call("GET", &format!("/resource?prefix={text}")),
                app.call("GET", &format!("/resource?after={text}")),
            ] {
                let answer = call.send();
                assert_eq!((answer.status, answer.code().as_str()), (400, "malformed"), "{text}: {answer:?}");
            }
        }
        assert_eq!(app.described("printer")["selectors"], 0);
        assert!(!app.is_locked("printer"));
    }

    fn names_have_1_to_255_characters(store) {
        let app = Server::start(store);
        for letter in ["n", "é", "日", "😀"] {
            let escaped: String = letter.bytes().map(|b| format!("%{b:02X}")).collect();
            let longest = letter.repeat(255);
            app.create(&longest, 0).expect(201);
            assert_eq!(app.described(&escaped.repeat(255))["name"], longest);
            let selector = format!("{0}/{0}", escaped.repeat(255));
            app.put(&selector, "1").expect(204);
            assert_eq!(app.data(&selector), "1");
            app.create(&letter.repeat(256), 0).refused(400, "malformed");
            app.describe(&escaped.repeat(256)).refused(400, "malformed");
            app.put(&format!("n/{}", escaped.repeat(256)), "1").refused(400, "malformed");
        }
        app.create("", 0).refused(400, "malformed");
        assert_eq!(app.names().len(), 4);
    }

    fn control_characters_are_400(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let controls = (0u32..0x20).chain(0x7f..0xa0).filter_map(char::from_u32);
        for control in controls {
            let name = format!("a{control}b");
            let escaped: String = name.bytes().map(|b| format!("%{b:02X}")).collect();
            app.create(&name, 0).refused(400, "malformed");
            app.put(&format!("printer/{escaped}"), "1").refused(400, "malformed");
        }
        assert_eq!(app.names(), ["printer"]);
        assert_eq!(app.described("printer")["selectors"], 0);
    }

    fn case_accents_and_trailing_spaces_all_count(store) {
        let app = Server::start(store);
        let alike = [
            "printer", "Printer", "PRINTER", "printer ", "printer  ", " printer", "prínter", "pri\u{301}nter",
            "ﬀ", "ff", "ß", "ss", "K", "\u{212a}", "０", "0", "a\u{200d}b", "ab",
        ];
        app.create("holder of selectors", 0).expect(201);
        for (index, name) in alike.iter().enumerate() {
            let created = app.create(name, index as u32).expect(201);
            assert_eq!(created.json()["timeout"], index);
            let escaped: String = name.bytes().map(|b| format!("%{b:02X}")).collect();
            app.put(&format!("holder%20of%20selectors/{escaped}"), &index.to_string()).expect(204);
        }
        for (index, name) in alike.iter().enumerate() {
            let escaped: String = name.bytes().map(|b| format!("%{b:02X}")).collect();
            assert_eq!(app.described(&escaped)["timeout"], index, "{name}");
            assert_eq!(app.data(&format!("holder%20of%20selectors/{escaped}")), index.to_string(), "{name}");
        }
        assert_eq!(app.names().len(), alike.len() + 1);
    }

    fn words_of_the_routes_are_names_too(store) {
        let app = Server::start(store);
        for word in ["lock", "unlock", "renew", "force-unlock", "resource", "health"] {
            app.create(word, 0).expect(201);
            let path = format!("{word}/{word}");
            let (ticket, _) = app.hold(&path);
            app.put(&path, "1").ticket(&ticket).expect(204);
            assert_eq!(app.data(&path), "1");
            app.unlock(&path, &ticket).expect(200);
            app.delete(&path).expect(204);
        }
    }

    fn an_empty_segment_is_no_name(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        for target in ["/resource/", "/resource//s", "/resource/printer/", "/resource//", "/resource/printer//lock"] {
            for method in ["GET", "PUT"] {
                let answer = app.call(method, target).body("1").send();
                assert!((400..500).contains(&answer.status), "{method} {target}: {answer:?}");
            }
        }
        assert_eq!(app.described("printer")["selectors"], 0);
        assert!(!app.is_locked("printer"));
    }
}
