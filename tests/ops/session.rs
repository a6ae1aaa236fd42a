//! What can happen to a lock, for tests that look at what was told of it.

use serde_json::json;

use crate::support::{Client, Connection, until};

/// Takes the lock, which must be free; the ticket.
pub fn hold(server: &Client, name: &str, owner: &str) -> String {
    let lock = server.lock(&format!("{name}/s")).owner(owner);
    lock.granted().ticket()
}

/// A request that waits for the lock; it is in the queue when this returns.
pub fn wait(server: &Client, name: &str, owner: &str) -> Connection {
    server.wait_with(server.lock(&format!("{name}/s")).owner(owner))
}

/// Everything that can happen to a lock happens once. The tickets that were given out.
pub fn session(server: &Client) -> Vec<String> {
    server.create("printer", 0).expect(201);
    let first = hold(server, "printer", "first");
    let mut waiter = wait(server, "printer", "second");
    let third = server.lock("printer/s").owner("third").queued().ticket();
    server.unlock("printer/s", &first).expect(200);
    let second = waiter.answer().ticket();
    let write = server.put("printer/s", "[1]").ticket(&second);
    write.expect(204);
    let force = server.force_unlock("printer");
    let forced = force
        .body(r#"{"reason": "its owner went home"}"#)
        .expect(200);
    assert_eq!(forced.json()["forced"], true);
    write.refused(403, "lease_forced_off");
    let held = server.lock("printer/s").owner("third").ticket(&third);
    held.granted();
    server.delete("printer/s").ticket(&third).expect(204);
    server.describe("printer").no_key().expect(401);
    server.create("brief", 0).expect(201);
    let brief = server.lock("brief/s").json(&json!({"ttl": 1}));
    let expiring = brief.expect(200).ticket();
    until("the lease expires", || !server.is_locked("brief"));
    server.delete("printer").ticket(&third).expect(204);
    vec![first, second, third, expiring]
}
