//! Each instance's log, and the statements that fence its transactions.

use super::error::{Fault, code};
use super::sql::Sql;
use crate::store::{InstanceId, ResourceId, StoreError};

/// Id of a log: random, or all zeros for the journal of version 2.0.0.
pub(super) type LogId = [u8; 16];

/// One instance's membership in the database: its id, its log and, if it has the database exclusively, its
/// epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    /// The epoch in which it has the database exclusively; `None`: it shares the database.
    pub epoch: Option<u64>,
    pub id: InstanceId,
    /// The log that it writes, and no other instance ever does, except for a seal.
    pub log: LogId,
}

/// Position of the next transaction in a membership's log, and how large its packets may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogPlace {
    pub membership: Membership,
    /// Number of its row in the log.
    pub n: u64,
    /// Largest packet that the server accepts, bytes.
    pub packet_bytes_max: usize,
}

/// Appends a row to the log of the membership. Every transaction of an instance begins with this statement, most
/// have no other, and it is what fences them:
///
/// - It locks the instance's own row, and fails unless that row says that the instance may write. An instance
///   that takes over changes that row, so it waits for a transaction that is under way.
/// - It takes the next position of the log. An instance that takes over puts a seal at that position instead.
///   Where several servers accept writes, the locks of one are not known at the others, but two rows with one
///   key cannot both be certified. So the seal also proves that the server on which it was written has applied
///   everything that was committed before.
/// - It fails unless the row before it is the last one: a database that has lost the end of the log accepts no
///   more rows.
///
/// It fails by a `NULL` in a column that does not allow it, so it needs no round trip of its own. See
/// [`is_fenced`].
pub(super) fn append(place: LogPlace, changes: &[u8]) -> Sql {
    let log = &place.membership.log;
    let mut sql = appended(place, ["IF(COUNT(*) = 1, ", ", NULL)"], changes);
    sql.push(" FROM resource_instance i WHERE ");
    may_write(&mut sql, place.membership);
    sql.push(" AND (SELECT MAX(n) FROM resource_log WHERE log = ");
    sql.bytes(log)
        .push(") = ")
        .number(place.n.saturating_sub(1));
    sql.push(" FOR UPDATE");
    sql
}

/// As [`append`], for a transaction that has no other statement. Where [`append`] fails, this inserts no row, or
/// finds its position taken. (A Galera node itself repeats a single statement that was not certified, and then puts
/// zeros in the place of a `NULL`.) It finds both rows that it reads by their whole keys, so it costs the
/// database less.
pub(super) fn append_alone(place: LogPlace, changes: &[u8]) -> Sql {
    let mut sql = appended(place, ["", ""], changes);
    sql.push(" FROM resource_instance i, resource_log l WHERE ");
    may_write(&mut sql, place.membership);
    sql.push(" AND l.log = ").bytes(&place.membership.log);
    sql.push(" AND l.n = ").number(place.n.saturating_sub(1));
    // Otherwise READ COMMITTED would lock neither row, and a take-over could begin and end, and delete its seal,
    // between the reads and the insertion.
    sql.push(" FOR UPDATE");
    sql
}

/// `around`: what stands before and after the id of the log.
fn appended(place: LogPlace, around: [&str; 2], changes: &[u8]) -> Sql {
    let mut sql = Sql::new("INSERT INTO resource_log (log, n, changes) SELECT ");
    sql.push(around[0]).bytes(&place.membership.log);
    sql.push(around[1]).push(", ").number(place.n);
    sql.push(", ").bytes(changes);
    sql
}

/// The condition on the row of `resource_instance`.
fn may_write(sql: &mut Sql, membership: Membership) {
    sql.push("i.id = ").bytes(&membership.id);
    sql.push(" AND i.log = ").bytes(&membership.log);
    sql.push(" AND i.state IN (1, 2)");
}

/// Whether [`append`] or [`guard`] refused, or another instance has taken the position in the log.
pub(super) fn is_fenced(fault: &Fault) -> bool {
    refused_null(fault, "'log'")
        || refused_null(fault, "'epoch'")
        || matches!(fault, Fault::Server { code, text, .. }
            if *code == code::DUPLICATE && text.contains("resource_log"))
}

/// Fails unless the membership still has the database exclusively, in its epoch. For transactions of an adoption or
/// a revert, which change the row of `resource_server` anyway and append nothing to a log.
pub(super) fn guard(sql: &mut Sql, membership: Membership) {
    sql.push("UPDATE resource_server SET epoch = IF(");
    is_alone(sql, membership);
    sql.push(", epoch, NULL) WHERE id = 1");
}

/// The condition on the row of `resource_server` that the membership has the database exclusively.
pub(super) fn is_alone(sql: &mut Sql, membership: Membership) {
    sql.push("owner <=> ").bytes(&membership.id);
    sql.push(" AND epoch <=> ");
    sql.or_null(membership.epoch, |sql, epoch| sql.number(epoch));
}

/// Fails unless the membership is the one that takes over from `dead`; for a transaction that begins with
/// [`append`]. It changes the dead instance's row, so it can be certified only where nobody else has changed
/// that row since, at any server: no other instance has taken over meanwhile.
pub(super) fn guard_take_over(membership: Membership, dead: &InstanceId) -> Sql {
    let mut sql = Sql::new("UPDATE resource_instance SET heartbeat = heartbeat + 1 WHERE ");
    is_taken_over(&mut sql, membership, dead);
    sql.push("; ");
    sql.push(require_taken_over(membership, dead).as_str());
    sql
}

/// Fails unless the row of `dead` says that the membership takes over from it.
pub(super) fn require_taken_over(membership: Membership, dead: &InstanceId) -> Sql {
    let mut sql = Sql::new(
        "UPDATE resource_server SET floor = IF((SELECT COUNT(*) FROM resource_instance WHERE ",
    );
    is_taken_over(&mut sql, membership, dead);
    sql.push(") = 1, floor, NULL) WHERE id = 1");
    sql
}

fn is_taken_over(sql: &mut Sql, membership: Membership, dead: &InstanceId) {
    sql.push("id = ").bytes(dead);
    sql.push(" AND state = 3 AND executor = ")
        .bytes(&membership.id);
}

/// Fails unless all of these resources exist, in the same way as [`append`]; for a transaction that begins with
/// it. (Foreign keys would do the same, but adopted tables have none, and may have rows that contradict them.)
pub(super) fn guard_existence(membership: Membership, ids: &[&ResourceId]) -> Sql {
    let mut sql = Sql::new(
        "UPDATE resource_instance SET state = IF((SELECT COUNT(*) FROM resource WHERE id IN (",
    );
    sql.list(ids, |sql, id| sql.text(id.as_str()));
    sql.push(")) = ").number(ids.len() as u64);
    sql.push(", state, NULL) WHERE id = ").bytes(&membership.id);
    sql
}

/// Fails, in the same way, unless the log has exactly `rows` rows up to the number `up_to`.
pub(super) fn guard_log(membership: Membership, log: &LogId, up_to: u64, rows: u64) -> Sql {
    let mut sql = Sql::new(
        "UPDATE resource_instance SET heartbeat = IF((SELECT COUNT(*) FROM resource_log WHERE log = ",
    );
    sql.bytes(log).push(" AND n <= ").number(up_to);
    sql.push(") = ").number(rows);
    sql.push(", heartbeat, NULL) WHERE id = ")
        .bytes(&membership.id);
    sql
}

/// Whether another instance was first: [`require_taken_over`] refused, or another guard that sets `floor` to
/// `NULL`.
pub(super) fn is_outrun(fault: &Fault) -> bool {
    refused_null(fault, "'floor'")
}

/// The error for a transaction that a guard refused; `None`: it failed for another reason.
pub(super) fn refusal(fault: &Fault) -> Option<StoreError> {
    let unavailable = |text: &str| Some(StoreError::Unavailable(text.to_owned()));
    if is_fenced(fault) {
        return Some(StoreError::Standby);
    }
    // See `slots::giving`: the slot's owner is not this instance.
    if refused_null(fault, "'owner'") {
        return unavailable("a slot that is to be given away belongs to another instance");
    }
    // See `guard_existence`.
    if refused_null(fault, "'state'") {
        let text = "it has rows of a resource that does not exist";
        return Some(StoreError::Rejected(text.to_owned()));
    }
    // See `guard_log`.
    if refused_null(fault, "'heartbeat'") {
        return unavailable("a log has other rows than were written and read; none is deleted");
    }
    None
}

/// Whether any guard refused, by a `NULL` in a column that does not allow it.
pub(super) fn is_refusal(fault: &Fault) -> bool {
    fault.is(code::NULL_IN_NOT_NULL)
}

fn refused_null(fault: &Fault, column: &str) -> bool {
    matches!(fault, Fault::Server { code, text, .. }
        if *code == code::NULL_IN_NOT_NULL && text.contains(column))
}
