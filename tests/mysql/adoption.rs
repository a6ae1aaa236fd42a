//! From the PHP server's tables, and back to them.

use mysql_async::prelude::Queryable;
use small_resource_server::lock::rows::EndedRow;
use small_resource_server::lock::{EndReason, Profile, Ticket};
use small_resource_server::store::mysql::{MysqlStore, Options, revert_to_php};
use small_resource_server::store::{Store, StoreError};

use super::database::Database;
use super::{created, exists, name, read, selector, write};

const PRINTER: &str = "01HQZX3V5K8M2N4P6R7S9T0WXY";
const CAFE: &str = "01HQZX3V5K8M2N4P6R7S9T0WXZ";

/// A database as the PHP server leaves it. `charset`: of its tables.
async fn php_database(database: &Database, charset: &str) {
    let mut admin = database.admin().await;
    let statements = [
        format!("CREATE DATABASE {} CHARACTER SET {charset}", database.name),
        format!("USE {}", database.name),
        "CREATE TABLE resource (id VARCHAR(255) PRIMARY KEY, name VARCHAR(255) NOT NULL UNIQUE, \
         timeout INT NOT NULL)"
            .into(),
        "CREATE TABLE resource_data (id VARCHAR(255) PRIMARY KEY, id_resource VARCHAR(255) NOT NULL, \
         selector VARCHAR(255) NOT NULL, locked TINYINT(1) NOT NULL, data LONGTEXT, \
         UNIQUE (id_resource, selector))"
            .into(),
        format!("INSERT INTO resource VALUES ('{PRINTER}', 'Printer', 1), ('{CAFE}', 'Café ', -3)"),
    ];
    for sql in statements {
        admin.query_drop(sql).await.unwrap();
    }
}

/// A document of PHP's; its id is made of its selector.
async fn php_data(database: &Database, resource: &str, at: &str, json: &str) {
    let mut admin = database.admin().await;
    let sql = "INSERT INTO resource_data VALUES (CONCAT('id of ', ?), ?, ?, 1, ?)";
    let values = (at, resource, at, json);
    admin.exec_drop(sql, values).await.unwrap();
}

async fn selectors(database: &Database) -> Vec<String> {
    database
        .texts("SELECT selector FROM resource_data ORDER BY CAST(selector AS BINARY)")
        .await
}

/// The columns, keys and collations of a table, in words of the server.
async fn shape(database: &Database, table: &str) -> String {
    let mut admin = database.admin().await;
    let sql = format!("SHOW CREATE TABLE {table}");
    let row: Option<(String, String)> = admin.query_first(sql).await.unwrap();
    row.unwrap().1
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
    assert_eq!(opened.recorded_profile, Some(Profile::Php));
    let printer = store.load(&name("Printer")).await.unwrap().unwrap();
    assert_eq!(printer.id.as_str(), PRINTER);
    assert_eq!((printer.timeout.get(), printer.selectors), (1, 2));
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
    assert_eq!(cafe.timeout.get(), 0, "a negative timeout counts as none");
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
    assert_eq!(store.open().await.unwrap().recorded_profile, None);
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
         CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci, ADD UNIQUE (id_resource, selector)",
        "UPDATE resource_data SET selector = '100%2525'",
        "DROP TABLE resource_lock, resource_waiting, resource_ended_tickets, resource_journal, \
         resource_adopted",
    ] {
        database.run(sql).await;
    }
    let store = database.store();
    let opened = store.open().await.unwrap();
    assert_eq!(opened.recorded_profile, Some(Profile::Php));
    assert_eq!(selectors(&database).await, ["100%25"]);
    store.close().await;
    // It is not decoded once more.
    database.store().open().await.unwrap();
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
    let before = shape(&database, "resource").await;
    let refused = database.store().open().await;
    assert!(
        matches!(refused, Err(StoreError::Unusable(_))),
        "{refused:?}"
    );
    assert_eq!(shape(&database, "resource").await, before);
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
        shape(&database, tables[0]).await,
        shape(&database, tables[1]).await,
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
        assert_eq!(&shape(&database, table).await, before);
    }
    let mut expected = selectors_before.clone();
    expected.push("x%20y%2Fz".into());
    expected.sort();
    assert_eq!(selectors(&database).await, expected);
    assert_eq!(database.texts("SHOW TABLES").await, tables);

    let again = database.store();
    let opened = again.open().await.unwrap();
    assert_eq!(opened.recorded_profile, Some(Profile::Php));
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
    let before = shape(&database, "resource_data").await;

    let report = revert_to_php(database.options(), false).await.unwrap();
    let named = |what: &str| report.obstacles.iter().any(|text| text.contains(what));
    assert!(named("\"Printer\"") && named("\"printer\""), "{report:?}");
    assert!(named("longer than 255"), "{report:?}");
    assert_eq!(shape(&database, "resource_data").await, before);
    let store = database.store();
    store.open().await.unwrap();
    assert_eq!(
        read(&store, "Printer", "kept/as it is").await.unwrap(),
        b"3"
    );

    let mut shorter = small_resource_server::store::Snapshot::empty(
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
    // A heartbeat before each look of the other one, and for as long as it looks.
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
async fn the_ended_tickets_of_version_1_are_taken_along() {
    let Some(database) = Database::new() else {
        return;
    };
    let first = database.store();
    first.open().await.unwrap();
    let printer = created("printer");
    first.commit(std::slice::from_ref(&printer)).await.unwrap();
    first.close().await;
    let fill = format!(
        "INSERT INTO resource_ended VALUES ('{0}', 0, 64, REPEAT('a', 16), 1), \
         ('{0}', 1, 65, REPEAT('b', 16), 2), ('{0}', 2, 2, REPEAT('c', 16), 3)",
        printer.id
    );
    for sql in [
        "DROP TABLE resource_journal, resource_ended_tickets",
        "CREATE TABLE resource_ended (id_resource VARCHAR(255) NOT NULL, slot TINYINT UNSIGNED NOT NULL, \
         n BIGINT UNSIGNED NOT NULL, ticket BINARY(16) NOT NULL, reason TINYINT UNSIGNED NOT NULL, \
         PRIMARY KEY (id_resource, slot)) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        &fill,
        "UPDATE resource_server SET version = 1",
    ] {
        database.run(sql).await;
    }
    let store = database.store();
    store.open().await.unwrap();
    let found = store.load(&printer.name).await.unwrap().unwrap();
    let row = |n, letter: u8, reason| EndedRow {
        n,
        ticket: Ticket::from_bits(u128::from_be_bytes([letter; 16])),
        reason,
    };
    let expected = [
        row(2, b'c', EndReason::ForcedOff),
        row(64, b'a', EndReason::Released),
        row(65, b'b', EndReason::Expired),
    ];
    assert_eq!(found.lock.ended, expected);
    let old = "SELECT COUNT(*) FROM information_schema.tables \
               WHERE table_schema = DATABASE() AND table_name = 'resource_ended'";
    assert_eq!(database.number(old).await, 0);
}
