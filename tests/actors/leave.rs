//! Names that go to another instance, seen from inside.

use actix::prelude::*;
use small_resource_server::lock::{Answer, ResourceName};
use small_resource_server::registry::actor::Find;
use small_resource_server::resource::messages::{Reply, Wait};
use small_resource_server::shared::caller::Caller;
use small_resource_server::shared::gate::Closed;
use small_resource_server::shared::registry_notice::RegistryNotice;
use small_resource_server::store::members::Slot;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::bed::{Bed, DEADLINE, DESCRIBE, NEVER, acquire, name, write};

const MOVING: Reply = Reply::Closed(Closed::Moving);

/// The store is shared, and every name is this instance's.
async fn start() -> Bed {
    let bed = Bed::start(1 << 20, NEVER).await;
    bed.server.slots.share();
    Slot::all().for_each(|slot| bed.server.slots.gain(slot, 0));
    bed.create("printer").await;
    bed
}

fn slot() -> Slot {
    Slot::of(&name("printer"))
}

/// Nobody is answered for the name any more; ready with `true` once its actor is gone.
fn leave(bed: &Bed) -> JoinHandle<bool> {
    bed.server.slots.leave(slot());
    let (left, all_left) = oneshot::channel();
    let slots = vec![slot()];
    bed.registry.do_send(RegistryNotice::Leave { slots, left });
    actix_rt::spawn(async move { all_left.await.is_ok() })
}

async fn in_time<T>(what: JoinHandle<T>) -> T {
    let done = tokio::time::timeout(DEADLINE, what).await;
    done.expect("never ended").unwrap()
}

async fn is_known(bed: &Bed, of: ResourceName) -> bool {
    let home = Arbiter::current();
    bed.registry
        .send(Find { name: of, home })
        .await
        .unwrap()
        .is_some()
}

#[test]
fn who_waits_is_asked_to_go_on_elsewhere_and_nobody_is_answered_any_more() {
    System::new().block_on(async {
        let bed = start().await;
        bed.hold("printer").await;
        let wait = Wait::For(DEADLINE);
        let waiting = bed.begin("printer", acquire(None, wait)).await;
        assert!(in_time(leave(&bed)).await);
        assert_eq!(in_time(waiting).await, MOVING);
        assert_eq!(bed.ask("printer", DESCRIBE).await, MOVING);
        assert!(!is_known(&bed, name("printer")).await);
        assert_eq!(bed.server.metrics.held(), 0, "of another instance");
        assert_eq!(bed.server.waiters(), 0);
        // Back again: with everything that was stored.
        bed.server.slots.gain(slot(), bed.server.mono());
        assert!(bed.describe("printer").await.locked);
    });
}

#[test]
fn what_is_being_stored_is_stored_and_told_before_a_name_leaves() {
    System::new().block_on(async {
        let bed = start().await;
        *bed.store.held_up.lock().unwrap() = Some(name("printer"));
        let writing = bed.begin("printer", write("s", "1")).await;
        let left = leave(&bed);
        // The actor has heard of it by then, and takes nothing more.
        assert!(!is_known(&bed, name("printer")).await);
        assert_eq!(bed.ask("printer", DESCRIBE).await, MOVING);
        assert!(!left.is_finished());
        *bed.store.held_up.lock().unwrap() = None;
        assert!(in_time(left).await);
        let written = in_time(writing).await;
        assert!(matches!(written, Reply::Written { .. }), "{written:?}");
    });
}

#[test]
fn a_grant_that_nobody_took_of_a_name_that_has_left_is_to_be_released_elsewhere() {
    System::new().block_on(async {
        let bed = start().await;
        let mut to_release = bed.server.undelivered_grants.to_release().unwrap();
        let lock = acquire(None, Wait::NoQueue);
        let (reply, call) = bed
            .router
            .ask(&name("printer"), &lock, Caller::nobody())
            .await;
        let Reply::Lock(Answer::Granted(grant)) = *reply else {
            panic!("{reply:?}");
        };
        assert!(in_time(leave(&bed)).await);
        drop(call);
        let released = tokio::time::timeout(DEADLINE, to_release.recv()).await;
        assert_eq!(released.unwrap(), Some((name("printer"), grant.ticket)));
    });
}
