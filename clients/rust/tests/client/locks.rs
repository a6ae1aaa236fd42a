//! Taking and giving back, over a link that loses answers too.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::link::{Fault, Link};
use crate::server::{PATIENCE, Server, client, until};
use serde_json::json;
use small_resource_client::{Client, Error, Guard, Ticket};
use tokio::time::timeout;

async fn hold(client: &Client, name: &str) -> Guard {
    client.lock(name).create(true).acquire().await.unwrap()
}

async fn is_free(client: &Client, name: &str) {
    until(client, name, |seen| {
        seen.is_none_or(|seen| !seen.locked && seen.waiting == 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_reads_and_writes_and_is_seen() {
    let server = Server::start();
    let one = server.client("one");
    let guard = hold(&one, "shop/ü 42").await;
    assert_eq!(guard.read::<u32>("stock").await.unwrap(), None);
    guard.write("stock", &5).await.unwrap();
    assert_eq!(guard.read::<u32>("stock").await.unwrap(), Some(5));
    let other = server.client("other");
    assert_eq!(
        other.read::<u32>("shop/ü 42", "stock").await.unwrap(),
        Some(5)
    );
    let refused = other.write("shop/ü 42", "stock", &6).await.unwrap_err();
    assert_eq!(refused.code(), Some("locked"));
    let seen = other.describe("shop/ü 42").await.unwrap().unwrap();
    assert_eq!(seen.holder.unwrap().owner.as_deref(), Some("one"));
    let listed = other.list("shop/").collect().await.unwrap();
    assert_eq!(listed.len(), 1);
    guard.release().await.unwrap();
    assert!(!other.list("shop/").collect().await.unwrap()[0].locked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_over_says_who_holds_and_leaves_the_queue() {
    let server = Server::start();
    let guard = hold(&server.client("holder"), "a").await;
    let waiter = server.client("waiter");
    let wait = Duration::from_millis(300);
    let error = waiter.lock("a").wait(wait).acquire().await.unwrap_err();
    let Error::NotObtained {
        holder, position, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(
        (holder.unwrap().owner.as_deref(), position),
        (Some("holder"), Some(1))
    );
    let seen = waiter.describe("a").await.unwrap().unwrap();
    assert_eq!(seen.waiting, 0);
    assert!(waiter.lock("a").try_acquire().await.unwrap().is_none());
    guard.release().await.unwrap();
    assert!(
        waiter
            .lock("a")
            .create(true)
            .try_acquire()
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_is_given_back() {
    let server = Server::start();
    let one = server.client("one");
    drop(hold(&one, "a").await);
    one.given_back().await;
    is_free(&one, "a").await;

    let guard = hold(&one, "a").await;
    let other = server.client("other");
    // A wait that is given up while its request is open, so that no ticket is known yet.
    let waiting = other.lock("a");
    assert!(
        timeout(Duration::from_millis(200), waiting.acquire())
            .await
            .is_err()
    );
    let mut place = other.lock("a").enqueue().await.unwrap();
    assert!(place.changed().await.is_some());
    drop(place);
    other.given_back().await;
    until(&one, "a", |seen| seen.is_some_and(|seen| seen.waiting == 0)).await;
    guard.check().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_is_seen_to_advance_until_it_is_ours() {
    let server = Server::start();
    let one = server.client("one");
    let guard = hold(&one, "a").await;
    let first = one.lock("a").enqueue().await.unwrap();
    let mut second = server.client("two").lock("a").enqueue().await.unwrap();
    assert_eq!(second.changed().await.unwrap().position, 2);
    drop(first);
    assert_eq!(
        timeout(PATIENCE, second.changed())
            .await
            .unwrap()
            .unwrap()
            .position,
        1
    );
    let turn = tokio::spawn(async move {
        assert_eq!(second.changed().await, None);
        second.acquire().await.unwrap()
    });
    guard.release().await.unwrap();
    let held = timeout(PATIENCE, turn).await.unwrap().unwrap();
    held.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_cost_neither_a_place_nor_a_lock() {
    let server = Server::start();
    let link = Link::to(&server.url, Fault::LosesAnswers);
    let one = client(&link.url).build().unwrap();
    let mut token = 0;
    for _ in 0..10 {
        let guard = hold(&one, "a").await;
        guard.write("n", &token).await.unwrap();
        let next = guard.fencing_token().unwrap();
        assert!(token == 0 || next == token + 1, "{token} and then {next}");
        token = next;
        guard.release().await.unwrap();
    }
    assert!(link.harmed.load(Ordering::SeqCst) >= 10);
    is_free(&server.client("looker"), "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_another_request_is_not_taken_for_ours() {
    let server = Server::start();
    let link = Link::to(&server.url, Fault::MixesUp);
    let one = client(&link.url).build().unwrap();
    for _ in 0..5 {
        let guard = hold(&one, "a").await;
        guard.release().await.unwrap();
    }
    assert!(link.harmed.load(Ordering::SeqCst) >= 5);
    is_free(&server.client("looker"), "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_are_tried_in_turn() {
    let server = Server::start();
    // Nobody listens there: it was ours a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let one = client(&nobody).server(&server.url).build().unwrap();
    hold(&one, "a").await.release().await.unwrap();
    let alone = client(&nobody)
        .timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    let error = alone.lock("a").create(true).acquire().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
    let named = format!("no answer from {nobody}: ");
    assert!(error.to_string().starts_with(&named), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_never_reached_is_not_left() {
    // Nobody listens there: it was ours a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let one = client(&nobody).build().unwrap();
    let lock = one.lock("a").wait(Duration::from_millis(300));
    let error = lock.acquire().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
    // To leave it would be tried for as long as an answer may take.
    let left = timeout(Duration::from_secs(2), one.given_back()).await;
    left.expect("there is nothing to give back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_leaves_time_for_the_next() {
    let server = Server::start();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let one = client(&silent)
        .server(&server.url)
        .timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let guard = one.lock("a").create(true).try_acquire().await.unwrap();
    guard.unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_not_retried_and_has_the_code_of_the_server() {
    let server = Server::start();
    let stranger = Client::builder(&server.url).key("wrong").build().unwrap();
    let error = stranger.lock("a").acquire().await.unwrap_err();
    assert_eq!(error.code(), Some("key_unknown"));
    let error = server
        .client("one")
        .lock("nowhere")
        .acquire()
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some("resource_unknown"));
    let invalid = server
        .client("one")
        .lock("a")
        .ttl(Duration::ZERO)
        .acquire()
        .await
        .unwrap_err();
    assert!(matches!(invalid, Error::Invalid(_)), "{invalid}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_are_all_or_none() {
    let server = Server::start();
    let one = server.client("one");
    let guards = one.all(["b", "a"]).create(true).acquire().await.unwrap();
    assert_eq!([guards[0].name(), guards[1].name()], ["a", "b"]);
    guards.release().await.unwrap();
    let held = hold(&one, "b").await;
    let some = one
        .all(["a", "b"])
        .create(true)
        .wait(Duration::from_millis(200));
    assert!(matches!(
        some.acquire().await.unwrap_err(),
        Error::NotObtained { .. }
    ));
    is_free(&one, "a").await;
    held.release().await.unwrap();
    for names in [vec![], vec!["a", "a"]] {
        assert!(matches!(
            one.all(names).acquire().await.unwrap_err(),
            Error::Invalid(_)
        ));
    }
    let value = some
        .with(|guards| async move { guards.len() })
        .await
        .unwrap();
    assert_eq!(value, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_goes_on_in_another_process_by_its_ticket() {
    let server = Server::start();
    let one = server.client("one");
    let guard = hold(&one, "a").await;
    let token = guard.fencing_token().unwrap();
    let text = serde_json::to_string(&guard.into_ticket()).unwrap();
    let ticket: Ticket = serde_json::from_str(&text).unwrap();
    assert!(!format!("{ticket:?}").contains(&ticket.ticket));
    let other = server.client("other");
    let guard = Guard::resume(&other, ticket.clone()).await.unwrap();
    assert_eq!(guard.fencing_token().unwrap(), token);
    guard.write("state", &json!({"n": 1})).await.unwrap();
    guard.release().await.unwrap();
    let error = Guard::resume(&one, ticket).await.unwrap_err();
    assert_eq!(error.code(), Some("ticket_released"));
}

#[tokio::test(flavor = "multi_thread")]
async fn work_under_a_lock_ends_with_its_release() {
    let server = Server::start();
    let one = server.client("one");
    let lock = one.lock("a").create(true);
    let value = lock.with(|guard| async move {
        guard.write("n", &7).await.unwrap();
        guard.read::<u32>("n").await.unwrap()
    });
    assert_eq!(value.await.unwrap(), Some(7));
    let seen = one.describe("a").await.unwrap().unwrap();
    assert!(!seen.locked);
}
