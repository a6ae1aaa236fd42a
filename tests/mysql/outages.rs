//! The server is away, hung, read-only, or does not want us: bounded time to an error, then recovery.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use small_resource_server::store::mysql::{MysqlStore, Options, Tls};
use small_resource_server::store::{ListQuery, Store, StoreError};

use super::support::created;
use super::support::{DEADLINE, Database, Proxy, skip};
use super::{exists, name, read, write};

fn is_away<T: std::fmt::Debug>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable(_)))
}

#[track_caller]
fn assert_away_because<T: std::fmt::Debug>(result: &Result<T, StoreError>, why: &str) {
    let Err(StoreError::Unavailable(text)) = result else {
        panic!("{result:?}");
    };
    assert!(text.contains(why), "{text}");
}

#[tokio::test]
async fn killed_connections_cost_one_commit_and_no_read() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    store.open().await.unwrap();
    store.commit(&[created("a")]).await.unwrap();
    assert!(exists(&store, "a").await);
    store.heartbeat().await.unwrap();
    database.kill_all().await;
    assert!(exists(&store, "a").await);
    store.heartbeat().await.unwrap();
    let cut = store.commit(&[created("b")]).await;
    assert!(is_away(&cut), "{cut:?}");
    store.open().await.unwrap();
    assert!(!exists(&store, "b").await);
    store.commit(&[created("b")]).await.unwrap();
    assert!(exists(&store, "b").await);
}

#[tokio::test]
async fn a_hung_server_hangs_nobody_and_is_used_again_when_it_answers() {
    let Some(database) = Database::new() else {
        return;
    };
    // Making the tables may take longer.
    let first = database.store();
    first.open().await.unwrap();
    first.close().await;
    let proxy = Proxy::to(&database.options());
    let store = MysqlStore::new(proxy.between(Options {
        timeout: Duration::from_secs(2),
        ..database.options()
    }));
    store.open().await.unwrap();
    store.commit(&[created("a")]).await.unwrap();
    proxy.hold_answers(true);
    let all = async {
        assert!(is_away(&store.load(&name("a")).await));
        assert!(is_away(&store.heartbeat().await));
        assert!(is_away(&store.commit(&[created("b")]).await));
        assert!(is_away(&store.open().await));
        store.close().await;
    };
    tokio::time::timeout(DEADLINE, all).await.expect("hangs");
    proxy.hold_answers(false);
    store.open().await.unwrap();
    assert!(exists(&store, "a").await);
    store.commit(&[created("c")]).await.unwrap();
}

#[tokio::test]
async fn an_encrypted_connection_is_made_only_to_whom_the_settings_allow() {
    let Some(database) = Database::new() else {
        return;
    };
    let Some(ca_file) = std::env::var_os("TEST_MYSQL_CA") else {
        skip("TEST_MYSQL_CA, the authority of the server's certificate, is not set");
        return;
    };
    // Whom the server lets in encrypted only.
    let options = plain_user(&database).await;
    let sql = format!("ALTER USER '{}'@'%' REQUIRE SSL", options.user);
    database.run(&sql).await;
    let with = |tls: Tls| {
        MysqlStore::new(Options {
            tls,
            ..options.clone()
        })
    };
    let refused = with(Tls::Off).open().await;
    assert_away_because(&refused, "by TLS only (MYSQL_TLS)");
    let ca_file = PathBuf::from(ca_file);
    for tls in [
        Tls::Required,
        Tls::Verified {
            ca_file: Some(ca_file.clone()),
            host: true,
        },
    ] {
        let store = with(tls);
        store.open().await.unwrap();
        store.close().await;
    }
    // The server's own certificate is no authority.
    let stranger = ca_file.with_file_name("cert.pem");
    let refused = with(Tls::Verified {
        ca_file: Some(stranger),
        host: true,
    })
    .open()
    .await;
    assert_away_because(&refused, "MYSQL_TLS_CA_FILE");
    // The certificate is for the address and not for this name of it.
    let store = MysqlStore::new(Options {
        host: "localhost".into(),
        tls: Tls::Verified {
            ca_file: Some(ca_file),
            host: true,
        },
        ..options.clone()
    });
    let refused = store.open().await;
    assert_away_because(&refused, "MYSQL_TLS_CA_FILE");
    drop_user(&database, &options).await;
}

/// One that writes, one for the heartbeat, and none to read with.
#[tokio::test]
async fn a_user_with_few_connections_has_one_for_the_heartbeat_before_anything_is_served() {
    let Some(database) = Database::new() else {
        return;
    };
    let options = plain_user(&database).await;
    let limit = async |count: u32| {
        let user = &options.user;
        let sql = format!("ALTER USER '{user}'@'%' WITH MAX_USER_CONNECTIONS {count}");
        database.run(&sql).await;
    };
    limit(1).await;
    let store = MysqlStore::new(options.clone());
    // Connections of an attempt that failed are gone a moment later.
    let opens = async |wanted: &str| {
        let began = Instant::now();
        loop {
            let said = store
                .open()
                .await
                .map_or_else(|error| error.to_string(), |_| String::new());
            if said.contains(wanted) && said.is_empty() == wanted.is_empty() {
                return said;
            }
            assert!(began.elapsed() < DEADLINE, "{said}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let said = opens("no second connection for the heartbeat").await;
    assert!(said.contains("max_user_connections"), "{said}");
    let instances = "SELECT COUNT(*) FROM resource_instance";
    assert_eq!(database.number(instances).await, 0);
    limit(2).await;
    opens("").await;
    // A read has none, which is its own failure; the heartbeat does not need another one.
    let read = store.load(&name("a")).await;
    assert!(is_away(&read), "{read:?}");
    store.heartbeat().await.unwrap();
    store.commit(&[created("a")]).await.unwrap();
    limit(3).await;
    assert!(exists(&store, "a").await);
    store.close().await;
    drop_user(&database, &options).await;
}

/// MariaDB's own kind of account.
#[tokio::test]
async fn an_account_by_ed25519_is_let_in_with_the_right_password_alone() {
    let Some(database) = Database::new() else {
        return;
    };
    let options = plain_user(&database).await;
    let mut admin = database.admin().await;
    let plugin = "INSTALL SONAME 'auth_ed25519'";
    if let Err(error) = admin.query_drop(plugin).await
        && !error.to_string().contains("already")
    {
        drop_user(&database, &options).await;
        skip(&format!("the database has no accounts by ed25519: {error}"));
        return;
    }
    let user = &options.user;
    let sql = format!("ALTER USER '{user}'@'%' IDENTIFIED VIA ed25519 USING PASSWORD('secret')");
    admin.query_drop(sql).await.unwrap();
    let store = MysqlStore::new(options.clone());
    store.open().await.unwrap();
    store.commit(&[created("a")]).await.unwrap();
    store.close().await;
    let refused = MysqlStore::new(Options {
        password: "another".into(),
        ..options.clone()
    });
    let refused = refused.open().await;
    assert!(is_away(&refused), "{refused:?}");
    drop_user(&database, &options).await;
}

#[tokio::test]
async fn no_server_at_all_is_an_outage() {
    let Some(database) = Database::new() else {
        return;
    };
    let unused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = unused.local_addr().unwrap().port();
    drop(unused);
    let store = MysqlStore::new(Options {
        port,
        ..database.options()
    });
    let host = database.options().host;
    assert_away_because(&store.open().await, &format!("{host}:{port}: "));
}

/// A user who is allowed nothing but this database.
async fn plain_user(database: &Database) -> Options {
    let user = database.name.replace("test_", "u");
    let user = user[..30].to_owned();
    let mut admin = database.admin().await;
    let sql = format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'secret'");
    admin.query_drop(sql).await.unwrap();
    let sql = format!(
        "GRANT ALL PRIVILEGES ON {}.* TO '{user}'@'%'",
        database.name
    );
    admin.query_drop(sql).await.unwrap();
    Options {
        user,
        password: "secret".into(),
        ..database.options()
    }
}

async fn drop_user(database: &Database, options: &Options) {
    database
        .run(&format!("DROP USER '{}'@'%'", options.user))
        .await;
}

#[tokio::test]
async fn a_user_who_is_not_let_in_any_more_finds_the_database_away() {
    let Some(database) = Database::new() else {
        return;
    };
    let options = plain_user(&database).await;
    let store = MysqlStore::new(options.clone());
    store.open().await.unwrap();
    let sql = |password: &str| {
        format!(
            "ALTER USER '{}'@'%' IDENTIFIED BY '{password}'",
            options.user
        )
    };
    database.run(&sql("changed")).await;
    database.kill_all().await;
    let refused = store.commit(&[created("a")]).await;
    assert!(is_away(&refused), "{refused:?}");
    let refused = store.open().await;
    assert!(is_away(&refused), "{refused:?}");
    database.run(&sql("secret")).await;
    store.open().await.unwrap();
    store.commit(&[created("a")]).await.unwrap();
    drop_user(&database, &options).await;
}

#[tokio::test]
async fn a_lock_of_someone_else_is_waited_for_and_the_commit_tried_again() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    store.open().await.unwrap();
    store.commit(&[created("a")]).await.unwrap();
    let mut other = database.admin().await;
    let sql = "BEGIN; SELECT * FROM resource_instance FOR UPDATE";
    other.query_drop(sql).await.unwrap();
    let commit = tokio::spawn(async move {
        let result = store.commit(&[created("b")]).await;
        (result, store)
    });
    // Longer than the server lets one statement wait for a row lock.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!commit.is_finished());
    other.query_drop("ROLLBACK").await.unwrap();
    let (result, store) = commit.await.unwrap();
    result.unwrap();
    assert!(exists(&store, "b").await);
}

#[tokio::test]
async fn a_commit_that_its_caller_gave_up_leaves_the_store_to_be_opened_again() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    store.open().await.unwrap();
    let mut other = database.admin().await;
    let sql = "BEGIN; SELECT * FROM resource_instance FOR UPDATE";
    other.query_drop(sql).await.unwrap();
    let batch = [created("a")];
    let commit = tokio::time::timeout(Duration::from_millis(100), store.commit(&batch));
    assert!(commit.await.is_err(), "it has to wait");
    other.query_drop("ROLLBACK").await.unwrap();
    let refused = store.commit(&[created("b")]).await;
    assert_away_because(&refused, "in doubt");
    assert!(is_away(&store.heartbeat().await));
    store.open().await.unwrap();
    store.commit(&[created("b")]).await.unwrap();
    assert!(exists(&store, "b").await);
}

#[tokio::test]
async fn what_is_larger_than_a_packet_is_rejected_and_the_rest_goes_on() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    store.open().await.unwrap();
    let bytes = database.number("SELECT @@GLOBAL.max_allowed_packet").await as usize;
    let mut large = created("large");
    write(
        &mut large,
        "s",
        format!("\"{}\"", "x".repeat(bytes)).as_bytes(),
    );
    let refused = store.commit(&[large]).await;
    let Err(StoreError::Rejected(text)) = refused else {
        panic!("{refused:?}");
    };
    assert!(text.contains("max_allowed_packet"), "{text}");
    assert!(!exists(&store, "large").await);
    store.commit(&[created("a")]).await.unwrap();
    assert!(exists(&store, "a").await);
}

#[tokio::test]
async fn a_batch_of_several_packets_is_stored_whole() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    store.open().await.unwrap();
    let document = |n: usize| format!("\"{n} \\\\ ' {}\"", "é".repeat(1 << 20)).into_bytes();
    let mut batch = vec![created("a"), created("b")];
    for n in 0..7 {
        write(&mut batch[n % 2], &n.to_string(), &document(n));
    }
    store.commit(&batch).await.unwrap();
    for n in 0..7 {
        let resource = ["a", "b"][n % 2];
        let stored = read(&store, resource, &n.to_string()).await;
        assert!(stored == Some(document(n)), "document {n} differs");
    }
}

#[tokio::test]
async fn text_comes_back_byte_for_byte() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    store.open().await.unwrap();
    let texts = [
        r#"{"a": "\u0000 \ud83d\ude00 \\ \" ' '' \n", "é": 1e400}"#,
        "\"😀 𝄞 \u{10ffff} \u{feff}\"",
        "  123456789012345678901234567890.10  ",
        "\r\n\t{ }\u{1a}\\",
        "'; DROP TABLE resource; --",
    ];
    let mut snapshot = created("a'b\\ %_");
    for (n, text) in texts.iter().enumerate() {
        write(&mut snapshot, &format!("{n} '\\"), text.as_bytes());
    }
    store.commit(&[snapshot]).await.unwrap();
    for (n, text) in texts.iter().enumerate() {
        let stored = read(&store, "a'b\\ %_", &format!("{n} '\\")).await;
        assert_eq!(stored.as_deref(), Some(text.as_bytes()));
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_are_rejected() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    store.open().await.unwrap();
    let mut snapshot = created("a");
    write(&mut snapshot, "s", b"\"\xff\"");
    let refused = store.commit(&[snapshot]).await;
    assert!(
        matches!(refused, Err(StoreError::Rejected(_))),
        "{refused:?}"
    );
    assert!(!exists(&store, "a").await);
}

#[tokio::test]
async fn a_name_that_someone_else_created_is_a_rejection() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    store.open().await.unwrap();
    store.commit(&[created("a")]).await.unwrap();
    let again = store.commit(&[created("b"), created("a")]).await;
    assert!(matches!(again, Err(StoreError::Rejected(_))), "{again:?}");
    assert!(!exists(&store, "b").await);
    store.commit(&[created("b")]).await.unwrap();
}

#[tokio::test]
async fn nothing_depends_on_the_settings_of_the_server() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    store.open().await.unwrap();
    let mut admin = database.admin().await;
    let sql = "SELECT @@SESSION.sql_mode";
    let others: Option<String> = admin.query_first(sql).await.unwrap();
    // A selector of 256 characters does not fit, and is not cut to fit.
    let mut snapshot = created("a");
    let mut row = snapshot.clone();
    write(&mut row, "s", b"1");
    let too_long = row.data.values().flatten().next().cloned().map(|mut row| {
        row.id = "i".repeat(256);
        row
    });
    snapshot.data.insert(super::selector("s"), too_long);
    let refused = store.commit(&[snapshot]).await;
    assert!(
        matches!(refused, Err(StoreError::Rejected(_))),
        "{refused:?} although the server's own sql_mode is {others:?}"
    );
}

#[tokio::test]
async fn names_that_no_request_can_spell_do_not_cut_a_listing_short() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    store.open().await.unwrap();
    store.commit(&[created("b"), created("c")]).await.unwrap();
    database
        .run("INSERT INTO resource (id, name, timeout) VALUES ('1', '', -5), ('2', 'a\\n', 0)")
        .await;
    let query = ListQuery {
        limit: 2,
        ..ListQuery::default()
    };
    let listed = store.list(&query, Duration::from_secs(600)).await.unwrap();
    let names: Vec<_> = listed
        .iter()
        .map(|resource| resource.name.as_str())
        .collect();
    assert_eq!(names, ["b", "c"]);
}

#[tokio::test]
async fn a_document_never_overwrites_another_one_that_has_its_id() {
    let Some(database) = Database::new() else {
        return;
    };
    let store = database.store();
    store.open().await.unwrap();
    let mut a = created("a");
    write(&mut a, "s", b"1");
    let mut b = created("b");
    b.data.clone_from(&a.data);
    store.commit(&[a]).await.unwrap();
    let refused = store.commit(&[b]).await;
    assert!(
        matches!(refused, Err(StoreError::Rejected(_))),
        "{refused:?}"
    );
    assert_eq!(read(&store, "a", "s").await.unwrap(), b"1");
}
