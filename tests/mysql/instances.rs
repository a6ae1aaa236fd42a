//! Several instances on one database: who joins, what fences whom, what is lost and what is not.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mysql_async::prelude::Queryable;
use small_resource_server::lock::rows::EndedRow;
use small_resource_server::lock::{EndReason, FencingToken, Ticket};
use small_resource_server::store::members::{MemberState, SLOTS};
use small_resource_server::store::mysql::{MysqlStore, Options};
use small_resource_server::store::{Snapshot, Store, StoreError};

use super::support::{
    DEADLINE, Database, Proxy, created, granted, heartbeat, join, serve, slots_of, take_all,
    take_over, token,
};
use super::{exists, hex, write};

#[tokio::test]
async fn instances_that_start_together_make_one_schema_and_one_owns_every_name() {
    let Some(database) = Database::new() else {
        return;
    };
    let stores: Vec<_> = (0..5).map(|_| database.store()).collect();
    let joined = join_all(stores.iter().map(join)).await;
    let owners: Vec<_> = joined.iter().map(|members| members.owners[0]).collect();
    assert!(owners.iter().all(|owner| *owner == owners[0]), "{joined:?}");
    for (store, before) in stores.iter().zip(&joined) {
        let members = heartbeat(store).await;
        assert_eq!(members.members.len(), 5, "{:?}", members.members);
        assert_eq!(slots_of(&members, owners[0]), SLOTS);
        assert_eq!(members.me, before.me);
        // Whoever has joined serves: requests are passed on to the owner.
        store
            .commit(&[created(&format!("{:?}", members.me))])
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn opening_again_keeps_what_is_there() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    store.open().await.unwrap();
    store.commit(&[created("a")]).await.unwrap();
    store.close().await;
    let again = database.store();
    again.open().await.unwrap();
    assert!(exists(&again, "a").await);
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_a_sentence() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    store.open().await.unwrap();
    store.close().await;
    database
        .run("UPDATE resource_server SET version = 99, step = 'of the future'")
        .await;
    let error = database.store().open().await.unwrap_err();
    let StoreError::Unusable(text) = error else {
        panic!("{error:?}");
    };
    assert!(text.contains("version 99"), "{text}");
}

#[tokio::test]
async fn an_instance_is_waited_for_while_it_lives_and_taken_over_from_when_it_is_silent() {
    let Some(database) = Database::new() else {
        return;
    };
    let (first, second) = (database.store(), database.store());
    let owner = join(&first).await.me;
    first.commit(&[created("a")]).await.unwrap();
    join(&second).await;
    let lease = database.options().instance_lease;
    let began = Instant::now();
    let mut silent_since = began;
    while began.elapsed() < 3 * lease {
        silent_since = Instant::now();
        first.heartbeat().await.unwrap();
        let members = heartbeat(&second).await;
        assert_eq!(members.member(owner).unwrap().state, MemberState::Serves);
        assert_eq!(members.dead().count(), 0);
        // Nothing is taken from one that lives.
        second.take_over(owner).await.unwrap();
        assert_eq!(slots_of(&heartbeat(&second).await, owner), SLOTS);
    }
    take_all(&second).await;
    assert!(
        silent_since.elapsed() >= lease,
        "taken before the lease was over"
    );
    assert!(exists(&second, "a").await);
    assert_eq!(first.heartbeat().await, Err(StoreError::Standby));
}

#[tokio::test]
async fn an_instance_that_was_taken_over_from_can_commit_nothing_and_comes_back_as_another() {
    let Some(database) = Database::new() else {
        return;
    };
    let (old, new) = (database.store(), database.store());
    let before = join(&old).await.me;
    take_over(&new).await;
    let error = old.commit(&[created("late")]).await.unwrap_err();
    // Its connection was ended too, so it may learn of that first.
    assert!(
        matches!(error, StoreError::Standby | StoreError::Unavailable(_)),
        "{error:?}"
    );
    assert!(!exists(&new, "late").await);
    let back = join(&old).await;
    assert_ne!(back.me, before);
    assert_eq!(slots_of(&back, back.me), 0);
    assert!(back.member(before).is_none(), "{back:?}");
    new.commit(&[created("a")]).await.unwrap();
}

/// What others do to whom they take over from, one at a time.
const FENCES: [&str; 3] = [
    "UPDATE resource_instance SET state = 3",
    "INSERT INTO resource_log SELECT log, MAX(n) + 1, x'03' FROM resource_log GROUP BY log",
    "DELETE FROM resource_log ORDER BY n DESC LIMIT 1",
];

#[tokio::test]
async fn each_part_of_a_fence_refuses_a_commit_on_a_living_connection() {
    for fence in FENCES {
        let Some(database) = Database::new() else {
            return;
        };
        let store = database.store();
        store.open().await.unwrap();
        let printer = created("printer");
        store.commit(std::slice::from_ref(&printer)).await.unwrap();
        for late in [granted(&printer, 1), created("late")] {
            database.run(fence).await;
            let refused = store.commit(&[late]).await;
            assert_eq!(refused, Err(StoreError::Standby), "{fence}");
            // It takes over from itself, and goes on with a new log.
            store.open().await.unwrap();
            assert_eq!(token(&store, &printer).await, Some(0), "{fence}");
        }
        let count = database.number("SELECT COUNT(*) FROM resource").await;
        assert_eq!(count, 1, "{fence}");
        store.commit(&[granted(&printer, 1)]).await.unwrap();
    }
}

#[tokio::test]
async fn a_commit_waits_for_a_take_over_under_way() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    let printer = serve(&store).await;
    for late in [granted(&printer, 1), created("late")] {
        let mut other = database.admin().await;
        other.query_drop("BEGIN").await.unwrap();
        other.query_drop(FENCES[0]).await.unwrap();
        let batch = [late];
        let mut commit = std::pin::pin!(store.commit(&batch));
        let early = tokio::time::timeout(Duration::from_millis(300), &mut commit).await;
        assert!(early.is_err(), "{early:?}");
        other.query_drop("COMMIT").await.unwrap();
        assert_eq!(commit.await, Err(StoreError::Standby));
        store.open().await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_committed_without_a_row_of_ones_own_that_names_the_log() {
    for fence in [
        "UPDATE resource_instance SET log = REPEAT('x', 16)",
        "DELETE FROM resource_instance",
    ] {
        for late in [true, false] {
            let Some(database) = Database::new() else {
                return;
            };
            let store = database.store();
            let printer = serve(&store).await;
            database.run(fence).await;
            let batch = match late {
                true => created("late"),
                false => granted(&printer, 1),
            };
            assert_eq!(store.commit(&[batch]).await, Err(StoreError::Standby));
            assert_eq!(token(&store, &printer).await, Some(0), "{fence}");
            let count = database.number("SELECT COUNT(*) FROM resource").await;
            assert_eq!(count, 1, "{fence}");
        }
    }
}

#[tokio::test]
async fn the_guard_refuses_changes_of_locks_and_settling_too() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    for checkpointing in [false, true] {
        store.open().await.unwrap();
        let printer = created(&format!("checkpointing {checkpointing}"));
        for (token, batch) in [printer.clone(), granted(&printer, 1), granted(&printer, 2)]
            .into_iter()
            .enumerate()
        {
            store.commit(&[batch]).await.unwrap();
            assert_eq!(
                super::support::token(&store, &printer).await,
                Some(token as u64)
            );
        }
        let rows = "SELECT COUNT(*) FROM resource_log WHERE LENGTH(changes) > 1";
        assert_eq!(database.number(rows).await, 2);
        database.run("UPDATE resource_instance SET state = 3").await;
        let refused = match checkpointing {
            true => store.checkpoint().await,
            false => store.commit(&[granted(&printer, 3)]).await,
        };
        assert_eq!(refused, Err(StoreError::Standby));
        assert_eq!(database.number(rows).await, 2);
        let stored = "SELECT COALESCE(MAX(token), 0) FROM resource_lock";
        let before = if checkpointing { 2 } else { 0 };
        assert_eq!(
            database.number(stored).await,
            before,
            "what the first round came to"
        );
    }
}

#[tokio::test]
async fn a_lock_of_its_own_that_comes_late_lands_in_no_later_log() {
    let Some(database) = Database::new() else {
        return;
    };
    let proxy = Proxy::to(&database.options());
    let store = MysqlStore::new(proxy.between(impatient(database.options())));
    store.open().await.unwrap();
    let printer = created("printer");
    store.commit(std::slice::from_ref(&printer)).await.unwrap();
    store.commit(&[granted(&printer, 1)]).await.unwrap();
    proxy.hold_requests(true);
    let unknown = store.commit(&[granted(&printer, 9)]).await.unwrap_err();
    assert!(matches!(unknown, StoreError::Unavailable(_)), "{unknown:?}");
    proxy.let_new_connections_pass();
    store.open().await.unwrap();
    assert_eq!(token(&store, &printer).await, Some(1));
    store.commit(&[granted(&printer, 2)]).await.unwrap();
    proxy.hold_requests(false);
    proxy.answer_is_unheard().await;
    assert_eq!(token(&store, &printer).await, Some(2));
    store.open().await.unwrap();
    assert_eq!(token(&store, &printer).await, Some(2));
}

/// Waits until somebody waits for a row lock.
async fn until_somebody_waits(database: &Database) {
    let waiting =
        "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'";
    let began = Instant::now();
    while database.number(waiting).await == 0 {
        assert!(began.elapsed() < DEADLINE);
        // The table is made anew only for whoever asks less often than ten times a second.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

/// The commit of a dead one that was on its way when it was taken over from counts.
#[tokio::test]
async fn what_was_committed_during_a_take_over_is_seen() {
    let Some(database) = Database::new() else {
        return;
    };
    let (old, new) = (database.store(), database.store());
    let dead = join(&old).await.me;
    join(&new).await;
    while heartbeat(&new).await.dead().count() == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut late = database.admin().await;
    let begun = format!(
        "BEGIN; UPDATE resource_instance SET floor = 9 WHERE id = {}",
        hex(dead)
    );
    late.query_drop(begun).await.unwrap();
    let taking = tokio::spawn(async move {
        new.take_over(dead).await.unwrap();
        new
    });
    until_somebody_waits(&database).await;
    late.query_drop("COMMIT").await.unwrap();
    let new = taking.await.unwrap();
    let members = heartbeat(&new).await;
    assert_eq!(members.token_floor, FencingToken(9));
    assert_eq!(slots_of(&members, members.me), SLOTS);
}

fn ended(resource: &Snapshot, n: u64) -> Snapshot {
    let mut snapshot = granted(resource, n);
    snapshot.lock.ended.push(EndedRow {
        n,
        ticket: Ticket::from_bits(u128::from(n)),
        reason: EndReason::Expired,
        more: None,
    });
    snapshot
}

/// As when the process dies after a part of the journal was deleted.
#[tokio::test]
async fn settling_the_rest_of_a_journal_again_forgets_no_ended_ticket() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    store.open().await.unwrap();
    let printer = created("printer");
    store.commit(std::slice::from_ref(&printer)).await.unwrap();
    for n in 0..20 {
        store.commit(&[ended(&printer, n)]).await.unwrap();
    }
    database
        .run("CREATE TABLE rest AS SELECT * FROM resource_log WHERE n > 10 AND LENGTH(changes) > 1")
        .await;
    store.checkpoint().await.unwrap();
    let before = store.load(&printer.name).await.unwrap();
    assert_eq!(before.as_ref().unwrap().lock.ended.len(), 20);
    database
        .run("INSERT INTO resource_log SELECT REPEAT('x', 16), n, changes FROM rest")
        .await;
    // Whoever wrote it is dead.
    database
        .run(
            "INSERT INTO resource_instance SELECT REPEAT('d', 16), 3, 1, REPEAT('x', 16), server, \
             connection, address, peer_secret, NULL, 0, lease_ms, version FROM resource_instance",
        )
        .await;
    store.open().await.unwrap();
    assert_eq!(store.load(&printer.name).await.unwrap(), before);
    let left = "SELECT COUNT(*) FROM resource_log WHERE log = REPEAT('x', 16)";
    assert_eq!(database.number(left).await, 0);
}

/// A batch that takes several packets.
fn large() -> [small_resource_server::store::Snapshot; 1] {
    let mut snapshot = created("large");
    let json = format!("\"{}\"", "x".repeat(1 << 20));
    for n in 0..8 {
        write(&mut snapshot, &n.to_string(), json.as_bytes());
    }
    [snapshot]
}

#[tokio::test]
async fn an_instance_stopped_in_mid_transaction_is_taken_over_and_commits_nothing() {
    let Some(database) = Database::new() else {
        return;
    };
    let proxy = Proxy::to(&database.options());
    let old = MysqlStore::new(proxy.between(database.options()));
    old.open().await.unwrap();
    // The first packet arrives: the transaction is open and has the row lock. The next ones do not.
    proxy.hold_requests_after(5 << 20);
    let stopped = tokio::spawn(async move { old.commit(&large()).await });
    proxy.request_is_held().await;
    let locked = database
        .number("SELECT COUNT(*) FROM information_schema.innodb_trx")
        .await;
    assert!(locked > 0);
    let new = database.store();
    take_over(&new).await;
    proxy.hold_requests(false);
    assert!(stopped.await.unwrap().is_err());
    assert!(!exists(&new, "large").await);
    new.commit(&[created("a")]).await.unwrap();
}

/// As after a restart of the database server, which gives out the numbers of connections anew.
#[tokio::test]
async fn a_connection_that_has_got_the_number_of_a_dead_ones_is_not_ended() {
    let Some(database) = Database::new() else {
        return;
    };
    let (old, new) = (database.store(), database.store());
    join(&old).await;
    let mut other = database.admin().await;
    other
        .query_drop("UPDATE resource_instance SET connection = CONNECTION_ID()")
        .await
        .unwrap();
    take_over(&new).await;
    let answer: Option<u64> = other.query_first("SELECT 1").await.unwrap();
    assert_eq!(answer, Some(1));
}

/// MySQL's own list of connections fails as long as a statement that runs has such a character.
#[tokio::test]
async fn whatever_others_ask_the_database_meanwhile_it_is_taken_over() {
    let Some(database) = Database::new() else {
        return;
    };
    let old = database.store();
    old.open().await.unwrap();
    let mut other = database.admin().await;
    let asking = tokio::spawn(async move { other.query_drop("DO SLEEP(120), '\u{1f511}'").await });
    let running =
        "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE 'User sleep'";
    let began = Instant::now();
    let mut admin = database.admin().await;
    // It is an error itself where this is about something.
    while let Ok(Some(0)) = admin.query_first::<u64, _>(running).await {
        assert!(began.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // One that stopped in mid-transaction: whoever takes over has to find and end its connection.
    let mut writer = database.admin().await;
    let lock = "UPDATE resource_server SET epoch = epoch + 1 WHERE id = 1";
    for sql in [
        "UPDATE resource_instance SET connection = CONNECTION_ID()",
        "BEGIN",
        lock,
    ] {
        writer.query_drop(sql).await.unwrap();
    }
    take_over(&database.store()).await;
    assert!(writer.ping().await.is_err());
    assert!(!asking.is_finished());
    database.kill_all().await;
}

fn impatient(options: Options) -> Options {
    Options {
        timeout: Duration::from_secs(1),
        ..options
    }
}

#[tokio::test]
async fn a_commit_of_its_own_that_comes_late_lands_in_no_later_log() {
    let Some(database) = Database::new() else {
        return;
    };
    let proxy = Proxy::to(&database.options());
    let store = MysqlStore::new(proxy.between(impatient(database.options())));
    store.open().await.unwrap();
    proxy.hold_requests(true);
    let unknown = store.commit(&[created("late")]).await.unwrap_err();
    assert!(matches!(unknown, StoreError::Unavailable(_)), "{unknown:?}");
    proxy.let_new_connections_pass();
    // Nothing is committed while the outcome is unknown.
    let refused = store.commit(&[created("b")]).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused:?}");
    store.open().await.unwrap();
    store.commit(&[created("a")]).await.unwrap();
    proxy.hold_requests(false);
    proxy.answer_is_unheard().await;
    assert!(!exists(&store, "late").await);
    assert!(exists(&store, "a").await);
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_found_after_opening_again() {
    let Some(database) = Database::new() else {
        return;
    };
    let proxy = Proxy::to(&database.options());
    let store = MysqlStore::new(proxy.between(impatient(database.options())));
    store.open().await.unwrap();
    let epoch = "SELECT epoch FROM resource_server";
    let before = database.number(epoch).await;
    proxy.hold_answers(true);
    let unknown = store.commit(&[created("a")]).await.unwrap_err();
    assert!(matches!(unknown, StoreError::Unavailable(_)), "{unknown:?}");
    proxy.answer_is_unheard().await;
    proxy.hold_answers(false);
    store.open().await.unwrap();
    assert!(database.number(epoch).await > before);
    assert!(exists(&store, "a").await);
}

#[tokio::test]
async fn a_clean_close_hands_over_at_once() {
    let Some(database) = Database::new() else {
        return;
    };
    let options = Options {
        // Whoever waited for it would not be done in time.
        instance_lease: 10 * DEADLINE,
        ..database.options()
    };
    let (first, second) = (MysqlStore::new(options.clone()), MysqlStore::new(options));
    first.open().await.unwrap();
    let resource = created("a");
    first.commit(std::slice::from_ref(&resource)).await.unwrap();
    first.commit(&[granted(&resource, 1)]).await.unwrap();
    first.close().await;
    let members = join(&second).await;
    assert_eq!(slots_of(&members, members.me), SLOTS);
    assert_eq!(members.members.len(), 1, "{:?}", members.members);
    assert_eq!(token(&second, &resource).await, Some(1));
    second.commit(&[granted(&resource, 2)]).await.unwrap();
}

#[tokio::test]
async fn a_restarted_instance_waits_for_its_own_previous_life() {
    let Some(database) = Database::new() else {
        return;
    };
    let options = Options {
        instance_lease: 10 * DEADLINE,
        ..database.options()
    };
    let crashed = MysqlStore::new(options.clone());
    let before = join(&crashed).await.me;
    drop(crashed);
    let members = join(&MysqlStore::new(options)).await;
    assert_eq!(members.dead().count(), 0, "{:?}", members.members);
    assert_eq!(slots_of(&members, before), SLOTS);
}

#[tokio::test]
async fn rows_of_the_journal_that_nobody_read_are_not_truncated() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    let resource = serve(&store).await;
    store.commit(&[granted(&resource, 1)]).await.unwrap();
    store.commit(&[granted(&resource, 2)]).await.unwrap();
    database
        .run("INSERT INTO resource_log SELECT log, 0, changes FROM resource_log WHERE n = 3")
        .await;
    let rows = "SELECT COUNT(*) FROM resource_log WHERE LENGTH(changes) > 1";
    let before = database.number(rows).await;
    let refused = store.checkpoint().await;
    assert!(
        matches!(&refused, Err(StoreError::Unavailable(text)) if text.contains("other rows")),
        "{refused:?}"
    );
    assert_eq!(database.number(rows).await, before);
}

#[tokio::test]
async fn a_database_that_lost_commits_gives_no_token_out_again() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    store.open().await.unwrap();
    let (resource, untouched) = (created("a"), created("b"));
    store
        .commit(&[resource.clone(), untouched.clone()])
        .await
        .unwrap();
    store.commit(&[granted(&resource, 41)]).await.unwrap();
    // A dump of now is restored under the living process, later.
    let tables = [
        "resource_server",
        "resource_instance",
        "resource_lock",
        "resource_log",
    ];
    for table in tables {
        let sql = format!("CREATE TABLE dump_{table} AS SELECT * FROM {table}");
        database.run(&sql).await;
    }
    store.commit(&[granted(&resource, 60)]).await.unwrap();
    store.checkpoint().await.unwrap();
    store.heartbeat().await.unwrap();
    for table in tables {
        database.run(&format!("DELETE FROM {table}")).await;
        let sql = format!("INSERT INTO {table} SELECT * FROM dump_{table}");
        database.run(&sql).await;
    }
    database.kill_all().await;
    let (token_floor, _) = store.open().await.unwrap();
    assert!(token_floor >= FencingToken(60), "{token_floor:?}");
    assert!(token(&store, &resource).await >= Some(60));
    assert!(token(&store, &untouched).await >= Some(60));
    // Nothing is lost the next time, and nothing is raised.
    store.commit(&[granted(&resource, 61)]).await.unwrap();
    store.heartbeat().await.unwrap();
    assert_eq!(store.open().await.unwrap().0, token_floor);
    assert_eq!(token(&store, &resource).await, Some(61));
}

#[tokio::test]
async fn a_store_that_is_opened_again_has_lost_nothing() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    let resource = created("a");
    for number in 1..6 {
        assert_eq!(store.open().await.unwrap().0, FencingToken(0));
        if number == 1 {
            store.commit(std::slice::from_ref(&resource)).await.unwrap();
        }
        store.commit(&[granted(&resource, number)]).await.unwrap();
        store.heartbeat().await.unwrap();
        if number % 2 == 0 {
            store.checkpoint().await.unwrap();
        }
        database.kill_all().await;
    }
    store.open().await.unwrap();
    assert_eq!(token(&store, &resource).await, Some(5));
}

#[tokio::test]
async fn a_log_whose_end_is_lost_is_noticed_and_its_tokens_are_not_given_out_again() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    let resource = serve(&store).await;
    for number in 1..=9 {
        store.commit(&[granted(&resource, number)]).await.unwrap();
    }
    database
        .run("DELETE FROM resource_log ORDER BY n DESC LIMIT 4")
        .await;
    // It goes into no log that has a gap.
    let refused = store.commit(&[granted(&resource, 10)]).await;
    assert_eq!(refused, Err(StoreError::Standby));
    let (token_floor, _) = store.open().await.unwrap();
    assert!(token_floor >= FencingToken(9), "{token_floor:?}");
    assert!(token(&store, &resource).await >= Some(9));
}

#[tokio::test]
async fn whoever_deletes_a_whole_log_is_told_which_rows_are_missing() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    let resource = serve(&store).await;
    store.commit(&[granted(&resource, 1)]).await.unwrap();
    database.run("DELETE FROM resource_log").await;
    let Err(StoreError::Unavailable(text)) = store.open().await else {
        panic!("what was in the log is lost");
    };
    assert!(text.contains("rows of resource_log are missing"), "{text}");
    // However often it tries, only the row of the one whose log it was is there.
    for _ in 0..3 {
        assert!(store.open().await.is_err());
        let count = async |table: &str| {
            let sql = format!("SELECT COUNT(*) FROM {table}");
            database.number(&sql).await
        };
        assert_eq!(count("resource_instance").await, 1);
        assert_eq!(count("resource_log").await, 0);
    }
    database.run("DELETE FROM resource_log").await;
    database.run("DELETE FROM resource_instance").await;
    store.open().await.unwrap();
}

#[tokio::test]
async fn a_heartbeat_of_whom_the_database_does_not_know_any_more_is_refused() {
    for fence in [
        "UPDATE resource_instance SET state = 3",
        "UPDATE resource_instance SET log = REPEAT('x', 16)",
        "DELETE FROM resource_instance",
    ] {
        let Some(database) = Database::new() else {
            return;
        };
        let store = database.store();
        store.open().await.unwrap();
        store.heartbeat().await.unwrap();
        database.run(fence).await;
        assert_eq!(store.heartbeat().await, Err(StoreError::Standby), "{fence}");
    }
}

/// Whoever is idle writes nothing.
#[tokio::test]
async fn a_checkpoint_of_what_is_in_the_tables_writes_nothing() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    let resource = serve(&store).await;
    store.commit(&[granted(&resource, 1)]).await.unwrap();
    store.checkpoint().await.unwrap();
    let last = "SELECT MAX(n) FROM resource_log";
    let before = database.number(last).await;
    for _ in 0..3 {
        store.checkpoint().await.unwrap();
    }
    assert_eq!(database.number(last).await, before);
    // And what it wrote goes the next time there is something.
    store.commit(&[granted(&resource, 2)]).await.unwrap();
    store.checkpoint().await.unwrap();
    let rows = database.number("SELECT COUNT(*) FROM resource_log").await;
    assert!(rows <= 3, "{rows} rows");
}
