//! Instances that own slots of names: gifts, take-overs, and what is left of those that go.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mysql_async::prelude::Queryable;
use small_resource_server::lock::FencingToken;
use small_resource_server::store::members::{InstanceId, MemberState, Members, SLOTS, Slot};
use small_resource_server::store::mysql::{MysqlStore, Options};
use small_resource_server::store::{Snapshot, Store, StoreError};

use super::support::{
    DEADLINE, Database, Proxy, created, granted, heartbeat, join, slots_of, take_all, take_over,
    token,
};
use super::{exists, hex};

/// A name in this slot.
fn created_in(slot: Slot) -> Snapshot {
    let names = (0..).map(|number| format!("name {number}"));
    let mut resources = names.map(|name| created(&name));
    resources
        .find(|resource| Slot::of(&resource.name) == slot)
        .unwrap()
}

fn half(which: usize) -> Vec<Slot> {
    Slot::all()
        .filter(|slot| slot.number() % 2 == which)
        .collect()
}

/// Two instances, each of which owns every other slot.
async fn two(database: &Database) -> [(MysqlStore, InstanceId); 2] {
    let (a, b) = (database.store(), database.store());
    let (first, second) = (join(&a).await.me, join(&b).await.me);
    assert_eq!(a.give(&half(1), second).await, Ok(true));
    [(a, first), (b, second)]
}

/// Until this one is known to be dead.
async fn until_dead(store: &MysqlStore, id: InstanceId) -> Members {
    let began = Instant::now();
    loop {
        let members = heartbeat(store).await;
        if members.dead().any(|dead| dead == id) {
            return members;
        }
        assert!(began.elapsed() < DEADLINE, "{:?}", members.members);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn each_slot_once(stores: &[&MysqlStore]) {
    let answers = join_all(stores.iter().map(|store| heartbeat(store))).await;
    for members in &answers {
        let owned = answers.iter().map(|other| slots_of(members, other.me));
        assert_eq!(owned.sum::<usize>(), SLOTS, "{:?}", members.members);
    }
}

#[tokio::test]
async fn owners_beside_each_other_commit_at_the_same_time_and_see_what_each_has() {
    let Some(database) = Database::new() else {
        return;
    };
    let [(a, first), (b, second)] = two(&database).await;
    for store in [&a, &b] {
        let members = heartbeat(store).await;
        assert_eq!(slots_of(&members, first), SLOTS / 2);
        assert_eq!(slots_of(&members, second), SLOTS / 2);
        for slot in half(0) {
            let elsewhere = members.elsewhere(slot).map(|member| member.id);
            assert_eq!(elsewhere, (members.me == second).then_some(first));
        }
    }
    let works = async |store: &MysqlStore, resource: &Snapshot| {
        store.commit(std::slice::from_ref(resource)).await.unwrap();
        for number in 1..=100 {
            store.commit(&[granted(resource, number)]).await.unwrap();
            if number % 30 == 0 {
                store.checkpoint().await.unwrap();
            }
        }
    };
    let resources = [created_in(half(0)[0]), created_in(half(1)[0])];
    tokio::join!(works(&a, &resources[0]), works(&b, &resources[1]));
    assert_eq!(token(&a, &resources[0]).await, Some(100));
    assert_eq!(token(&b, &resources[1]).await, Some(100));
}

#[tokio::test]
async fn a_slot_that_was_given_is_read_whole_and_its_tokens_go_on() {
    let Some(database) = Database::new() else {
        return;
    };
    let (a, b) = (database.store(), database.store());
    let owner = join(&a).await.me;
    let to = join(&b).await.me;
    let slot = Slot::all().nth(7).unwrap();
    let resource = created_in(slot);
    a.commit(std::slice::from_ref(&resource)).await.unwrap();
    a.commit(&[granted(&resource, 5)]).await.unwrap();
    // Something that is gone.
    let gone = created("gone");
    a.commit(std::slice::from_ref(&gone)).await.unwrap();
    let mut removed = Snapshot::empty(gone.name.clone(), gone.id.clone());
    removed.remove(FencingToken(41));
    a.commit(&[removed]).await.unwrap();
    // Whatever is in the log is in the tables by then.
    assert_eq!(a.give(&[slot], to).await, Ok(true));
    let late = a.commit(&[granted(&resource, 9)]).await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
    let members = heartbeat(&b).await;
    assert_eq!(members.owner(slot), to);
    assert_eq!(slots_of(&members, owner), SLOTS - 1);
    assert_eq!(members.token_floor, FencingToken(41));
    assert_eq!(token(&b, &resource).await, Some(5));
    b.commit(&[granted(&resource, 6)]).await.unwrap();
    b.checkpoint().await.unwrap();
    // Nothing of it comes again when the giver dies.
    drop(a);
    take_all(&b).await;
    assert_eq!(token(&b, &resource).await, Some(6));
    let members = heartbeat(&b).await;
    assert_eq!(members.token_floor, FencingToken(41), "it was its writer's");
    assert_eq!(b.highest_token().await, Ok(FencingToken(41)));
}

#[tokio::test]
async fn slots_are_given_by_their_owner_alone_and_to_whom_takes_them() {
    let Some(database) = Database::new() else {
        return;
    };
    let [(a, first), (b, second)] = two(&database).await;
    let slot = half(0)[0];
    assert_eq!(
        a.give(&[slot], [7; 16]).await,
        Ok(false),
        "there is no such"
    );
    b.leave().await.unwrap();
    assert_eq!(a.give(&[slot], second).await, Ok(false), "it leaves");
    let members = heartbeat(&a).await;
    assert_eq!(members.member(second).unwrap().state, MemberState::Leaves);
    assert_eq!(members.owner(slot), first);
    // It still serves what it has, and gives it away.
    b.commit(&[created_in(half(1)[0])]).await.unwrap();
    let error = b.give(&[half(1)[0], slot], first).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Unavailable(text) if text.contains("another")),
        "{error:?}"
    );
    assert_eq!(
        slots_of(&heartbeat(&a).await, first),
        SLOTS / 2,
        "a part was given"
    );
    let back = join(&b).await;
    assert_eq!(slots_of(&back, back.me), SLOTS / 2);
    assert_eq!(b.give(&half(1), first).await, Ok(true));
    b.close().await;
    let members = heartbeat(&a).await;
    assert_eq!(
        (members.members.len(), slots_of(&members, first)),
        (1, SLOTS)
    );
    let rows = "SELECT COUNT(DISTINCT log) FROM resource_log";
    assert_eq!(database.number(rows).await, 1, "nothing is left of it");
}

#[tokio::test]
async fn a_fenced_instance_gives_nothing_and_takes_nothing_over() {
    for gives in [true, false] {
        let Some(database) = Database::new() else {
            return;
        };
        let [(a, first), (_b, second)] = two(&database).await;
        if !gives {
            until_dead(&a, second).await;
        }
        let fence = format!(
            "UPDATE resource_instance SET state = 3 WHERE id = {}",
            hex(first)
        );
        database.run(&fence).await;
        let refused = match gives {
            true => a.give(&half(0), second).await.map(|_| ()),
            false => a.take_over(second).await,
        };
        assert_eq!(refused, Err(StoreError::Standby));
        for id in [first, second] {
            let sql = format!(
                "SELECT COUNT(*) FROM resource_slot WHERE owner = {}",
                hex(id)
            );
            assert_eq!(database.number(&sql).await as usize, SLOTS / 2);
        }
    }
}

#[tokio::test]
async fn of_those_that_take_over_the_same_one_does_and_the_others_know() {
    let Some(database) = Database::new() else {
        return;
    };
    let dead = database.store();
    let id = join(&dead).await.me;
    let resource = created("a");
    dead.commit(std::slice::from_ref(&resource)).await.unwrap();
    for number in 1..=40 {
        dead.commit(&[granted(&resource, number)]).await.unwrap();
    }
    drop(dead);
    let stores: Vec<_> = (0..3).map(|_| database.store()).collect();
    for store in &stores {
        join(store).await;
    }
    join_all(stores.iter().map(|store| until_dead(store, id))).await;
    let taken = join_all(stores.iter().map(|store| store.take_over(id))).await;
    assert_eq!(taken, vec![Ok(()); 3]);
    let all: Vec<_> = stores.iter().collect();
    each_slot_once(&all).await;
    let members = heartbeat(&stores[0]).await;
    assert_eq!(members.members.len(), 3, "{:?}", members.members);
    let owner = members.owners[0];
    assert_eq!(slots_of(&members, owner), SLOTS);
    let place = members.members.iter().position(|member| member.id == owner);
    assert!(place.is_some(), "{:?}", members.members);
    assert_eq!(token(&stores[0], &resource).await, Some(40));
    for store in &stores {
        store
            .commit(&[created(&format!("{:?}", heartbeat(store).await.me))])
            .await
            .unwrap();
    }
}

/// A dead instance with something in its log, which is marked and sealed as if `executor` took over from it.
async fn half_buried(database: &Database, executor: InstanceId) -> (InstanceId, Snapshot) {
    let dead = database.store();
    let id = join(&dead).await.me;
    let resource = created("a");
    dead.commit(std::slice::from_ref(&resource)).await.unwrap();
    dead.commit(&[granted(&resource, 3)]).await.unwrap();
    drop(dead);
    mark(database, id, executor).await;
    (id, resource)
}

async fn mark(database: &Database, dead: InstanceId, executor: InstanceId) {
    let (dead, executor) = (hex(dead), hex(executor));
    database
        .run_script(&format!(
            "UPDATE resource_instance SET state = 3, executor = {executor}, heartbeat = heartbeat + 1 \
             WHERE id = {dead};\n\
             INSERT INTO resource_log SELECT log, MAX(n) + 1, x'03' FROM resource_log WHERE log = \
             (SELECT log FROM resource_instance WHERE id = {dead}) GROUP BY log;"
        ))
        .await;
}

#[tokio::test]
async fn a_take_over_whose_instance_has_died_is_gone_on_with() {
    let Some(database) = Database::new() else {
        return;
    };
    let (_, resource) = half_buried(&database, [9; 16]).await;
    let store = database.store();
    // Whoever began it is gone, so nobody is waited for.
    let members = join(&store).await;
    assert_eq!(slots_of(&members, members.me), SLOTS);
    assert_eq!(members.members.len(), 1, "{:?}", members.members);
    assert_eq!(token(&store, &resource).await, Some(3));
}

#[tokio::test]
async fn a_take_over_is_left_to_who_began_it_for_as_long_as_that_one_lives() {
    let Some(database) = Database::new() else {
        return;
    };
    let executor = database.store();
    let began = join(&executor).await.me;
    let dead = database.store();
    let id = join(&dead).await.me;
    mark(&database, id, began).await;
    let other = database.store();
    join(&other).await;
    for _ in 0..5 {
        heartbeat(&executor).await;
        let members = heartbeat(&other).await;
        let state = members.member(id).unwrap().state;
        assert_eq!(state, MemberState::BeingTakenOver);
        assert_eq!(members.dead().count(), 0);
        other.take_over(id).await.unwrap();
    }
    assert!(heartbeat(&other).await.member(id).is_some());
    // It goes on itself.
    executor.take_over(id).await.unwrap();
    assert!(heartbeat(&other).await.member(id).is_none());
}

/// The packets of an instance that was cut off arrive in the end: after this many bytes it was.
async fn a_take_over_comes_late(database: Database, cut_after: usize, is_fenced: bool) {
    let dead = database.store();
    let id = join(&dead).await.me;
    let resource = created("a");
    dead.commit(std::slice::from_ref(&resource)).await.unwrap();
    dead.commit(&[granted(&resource, 1)]).await.unwrap();
    drop(dead);
    let proxy = Proxy::to(&database.options());
    let late = MysqlStore::new(proxy.between(database.options()));
    join(&late).await;
    until_dead(&late, id).await;
    proxy.hold_requests_after(cut_after);
    let taking = tokio::spawn(async move { (late.take_over(id).await, late) });
    proxy.request_is_held().await;
    let new = database.store();
    if is_fenced {
        take_over(&new).await;
    } else {
        // It is silent too, and all the same only that which it was taking over is taken.
        join(&new).await;
        until_dead(&new, id).await;
        new.take_over(id).await.unwrap();
    }
    assert_eq!(token(&new, &resource).await, Some(1));
    new.commit(&[granted(&resource, 2)]).await.unwrap();
    new.checkpoint().await.unwrap();
    proxy.hold_requests(false);
    let (taken, late) = taking.await.unwrap();
    assert_eq!(taken.is_err(), is_fenced, "{cut_after}: {taken:?}");
    assert_eq!(token(&new, &resource).await, Some(2));
    let members = heartbeat(&new).await;
    assert_eq!(slots_of(&members, members.me), SLOTS);
    let back = join(&late).await;
    assert_eq!(slots_of(&back, back.me), 0);
}

#[tokio::test]
async fn steps_of_a_take_over_that_come_late_change_nothing() {
    let mut all = Vec::new();
    for is_fenced in [true, false] {
        for cut_after in [0, 1_000, 2_000, 3_000, 4_000] {
            let Some(database) = Database::new() else {
                return;
            };
            all.push(a_take_over_comes_late(database, cut_after, is_fenced));
        }
    }
    join_all(all).await;
}

#[tokio::test]
async fn a_gift_to_one_that_is_gone_is_found() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    let me = join(&store).await.me;
    // As when it was given while its new owner was being buried, at a server that had not heard of that.
    let gift = format!(
        "UPDATE resource_slot SET owner = {} WHERE slot < 10; \
         UPDATE resource_server SET epoch = epoch + 1",
        hex([9; 16])
    );
    database.run_script(&gift.replace("; ", ";\n")).await;
    let other = database.store();
    join(&other).await;
    let members = heartbeat(&store).await;
    assert_eq!(members.members.len(), 2);
    assert_eq!(
        members.dead().count(),
        0,
        "whoever opened has found it: {:?}",
        members.members
    );
    assert_eq!(slots_of(&members, me), SLOTS - 10);
    database
        .run_script(&gift.replace("; ", ";\n").replace("< 10", "> 1000"))
        .await;
    assert_eq!(
        heartbeat(&store).await.dead().collect::<Vec<_>>(),
        [[9; 16]]
    );
    heartbeat(&other).await;
    let taken = tokio::join!(store.take_over([9; 16]), other.take_over([9; 16]));
    assert_eq!(taken, (Ok(()), Ok(())));
    each_slot_once(&[&store, &other]).await;
}

#[tokio::test]
async fn whoever_lost_the_database_in_doubt_comes_back_with_what_it_had_at_once() {
    let Some(database) = Database::new() else {
        return;
    };
    let options = Options {
        // Whoever waited for it would not be done in time.
        instance_lease: 10 * DEADLINE,
        timeout: Duration::from_secs(1),
        ..database.options()
    };
    let proxy = Proxy::to(&options);
    let store = MysqlStore::new(proxy.between(options.clone()));
    let other = MysqlStore::new(options);
    let before = join(&store).await.me;
    let second = join(&other).await.me;
    assert_eq!(store.give(&half(1), second).await, Ok(true));
    let resource = created_in(half(0)[0]);
    store.commit(std::slice::from_ref(&resource)).await.unwrap();
    for round in 1..=3 {
        store.commit(&[granted(&resource, round)]).await.unwrap();
        proxy.hold_answers(true);
        let unknown = store.commit(&[granted(&resource, round + 10)]).await;
        assert!(
            matches!(unknown, Err(StoreError::Unavailable(_))),
            "{unknown:?}"
        );
        proxy.answer_is_unheard().await;
        proxy.hold_answers(false);
        let members = join(&store).await;
        assert_ne!(members.me, before);
        assert_eq!(slots_of(&members, members.me), SLOTS / 2);
        assert_eq!(members.members.len(), 2, "{:?}", members.members);
        assert_eq!(token(&store, &resource).await, Some(round + 10));
    }
    each_slot_once(&[&store, &other]).await;
    assert_eq!(heartbeat(&other).await.dead().count(), 0);
}

/// As where its process was paused, or its link was cut, while it gave slots away.
#[tokio::test]
async fn an_instance_that_stopped_in_mid_transaction_does_not_keep_others_from_joining() {
    let Some(database) = Database::new() else {
        return;
    };
    let a = database.store();
    let stopped = join(&a).await.me;
    let mut writer = database.admin().await;
    let id = hex(stopped);
    let is_writer =
        format!("UPDATE resource_instance SET connection = CONNECTION_ID() WHERE id = {id}");
    writer.query_drop(is_writer).await.unwrap();
    writer.query_drop("BEGIN").await.unwrap();
    let lock = "UPDATE resource_server SET epoch = epoch + 1 WHERE id = 1";
    writer.query_drop(lock).await.unwrap();
    let b = database.store();
    let began = Instant::now();
    while let Err(error) = b.open().await {
        assert!(began.elapsed() < DEADLINE, "{error}");
    }
    // It was found to be silent, or will be.
    let mut members = heartbeat(&b).await;
    while slots_of(&members, members.me) < SLOTS {
        if members.dead().any(|dead| dead == stopped) {
            b.take_over(stopped).await.unwrap();
        }
        assert!(began.elapsed() < DEADLINE, "{:?}", members.members);
        tokio::time::sleep(Duration::from_millis(20)).await;
        members = heartbeat(&b).await;
    }
}

#[tokio::test]
async fn nobody_joins_a_database_that_is_somebodys_alone() {
    let Some(database) = Database::new() else {
        return;
    };
    let first = database.store();
    first.open().await.unwrap();
    first.close().await;
    database
        .run("UPDATE resource_server SET owner = REPEAT('x', 16), epoch = epoch + 1")
        .await;
    let store = database.store();
    assert_eq!(store.open().await, Err(StoreError::Standby));
    let instances = "SELECT COUNT(*) FROM resource_instance WHERE state = 1";
    assert_eq!(database.number(instances).await, 0);
    // That one was in the midst of something when it died.
    let members = take_over(&store).await;
    assert_eq!(members.members.len(), 1, "{:?}", members.members);
}

#[tokio::test]
async fn whoever_has_to_be_alone_waits_for_the_dead_and_not_for_the_living() {
    let Some(database) = Database::new() else {
        return;
    };
    let (live, dead) = (database.store(), database.store());
    join(&live).await;
    let gone = join(&dead).await.me;
    drop(dead);
    let beats = async {
        loop {
            live.heartbeat().await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let refused = tokio::select! {
        refused = async { database.store().open_alone().await } => refused,
        () = beats => unreachable!(),
    };
    assert_eq!(refused, Err(StoreError::Standby));
    assert!(
        heartbeat(&live).await.member(gone).is_some(),
        "nothing was touched"
    );
    let resource = created("a");
    live.commit(std::slice::from_ref(&resource)).await.unwrap();
    live.commit(&[granted(&resource, 8)]).await.unwrap();
    drop(live);
    let alone = database.store();
    let members = alone.open_alone().await.unwrap().1.unwrap();
    assert_eq!(members.members.len(), 1, "{:?}", members.members);
    assert_eq!(slots_of(&members, members.me), SLOTS);
    alone.raise_tokens(FencingToken(70)).await.unwrap();
    assert_eq!(token(&alone, &resource).await, Some(70));
    assert_eq!(heartbeat(&alone).await.token_floor, FencingToken(70));
}

#[tokio::test]
async fn an_instance_with_another_lease_is_refused_while_others_live() {
    let Some(database) = Database::new() else {
        return;
    };
    let first = database.store();
    join(&first).await;
    let other = MysqlStore::new(Options {
        instance_lease: Duration::from_millis(4500),
        ..database.options()
    });
    let began = Instant::now();
    let error = loop {
        first.heartbeat().await.unwrap();
        match other.open().await {
            Err(StoreError::Standby) if began.elapsed() < DEADLINE => {}
            result => break result.unwrap_err(),
        }
    };
    let StoreError::Unusable(text) = error else {
        panic!("{error:?}");
    };
    assert!(
        text.contains("INSTANCE_LEASE_SECONDS is 4.5 here and 3 at"),
        "{text}"
    );
    let rows = "SELECT COUNT(*) FROM resource_instance";
    assert_eq!(database.number(rows).await, 1);
    // Once that one is dead, the new one is what counts.
    drop(first);
    take_over(&other).await;
    other.commit(&[created("a")]).await.unwrap();
    assert!(exists(&other, "a").await);
}
