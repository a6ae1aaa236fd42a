//! What others see of a lock: who holds it and why, who held it, and what happens to it as it happens.

use std::io::{Read, Write};
use std::time::Duration;

use crate::server::{PATIENCE, Server, client, until};
use small_resource_client::{Error, Event, Guard, LossReason, Watch};
use tokio::time::timeout;

async fn next(watch: &mut Watch) -> Event {
    let event = timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
    event.expect("the stream goes on")
}

/// Creates a name as whoever can send any bytes does.
fn create(server: &Server, path_or_body: &str) {
    let address = server.url.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let length = path_or_body.len();
    write!(
        stream,
        "POST /resource HTTP/1.1\r\nHost: x\r\nx-api-key: example\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{path_or_body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn holders_and_those_who_wait_are_seen_with_their_reasons() {
    let server = Server::start();
    let one = server.client("one");
    let shared = one.lock("a").create(true).shared().reason("reading");
    let first = shared.acquire().await.unwrap();
    let second = shared.clone().owner("two").acquire().await.unwrap();
    assert_ne!(first.fencing_token(), second.fencing_token());
    let writer = server.client("writer").lock("a").reason("nightly sync");
    let place = writer.enqueue().await.unwrap();
    let seen = one.describe("a").await.unwrap().unwrap();
    let holders: Vec<_> = seen
        .holders
        .iter()
        .map(|holder| {
            let texts = [&holder.owner, &holder.reason, &holder.mode];
            texts.map(|text| text.as_deref().unwrap())
        })
        .collect();
    assert_eq!(
        holders,
        [["one", "reading", "shared"], ["two", "reading", "shared"]]
    );
    assert_eq!(seen.ephemeral, Some(true));
    let waiter = &seen.queue[0];
    let texts = [&waiter.owner, &waiter.reason, &waiter.mode].map(|text| text.as_deref().unwrap());
    assert_eq!(texts, ["writer", "nightly sync", "exclusive"]);
    // A reader that comes later does not pass the writer.
    assert!(shared.try_acquire().await.unwrap().is_none());
    // A shared holder writes nothing, and goes on holding.
    let refused = first.write("n", &1).await.unwrap_err();
    assert_eq!(refused.code(), Some("not_exclusive"));
    first.check().unwrap();
    first.release().await.unwrap();
    second.release().await.unwrap();
    let writer = timeout(PATIENCE, place.acquire()).await.unwrap().unwrap();
    writer.write("n", &1).await.unwrap();
    writer.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_made_for_its_lock_goes_with_it() {
    let server = Server::start();
    let one = server.client("one");
    let guard = one.lock("brief").create(true).acquire().await.unwrap();
    let token = guard.fencing_token().unwrap();
    guard.release().await.unwrap();
    assert_eq!(one.describe("brief").await.unwrap(), None);
    assert!(one.list("").collect().await.unwrap().is_empty());
    let again = one.lock("brief").create(true).acquire().await.unwrap();
    assert!(again.fencing_token().unwrap() > token);
    again.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn history_tells_how_leases_ended_and_who_forced_them_off() {
    let server = Server::start();
    let one = server.client("one");
    let lock = one.lock("a").create(true).reason("nightly sync");
    let guard = lock.acquire().await.unwrap();
    guard.write("keep", &1).await.unwrap();
    guard.release().await.unwrap();
    let guard = lock.acquire().await.unwrap();
    let token = guard.fencing_token().unwrap();
    let forced = server
        .client("admin")
        .force_unlock("a", "it hangs", None)
        .await
        .unwrap();
    assert_eq!(forced.fencing_tokens, Some(vec![token]));
    let lost = guard.renew().await.unwrap_err();
    let Error::Lost(lost) = lost else {
        panic!("{lost}")
    };
    let LossReason::ForcedOff { reason, by } = &lost.reason else {
        panic!("{lost}")
    };
    assert_eq!(
        (reason.as_deref(), by.as_deref()),
        (Some("it hangs"), Some("admin"))
    );
    assert_eq!(
        lost.to_string(),
        "the lock \"a\" is lost: it was forced off by admin: it hangs"
    );
    drop(guard);
    let leases = one.history("a").await.unwrap();
    assert_eq!(leases.len(), 2);
    let newest = &leases[0];
    assert_eq!(
        (newest.end.as_str(), newest.fencing_token),
        ("forced_off", token)
    );
    let forced = newest.forced.as_ref().unwrap();
    assert_eq!(
        (forced.reason.as_deref(), forced.by.as_deref()),
        (Some("it hangs"), Some("admin"))
    );
    assert_eq!(leases[1].end, "released");
    assert_eq!(leases[1].owner.as_deref(), Some("one"));
    assert_eq!(leases[1].reason.as_deref(), Some("nightly sync"));
    assert!(leases[1].held_ms.is_some() && leases[1].queued_ms.is_some());
    let unknown = one.history("nowhere").await.unwrap_err();
    assert_eq!(unknown.code(), Some("resource_unknown"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_the_names_of_a_prefix_is_followed() {
    let server = Server::start();
    let one = server.client("one");
    let mut watch = one.watch("shop:ü").await.unwrap();
    let elsewhere = one.lock("other").create(true).acquire().await.unwrap();
    let lock = one.lock("shop:ü 42").create(true).reason("sync");
    let guard = lock.acquire().await.unwrap();
    let token = guard.fencing_token().unwrap();
    guard.write("stock", &5).await.unwrap();
    guard.release().await.unwrap();
    elsewhere.release().await.unwrap();
    let mut kinds = Vec::new();
    loop {
        let event = next(&mut watch).await;
        assert_eq!(event.name.as_deref(), Some("shop:ü 42"), "{event:?}");
        assert!(event.at.is_some());
        match event.kind.as_str() {
            "granted" => {
                let texts = [&event.owner, &event.reason, &event.mode];
                let texts = texts.map(|text| text.as_deref().unwrap());
                assert_eq!(texts, ["one", "sync", "exclusive"]);
                assert_eq!(event.fencing_token, Some(token));
            }
            "written" => assert_eq!(event.selector.as_deref(), Some("stock")),
            _ => {}
        }
        kinds.push(event.kind);
        if kinds.last().is_some_and(|kind| kind == "released") {
            break;
        }
    }
    let known = ["granted", "written", "released"];
    let seen: Vec<_> = known
        .into_iter()
        .filter(|kind| kinds.iter().any(|seen| seen == kind))
        .collect();
    assert_eq!(seen, known, "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_events_lasts_longer_than_an_answer_may_take() {
    let server = Server::start();
    let answers_within = Duration::from_secs(1);
    let hasty = client(&server.url).timeout(answers_within).build().unwrap();
    let mut watch = hasty.watch("").await.unwrap();
    tokio::time::sleep(answers_within * 3).await;
    let lock = server.client("one").lock("a").create(true);
    let guard = lock.acquire().await.unwrap();
    assert_eq!(next(&mut watch).await.name.as_deref(), Some("a"));
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_events_whose_server_is_gone_is_an_error_or_ends() {
    let server = Server::start();
    let one = server.client("one");
    let mut watch = one.watch("").await.unwrap();
    drop(server);
    let outcome = timeout(PATIENCE, watch.next()).await.unwrap();
    assert!(!matches!(outcome, Ok(Some(_))), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_this_client_cannot_ask_for_are_listed_all_the_same() {
    let server = Server::start();
    for name in [".", "..", "a b", "%2E", "é", "z"] {
        create(&server, &format!("{{\"name\": \"{name}\"}}"));
    }
    let one = server.client("one");
    let names: Vec<_> = one.list("").collect().await.unwrap();
    let names: Vec<_> = names
        .iter()
        .map(|resource| resource.name.as_str())
        .collect();
    assert_eq!(names, ["%2E", ".", "..", "a b", "z", "é"]);
    let held: Vec<Guard> = {
        let mut held = Vec::new();
        for name in ["%2E", "a b", "é"] {
            held.push(one.lock(name).acquire().await.unwrap());
        }
        held
    };
    let listed = one.list("").collect().await.unwrap();
    let locked = listed.iter().filter(|resource| resource.locked).count();
    assert_eq!(locked, held.len());
    // Anything else would reach another resource: what sends requests takes dot segments for steps in the path.
    for name in [".", ".."] {
        let refused = one.lock(name).acquire().await.unwrap_err();
        assert!(matches!(refused, Error::Invalid(_)), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_written_by_whoever_may_while_nobody_holds() {
    let server = Server::start();
    let one = server.client("one");
    create(&server, "{\"name\": \"a\"}");
    one.write("a", "n", &1).await.unwrap();
    let guard = one.lock("a").acquire().await.unwrap();
    let ticket = guard.ticket();
    one.write_with(&ticket, "n", &2).await.unwrap();
    guard.release().await.unwrap();
    let stale = one.write_with(&ticket, "n", &3).await.unwrap_err();
    assert_eq!(stale.code(), Some("ticket_released"));
    assert_eq!(one.read::<u32>("a", "n").await.unwrap(), Some(2));
    // A second release of the same ticket is none.
    one.unlock(&ticket).await.unwrap();
    until(&one, "a", |seen| seen.is_some_and(|seen| !seen.locked)).await;
    assert!(one.lock("a").wait(Duration::ZERO).acquire().await.is_ok());
}
