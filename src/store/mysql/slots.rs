//! The owner of each slot of names (`resource_slot`), and the transactions that change it.
//!
//! A slot's owner changes by a transaction of the owner itself, which gives the slot away, or of an instance
//! that has taken over from the owner. Each is fenced by the log of the instance that acts, and changes the one
//! row of `resource_server`, whose `epoch` is the version of the slot map; ordinary commits do not touch that row.
//!
//! Taking over has three steps. If the instance dies after any of them, another one goes on:
//!
//! 1. It marks the dead one's row with its own id and seals the dead one's log ([`marking`]). Nothing of the
//!    dead one can be committed afterwards, and what is read next on that connection has everything that was
//!    acknowledged to it.
//! 2. It writes the changes in that log to the tables, in several transactions ([`fence::guard_take_over`]).
//! 3. It becomes the owner of the slots, and deletes the dead one's row and log ([`ending`]).

use std::sync::Arc;

use super::commit;
use super::error::Fault;
use super::fence::{self, LogPlace};
use super::instance;
use super::rows;
use super::schema::{self, InstanceRow, ServerRow};
use super::script::{Form, Script};
use super::session::Session;
use super::sql::Sql;
use crate::store::members::{SLOTS, Slot};
use crate::store::{InstanceId, journal};

/// How often a transaction is tried that another instance's may block for longer than this one can wait; after
/// that it counts as not done.
const TRIES: u32 = 5;

const OWNED: Form = [
    "INSERT INTO resource_slot (slot, owner) VALUES ",
    ",",
    " ON DUPLICATE KEY UPDATE owner = VALUES(owner)",
];

/// Reads the owner of every slot, in the order of slot numbers, and the rows as of the same time or later.
pub(super) async fn read_owners(
    session: &mut Session,
) -> Result<(Arc<[InstanceId]>, ServerRow), Fault> {
    let sql = Sql::new("SELECT slot, owner FROM resource_slot ORDER BY slot; ");
    let (mut sets, row) = schema::run_and_read(session, sql).await?;
    let mut owners = Vec::with_capacity(SLOTS);
    for (slot, owner) in rows::all::<(usize, InstanceId)>(sets.pop().unwrap_or_default())? {
        if slot == owners.len() {
            owners.push(owner);
        }
    }
    let row = row.filter(|_| owners.len() == SLOTS);
    let row = row.ok_or_else(|| Fault::Away("rows of resource_slot are missing".into()))?;
    Ok((owners.into(), row))
}

/// Shares a database that is ready and that this instance had exclusively. All slots are ours at first. The
/// rows of all other instances are deleted: their logs are replayed by now.
pub(super) fn sharing(place: LogPlace) -> Result<Script, Fault> {
    let membership = place.membership;
    let mut script = Script::begin(place, journal::EMPTY)?;
    script.rows(OWNED, Slot::all(), |sql, slot| {
        sql.push("(").number(slot.number() as u64);
        sql.push(",").bytes(&membership.id).push(")")
    })?;
    let mut sql = Sql::new("UPDATE resource_server SET epoch = IF(");
    fence::is_alone(&mut sql, membership);
    sql.push(
        ", epoch + 1, NULL), owner = NULL, floor = GREATEST(floor, \
         (SELECT COALESCE(MAX(floor), 0) FROM resource_instance WHERE id <> ",
    );
    sql.bytes(&membership.id).push(")) WHERE id = 1");
    script.statement(sql)?;
    let mut sql = Sql::new("DELETE FROM resource_instance WHERE id <> ");
    sql.bytes(&membership.id);
    script.statement(sql)?;
    script.statement(Sql::new(instance::EPOCH))?;
    script.commit();
    Ok(script)
}

/// Makes the database exclusively ours, in a new epoch; fails unless all slots are ours and there is no other
/// instance.
pub(super) fn making_exclusive(place: LogPlace) -> Result<Script, Fault> {
    let me = &place.membership.id;
    let mut sql = Sql::new(
        "UPDATE resource_server SET floor = IF(owner IS NULL AND (SELECT COUNT(*) FROM resource_instance) = 1 \
         AND (SELECT COUNT(*) FROM resource_slot WHERE owner = ",
    );
    sql.bytes(me).push(") = ").number(SLOTS as u64);
    sql.push(", floor, NULL), epoch = epoch + 1, owner = ")
        .bytes(me);
    sql.push(" WHERE id = 1");
    Script::of(place, [sql, Sql::new(instance::EPOCH)])
}

/// Gives slots of ours to another instance; fails unless that one takes any (`state` 1).
pub(super) fn giving(place: LogPlace, slots: &[Slot], to: &InstanceId) -> Result<Script, Fault> {
    let version = version_if(("state = 1 AND id", to), 1);
    let mut sql = Sql::new("UPDATE resource_slot SET owner = IF(owner = ");
    sql.bytes(&place.membership.id).push(", ").bytes(to);
    sql.push(", NULL) WHERE slot IN (");
    sql.list(slots, |sql, slot| sql.number(slot.number() as u64));
    sql.push(")");
    tried(place, [version, sql, Sql::new(instance::EPOCH)])
}

/// Takes the slots of an instance that has no row any more.
pub(super) fn finding(place: LogPlace, unknown: &InstanceId) -> Result<Script, Fault> {
    let version = version_if(("id", unknown), 0);
    let slots = inherit(place, unknown);
    tried(place, [version, slots, Sql::new(instance::EPOCH)])
}

/// The first step. Its last answer has the number of the seal, and the heartbeat that the dead one's row then
/// has.
pub(super) fn marking(place: LogPlace, dead: &InstanceRow) -> Result<Script, Fault> {
    let me = &place.membership.id;
    let mut mark = Sql::new("UPDATE resource_instance SET executor = ");
    mark.bytes(me);
    mark.push(", state = 3, heartbeat = heartbeat + 1 WHERE id = ")
        .bytes(&dead.id);
    mark.push(" AND log = ").bytes(&dead.log);
    mark.push(" AND state = ").number(dead.state);
    mark.push(" AND heartbeat = ").number(dead.heartbeat);
    mark.push(" AND executor <=> ");
    mark.or_null(dead.executor.as_ref(), |sql, id| sql.bytes(id));
    let is_marked = fence::require_taken_over(place.membership, &dead.id);
    // Also if it is sealed already: two rows with one number cannot both be certified, so what is read next is
    // complete.
    let mut seal = Sql::default();
    instance::seal(&mut seal, &dead.log);
    let mut read = Sql::new("SELECT MAX(n), (SELECT heartbeat FROM resource_instance WHERE id = ");
    read.bytes(&dead.id)
        .push(") FROM resource_log WHERE log = ");
    read.bytes(&dead.log);
    tried(place, [mark, is_marked, seal, read])
}

/// The last step. Also deletes what is left of the dead one's log; see [`commit::truncate`].
pub(super) fn ending(
    place: LogPlace,
    dead: &InstanceRow,
    up_to: u64,
    rows: u64,
) -> Result<Script, Fault> {
    let guard = fence::guard_take_over(place.membership, &dead.id);
    let [log_guard, log] = commit::truncate(&dead.log, up_to, rows, place);
    let mut version = Sql::new("UPDATE resource_server SET epoch = epoch + 1");
    instance::fold_floor(&mut version, &dead.id);
    version.push(" WHERE id = 1");
    let slots = inherit(place, &dead.id);
    let mut row = Sql::new("DELETE FROM resource_instance WHERE id = ");
    row.bytes(&dead.id);
    let epoch = Sql::new(instance::EPOCH);
    Script::of(place, [guard, log_guard, log, version, slots, row, epoch])
}

/// Makes the next version of the slot map; fails unless `count` rows of `resource_instance` have `what = id`.
fn version_if((what, id): (&str, &InstanceId), count: u64) -> Sql {
    let mut sql = Sql::new(
        "UPDATE resource_server SET floor = IF((SELECT COUNT(*) FROM resource_instance WHERE ",
    );
    sql.push(what)
        .push(" = ")
        .bytes(id)
        .push(") = ")
        .number(count);
    sql.push(", floor, NULL), epoch = epoch + 1 WHERE id = 1");
    sql
}

/// Makes all slots of `from` ours.
fn inherit(place: LogPlace, from: &InstanceId) -> Sql {
    let mut sql = Sql::new("UPDATE resource_slot SET owner = ");
    sql.bytes(&place.membership.id)
        .push(" WHERE owner = ")
        .bytes(from);
    sql
}

/// A transaction that is tried [`TRIES`] times.
fn tried(place: LogPlace, statements: impl IntoIterator<Item = Sql>) -> Result<Script, Fault> {
    let mut script = Script::of(place, statements)?;
    script.tries = TRIES;
    Ok(script)
}
