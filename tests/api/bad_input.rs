//! Requests that no proper client sends: each gets its 4xx, the server stays up, nothing is stored.

use std::time::Duration;

use crate::support::{Answer, READ, Server, WRITE};

/// What the server says to bytes that may be no request at all. `None`: it hung up without a word.
fn say(app: &Server, bytes: &[u8]) -> Option<Answer> {
    let mut connection = app.connect();
    connection.try_write(bytes);
    connection.unchecked_answer()
}

fn head(app: &Server, line: &str, headers: &str) -> Vec<u8> {
    format!(
        "{line}\r\nHost: {}\r\nx-api-key: {WRITE}\r\n{headers}\r\n",
        app.address()
    )
    .into_bytes()
}

fn serves(app: &Server) {
    assert_eq!(
        app.call("GET", "/health").expect(200).json()["status"],
        "ok"
    );
    assert!(app.names().is_empty());
}

api_tests! {
    fn bytes_that_are_no_request_are_refused(store) {
        let app = Server::start(store);
        let host = app.address();
        let lines: Vec<Vec<u8>> = vec![
            b"\x00\x01\x02\x03\r\n\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
            b"GET\r\n\r\n".to_vec(),
            b"GET /resource\r\n\r\n".to_vec(),
            b"GET /resource HTTP/9.9\r\n\r\n".to_vec(),
            b"GET  HTTP/1.1\r\n\r\n".to_vec(),
            b"G\xffT /resource HTTP/1.1\r\n\r\n".to_vec(),
            b"GET /reso\x00urce HTTP/1.1\r\n\r\n".to_vec(),
            b"GET /resource/a b/s HTTP/1.1\r\n\r\n".to_vec(),
            format!("GET /health HTTP/1.1\r\nHost: {host}\r\nno colon\r\n\r\n").into_bytes(),
            format!("GET /health HTTP/1.1\r\nHost: {host}\r\nx\x00y: 1\r\n\r\n").into_bytes(),
            format!("GET /health HTTP/1.1\r\nHost: {host}\r\nx: \x01\r\n\r\n").into_bytes(),
            head(&app, "POST /resource HTTP/1.1", "Content-Length: abc\r\n"),
            head(&app, "POST /resource HTTP/1.1", "Content-Length: -1\r\n"),
            head(&app, "POST /resource HTTP/1.1", "Content-Length: 99999999999999999999999\r\n"),
            head(&app, "POST /resource HTTP/1.1", "Content-Length: 1\r\nContent-Length: 2\r\n"),
            head(&app, "POST /resource HTTP/1.1", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
            head(&app, "POST /resource HTTP/1.1", "Transfer-Encoding: nonsense\r\n"),
        ];
        for bytes in lines {
            if let Some(answer) = say(&app, &bytes) {
                let shown = String::from_utf8_lossy(&bytes).into_owned();
                assert!((400..500).contains(&answer.status), "{shown:?}: {answer:?}");
            }
        }
        serves(&app);
    }

    fn a_head_without_end_is_refused(store) {
        let app = Server::start(store);
        let mut bytes = b"GET /health HTTP/1.1\r\n".to_vec();
        for number in 0..20_000 {
            bytes.extend(format!("x-filler-{number}: {}\r\n", "y".repeat(50)).bytes());
        }
        if let Some(answer) = say(&app, &bytes) {
            assert!((400..500).contains(&answer.status), "{answer:?}");
        }
        let long = format!("GET /resource/{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20));
        if let Some(answer) = say(&app, long.as_bytes()) {
            assert!((400..500).contains(&answer.status), "{answer:?}");
        }
        serves(&app);
    }

    fn a_request_that_ends_too_soon_stores_nothing(store) {
        let app = Server::start(store);
        let whole = app.create("printer", 300).bytes();
        for length in (1..whole.len()).step_by(7) {
            let mut connection = app.connect();
            connection.write(&whole[..length]);
            connection.hang_up();
        }
        for length in (1..whole.len()).step_by(13) {
            let mut connection = app.connect();
            connection.write(&whole[..length]);
            connection.reset();
        }
        serves(&app);
    }

    fn a_chunked_body_that_ends_too_soon_stores_nothing(store) {
        let app = Server::start(store);
        let start = head(&app, "POST /resource HTTP/1.1", "Transfer-Encoding: chunked\r\n");
        for rest in ["", "5", "5\r\n", "5\r\n{\"na", "f\r\n{\"name\":\"print", "zz\r\n", "-1\r\n", "fffffffffffffffff\r\n"] {
            let mut connection = app.connect();
            connection.write(&start);
            connection.try_write(rest.as_bytes());
            connection.end_sending();
            if let Some(answer) = connection.unchecked_answer() {
                assert!((400..500).contains(&answer.status), "{rest:?}: {answer:?}");
            }
        }
        serves(&app);
    }

    fn a_chunked_body_is_as_good_as_any(store) {
        let app = Server::start(store);
        let mut bytes = head(&app, "POST /resource HTTP/1.1", "Transfer-Encoding: chunked\r\n");
        bytes.extend_from_slice(b"9\r\n{\"name\":\"\r\na\r\nprinter\"} \r\n0\r\n\r\n");
        let mut connection = app.connect();
        connection.write(&bytes);
        assert_eq!(connection.answer().status, 201);
        assert_eq!(app.names(), ["printer"]);
    }

    fn a_body_over_the_limit_is_413_and_not_stored(store) {
        let app = Server::start_with(store, &[("MAX_BODY_BYTES", "1000")]);
        app.create("printer", 0).expect(201);
        let exact = format!("\"{}\"", "x".repeat(998));
        app.put("printer/s", &exact).expect(204);
        let over = format!("\"{}\"", "x".repeat(999));
        app.put("printer/s", &over).refused(413, "body_too_large");
        app.lock("printer/s").body(over.clone()).refused(413, "body_too_large");
        app.call("POST", "/resource").body(over.clone()).refused(413, "body_too_large");
        assert_eq!(app.data("printer/s"), exact);
        let mut chunked = head(&app, "PUT /resource/printer/s HTTP/1.1", "Transfer-Encoding: chunked\r\n");
        for _ in 0..5 {
            chunked.extend(format!("ff\r\n{}\r\n", "1".repeat(255)).bytes());
        }
        chunked.extend(b"0\r\n\r\n");
        let answer = say(&app, &chunked).unwrap();
        answer.check();
        assert_eq!(answer.status, 413);
        assert_eq!(app.data("printer/s"), exact);
    }

    /// A client that goes on sending must still get to read its 413.
    fn a_body_far_over_the_limit_is_413_while_it_is_sent(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let large = format!("\"{}\"", "x".repeat(8 << 20));
        for _ in 0..3 {
            let mut connection = app.connect();
            connection.try_write(&app.put("printer/s", &large).bytes());
            let answer = connection.answer();
            assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
        }
        assert_eq!(app.described("printer")["selectors"], 0);
    }

    fn a_body_of_two_mebibytes_is_stored_byte_for_byte(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let largest = format!("\"{}\"", "é".repeat((2_097_152 - 2) / 2));
        assert_eq!(largest.len(), 2_097_152);
        app.put("printer/s", &largest).expect(204);
        assert!(app.data("printer/s") == largest);
        app.put("printer/s", &format!("{largest} ")).refused(413, "body_too_large");
    }

    fn json_nested_511_deep_is_stored_and_512_deep_is_400(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let nested = |open: &str, close: &str, depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            app.put("printer/s", &nested(open, close, 511)).expect(204);
            for depth in [512, 600, 20_000] {
                app.put("printer/s", &nested(open, close, depth)).refused(400, "malformed");
                app.lock("printer/s").body(nested(open, close, depth)).refused(400, "malformed");
                app.call("POST", "/resource").body(nested(open, close, depth)).refused(400, "malformed");
            }
            assert_eq!(app.data("printer/s"), nested(open, close, 511));
        }
        // Brackets in a string nest nothing, and other bodies may be as deep as documents.
        app.put("printer/s", &format!("\"{}\\\"\"", "[".repeat(600))).expect(204);
        app.lock("printer/s").body(nested("{\"a\":", "}", 511)).expect(200);
    }

    fn half_a_surrogate_pair_is_400_and_a_whole_one_is_stored(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let halves = [
            r#""\ud800""#, r#""\udc00""#, r#"{"a":"\ud800x"}"#, r#"["\ud800\ud800"]"#, r#"{"\udc00\ud800":1}"#,
            r#"{"\ud83d\\ude00":1}"#,
        ];
        for body in halves {
            app.put("printer/s", body).refused(400, "malformed");
        }
        let whole = r#"["\ud83d\ude00","\\ud800 is no escape, \uD83D\uDE00\u00e9 are"]"#;
        app.put("printer/s", whole).expect(204);
        assert_eq!(app.data("printer/s"), whole);
    }

    fn nul_and_invalid_utf_8_in_bodies_are_400(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let bodies: [&[u8]; 5] = [b"\x00", b"\"a\x00b\"", b"\"\xff\"", b"{\"\xc3\x28\":1}", b"\xff\xfe1\x00"];
        for body in bodies {
            app.call("PUT", "/resource/printer/s").body(body).refused(400, "malformed");
            app.call("POST", "/resource").body(body).refused(400, "malformed");
        }
        assert_eq!(app.described("printer")["selectors"], 0);
    }

    fn odd_headers_are_no_way_in(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        app.hold("printer/s");
        // The last ticket counts; an unknown one is no ticket of the holder.
        app.put("printer/s", "9").ticket("\u{e9}").refused(403, "ticket_unknown");
        app.put("printer/s", "9").ticket(&"f".repeat(5000)).refused(403, "ticket_unknown");
        app.put("printer/s", "9").header("X-HTTP-Method-Override", "DELETE").refused(409, "locked");
        app.read("printer/s").key(READ).header("x-api-key", WRITE).send();
        app.call("PUT", "/resource/printer/s?key=x").no_key().query(&format!("x-api-key={WRITE}")).refused(401, "key_missing");
        assert!(app.is_locked("printer"));
    }

    fn a_head_that_never_ends_is_given_up(store) {
        let app = Server::start_with(store, &[("REQUEST_TIMEOUT_SECONDS", "0.2")]);
        let mut connection = app.connect();
        connection.write(b"GET /health HTTP/1.1\r\n");
        if let Some(answer) = connection.unchecked_answer() {
            assert_eq!(answer.status, 408, "{answer:?}");
        }
        assert!(connection.is_closed_by_server());
    }

    fn a_body_that_never_ends_is_408(store) {
        let app = Server::start_with(store, &[("BODY_TIMEOUT_SECONDS", "0.2")]);
        let mut connection = app.connect();
        connection.write(&head(&app, "POST /resource HTTP/1.1", "Content-Length: 1000\r\n"));
        connection.write(b"{\"name\":");
        let answer = connection.answer();
        assert_eq!((answer.status, answer.code().as_str()), (408, "body_timeout"));
        serves(&app);
    }

    fn an_idle_connection_is_closed_after_the_keep_alive_time(store) {
        let app = Server::start_with(store, &[("KEEP_ALIVE_SECONDS", "0.3")]);
        let mut connection = app.connect();
        assert_eq!(connection.exchange(&app.call("GET", "/health")).status, 200);
        assert!(connection.is_closed_by_server());
    }

    fn a_waiting_request_outlives_the_keep_alive_and_request_times(store) {
        let app = Server::start_with(store, &[
            ("KEEP_ALIVE_SECONDS", "1"), ("REQUEST_TIMEOUT_SECONDS", "1"), ("BODY_TIMEOUT_SECONDS", "1"),
        ]);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let mut waiter = app.wait("printer/s");
        std::thread::sleep(Duration::from_millis(2500));
        assert!(waiter.is_silent());
        app.unlock("printer/s", &holder).expect(200);
        assert_eq!(waiter.answer().json()["locked"], true);
    }

    /// Its answer does not wait for the rest, and neither does the connection.
    fn a_chunked_body_that_never_ends_does_not_hold_a_refused_connection(store) {
        let app = Server::start_with(store, &[("BODY_TIMEOUT_SECONDS", "0.2"), ("REQUEST_TIMEOUT_SECONDS", "2"), ("MAX_BODY_BYTES", "20")]);
        let endless = |line: &str, headers: &str, body: &str| {
            let headers = format!("Transfer-Encoding: chunked\r\n{headers}");
            let mut connection = app.connect();
            connection.write(&head(&app, line, &headers));
            connection.write(body.as_bytes());
            let answer = connection.answer();
            assert!(connection.is_closed_by_server(), "{line}: {answer:?}");
            answer.status
        };
        let start = "5\r\n{\"nam\r\n";
        assert_eq!(endless("PUT /nowhere HTTP/1.1", "", start), 404);
        assert_eq!(endless("PATCH /resource HTTP/1.1", "", "7fffffffffffffff\r\n{}"), 405);
        assert_eq!(endless("PUT /resource/a/s/unlock HTTP/1.1", "X-Ticket: x\r\n", start), 404);
        assert_eq!(endless("POST /resource HTTP/1.1", "", start), 408);
        let long = format!("32\r\n{}\r\n", " ".repeat(50));
        assert_eq!(endless("POST /resource HTTP/1.1", "", &long), 413);
        serves(&app);
    }

    fn a_connection_goes_on_after_a_chunked_body_that_ended(store) {
        let app = Server::start(store);
        let mut connection = app.connect();
        for status in [201, 409] {
            connection.write(&head(&app, "POST /resource HTTP/1.1", "Transfer-Encoding: chunked\r\n"));
            connection.write(b"5\r\n{\"nam\r\n7\r\ne\":\"a\"}\r\n0\r\n\r\n");
            assert_eq!(connection.answer().status, status);
        }
        connection.write(&head(&app, "PUT /nowhere HTTP/1.1", "Transfer-Encoding: chunked\r\n"));
        connection.write(b"2\r\n{}\r\n0\r\n\r\n");
        assert_eq!(connection.answer().status, 404);
    }
}
