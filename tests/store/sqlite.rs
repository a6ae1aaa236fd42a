//! What holds for the embedded store alone: the file, its lock, its failures.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use rusqlite::Connection;
use small_resource_server::lock::rows::TicketRow;
use small_resource_server::lock::{EndReason, FencingToken, Mode};
use small_resource_server::store::sqlite::SqliteStore;
use small_resource_server::store::{ListQuery, Snapshot, Store, StoreError};
use tempfile::TempDir;

use crate::bed::{Bed, SqliteBed, run};
use crate::rows::*;

/// Opens a file that cannot be used and answers the sentence that says why.
async fn refusal(path: &Path) -> String {
    match SqliteStore::new(path).open().await {
        Err(error @ StoreError::Unusable(_)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_second_store_on_the_file_is_refused_until_the_first_is_closed() {
    run(async || {
        let bed = SqliteBed::fresh().await;
        let link = bed.path().with_file_name("link.db");
        symlink(bed.path(), &link).unwrap();
        for path in [bed.path(), link] {
            let sentence = refusal(&path).await;
            assert!(sentence.contains(&shown(&path)), "{sentence}");
            assert!(sentence.contains("another process serves it"), "{sentence}");
        }
        commit(bed.store(), &[created("printer")]).await;
        bed.store().close().await;
        let second = SqliteStore::new(bed.path());
        assert!(second.open().await.is_ok());
        assert!(load(&second, "printer").await.is_some());
    });
}

#[test]
fn a_store_that_is_dropped_unclosed_lets_the_next_one_in() {
    run(async || {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("resources.db");
        let first = SqliteStore::new(&path);
        first.open().await.unwrap();
        commit(&first, &[created("printer")]).await;
        drop(first);
        // Its threads end on their own time.
        let second = SqliteStore::new(&path);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while second.open().await.is_err() {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(load(&second, "printer").await.is_some());
    });
}

#[test]
fn folders_that_are_missing_are_made_and_the_file_is_its_owners_alone() {
    run(async || {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a/b/resources.db");
        let store = SqliteStore::new(&path);
        store.open().await.unwrap();
        commit(&store, &[created("printer")]).await;
        for file in ["resources.db", "resources.db-wal", "resources.db.lock"] {
            let file = path.with_file_name(file);
            let mode = fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        }
    });
}

#[test]
fn an_unknown_schema_is_refused_with_a_sentence() {
    run(async || {
        let bed = SqliteBed::fresh().await;
        bed.store().close().await;
        let raw = Connection::open(bed.path()).unwrap();
        for version in [999, 2, -1] {
            raw.pragma_update(None, "user_version", version).unwrap();
            let sentence = refusal(&bed.path()).await;
            assert!(sentence.contains(&version.to_string()), "{sentence}");
            assert!(sentence.contains(&shown(&bed.path())), "{sentence}");
        }
    });
}

/// A database file as version 2.0.0 left it in a crash: its schema and rows, and a journal in its form.
const FILE_OF_2_0_0: &str = include_str!("../data/sqlite-2.0.0.sql");

#[test]
fn a_file_that_version_2_0_0_wrote_is_taken_along_whole() {
    run(async || {
        let bed = SqliteBed::fresh().await;
        bed.store().close().await;
        fs::remove_file(bed.path()).unwrap();
        let raw = Connection::open(bed.path()).unwrap();
        raw.execute_batch(FILE_OF_2_0_0).unwrap();
        drop(raw);
        let store = SqliteStore::new(bed.path());
        assert_eq!(store.open().await.unwrap().0, FencingToken(4));
        let ticket = |bits, ttl| TicketRow {
            ttl: Some(seconds(ttl)),
            ..plain_ticket(bits)
        };
        let printer = load(&store, "printer").await.unwrap();
        assert_eq!(printer.options, plain(30));
        let holder = printer.lock.head.holder.unwrap();
        assert_eq!((holder.token.0, holder.acquired_at), (7, 1_700_000_000_000));
        assert_eq!(holder.ticket.owner.as_ref().unwrap().as_str(), "ann");
        assert_eq!(holder.ticket.ttl, Some(seconds(20)));
        let key = holder.ticket.key.unwrap();
        assert_eq!((key.ttl, key.mode), (Some(seconds(20)), Mode::Exclusive));
        assert_eq!(printer.lock.waiting, [ticket(0x22, 5)]);
        assert_eq!(printer.lock.ended, [ended(0, EndReason::Released)]);
        // These are in the journal alone.
        let scanner = load(&store, "scanner").await.unwrap().lock;
        assert_eq!(scanner.head.token.0, 9);
        let holder = scanner.head.holder.unwrap();
        assert_eq!((holder.token.0, holder.ticket), (9, ticket(0x33, 60)));
        assert_eq!(scanner.waiting, [ticket(0x44, 1)]);
        assert_eq!(scanner.ended, [ended(0, EndReason::Expired)]);
    });
}

#[test]
fn what_is_no_database_or_another_programs_is_refused_with_a_sentence() {
    run(async || {
        let folder = TempDir::new().unwrap();
        let text = folder.path().join("text.db");
        fs::write(&text, "MYSQL_HOST=database\n".repeat(500)).unwrap();
        let sentence = refusal(&text).await;
        assert!(sentence.contains("not an SQLite database"), "{sentence}");

        let other = folder.path().join("other.db");
        let raw = Connection::open(&other).unwrap();
        raw.execute_batch("CREATE TABLE notes (text)").unwrap();
        drop(raw);
        let sentence = refusal(&other).await;
        assert!(sentence.contains("other program"), "{sentence}");
        for version in [1, 4, 5, -1] {
            let raw = Connection::open(&other).unwrap();
            raw.pragma_update(None, "user_version", version).unwrap();
            drop(raw);
            let sentence = refusal(&other).await;
            assert!(sentence.contains("other program"), "{version}: {sentence}");
        }

        let sentence = refusal(folder.path()).await;
        assert!(sentence.contains("SQLITE_PATH"), "{sentence}");
        assert!(sentence.contains(&shown(folder.path())), "{sentence}");
    });
}

/// A closed database with a few hundred pages.
async fn filled_file() -> SqliteBed {
    let bed = SqliteBed::fresh().await;
    let batch: Vec<Snapshot> = (0..200)
        .map(|i| {
            let mut snapshot = created(&format!("n{i}"));
            put(&mut snapshot, "state", "id", "x".repeat(2_000));
            snapshot
        })
        .collect();
    commit(bed.store(), &batch).await;
    bed.store().close().await;
    bed
}

#[test]
fn a_truncated_file_is_refused_with_a_sentence() {
    run(async || {
        let bed = filled_file().await;
        let bytes = fs::read(bed.path()).unwrap();
        for length in [100, 4_096, bytes.len() / 2, bytes.len() - 4_096] {
            fs::write(bed.path(), &bytes[..length]).unwrap();
            let sentence = refusal(&bed.path()).await;
            assert!(
                sentence.contains(&shown(&bed.path())),
                "{length}: {sentence}"
            );
        }
    });
}

#[test]
fn a_damaged_page_is_an_error_and_no_panic() {
    run(async || {
        let bed = filled_file().await;
        let mut bytes = fs::read(bed.path()).unwrap();
        // Every page but the first, which holds the schema.
        bytes[4_096..].fill(0xa5);
        fs::write(bed.path(), &bytes).unwrap();
        let store = SqliteStore::new(bed.path());
        if let Err(error) = store.open().await {
            assert!(matches!(error, StoreError::Unusable(_)), "{error}");
            return;
        }
        let all = ListQuery {
            limit: 10,
            ..ListQuery::default()
        };
        let away = |error: StoreError| matches!(error, StoreError::Unavailable(_));
        assert!(store.load(&name("n1")).await.is_err_and(away));
        assert!(store.list(&all, LISTING_MAX).await.is_err_and(away));
        assert!(store.commit(&[created("new")]).await.is_err_and(away));
    });
}

#[test]
fn a_row_that_cannot_be_is_refused_for_itself_alone() {
    run(async || {
        let bed = SqliteBed::fresh().await;
        commit(bed.store(), &[created("printer"), created("scanner")]).await;
        let raw = Connection::open(bed.path()).unwrap();
        let sql = "UPDATE resource SET timeout = -1 WHERE name = 'printer'";
        assert_eq!(raw.execute(sql, []).unwrap(), 1);
        let result = bed.store().load(&name("printer")).await;
        assert!(matches!(result, Err(StoreError::Rejected(_))), "{result:?}");
        assert!(load(bed.store(), "scanner").await.is_some());
    });
}

#[test]
fn nothing_is_served_before_opening_and_after_closing() {
    run(async || {
        let folder = TempDir::new().unwrap();
        let store = SqliteStore::new(folder.path().join("resources.db"));
        let is_away = async |store: &SqliteStore| {
            let committed = store.commit(&[created("printer")]).await;
            let loaded = store.load(&name("printer")).await;
            matches!(committed, Err(StoreError::Unavailable(_)))
                && matches!(loaded, Err(StoreError::Unavailable(_)))
        };
        assert!(is_away(&store).await);
        store.open().await.unwrap();
        store.close().await;
        assert!(is_away(&store).await);
        store.open().await.unwrap();
        assert!(load(&store, "printer").await.is_none());
    });
}

/// A store that several threads can use.
async fn shared(folder: &TempDir) -> Arc<SqliteStore> {
    let store = SqliteStore::new(folder.path().join("resources.db"));
    store.open().await.unwrap();
    Arc::new(store)
}

#[test]
fn a_load_sees_each_commit_whole() {
    run(async || {
        let folder = TempDir::new().unwrap();
        let store = shared(&folder).await;
        let printer = created("printer");
        commit(&*store, std::slice::from_ref(&printer)).await;
        let rounds = 300;
        let writer = store.clone();
        let writing = thread::spawn(move || {
            run(async || {
                for n in 1..=rounds {
                    let mut snapshot = changed(
                        &printer,
                        [
                            free(n),
                            waiting(plain_ticket(u128::from(n))),
                            over(ended(n, EndReason::Released)),
                        ],
                    );
                    put(&mut snapshot, &format!("s{n}"), "id", "1");
                    commit(&*writer, &[snapshot]).await;
                }
            })
        });
        let mut seen = 0;
        while seen < rounds {
            let is_last = writing.is_finished();
            let found = load(&*store, "printer").await.unwrap();
            let token = found.lock.head.token.0;
            assert!(token >= seen, "a load never goes back");
            assert_eq!(found.lock.waiting.len() as u64, token);
            assert_eq!(found.selectors as u64, token);
            assert_eq!(found.lock.ended.last().map_or(0, |row| row.n), token);
            assert!(token == rounds || !is_last, "the writer gave up");
            seen = token;
        }
        writing.join().unwrap();
    });
}

#[test]
fn a_full_disk_makes_the_store_unavailable_until_there_is_room_again() {
    run(async || {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("resources.db");
        let store = SqliteStore::with_pages_max(&path, Some(100));
        store.open().await.unwrap();
        let printer = created("printer");
        commit(&store, std::slice::from_ref(&printer)).await;
        let mut big = changed(&printer, [free(9)]);
        put(&mut big, "big", "id", "x".repeat(1 << 20));
        let batch = [created("scanner"), big];

        let result = store.commit(&batch).await;
        assert!(
            matches!(result, Err(StoreError::Unavailable(_))),
            "{result:?}"
        );
        let blind = store.load(&name("printer")).await;
        assert!(
            matches!(blind, Err(StoreError::Unavailable(_))),
            "{blind:?}"
        );

        store.open().await.unwrap();
        assert_eq!(load(&store, "scanner").await, None);
        assert_eq!(lock_rows(&store, "printer").await.head.token.0, 0);
        commit(&store, &[changed(&printer, [free(1)])]).await;

        store.close().await;
        let store = SqliteStore::new(&path);
        store.open().await.unwrap();
        commit(&store, &batch).await;
        assert_eq!(lock_rows(&store, "printer").await.head.token.0, 9);
    });
}

#[test]
fn a_file_locked_by_another_program_makes_the_store_unavailable_until_it_is_free() {
    run(async || {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("resources.db");
        let store = SqliteStore::new(&path);
        store.open().await.unwrap();
        let shell = Connection::open(&path).unwrap();
        shell.execute_batch("BEGIN IMMEDIATE").unwrap();
        let away = |error: StoreError| matches!(error, StoreError::Unavailable(_));
        assert!(store.commit(&[created("printer")]).await.is_err_and(away));
        assert!(store.open().await.is_err_and(away));
        shell.execute_batch("ROLLBACK").unwrap();
        store.open().await.unwrap();
        assert_eq!(load(&store, "printer").await, None);
        commit(&store, &[created("printer")]).await;
    });
}

#[test]
fn opening_again_waits_for_the_commit_that_is_under_way() {
    run(async || {
        let folder = TempDir::new().unwrap();
        let store = shared(&folder).await;
        let shell = Connection::open(folder.path().join("resources.db")).unwrap();
        shell.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert_eq!(store.blocks_for(), Duration::ZERO);
        let writer = store.clone();
        let committing =
            thread::spawn(move || run(async || commit(&*writer, &[created("first")]).await));
        while store.blocks_for().is_zero() {
            assert!(!committing.is_finished(), "it waits for the shell");
            thread::yield_now();
        }
        let mut opening = store.open();
        assert!(opening.as_mut().now_or_never().is_none());
        shell.execute_batch("ROLLBACK").unwrap();
        opening.await.unwrap();
        committing.join().unwrap();
        assert_eq!(store.blocks_for(), Duration::ZERO);
        assert!(load(&*store, "first").await.is_some());
        commit(&*store, &[created("second")]).await;
    });
}

#[test]
fn a_commit_of_a_lock_writes_one_page() {
    run(async || {
        let bed = SqliteBed::fresh().await;
        let printer = created("printer");
        commit(bed.store(), std::slice::from_ref(&printer)).await;
        // Far from the size at which the log is begun anew.
        let pages = || fs::metadata(bed.log()).unwrap().size() / (24 + 4096);
        let commits = 300;
        let many = async |after: u64| {
            let before = pages();
            for token in after + 1..=after + commits {
                commit(bed.store(), &[changed(&printer, [free(token)])]).await;
            }
            pages() - before
        };
        let rows = commits / 50;
        // A row that is new takes a page from the file.
        assert!((commits..commits + 4 * rows).contains(&many(0).await));
        assert_eq!(bed.store().pending(), 1);
        bed.store().checkpoint().await.unwrap();
        assert_eq!(bed.store().pending(), 0);
        assert_eq!(many(commits).await, commits);
    });
}

#[test]
fn the_log_stays_bounded_under_many_commits() {
    run(async || {
        let bed = SqliteBed::fresh().await;
        let printer = created("printer");
        commit(bed.store(), std::slice::from_ref(&printer)).await;
        // 64 times a mebibyte: four times the size from which commits move the log into the file.
        for i in 0..64 {
            let mut snapshot = next(&printer);
            put(&mut snapshot, "big", "id", format!("{i}").repeat(1 << 19));
            commit(bed.store(), &[snapshot]).await;
            assert!(fs::metadata(bed.log()).unwrap().size() < 24 << 20);
        }
    });
}

#[tokio::test]
async fn a_file_that_is_moved_away_is_noticed_and_served_again_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resources.db");
    let store = SqliteStore::new(&path);
    store.open().await.unwrap();
    store.commit(&[created("a")]).await.unwrap();
    let away = folder.path().join("away.db");
    std::fs::rename(&path, &away).unwrap();
    let told = store.commit(&[created("b")]).await.unwrap_err();
    assert!(
        told.to_string().contains("deleted, or moved away"),
        "{told}"
    );
    let told = store.open().await.unwrap_err();
    assert!(matches!(told, StoreError::Unavailable(_)), "{told:?}");
    assert!(!path.exists(), "an empty file took its place");
    std::fs::rename(&away, &path).unwrap();
    store.open().await.unwrap();
    assert!(load(&store, "a").await.is_some());
}

#[tokio::test]
async fn a_file_that_is_replaced_is_not_served_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resources.db");
    let store = SqliteStore::new(&path);
    store.open().await.unwrap();
    store.commit(&[created("a")]).await.unwrap();
    let backup = folder.path().join("backup.db");
    std::fs::copy(&path, &backup).unwrap();
    std::fs::rename(&backup, &path).unwrap();
    // Nothing is written: checkpointing alone notices.
    let told = store.checkpoint().await.unwrap_err();
    assert!(
        told.to_string().contains("replaced by another file"),
        "{told}"
    );
    assert!(store.open().await.is_err());
}

#[tokio::test]
async fn tokens_are_raised_for_names_that_exist_and_names_that_will() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::new(folder.path().join("resources.db"));
    store.open().await.unwrap();
    store.commit(&[created("a")]).await.unwrap();
    store.checkpoint().await.unwrap();
    store.raise_tokens(FencingToken(500)).await.unwrap();
    assert_eq!(store.highest_token().await.unwrap(), FencingToken(500));
    assert_eq!(
        load(&store, "a").await.unwrap().lock.head.token,
        FencingToken(500)
    );
    store.close().await;
    assert_eq!(store.open().await.unwrap().0, FencingToken(500));
}
