//! The client for programs without a runtime.

use std::time::Duration;

use crate::server::Server;
use small_resource_client::blocking::Client;

#[test]
fn a_program_without_a_runtime_holds_its_lock_for_as_long_as_it_works() {
    let server = Server::start();
    let one = Client::new(server.client("one")).unwrap();
    let ttl = Duration::from_secs(3);
    let guard = one
        .acquire(|locks| locks.lock("a").ttl(ttl).create(true))
        .unwrap();
    // Longer than the lease; nobody calls anything meanwhile.
    std::thread::sleep(ttl + Duration::from_secs(1));
    guard.check().unwrap();
    guard.write("n", &1).unwrap();
    assert_eq!(guard.read::<u32>("n").unwrap(), Some(1));
    let two = Client::new(server.client("two")).unwrap();
    assert!(two.try_acquire(|locks| locks.lock("a")).unwrap().is_none());
    let token = guard.fencing_token().unwrap();
    let guard = two.resume(guard.into_ticket()).unwrap();
    assert_eq!(guard.fencing_token().unwrap(), token);
    guard.release().unwrap();
    assert!(!one.describe("a").unwrap().unwrap().locked);
}
