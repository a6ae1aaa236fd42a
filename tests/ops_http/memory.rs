//! A small container: what is kept in memory is bounded by what the container may have.

use crate::support::{ControlGroup, Setup};

const LIMIT: u64 = 256 << 20;
/// Of 2 MB each: more than there is memory for.
const DOCUMENTS: usize = 140;

#[test]
fn many_large_documents_fit_a_container_of_256_mib_by_default() {
    let Some(group) = ControlGroup::limited_to(LIMIT) else {
        return;
    };
    let mut server = Setup::new().sqlite().within(&group).start();
    let document = format!("\"{}\"", "x".repeat(2_000_000));
    let mut waiters = Vec::new();
    for n in 0..DOCUMENTS {
        let name = format!("r{n}");
        server.create(&name, 0).expect(201);
        let (ticket, _) = server.hold(&format!("{name}/d"));
        // What somebody waits for does not leave memory by itself.
        waiters.push(server.lock(&format!("{name}/d")).query("wait=300").open());
        let written = server.put(&format!("{name}/d"), &document).ticket(&ticket);
        written.expect(204);
    }
    for n in (0..DOCUMENTS).step_by(10) {
        let read = server.read(&format!("r{n}/d")).expect(200);
        assert!(read.body.len() > document.len());
    }
    assert!(server.is_running());
    assert!(server.memory() < LIMIT, "{}", server.memory());
    drop(server);
}
