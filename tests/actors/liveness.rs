//! Actors that everybody needs, and that a panic ends; and panics of a driver, which end nobody.

use std::sync::atomic::Ordering;

use actix::System;
use small_resource_server::lock::Refusal;
use small_resource_server::resource::messages::Reply;
use small_resource_server::shared::gate::Closed;
use small_resource_server::shared::liveness::Failure;
use small_resource_server::shared::server_state::{PERSISTENCE, REGISTRY, ServerState};

use crate::bed::{Bed, DEADLINE, NEVER, read, write};

async fn failure(bed: &Bed) -> Failure {
    let failed = tokio::time::timeout(DEADLINE, bed.server.failure()).await;
    failed.expect("it is noticed")
}

#[test]
fn a_registry_that_is_gone_is_a_failure_of_the_process() {
    System::new().block_on(async {
        let bed = Bed::start(1 << 20, NEVER).await;
        // The registry asks now and then whether the store hangs.
        bed.store.breaks_its_caller.store(true, Ordering::SeqCst);
        while bed.registry.connected() {
            tokio::task::yield_now().await;
        }
        bed.store.breaks_its_caller.store(false, Ordering::SeqCst);
        assert_eq!(failure(&bed).await, Failure::Gone(REGISTRY));
    });
}

#[test]
fn a_writer_to_the_store_that_is_gone_is_a_failure_of_the_process() {
    System::new().block_on(async {
        let bed = Bed::start(1 << 20, NEVER).await;
        bed.create("a").await;
        // The store is lost; opened again, it is asked for its times.
        bed.store.failures.store(1, Ordering::SeqCst);
        bed.store.breaks_its_caller.store(true, Ordering::SeqCst);
        let reply = bed.ask("a", write("s", "1")).await;
        assert_eq!(reply, Reply::Closed(Closed::StoreAway));
        let failed = failure(&bed).await;
        let parts = [PERSISTENCE, REGISTRY].map(Failure::Gone);
        // The registry asks too, a second later at the latest.
        assert!(parts.contains(&failed), "{failed:?}");
    });
}

#[test]
fn a_driver_that_panics_fails_that_call_alone() {
    System::new().block_on(async {
        let bed = Bed::start(1 << 20, NEVER).await;
        bed.create("a").await;
        bed.store.driver_panics.store(true, Ordering::SeqCst);
        let reply = bed.ask("b", read("s")).await;
        assert_eq!(reply, Reply::Closed(Closed::StoreAway));
        assert_eq!(bed.server.gate.check(), Ok(()));
        bed.put("a", "s", "1").await;
        bed.store.driver_panics.store(false, Ordering::SeqCst);
        assert_eq!(
            bed.ask("b", read("s")).await,
            Reply::Refused(Refusal::NoResource, None)
        );
        assert_eq!(bed.server.incarnation(), 1);
    });
}

#[test]
fn a_driver_that_panics_while_the_store_is_opened_is_called_again() {
    System::new().block_on(async {
        let bed = Bed::start(1 << 20, NEVER).await;
        bed.create("a").await;
        bed.store.driver_panics.store(true, Ordering::SeqCst);
        bed.store.failures.store(1, Ordering::SeqCst);
        let reply = bed.ask("a", write("s", "1")).await;
        assert_eq!(reply, Reply::Closed(Closed::StoreAway));
        let says_so = |server: &ServerState| {
            server
                .gate
                .reason()
                .contains("a bug in the database driver")
        };
        bed.until("opening it failed", says_so).await;
        bed.store.driver_panics.store(false, Ordering::SeqCst);
        bed.until("it serves", |server| server.gate.check().is_ok())
            .await;
        bed.put("a", "s", "2").await;
    });
}
