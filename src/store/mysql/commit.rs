//! The SQL of transactions: the rows of a batch, of a checkpoint, and what else an instance writes.

use std::collections::BTreeMap;

use super::error::Fault;
use super::fence::{self, LogId, LogPlace};
use super::read;
use super::script::{Form, SPARE_BYTES, STATEMENT_ROWS, Script};
use super::session::Session;
use super::sql::{self, Sql};
use crate::lock::rows::{HeadRow, TicketRow};
use crate::lock::{FencingToken, Ticket, Ttl};
use crate::store::columns::ticket_columns;
use crate::store::journal::{self, Journal, JournalEntry};
use crate::store::members::SLOTS;
use crate::store::snapshot::{LockChanges, Snapshot, StoredData};
use crate::store::{InstanceId, ResourceId, StoreError, ended};

/// How many rows of a log one transaction deletes at most: few, because commits wait meanwhile.
pub(super) const TRUNCATION_MAX: usize = 512;

/// Each commit has rows of its own, because InnoDB logs once what is inserted, and twice what is overwritten.
pub(super) fn new_journal() -> Journal {
    Journal::of_commits(64 << 10, TRUNCATION_MAX as u64)
}

/// Bytes for the rest of a statement that writes a document: its id, resource and selector, each at most 255
/// characters and escaped.
const DOCUMENT_SPARE_BYTES: usize = 8 << 10;

/// Whether a statement that writes this document fits into a packet.
pub(super) fn fits(json: &[u8], packet_bytes_max: usize) -> bool {
    let room = packet_bytes_max.saturating_sub(SPARE_BYTES + DOCUMENT_SPARE_BYTES);
    // Escaping at most doubles the text, so most documents need not be scanned.
    json.len().saturating_mul(2) <= room || sql::text_bytes(json) <= room
}

/// The beginnings of the statements that delete resources; the ids follow.
const REMOVED: [&str; 2] = ["DELETE FROM resource WHERE id IN (", NO_OPTIONS];
/// The same for the lock rows and documents of resources that may have some.
const REMOVED_ROWS: [&str; 5] = [
    "DELETE FROM resource_data WHERE id_resource IN (",
    "DELETE FROM resource_lock WHERE id_resource IN (",
    "DELETE FROM resource_waiting WHERE id_resource IN (",
    "DELETE FROM resource_holding WHERE id_resource IN (",
    "DELETE FROM resource_ended_tickets WHERE id_resource IN (",
];
const NO_OPTIONS: &str = "DELETE FROM resource_options WHERE id_resource IN (";
/// Without `ON DUPLICATE KEY`: must fail if the table has a row of this name that this instance does not know
/// of.
const CREATED: Form = ["INSERT INTO resource (id, name, timeout) VALUES ", ",", ""];
/// Updates the [`ticket_columns`] of a row that is there already.
macro_rules! updated_ticket {
    () => {
        " ON DUPLICATE KEY UPDATE ticket = VALUES(ticket), seq = VALUES(seq), owner = VALUES(owner), \
         ttl_ms = VALUES(ttl_ms), mode = VALUES(mode), reason = VALUES(reason), queued_at = VALUES(queued_at), \
         attempt = VALUES(attempt), attempt_ttl_ms = VALUES(attempt_ttl_ms), attempt_mode = VALUES(attempt_mode)"
    };
}
const HEADS: Form = [
    concat!(
        "INSERT INTO resource_lock (id_resource, token, is_delayed, ",
        ticket_columns!(),
        ", acquired_at, lease_token) VALUES "
    ),
    ",",
    concat!(
        updated_ticket!(),
        ", token = VALUES(token), is_delayed = VALUES(is_delayed), acquired_at = VALUES(acquired_at), \
         lease_token = VALUES(lease_token)"
    ),
];
const NOT_WAITING: Form = ["DELETE FROM resource_waiting WHERE ", " OR ", ""];
const WAITING: Form = [
    concat!(
        "INSERT INTO resource_waiting (id_resource, ",
        ticket_columns!(),
        ") VALUES "
    ),
    ",",
    updated_ticket!(),
];
const NOT_HOLDING: Form = ["DELETE FROM resource_holding WHERE ", " OR ", ""];
const HOLDING: Form = [
    concat!(
        "INSERT INTO resource_holding (id_resource, ",
        ticket_columns!(),
        ", acquired_at, token) VALUES "
    ),
    ",",
    concat!(
        updated_ticket!(),
        ", acquired_at = VALUES(acquired_at), token = VALUES(token)"
    ),
];
const OPTIONS: Form = [
    "INSERT INTO resource_options (id_resource, slots, lock_delay, ephemeral) VALUES ",
    ",",
    " ON DUPLICATE KEY UPDATE slots = VALUES(slots), lock_delay = VALUES(lock_delay), \
     ephemeral = VALUES(ephemeral)",
];
/// A replay after a crash may write a run again, and a shorter one if a part of the log was deleted by then.
/// Runs that end with the same number have the same end, so the longer one is kept.
const ENDED: Form = [
    "INSERT INTO resource_ended_tickets (id_resource, n, entries) VALUES ",
    ",",
    " ON DUPLICATE KEY UPDATE entries = IF(LENGTH(VALUES(entries)) > LENGTH(entries), VALUES(entries), entries)",
];
const OUTLIVED: Form = ["DELETE FROM resource_ended_tickets WHERE ", " OR ", ""];
const LOG: Form = [
    "INSERT INTO resource_log (log, n, changes) VALUES ",
    ",",
    "",
];
const HISTORY: Form = [
    "INSERT INTO resource_history (name, leases) VALUES ",
    ",",
    " ON DUPLICATE KEY UPDATE leases = VALUES(leases)",
];
const NO_DATA: Form = ["DELETE FROM resource_data WHERE ", " OR ", ""];
/// If another document has the row's id, the statement fails (`id` cannot be `NULL`) instead of overwriting
/// that document.
const DATA: Form = [
    "INSERT INTO resource_data (id, id_resource, selector, locked, data) VALUES ",
    ",",
    " ON DUPLICATE KEY UPDATE id = IF(id_resource = VALUES(id_resource) \
     AND selector_bytes = CAST(VALUES(selector) AS BINARY), id, NULL), data = VALUES(data)",
];

/// The transaction that stores a batch.
///
/// # Errors
/// [`StoreError::Rejected`]: something in it can never be sent.
pub(super) fn script(entry: &JournalEntry<'_>, place: LogPlace) -> Result<Script, Fault> {
    let first = entry.rows.first();
    let changes = first.map_or(journal::EMPTY, |(_, changes)| changes);
    if !entry.changes_tables() && entry.must_exist.is_empty() && entry.rows.len() <= 1 {
        let script = Script::log_row(place, changes);
        if script.packets[0].len() + SPARE_BYTES <= place.packet_bytes_max {
            return Ok(script);
        }
    }
    let mut script = Script::begin(place, changes)?;
    for ids in entry.must_exist.chunks(STATEMENT_ROWS) {
        script.statement(fence::guard_existence(place.membership, ids))?;
    }
    removals(&mut script, place, entry)?;
    creations(&mut script, entry.batch)?;
    data_rows(&mut script, entry.batch)?;
    script.rows(LOG, entry.rows.iter().skip(1), |sql, (n, changes)| {
        sql.push("(").bytes(&place.membership.log);
        sql.push(",").number(*n);
        sql.push(",").bytes(changes).push(")")
    })?;
    script.commit();
    Ok(script)
}

/// The transaction of a step of a checkpoint that writes lock rows: those of the resources that still exist.
/// `of`: the dead instance in whose log they were, in a take-over.
pub(super) async fn checkpoint_script(
    session: &mut Session,
    mut locks: Vec<(&ResourceId, &LockChanges)>,
    of: Option<&InstanceId>,
    place: LogPlace,
) -> Result<Script, Fault> {
    let existing = read::existing(session, locks.iter().map(|(id, _)| *id)).await?;
    locks.retain(|(id, _)| existing.contains(*id));
    let mut script = Script::begin(place, journal::EMPTY)?;
    if let Some(dead) = of {
        script.statement(fence::guard_take_over(place.membership, dead))?;
    }
    lock_rows(&mut script, &locks)?;
    script.commit();
    Ok(script)
}

/// The transaction of a step of a checkpoint that truncates a log; see [`truncate`]. `of`: as above.
pub(super) fn truncation_script(
    log: &LogId,
    up_to: u64,
    rows: u64,
    of: Option<&InstanceId>,
    place: LogPlace,
) -> Result<Script, Fault> {
    let guard = of.map(|dead| fence::guard_take_over(place.membership, dead));
    let truncate = truncate(log, up_to, rows, place);
    Script::of(place, guard.into_iter().chain(truncate))
}

/// Deletes the rows of a log up to the number `up_to`, whose changes are in the tables. The transaction fails
/// unless they are `rows`: it would delete rows that nobody has read.
pub(super) fn truncate(log: &LogId, up_to: u64, rows: u64, place: LogPlace) -> [Sql; 2] {
    let mut sql = Sql::new("DELETE FROM resource_log WHERE log = ");
    sql.bytes(log).push(" AND n <= ").number(up_to);
    let guard = fence::guard_log(place.membership, log, up_to, rows);
    [guard, sql]
}

/// The transaction that replaces the past leases of these names, given as the bytes of the name and the value.
pub(super) fn history_script(rows: &[(&[u8], Vec<u8>)], place: LogPlace) -> Result<Script, Fault> {
    let mut script = Script::begin(place, journal::EMPTY)?;
    script.rows(HISTORY, rows.iter(), |sql, (name, leases)| {
        sql.push("(").bytes(name);
        sql.push(",").bytes(leases).push(")")
    })?;
    script.commit();
    Ok(script)
}

/// The transaction of [`super::Store::leave`].
pub(super) fn leaving_script(place: LogPlace) -> Result<Script, Fault> {
    let mut sql = Sql::new("UPDATE resource_instance SET state = 2 WHERE id = ");
    sql.bytes(&place.membership.id);
    Script::of(place, [sql])
}

/// The transaction of [`super::Store::raise_tokens`]. It raises the tokens of the names that this instance
/// owns: the owners of the other names know which tokens they gave out.
pub(super) fn raising_script(above: FencingToken, place: LogPlace) -> Result<Script, Fault> {
    let mut sql = Sql::new("INSERT INTO resource_lock (id_resource, token) SELECT r.id, ");
    sql.number(above.0);
    sql.push(" FROM resource r JOIN resource_slot s ON s.slot = CRC32(r.name_bytes) % ");
    sql.number(SLOTS as u64).push(" WHERE s.owner = ");
    sql.bytes(&place.membership.id);
    sql.push(" ON DUPLICATE KEY UPDATE resource_lock.token = GREATEST(resource_lock.token, ");
    sql.number(above.0).push(")");
    Script::of(place, [raise_floor(place, above), sql])
}

fn removals(
    script: &mut Script,
    place: LogPlace,
    entry: &JournalEntry<'_>,
) -> Result<(), StoreError> {
    let mut delete = |head, with_rows_only: bool| {
        let removed = entry.removed.iter();
        let ids = removed.filter(|(_, has_rows)| *has_rows || !with_rows_only);
        script.rows([head, ",", ")"], ids, |sql, (id, _)| sql.text(id.as_str()))
    };
    for head in REMOVED {
        delete(head, false)?;
    }
    for head in REMOVED_ROWS {
        delete(head, true)?;
    }
    match entry.batch.iter().filter_map(|s| s.token_floor).max() {
        Some(token_floor) => script.statement(raise_floor(place, token_floor)),
        None => Ok(()),
    }
}

/// Raises the token floor in the instance's own row: if all instances wrote one row, their commits would wait
/// for each other.
fn raise_floor(place: LogPlace, floor: FencingToken) -> Sql {
    let mut sql = Sql::new("UPDATE resource_instance SET floor = GREATEST(floor, ");
    sql.number(floor.0)
        .push(") WHERE id = ")
        .bytes(&place.membership.id);
    sql
}

fn creations(script: &mut Script, batch: &[Snapshot]) -> Result<(), StoreError> {
    let created = batch.iter().filter_map(|s| Some((s, s.created?)));
    script.rows(CREATED, created, |sql, (snapshot, options)| {
        sql.push("(").text(snapshot.id.as_str());
        sql.push(",").text(snapshot.name.as_str());
        sql.push(",").number(options.timeout.get()).push(")")
    })?;
    options_rows(script, batch)
}

fn options_rows(script: &mut Script, batch: &[Snapshot]) -> Result<(), StoreError> {
    for snapshot in batch {
        if let Some(options) = snapshot.options {
            let mut sql = Sql::new("UPDATE resource SET timeout = ");
            sql.number(options.timeout.get()).push(" WHERE id = ");
            sql.text(snapshot.id.as_str());
            script.statement(sql)?;
        }
    }
    let changed = || batch.iter().filter_map(|s| Some((s, s.options?)));
    let created = batch.iter().filter_map(|s| Some((s, s.created?)));
    let plain = changed().filter(|(_, options)| options.is_plain());
    let plain_ids = [NO_OPTIONS, ",", ")"];
    script.rows(plain_ids, plain, |sql, (s, _)| sql.text(s.id.as_str()))?;
    let special = created.chain(changed()).filter(|(_, o)| !o.is_plain());
    script.rows(OPTIONS, special, |sql, (snapshot, options)| {
        sql.push("(").text(snapshot.id.as_str());
        sql.push(",").number(options.slots);
        sql.push(",").number(options.lock_delay);
        sql.push(",").number(u8::from(options.ephemeral)).push(")")
    })
}

fn lock_rows(script: &mut Script, locks: &[(&ResourceId, &LockChanges)]) -> Result<(), StoreError> {
    let heads = locks
        .iter()
        .filter_map(|(id, lock)| Some((id, lock.head.as_ref()?)));
    script.rows(HEADS, heads, |sql, (id, head)| head_row(sql, id, head))?;
    let holding = locks.iter().map(|(id, lock)| (*id, &lock.holding));
    gone_rows(script, NOT_HOLDING, "ticket", holding, ticket_bits)?;
    let holding = locks
        .iter()
        .flat_map(|(id, lock)| lock.holding.values().flatten().map(move |row| (id, row)));
    script.rows(HOLDING, holding, |sql, (id, row)| {
        sql.push("(").text(id.as_str()).push(",");
        ticket_row(sql, &row.ticket);
        sql.push(",").number(row.acquired_at);
        sql.push(",").number(row.token.0).push(")")
    })?;
    let waiting = locks.iter().map(|(id, lock)| (*id, &lock.waiting));
    gone_rows(script, NOT_WAITING, "ticket", waiting, ticket_bits)?;
    let waiting = locks
        .iter()
        .flat_map(|(id, lock)| lock.waiting.values().flatten().map(move |row| (id, row)));
    script.rows(WAITING, waiting, |sql, (id, row)| {
        sql.push("(").text(id.as_str()).push(",");
        ticket_row(sql, row).push(")")
    })?;
    ended_rows(script, locks)
}

fn ended_rows(
    script: &mut Script,
    locks: &[(&ResourceId, &LockChanges)],
) -> Result<(), StoreError> {
    let mut runs = Vec::new();
    for (id, lock) in locks {
        let ended = ended::runs(&lock.ended)?.into_iter();
        runs.extend(ended.map(|(n, entries)| (id, n, entries)));
    }
    script.rows(ENDED, runs.iter(), |sql, (id, n, entries)| {
        sql.push("(").text(id.as_str());
        sql.push(",").number(*n);
        sql.push(",").bytes(entries).push(")")
    })?;
    let outlived = runs
        .iter()
        .filter_map(|(id, n, _)| Some((id, ended::outlived_by(*n)?)));
    script.rows(OUTLIVED, outlived, |sql, (id, n)| {
        sql.push("(id_resource=").text(id.as_str());
        sql.push(" AND n<=").number(n).push(")")
    })
}

fn data_rows(script: &mut Script, batch: &[Snapshot]) -> Result<(), StoreError> {
    let data = batch.iter().map(|snapshot| (&snapshot.id, &snapshot.data));
    gone_rows(script, NO_DATA, "selector_bytes", data, |sql, selector| {
        sql.bytes(selector.as_str().as_bytes())
    })?;
    let mut written = Vec::new();
    for snapshot in batch {
        for (selector, row) in &snapshot.data {
            if let Some(row) = row {
                written.push((snapshot, selector, row, json_text(snapshot, row)?));
            }
        }
    }
    script.rows(
        DATA,
        written.iter(),
        |sql, (snapshot, selector, row, json)| {
            sql.push("(").text(&row.id);
            sql.push(",").text(snapshot.id.as_str());
            sql.push(",").text(selector.as_str());
            sql.push(",0,").text(json).push(")")
        },
    )
}

/// The document as text. The server would change or refuse bytes that are not UTF-8.
fn json_text<'a>(snapshot: &Snapshot, row: &'a StoredData) -> Result<&'a str, StoreError> {
    std::str::from_utf8(&row.json).map_err(|error| {
        StoreError::Rejected(format!("data of {:?} is not UTF-8: {error}", snapshot.name))
    })
}

/// How many keys one `IN` list has at most.
const GROUP: usize = 200;

/// Deletes the rows that are `None` in each resource's map; `column` holds the map's keys. Each resource has a
/// condition of its own, which is one range of the primary key: MariaDB finds no range in an `IN` of pairs.
fn gone_rows<'a, K: 'a, R: 'a>(
    script: &mut Script,
    form: Form,
    column: &str,
    rows: impl Iterator<Item = (&'a ResourceId, &'a BTreeMap<K, Option<R>>)>,
    write: impl for<'s> Fn(&'s mut Sql, &K) -> &'s mut Sql,
) -> Result<(), StoreError> {
    let gone = rows.map(|(id, rows)| {
        let gone = rows.iter().filter(|(_, row)| row.is_none());
        (id, gone.map(|(key, _)| key).collect::<Vec<_>>())
    });
    let gone: Vec<_> = gone.filter(|(_, keys)| !keys.is_empty()).collect();
    let groups = gone
        .iter()
        .flat_map(|(id, keys)| keys.chunks(GROUP).map(move |group| (id, group)));
    script.rows(form, groups, |sql, (id, keys)| {
        sql.push("(id_resource=").text(id.as_str());
        sql.push(" AND ").push(column).push(" IN (");
        sql.list(keys, |sql, key| write(sql, key)).push("))")
    })
}

fn head_row<'s>(sql: &'s mut Sql, id: &ResourceId, head: &HeadRow) -> &'s mut Sql {
    sql.push("(").text(id.as_str());
    sql.push(",").number(head.token.0);
    sql.push(",").number(u8::from(head.delayed)).push(",");
    match &head.holder {
        Some(holder) => {
            ticket_row(sql, &holder.ticket);
            sql.push(",").number(holder.acquired_at).push(",");
            let lease_token = Some(holder.token).filter(|token| *token != head.token);
            sql.or_null(lease_token, |sql, token| sql.number(token.0));
            sql.push(")")
        }
        None => sql.push("NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL)"),
    }
}

fn ticket_bits<'s>(sql: &'s mut Sql, ticket: &Ticket) -> &'s mut Sql {
    sql.bytes(&ticket.bits().to_be_bytes())
}

/// The values of [`ticket_columns`].
fn ticket_row<'s>(sql: &'s mut Sql, row: &TicketRow) -> &'s mut Sql {
    let key = row.key.as_ref();
    ticket_bits(sql, &row.ticket).push(",");
    sql.number(row.seq).push(",");
    sql.or_null(row.owner.as_ref(), |sql, owner| sql.text(owner.as_str()));
    sql.push(",").or_null(row.ttl, ttl_ms);
    sql.push(",").number(row.mode.number()).push(",");
    sql.or_null(row.reason.as_ref(), |sql, reason| sql.text(reason.as_str()));
    sql.push(",")
        .or_null(row.queued_at, |sql, at| sql.number(at));
    sql.push(",")
        .or_null(key, |sql, key| sql.text(key.key.as_str()));
    sql.push(",").or_null(key.and_then(|key| key.ttl), ttl_ms);
    sql.push(",")
        .or_null(key, |sql, key| sql.number(key.mode.number()))
}

fn ttl_ms(sql: &mut Sql, ttl: Ttl) -> &mut Sql {
    sql.number(ttl.millis())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::lock::{ResourceName, Selector};
    use crate::store::mysql::fence::Membership;

    const PLACE: LogPlace = LogPlace {
        membership: Membership {
            epoch: None,
            id: [1; 16],
            log: [2; 16],
        },
        n: 9,
        packet_bytes_max: 64 << 10,
    };

    /// A change that writes this document under the longest names that are possible.
    fn written(json: &[u8]) -> Snapshot {
        let longest = "\u{10ffff}".repeat(255);
        let name = ResourceName::parse(&longest).unwrap();
        let mut snapshot = Snapshot::empty(name, ResourceId::new(&"'".repeat(255)));
        let row = StoredData {
            id: "'".repeat(255),
            json: Bytes::copy_from_slice(json),
        };
        let selector = Selector::parse(&"'\u{10ffff}".repeat(127)).unwrap();
        snapshot.data.insert(selector, Some(row));
        snapshot
    }

    #[test]
    fn a_document_that_fits_can_be_sent() {
        const PACKET: usize = PLACE.packet_bytes_max;
        for piece in ["x", "\\\\", "'", "é"] {
            let longest = (0..PACKET / piece.len())
                .rev()
                .step_by(64)
                .map(|count| format!("\"{}\"", piece.repeat(count)))
                .find(|json| fits(json.as_bytes(), PACKET))
                .unwrap();
            let escaped = sql::text_bytes(longest.as_bytes());
            assert!(
                escaped > PACKET - 2 * DOCUMENT_SPARE_BYTES,
                "{piece}: {escaped}"
            );
            let journal = new_journal();
            let batch = [written(longest.as_bytes())];
            let entry = journal.enter(&batch).unwrap();
            let sent = script(&entry, PLACE);
            assert!(sent.is_ok(), "{piece}: {sent:?}");
        }
    }
}
