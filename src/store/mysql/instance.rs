//! An instance as the database knows it: a row in `resource_instance` with a heartbeat number, and a log of its own.
//!
//! Instances join a database that is ready, and take nothing from anybody by that; which of them owns what, see
//! [`super::slots`]. A database that is not ready (new, of an earlier version or of the PHP server, half way back to it) is one
//! instance's alone, which `resource_server` names, until it is ready. Whoever finds that one silent for a whole lease takes
//! the database in its place, in one transaction and one packet, so that an instance that is cut off in the middle of it
//! leaves no lock behind: it marks the row of the one that is silent, *seals* its log with a last row, and makes the database
//! its own. Both joining and having it alone change the one row of `resource_server`, so neither overlooks the other, on
//! whatever server.
//!
//! Why nothing of whoever was taken from lands afterwards, and nothing that it was told is missed: see
//! [`super::fence::append`]. (The idea is the sealing of logs of BookKeeper and Delos.)

use super::error::{Fault, code};
use super::fence::{self, LogId, Tenure};
use super::rows::{Columns, Sets};
use super::schema::{self, InstanceRow, ServerRow};
use super::session::Session;
use super::sql::Sql;
use crate::store::{InstanceId, journal};

/// Of what instances prove to each other that they know.
const SECRET_BYTES: usize = 32;

/// Another instance and another log than there ever was.
pub(super) fn new_tenure(epoch: Option<u64>) -> Tenure {
    Tenure {
        epoch,
        id: *uuid::Uuid::new_v4().as_bytes(),
        log: *uuid::Uuid::new_v4().as_bytes(),
    }
}

/// A row for the tenure, and the first row of its log.
fn introduce(sql: &mut Sql, tenure: Tenure, server: &str, address: Option<&str>, lease_ms: u64) {
    sql.push(
        "INSERT INTO resource_instance (id, state, heartbeat, log, server, connection, address, peer_secret, \
         executor, floor, lease_ms, version) VALUES (",
    );
    sql.bytes(&tenure.id).push(", 1, 1, ").bytes(&tenure.log);
    sql.push(", ").text(server).push(", CONNECTION_ID(), ");
    sql.or_null(address, |sql, address| {
        sql.text(address);
    });
    // Another one for each.
    sql.push(", ").bytes(&rand::random::<[u8; SECRET_BYTES]>());
    sql.push(", NULL, 0, ").number(lease_ms);
    sql.push(", ").text(env!("CARGO_PKG_VERSION"));
    sql.push("); INSERT INTO resource_log (log, n, changes) VALUES (");
    sql.bytes(&tenure.log).push(", 1, ").bytes(journal::EMPTY);
    sql.push(")");
}

/// Takes part in a database that is shared, in this tenure. The epoch that this made; `None`: it is somebody's alone by now.
pub(super) async fn join(
    session: &mut Session,
    tenure: Tenure,
    address: Option<&str>,
    lease_ms: u64,
) -> Result<Option<u64>, Fault> {
    // Whoever holds the row may be cut off, or stand still: then it is not to be waited for, but to be watched.
    let mut sql = Sql::new(
        "BEGIN; SELECT id FROM resource_server WHERE id = 1 FOR UPDATE NOWAIT; \
         UPDATE resource_server SET epoch = IF(version = ",
    );
    sql.number(schema::VERSION);
    sql.push(" AND step = ")
        .text(schema::MigrationStep::Ready.name());
    sql.push(" AND owner IS NULL, epoch + 1, NULL) WHERE id = 1; ");
    introduce(&mut sql, tenure, &session.server.id, address, lease_ms);
    sql.push("; ").push(EPOCH).push("; COMMIT");
    match run_in_time(session, &sql).await? {
        Some(sets) => epoch(sets).map(Some),
        None => Ok(None),
    }
}

/// Which one a transaction has made, at its end.
pub(super) const EPOCH: &str = "SELECT epoch FROM resource_server WHERE id = 1";

/// The answer to [`EPOCH`], the last one of all that has rows.
pub(super) fn epoch(sets: Sets) -> Result<u64, Fault> {
    let mut row = last_row(sets)?;
    row.take()
}

/// Of what a transaction selected last.
pub(super) fn last_row(sets: Sets) -> Result<Columns, Fault> {
    let row = sets.into_iter().rev().find_map(|mut rows| rows.pop());
    row.map(Columns::of)
        .ok_or_else(|| Fault::Away("an answer has no row".into()))
}

/// Makes the database ours alone in this tenure, if its rows are still as they were read.
pub(super) async fn take(
    session: &mut Session,
    row: &ServerRow,
    tenure: Tenure,
    address: Option<&str>,
    lease_ms: u64,
) -> Result<bool, Fault> {
    match (row.owner_row(), row.connection) {
        (Some(instance), _) => kill_writer(session, instance).await?,
        // Version 2.0.0 wrote it, which knew of one server only.
        (None, Some(number)) if !session.server.is_member => kill(session, number).await?,
        _ => {}
    }
    let mut sql = taking(row, tenure);
    introduce(&mut sql, tenure, &session.server.id, address, lease_ms);
    sql.push("; COMMIT");
    Ok(run_in_time(session, &sql).await?.is_some())
}

/// The writer of an instance that is taken over from is cut off: stopped in the middle of a transaction, it would keep its
/// row lock. Only on the server that it belongs to: on another one its number is somebody else's.
pub(super) async fn kill_writer(
    session: &mut Session,
    instance: &InstanceRow,
) -> Result<(), Fault> {
    match instance.server == session.server.id {
        true => kill(session, instance.connection).await,
        false => Ok(()),
    }
}

/// Runs a transaction about rows as they were read. `None`: they were changed meanwhile, by whoever was thought to
/// be silent or by another that takes over.
pub(super) async fn run_in_time(session: &mut Session, sql: &Sql) -> Result<Option<Sets>, Fault> {
    match session.run(sql.as_str()).await {
        Ok(sets) => Ok(Some(sets)),
        Err(fault) if fault.leaves_connection() => {
            session.run("ROLLBACK").await?;
            let is_late = fence::is_refusal(&fault) || fence::is_fenced(&fault);
            if is_late { Ok(None) } else { Err(fault) }
        }
        Err(fault) => Err(fault),
    }
}

/// All but what the new one says of itself.
fn taking(row: &ServerRow, tenure: Tenure) -> Sql {
    let mut sql = Sql::new("BEGIN; ");
    if let Some(instance) = row.owner_row() {
        sql.push("UPDATE resource_instance SET state = IF(heartbeat = ");
        sql.number(instance.heartbeat).push(" AND log = ");
        sql.bytes(&instance.log).push(", 3, NULL), executor = ");
        sql.bytes(&tenure.id).push(" WHERE id = ");
        sql.bytes(&instance.id).push("; ");
        seal(&mut sql, &instance.log);
        sql.push("; ");
    }
    sql.push("UPDATE resource_server SET epoch = IF(epoch = ");
    sql.number(row.epoch).push(" AND heartbeat = ");
    sql.number(row.heartbeat).push(" AND owner <=> ");
    sql.or_null(row.owner.as_ref(), |sql, owner| {
        sql.bytes(owner);
    });
    sql.push(", epoch + 1, NULL), owner = ").bytes(&tenure.id);
    sql.push(", connection = NULL WHERE id = 1; ");
    sql
}

/// Nothing can be appended to the log afterwards. (A log that never had a row has no instance.)
pub(super) fn seal(sql: &mut Sql, log: &LogId) {
    sql.push("INSERT INTO resource_log (log, n, changes) SELECT log, MAX(n) + 1, ");
    sql.bytes(journal::SEAL);
    sql.push(" FROM resource_log WHERE log = ").bytes(log);
    sql.push(" GROUP BY log");
}

/// Ends a connection of ours to this database. Ids are used anew after a restart of the server, so it is
/// looked at first.
async fn kill(session: &mut Session, connection: u64) -> Result<(), Fault> {
    let listed = match listed(session, "information_schema", connection).await {
        Err(fault) if fault.is(code::NOT_CONVERTED) => {
            listed(session, "performance_schema", connection).await?
        }
        listed => listed?,
    };
    if !listed {
        return Ok(());
    }
    let mut sql = Sql::new("KILL CONNECTION ");
    match session.run(sql.number(connection).as_str()).await {
        Ok(_) => {
            log::info!("connection {connection} of an instance that is taken over from was ended")
        }
        Err(fault) if fault.is(code::NO_SUCH_THREAD) => {}
        Err(fault @ Fault::Server { .. }) => {
            log::warn!(
                "connection {connection} of an instance that is taken over from cannot be ended: {fault:?}"
            );
        }
        Err(fault) => return Err(fault),
    }
    Ok(())
}

/// Whether there is such a connection to this database. `schema`: where the list of connections is. MySQL's
/// `information_schema` fails while anybody's statement has a character beyond the basic plane.
async fn listed(session: &mut Session, schema: &str, connection: u64) -> Result<bool, Fault> {
    let mut sql = Sql::new("SELECT id FROM ");
    sql.push(schema)
        .push(".processlist WHERE db = DATABASE() AND id <> CONNECTION_ID() AND id = ");
    sql.number(connection);
    Ok(!session.rows(sql.as_str()).await?.is_empty())
}

/// One sign of life; the rows after it. `None`: this instance was taken for dead. While the database is ours alone, those that know no
/// instances look for it where it was up to version 3.
///
/// # Errors
/// Among others: the server has become read-only, so another one is the primary, or soon will be. (An
/// account with the right to write all the same would go on writing to what nobody reads.)
pub(super) async fn beat(
    session: &mut Session,
    tenure: Tenure,
) -> Result<Option<ServerRow>, Fault> {
    let mut sql = Sql::default();
    if tenure.epoch.is_some() {
        sql.push("UPDATE resource_server SET heartbeat = heartbeat + 1 WHERE id = 1 AND ");
        fence::is_alone(&mut sql, tenure);
        sql.push("; ");
    }
    sql.push("UPDATE resource_instance SET heartbeat = heartbeat + 1");
    mine(&mut sql, tenure);
    sql.push("; SELECT ROW_COUNT(), CAST(@@global.read_only AS CHAR); ");
    let (sets, row) = schema::run_and_read(session, sql).await?;
    let mut told = last_row(sets)?;
    let (changed, read_only): (i64, String) = (told.take()?, told.take()?);
    if !matches!(read_only.as_str(), "0" | "OFF") {
        let id = &session.server.id;
        return Err(Fault::Away(format!("the server {id} has become read-only")));
    }
    Ok(row.filter(|_| changed > 0))
}

/// Records the connection that writes from now on.
pub(super) async fn record_writer(session: &mut Session, tenure: Tenure) -> Result<bool, Fault> {
    let mut sql = Sql::new("UPDATE resource_instance SET connection = CONNECTION_ID()");
    sql.push(", server = ").text(&session.server.id);
    // A heartbeat, so that the row changes in any case.
    sql.push(", heartbeat = heartbeat + 1");
    mine(&mut sql, tenure);
    Ok(session.change(sql.as_str()).await? > 0)
}

/// Ends the tenure, if it has not ended: whoever comes next need not wait. The log is sealed, so that nothing of ours can land
/// later. An instance that owns no names and has nothing left in its log is forgotten, if `has_checkpointed`.
pub(super) async fn release(
    session: &mut Session,
    tenure: Tenure,
    has_checkpointed: bool,
) -> Result<(), Fault> {
    if tenure.epoch.is_some() {
        let mut sql = Sql::new(
            "UPDATE resource_server SET epoch = epoch + 1, owner = NULL WHERE id = 1 AND ",
        );
        fence::is_alone(&mut sql, tenure);
        session.run(sql.as_str()).await?;
    }
    let mut ending =
        Sql::new("BEGIN; UPDATE resource_instance SET state = IF(state IN (1, 2) AND log = ");
    ending
        .bytes(&tenure.log)
        .push(", 3, NULL), heartbeat = heartbeat + 1 WHERE id = ");
    ending.bytes(&tenure.id).push("; ");
    seal(&mut ending, &tenure.log);
    ending.push("; COMMIT");
    if run_in_time(session, &ending).await?.is_none() || !has_checkpointed {
        return Ok(());
    }
    let mut forgetting =
        Sql::new("BEGIN; UPDATE resource_instance SET heartbeat = heartbeat + 1 WHERE id = ");
    forgetting
        .bytes(&tenure.id)
        .push("; UPDATE resource_server SET epoch = IF((");
    forgetting
        .push("SELECT COUNT(*) FROM resource_slot WHERE owner = ")
        .bytes(&tenure.id);
    forgetting.push(") = 0 AND (SELECT COUNT(*) FROM resource_instance WHERE state = 3 AND executor IS NULL AND id = ");
    forgetting.bytes(&tenure.id).push(") = 1, epoch + 1, NULL)");
    fold_floor(&mut forgetting, &tenure.id);
    forgetting
        .push(" WHERE id = 1; DELETE FROM resource_log WHERE log = ")
        .bytes(&tenure.log);
    forgetting
        .push("; DELETE FROM resource_instance WHERE id = ")
        .bytes(&tenure.id);
    forgetting.push("; COMMIT");
    run_in_time(session, &forgetting).await.map(|_| ())
}

/// Assigns to the row of `resource_server` what is about to be deleted with the row of an instance.
pub(super) fn fold_floor(sql: &mut Sql, id: &InstanceId) {
    sql.push(", floor = GREATEST(floor, (SELECT floor FROM resource_instance WHERE id = ");
    sql.bytes(id).push("))");
}

/// Nobody took this log, nor, where it is ours alone, the database: the one row about that is what everybody agrees on.
fn mine(sql: &mut Sql, tenure: Tenure) {
    sql.push(" WHERE id = ").bytes(&tenure.id);
    sql.push(" AND log = ").bytes(&tenure.log);
    sql.push(" AND state IN (1, 2)");
    if tenure.epoch.is_some() {
        sql.push(" AND EXISTS (SELECT 1 FROM resource_server WHERE id = 1 AND ");
        fence::is_alone(sql, tenure);
        sql.push(")");
    }
}
