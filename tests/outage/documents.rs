//! Documents that are accepted as bodies and that the database cannot take, and documents that take their time.

use crate::instance::serving;
use crate::private::PrivateServer;
use crate::support::{Database, Setup, until};
use crate::wait;

#[test]
fn a_document_larger_than_a_packet_is_413_and_costs_nobody_anything() {
    let Some(mut server) = PrivateServer::new(&["--max-allowed-packet=1M"]) else {
        return;
    };
    server.start();
    let instance = serving(&server.options());
    instance.prepare("printer");
    let (ticket, token) = instance.hold("printer/s");
    let mut waiting = instance.lock("printer/s").query("wait=60").open();
    until("it waits", || instance.described("printer")["waiting"] == 1);
    let plain = format!("\"{}\"", "x".repeat(1_500_000));
    // Escaped for the database it takes twice its size.
    let escaped = format!("\"{}\"", "\\\\".repeat(300_000));
    for document in [&plain, &escaped] {
        let refused = instance
            .put("printer/s", document)
            .ticket(&ticket)
            .refused(413, "document_too_large");
        assert_eq!(refused.header("Retry-After"), None);
    }
    assert!(waiting.is_silent(), "the waiter lost its place");
    let largest = format!("\"{}\"", "x".repeat(1_000_000));
    let written = instance
        .put("printer/s", &largest)
        .ticket(&ticket)
        .settled();
    assert_eq!((written.status, written.token()), (204, token));
    assert!(instance.data("printer/s") == largest);
    assert_eq!(instance.unlock("printer/s", &ticket).settled().status, 200);
    assert_eq!(waiting.answer().json()["locked"], true);
    let log = instance.lines();
    let complaints: Vec<_> = log.iter().filter(|line| line.contains("ERROR")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn a_lease_is_renewed_and_a_place_taken_when_the_request_is_read_not_when_its_document_is() {
    let Some(database) = Database::new() else {
        return;
    };
    let setup = Setup::new().mysql(&database.options());
    let patient = [("DATA_CACHE_BYTES", "0"), ("STORE_TIMEOUT_SECONDS", "60")];
    let instance = setup.with_all(&patient).start();
    instance.prepare("printer");
    let (ticket, _) = instance.hold_with(instance.lock("printer/s").body(r#"{"ttl":3000}"#));
    let expires_at = instance.expires_at("printer");

    // No document is read while somebody else has the table to itself.
    let admin = wait(database.hold_table("resource_data"));
    std::thread::sleep(std::time::Duration::from_millis(5));
    let mut holder = instance.get("printer/s").ticket(&ticket).open();
    until("it is renewed", || {
        instance.expires_at("printer") > expires_at
    });
    let mut first = instance.get("printer/s").query("wait=60").open();
    until("it has its place", || instance.waiting("printer") == 1);
    let second = instance.lock("printer/s").expect(200);
    assert_eq!(second.json()["position"], 2);
    assert!(
        holder.is_silent() && first.is_silent(),
        "without a document"
    );

    drop(admin);
    assert_eq!(holder.answer().status, 200);
    instance.unlock("printer/s", &ticket).expect(200);
    assert_eq!(first.answer().status, 200);
}
