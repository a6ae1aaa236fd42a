//! Waiting in the queue: seen as it moves, and by servers that let nobody wait for long.

use std::time::Duration;

use crate::link::{Fault, Link};
use crate::server::{PATIENCE, Server, client, until};
use small_resource_client::{Client, Error, Guard, Place};
use tokio::time::timeout;

async fn hold(client: &Client) -> Guard {
    client.lock("a").create(true).acquire().await.unwrap()
}

async fn moves(place: &mut Place) -> Option<u64> {
    let state = timeout(PATIENCE, place.changed()).await.unwrap();
    state.map(|state| state.position)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_of_the_queue_is_seen_as_it_is_made() {
    let server = Server::start();
    let one = server.client("one");
    let guard = hold(&one).await;
    let mut before = Vec::new();
    for _ in 0..3 {
        before.push(one.lock("a").enqueue().await.unwrap());
    }
    let mut last = server.client("last").lock("a").enqueue().await.unwrap();
    let requests = || async {
        server
            .client("looker")
            .describe("a")
            .await
            .unwrap()
            .unwrap()
    };
    assert_eq!(moves(&mut last).await, Some(4));
    for position in [3, 2, 1] {
        drop(before.pop());
        assert_eq!(moves(&mut last).await, Some(position));
    }
    // It is near all the while: somebody who comes later does not pass it.
    assert_eq!(requests().await.queue[0].near, Some(true));
    guard.release().await.unwrap();
    assert_eq!(moves(&mut last).await, None);
    let held = last.acquire().await.unwrap();
    held.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_watched_asks_little_while_nothing_happens() {
    let server = Server::start();
    let link = Link::to(&server.url, Fault::None);
    let guard = hold(&server.client("one")).await;
    let waiter = client(&link.url).build().unwrap();
    let mut place = waiter.lock("a").enqueue().await.unwrap();
    assert_eq!(moves(&mut place).await, Some(1));
    let watching = tokio::spawn(async move {
        assert_eq!(moves(&mut place).await, None);
        place
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    // The place, one look at the queue, and what is open now: the lock and the next look.
    assert!(link.answers() <= 3, "{} answers", link.answers());
    guard.release().await.unwrap();
    let held = watching.await.unwrap().acquire().await.unwrap();
    held.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_is_cut_into_what_the_server_lets_a_request_wait() {
    for longest in ["1", "0"] {
        let server = Server::start_with(&[("MAX_WAIT_SECONDS", longest)]);
        let link = Link::to(&server.url, Fault::None);
        let guard = hold(&server.client("one")).await;
        let waiter = client(&link.url).build().unwrap();
        let waiting = {
            let lock = waiter.lock("a");
            tokio::spawn(async move { lock.acquire().await.unwrap().release().await })
        };
        let mut place = waiter.lock("a").enqueue().await.unwrap();
        assert!(moves(&mut place).await.is_some());
        let watching = tokio::spawn(async move {
            while moves(&mut place).await.is_some() {}
            place.acquire().await.unwrap().release().await
        });
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(!waiting.is_finished() && !watching.is_finished());
        assert!(link.answers() < 40, "{} answers", link.answers());
        guard.release().await.unwrap();
        for had in [waiting, watching] {
            timeout(PATIENCE, had).await.unwrap().unwrap().unwrap();
        }
        let none = hold(&server.client("one")).await;
        let error = waiter
            .lock("a")
            .wait(Duration::from_millis(1500))
            .acquire()
            .await
            .unwrap_err();
        assert!(matches!(error, Error::NotObtained { .. }), "{error}");
        until(&waiter, "a", |seen| {
            seen.is_some_and(|seen| seen.waiting == 0)
        })
        .await;
        drop(none);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_bounded_life_is_lost_at_its_end_and_not_later() {
    let server = Server::start_with(&[("MAX_LEASE_SECONDS", "3")]);
    let one = server.client("one");
    let guard = hold(&one).await;
    let next = server.client("next");
    let waiting = tokio::spawn(async move {
        let guard = hold(&next).await;
        (small_resource_client::BootTime::now(), guard)
    });
    timeout(PATIENCE, guard.lost()).await.unwrap();
    let noticed = small_resource_client::BootTime::now();
    let (granted, _guard) = timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert!(noticed < granted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_while_it_is_waited_is_followed_by_another() {
    let server = Server::start();
    let link = Link::to(&server.url, Fault::None);
    let guard = hold(&server.client("one")).await;
    // The same server by two addresses, one of which goes.
    let waiter = client(&link.url).server(&server.url).build().unwrap();
    let lock = waiter.lock("a");
    let waiting = tokio::spawn(async move { lock.acquire().await.unwrap() });
    until(&server.client("looker"), "a", |seen| {
        seen.is_some_and(|seen| seen.waiting == 1)
    })
    .await;
    link.cut();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    let seen = server.client("looker").describe("a").await.unwrap();
    assert_eq!(seen.unwrap().waiting, 1, "the same place");
    guard.release().await.unwrap();
    let held = timeout(PATIENCE, waiting).await.unwrap().unwrap();
    held.renew().await.unwrap();
    held.release().await.unwrap();
}
