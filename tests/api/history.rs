//! GET `/history/{name}`.

use serde_json::{Value, json};

use crate::support::{Client, LOCK, READ, STRANGE_TICKET, Server, eventually};

/// The leases of a name once there are this many.
fn leases(app: &Client, name: &str, count: usize) -> Vec<Value> {
    eventually("the leases are there", || {
        let answer = app.call("GET", &format!("/history/{name}")).expect(200);
        let leases = answer.json()["leases"].as_array().cloned()?;
        (leases.len() == count).then_some(leases)
    })
}

fn hold_and_release(app: &Client, owner: &str) -> u64 {
    let granted = app.lock("printer/s").owner(owner).granted();
    app.unlock("printer/s", &granted.ticket()).expect(200);
    granted.token()
}

api_tests! {
    fn a_lease_that_ended_is_told_with_all_that_is_known_of_it(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let body = json!({"owner": "worker-7", "reason": "nightly"});
        let granted = app.lock("printer/s").json(&body).granted();
        app.unlock("printer/s", &granted.ticket()).expect(200);
        let lease = leases(&app, "printer", 1).remove(0);
        assert_eq!(lease["owner"], "worker-7");
        assert_eq!(lease["reason"], "nightly");
        assert_eq!(lease["mode"], "exclusive");
        assert_eq!(lease["fencingToken"], granted.token());
        assert_eq!(lease["acquiredAt"], granted.json()["acquiredAt"]);
        assert_eq!(lease["end"], "released");
        assert_eq!(lease["forced"], Value::Null);
        assert_eq!(lease["queuedMs"], 0);
        assert!(lease["heldMs"].is_u64() && lease["endedAt"].is_string());
        assert!(!lease.to_string().contains(&granted.ticket()), "never a ticket");
    }

    fn a_lease_that_was_promoted_is_told_once_with_its_last_token(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let shared = app.lock("printer/s").body(r#"{"mode":"shared"}"#).granted();
        let promotion = app.lock("printer/s").ticket(&shared.ticket());
        let promoted = promotion.body(r#"{"mode":"exclusive"}"#).granted();
        app.unlock("printer/s", &shared.ticket()).expect(200);
        let lease = leases(&app, "printer", 1).remove(0);
        assert_eq!(lease["fencingToken"], promoted.token());
        assert_eq!(lease["mode"], "exclusive");
        assert_eq!(lease["acquiredAt"], shared.json()["acquiredAt"]);
    }

    fn the_newest_comes_first_and_so_many_are_kept(store) {
        let app = Server::start_with(store, &[("HISTORY_PER_RESOURCE", "3")]);
        app.create("printer", 0).expect(201);
        let tokens: Vec<u64> = (0..5).map(|n| hold_and_release(&app, &format!("w{n}"))).collect();
        let leases = leases(&app, "printer", 3);
        let told: Vec<u64> = leases.iter().filter_map(|lease| lease["fencingToken"].as_u64()).collect();
        assert_eq!(told, [tokens[4], tokens[3], tokens[2]]);
        let one = app.call("GET", "/history/printer?limit=1").expect(200).json();
        assert_eq!(one["leases"].as_array().map(Vec::len), Some(1));
        assert_eq!(one["leases"][0]["fencingToken"], tokens[4]);
    }

    fn each_end_has_its_name_and_a_forced_one_says_by_whom_and_why(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        app.lock("printer/s").json(&json!({"ttl": 0.05})).granted();
        assert_eq!(leases(&app, "printer", 1)[0]["end"], "expired");
        app.hold("printer/s");
        app.force_unlock("printer").json(&json!({"reason": "it hangs"})).expect(200);
        let forced = leases(&app, "printer", 2).remove(0);
        assert_eq!(forced["end"], "forced_off");
        assert_eq!(forced["forced"], json!({"reason": "it hangs", "by": "admin"}));
        let (ticket, _) = app.hold("printer/s");
        app.call("DELETE", "/resource/printer").ticket(&ticket).expect(204);
        assert_eq!(leases(&app, "printer", 3)[0]["end"], "deleted");
    }

    fn it_can_be_turned_off(store) {
        let app = Server::start_with(store, &[("HISTORY_PER_RESOURCE", "0")]);
        app.create("printer", 0).expect(201);
        hold_and_release(&app, "worker");
        leases(&app, "printer", 0);
    }

    fn an_ephemeral_name_is_remembered_while_it_does_not_exist(store) {
        let app = Server::start(store);
        let granted = app.lock("once/s").query("create=1").owner("worker").granted();
        app.unlock("once/s", &granted.ticket()).expect(200);
        app.describe("once").refused(404, "resource_unknown");
        assert_eq!(leases(&app, "once", 1)[0]["owner"], "worker");
    }

    fn what_is_asked_wrongly_is_refused(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        app.call("GET", "/history/never").refused(404, "resource_unknown");
        app.call("GET", "/history/printer").no_key().refused(401, "key_missing");
        app.call("GET", "/history/printer").key(READ).expect(200);
        app.call("POST", "/history/printer").key(LOCK).expect(405);
        app.call("GET", "/history/printer?limit=0").refused(400, "malformed");
        app.call("GET", "/history/a%2").refused(400, "malformed");
        app.call("GET", "/history/printer").ticket(STRANGE_TICKET).expect(200);
    }
}

mod after_a_restart {
    use super::*;

    durable_tests! {
        fn the_history_is_still_there(store) {
            let mut app = Server::start(store);
            app.create("printer", 0).expect(201);
            hold_and_release(&app, "before");
            app.restart_with(&[]);
            hold_and_release(&app, "after");
            let owners: Vec<Value> = leases(&app, "printer", 2).iter().map(|l| l["owner"].clone()).collect();
            assert_eq!(owners, ["after", "before"]);
        }
    }
}
