//! Held resources that sleep, seen from inside: messages that find nobody awake, and a store that cannot
//! be read when they are to wake. What clients see is in `tests/api/sleep.rs`.

use std::sync::atomic::Ordering;

use actix::prelude::*;
use small_resource_server::lock::{Answer, RequestId};
use small_resource_server::resource::messages::{Call, Reply, Wait};
use small_resource_server::shared::caller::Caller;
use small_resource_server::shared::gate::Closed;
use small_resource_server::shared::registry_notice::RegistryNotice;
use small_resource_server::shared::resource_notice::ResourceNotice;
use small_resource_server::shared::server_state::ServerState;
use tokio::sync::oneshot;

use crate::bed::{Bed, DESCRIBE, acquire};

const PRINTER: &str = "printer";

async fn start() -> Bed {
    let bed = Bed::start(1 << 20, 100).await;
    bed.create(PRINTER).await;
    bed
}

/// Takes the lock; says the request, and the actor that it was granted by.
async fn hold(bed: &Bed) -> (RequestId, Recipient<ResourceNotice>) {
    let actor = bed.actor(PRINTER).await;
    let (reply, answer) = oneshot::channel();
    let request = bed.server.next_requests(1);
    actor.do_send(Box::new(Call {
        request,
        op: acquire(None, Wait::NoQueue),
        caller: Caller::nobody().clone(),
        reply,
    }));
    let answer = answer.await.unwrap();
    assert!(matches!(*answer, Reply::Lock(Answer::Granted(_))));
    (request, actor.recipient())
}

async fn until_asleep(bed: &Bed) {
    let asleep = |server: &ServerState| server.metrics.actors_asleep.get() == 1;
    bed.until("it sleeps", asleep).await;
}

fn held(bed: &Bed) -> i64 {
    bed.server.metrics.held()
}

#[test]
fn a_grant_whose_client_turns_out_to_be_gone_is_taken_back_from_a_sleeper() {
    System::new().block_on(async {
        let bed = start().await;
        let (request, actor) = hold(&bed).await;
        until_asleep(&bed).await;
        actor.do_send(ResourceNotice::Vanished(request));
        let free = |server: &ServerState| server.metrics.held() == 0;
        bed.until("the lock is free", free).await;
        assert!(!bed.describe(PRINTER).await.locked);
    });
}

#[test]
fn a_lease_goes_on_though_the_store_could_not_be_read_for_a_while() {
    System::new().block_on(async {
        let bed = start().await;
        let (request, actor) = hold(&bed).await;
        let before = bed.describe(PRINTER).await.holders.remove(0);
        until_asleep(&bed).await;
        bed.store.unreadable.store(true, Ordering::SeqCst);
        assert_eq!(
            bed.ask(PRINTER, DESCRIBE).await,
            Reply::Closed(Closed::StoreAway)
        );
        until_asleep(&bed).await;
        assert_eq!(held(&bed), 1);
        bed.store.unreadable.store(false, Ordering::SeqCst);
        let after = bed.describe(PRINTER).await.holders.remove(0);
        assert_eq!(after.token, before.token);
        // The two clocks are read one after the other.
        let moved = after
            .expires_at
            .unwrap()
            .abs_diff(before.expires_at.unwrap());
        assert!(moved < 50, "by {moved} ms");

        until_asleep(&bed).await;
        bed.store.unreadable.store(true, Ordering::SeqCst);
        actor.do_send(ResourceNotice::Vanished(request));
        assert_eq!(
            bed.ask(PRINTER, DESCRIBE).await,
            Reply::Closed(Closed::StoreAway)
        );
        until_asleep(&bed).await;
        bed.store.unreadable.store(false, Ordering::SeqCst);
        assert!(
            !bed.describe(PRINTER).await.locked,
            "that its client is gone is not forgotten"
        );
    });
}

#[test]
fn nothing_that_slept_is_believed_when_the_store_was_in_doubt() {
    System::new().block_on(async {
        let bed = start().await;
        hold(&bed).await;
        let before = bed.describe(PRINTER).await.holders.remove(0);
        until_asleep(&bed).await;
        bed.server.next_incarnation();
        bed.registry
            .do_send(RegistryNotice::DiscardAll(Closed::StoreAway));
        let none = |server: &ServerState| server.metrics.actors_asleep.get() == 0;
        bed.until("none sleeps", none).await;
        assert_eq!(held(&bed), 0);
        let after = bed.describe(PRINTER).await.holders.remove(0);
        assert_eq!((after.token, held(&bed)), (before.token, 1));
        assert!(after.expires_at > before.expires_at, "its TTL runs anew");
    });
}
