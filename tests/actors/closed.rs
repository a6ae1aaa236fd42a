//! A gate that closes while requests are under way.

use std::time::Duration;

use actix::System;
use small_resource_server::actors::messages::Wait;
use small_resource_server::actors::{Closed, Reply, Shell};

use crate::bed::{Bed, NEVER, acquire, name};

/// As in a process that was paused for longer than the store is ours without a sign of life.
#[test]
fn a_lease_that_nobody_may_be_told_of_is_taken_back() {
    System::new().block_on(async {
        let bed = Bed::start(1 << 20, NEVER).await;
        bed.create("printer").await;
        *bed.store.held_up.lock().unwrap() = Some(name("printer"));
        let lock = bed.begin("printer", acquire(None, Wait::NoQueue)).await;
        bed.shell.gate.close(Closed::StoreAway);
        *bed.store.held_up.lock().unwrap() = None;
        assert_eq!(lock.await.unwrap(), Reply::Closed(Closed::StoreAway));
        bed.shell.gate.open();
        let free = |shell: &Shell| shell.metrics.locks.held() == 0;
        bed.until("it is taken back", free).await;
        assert!(!bed.describe("printer").await.locked);
    });
}

#[test]
fn whoever_would_wait_when_the_server_stops_is_told_so_at_once() {
    System::new().block_on(async {
        let bed = Bed::start(1 << 20, NEVER).await;
        bed.create("printer").await;
        bed.hold("printer").await;
        bed.shell.gate.stop();
        let wait = Wait::For(Duration::from_secs(600));
        let reply = bed.ask("printer", acquire(None, wait)).await;
        assert_eq!(reply, Reply::Closed(Closed::Stopping));
        assert_eq!(bed.describe("printer").await.waiting, 0);
        assert_eq!(bed.shell.waiters(), 0);
    });
}
