//! Several instances in one process on one store: which of them owns what is said by the tests, as the store would.

mod group;
#[path = "../support/settings.rs"]
mod settings;

use std::time::Duration;

use small_resource_server::lock::{Answer, PresentedTicket};
use small_resource_server::resource::messages::{Op, Reply, Wait};
use small_resource_server::shared::audit_log::AuditKind;
use small_resource_server::shared::caller::Caller;
use small_resource_server::shared::gate::Closed;
use small_resource_server::shared::members::Reachability;
use small_resource_server::store::members::MemberState;
use small_resource_server::store::{ListOrder, ListQuery};
use tokio::sync::broadcast::error::TryRecvError;

use group::{Group, LEASE, acquire, create, name};

fn is_granted(reply: &Reply) -> bool {
    matches!(reply, Reply::Lock(Answer::Granted(_)))
}

fn is_queued(reply: &Reply) -> bool {
    matches!(reply, Reply::Lock(Answer::Queued { .. }))
}

#[actix_rt::test]
async fn whichever_instance_is_asked_there_is_one_lock_of_a_name() {
    let group = Group::start(3).await;
    for owner in 0..3 {
        let name = group.name_of(owner);
        for at in 0..3 {
            let reply = group.ask(at, &name, create()).await;
            assert_eq!(matches!(reply, Reply::Created { .. }), at == 0);
        }
        for at in 0..3 {
            let reply = group
                .ask(at, &name, acquire(Wait::For(Duration::ZERO)))
                .await;
            assert_eq!(is_granted(&reply), at == 0, "{reply:?}");
            assert_eq!(is_queued(&reply), at > 0, "{reply:?}");
        }
    }
    let forwarded = group.at(0).server.metrics.forwarded_requests_total.get();
    assert!(forwarded >= 4, "{forwarded}");
    let metrics = &group.at(0).server.metrics;
    assert_eq!(metrics.forwarded_requests_refused_total.get(), 0);
}

#[actix_rt::test]
async fn a_lock_that_is_waited_for_at_one_instance_is_granted_when_it_is_unlocked_at_another() {
    let group = Group::start(2).await;
    for owner in 0..2 {
        let name = group.name_of(owner);
        group.ask(1, &name, create()).await;
        let held = group.ask(1, &name, acquire(Wait::NoQueue)).await;
        let Reply::Lock(Answer::Granted(grant)) = held else {
            panic!("{held:?}");
        };
        let waiting = group.begin(0, &name, acquire(Wait::For(group::DEADLINE)));
        group.until_waiting(&name, 1).await;
        let presented = PresentedTicket::Ticket(grant.ticket);
        group.ask(1, &name, Op::Unlock { presented }).await;
        let reply = waiting.await.unwrap();
        assert!(is_granted(&reply), "{reply:?}");
    }
}

#[actix_rt::test]
async fn a_page_and_a_count_have_every_name_once_wherever_they_are_asked_for() {
    let group = Group::start(3).await;
    let mut names: Vec<String> = (0..50).map(|n| format!("stock:{n:02}")).collect();
    for (n, text) in names.iter().enumerate() {
        group.ask(n % 3, &name(text), create()).await;
        if n % 5 == 0 {
            let reply = group
                .ask((n + 1) % 3, &name(text), acquire(Wait::NoQueue))
                .await;
            assert!(is_granted(&reply), "{reply:?}");
        }
        for _ in 0..n / 10 {
            group
                .ask(n % 3, &name(text), acquire(Wait::For(Duration::ZERO)))
                .await;
        }
    }
    names.sort();
    for at in 0..3 {
        let instance = group.at(at);
        for limit in [1, 3, 50, 100] {
            assert_eq!(instance.all_pages(limit, None).await, names, "{limit}");
        }
        let held = instance.all_pages(7, Some(true)).await;
        let is_held = |(n, _): &(usize, &String)| n % 5 == 0 || *n >= 10;
        let expected = names.iter().enumerate().filter(is_held);
        assert!(held.iter().eq(expected.map(|(_, name)| name)), "{held:?}");
        let most = ListQuery {
            limit: 9,
            order: ListOrder::Waiting,
            ..ListQuery::default()
        };
        let most = instance.cluster.page(most).await.unwrap().resources;
        let most: Vec<(usize, &str)> = most.iter().map(|r| (r.waiting, r.name.as_str())).collect();
        let waited = |n: usize| match n % 5 {
            0 => n / 10,
            _ => (n / 10).saturating_sub(1),
        };
        let mut expected: Vec<(usize, &str)> =
            (0..50).map(|n| (waited(n), &names[n][..])).collect();
        expected.sort_by_key(|(waiting, name)| (std::cmp::Reverse(*waiting), *name));
        assert_eq!(most, expected[..9]);
        let counts = instance
            .cluster
            .count_locks("stock:".to_owned())
            .await
            .unwrap();
        assert_eq!(counts.waiting, (0..50).map(waited).sum::<usize>());
        assert_eq!(counts.held, 10 + 32);
    }
}

#[actix_rt::test]
async fn there_is_no_page_and_no_count_while_an_owner_is_missing() {
    let group = Group::start(3).await;
    let cluster = &group.at(0).cluster;
    group.see(|all| all.members[2].state = MemberState::Dead);
    let page = cluster.page(ListQuery {
        limit: 10,
        ..ListQuery::default()
    });
    let (page, counts) = tokio::join!(page, cluster.count_locks(String::new()));
    assert_eq!(page, Err(Closed::Moving));
    assert_eq!(counts, Err(Closed::Moving));
    assert!(cluster.follow("").await.is_err_and(|e| e == Closed::Moving));
}

#[actix_rt::test]
async fn past_leases_and_documents_are_told_by_the_owner() {
    let group = Group::start(2).await;
    let name = group.name_of(1);
    group.ask(0, &name, create()).await;
    let Reply::Lock(Answer::Granted(grant)) = group.ask(0, &name, acquire(Wait::NoQueue)).await
    else {
        panic!("not granted");
    };
    let presented = PresentedTicket::Ticket(grant.ticket);
    group.ask(0, &name, Op::Unlock { presented }).await;
    for at in 0..2 {
        let cluster = &group.at(at).cluster;
        assert_eq!(cluster.history(&name).await.unwrap().len(), 1);
        let Reply::Described(known) = *cluster.ask(&name, &Op::DESCRIBE, Caller::nobody()).await
        else {
            panic!("not described");
        };
        let sizes = cluster.document_sizes((&name, &known.id), "", 10).await;
        assert_eq!(sizes.unwrap(), []);
    }
}

#[actix_rt::test]
async fn a_request_for_a_name_that_changes_hands_is_held_and_then_answered() {
    let group = Group::start(2).await;
    for at in 0..2 {
        let name = group.name_of(0);
        group.leave(0, &name).await;
        let asked = group.begin(at, &name, create());
        group.until_held(at).await;
        group.give(&name, 0, 1);
        let reply = asked.await.unwrap();
        assert!(matches!(reply, Reply::Created { .. }), "{reply:?}");
        // Both know it now.
        for at in 0..2 {
            let reply = group.ask(at, &name, Op::DESCRIBE).await;
            assert!(matches!(reply, Reply::Described(_)), "{reply:?}");
        }
        group
            .ask(
                1,
                &name,
                Op::Delete {
                    presented: PresentedTicket::Absent,
                },
            )
            .await;
        group.leave(1, &name).await;
        group.give(&name, 1, 0);
    }
}

#[actix_rt::test]
async fn whoever_looks_at_an_old_map_is_told_so_and_asks_again() {
    let group = Group::start(2).await;
    let name = group.name_of(0);
    // Only the new owner has looked.
    group.at(0).lose(&name);
    group.at(1).gain(&name);
    let asked = group.begin(0, &name, create());
    let reply = group.ask(1, &name, Op::DESCRIBE).await;
    assert!(matches!(reply, Reply::Refused(..)), "{reply:?}");
    group.until_held(0).await;
    group.give(&name, 0, 1);
    assert!(matches!(asked.await.unwrap(), Reply::Created { .. }));
    // Only the old one has.
    group.at(1).lose(&name);
    let asked = group.begin(0, &name, Op::DESCRIBE);
    group.until_held(0).await;
    let metrics = &group.at(0).server.metrics;
    assert!(metrics.forwarded_requests_refused_total.get() > 0);
    group.at(1).gain(&name);
    assert!(matches!(asked.await.unwrap(), Reply::Described(_)));
}

#[actix_rt::test]
async fn a_request_for_a_name_of_a_dead_instance_is_held_until_another_one_has_it_and_not_for_ever()
{
    let group = Group::start(3).await;
    let (name, other) = (group.name_of(2), group.name_of(1));
    group.see(|all| all.members[2].state = MemberState::Dead);
    let asked = group.begin(0, &name, create());
    group.until_held(0).await;
    // Nobody else waits for that.
    group.ask(0, &other, create()).await;
    group.give(&name, 2, 1);
    assert!(matches!(asked.await.unwrap(), Reply::Created { .. }));
    let orphan = group.another_name_of(2, &name);
    let began = std::time::Instant::now();
    let reply = group.ask(0, &orphan, create()).await;
    assert_eq!(reply, Reply::Closed(Closed::Moving));
    assert!(began.elapsed() >= LEASE);
}

#[actix_rt::test]
async fn an_instance_that_lost_its_store_still_passes_on_what_is_not_its_own() {
    let group = Group::start(2).await;
    let here = &group.at(0).server;
    here.gate.close(Closed::StoreAway);
    assert_eq!(group.at(0).cluster.check(), Ok(()));
    let reply = group.ask(0, &group.name_of(1), create()).await;
    assert!(matches!(reply, Reply::Created { .. }), "{reply:?}");
    let reply = group.ask(0, &group.name_of(0), create()).await;
    assert_eq!(reply, Reply::Closed(Closed::StoreAway));
    // Whoever asks it is held: another one may take over.
    let asked = group.begin(1, &group.name_of(0), create());
    group.until_held(1).await;
    here.gate.open();
    assert!(matches!(asked.await.unwrap(), Reply::Created { .. }));
}

#[actix_rt::test]
async fn an_instance_that_lives_and_cannot_be_reached_is_said_to_be() {
    let group = Group::start(2).await;
    group.until_reached().await;
    assert_eq!(group.at(0).view().check_ready(), Ok(()));
    let name = group.name_of(1);
    // Another one, where nobody listens.
    group.see(|all| {
        let (was, is) = (all.members[1].id, [9; 16]);
        all.members[1].id = is;
        all.members[1].peer.as_mut().unwrap().address = group::closed_port();
        let owners = all.owners.iter();
        all.owners = owners.map(|id| if *id == was { is } else { *id }).collect();
    });
    group
        .until(|| {
            group.see(|all| all.members[1].heartbeat += 1);
            let view = group.at(0).view();
            let id = view.others_alive().next().unwrap().id;
            view.reachability(id) == Reachability::CutOff
        })
        .await;
    let reply = group.ask(0, &name, create()).await;
    assert_eq!(reply, Reply::Closed(Closed::OwnerUnreachable));
    let ready = group.at(0).view().check_ready();
    assert_eq!(ready, Err(Closed::OwnerUnreachable));
    group
        .until(|| group.at(0).server.metrics.peers_unreachable.get() == 1)
        .await;
}

#[actix_rt::test]
async fn events_of_all_instances_are_one_stream_until_an_owner_comes_that_is_not_followed() {
    let group = Group::start(3).await;
    group.give_all(2, 1);
    let mut reader = group.at(0).cluster.follow("stock:").await.unwrap();
    let mut expected = Vec::new();
    for n in 0..20 {
        let text = format!("stock:{n}");
        group.ask(0, &name(&text), create()).await;
        group.ask(0, &name(&format!("other:{n}")), create()).await;
        expected.push(text);
    }
    let mut found = Vec::new();
    group
        .until(|| {
            while let Ok(event) = reader.try_next() {
                assert_eq!(event.kind, AuditKind::Created);
                // Of this instance all are read, whatever their names.
                if event.name.as_str().starts_with("stock:") {
                    found.push(event.name.to_string());
                }
            }
            found.len() >= expected.len()
        })
        .await;
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert!(matches!(reader.try_next(), Err(TryRecvError::Empty)));
    let given = group.name_of(1);
    group.give(&given, 1, 2);
    assert!(matches!(reader.try_next(), Err(TryRecvError::Closed)));
}

#[actix_rt::test]
async fn a_stream_of_events_whose_end_was_passed_over_says_it_again() {
    let group = Group::start(2).await;
    let mut reader = group.at(0).cluster.follow("").await.unwrap();
    let gate = &group.at(1).server.gate;
    gate.close(Closed::StoreAway);
    group
        .until(|| matches!(reader.try_next(), Err(TryRecvError::Closed)))
        .await;
    // Nothing shows any more that events were missed meanwhile.
    gate.open();
    assert!(matches!(reader.try_next(), Err(TryRecvError::Closed)));
}

#[actix_rt::test]
async fn a_wait_ends_with_the_instance_where_it_was_asked_for() {
    let group = Group::start(2).await;
    for owner in 0..2 {
        let name = group.name_of(owner);
        group.ask(1, &name, create()).await;
        group.ask(1, &name, acquire(Wait::NoQueue)).await;
    }
    let waits = [0, 1].map(|owner| {
        let name = group.name_of(owner);
        (
            group.begin(0, &name, acquire(Wait::For(group::DEADLINE))),
            name,
        )
    });
    for (_, name) in &waits {
        group.until_waiting(name, 1).await;
    }
    let view = &group.at(0).server.members;
    view.send_modify(|view| view.stopping = true);
    for (wait, name) in waits {
        assert_eq!(wait.await.unwrap(), Reply::Closed(Closed::Stopping));
        group.until_waiting(&name, 0).await;
    }
}

#[actix_rt::test]
async fn whoever_waits_keeps_its_place_when_the_name_changes_hands() {
    let group = Group::start(2).await;
    for at in 0..2 {
        let name = group.name_of(0);
        group.ask(0, &name, create()).await;
        let held = group.ask(at, &name, acquire(Wait::NoQueue)).await;
        let Reply::Lock(Answer::Granted(grant)) = held else {
            panic!("{held:?}");
        };
        let mut waits = Vec::new();
        for waiting in 0..3 {
            let wait = acquire(Wait::For(group::DEADLINE));
            waits.push(group.begin((at + waiting) % 2, &name, wait));
            group.until_waiting(&name, waiting + 1).await;
        }
        let mut presented = PresentedTicket::Ticket(grant.ticket);
        let mut owner = 0;
        for wait in waits {
            let next = 1 - owner;
            group.leave(owner, &name).await;
            group.give(&name, owner, next);
            owner = next;
            group.ask(at, &name, Op::Unlock { presented }).await;
            let reply = wait.await.unwrap();
            let Reply::Lock(Answer::Granted(grant)) = reply else {
                panic!("{reply:?}");
            };
            presented = PresentedTicket::Ticket(grant.ticket);
        }
        group.ask(at, &name, Op::Unlock { presented }).await;
        group
            .ask(
                at,
                &name,
                Op::Delete {
                    presented: PresentedTicket::Absent,
                },
            )
            .await;
        group.leave(owner, &name).await;
        group.give(&name, owner, 0);
    }
}

#[actix_rt::test]
async fn a_grant_that_nobody_took_is_released_where_its_name_is_by_then() {
    let group = Group::start(2).await;
    let name = group.name_of(0);
    group.ask(0, &name, create()).await;
    let router = &group.at(0).cluster.router;
    let op = acquire(Wait::NoQueue);
    let (reply, call) = router.ask(&name, &op, Caller::nobody()).await;
    assert!(is_granted(&reply), "{reply:?}");
    group.leave(0, &name).await;
    group.give(&name, 0, 1);
    let reply = group.ask(1, &name, acquire(Wait::NoQueue)).await;
    assert!(!is_granted(&reply), "{reply:?}");
    drop(call);
    let wait = acquire(Wait::For(group::DEADLINE));
    let reply = group.ask(1, &name, wait).await;
    assert!(is_granted(&reply), "{reply:?}");
}
