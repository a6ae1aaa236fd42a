//! What a database administrator may have set for all sessions.

use crate::instance::serving;
use crate::private::PrivateServer;
use crate::support::until;
use crate::{turn, wait};

/// MySQL knows some of them and MariaDB others. Each cuts, stops, refuses or changes something in a session that leaves it as it is.
const GLOBAL: &[&str] = &[
    "sql_select_limit = 10",
    "sql_safe_updates = ON",
    "sql_big_selects = OFF",
    "max_join_size = 1",
    "sql_mode = 'ANSI,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH'",
    "autocommit = OFF",
    "completion_type = CHAIN",
    "tx_isolation = 'SERIALIZABLE'",
    "tx_read_only = ON",
    "transaction_isolation = 'SERIALIZABLE'",
    "transaction_read_only = ON",
    "innodb_snapshot_isolation = ON",
    "innodb_lock_wait_timeout = 100000",
    "lock_wait_timeout = 1",
    "max_statement_time = 0.02",
    "max_execution_time = 20",
    "wait_timeout = 1",
    "idle_transaction_timeout = 1",
    "idle_write_transaction_timeout = 1",
    "foreign_key_checks = OFF",
    "max_sort_length = 8",
    "alter_algorithm = INSTANT",
    "character_set_server = 'latin1'",
    "collation_server = 'latin1_general_cs'",
    "time_zone = '+05:00'",
    "innodb_default_row_format = 'compact'",
    "default_storage_engine = 'MyISAM'",
];

#[test]
fn what_is_set_for_all_sessions_changes_nothing_for_ours() {
    let Some(mut server) = PrivateServer::new(&[]) else {
        return;
    };
    let _turn = turn();
    server.start();
    let known = GLOBAL.iter().filter(|s| wait(server.set_global(s)));
    assert!(known.count() > 15);
    let mut instance = serving(&server.options());
    let names: Vec<String> = (0..30).map(|n| format!("{n}: it's a \\name")).collect();
    let path = |name: &str| name.replace(' ', "%20");
    let mut held = Vec::new();
    for name in &names {
        instance.create(name, 0).settled();
        let written = instance.put(&format!("{}/s", path(name)), r#"{"v":1}"#);
        assert_eq!(written.settled().status, 204);
        held.push(
            instance.hold_with(
                instance
                    .lock(&format!("{}/s", path(name)))
                    .body(r#"{"ttl":3000}"#),
            ),
        );
    }
    let waiters: Vec<_> = (0..15)
        .map(|_| instance.queue(&format!("{}/s", path(&names[0]))))
        .collect();
    let listed = instance.call("GET", "/resource?limit=1000").settled();
    assert_eq!(listed.json()["resources"].as_array().unwrap().len(), 30);
    instance.kill();

    let instance = serving(&server.options());
    for (name, (ticket, token)) in names.iter().zip(&held) {
        let kept = instance
            .renew(&format!("{}/s", path(name)), ticket)
            .settled();
        assert_eq!((kept.status, kept.token()), (200, *token), "{kept:?}");
    }
    for (place, ticket) in waiters.iter().enumerate() {
        let first = format!("{}/s", path(&names[0]));
        let answer = instance.lock(&first).ticket(ticket).settled();
        assert_eq!(answer.json()["position"], place + 1);
    }
    let (ticket, token) = &held[1];
    let second = format!("{}/s", path(&names[1]));
    assert_eq!(instance.unlock(&second, ticket).settled().status, 200);
    assert!(instance.hold(&second).1 > *token);
}

#[test]
fn settings_that_can_lose_what_was_acknowledged_are_said_at_the_start() {
    let settings = ["--innodb-flush-log-at-trx-commit=2", "--sync-binlog=0"];
    let Some(mut server) = PrivateServer::new(&settings) else {
        return;
    };
    server.start();
    let instance = serving(&server.options());
    let said = instance.logged(&["innodb_flush_log_at_trx_commit of the database is 2"]);
    assert!(said.contains("WARN"), "{said}");
    let log = instance.log();
    assert!(
        !log.contains("sync_binlog"),
        "there is no binary log: {log}"
    );
    // Once, however often the store is opened.
    wait(server.end_all_connections());
    until("the store was opened again", || {
        let log = instance.log();
        log.matches("this instance shares the database").count() > 1 || {
            instance.create("again", 0).settled();
            false
        }
    });
    let log = instance.log();
    assert_eq!(log.matches("innodb_flush_log_at_trx_commit").count(), 1);
}
