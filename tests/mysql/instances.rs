//! Several instances on one database, of which one is active.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mysql_async::prelude::Queryable;
use small_resource_server::lock::rows::EndedRow;
use small_resource_server::lock::{EndReason, FencingToken, Ticket};
use small_resource_server::store::mysql::{MysqlStore, Options};
use small_resource_server::store::{Snapshot, Store, StoreError};

use super::support::{DEADLINE, Database, Proxy, created, granted, serve, take_over, token};
use super::{exists, write};

#[tokio::test]
async fn instances_that_start_together_make_one_schema_and_one_owner() {
    let Some(database) = Database::new() else {
        return;
    };
    let stores: Vec<_> = (0..5).map(|_| database.store()).collect();
    let opened = join_all(stores.iter().map(|store| store.open())).await;
    let owners = opened.iter().filter(|result| result.is_ok()).count();
    assert_eq!(owners, 1, "{opened:?}");
    let others = opened.iter().filter_map(|result| result.as_ref().err());
    for error in others {
        assert_eq!(*error, StoreError::Standby);
    }
    let owner = opened.iter().position(Result::is_ok).unwrap();
    stores[owner].commit(&[created("a")]).await.unwrap();
    assert!(exists(&stores[owner], "a").await);
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
async fn a_stand_by_waits_while_the_active_one_lives_and_takes_over_when_it_is_silent() {
    let Some(database) = Database::new() else {
        return;
    };
    let (active, standby) = (database.store(), database.store());
    active.open().await.unwrap();
    active.commit(&[created("a")]).await.unwrap();
    let lease = database.options().instance_lease;
    let began = Instant::now();
    let mut silent_since = began;
    while began.elapsed() < 3 * lease {
        silent_since = Instant::now();
        active.heartbeat().await.unwrap();
        assert_eq!(standby.open().await, Err(StoreError::Standby));
    }
    take_over(&standby).await;
    assert!(
        silent_since.elapsed() >= lease,
        "taken before the lease was over"
    );
    assert!(exists(&standby, "a").await);
    assert_eq!(active.heartbeat().await, Err(StoreError::Standby));
}

#[tokio::test]
async fn an_instance_that_lost_the_database_can_commit_nothing() {
    let Some(database) = Database::new() else {
        return;
    };
    let (old, new) = (database.store(), database.store());
    old.open().await.unwrap();
    take_over(&new).await;
    let error = old.commit(&[created("late")]).await.unwrap_err();
    // Its connection was ended too, so it may learn of that first.
    assert!(
        matches!(error, StoreError::Standby | StoreError::Unavailable(_)),
        "{error:?}"
    );
    assert!(!exists(&new, "late").await);
    assert_eq!(old.open().await, Err(StoreError::Standby));
    new.commit(&[created("a")]).await.unwrap();
}

/// What others do to whom they take over from, one at a time.
const FENCES: [&str; 5] = [
    "UPDATE resource_instance SET state = 3",
    "UPDATE resource_instance SET log = REPEAT('x', 16)",
    "DELETE FROM resource_instance",
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
            // It finds itself the owner, and goes on with a new log.
            store.open().await.unwrap();
            assert_eq!(token(&store, &printer).await, Some(0), "{fence}");
        }
        let count = database.number("SELECT COUNT(*) FROM resource").await;
        assert_eq!(count, 1, "{fence}");
        store.commit(&[granted(&printer, 1)]).await.unwrap();
    }
}

/// A grant of a resource that exists.
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

/// The commit of an earlier owner that was on its way when the database was taken counts.
#[tokio::test]
async fn what_was_committed_while_the_database_was_being_taken_is_seen() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    store.open().await.unwrap();
    store.close().await;
    let mut late = database.admin().await;
    let begun = "BEGIN; UPDATE resource_server SET floor = 9";
    late.query_drop(begun).await.unwrap();
    let opening = tokio::spawn(async move { store.open().await });
    until_somebody_waits(&database).await;
    late.query_drop("COMMIT").await.unwrap();
    let opened = opening.await.unwrap().unwrap();
    assert_eq!(opened.token_floor, FencingToken(9));
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
    store.open().await.unwrap();
    assert_eq!(store.load(&printer.name).await.unwrap(), before);
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
    take_over(&database.store()).await;
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
    assert_eq!(second.open().await, Err(StoreError::Standby));
    first.close().await;
    second.open().await.unwrap();
    second.commit(&[created("a")]).await.unwrap();
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
    crashed.open().await.unwrap();
    drop(crashed);
    let restarted = MysqlStore::new(options);
    assert_eq!(restarted.open().await, Err(StoreError::Standby));
}

#[tokio::test]
async fn rows_of_the_journal_that_nobody_read_are_not_taken_out() {
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
        matches!(&refused, Err(StoreError::Unavailable(text)) if text.contains("journal")),
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
    let opened = store.open().await.unwrap();
    assert!(opened.token_floor >= FencingToken(60), "{opened:?}");
    assert!(token(&store, &resource).await >= Some(60));
    assert!(token(&store, &untouched).await >= Some(60));
    // Nothing is lost the next time, and nothing is raised.
    store.commit(&[granted(&resource, 61)]).await.unwrap();
    store.heartbeat().await.unwrap();
    assert_eq!(store.open().await.unwrap().token_floor, opened.token_floor);
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
        assert_eq!(store.open().await.unwrap().token_floor, FencingToken(0));
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
    let opened = store.open().await.unwrap();
    assert!(opened.token_floor >= FencingToken(9), "{opened:?}");
    assert!(token(&store, &resource).await >= Some(9));
}

/// The one row that says whose the database is, though nobody has touched the instance's own.
#[tokio::test]
async fn a_heartbeat_of_whom_the_database_does_not_name_is_refused() {
    for other in [
        "owner = REPEAT('x', 16)",
        "owner = NULL",
        "epoch = epoch + 1",
    ] {
        let Some(database) = Database::new() else {
            return;
        };
        let store = database.store();
        store.open().await.unwrap();
        store.heartbeat().await.unwrap();
        let sql = format!("UPDATE resource_server SET {other}");
        database.run(&sql).await;
        assert_eq!(store.heartbeat().await, Err(StoreError::Standby), "{other}");
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
