//! A database that version 2.0.0 served until it was killed: this version goes on where that one ended.

use serde_json::{Value, json};

use crate::support::{Database, Server, Setup, Store, wait};

/// What is in its tables, and what is in its journal alone: there, a lease ended by release, by expiry and by force, others
/// began and were renewed, waiters came and left, and locks were made.
const LEFT: &str = include_str!("../data/crash-2.0.0.sql");

/// The ticket that this client had been given.
fn ticket(client: &str) -> &'static str {
    let of_client = |line: &'static str| line.strip_prefix("--   ")?.split_once(' ');
    let mut tickets = LEFT.lines().filter_map(of_client);
    let found = tickets.find(|(name, _)| *name == client);
    found.expect("a client of the script").1
}

/// Version 2.0.0 knew this name, which is longer in bytes than in characters.
const SIZE: &str = "gr%C3%B6%C3%9Fe%20%F0%9F%94%92";

/// The server on such a database. `None`: skipped.
fn opened() -> Option<(Database, Server)> {
    let database = Database::new()?;
    wait(async {
        database.make_2_0_0().await;
        database.run_script(LEFT).await;
    });
    let journal = "SELECT COUNT(*) FROM resource_journal WHERE ASCII(changes) = 1";
    assert_eq!(wait(database.number(journal)), 16);
    // The one that was killed is waited for as long as it might have lived.
    let setup = Setup::on(Store::Memory).mysql(&database.options());
    let server = setup.with("INSTANCE_LEASE_SECONDS", "3").serve();
    Some((database, server))
}

/// Of places or holders; `nobody` gave none.
fn owners(places: &Value) -> Vec<&str> {
    let places = places.as_array().unwrap();
    let owners = places.iter().map(|place| place["owner"].as_str());
    owners.map(|owner| owner.unwrap_or("nobody")).collect()
}

#[test]
fn whoever_held_or_waited_when_version_2_0_0_was_killed_still_does() {
    let Some((_database, server)) = opened() else {
        return;
    };
    for (name, holder, token, ttl, waiters) in [
        ("printer", "bob", 2, 2000, &["carol", "nobody", "dave"][..]),
        ("plotter", "heidi", 1, 1200, &["judy"]),
        (SIZE, "Zoë", 3, 4500, &["frank", "grace"]),
    ] {
        let described = server.described(name);
        assert_eq!(owners(&described["holders"]), [holder]);
        assert_eq!(owners(&described["queue"]), waiters);
        let path = format!("{name}/s");
        let renewed = server.renew(&path, ticket(holder)).expect(200).json();
        assert_eq!(
            (&renewed["fencingToken"], &renewed["ttl"]),
            (&json!(token), &json!(ttl))
        );
        for (position, waiter) in (1..).zip(waiters) {
            let place = server.lock(&path).ticket(ticket(waiter)).queued();
            assert_eq!(place.ticket(), ticket(waiter));
            assert_eq!(place.json()["position"], position, "{waiter}");
        }
    }
    assert!(!server.is_locked("free"));
    server.describe("gone").refused(404, "resource_unknown");
    assert_eq!(
        server.data("printer/s"),
        r#"{"pages": 2, "by": "bob's \\ \"ü\""}"#
    );
    assert_eq!(server.data(&format!("{SIZE}/s")), "[]");
}

#[test]
fn why_tickets_of_version_2_0_0_ended_is_still_known() {
    let Some((_database, server)) = opened() else {
        return;
    };
    for (name, client, code) in [
        ("printer", "ann", "ticket_released"),
        ("plotter", "ivan", "ticket_released"),
        ("free", "first", "ticket_released"),
        (SIZE, "mallory", "lease_expired"),
        (SIZE, "eve", "lease_forced_off"),
    ] {
        let renew = server.renew(&format!("{name}/s"), ticket(client));
        renew.refused(403, code);
    }
}

#[test]
fn a_retry_of_what_version_2_0_0_was_asked_finds_its_ticket() {
    let Some((_database, server)) = opened() else {
        return;
    };
    let attempt = |name: &str, key: &str, body: Value| {
        let lock = server.lock(&format!("{name}/s")).json(&body);
        lock.idempotency_key(key).expect(200).ticket()
    };
    let zoe = attempt(SIZE, "zoe-1", json!({"owner": "Zoë"}));
    assert_eq!(zoe, ticket("Zoë"));
    let judy = attempt("plotter", "judy-1", json!({"owner": "judy"}));
    assert_eq!(judy, ticket("judy"));
    let carol = attempt("printer", "carol-1", json!({"owner": "carol", "ttl": 900}));
    assert_eq!(carol, ticket("carol"));
    let other = server.lock("printer/s").idempotency_key("carol-1");
    other.owner("carol").refused(409, "idempotency_key_reused");
}

#[test]
fn tokens_grow_on_from_those_that_version_2_0_0_gave_out() {
    let Some((_database, server)) = opened() else {
        return;
    };
    server.unlock("printer/s", ticket("bob")).expect(200);
    let carol = server.lock("printer/s").ticket(ticket("carol")).granted();
    assert_eq!((carol.token(), &carol.json()["ttl"]), (3, &json!(900)));
    let path = format!("{SIZE}/s");
    server.unlock(&path, ticket("Zoë")).expect(200);
    let frank = server.lock(&path).ticket(ticket("frank")).granted();
    assert_eq!(frank.token(), 4);
    assert_eq!(server.hold("free/s").1, 5);
    // It had been deleted after its third lease.
    server.create("gone", 0).expect(201);
    assert_eq!(server.hold("gone/s").1, 4);
}
