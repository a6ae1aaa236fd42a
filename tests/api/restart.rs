//! Stop and start: what outlives the process and what begins anew.

use crate::harness::{Server, Store};

#[test]
fn nothing_in_memory_outlives_the_process() {
    let mut app = Server::start(Store::Memory);
    app.prepare("printer");
    app.restart_with(&[]);
    assert!(app.names().is_empty());
    app.create("printer", 0).expect(201);
    app.read("printer/s").refused(404, "selector_unknown");
}
