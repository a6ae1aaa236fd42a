//! A holder knows that it lost the lock before anybody else can hold it.

use std::time::Duration;

use crate::link::{Fault, Link};
use crate::server::{PATIENCE, Process, Server, client, until};
use rustix::process::Signal;
use small_resource_client::{BootTime, Client, Guard, LossReason};
use tokio::time::timeout;

const TTL: Duration = Duration::from_secs(3);

/// Holds the lock; then says each time that it is still at work, and when that was, until it knows of its loss.
#[test]
#[ignore = "run by another as a process"]
fn hold_in_a_process_of_its_own() {
    let url = std::env::var("SERVER_URL").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let holder = client(&url).build().unwrap();
        let guard = hold(&holder).await;
        println!("held");
        let at_work = async {
            loop {
                let now = BootTime::now();
                if guard.check().is_ok() {
                    println!("working {}", now.since_boot().as_nanos());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            lost = guard.lost() => println!("lost {}", lost.reason.code()),
            () = at_work => {}
        }
    });
}

async fn hold(client: &Client) -> Guard {
    client
        .lock("a")
        .ttl(TTL)
        .create(true)
        .acquire()
        .await
        .unwrap()
}

/// Waits behind the holder; when it has the lock, says since when.
fn next_holder(server: &Server) -> tokio::task::JoinHandle<(BootTime, Guard)> {
    let waiter = server.client("next");
    tokio::spawn(async move {
        let guard = hold(&waiter).await;
        (BootTime::now(), guard)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_for_as_long_as_it_is_held() {
    let server = Server::start();
    let guard = hold(&server.client("holder")).await;
    let first = guard.deadline().unwrap();
    for _ in 0..4 {
        guard.renewed().await.unwrap();
    }
    assert!(guard.deadline().unwrap() >= first + TTL / 2);
    let other = server.client("other").lock("a");
    assert!(other.try_acquire().await.unwrap().is_none());
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_paused_server_the_loss_comes_before_the_next_holder() {
    let server = Server::start();
    let guard = hold(&server.client("holder")).await;
    let next = next_holder(&server);
    until(&server.client("looker"), "a", |seen| {
        seen.is_some_and(|a| a.waiting == 1)
    })
    .await;
    server.process.signal(Signal::STOP);
    let lost = timeout(PATIENCE, guard.lost()).await.unwrap();
    let noticed = BootTime::now();
    server.process.signal(Signal::CONT);
    assert_eq!(lost.reason, LossReason::NotRenewed);
    assert_eq!(
        guard.fencing_token().unwrap_err().reason,
        LossReason::NotRenewed
    );
    let (granted, _guard) = timeout(PATIENCE, next).await.unwrap().unwrap();
    assert!(noticed < granted);
    // Final, although the server is back.
    assert!(guard.check().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_cut_connection_the_loss_comes_before_the_next_holder() {
    let server = Server::start();
    let link = Link::to(&server.url, Fault::None);
    let guard = hold(&client(&link.url).build().unwrap()).await;
    let next = next_holder(&server);
    until(&server.client("looker"), "a", |seen| {
        seen.is_some_and(|a| a.waiting == 1)
    })
    .await;
    link.cut();
    let lost = timeout(PATIENCE, guard.lost()).await.unwrap();
    let noticed = BootTime::now();
    assert_eq!(lost.reason, LossReason::NotRenewed);
    assert!(noticed < guard.deadline().unwrap());
    let (granted, _guard) = timeout(PATIENCE, next).await.unwrap().unwrap();
    assert!(noticed < granted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_killed_and_is_back_in_time_finds_the_lock_held() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resources.db");
    let store = [("STORE", "sqlite"), ("SQLITE_PATH", file.to_str().unwrap())];
    let mut server = Server::start_with(&store);
    let holder = server.client("holder");
    let lock = holder.lock("a").ttl(Duration::from_secs(60)).create(true);
    let guard = lock.acquire().await.unwrap();
    let token = guard.fencing_token().unwrap();
    let next = next_holder(&server);
    until(&server.client("looker"), "a", |seen| {
        seen.is_some_and(|a| a.waiting == 1)
    })
    .await;
    let port = server.url.rsplit(':').next().unwrap().to_owned();
    server.process.signal(Signal::KILL);
    server.process.ended();
    let again = [store[0], store[1], ("HTTP_PORT", &port)];
    let server = Server::start_with(&again);
    guard.renew().await.unwrap();
    guard.write("n", &1).await.unwrap();
    assert_eq!(guard.fencing_token().unwrap(), token);
    assert!(!next.is_finished());
    guard.release().await.unwrap();
    let (_, next) = timeout(PATIENCE, next).await.unwrap().unwrap();
    assert!(next.fencing_token().unwrap() > token);
    next.release().await.unwrap();
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_was_forced_off_is_lost_with_the_next_renewal() {
    let server = Server::start();
    let guard = hold(&server.client("holder")).await;
    let admin = server.client("admin");
    let token = guard.fencing_token().unwrap();
    let forced = admin
        .force_unlock("a", "it hangs", Some(token))
        .await
        .unwrap();
    assert!(forced.forced);
    let lost = timeout(PATIENCE, guard.lost()).await.unwrap();
    let LossReason::ForcedOff { reason, by } = &lost.reason else {
        panic!("{lost}");
    };
    assert_eq!(
        (reason.as_deref(), by.as_deref()),
        (Some("it hangs"), Some("admin"))
    );
    assert!(BootTime::now() < guard.deadline().unwrap());
    let refused = guard.write("b", &1).await.unwrap_err();
    assert_eq!(refused.code(), Some("lease_forced_off"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_stopped_past_its_lease_does_not_go_on_working() {
    let server = Server::start();
    let mut holder = Process::start(
        "loss::hold_in_a_process_of_its_own",
        &[("SERVER_URL", &server.url)],
    );
    holder.wait_for("held");
    let next = next_holder(&server);
    until(&server.client("looker"), "a", |seen| {
        seen.is_some_and(|a| a.waiting == 1)
    })
    .await;
    holder.signal(Signal::STOP);
    let (granted, _guard) = timeout(PATIENCE, next).await.unwrap().unwrap();
    holder.signal(Signal::CONT);
    for line in holder.lines.by_ref().map(Result::unwrap) {
        if let Some(nanos) = line.strip_prefix("working ") {
            let at_work = BootTime::from_boot(Duration::from_nanos(nanos.parse().unwrap()));
            assert!(at_work < granted, "it worked beside the next holder");
        }
        if let Some(reason) = line.strip_prefix("lost ") {
            assert!(
                ["not_renewed", "lease_expired"].contains(&reason),
                "{reason}"
            );
            return;
        }
    }
    panic!("it never knew");
}

#[tokio::test(flavor = "multi_thread")]
async fn work_under_a_lock_is_dropped_where_it_stands_when_the_lock_is_lost() {
    let server = Server::start();
    let holder = server.client("holder");
    let lock = holder.lock("a").ttl(TTL).create(true);
    let (started, has_started) = tokio::sync::oneshot::channel();
    let (alive, ended) = tokio::sync::oneshot::channel::<()>();
    let work = tokio::spawn(async move {
        lock.with(|guard| async move {
            started.send(guard.fencing_token().unwrap()).unwrap();
            let _alive = alive;
            std::future::pending::<()>().await;
        })
        .await
    });
    let token = has_started.await.unwrap();
    server
        .client("admin")
        .force_unlock("a", "it hangs", Some(token))
        .await
        .unwrap();
    let outcome = timeout(PATIENCE, work).await.unwrap().unwrap();
    assert_eq!(outcome.unwrap_err().code(), Some("lease_forced_off"));
    assert!(ended.await.is_err(), "the work goes on");
}

#[cfg(feature = "tokio-util")]
#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_token_is_cancelled_with_the_loss() {
    let server = Server::start();
    let guard = hold(&server.client("holder")).await;
    let token = guard.cancellation_token();
    assert!(!token.is_cancelled());
    server
        .client("admin")
        .force_unlock("a", "it hangs", None)
        .await
        .unwrap();
    timeout(PATIENCE, token.cancelled()).await.unwrap();
    assert!(guard.check().is_err());
}
