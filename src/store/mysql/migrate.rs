//! Migration to this version's tables: from a new database, an earlier version's tables or the PHP server's.

use super::error::Fault;
use super::fence::{self, LogId, Membership};
use super::php::adopt;
use super::schema::{MigrationStep, OLD_JOURNAL, ServerRow, TABLES, VERSION, columns, indexes};
use super::session::Session;
use super::sql::Sql;
use crate::lock::Profile;

/// Brings the schema to [`VERSION`]. The caller must have the database exclusively in `membership` and send
/// heartbeats meanwhile, as adopting a large database takes long. A migration that was interrupted goes on
/// where it stopped. `explicit`: the profile that the operator set.
pub(super) async fn migrate(
    session: &mut Session,
    row: &ServerRow,
    membership: Membership,
    explicit: Option<Profile>,
) -> Result<(), Fault> {
    let mut step = row.step;
    if step == MigrationStep::New {
        step = adopt::begin(session, membership, explicit).await?;
    }
    // A database that version 2.0.0 adopted still has them, too.
    adopt::drop_foreign_keys(session).await?;
    if step == MigrationStep::Adopting {
        adopt::reshape(session).await?;
    }
    for table in TABLES {
        session.run(table).await?;
    }
    refine_tickets(session).await?;
    move_journal(session).await?;
    session.run("BEGIN").await?;
    if step == MigrationStep::Adopting {
        adopt::decode_selectors(session).await?;
    }
    // This row is locked last: heartbeats change it, and go on until then, however much there was to decode.
    let mut sql = Sql::default();
    fence::guard(&mut sql, membership);
    sql.push("; UPDATE resource_server SET step = 'ready', version = ");
    sql.number(VERSION).push(" WHERE id = 1; COMMIT");
    session.run(sql.as_str()).await?;
    Ok(())
}

/// From version 2.0.0, which had one journal: it becomes a log. Can be repeated after a failure, because no log
/// is replayed before this is done.
async fn move_journal(session: &mut Session) -> Result<(), Fault> {
    if columns(session, OLD_JOURNAL).await?.is_empty() {
        return Ok(());
    }
    let mut copy = Sql::new("INSERT IGNORE INTO resource_log (log, n, changes) SELECT ");
    copy.bytes(&LogId::default());
    copy.push(", n, changes FROM ").push(OLD_JOURNAL);
    session.run(copy.as_str()).await?;
    session.run(&format!("DROP TABLE {OLD_JOURNAL}")).await?;
    Ok(())
}

/// From version 2.0.0, where durations were whole seconds and a lock had at most one lease. Can be repeated
/// after a failure.
async fn refine_tickets(session: &mut Session) -> Result<(), Fault> {
    const NEW: &str = "ADD COLUMN ttl_ms BIGINT UNSIGNED NULL AFTER owner, \
        ADD COLUMN mode TINYINT UNSIGNED NULL AFTER ttl_ms, \
        ADD COLUMN reason VARCHAR(255) NULL AFTER mode, \
        ADD COLUMN queued_at BIGINT UNSIGNED NULL AFTER reason, \
        ADD COLUMN attempt_ttl_ms BIGINT UNSIGNED NULL AFTER attempt, \
        ADD COLUMN attempt_mode TINYINT UNSIGNED NULL AFTER attempt_ttl_ms";
    const OF_LOCKS: &str = ", ADD COLUMN lease_token BIGINT UNSIGNED NULL, \
        ADD COLUMN is_delayed TINYINT UNSIGNED NOT NULL DEFAULT 0";
    for (table, more) in [("resource_lock", OF_LOCKS), ("resource_waiting", "")] {
        let has = columns(session, table).await?;
        if !has.iter().any(|column| column == "ttl_ms") {
            session
                .run(&format!("ALTER TABLE {table} {NEW}{more}"))
                .await?;
        }
        if has.iter().any(|column| column == "ttl") {
            let copy = format!(
                "UPDATE {table} SET ttl_ms = ttl * 1000, attempt_ttl_ms = attempt_ttl * 1000 \
                 WHERE ticket IS NOT NULL"
            );
            session.run(&copy).await?;
            let drop = format!("ALTER TABLE {table} DROP COLUMN ttl, DROP COLUMN attempt_ttl");
            session.run(&drop).await?;
        }
    }
    if !indexes(session, "resource_lock")
        .await?
        .contains(&"acquired_at".to_owned())
    {
        let add = "ALTER TABLE resource_lock ADD KEY acquired_at (acquired_at)";
        session.run(add).await?;
    }
    let widen = "ALTER TABLE resource_ended_tickets MODIFY entries MEDIUMBLOB NOT NULL";
    session.run(widen).await?;
    Ok(())
}
