//! Listings of many names: few rows are looked at, and what would take too long is ended.
//!
//! With a million names, and how long each listing takes:
//! `scripts/with-mariadb cargo test --release --test store million -- --ignored --nocapture`

use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use rusqlite::Connection;
use small_resource_server::store::mysql::MysqlStore;
use small_resource_server::store::sqlite::SqliteStore;
use small_resource_server::store::{ListOrder, ListQuery, Store, StoreError};

use crate::bed;
use crate::rows::LISTING_MAX;
use crate::support::Database;

/// As the server has it, unless it is told otherwise.
const LIMIT: Duration = Duration::from_secs(1);

/// Which of the names are held, as a condition on their numbers.
#[derive(Clone, Copy)]
struct Held(&'static str, &'static str);

const NONE: Held = Held("none", "0 = 1");
const SOME: Held = Held("one in 200", "n % 200 = 0");
const HALF: Held = Held("every other one", "n % 2 = 0");
const LATER: Held = Held("the second half", "n > (SELECT count(*) FROM resource) / 2");
const ALL: Held = Held("all", "0 = 0");

fn query(order: ListOrder, held: Option<bool>, prefix: &str) -> ListQuery {
    ListQuery {
        limit: 100,
        order,
        held,
        prefix: prefix.to_owned(),
        ..ListQuery::default()
    }
}

/// Numbers of so many decimal digits, as SQL.
fn numbers(digits: u32) -> String {
    let digit = "(SELECT 0 AS i UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 \
                 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
    let terms: Vec<String> = (0..digits)
        .map(|place| format!("d{place}.i * {}", 10_u32.pow(place)))
        .collect();
    let tables: Vec<String> = (0..digits)
        .map(|place| format!("{digit} d{place}"))
        .collect();
    format!(
        "(SELECT {} AS n FROM {}) numbers",
        terms.join(" + "),
        tables.join(" CROSS JOIN ")
    )
}

struct ManyInSqlite {
    folder: tempfile::TempDir,
    store: SqliteStore,
}

impl ManyInSqlite {
    /// `10^digits` names, of which each thousandth has ten who wait.
    async fn new(digits: u32) -> ManyInSqlite {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::new(folder.path().join("resources.db"));
        store.open().await.unwrap();
        store.close().await;
        let many = ManyInSqlite { folder, store };
        let numbers = numbers(digits);
        many.run(&format!(
            "INSERT INTO resource (nr, id, name, timeout)
                 SELECT n, printf('id-%d', n), printf('n:%07d', n), 0 FROM {numbers};
             INSERT INTO resource_lock (resource, token) SELECT nr, 0 FROM resource;
             INSERT INTO resource_ticket (resource, ticket, seq)
                 SELECT nr, randomblob(16), d.i FROM resource CROSS JOIN (SELECT 0 AS i UNION ALL SELECT 1
                 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4) d WHERE nr % 1000 = 0;"
        ));
        many.store.open().await.unwrap();
        many
    }

    fn run(&self, sql: &str) {
        let raw = Connection::open(self.folder.path().join("resources.db")).unwrap();
        raw.execute_batch(&format!("BEGIN; {sql} COMMIT;")).unwrap();
    }

    fn hold(&self, held: Held) {
        let free =
            "UPDATE resource_lock SET ticket = NULL, acquired_at = NULL WHERE ticket IS NOT NULL;";
        let condition = held.1.replace("n ", "resource ");
        self.run(&format!(
            "{free} UPDATE resource_lock SET token = 1, ticket = randomblob(16), seq = 0,
             acquired_at = 1700000000000 + resource WHERE {condition}; ANALYZE;"
        ));
    }
}

struct ManyInMysql {
    store: MysqlStore,
    database: Database,
}

impl ManyInMysql {
    async fn new(database: Database, digits: u32) -> ManyInMysql {
        let store = database.store();
        store.open().await.unwrap();
        let many = ManyInMysql { store, database };
        let numbers = numbers(digits);
        many.run(&[
            &format!(
                "INSERT INTO resource (id, name, timeout)
                 SELECT CONCAT('id-', n), CONCAT('n:', LPAD(n, 7, '0')), 0 FROM {numbers}"
            ),
            "INSERT INTO resource_lock (id_resource, token) SELECT id, 0 FROM resource",
            "INSERT INTO resource_waiting (id_resource, ticket, seq)
             SELECT id, UNHEX(LPAD(HEX(d.i), 32, '0')), d.i FROM resource JOIN (SELECT 0 AS i UNION ALL SELECT 1
             UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4) d WHERE name LIKE '%000'",
        ])
        .await;
        many
    }

    async fn run(&self, statements: &[&str]) {
        let mut admin = self.database.admin().await;
        for statement in statements {
            admin.query_drop(*statement).await.unwrap();
        }
    }

    async fn hold(&self, held: Held) {
        let number = "CAST(SUBSTRING(id_resource, 4) AS UNSIGNED) ";
        let condition = held.1.replace("n ", number);
        self.run(&[
            "UPDATE resource_lock SET ticket = NULL, acquired_at = NULL WHERE acquired_at IS NOT NULL",
            &format!(
                "UPDATE resource_lock SET token = 1, ticket = UNHEX(LPAD('1', 32, '0')), seq = 0,
                 acquired_at = 1700000000000 + {number} WHERE {condition}"
            ),
            "ANALYZE TABLE resource_lock, resource, resource_waiting",
        ])
        .await;
    }

    /// How many rows of its tables were read so far; `None`: this server does not count them.
    async fn rows_read(&self) -> Option<u64> {
        let mut admin = self.database.admin().await;
        admin.query_drop("SET GLOBAL userstat = 1").await.ok()?;
        let sql = "SELECT CAST(COALESCE(SUM(rows_read), 0) AS UNSIGNED) \
                   FROM information_schema.table_statistics WHERE table_schema = DATABASE()";
        admin.query_first(sql).await.unwrap()
    }
}

async fn names(store: &dyn Store, query: &ListQuery) -> Vec<String> {
    let listed = store.list(query, LISTING_MAX).await.unwrap();
    listed.iter().map(|one| one.name.to_string()).collect()
}

/// It is ended within this limit, and nothing else of the store is harmed.
async fn assert_ended(store: &dyn Store, slow: &ListQuery) {
    let limit = Duration::from_millis(1);
    let ended = store.list(slow, limit).await;
    assert!(matches!(ended, Err(StoreError::TooSlow(_))), "{ended:?}");
    assert_eq!(names(store, slow).await, Vec::<String>::new());
    assert_eq!(
        names(store, &query(ListOrder::Name, None, "")).await.len(),
        100
    );
}

#[test]
fn a_listing_that_would_take_too_long_is_ended_in_the_file() {
    bed::run(async || {
        let many = ManyInSqlite::new(5).await;
        many.hold(ALL);
        // There is no free one, and no index says so.
        assert_ended(&many.store, &query(ListOrder::Name, Some(false), "")).await;
    });
}

#[test]
fn a_listing_that_would_take_too_long_is_ended_in_the_database_and_others_look_at_few_rows() {
    let Some(database) = Database::new() else {
        return;
    };
    bed::run(async || {
        let many = ManyInMysql::new(database, 5).await;
        for held in [NONE, SOME, HALF, ALL] {
            many.hold(held).await;
            for query in quick() {
                let before = many.rows_read().await;
                many.store.list(&query, LISTING_MAX).await.unwrap();
                let read = many
                    .rows_read()
                    .await
                    .zip(before)
                    .map(|(after, before)| after - before);
                // Of the hundred thousand names and as many locks.
                assert!(
                    read.is_none_or(|rows| rows < 40_000),
                    "{}: {read:?} {query:?}",
                    held.0
                );
            }
        }
        assert_ended(&many.store, &query(ListOrder::Name, Some(false), "")).await;
    });
}

/// What is answered in time whatever is held, as long as it is spread over the names.
fn quick() -> Vec<ListQuery> {
    let mut all = Vec::new();
    for prefix in ["", "n:0", "n:00001", "n:0009999"] {
        all.push(query(ListOrder::Name, None, prefix));
        all.push(query(ListOrder::Name, Some(true), prefix));
        all.push(query(ListOrder::Waiting, None, prefix));
        all.push(query(ListOrder::Waiting, Some(true), prefix));
        all.push(query(ListOrder::Held, None, prefix));
        all.push(query(ListOrder::Held, Some(true), prefix));
    }
    all
}

async fn measure(store: &dyn Store, held: Held) {
    for query in quick()
        .into_iter()
        .chain([query(ListOrder::Name, Some(false), "")])
    {
        let begun = Instant::now();
        let listed = store.list(&query, LIMIT).await;
        let took = begun.elapsed();
        let said = match &listed {
            Ok(listed) => format!("{} names", listed.len()),
            Err(StoreError::TooSlow(_)) => "too_busy".to_owned(),
            Err(error) => panic!("{error}"),
        };
        println!(
            "{:6} | held: {:15} | sort={:8} locked={:11} prefix={:10} | {said:9} | {:4} ms",
            store.kind(),
            held.0,
            format!("{:?}", query.order).to_lowercase(),
            format!("{:?}", query.held),
            query.prefix,
            took.as_millis(),
        );
        assert!(took < 2 * LIMIT, "{took:?}");
    }
}

#[test]
#[ignore = "takes minutes"]
fn a_million_names_in_a_file() {
    bed::run(async || {
        let many = ManyInSqlite::new(6).await;
        for held in [SOME, HALF, LATER, ALL] {
            many.hold(held);
            measure(&many.store, held).await;
        }
    });
}

#[test]
#[ignore = "takes minutes"]
fn a_million_names_in_a_database() {
    let Some(database) = Database::new() else {
        return;
    };
    bed::run(async || {
        let many = ManyInMysql::new(database, 6).await;
        for held in [SOME, HALF, LATER, ALL] {
            many.hold(held).await;
            measure(&many.store, held).await;
        }
    });
}
