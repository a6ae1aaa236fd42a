//! A gate that closes while requests are under way.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::System;
use small_resource_server::lock::PresentedTicket;
use small_resource_server::resource::messages::Wait;
use small_resource_server::resource::messages::{Op, Reply};
use small_resource_server::shared::gate::Closed;
use small_resource_server::shared::server_state::ServerState;
use small_resource_server::store::ListQuery;

use crate::bed::{Bed, NEVER, acquire, name};

/// As in a process that was paused for longer than the store is ours without a sign of life.
#[test]
fn a_lease_that_nobody_may_be_told_of_is_taken_back() {
    System::new().block_on(async {
        let bed = Bed::start(1 << 20, NEVER).await;
        bed.create("printer").await;
        *bed.store.held_up.lock().unwrap() = Some(name("printer"));
        let lock = bed.begin("printer", acquire(None, Wait::NoQueue)).await;
        bed.server.gate.close(Closed::StoreAway);
        *bed.store.held_up.lock().unwrap() = None;
        assert_eq!(lock.await.unwrap(), Reply::Closed(Closed::StoreAway));
        bed.server.gate.open();
        let free = |server: &ServerState| server.metrics.held() == 0;
        bed.until("it is taken back", free).await;
        assert!(!bed.describe("printer").await.locked);
    });
}

#[test]
fn a_listing_that_fails_costs_nobody_else_anything() {
    System::new().block_on(async {
        let bed = Bed::start(1 << 20, NEVER).await;
        bed.create("printer").await;
        let ticket = bed.hold("printer").await;
        bed.store.unlistable.store(true, Ordering::SeqCst);
        let all = || ListQuery {
            limit: 10,
            ..ListQuery::default()
        };
        assert_eq!(bed.router.page(all()).await, Err(Closed::StoreAway));
        assert_eq!(bed.server.incarnation(), 1);
        let presented = PresentedTicket::Ticket(ticket);
        let unlocked = bed.ask("printer", Op::Unlock { presented }).await;
        assert!(matches!(unlocked, Reply::Lock(_)), "{unlocked:?}");
        bed.store.unlistable.store(false, Ordering::SeqCst);
        let page = bed.router.page(all()).await.unwrap();
        assert_eq!(page.resources.len(), 1);
    });
}

#[test]
fn a_listing_that_the_store_ended_is_said_to_take_too_long() {
    System::new().block_on(async {
        let bed = Bed::start(1 << 20, NEVER).await;
        bed.create("printer").await;
        bed.store.slow_to_list.store(true, Ordering::SeqCst);
        let listed = bed.router.page(ListQuery {
            limit: 10,
            ..ListQuery::default()
        });
        assert_eq!(listed.await, Err(Closed::ListingTooLong));
        assert!(bed.server.gate.check().is_ok());
    });
}

/// After a start, as it is when it sleeps no more.
#[test]
fn a_resource_that_cannot_be_read_is_listed_as_it_is_stored() {
    System::new().block_on(async {
        let bed = Bed::start(1 << 20, 1).await;
        for name in ["printer", "scanner"] {
            bed.create(name).await;
        }
        bed.hold("printer").await;
        bed.until_nobody_is_live().await;
        bed.server.next_incarnation();
        bed.store.unreadable.store(true, Ordering::SeqCst);
        let page = bed.router.page(ListQuery {
            limit: 10,
            ..ListQuery::default()
        });
        let locked: Vec<bool> = page
            .await
            .unwrap()
            .resources
            .iter()
            .map(|r| r.locked)
            .collect();
        assert_eq!(locked, [true, false]);
    });
}

#[test]
fn whoever_would_wait_when_the_server_stops_is_told_so_at_once() {
    System::new().block_on(async {
        let bed = Bed::start(1 << 20, NEVER).await;
        bed.create("printer").await;
        bed.hold("printer").await;
        bed.server.gate.stop();
        let wait = Wait::For(Duration::from_secs(600));
        let reply = bed.ask("printer", acquire(None, wait)).await;
        assert_eq!(reply, Reply::Closed(Closed::Stopping));
        assert_eq!(bed.describe("printer").await.waiting, 0);
        assert_eq!(bed.server.waiters(), 0);
    });
}
