//! Whose each slot of names is: `resource_slot`, and the transactions that change it.
//!
//! A slot changes hands by a transaction of its owner, which gives it, or of whoever has taken over from its owner: that one
//! is fenced by then, and what its log had to say is in the tables. Each of these is a transaction of the instance that acts,
//! so it is fenced by that one's own log; and each changes the one row of `resource_server`, whose `epoch` is the version of
//! the map. What an instance commits does not touch that row.
//!
//! Taking over is three steps, each of which may be the last of an instance that dies then; another one goes on:
//!
//! 1. the dead one's row is marked with who takes over from it, and its log is sealed ([`marking`]): nothing of it lands
//!    afterwards, and what is read next, where that was done, has everything that it was told;
//! 2. what its log says is written to the tables, in portions, each in a transaction that fails unless the mark is still
//!    there, and changes it ([`fence::guard_take_over`]);
//! 3. its slots become ours, and its row and its log are gone ([`ending`]).

use std::sync::Arc;

use super::commit;
use super::error::Fault;
use super::fence::{self, LogPlace, TakenOut};
use super::instance;
use super::rows::Columns;
use super::schema::{self, InstanceRow, ServerRow};
use super::script::{Form, Script};
use super::session::Session;
use super::sql::Sql;
use crate::store::members::{SLOTS, Slot};
use crate::store::{InstanceId, StoreError, journal};

/// Of a transaction that somebody else's may stand in the way of for longer than this can wait: then nothing was done.
const TRIES: u32 = 5;

const OWNED: Form = Form::upsert(
    "INSERT INTO resource_slot (slot, owner) VALUES ",
    " ON DUPLICATE KEY UPDATE owner = VALUES(owner)",
);

/// Owners of all slots by their numbers, and the rows as they are then or later.
pub(super) async fn look(session: &mut Session) -> Result<(Arc<[InstanceId]>, ServerRow), Fault> {
    let sql = Sql::new("SELECT slot, owner FROM resource_slot ORDER BY slot; ");
    let (mut sets, row) = schema::run_and_read(session, sql).await?;
    let mut owners = Vec::with_capacity(SLOTS);
    for row in sets.pop().unwrap_or_default() {
        let mut columns = Columns::of(row);
        let slot: usize = columns.take()?;
        if slot == owners.len() {
            owners.push(columns.instance_id()?);
        }
    }
    let row = row.filter(|_| owners.len() == SLOTS);
    let row = row.ok_or_else(|| Fault::Away("rows of resource_slot are gone".into()))?;
    Ok((owners.into(), row))
}

/// The database, which was ours alone and is ready, is shared from now on; everything is ours at first. Nobody is left whose
/// log has anything to say.
pub(super) fn sharing(place: LogPlace) -> Result<Script, Fault> {
    let tenure = place.tenure;
    let mut script = Script::begin(place, journal::EMPTY)?;
    script.rows(&OWNED, Slot::all(), |sql, slot| {
        sql.push("(").number(slot.number() as u64);
        sql.push(",").bytes(&tenure.id).push(")");
    })?;
    let mut sql = Sql::new("UPDATE resource_server SET epoch = IF(");
    fence::is_alone(&mut sql, tenure);
    sql.push(
        ", epoch + 1, NULL), owner = NULL, floor = GREATEST(floor, \
         (SELECT COALESCE(MAX(floor), 0) FROM resource_instance WHERE id <> ",
    );
    sql.bytes(&tenure.id).push(")) WHERE id = 1");
    script.statement(sql)?;
    let mut sql = Sql::new("DELETE FROM resource_instance WHERE id <> ");
    sql.bytes(&tenure.id);
    script.statement(sql)?;
    end(script)
}

/// The database is ours alone, in the epoch that this makes, if all names are ours and there is no other instance.
pub(super) fn having_alone(place: LogPlace) -> Result<Script, Fault> {
    let me = &place.tenure.id;
    let mut script = Script::begin(place, journal::EMPTY)?;
    let mut sql = Sql::new(
        "UPDATE resource_server SET floor = IF(owner IS NULL AND (SELECT COUNT(*) FROM resource_instance) = 1 \
         AND (SELECT COUNT(*) FROM resource_slot WHERE owner = ",
    );
    sql.bytes(me).push(") = ").number(SLOTS as u64);
    sql.push(", floor, NULL), epoch = epoch + 1, owner = ")
        .bytes(me);
    sql.push(" WHERE id = 1");
    script.statement(sql)?;
    end(script)
}

/// Slots of ours become another's, if that one takes any.
pub(super) fn giving(place: LogPlace, slots: &[Slot], to: &InstanceId) -> Result<Script, Fault> {
    let mut script = Script::begin(place, journal::EMPTY)?;
    script.statement(version_if(("state = 1 AND id", to), 1))?;
    let mut sql = Sql::new("UPDATE resource_slot SET owner = IF(owner = ");
    sql.bytes(&place.tenure.id).push(", ").bytes(to);
    sql.push(", NULL) WHERE slot IN (");
    for (at, slot) in slots.iter().enumerate() {
        sql.push(if at > 0 { "," } else { "" });
        sql.number(slot.number() as u64);
    }
    sql.push(")");
    script.statement(sql)?;
    script.tries = TRIES;
    end(script)
}

/// What is somebody's of whom nobody knows any more becomes ours.
pub(super) fn finding(place: LogPlace, unknown: &InstanceId) -> Result<Script, Fault> {
    let mut script = Script::begin(place, journal::EMPTY)?;
    script.statement(version_if(("id", unknown), 0))?;
    inherit(&mut script, place, unknown)?;
    script.tries = TRIES;
    end(script)
}

/// The first step. Answers with the number of the seal, and with the heartbeat that the dead one then has.
pub(super) fn marking(place: LogPlace, dead: &InstanceRow) -> Result<Script, Fault> {
    let tenure = place.tenure;
    let mut script = Script::begin(place, journal::EMPTY)?;
    let mut sql = Sql::new("UPDATE resource_instance SET executor = ");
    sql.bytes(&tenure.id);
    sql.push(", state = 3, heartbeat = heartbeat + 1 WHERE id = ")
        .bytes(&dead.id);
    sql.push(" AND log = ").bytes(&dead.log);
    sql.push(" AND state = ").number(dead.state);
    sql.push(" AND heartbeat = ").number(dead.heartbeat);
    sql.push(" AND executor <=> ");
    sql.or_null(dead.executor.as_ref(), |sql, executor| {
        sql.bytes(executor);
    });
    script.statement(sql)?;
    let mut sql = Sql::default();
    fence::require_taken_over(&mut sql, tenure, &dead.id);
    script.statement(sql)?;
    // Again, if it is sealed: two rows of one number cannot both be certified, so what is read next is all there is.
    let mut sql = Sql::default();
    instance::seal(&mut sql, &dead.log);
    script.statement(sql)?;
    let mut sql = Sql::new("SELECT MAX(n), (SELECT heartbeat FROM resource_instance WHERE id = ");
    sql.bytes(&dead.id).push(") FROM resource_log WHERE log = ");
    sql.bytes(&dead.log);
    script.statement(sql)?;
    script.tries = TRIES;
    script.commit();
    Ok(script)
}

/// The last step. `left`: of its log.
pub(super) fn ending(
    place: LogPlace,
    dead: &InstanceRow,
    left: &TakenOut,
) -> Result<Script, Fault> {
    let mut script = Script::begin(place, journal::EMPTY)?;
    let mut sql = Sql::default();
    fence::guard_take_over(&mut sql, place.tenure, &dead.id);
    script.statement(sql)?;
    commit::take_out(&mut script, place, left)?;
    let mut sql = Sql::new("UPDATE resource_server SET epoch = epoch + 1");
    instance::fold_floor(&mut sql, &dead.id);
    sql.push(" WHERE id = 1");
    script.statement(sql)?;
    inherit(&mut script, place, &dead.id)?;
    let mut sql = Sql::new("DELETE FROM resource_instance WHERE id = ");
    sql.bytes(&dead.id);
    script.statement(sql)?;
    end(script)
}

/// Another version of the map, unless the instances of which this says that it is this one are not so many.
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

fn inherit(script: &mut Script, place: LogPlace, from: &InstanceId) -> Result<(), StoreError> {
    let mut sql = Sql::new("UPDATE resource_slot SET owner = ");
    sql.bytes(&place.tenure.id)
        .push(" WHERE owner = ")
        .bytes(from);
    script.statement(sql)
}

/// Answers with the version of the map that this makes.
fn end(mut script: Script) -> Result<Script, Fault> {
    script.statement(Sql::new(instance::EPOCH))?;
    script.commit();
    Ok(script)
}
