//! The log that each instance writes, and what fences its transactions.

use super::error::{Fault, code};
use super::rows::Columns;
use super::sql::Sql;
use crate::store::{InstanceId, ResourceId, StoreError};

/// Names a log.
pub(super) type LogId = [u8; 16];

impl Columns {
    pub fn log_id(&mut self) -> Result<LogId, Fault> {
        self.instance_id()
    }

    pub fn instance_id(&mut self) -> Result<InstanceId, Fault> {
        let bytes: Vec<u8> = self.take()?;
        of_16_bytes(bytes)
    }

    pub fn instance_id_or_null(&mut self) -> Result<Option<InstanceId>, Fault> {
        let bytes: Option<Vec<u8>> = self.take()?;
        bytes.map(of_16_bytes).transpose()
    }
}

fn of_16_bytes(bytes: Vec<u8>) -> Result<[u8; 16], Fault> {
    let id = bytes.try_into();
    id.map_err(|_| Fault::Away("the id of an instance or a log has not 16 bytes".into()))
}

/// In which an instance takes part in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tenure {
    /// In which it has the database alone; `None`: it shares it.
    pub epoch: Option<u64>,
    pub id: InstanceId,
    /// Which log it writes, and nobody else ever.
    pub log: LogId,
}

/// Where the next transaction of a tenure stands in its log, and how large the packets may be that it is sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogPlace {
    pub tenure: Tenure,
    pub n: u64,
    pub packet_bytes_max: usize,
}

/// Rows of a log that have nothing to say any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct TakenOut {
    pub log: LogId,
    /// All up to this number.
    pub up_to: u64,
    /// How many these are. The transaction fails when the table has more or fewer: some would go that nobody
    /// has read.
    pub rows: u64,
}

/// Appends a row to the log of the tenure. Every transaction of an instance begins with it, most have nothing
/// else, and it is what fences them:
///
/// - it locks the instance's own row, and fails unless that says that the instance may write: whoever
///   takes over changes it, and so waits for a transaction that is under way;
/// - it takes the next position of the log, which whoever takes over takes instead with a seal. Where several
///   servers take writes the locks of one are nothing to the others, but two rows with one key cannot both be
///   certified. So the seal also proves that whoever seals has applied everything that was committed before;
/// - the row before it must be the last: a database that lost the end of the log takes no more of it.
///
/// It fails by `NULL` in a column that has none, so it needs no round trip of its own. See [`is_fenced`].
pub(super) fn append(sql: &mut Sql, place: LogPlace, changes: &[u8]) {
    sql.push("INSERT INTO resource_log (log, n, changes) SELECT IF(COUNT(*) = 1, ");
    sql.bytes(&place.tenure.log).push(", NULL), ");
    sql.number(place.n).push(", ").bytes(changes);
    where_appendable(sql, place);
}

/// As [`append`], for a transaction that is nothing else: where that fails, this appends nothing. (A Galera node
/// tries a statement by itself again that was not certified, and then puts zeros in the place of a `NULL`.)
pub(super) fn append_alone(sql: &mut Sql, place: LogPlace, changes: &[u8]) {
    sql.push("INSERT INTO resource_log (log, n, changes) SELECT ");
    sql.bytes(&place.tenure.log).push(", ");
    sql.number(place.n).push(", ").bytes(changes);
    where_appendable(sql, place);
}

fn where_appendable(sql: &mut Sql, place: LogPlace) {
    let LogPlace { tenure, n, .. } = place;
    sql.push(" FROM resource_instance WHERE id = ");
    sql.bytes(&tenure.id).push(" AND log = ").bytes(&tenure.log);
    sql.push(" AND state IN (1, 2) AND (SELECT MAX(n) FROM resource_log WHERE log = ");
    sql.bytes(&tenure.log).push(") = ");
    sql.number(n.saturating_sub(1)).push(" FOR UPDATE");
}

/// Whether [`append`] refused, or somebody else took the position in the log meanwhile.
pub(super) fn is_fenced(fault: &Fault) -> bool {
    refused_null(fault, "'log'")
        || refused_null(fault, "'epoch'")
        || matches!(fault, Fault::Server { code, text, .. }
            if *code == code::DUPLICATE && text.contains("resource_log"))
}

/// What makes a change of the row of `resource_server` one of this epoch: it fails unless the epoch is still
/// the writer's. For transactions that change that row anyway, before there is a log to write.
pub(super) fn guard(sql: &mut Sql, tenure: Tenure) {
    sql.push("UPDATE resource_server SET epoch = IF(");
    is_alone(sql, tenure);
    sql.push(", epoch, NULL) WHERE id = 1");
}

/// The condition on the row of `resource_server` that the tenure has the database alone.
pub(super) fn is_alone(sql: &mut Sql, tenure: Tenure) {
    sql.push("owner <=> ").bytes(&tenure.id);
    sql.push(" AND epoch <=> ");
    sql.or_null(tenure.epoch, |sql, epoch| {
        sql.number(epoch);
    });
}

/// Fails unless the tenure is the one that takes over from `dead`; in a transaction that begins with [`append`]. It changes
/// the row of the dead one, and so can be certified only where that is known as it is: nobody else has taken over since,
/// on whatever server.
pub(super) fn guard_take_over(sql: &mut Sql, tenure: Tenure, dead: &InstanceId) {
    sql.push("UPDATE resource_instance SET heartbeat = heartbeat + 1 WHERE ");
    is_taken_over(sql, tenure, dead);
    sql.push("; ");
    require_taken_over(sql, tenure, dead);
}

/// Fails unless the row of `dead` says that the tenure takes over from it.
pub(super) fn require_taken_over(sql: &mut Sql, tenure: Tenure, dead: &InstanceId) {
    sql.push(
        "UPDATE resource_server SET floor = IF((SELECT COUNT(*) FROM resource_instance WHERE ",
    );
    is_taken_over(sql, tenure, dead);
    sql.push(") = 1, floor, NULL) WHERE id = 1");
}

fn is_taken_over(sql: &mut Sql, tenure: Tenure, dead: &InstanceId) {
    sql.push("id = ").bytes(dead);
    sql.push(" AND state = 3 AND executor = ").bytes(&tenure.id);
}

/// Fails unless all of these resources exist; in the same way as [`append`], in a transaction that begins with
/// it. (Foreign keys would say so too, but the PHP server's tables have none, and may have rows that would
/// contradict them.)
pub(super) fn guard_existence(sql: &mut Sql, tenure: Tenure, ids: &[&ResourceId]) {
    sql.push(
        "UPDATE resource_instance SET state = IF((SELECT COUNT(*) FROM resource WHERE id IN (",
    );
    for (place, id) in ids.iter().enumerate() {
        sql.push(if place > 0 { "," } else { "" });
        sql.text(id.as_str());
    }
    sql.push(")) = ").number(ids.len() as u64);
    sql.push(", state, NULL) WHERE id = ").bytes(&tenure.id);
}

/// Fails unless the log has this many rows up to this number; in the same way.
pub(super) fn guard_log(sql: &mut Sql, tenure: Tenure, taken_out: &TakenOut) {
    let TakenOut { log, up_to, rows } = taken_out;
    sql.push(
        "UPDATE resource_instance SET heartbeat = IF((SELECT COUNT(*) FROM resource_log WHERE log = ",
    );
    sql.bytes(log).push(" AND n <= ").number(*up_to);
    sql.push(") = ").number(*rows);
    sql.push(", heartbeat, NULL) WHERE id = ").bytes(&tenure.id);
}

/// Whether others were first: [`require_taken_over`] refused, or what else makes the floor `NULL`.
pub(super) fn is_outrun(fault: &Fault) -> bool {
    refused_null(fault, "'floor'")
}

/// What a guard of a transaction had to say, if it was one that failed.
pub(super) fn refusal(fault: &Fault) -> Option<StoreError> {
    let unavailable = |text: &str| Some(StoreError::Unavailable(text.to_owned()));
    if is_fenced(fault) {
        return Some(StoreError::Standby);
    }
    // The owner of a slot: it is another one than was thought.
    if refused_null(fault, "'owner'") {
        return unavailable("names that are to be given are another instance's");
    }
    // See `guard_existence`.
    if refused_null(fault, "'state'") {
        let text = "it has rows of a resource that does not exist";
        return Some(StoreError::Rejected(text.to_owned()));
    }
    // See `guard_log`.
    if refused_null(fault, "'heartbeat'") {
        return unavailable("a log has other rows than were written and read; none is taken out");
    }
    None
}

/// Whether a `NULL` that stands for a refusal was refused.
pub(super) fn is_refusal(fault: &Fault) -> bool {
    fault.is(code::NULL_IN_NOT_NULL)
}

fn refused_null(fault: &Fault, column: &str) -> bool {
    matches!(fault, Fault::Server { code, text, .. }
        if *code == code::NULL_IN_NOT_NULL && text.contains(column))
}
