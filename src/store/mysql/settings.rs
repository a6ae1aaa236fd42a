//! The variables that each session sets, so that no global setting of a database administrator changes, cuts,
//! slows or stops what this store relies on; and the warnings about settings that a session cannot change.

use std::collections::HashMap;
use std::time::Duration;

use super::sql::Sql;

/// Idle time after which the server may close a connection, s; idle connections are used or renewed far sooner.
pub(super) const WAIT_TIMEOUT_SECONDS: usize = 600;

/// The largest value that the server's limits take: no limit.
const NO_LIMIT: &str = "18446744073709551615";

/// Variables to set if the server knows them and has another value. Names and values are spelled as `SHOW
/// VARIABLES` prints them; MySQL and MariaDB know different ones.
const WANTED: [(&str, &str); 37] = [
    // The meaning of a statement.
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
    // Whether a statement runs at all.
    ("sql_safe_updates", "OFF"),
    ("sql_big_selects", "ON"),
    ("max_join_size", NO_LIMIT),
    ("sql_require_primary_key", "OFF"),
    ("alter_algorithm", "DEFAULT"),
    ("tx_read_only", "OFF"),
    ("transaction_read_only", "OFF"),
    ("max_session_mem_used", "9223372036854775807"),
    // Whether a statement sees all rows, and the newest ones.
    ("sql_select_limit", NO_LIMIT),
    ("query_cache_type", "OFF"),
    // If ON, a transaction would fail that reads, and then changes a row that a heartbeat has changed in
    // between.
    ("innodb_snapshot_isolation", "OFF"),
    ("tx_isolation", "REPEATABLE-READ"),
    ("transaction_isolation", "REPEATABLE-READ"),
    ("wsrep_sync_wait", "1"),
    // This program repeats statements itself.
    ("wsrep_retry_autocommit", "0"),
    ("group_replication_consistency", "BEFORE"),
    // How long a statement may take.
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

/// The first statements of a session, which ask for its variables. Before that they set those without which
/// the answer could be cut, refused or misread. (MySQL ignores the comment, which sets a variable that only
/// MariaDB knows.)
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

/// Parses the answer to [`ask`] or [`ASK_GLOBAL`]: values by lower-case name.
pub(super) fn variables(rows: Vec<(String, String)>) -> HashMap<String, String> {
    let rows = rows.into_iter();
    rows.map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect()
}

/// The variables to set in a session that has these values. `lock_wait_seconds`: for `lock_wait_timeout`.
/// `read_limit`: how long a statement may run in a session that only reads. (The server sets no limit to
/// writes, because one that it ended in the middle would be in doubt; our own timeout does.)
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
        let Some(there) = has.get(name) else {
            continue;
        };
        let value = match (read_limit, name) {
            (Some(limit), "max_statement_time") => format!("{:.3}", limit.as_secs_f64()),
            (Some(limit), "max_execution_time") => limit.as_millis().to_string(),
            // A writer on a server that lags is refused by its guard, so it need not wait each time. Only a new
            // primary must have everything before it is written to.
            (None, "group_replication_consistency") if there == "EVENTUAL" => {
                "BEFORE_ON_PRIMARY_FAILOVER".to_owned()
            }
            (None, "group_replication_consistency") => continue,
            // READ COMMITTED: locking statements read the newest rows, and lock no gaps. (A binary log of
            // statements does not allow it.)
            (None, "tx_isolation" | "transaction_isolation") if !logs_statements => {
                "READ-COMMITTED".to_owned()
            }
            _ => value.to_owned(),
        };
        if !there.eq_ignore_ascii_case(&value) {
            changes.push((name.to_owned(), value));
        }
    }
    changes
}

pub(super) fn set(changes: &[(String, String)]) -> Sql {
    let mut sql = Sql::new("SET SESSION ");
    sql.list(changes, |sql, (name, value)| {
        sql.push(name).push(" = ");
        match value.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            true => sql.push(value),
            false => sql.text(value),
        }
    });
    // `DO 0`: a Galera node outside its cluster accepts every SET, and refuses any other statement.
    sql.push("; DO 0");
    sql
}

/// Asks for the settings that a session cannot change.
pub(super) const ASK_GLOBAL: &str = "SHOW GLOBAL VARIABLES WHERE variable_name IN \
    ('innodb_flush_log_at_trx_commit', 'sync_binlog', 'log_bin', 'innodb_doublewrite')";

/// Warnings about the answer to [`ASK_GLOBAL`], a sentence each.
pub(super) fn risks(rows: Vec<(String, String)>) -> Vec<String> {
    let has = variables(rows);
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
    risks
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
        let expected = "SET SESSION max_statement_time = 5.250,max_execution_time = 5250; DO 0";
        assert_eq!(set(&limited).as_str(), expected);
        let unlimited = changes(&there, 5, None);
        let expected = "SET SESSION max_statement_time = 0.000000,max_execution_time = 0; DO 0";
        assert_eq!(set(&unlimited).as_str(), expected);
    }
}
