//! `ETag`, `If-Match` and `If-None-Match` of documents, and waiting for a change.

use crate::support::{Answer, Call, Client, STRANGE_TICKET, Server};

fn etag(answer: &Answer) -> String {
    let tag = answer.header("Etag").expect("an ETag");
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    tag.to_owned()
}

fn put_if(app: &Client, data: &str, header: &str, value: &str) -> Call {
    app.put("printer/s", data).header(header, value)
}

fn read_unless(app: &Client, tag: &str) -> Call {
    app.read("printer/s").header("If-None-Match", tag)
}

api_tests! {
    fn a_document_has_a_tag_of_its_bytes(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let written = etag(&app.put("printer/s", "{\"a\": 1}").expect(204));
        assert_eq!(etag(&app.read("printer/s").expect(200)), written);
        let other = etag(&app.put("printer/t", "{\"a\":1}").expect(204));
        assert_ne!(other, written);
        assert_eq!(etag(&app.get("printer/s").expect(200)), written);
    }

    fn a_reader_that_has_the_document_is_not_sent_it_again(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let tag = etag(&app.put("printer/s", "1").expect(204));
        let unchanged = read_unless(&app, &tag).expect(304);
        assert_eq!(etag(&unchanged), tag);
        for list in [format!("\"0\", {tag}"), format!("W/{tag}"), "*".to_owned(), format!("\"a, \", W/\"\",,{tag} ")] {
            read_unless(&app, &list).expect(304);
        }
        read_unless(&app, "\"0123\", \"not ours\", \"né\"").expect(200);
        for bad in ["unquoted", "né", "\"a", "\"a\"b", "\"a\"\"b\"", "w/\"a\"", "W/a"] {
            read_unless(&app, bad).refused(400, "malformed");
        }
    }

    fn a_reader_can_wait_for_a_change(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let tag = etag(&app.put("printer/s", "1").expect(204));
        read_unless(&app, &tag).query("wait=0.05").expect(304);
        let mut waiting = read_unless(&app, &tag).query("wait=60").query("raw=1").open();
        app.put("printer/other", "1").expect(204);
        assert!(waiting.is_silent(), "another document has changed");
        app.put("printer/s", "2").expect(204);
        let changed = waiting.answer();
        assert_eq!((changed.status, changed.text()), (200, "2"));
        let mut waiting = read_unless(&app, &etag(&changed)).query("wait=60").open();
        app.delete("printer/s").expect(204);
        waiting.answer().assert_refused(404, "selector_unknown");
    }

    fn a_write_can_depend_on_the_document(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        put_if(&app, "1", "If-Match", "*").refused(412, "precondition_failed");
        put_if(&app, "1", "If-Match", "\"nope\"").refused(412, "precondition_failed");
        let first = etag(&put_if(&app, "1", "If-None-Match", "*").expect(204));
        put_if(&app, "2", "If-None-Match", "*").refused(412, "precondition_failed");
        put_if(&app, "2", "If-Match", &format!("W/{first}")).refused(412, "precondition_failed");
        let second = etag(&put_if(&app, "2", "If-Match", &format!("\"0\", {first}")).expect(204));
        put_if(&app, "3", "If-Match", &first).refused(412, "precondition_failed");
        assert_eq!(app.data("printer/s"), "2");
        put_if(&app, "3", "If-Match", &second).expect(204);
        put_if(&app, "4", "If-Match", "*").expect(204);
    }

    fn a_tag_is_compared_byte_for_byte(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let tag = etag(&app.put("printer/s", "1").expect(204));
        let capitals = tag.to_uppercase();
        assert_ne!(capitals, tag);
        for other in [capitals, tag.replacen('"', "\"0", 1), tag.replacen('"', "\"+", 1)] {
            put_if(&app, "2", "If-Match", &other).refused(412, "precondition_failed");
            read_unless(&app, &other).expect(200);
        }
        put_if(&app, "2", "If-Match", &tag).expect(204);
    }

    fn the_lock_is_looked_at_before_the_condition_and_a_refused_write_releases_nothing(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let tag = etag(&app.put("printer/s", "1").expect(204));
        let (ticket, _) = app.hold("printer/s");
        put_if(&app, "2", "If-Match", "\"0\"").refused(409, "locked");
        put_if(&app, "2", "If-Match", "\"0\"")
            .ticket(&ticket)
            .query("unlock=1")
            .refused(412, "precondition_failed");
        assert!(app.is_locked("printer"));
        put_if(&app, "2", "If-Match", &tag).ticket(&ticket).query("unlock=1").expect(204);
        assert!(!app.is_locked("printer"));
    }

    fn a_write_that_is_refused_leaves_the_lock_reserved_for_its_ticket(store) {
        // Without a cache the document has to be loaded to compare its tag.
        for cache in ["0", "1000000"] {
            let settings = [("CLAIM_SECONDS", "60"), ("MAX_SELECTORS", "2"), ("DATA_CACHE_BYTES", cache)];
            let app = Server::start_with(store, &settings);
            app.create("printer", 0).expect(201);
            let tag = etag(&app.put("printer/s", "1").expect(204));
            app.put("printer/t", "1").expect(204);
            let (holder, token) = app.hold("printer/s");
            let (next, last) = (app.queue("printer/s"), app.queue("printer/s"));
            let stale = |ticket: &str| put_if(&app, "2", "If-Match", "\"0\"").ticket(ticket);
            stale(&next).refused(409, "locked");
            app.unlock("printer/s", &holder).expect(200);
            stale(&holder).refused(403, "ticket_released");
            stale(&last).refused(409, "locked");
            for (write, status, code) in [
                (stale(&next), 412, "precondition_failed"),
                (stale(&next).query("unlock=1"), 412, "precondition_failed"),
                (app.put("printer/new", "1").ticket(&next), 409, "too_many_selectors"),
            ] {
                let refused = write.refused(status, code);
                assert_eq!(refused.header("X-Fencing-Token"), None, "{refused:?}");
                let described = app.described("printer");
                assert!(described["holder"].is_null() && described["locked"] == true, "{described}");
                assert_eq!(described["waiting"], 2);
            }
            let written = put_if(&app, "2", "If-Match", &tag).ticket(&next).expect(204);
            assert!(written.token() > token);
            assert_eq!(app.waiting("printer"), 1);
        }
    }

    fn conditions_that_are_not_understood_are_refused(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        put_if(&app, "1", "If-Match", "nope").refused(400, "malformed");
        put_if(&app, "1", "If-None-Match", "\"0\"").refused(400, "malformed");
        put_if(&app, "1", "If-Match", "*").header("If-None-Match", "*").refused(400, "malformed");
        app.read("printer/s").refused(404, "selector_unknown");
    }

    fn a_document_out_of_memory_is_one_that_exists(store) {
        let app = Server::start_with(store, &[("DATA_CACHE_BYTES", "0")]);
        app.create("printer", 0).expect(201);
        let tag = etag(&app.put("printer/s", "1").expect(204));
        // Others come in, and this one has to leave.
        app.put("printer/t", "1").expect(204);
        put_if(&app, "2", "If-None-Match", "*").refused(412, "precondition_failed");
        assert_eq!(app.data("printer/s"), "1");
        app.put("printer/t", "2").expect(204);
        put_if(&app, "2", "If-Match", &tag).expect(204);
    }

    fn a_write_that_is_refused_makes_no_name(store) {
        let app = Server::start(store);
        put_if(&app, "1", "If-Match", "*").query("create=1").refused(412, "precondition_failed");
        app.describe("printer").refused(404, "resource_unknown");
        let stale = app.put("printer/s", "1").query("create=1").ticket(STRANGE_TICKET);
        stale.refused(403, "ticket_unknown");
        app.describe("printer").refused(404, "resource_unknown");
        put_if(&app, "1", "If-None-Match", "*").query("create=1").expect(204);
        put_if(&app, "1", "If-None-Match", "*").query("create=1").refused(412, "precondition_failed");
        assert_eq!(app.described("printer")["ephemeral"], false);
    }
}
