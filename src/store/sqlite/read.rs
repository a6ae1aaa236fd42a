//! Reads rows into types. A value that does not fit its type (someone edited the file) is an error, never a
//! guess.

use std::time::Instant;

use bytes::Bytes;
use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Connection, Error, OptionalExtension, Params, Result, Row};

use super::super::columns::{self, ticket_columns};
use super::super::listing::{self, ListPart};
use super::super::snapshot::ResourceId;
use super::super::{
    DocumentSize, ListOrder, ListQuery, ListedResource, StoredData, StoredResource, ended,
};
use super::row_slots;
use crate::lock::rows::{EndedRow, HeadRow, HolderRow, KeyRow, LockRows, TicketRow};
use crate::lock::{
    FencingToken, IdempotencyKey, Mode, Owner, Reason, ResourceName, ResourceOptions, Seconds,
    Selector, Ticket, Ttl,
};
use crate::store::history::{self, PastLease};

/// The highest token that any deleted resource reached.
pub(super) fn token_floor(db: &Connection) -> Result<FencingToken> {
    meta(db, "floor").map(FencingToken)
}

/// A number in the table `server_meta`; 0 if it is not there.
fn meta(db: &Connection, key: &str) -> Result<u64> {
    let mut statement = db.prepare_cached("SELECT value FROM server_meta WHERE key = ?1")?;
    let value = statement.query_row([key], |row| parsed(row, 0, |text| text.parse().ok()));
    Ok(value.optional()?.unwrap_or_default())
}

/// See [`super::Store::document_sizes`].
pub(super) fn document_sizes(
    db: &Connection,
    id: &ResourceId,
    after: &str,
    limit: usize,
) -> Result<Vec<DocumentSize>> {
    // Only the head of a row is read, where the length is, and not the documents themselves.
    let sql = "SELECT selector, octet_length(data) FROM resource_data \
        WHERE id_resource = ?1 AND selector > ?2 ORDER BY selector LIMIT ?3";
    all(db, sql, (id.as_str(), after, limit as i64), |row| {
        Ok(DocumentSize {
            selector: parsed(row, 0, |text| Selector::parse(text).ok())?,
            bytes: unsigned(row, 1)?,
        })
    })
}

/// The past leases of a name, the oldest first.
pub(super) fn history(db: &Connection, name: &ResourceName) -> Result<Vec<PastLease>> {
    let mut find = db.prepare_cached("SELECT leases FROM resource_history WHERE name = ?1")?;
    let leases = find.query_row([name.as_str()], |row| row.get::<_, Vec<u8>>(0));
    let leases = leases.optional()?.map(|bytes| history::decode(&bytes));
    Ok(leases.unwrap_or_default())
}

/// See [`super::Store::list`].
pub(super) fn list(
    connection: &mut Connection,
    query: &ListQuery,
    deadline: Instant,
) -> Result<Vec<ListedResource>> {
    // Virtual machine instructions between two readings of the clock: a fraction of a millisecond.
    const CLOCK_INSTRUCTIONS: i32 = 10_000;
    let is_late = move || Instant::now() >= deadline;
    connection.progress_handler(CLOCK_INSTRUCTIONS, Some(is_late))?;
    // One transaction, so that all statements see the same commit.
    let view = connection.transaction();
    let found = view.and_then(|db| all_parts(&db, query));
    connection.progress_handler(0, None::<fn() -> bool>)?;
    found
}

/// The columns that [`head`] reads, then those that [`options`] reads.
macro_rules! head_and_options {
    () => {
        concat!(
            ticket_columns!(),
            ", acquired_at, coalesce(lease_token, token), token, delayed, ",
            "timeout, slots, lock_delay, ephemeral"
        )
    };
}

/// See [`super::Store::load`].
pub(super) fn resource(
    connection: &mut Connection,
    name: &ResourceName,
) -> Result<Option<StoredResource>> {
    // One transaction, so that all statements see the same commit.
    let db = connection.transaction()?;
    let sql = concat!(
        "SELECT ",
        head_and_options!(),
        ", r.nr, r.id FROM resource r JOIN resource_lock l ON l.resource = r.nr \
         LEFT JOIN resource_options o ON o.resource = r.nr WHERE r.name = ?1"
    );
    let found = db.prepare_cached(sql)?.query_row([name.as_str()], |row| {
        let id = parsed(row, 19, |id| Some(ResourceId::new(id)))?;
        Ok((head(row)?, row.get::<_, i64>(18)?, id, options(row, 14)?))
    });
    let Some((head, nr, id, options)) = found.optional()? else {
        return Ok(None);
    };
    let sql = concat!(
        "SELECT ",
        ticket_columns!(),
        " FROM resource_ticket WHERE resource = ?1"
    );
    let waiting = all(&db, sql, [nr], ticket_row)?;
    let sql = concat!(
        "SELECT ",
        ticket_columns!(),
        ", acquired_at, token FROM resource_holding WHERE resource = ?1"
    );
    let holding = all(&db, sql, [nr], holder_row)?;
    let sql = "SELECT n, entries FROM resource_ended_tickets WHERE resource = ?1";
    let ended = all(&db, sql, [nr], ended_run)?;
    let selectors = "SELECT count(*) FROM resource_data WHERE id_resource = ?1";
    Ok(Some(StoredResource {
        selectors: db
            .prepare_cached(selectors)?
            .query_row([id.as_str()], |row| count(row, 0))?,
        id,
        options,
        lock: LockRows {
            head,
            holding,
            waiting,
            ended: ended::newest(ended.concat()),
        },
    }))
}

/// See [`super::Store::load_data`].
pub(super) fn data(
    db: &Connection,
    id: &ResourceId,
    selector: &Selector,
) -> Result<Option<StoredData>> {
    let sql = "SELECT id, data FROM resource_data WHERE id_resource = ?1 AND selector = ?2";
    let mut statement = db.prepare_cached(sql)?;
    let found = statement.query_row([id.as_str(), selector.as_str()], |row| {
        Ok(StoredData {
            id: row.get(0)?,
            json: Bytes::copy_from_slice(row.get_ref(1)?.as_bytes()?),
        })
    });
    found.optional()
}

fn all_parts(db: &Connection, query: &ListQuery) -> Result<Vec<ListedResource>> {
    let mut few = None;
    for walk in listing::counted(query) {
        if few.is_none() && is_few(db, query, walk)? {
            few = Some(walk);
        }
    }
    let from = query.name_after().unwrap_or(&query.prefix);
    let mut found = Vec::new();
    for part in listing::parts(query, few) {
        let room = query.limit - found.len();
        if room > 0 {
            let values = (from, query.prefix_end(), room as i64);
            found.extend(all(db, &list_sql(query, part), values, listed_row)?);
        }
    }
    Ok(found)
}

const COUNT_HELD: &str = "SELECT count(*) FROM (SELECT 1 FROM resource_lock \
    INDEXED BY resource_lock_held WHERE ticket IS NOT NULL LIMIT ?1)";
const COUNT_NAMES: &str = "SELECT count(*) FROM (SELECT 1 FROM resource \
    WHERE name >= ?1 AND name < coalesce(?2, x'') LIMIT ?3)";

fn is_few(db: &Connection, query: &ListQuery, walk: ListOrder) -> Result<bool> {
    let up_to = listing::FEW as i64 + 1;
    let read = |row: &Row<'_>| count(row, 0);
    let count = match walk {
        ListOrder::Name => {
            let range = (query.prefix.as_str(), query.prefix_end(), up_to);
            db.prepare_cached(COUNT_NAMES)?.query_row(range, read)?
        }
        _ => db.prepare_cached(COUNT_HELD)?.query_row([up_to], read)?,
    };
    Ok(count <= listing::FEW)
}

/// The statement of one part. `CROSS JOIN` makes SQLite join the tables in the order written.
fn list_sql(query: &ListQuery, part: ListPart) -> String {
    let from = match part.walk {
        ListOrder::Name => "resource r CROSS JOIN resource_lock l ON l.resource = r.nr",
        ListOrder::Held => {
            "resource_lock l INDEXED BY resource_lock_held CROSS JOIN resource r ON r.nr = l.resource"
        }
        ListOrder::Waiting => {
            "(SELECT resource, count(*) AS waiting FROM resource_ticket GROUP BY resource) w \
             CROSS JOIN resource r ON r.nr = w.resource \
             CROSS JOIN resource_lock l ON l.resource = w.resource"
        }
    };
    let from_name = match query.name_after() {
        Some(_) => "r.name > ?1",
        None => "r.name >= ?1",
    };
    let to_name = match query.prefix_end() {
        Some(_) => "r.name < ?2",
        None => "?2 IS NULL",
    };
    let held = match part.held {
        Some(true) => "l.ticket IS NOT NULL",
        Some(false) => "l.ticket IS NULL",
        None => "TRUE",
    };
    let unwaited = match part.unwaited {
        true => "NOT EXISTS (SELECT 1 FROM resource_ticket t WHERE t.resource = r.nr)",
        false => "TRUE",
    };
    let order = match part.order {
        ListOrder::Name => "r.name",
        ListOrder::Waiting => "w.waiting DESC, r.name",
        ListOrder::Held => "l.acquired_at, r.name",
    };
    format!(
        "SELECT {}, r.name, r.id, \
         (SELECT count(*) FROM resource_ticket t WHERE t.resource = r.nr), \
         (SELECT count(*) FROM resource_data d WHERE d.id_resource = r.id) \
         FROM {from} LEFT JOIN resource_options o ON o.resource = r.nr \
         WHERE {from_name} AND {to_name} AND {held} AND {unwaited} ORDER BY {order} LIMIT ?3",
        head_and_options!()
    )
}

fn listed_row(row: &Row<'_>) -> Result<ListedResource> {
    Ok(ListedResource {
        holder: head(row)?.holder.map(|holder| *holder),
        options: options(row, 14)?,
        name: parsed(row, 18, |text| ResourceName::parse(text).ok())?,
        id: parsed(row, 19, |text| Some(ResourceId::new(text)))?,
        waiting: count(row, 20)?,
        selectors: count(row, 21)?,
    })
}

/// Columns from `first` on: `timeout`, `slots`, `lock_delay`, `ephemeral`.
fn options(row: &Row<'_>, first: usize) -> Result<ResourceOptions> {
    let timeout = number(row, first, Seconds::new)?.unwrap_or_default();
    let (slots, delay) = (row.get(first + 1)?, row.get(first + 2)?);
    Ok(columns::options(timeout, slots, delay, row.get(first + 3)?))
}

/// Columns: those of [`holder_row`], 12 `token`, 13 `delayed`.
fn head(row: &Row<'_>) -> Result<HeadRow> {
    let holder = match row.get_ref(0)?.data_type() {
        Type::Null => None,
        _ => Some(Box::new(holder_row(row)?)),
    };
    Ok(HeadRow {
        token: FencingToken(unsigned(row, 12)?),
        delayed: row.get(13)?,
        holder,
    })
}

/// Columns: those of [`ticket_row`], 10 `acquired_at`, 11 the token of the lease.
fn holder_row(row: &Row<'_>) -> Result<HolderRow> {
    Ok(HolderRow {
        ticket: ticket_row(row)?,
        token: FencingToken(unsigned(row, 11)?),
        acquired_at: unsigned(row, 10)?,
    })
}

/// Columns from 0 on: those of [`ticket_columns`].
fn ticket_row(row: &Row<'_>) -> Result<TicketRow> {
    let (ttl, asked_mode) = (optional_ttl(row, 8)?, mode(row, 9)?);
    let key = optional(row, 7, IdempotencyKey::parse)?;
    Ok(TicketRow {
        ticket: Ticket::from_bits(u128::from_be_bytes(row.get(0)?)),
        seq: unsigned(row, 1)?,
        owner: optional(row, 2, |text| Owner::parse(text).ok())?,
        ttl: optional_ttl(row, 3)?,
        mode: mode(row, 4)?,
        reason: optional(row, 5, |text| Reason::parse(text).ok())?,
        queued_at: number(row, 6, |at| Some(at.cast_unsigned()))?,
        key: key.map(|key| {
            Box::new(KeyRow {
                key,
                ttl,
                mode: asked_mode,
            })
        }),
    })
}

/// The mode of a ticket. `NULL`, in rows that version 2.0.0 wrote, is the default.
fn mode(row: &Row<'_>, column: usize) -> Result<Mode> {
    let mode = number(row, column, |mode| Mode::of_number(mode.try_into().ok()?));
    Ok(mode?.unwrap_or_default())
}

/// Columns: 0 `n`, 1 `entries`.
fn ended_run(row: &Row<'_>) -> Result<Vec<EndedRow>> {
    let rows = ended::rows(unsigned(row, 0)?, row.get_ref(1)?.as_blob()?);
    rows.ok_or_else(|| odd(1, Type::Blob))
}

/// The journal rows that are not checkpointed, in their order.
pub(super) fn journal(db: &Connection) -> Result<Vec<Vec<u8>>> {
    let done = meta(db, "journal_done")?;
    let sql = "SELECT changes FROM resource_journal WHERE n > ?1 ORDER BY n";
    all(db, sql, [done.cast_signed()], |row| {
        let changes = row_slots::unfilled(row.get_ref(0)?.as_blob()?);
        Ok(changes.ok_or_else(|| odd(0, Type::Blob))?.to_vec())
    })
}

/// Whether the journal table has any rows, checkpointed or not.
pub(super) fn has_journal(db: &Connection) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM resource_journal)";
    db.query_row(sql, [], |row| row.get(0))
}

fn all<T>(
    db: &Connection,
    sql: &str,
    values: impl Params,
    read: fn(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    db.prepare_cached(sql)?.query_map(values, read)?.collect()
}

fn unsigned(row: &Row<'_>, column: usize) -> Result<u64> {
    row.get(column).map(i64::cast_unsigned)
}

fn count(row: &Row<'_>, column: usize) -> Result<usize> {
    let count: u32 = row.get(column)?;
    Ok(count as usize)
}

fn optional_ttl(row: &Row<'_>, column: usize) -> Result<Option<Ttl>> {
    number(row, column, |ms| Ttl::from_millis(ms.cast_unsigned()))
}

/// Reads and parses a number; `None` for `NULL`.
fn number<T>(row: &Row<'_>, column: usize, parse: fn(i64) -> Option<T>) -> Result<Option<T>> {
    let value: Option<i64> = row.get(column)?;
    let odd = |value| Error::IntegralValueOutOfRange(column, value);
    let parsed = value.map(|value| parse(value).ok_or_else(|| odd(value)));
    parsed.transpose()
}

fn parsed<T>(row: &Row<'_>, column: usize, parse: fn(&str) -> Option<T>) -> Result<T> {
    optional(row, column, parse)?.ok_or_else(|| odd(column, Type::Null))
}

fn optional<T>(row: &Row<'_>, column: usize, parse: fn(&str) -> Option<T>) -> Result<Option<T>> {
    let text = row.get_ref(column)?.as_str_or_null()?;
    let parsed = text.map(|text| parse(text).ok_or_else(|| odd(column, Type::Text)));
    parsed.transpose()
}

/// The error for a value that this program never writes.
fn odd(column: usize, stored: Type) -> Error {
    Error::FromSqlConversionFailure(column, stored, Box::new(FromSqlError::InvalidType))
}

#[cfg(test)]
mod tests {
    use super::super::error::away;
    use super::super::schema;
    use super::*;

    fn plan_of(sql: &str, values: impl Params) -> String {
        let mut db = Connection::open_in_memory().unwrap();
        schema::migrate(&mut db, away).unwrap();
        let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = statement.query_map(values, |row| row.get::<_, String>("detail"));
        let steps: Result<Vec<_>> = steps.unwrap().collect();
        steps.unwrap().join("\n")
    }

    /// The plan of the last part of a listing.
    fn plan(order: ListOrder, held: Option<bool>, prefix: &str, after: Option<&str>) -> String {
        let query = ListQuery {
            prefix: prefix.to_owned(),
            after: after.map(str::to_owned),
            held,
            order,
            ..ListQuery::default()
        };
        let part = listing::parts(&query, None).pop().unwrap();
        let values = (prefix, query.prefix_end(), 100);
        plan_of(&list_sql(&query, part), values)
    }

    #[test]
    fn a_listing_by_name_walks_the_index_on_names_and_sorts_nothing() {
        for (prefix, after, range) in [
            ("", None, "(name>?)"),
            ("shop:", None, "(name>? AND name<?)"),
            ("shop:", Some("shop:7"), "(name>? AND name<?)"),
        ] {
            for (order, held) in [
                (ListOrder::Name, None),
                (ListOrder::Name, Some(false)),
                (ListOrder::Name, Some(true)),
                (ListOrder::Waiting, None),
            ] {
                let plan = plan(order, held, prefix, after);
                let search = "SEARCH r USING INDEX sqlite_autoindex_resource_2";
                assert!(plan.starts_with(&format!("{search} {range}")), "{plan}");
                assert!(!plan.contains("TEMP B-TREE"), "{plan}");
                assert!(!plan.contains("SCAN"), "{plan}");
            }
        }
    }

    #[test]
    fn the_longest_held_are_found_in_their_order_by_an_index() {
        for prefix in ["", "shop:"] {
            let plan = plan(ListOrder::Held, Some(true), prefix, None);
            let scan = "SCAN l USING INDEX resource_lock_held";
            assert!(plan.starts_with(scan), "{plan}");
            // Only locks of the same millisecond are sorted.
            let sort = "TEMP B-TREE FOR LAST TERM OF ORDER BY";
            assert!(plan.contains(sort), "{plan}");
            assert!(!plan.contains("SCAN r"), "{plan}");
        }
    }

    #[test]
    fn what_is_few_is_counted_by_an_index() {
        let plan = plan_of(COUNT_HELD, [1]);
        let scan = "SCAN resource_lock USING INDEX resource_lock_held";
        assert!(plan.contains(scan), "{plan}");
        let plan = plan_of(COUNT_NAMES, ("a", "b", 1));
        assert!(plan.contains("(name>? AND name<?)"), "{plan}");
    }
}
