//! Documents that are accepted as bodies and that the database cannot take.

use crate::instance::serving;
use crate::private::PrivateServer;
use crate::support::until;

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
