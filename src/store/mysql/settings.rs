//! What a session sets, so that nothing a database administrator can set globally changes, cuts, slows or
//! stops what this store relies on; and what is said about settings that a session cannot change.

use std::collections::HashMap;
use std::time::Duration;

use super::error::Fault;
use super::rows::Columns;
use super::sql::Sql;

/// Kept by the server after the last sign of life; idle connections are used or renewed far sooner.
pub(super) const WAIT_TIMEOUT_SECONDS: usize = 600;

/// Longer than anything that we wait for.
const NO_LIMIT: &str = "18446744073709551615";

/// Set where the server knows them and has another value. Names and values as `SHOW VARIABLES` has them;
/// MySQL and MariaDB know different ones.
const WANTED: [(&str, &str); 37] = [
    // What a statement means.
    (
        "sql_mode",
        "STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION",
    ),
    ("autocommit", "ON"),
    ("completion_type", "NO_CHAIN"),
    ("foreign_key_checks", "ON"),
    ("unique_checks", "ON"),
    ("check_constraint_checks", "ON"),
    ("sql_auto_is_null", "OFF"),
    ("sql_quote_show_create", "ON"),
    ("show_create_table_verbosity", "OFF"),
    ("max_sort_length", "8192"),
    ("innodb_strict_mode", "ON"),
    // Whether it runs at all.
    ("sql_safe_updates", "OFF"),
    ("sql_big_selects", "ON"),
    ("max_join_size", NO_LIMIT),
    ("sql_require_primary_key", "OFF"),
    ("alter_algorithm", "DEFAULT"),
    ("tx_read_only", "OFF"),
    ("transaction_read_only", "OFF"),
    ("max_session_mem_used", "9223372036854775807"),
    // Whether it sees the whole, and what is newest.
    ("sql_select_limit", NO_LIMIT),
    ("query_cache_type", "OFF"),
    // A transaction would fail that reads, and then changes a row that a heartbeat has changed since.
    ("innodb_snapshot_isolation", "OFF"),
    ("tx_isolation", "REPEATABLE-READ"),
    ("transaction_isolation", "REPEATABLE-READ"),
    ("wsrep_sync_wait", "1"),
    // We try again ourselves.
    ("wsrep_retry_autocommit", "0"),
    ("group_replication_consistency", "BEFORE"),
    // How long it may take.
    ("max_statement_time", "0.000000"),
    ("max_execution_time", "0"),
    ("innodb_lock_wait_timeout", "1"),
    ("wait_timeout", "600"),
    ("net_read_timeout", "60"),
    ("net_write_timeout", "60"),
    ("idle_transaction_timeout", "0"),
    ("idle_write_transaction_timeout", "0"),
    ("idle_readonly_transaction_timeout", "0"),
    ("low_priority_updates", "OFF"),
];

/// What a session asks before anything else. The settings in it are the ones without which the answer could
/// be cut, refused or misread. (The comment is MariaDB's own syntax for what MySQL does not know.)
pub(super) fn ask() -> Sql {
    let mut sql = Sql::new("SET SESSION /*M!100100 max_statement_time = 0, */ sql_select_limit = ");
    sql.push(NO_LIMIT);
    sql.push(", max_join_size = ").push(NO_LIMIT);
    sql.push(
        ", sql_big_selects = 1; SET NAMES utf8mb4 COLLATE utf8mb4_bin; \
         SHOW SESSION VARIABLES WHERE variable_name IN ('lock_wait_timeout', 'max_allowed_packet', \
         'server_uuid', 'hostname', 'port', 'read_only', 'super_read_only', 'innodb_read_only', 'wsrep_on', \
         'group_replication_group_name', 'binlog_format'",
    );
    for (name, _) in WANTED {
        sql.push(", ").text(name);
    }
    sql.push(")");
    sql
}

/// The answer to [`ask`], by name.
pub(super) fn variables(rows: Vec<mysql_async::Row>) -> Result<HashMap<String, String>, Fault> {
    let pairs = rows.into_iter().map(|row| {
        let mut row = Columns::of(row);
        let (name, value): (String, String) = (row.take()?, row.take()?);
        Ok((name.to_ascii_lowercase(), value))
    });
    pairs.collect()
}

/// What is to be set in a session that has these values. `read_limit`: how long a statement of a session
/// that only reads may run. (Writes are bounded by us: one that is ended in the middle would be in doubt.)
pub(super) fn changes(
    has: &HashMap<String, String>,
    lock_wait_seconds: u64,
    read_limit: Option<Duration>,
) -> Vec<(String, String)> {
    let own = lock_wait_seconds.to_string();
    let wanted = WANTED
        .into_iter()
        .chain([("lock_wait_timeout", own.as_str())]);
    let logs_statements = has.get("binlog_format").is_some_and(|v| v == "STATEMENT");
    let mut changes = Vec::new();
    for (name, value) in wanted {
        let value = match (read_limit, name) {
            (Some(limit), "max_statement_time") => format!("{:.3}", limit.as_secs_f64()),
            (Some(limit), "max_execution_time") => limit.as_millis().to_string(),
            // A writer is told by its guard when it lags, and need not wait each time; only a primary that is new
            // has to have everything first.
            (None, "group_replication_consistency") => match has.get(name) {
                Some(there) if there == "EVENTUAL" => "BEFORE_ON_PRIMARY_FAILOVER".to_owned(),
                _ => continue,
            },
            // Statements that lock look at what is newest, and lock no gaps. (A binary log of statements cannot
            // have that.)
            (None, "tx_isolation" | "transaction_isolation") if !logs_statements => {
                "READ-COMMITTED".to_owned()
            }
            _ => value.to_owned(),
        };
        match has.get(name) {
            Some(there) if !there.eq_ignore_ascii_case(&value) => {
                changes.push((name.to_owned(), value));
            }
            _ => {}
        }
    }
    changes
}

pub(super) fn set(changes: &[(String, String)]) -> Sql {
    let mut sql = Sql::new("SET SESSION ");
    for (place, (name, value)) in changes.iter().enumerate() {
        sql.push(if place > 0 { ", " } else { "" });
        sql.push(name).push(" = ");
        if value.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            sql.push(value);
        } else {
            sql.text(value);
        }
    }
    // A Galera node that is no member of its cluster lets us set anything, and do nothing else.
    sql.push("; DO 0");
    sql
}

/// What is asked about settings that a session cannot change.
pub(super) const ASK_GLOBAL: &str = "SHOW GLOBAL VARIABLES WHERE variable_name IN \
    ('innodb_flush_log_at_trx_commit', 'sync_binlog', 'log_bin', 'innodb_doublewrite')";

/// What may come of the answer to [`ASK_GLOBAL`]; a sentence each.
pub(super) fn risks(rows: Vec<mysql_async::Row>) -> Result<Vec<String>, Fault> {
    let has = variables(rows)?;
    let value = |name: &str| has.get(name).map(String::as_str);
    let mut risks = Vec::new();
    // MariaDB's 3 flushes as 1 does.
    if let Some(flush) =
        value("innodb_flush_log_at_trx_commit").filter(|v| !matches!(*v, "1" | "3"))
    {
        risks.push(format!(
            "innodb_flush_log_at_trx_commit of the database is {flush}: when it crashes, it can lose locks and \
             documents that were acknowledged; set it to 1"
        ));
    }
    if let Some(sync) = value("sync_binlog").filter(|v| *v != "1" && value("log_bin") == Some("ON"))
    {
        risks.push(format!(
            "sync_binlog of the database is {sync}: when its machine crashes, its replicas can have what it \
             lost, or the reverse; set it to 1"
        ));
    }
    if value("innodb_doublewrite") == Some("OFF") {
        risks.push(
            "innodb_doublewrite of the database is OFF: when its machine crashes, pages can be damaged; \
             set it to ON"
                .to_owned(),
        );
    }
    Ok(risks)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(5_250);

    fn has(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        let pairs = pairs
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        pairs.collect()
    }

    #[test]
    fn what_the_server_does_not_know_or_has_already_is_not_set() {
        let there = has(&[("autocommit", "off"), ("foreign_key_checks", "ON")]);
        let changes = changes(&there, 5, None);
        assert_eq!(changes, [("autocommit".into(), "ON".into())]);
        assert_eq!(
            set(&changes).as_str(),
            "SET SESSION autocommit = 'ON'; DO 0"
        );
    }

    #[test]
    fn a_reader_waits_for_what_the_group_has_and_a_writer_when_its_primary_is_new() {
        let name = "group_replication_consistency";
        for (there, writer) in [
            ("EVENTUAL", Some("BEFORE_ON_PRIMARY_FAILOVER")),
            ("BEFORE_ON_PRIMARY_FAILOVER", None),
            ("BEFORE_AND_AFTER", None),
        ] {
            let there = has(&[(name, there)]);
            let wanted = |value: &str| (name.to_owned(), value.to_owned());
            assert_eq!(changes(&there, 5, Some(LIMIT)), [wanted("BEFORE")]);
            assert_eq!(changes(&there, 5, None).pop(), writer.map(wanted));
        }
    }

    #[test]
    fn only_reads_are_ended_by_the_server() {
        let there = has(&[
            ("max_statement_time", "9.000000"),
            ("max_execution_time", "9"),
        ]);
        let limited = changes(&there, 5, Some(LIMIT));
        let expected = "SET SESSION max_statement_time = 5.250, max_execution_time = 5250; DO 0";
        assert_eq!(set(&limited).as_str(), expected);
        let unlimited = changes(&there, 5, None);
        let expected = "SET SESSION max_statement_time = 0.000000, max_execution_time = 0; DO 0";
        assert_eq!(set(&unlimited).as_str(), expected);
    }
}
