//! An instance in the database: a row in `resource_instance` with a heartbeat number, and a log of its own.
//!
//! Instances join a database that is ready; joining takes nothing from any other instance. A database that is not
//! ready (new, of an earlier version or of the PHP server, half reverted) belongs exclusively to the instance that
//! `resource_server` names. If this owner is silent for a whole lease, another instance marks its row, *seals* its
//! log with a last row (see [`super::fence::append`]) and makes the database its own, in one packet, so that it
//! leaves no lock behind if it is cut off in the middle. Joining and taking both change the one row of
//! `resource_server`, so neither overlooks the other, at whatever server.

use super::error::{Fault, code};
use super::fence::{self, LogId, Membership};
use super::rows::{self, Sets};
use super::schema::{self, InstanceRow, ServerRow};
use super::session::Session;
use super::sql::Sql;
use crate::store::{InstanceId, journal};

/// Length of an instance's secret, which it and its peers prove to each other to know, bytes.
const SECRET_BYTES: usize = 32;

/// A membership of a new instance with a new log; both ids are random.
pub(super) fn new_membership(epoch: Option<u64>) -> Membership {
    Membership {
        epoch,
        id: *uuid::Uuid::new_v4().as_bytes(),
        log: *uuid::Uuid::new_v4().as_bytes(),
    }
}

/// Inserts the instance's row and the first row of its log.
fn introduce(
    sql: &mut Sql,
    membership: Membership,
    server: &str,
    address: Option<&str>,
    lease_ms: u64,
) {
    sql.push(
        "INSERT INTO resource_instance (id, state, heartbeat, log, server, connection, address, peer_secret, \
         executor, floor, lease_ms, version) VALUES (",
    );
    sql.bytes(&membership.id)
        .push(", 1, 1, ")
        .bytes(&membership.log);
    sql.push(", ").text(server).push(", CONNECTION_ID(), ");
    sql.or_null(address, |sql, address| sql.text(address));
    // Each instance has a secret of its own.
    sql.push(", ").bytes(&rand::random::<[u8; SECRET_BYTES]>());
    sql.push(", NULL, 0, ").number(lease_ms);
    sql.push(", ").text(env!("CARGO_PKG_VERSION"));
    sql.push("); INSERT INTO resource_log (log, n, changes) VALUES (");
    sql.bytes(&membership.log)
        .push(", 1, ")
        .bytes(journal::EMPTY);
    sql.push(")");
}

/// Joins a shared database in this membership. Returns the epoch that this made; `None`: another instance has the
/// database exclusively by now.
pub(super) async fn join(
    session: &mut Session,
    membership: Membership,
    address: Option<&str>,
    lease_ms: u64,
) -> Result<Option<u64>, Fault> {
    // `NOWAIT`: an instance that has the row locked may be cut off or stopped. Then we must watch its
    // heartbeat, and not wait for the lock.
    let mut sql = Sql::new(
        "BEGIN; SELECT id FROM resource_server WHERE id = 1 FOR UPDATE NOWAIT; \
         UPDATE resource_server SET epoch = IF(version = ",
    );
    sql.number(schema::VERSION);
    sql.push(" AND step = ")
        .text(schema::MigrationStep::Ready.name());
    sql.push(" AND owner IS NULL, epoch + 1, NULL) WHERE id = 1; ");
    introduce(&mut sql, membership, &session.server.id, address, lease_ms);
    sql.push("; ").push(EPOCH).push("; COMMIT");
    match run_in_time(session, &sql).await? {
        Some(sets) => rows::last(sets).map(Some),
        None => Ok(None),
    }
}

/// Selects the epoch that a transaction has made, at its end.
pub(super) const EPOCH: &str = "SELECT epoch FROM resource_server WHERE id = 1";

/// Takes the database exclusively in this membership. Returns the epoch that this made; `None`: its rows have
/// changed since they were read.
pub(super) async fn take(
    session: &mut Session,
    row: &ServerRow,
    membership: Membership,
    address: Option<&str>,
    lease_ms: u64,
) -> Result<Option<u64>, Fault> {
    // A connection that stopped inside a transaction keeps its row lock. On another server than its own, the
    // number is another connection's.
    if let Some(owner) = row.owner_row()
        && owner.server == session.server.id
    {
        kill(session, owner.connection).await?;
    }
    let mut sql = taking(row, membership);
    introduce(&mut sql, membership, &session.server.id, address, lease_ms);
    sql.push("; COMMIT");
    let taken = run_in_time(session, &sql).await?;
    Ok(taken.map(|_| row.epoch + 1))
}

/// Ends the writing connection of an instance that is taken over from, if it is on this server and a row is
/// locked that each transaction of an instance locks. No transaction outlives a restart of the server, so a
/// connection that has got the number since is not ended.
pub(super) async fn kill_blocking_writer(
    session: &mut Session,
    instance: &InstanceRow,
) -> Result<(), Fault> {
    if instance.server != session.server.id {
        return Ok(());
    }
    let mut sql = Sql::new("SELECT id FROM resource_server WHERE id = 1 FOR UPDATE NOWAIT; ");
    sql.push("SELECT id FROM resource_instance WHERE id = ");
    sql.bytes(&instance.id).push(" FOR UPDATE NOWAIT");
    match session.run(sql.as_str()).await {
        Ok(_) => Ok(()),
        Err(fault) if fault.is_passing() => kill(session, instance.connection).await,
        Err(fault) => Err(fault),
    }
}

/// Runs a transaction that fails unless rows are as they were read. `None`: they were changed meanwhile, by the
/// instance that was thought to be silent or by another one that takes over.
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

/// The statements of [`take`] that come before those of [`introduce`].
fn taking(row: &ServerRow, membership: Membership) -> Sql {
    let mut sql = Sql::new("BEGIN; ");
    if let Some(instance) = row.owner_row() {
        sql.push("UPDATE resource_instance SET state = IF(heartbeat = ");
        sql.number(instance.heartbeat).push(" AND log = ");
        sql.bytes(&instance.log).push(", 3, NULL), executor = ");
        sql.bytes(&membership.id).push(" WHERE id = ");
        sql.bytes(&instance.id).push("; ");
        seal(&mut sql, &instance.log);
        sql.push("; ");
    }
    sql.push("UPDATE resource_server SET epoch = IF(epoch = ");
    sql.number(row.epoch).push(" AND heartbeat = ");
    sql.number(row.heartbeat).push(" AND owner <=> ");
    sql.or_null(row.owner.as_ref(), |sql, owner| sql.bytes(owner));
    sql.push(", epoch + 1, NULL), owner = ")
        .bytes(&membership.id);
    sql.push(", connection = NULL WHERE id = 1; ");
    sql
}

/// Appends the seal, after which nothing can be appended to the log. (An instance's log always has at least one
/// row.)
pub(super) fn seal(sql: &mut Sql, log: &LogId) {
    sql.push("INSERT INTO resource_log (log, n, changes) SELECT log, MAX(n) + 1, ");
    sql.bytes(journal::SEAL);
    sql.push(" FROM resource_log WHERE log = ").bytes(log);
    sql.push(" GROUP BY log");
}

/// Ends a connection to this database. First checks that it is one, because a server that was restarted gives
/// out the numbers again.
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
            log::info!("ended connection {connection} of an instance that is presumed dead")
        }
        Err(fault) if fault.is(code::NO_SUCH_THREAD) => {}
        Err(fault @ Fault::Server { .. }) => {
            log::warn!(
                "could not end connection {connection} of an instance that is presumed dead: {fault:?}"
            );
        }
        Err(fault) => return Err(fault),
    }
    Ok(())
}

/// Whether there is such a connection to this database. `schema`: the schema with the `processlist` to read.
/// MySQL's `information_schema` fails while any connection runs a statement with a character outside the basic
/// plane.
async fn listed(session: &mut Session, schema: &str, connection: u64) -> Result<bool, Fault> {
    let mut sql = Sql::new("SELECT id FROM ");
    sql.push(schema)
        .push(".processlist WHERE db = DATABASE() AND id <> CONNECTION_ID() AND id = ");
    sql.number(connection);
    Ok(!session.rows::<u64>(sql.as_str()).await?.is_empty())
}

/// Sends one heartbeat, and returns the rows after it. `None`: this instance was taken for dead. An instance
/// that has the database exclusively also raises the heartbeat of `resource_server`, which version 2.0.0
/// watches.
///
/// # Errors
/// Among others [`Fault::Away`]: the server has become read-only, so another one is the primary, or soon will
/// be. (An account that may write all the same would go on writing to a server that nobody reads.)
pub(super) async fn heartbeat(
    session: &mut Session,
    membership: Membership,
) -> Result<Option<ServerRow>, Fault> {
    let mut sql = Sql::default();
    if membership.epoch.is_some() {
        sql.push("UPDATE resource_server SET heartbeat = heartbeat + 1 WHERE id = 1 AND ");
        fence::is_alone(&mut sql, membership);
        sql.push("; ");
    }
    sql.push("UPDATE resource_instance SET heartbeat = heartbeat + 1");
    mine(&mut sql, membership);
    sql.push("; SELECT ROW_COUNT(), CAST(@@global.read_only AS CHAR); ");
    let (sets, row) = schema::run_and_read(session, sql).await?;
    let (changed, read_only): (i64, String) = rows::last(sets)?;
    if !matches!(read_only.as_str(), "0" | "OFF") {
        let id = &session.server.id;
        return Err(Fault::Away(format!("the server {id} has become read-only")));
    }
    Ok(row.filter(|_| changed > 0))
}

/// Records this connection as the one that writes. `false`: this instance was taken for dead.
pub(super) async fn record_writer(
    session: &mut Session,
    membership: Membership,
) -> Result<bool, Fault> {
    let mut sql = Sql::new("UPDATE resource_instance SET connection = CONNECTION_ID()");
    sql.push(", server = ").text(&session.server.id);
    // With a heartbeat, so that the row changes in any case: the count of changed rows is the answer.
    sql.push(", heartbeat = heartbeat + 1");
    mine(&mut sql, membership);
    session.run(sql.as_str()).await?;
    Ok(session.changed_rows() > 0)
}

/// Ends the membership, if it has not ended, so that other instances need not wait for the lease. Seals the log, so
/// that nothing of ours can be committed later. `has_checkpointed`: all changes in the log are in the tables.
/// Then also deletes the log and the row of an instance that owns no slots, and returns the epoch that this made.
pub(super) async fn release(
    session: &mut Session,
    membership: Membership,
    has_checkpointed: bool,
) -> Result<Option<u64>, Fault> {
    if membership.epoch.is_some() {
        let mut sql = Sql::new(
            "UPDATE resource_server SET epoch = epoch + 1, owner = NULL WHERE id = 1 AND ",
        );
        fence::is_alone(&mut sql, membership);
        session.run(sql.as_str()).await?;
    }
    let Membership { id, log, .. } = &membership;
    let mut sql =
        Sql::new("BEGIN; UPDATE resource_instance SET state = IF(state IN (1, 2) AND log = ");
    sql.bytes(log);
    sql.push(", 3, NULL), heartbeat = heartbeat + 1 WHERE id = ");
    sql.bytes(id).push("; ");
    seal(&mut sql, log);
    sql.push("; COMMIT");
    if run_in_time(session, &sql).await?.is_none() || !has_checkpointed {
        return Ok(None);
    }
    sql = Sql::new("BEGIN; UPDATE resource_instance SET heartbeat = heartbeat + 1 WHERE id = ");
    sql.bytes(id).push("; UPDATE resource_server SET epoch = ");
    sql.push("IF((SELECT COUNT(*) FROM resource_slot WHERE owner = ");
    sql.bytes(id).push(") = 0 AND (SELECT COUNT(*) FROM ");
    sql.push("resource_instance WHERE state = 3 AND executor IS NULL AND id = ");
    sql.bytes(id).push(") = 1, epoch + 1, NULL)");
    fold_floor(&mut sql, id);
    sql.push(" WHERE id = 1; DELETE FROM resource_log WHERE log = ");
    sql.bytes(log);
    sql.push("; DELETE FROM resource_instance WHERE id = ");
    sql.bytes(id).push("; ").push(EPOCH).push("; COMMIT");
    let deleted = run_in_time(session, &sql).await?;
    deleted.map(rows::last).transpose()
}

/// An assignment that carries over to the row of `resource_server` the token floor in an instance's row, which
/// is to be deleted.
pub(super) fn fold_floor(sql: &mut Sql, id: &InstanceId) {
    sql.push(", floor = GREATEST(floor, (SELECT floor FROM resource_instance WHERE id = ");
    sql.bytes(id).push("))");
}

/// The condition that no other instance has taken over this membership: the instance's row is not fenced and, if
/// the database is exclusively ours, `resource_server` still says so. All instances agree on that one row.
fn mine(sql: &mut Sql, membership: Membership) {
    sql.push(" WHERE id = ").bytes(&membership.id);
    sql.push(" AND log = ").bytes(&membership.log);
    sql.push(" AND state IN (1, 2)");
    if membership.epoch.is_some() {
        sql.push(" AND EXISTS (SELECT 1 FROM resource_server WHERE id = 1 AND ");
        fence::is_alone(sql, membership);
        sql.push(")");
    }
}
