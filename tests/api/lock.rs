//! PUT or POST `/resource/{name}/{selector}/lock`.

use serde_json::{Value, json};

use crate::stores::check_granted;
use crate::support::{STRANGE_TICKET, Server, is_ticket, until};

fn is_time(value: &Value) -> bool {
    let Some(text) = value.as_str() else {
        return false;
    };
    let pattern = "dddd-dd-ddTdd:dd:dd.dddZ";
    text.len() == pattern.len()
        && text.bytes().zip(pattern.bytes()).all(|(c, p)| match p {
            b'd' => c.is_ascii_digit(),
            other => c == other,
        })
}

api_tests! {
    fn put_and_post_both_lock(store) {
        let app = Server::start(store);
        app.prepare("printer");
        for method in ["PUT", "POST"] {
            let answer = app.call(method, "/resource/printer/s/lock").expect(200);
            check_granted(&answer);
            app.unlock("printer/s", &answer.ticket()).expect(200);
        }
    }

    fn a_granted_lock_tells_all_about_the_lease(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let body = json!({"owner": "a \"quoted\" owner", "ttl": 30}).to_string();
        let answer = app.lock("printer/s").body(body).expect(200);
        check_granted(&answer);
        assert!(is_ticket(&answer.ticket()));
        let lease = answer.json();
        assert_eq!(lease["owner"], "a \"quoted\" owner");
        assert_eq!(lease["ttl"], 30);
        assert!(is_time(&lease["acquiredAt"]), "{lease}");
        assert!(is_time(&lease["expiresAt"]), "{lease}");
        assert!(lease["acquiredAt"].as_str() < lease["expiresAt"].as_str());
        let keys = [
            "locked", "ticket", "fencingToken", "owner", "ttl", "acquiredAt", "expiresAt", "expiresInMs", "waitedMs", "mode",
        ];
        assert_eq!((&lease["waitedMs"], &lease["mode"]), (&json!(0), &json!("exclusive")));
        assert_eq!(answer.header("X-Waited-Ms"), Some("0"));
        assert_eq!(lease.as_object().unwrap().len(), keys.len());
        assert!(keys.iter().all(|key| lease.get(key).is_some()), "{lease}");
    }

    fn a_lease_without_ttl_and_timeout_never_expires(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        for body in ["", "{}", r#"{"ttl":0}"#, r#"{"ttl":null,"owner":null}"#] {
            let answer = app.lock("printer/s").body(body).expect(200);
            let lease = answer.json();
            assert_eq!(lease["ttl"], 0, "{body}");
            assert!(lease["expiresAt"].is_null() && lease["owner"].is_null(), "{lease}");
            app.unlock("printer/s", &answer.ticket()).expect(200);
        }
    }

    fn a_lease_s_own_ttl_goes_before_the_resource_s_timeout(store) {
        let app = Server::start(store);
        app.create("printer", 300).expect(201);
        for (body, ttl) in [("", 300), (r#"{"ttl":30}"#, 30), (r#"{"ttl":"45"}"#, 45), (r#"{"ttl":0}"#, 0)] {
            let answer = app.lock("printer/s").body(body).expect(200);
            assert_eq!(answer.json()["ttl"], ttl, "{body}");
            assert_eq!(answer.json()["expiresAt"].is_null(), ttl == 0, "{body}");
            app.unlock("printer/s", &answer.ticket()).expect(200);
        }
    }

    fn a_number_above_0_is_never_read_as_0(store) {
        let app = Server::start(store);
        let tiny = format!("0.{}1", "0".repeat(400));
        let quoted = format!("\"{tiny}\"");
        let above_0 = ["0.0001", "1e-9", "1e-400", "0.0014", "\"0.00001\"", tiny.as_str(), quoted.as_str()];
        for (number, ttl) in above_0.into_iter().enumerate() {
            let lock = app.lock(&format!("job:{number}/s")).query("create=1");
            let lease = lock.body(format!("{{\"ttl\":{ttl}}}")).expect(200).json();
            assert_eq!(lease["ttl"], 0.001, "{ttl}");
        }
        for field in ["timeout", "lockDelay"] {
            let body = format!("{{\"name\":\"printer\",\"{field}\":1e-400}}");
            app.call("POST", "/resource").body(body).refused(400, "malformed");
        }
    }

    fn a_ttl_is_decimal_seconds(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let read = [
            ("1.5", json!(1.5)), ("\"1.5\"", json!(1.5)), ("3e1", json!(30)), ("30.0", json!(30)), ("0e400", json!(0)),
            ("-0.0", json!(0)), ("2147483647", json!(2_147_483_647)), ("null", json!(0)), ("2147483646.999", json!(2_147_483_646.999)),
        ];
        for (number, (ttl, shown)) in read.into_iter().enumerate() {
            let lock = app.lock(&format!("job:{number}/s")).query("create=1");
            let lease = lock.body(format!("{{\"ttl\":{ttl}}}")).expect(200).json();
            assert_eq!(lease["ttl"], shown, "{ttl}");
        }
        for ttl in [
            "-1e-400", "2147483647.001", "1e300", "1e999", "\"\"", "\".\"", "\".5\"", "\"-1\"", "\"1e3\"", "[]",
        ] {
            let refused = app.lock("printer/s").body(format!("{{\"ttl\":{ttl}}}")).send();
            assert_eq!(refused.code(), "malformed", "{ttl}");
        }
    }

    fn a_taken_lock_tells_the_place_in_the_queue(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        app.hold("printer/s");
        for position in 1..=3 {
            let answer = app.lock("printer/s").expect(200);
            let ticket = answer.ticket();
            let queued = json!({"locked": false, "ticket": ticket, "position": position});
            assert_eq!(answer.json(), queued);
            assert_eq!(answer.header("X-Fencing-Token"), None);
            let again = app.lock("printer/s").ticket(&ticket).expect(200);
            assert_eq!(again.json(), queued);
        }
        assert_eq!(app.waiting("printer"), 3);
    }

    fn one_lock_per_name_whatever_the_selector(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        app.create("scanner", 0).expect(201);
        let (ticket, token) = app.hold("printer/a");
        app.queue("printer/b");
        app.hold("scanner/a");
        let kept = app.lock("printer/never-written").ticket(&ticket).expect(200);
        assert_eq!((kept.ticket(), kept.token()), (ticket, token));
    }

    fn queue_0_never_queues_and_tells_who_holds(store) {
        let app = Server::start(store);
        app.create("printer", 60).expect(201);
        let granted = app.lock("printer/s").query("queue=0").body(r#"{"owner":"first"}"#).expect(200);
        check_granted(&granted);
        for wait in ["", "&wait=0", "&wait=0.0"] {
            let refused = app.lock("printer/s").query(&format!("queue=0{wait}")).refused(409, "locked");
            let holder = refused.json()["holder"].clone();
            assert_eq!(holder["owner"], "first");
            assert_eq!(holder["fencingToken"], granted.token());
            assert_eq!(holder["acquiredAt"], granted.json()["acquiredAt"]);
            assert!(is_time(&holder["expiresAt"]));
            assert_eq!(holder.as_object().unwrap().len(), 4, "{holder}");
        }
        assert_eq!(app.waiting("printer"), 0);
        let kept = app.lock("printer/s").query("queue=0").ticket(&granted.ticket()).expect(200);
        assert_eq!(kept.token(), granted.token());
    }

    fn queue_0_with_a_wait_waits_in_line_and_leaves_with_the_409(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (ticket, _) = app.hold("printer/s");
        let refused = app.lock("printer/s").query("queue=0&wait=0.2").expect(409);
        assert_eq!((refused.code().as_str(), refused.header("Retry-After")), ("locked", Some("1")));
        assert_eq!(refused.json()["reserved"], false);
        assert_eq!(app.describe("printer").expect(200).json()["waiting"], 0);
        let waiting = app.queue("printer/s");
        app.lock("printer/s").ticket(&waiting).query("queue=0&wait=1").refused(400, "malformed");
        app.unlock("printer/s", &waiting).expect(200);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| app.lock("printer/s").query("queue=0&wait=60").expect(200));
            until("it waits", || app.waiting("printer") == 1);
            app.unlock("printer/s", &ticket).expect(200);
            let granted = waits.join().unwrap();
            check_granted(&granted);
            app.unlock("printer/s", &granted.ticket()).expect(200);
        });
        app.lock("printer/s").query("queue=maybe").refused(400, "malformed");
        assert!(!app.is_locked("printer"));
        check_granted(&app.lock("printer/s").query("queue=1&wait=1").expect(200));
    }

    fn wait_is_decimal_seconds_up_to_the_limit(store) {
        let app = Server::start_with(store, &[("MAX_WAIT_SECONDS", "7.5")]);
        app.create("printer", 0).expect(201);
        for wait in ["-1", "abc", "", "7.6", "8", "1e1", "0x1", "NaN", "inf", "+1", "1,5", " 1", ".", "1.2.3"] {
            let answer = app.lock("printer/s").query(&format!("wait={}", wait.replace(' ', "%20").replace('+', "%2B"))).send();
            assert_eq!((answer.status, answer.code().as_str()), (400, "malformed"), "{wait}");
        }
        assert!(!app.is_locked("printer"));
        for wait in ["0", "0.25", "7.5", "7", "007"] {
            let answer = app.lock("printer/s").query(&format!("wait={wait}")).expect(200);
            app.unlock("printer/s", &answer.ticket()).expect(200);
        }
    }

    fn the_limit_of_wait_is_300_seconds_unless_set(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (ticket, _) = app.hold("printer/s");
        app.lock("printer/s").ticket(&ticket).query("wait=300").expect(200);
        app.lock("printer/s").ticket(&ticket).query("wait=300.1").refused(400, "malformed");
        app.get("printer/s").ticket(&ticket).query("wait=301").refused(400, "malformed");
    }

    fn what_is_no_proper_body_is_400_and_takes_nothing(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let long_owner = format!(r#"{{"owner":"{}"}}"#, "o".repeat(256));
        let bodies = [
            "{", "[1]", "nul", "7", r#"{"ttl":-1}"#, r#"{"ttl":-0.5}"#, r#"{"ttl":"x"}"#, r#"{"ttl":2147483648}"#,
            r#"{"ttl":true}"#, r#"{"owner":7}"#, r#"{"owner":""}"#, r#"{"owner":"a\u0000"}"#, r#"{"reason":""}"#, r#"{"mode":"both"}"#, long_owner.as_str(),
        ];
        for body in bodies {
            let answer = app.lock("printer/s").body(body).send();
            assert_eq!((answer.status, answer.code().as_str()), (400, "malformed"), "{body}");
        }
        assert!(!app.is_locked("printer"));
    }

    fn an_unknown_resource_is_404(store) {
        let app = Server::start(store);
        app.lock("printer/s").refused(404, "resource_unknown");
        app.lock("printer/s").query("wait=30").refused(404, "resource_unknown");
        app.lock("printer/s").query("queue=0").refused(404, "resource_unknown");
    }

    fn tickets_are_never_adopted_from_a_client(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (unlike, _) = app.hold("printer/s");
        app.unlock("printer/s", &unlike).expect(200);
        for strange in [STRANGE_TICKET, "abc", "0", &"f".repeat(33), &"F".repeat(32)] {
            let answer = app.lock("printer/s").ticket(strange).expect(200);
            check_granted(&answer);
            assert_ne!(answer.ticket(), strange);
            assert_eq!(answer.header("X-Ticket-Ended"), None, "{strange}");
            app.unlock("printer/s", &answer.ticket()).expect(200);
        }
    }

    fn fencing_tokens_grow_with_every_grant_of_a_name(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let mut last = 0;
        for round in 0..5 {
            let answer = match round % 2 {
                0 => app.lock("printer/s").expect(200),
                _ => app.get("printer/s").expect(200),
            };
            assert!(answer.token() > last);
            last = answer.token();
            app.unlock("printer/s", &answer.ticket()).expect(200);
        }
    }

    fn every_answer_to_a_holder_carries_its_token(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (ticket, token) = app.hold("printer/s");
        let calls = [
            app.lock("printer/s"), app.get("printer/s"), app.read("printer/s"),
            app.put("printer/s", "2"), app.renew("printer/s", &ticket),
            app.get("printer/none"), app.read("printer/none"), app.delete("printer/none"),
        ];
        for call in calls {
            assert_eq!(call.ticket(&ticket).send().token(), token);
        }
    }

    fn many_at_once_make_one_holder_and_a_queue_without_gaps(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let open: Vec<_> = (0..24).map(|_| app.lock("printer/s").open()).collect();
        let bodies = open.into_iter().map(|mut connection| connection.answer().json());
        let (granted, queued): (Vec<Value>, Vec<Value>) = bodies.partition(|body| body["locked"] == true);
        assert_eq!(granted.len(), 1);
        let mut positions: Vec<u64> = queued.iter().map(|body| body["position"].as_u64().unwrap()).collect();
        positions.sort_unstable();
        assert_eq!(positions, (1..24).collect::<Vec<u64>>());
    }

    /// A lease of a second is over some time after that second, and never before.
    fn a_lease_ends_when_its_ttl_is_over_and_never_early(store) {
        let app = Server::start(store);
        app.create("printer", 1).expect(201);
        let before = std::time::Instant::now();
        let (ticket, _) = app.hold("printer/s");
        let mut waiter = app.lock("printer/s").query("wait=60").open();
        let granted = waiter.answer();
        assert!(before.elapsed().as_millis() >= 1000, "the lease ended early");
        check_granted(&granted);
        app.unlock("printer/s", &ticket).refused(403, "lease_expired");
    }

    fn max_lease_seconds_bounds_leases_that_would_never_end(store) {
        let app = Server::start_with(store, &[("MAX_LEASE_SECONDS", "1")]);
        app.create("printer", 0).expect(201);
        let before = std::time::Instant::now();
        let (ticket, _) = app.hold("printer/s");
        let mut waiter = app.lock("printer/s").query("wait=60").open();
        // Renewals are accepted, as long as the lease lasts, and do not help.
        let renewed = app.renew("printer/s", &ticket).body(r#"{"ttl":100}"#).send();
        assert!(renewed.status == 200 || before.elapsed().as_millis() >= 1000, "{renewed:?}");
        check_granted(&waiter.answer());
        assert!(before.elapsed().as_millis() >= 1000, "the lease ended early");
        app.renew("printer/s", &ticket).refused(403, "lease_expired");
    }
}
