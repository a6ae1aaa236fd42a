//! From the PHP server's tables, and back to them.

use mysql_async::prelude::Queryable;
use small_resource_server::lock::{FencingToken, Profile};
use small_resource_server::store::members::Members;
use small_resource_server::store::mysql::{MysqlStore, Options, revert_to_php};
use small_resource_server::store::{Snapshot, Store, StoreError};

use super::support::Database;
use super::support::created;
use super::{exists, name, read, selector, write};

const PRINTER: &str = "01HQZX3V5K8M2N4P6R7S9T0WXY";
const CAFE: &str = "01HQZX3V5K8M2N4P6R7S9T0WXZ";

/// A database as the PHP server leaves it. `charset`: of its tables.
async fn php_database(database: &Database, charset: &str) {
    php_database_like(database, |schema| schema.replace("utf8mb4", charset)).await;
}

async fn php_database_like(database: &Database, edit: impl Fn(&str) -> String) {
    database.make_php(edit).await;
    let rows =
        format!("INSERT INTO resource VALUES ('{PRINTER}', 'Printer', 1), ('{CAFE}', 'Café ', -3)");
    database.run(&rows).await;
}

/// A document of PHP's; its id is made of its selector.
async fn php_data(database: &Database, resource: &str, at: &str, json: &str) {
    let mut admin = database.admin().await;
    let sql = "INSERT INTO resource_data VALUES (CONCAT('id of ', ?), ?, ?, 1, ?)";
    let values = (at, resource, at, json);
    admin.exec_drop(sql, values).await.unwrap();
}

fn recorded_profile((_, members): &(FencingToken, Option<Members>)) -> Option<Profile> {
    members.as_ref()?.recorded_profile
}

async fn selectors(database: &Database) -> Vec<String> {
    database
        .texts("SELECT selector FROM resource_data ORDER BY CAST(selector AS BINARY)")
        .await
}

#[tokio::test]
async fn a_database_of_the_php_server_is_served_as_it_is() {
    let Some(database) = Database::new() else {
        return;
    };
    php_database(&database, "utf8mb4").await;
    php_data(&database, PRINTER, "a%2Fb", r#"{"x": "😀"}"#).await;
    php_data(&database, PRINTER, "100%2525", "[1]").await;
    php_data(&database, CAFE, "plain", "2").await;
    let store = database.store();
    let opened = store.open().await.unwrap();
    assert_eq!(recorded_profile(&opened), Some(Profile::Php));
    let printer = store.load(&name("Printer")).await.unwrap().unwrap();
    assert_eq!(printer.id.as_str(), PRINTER);
    assert_eq!((printer.options.timeout.get(), printer.selectors), (1, 2));
    let data = store
        .load_data(&printer.id, &selector("a/b"))
        .await
        .unwrap();
    let data = data.unwrap();
    assert_eq!(data.id, "id of a%2Fb");
    assert_eq!(data.json, r#"{"x": "😀"}"#);
    assert_eq!(read(&store, "Printer", "100%25").await.unwrap(), b"[1]");
    assert_eq!(read(&store, "Café ", "plain").await.unwrap(), b"2");
    let cafe = store.load(&name("Café ")).await.unwrap().unwrap();
    assert_eq!(
        cafe.options.timeout.get(),
        0,
        "a negative timeout counts as none"
    );
}

#[tokio::test]
async fn names_are_unique_by_their_bytes_from_then_on() {
    let Some(database) = Database::new() else {
        return;
    };
    php_database(&database, "utf8mb4").await;
    php_data(&database, PRINTER, "s", "1").await;
    let store = database.store();
    store.open().await.unwrap();
    let mut others = vec![created("printer"), created("Printer "), created("Prïnter")];
    for selector in ["S", "s ", "ś"] {
        write(&mut others[0], selector, b"2");
    }
    store.commit(&others).await.unwrap();
    assert!(!exists(&store, "PRINTER").await);
    assert!(!exists(&store, "Printer  ").await);
    let printer = store.load(&name("Printer")).await.unwrap().unwrap();
    assert_eq!(printer.id.as_str(), PRINTER);
    let other = store.load(&name("printer")).await.unwrap().unwrap();
    assert_eq!(other.selectors, 3);
    assert_eq!(read(&store, "printer", "s").await, None);
    assert_eq!(read(&store, "Printer", "s").await.unwrap(), b"1");
}

#[tokio::test]
async fn text_of_another_character_set_is_converted() {
    let Some(database) = Database::new() else {
        return;
    };
    php_database(&database, "latin1").await;
    php_data(&database, CAFE, "s", "\"é\"").await;
    let store = database.store();
    store.open().await.unwrap();
    assert_eq!(
        read(&store, "Café ", "s").await.unwrap(),
        "\"é\"".as_bytes()
    );
    let mut snapshot = created("😀");
    write(&mut snapshot, "😀", "\"😀\"".as_bytes());
    store.commit(&[snapshot]).await.unwrap();
    assert_eq!(read(&store, "😀", "😀").await.unwrap(), "\"😀\"".as_bytes());
}

#[tokio::test]
async fn selectors_that_would_collide_keep_their_escapes() {
    let Some(database) = Database::new() else {
        return;
    };
    php_database(&database, "utf8mb4").await;
    for at in ["a%2Fb", "%61%2fb", "%FF", "c", "%63"] {
        php_data(&database, PRINTER, at, "1").await;
    }
    // Another resource has names of its own.
    php_data(&database, CAFE, "d%2Fb", "1").await;
    database.store().open().await.unwrap();
    assert_eq!(
        selectors(&database).await,
        ["%61%2fb", "%63", "%FF", "a/b", "c", "d/b"]
    );
}

const TABLES: [&str; 2] = ["resource", "resource_data"];

async fn shapes(database: &Database) -> [String; 2] {
    [
        database.shape(TABLES[0]).await,
        database.shape(TABLES[1]).await,
    ]
}

/// Adopted, used, and made the PHP server's again: as expected, in every byte of `SHOW CREATE TABLE`.
async fn goes_back_and_forth(database: &Database, expected: &[String; 2]) {
    let store = database.store();
    store.open().await.unwrap();
    assert_eq!(read(&store, "Printer", "a/b").await.unwrap(), b"[1]");
    let mut snapshot = created("new");
    write(&mut snapshot, "s", b"2");
    store.commit(&[snapshot]).await.unwrap();
    // With its documents, which PHP's foreign key would not allow.
    let cafe = store.load(&name("Café ")).await.unwrap().unwrap();
    let mut gone = Snapshot::empty(name("Café "), cafe.id.clone());
    gone.remove(FencingToken(0));
    store.commit(&[gone]).await.unwrap();
    assert!(!exists(&store, "Café ").await);
    store.close().await;
    let engines = "SELECT DISTINCT CONCAT(engine, ' ', row_format) FROM information_schema.tables \
                   WHERE table_schema = DATABASE()";
    assert_eq!(database.texts(engines).await, ["InnoDB Dynamic"]);
    let report = revert_to_php(database.options(), false).await.unwrap();
    assert_eq!(report.obstacles, [""; 0]);
    assert_eq!(&shapes(database).await, expected);
    assert_eq!(database.texts("SHOW TABLES").await, TABLES);
}

#[tokio::test]
async fn whatever_the_php_server_could_have_left_goes_back_as_it_makes_it() {
    type Edit = fn(&str) -> String;
    let variants: [Edit; 8] = [
        str::to_owned,
        |schema| schema.replace("utf8mb4;", "utf8mb4 COLLATE=utf8mb4_bin;"),
        |schema| schema.replace("utf8mb4;", "utf8mb4 COLLATE=utf8mb4_unicode_ci;"),
        |schema| schema.replace("utf8mb4;", "utf8 ROW_FORMAT=COMPACT;"),
        |schema| schema.replace("utf8mb4;", "latin1 ROW_FORMAT=REDUNDANT;"),
        |schema| {
            schema
                .replace("=InnoDB", "=MyISAM")
                .replace("utf8mb4", "latin1")
        },
        |schema| {
            schema
                .replace("=InnoDB", "=Aria")
                .replace("utf8mb4", "utf8")
        },
        |schema| {
            schema
                .replace("INT NOT NULL DEFAULT 0", "INT NULL")
                .replace("LONGTEXT NOT NULL", "LONGTEXT NULL")
        },
    ];
    let Some(plain) = Database::new() else {
        return;
    };
    php_database(&plain, "utf8mb4").await;
    for (number, edit) in variants.into_iter().enumerate() {
        let Some(database) = Database::new() else {
            return;
        };
        eprintln!("variant {number}");
        // MySQL has no such engine.
        let aria = edit("=InnoDB").contains("Aria");
        if aria && database.texts("SELECT VERSION() LIKE '%MariaDB%'").await == ["0"] {
            continue;
        }
        php_database_like(&database, edit).await;
        php_data(&database, PRINTER, "a%2Fb", "[1]").await;
        php_data(&database, CAFE, "s", "\"é\"").await;
        // A collation of `utf8mb4` comes back, all else is as the PHP server creates it.
        let expected = shapes(if number < 3 { &database } else { &plain }).await;
        goes_back_and_forth(&database, &expected).await;
    }
}

#[tokio::test]
async fn nulls_that_the_php_server_could_have_left_are_served_and_go_back_as_none() {
    let Some(database) = Database::new() else {
        return;
    };
    php_database_like(&database, |schema| {
        schema
            .replace("INT NOT NULL DEFAULT 0", "INT NULL")
            .replace("LONGTEXT NOT NULL", "LONGTEXT NULL")
    })
    .await;
    php_data(&database, PRINTER, "s", "[1]").await;
    database.run("UPDATE resource SET timeout = NULL").await;
    database.run("UPDATE resource_data SET data = NULL").await;
    let store = database.store();
    store.open().await.unwrap();
    let printer = store.load(&name("Printer")).await.unwrap().unwrap();
    assert_eq!(printer.options.timeout.get(), 0);
    assert_eq!(read(&store, "Printer", "s").await, None);
    store.close().await;
    let report = revert_to_php(database.options(), false).await.unwrap();
    assert_eq!(report.obstacles, [""; 0]);
    assert_eq!((report.resources, report.documents), (2, 0));
    let timeouts = "SELECT DISTINCT CAST(timeout AS CHAR) FROM resource";
    assert_eq!(database.texts(timeouts).await, ["0"]);
}

#[tokio::test]
async fn what_cannot_be_adopted_is_refused_with_a_sentence_and_left_as_it_was() {
    type Edit = fn(&str) -> String;
    let variants: [(Edit, &str, &str); 5] = [
        (
            |schema| schema.replace("`name` VARCHAR(255) NOT NULL", "`name` VARCHAR(255) NULL"),
            "INSERT INTO resource VALUES ('x', NULL, 0)",
            "1 rows of its table `resource` have no `name`",
        ),
        (
            str::to_owned,
            "CREATE TABLE other (id VARCHAR(255) NOT NULL, CONSTRAINT points FOREIGN KEY (id) \
             REFERENCES resource (id)) DEFAULT CHARSET=utf8mb4",
            "the foreign key `points`",
        ),
        (
            str::to_owned,
            "RENAME TABLE resource_data TO old; CREATE VIEW resource_data AS SELECT * FROM old",
            "is of the kind VIEW",
        ),
        (
            str::to_owned,
            "ALTER TABLE resource_data DROP FOREIGN KEY fk_resource_data_resource, \
             DROP INDEX ux_resource_data_name_selector, DROP COLUMN selector",
            "no column `selector`",
        ),
        (
            str::to_owned,
            "ALTER TABLE resource_data DROP FOREIGN KEY fk_resource_data_resource, \
             DROP INDEX ux_resource_data_name_selector; \
             ALTER TABLE resource_data PARTITION BY KEY (id) PARTITIONS 2",
            "REMOVE PARTITIONING",
        ),
    ];
    for (edit, sql, told) in variants {
        let Some(database) = Database::new() else {
            return;
        };
        php_database_like(&database, edit).await;
        for sql in sql.split("; ") {
            database.run(sql).await;
        }
        let before = shapes(&database).await;
        let tables = database.texts("SHOW TABLES").await;
        let refused = database.store().open().await;
        let Err(StoreError::Unusable(text)) = refused else {
            panic!("{told}: {refused:?}");
        };
        assert!(text.contains(told), "{text}");
        assert_eq!(shapes(&database).await, before);
        assert_eq!(database.texts("SHOW TABLES").await, tables);
    }
}

#[tokio::test]
async fn tables_of_an_engine_without_transactions_are_not_served() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    store.open().await.unwrap();
    store.close().await;
    database
        .run("ALTER TABLE resource_log ENGINE = MyISAM")
        .await;
    let refused = database.store().open().await;
    let Err(StoreError::Unusable(text)) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        text.contains("`resource_log` has the engine MyISAM"),
        "{text}"
    );
}

#[tokio::test]
async fn a_profile_that_the_operator_set_is_not_overruled() {
    let Some(database) = Database::new() else {
        return;
    };
    php_database(&database, "utf8mb4").await;
    let store = MysqlStore::new(Options {
        adopt: Some(Profile::Default),
        ..database.options()
    });
    assert_eq!(recorded_profile(&store.open().await.unwrap()), None);
}

#[tokio::test]
async fn an_adoption_that_was_interrupted_is_gone_on_with() {
    let Some(database) = Database::new() else {
        return;
    };
    php_database(&database, "utf8mb4").await;
    php_data(&database, PRINTER, "100%2525", "1").await;
    let first = database.store();
    first.open().await.unwrap();
    first.close().await;
    // As after a crash between the first table and the second.
    for sql in [
        "UPDATE resource_server SET version = 0, step = 'adopting'",
        "ALTER TABLE resource_data DROP KEY selector_bytes, DROP COLUMN selector_bytes, \
         CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci, \
         ADD UNIQUE ux_resource_data_name_selector (id_resource, selector)",
        "UPDATE resource_data SET selector = '100%2525'",
        "DROP TABLE resource_lock, resource_waiting, resource_ended_tickets, \
         resource_adopted",
    ] {
        database.run(sql).await;
    }
    let store = database.store();
    let opened = store.open().await.unwrap();
    assert_eq!(recorded_profile(&opened), Some(Profile::Php));
    assert_eq!(selectors(&database).await, ["100%25"]);
    store.close().await;
    // It is not decoded once more.
    database.store().open().await.unwrap();
    assert_eq!(selectors(&database).await, ["100%25"]);
}

#[tokio::test]
async fn an_adoption_that_version_2_0_0_had_just_begun_is_gone_on_with() {
    let Some(database) = Database::new() else {
        return;
    };
    php_database(&database, "utf8mb4").await;
    php_data(&database, PRINTER, "100%2525", "1").await;
    // It had one table of its own by then.
    let schema = include_str!("../data/schema-2.0.0.sql");
    let (server_table, _) = schema.split_once(';').unwrap();
    database.run_script(server_table).await;
    database
        .run(
            "INSERT INTO resource_server (id, version, step, profile, php_collation, floor, epoch, heartbeat) \
             VALUES (1, 0, 'adopting', 'php', 'utf8mb4_general_ci', 0, 1, 1)",
        )
        .await;
    let opened = database.store().open().await.unwrap();
    assert_eq!(recorded_profile(&opened), Some(Profile::Php));
    assert_eq!(selectors(&database).await, ["100%25"]);
}

#[tokio::test]
async fn a_table_of_someone_else_is_left_alone() {
    let Some(database) = Database::new() else {
        return;
    };
    let sql = format!("CREATE DATABASE {}", database.name);
    database.run(&sql).await;
    database
        .run("CREATE TABLE resource (id INT PRIMARY KEY, url TEXT)")
        .await;
    let before = database.shape("resource").await;
    let refused = database.store().open().await;
    assert!(
        matches!(refused, Err(StoreError::Unusable(_))),
        "{refused:?}"
    );
    assert_eq!(database.shape("resource").await, before);
    assert_eq!(database.texts("SHOW TABLES").await, ["resource"]);
}

#[tokio::test]
async fn a_reverted_database_is_what_the_php_server_left_and_can_be_adopted_again() {
    let Some(database) = Database::new() else {
        return;
    };
    php_database(&database, "utf8mb4").await;
    let stored = [
        "%61%2fb",
        "%FF",
        "100%2525",
        "a%2Fb",
        "a:b",
        "caf%C3%A9",
        "plain",
    ];
    for at in stored {
        php_data(&database, PRINTER, at, "1").await;
    }
    php_data(&database, CAFE, "%7Eplain", "1").await;
    let tables = ["resource", "resource_data"];
    let before = [
        database.shape(tables[0]).await,
        database.shape(tables[1]).await,
    ];
    let selectors_before = selectors(&database).await;
    let store = database.store();
    store.open().await.unwrap();
    let mut snapshot = created("new");
    write(&mut snapshot, "x y/z", b"3");
    store.commit(&[snapshot]).await.unwrap();
    store.close().await;

    let report = revert_to_php(database.options(), false).await.unwrap();
    assert_eq!(report.obstacles, [""; 0]);
    assert_eq!((report.resources, report.documents), (3, 9));
    for (table, before) in tables.iter().zip(&before) {
        assert_eq!(&database.shape(table).await, before);
    }
    let mut expected = selectors_before.clone();
    expected.push("x%20y%2Fz".into());
    expected.sort();
    assert_eq!(selectors(&database).await, expected);
    assert_eq!(database.texts("SHOW TABLES").await, tables);

    let again = database.store();
    let opened = again.open().await.unwrap();
    assert_eq!(recorded_profile(&opened), Some(Profile::Php));
    assert_eq!(read(&again, "new", "x y/z").await.unwrap(), b"3");
    assert_eq!(read(&again, "Printer", "a/b").await.unwrap(), b"1");
}

#[tokio::test]
async fn what_the_php_server_cannot_hold_is_named_and_nothing_is_changed() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    store.open().await.unwrap();
    let mut a = created("Printer");
    write(&mut a, "Tray", b"1");
    write(&mut a, "tray", b"2");
    write(&mut a, "kept/as it is", b"3");
    let mut b = created("long");
    write(&mut b, &"é".repeat(200), b"4");
    let batch = [a, b, created("printer")];
    store.commit(&batch).await.unwrap();
    store.close().await;
    let before = database.shape("resource_data").await;

    let report = revert_to_php(database.options(), false).await.unwrap();
    let named = |what: &str| report.obstacles.iter().any(|text| text.contains(what));
    assert!(named("\"Printer\"") && named("\"printer\""), "{report:?}");
    assert!(named("longer than 255"), "{report:?}");
    assert_eq!(database.shape("resource_data").await, before);
    let store = database.store();
    store.open().await.unwrap();
    assert_eq!(
        read(&store, "Printer", "kept/as it is").await.unwrap(),
        b"3"
    );

    let mut shorter = Snapshot::empty(
        name("long"),
        store.load(&name("long")).await.unwrap().unwrap().id,
    );
    shorter.data.insert(selector(&"é".repeat(200)), None);
    store.commit(&[shorter]).await.unwrap();
    store.close().await;
    let report = revert_to_php(database.options(), false).await.unwrap();
    let named = |what: &str| report.obstacles.iter().any(|text| text.contains(what));
    assert!(named("\"Tray\"") && named("\"tray\""), "{report:?}");
    assert!(!named("longer than 255"), "{report:?}");
    assert!(selectors(&database).await.contains(&"kept/as it is".into()));
}

#[tokio::test]
async fn a_revert_that_was_interrupted_is_finished_before_anything_else() {
    let Some(database) = Database::new() else {
        return;
    };
    php_database(&database, "utf8mb4").await;
    php_data(&database, PRINTER, "a%2Fb", "1").await;
    let store = database.store();
    store.open().await.unwrap();
    store.close().await;
    // As after a crash right after the selectors were encoded.
    database
        .run("UPDATE resource_data SET selector = 'a%2Fb'")
        .await;
    database
        .run("UPDATE resource_server SET step = 'reverting'")
        .await;
    let refused = database.store().open().await;
    let Err(StoreError::Unusable(text)) = refused else {
        panic!("{refused:?}");
    };
    assert!(text.contains("revert-to-php"), "{text}");
    let report = revert_to_php(database.options(), false).await.unwrap();
    assert_eq!(report.obstacles, [""; 0]);
    assert_eq!(selectors(&database).await, ["a%2Fb"]);
    assert_eq!(
        database.texts("SHOW TABLES").await,
        ["resource", "resource_data"]
    );
}

#[tokio::test]
async fn a_database_in_use_is_not_reverted() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    store.open().await.unwrap();
    // A heartbeat before each read of the other one, and for as long as it reads.
    let heartbeats = async {
        loop {
            store.heartbeat().await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let reverted = tokio::select! {
        reverted = revert_to_php(database.options(), false) => reverted,
        () = heartbeats => unreachable!(),
    };
    assert_eq!(reverted, Err(StoreError::Standby));
    store.commit(&[created("a")]).await.unwrap();
}

#[tokio::test]
async fn a_database_without_our_marker_has_nothing_to_revert() {
    let Some(database) = Database::new() else {
        return;
    };
    php_database(&database, "utf8mb4").await;
    let reverted = revert_to_php(database.options(), false).await;
    assert!(
        matches!(reverted, Err(StoreError::Unusable(_))),
        "{reverted:?}"
    );
    assert_eq!(
        database.texts("SHOW TABLES").await,
        ["resource", "resource_data"]
    );
}

#[tokio::test]
async fn a_foreign_key_that_version_2_0_0_left_goes_and_comes_back() {
    let Some(database) = Database::new() else {
        return;
    };
    // It adopted tables that were utf8mb4_bin already, and left the key where it was.
    database.make_2_0_0().await;
    for sql in [
        "ALTER TABLE resource_data ADD CONSTRAINT fk_resource_data_resource FOREIGN KEY (id_resource) \
         REFERENCES resource (id)",
        "INSERT INTO resource (id, name, timeout) VALUES ('r', 'Printer', 1)",
        "INSERT INTO resource_data (id, id_resource, selector, data) VALUES ('d', 'r', 's', '1')",
        "UPDATE resource_server SET php_collation = 'utf8mb4_bin'",
    ] {
        database.run(sql).await;
    }
    let store = database.store();
    assert_eq!(store.open().await.unwrap().0, FencingToken(17));
    let printer = store.load(&name("Printer")).await.unwrap().unwrap();
    let mut gone = Snapshot::empty(name("Printer"), printer.id.clone());
    gone.remove(FencingToken(0));
    store.commit(&[gone]).await.unwrap();
    store.close().await;
    let report = revert_to_php(database.options(), false).await.unwrap();
    assert_eq!(report.obstacles, [""; 0]);
    let reverted = shapes(&database).await;

    let Some(original) = Database::new() else {
        return;
    };
    original
        .make_php(|schema| schema.replace("utf8mb4;", "utf8mb4 COLLATE=utf8mb4_bin;"))
        .await;
    assert_eq!(reverted, shapes(&original).await);
}

/// As version 2.0.0 wrote it: a lock that is held, with token 9.
#[tokio::test]
async fn what_is_in_the_journal_of_version_2_0_0_only_is_taken_along() {
    let Some(database) = Database::new() else {
        return;
    };
    database.make_2_0_0().await;
    for sql in [
        "INSERT INTO resource (id, name, timeout) VALUES ('2', 'b', 60)",
        "INSERT INTO resource_journal (n, changes) VALUES (7, x'010132010901330100013c0080d095ffbc31\
         0144014401000101000100ffffffffffffffffffffffffffffffffffff0301')",
    ] {
        database.run(sql).await;
    }
    let store = database.store();
    let (token_floor, _) = store.open().await.unwrap();
    assert_eq!(token_floor, FencingToken(17));
    let found = store.load(&name("b")).await.unwrap().unwrap();
    assert_eq!(found.lock.head.token, FencingToken(9));
    assert!(found.lock.head.holder.is_some());
    let old = "SELECT COUNT(*) FROM information_schema.tables \
               WHERE table_schema = DATABASE() AND table_name = 'resource_journal'";
    assert_eq!(database.number(old).await, 0);
    let logs = "SELECT COUNT(DISTINCT log) FROM resource_log";
    assert_eq!(database.number(logs).await, 1);
}
