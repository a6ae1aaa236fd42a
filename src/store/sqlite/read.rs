//! Rows back into types. A row that no type can hold (someone edited the file) is an error, never a guess.

use bytes::Bytes;
use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Connection, Error, OptionalExtension, Params, Result, Row};

use super::super::snapshot::ResourceId;
use super::super::{
    ListOrder, ListQuery, ListedHolder, ListedResource, StoreError, StoredData, StoredResource,
    ended,
};
use super::error::unread;
use super::ring;
use crate::lock::rows::{EndedRow, HeadRow, HolderRow, KeyRow, LockRows, TicketRow};
use crate::lock::{FencingToken, IdempotencyKey, Owner, ResourceName, Seconds, Selector, Ticket};

/// The highest token that any deleted resource reached.
pub(super) fn floor(db: &Connection) -> Result<FencingToken> {
    Ok(FencingToken(meta(db, "floor")?.unwrap_or_default()))
}

/// A number that the server keeps about itself.
fn meta(db: &Connection, key: &str) -> Result<Option<u64>> {
    let mut statement = db.prepare_cached("SELECT value FROM server_meta WHERE key = ?1")?;
    let value = statement.query_row([key], |row| parsed(row, 0, |text| text.parse().ok()));
    value.optional()
}

/// See [`super::Store::load`].
pub(super) fn resource(
    connection: &mut Connection,
    name: &ResourceName,
) -> std::result::Result<Option<StoredResource>, StoreError> {
    in_one_view(connection, |db| stored_resource(db, name))
}

/// See [`super::Store::load_data`].
pub(super) fn data(
    connection: &mut Connection,
    id: &ResourceId,
    selector: &Selector,
) -> std::result::Result<Option<StoredData>, StoreError> {
    in_one_view(connection, |db| stored_data(db, id, selector))
}

/// See [`super::Store::list`].
pub(super) fn list(
    connection: &mut Connection,
    query: &ListQuery,
) -> std::result::Result<Vec<ListedResource>, StoreError> {
    in_one_view(connection, |db| match query.order {
        ListOrder::Name => listed(db, query, ListPart::All, query.limit),
        ListOrder::Waiting => two_parts(db, query, ListPart::Waited, ListPart::Unwaited),
        ListOrder::Held => two_parts(db, query, ListPart::Held, ListPart::Free),
    })
}

/// All statements of `reading` see the same commit.
fn in_one_view<T>(
    connection: &mut Connection,
    reading: impl FnOnce(&Connection) -> Result<T>,
) -> std::result::Result<T, StoreError> {
    let read = || {
        let transaction = connection.transaction()?;
        let value = reading(&transaction)?;
        transaction.commit()?;
        Ok(value)
    };
    read().map_err(unread)
}

fn stored_resource(db: &Connection, name: &ResourceName) -> Result<Option<StoredResource>> {
    let sql = "SELECT l.ticket, l.seq, l.owner, l.ttl, l.attempt, l.attempt_ttl, l.acquired_at, \
               l.token, r.nr, r.id, r.timeout \
               FROM resource r JOIN resource_lock l ON l.resource = r.nr WHERE r.name = ?1";
    let found = db.prepare_cached(sql)?.query_row([name.as_str()], |row| {
        let id = parsed(row, 9, |id| Some(ResourceId::new(id)))?;
        Ok((head(row)?, row.get::<_, i64>(8)?, id, seconds(row, 10)?))
    });
    let Some((head, nr, id, timeout)) = found.optional()? else {
        return Ok(None);
    };
    let sql = "SELECT ticket, seq, owner, ttl, attempt, attempt_ttl \
               FROM resource_ticket WHERE resource = ?1";
    let waiting = all(db, sql, [nr], ticket_row)?;
    let sql = "SELECT n, entries FROM resource_ended_tickets WHERE resource = ?1";
    let ended = all(db, sql, [nr], ended_run)?;
    let selectors = "SELECT count(*) FROM resource_data WHERE id_resource = ?1";
    Ok(Some(StoredResource {
        selectors: db
            .prepare_cached(selectors)?
            .query_row([id.as_str()], |row| count(row, 0))?,
        id,
        timeout,
        lock: LockRows {
            head,
            waiting,
            ended: ended::newest(ended.concat()),
        },
    }))
}

fn stored_data(
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

/// Which resources a statement lists, and in which order.
#[derive(Clone, Copy)]
enum ListPart {
    /// By name.
    All,
    /// Those with waiting tickets, most of them first.
    Waited,
    /// The others, by name.
    Unwaited,
    /// Those with a holder, longest held first.
    Held,
    /// The others, by name.
    Free,
}

/// The part that has an order of its own, then as much of the rest as there is room for: the rest is never
/// sorted, its order is that of the index on the name.
fn two_parts(
    db: &Connection,
    query: &ListQuery,
    first: ListPart,
    rest: ListPart,
) -> Result<Vec<ListedResource>> {
    let mut found = listed(db, query, first, query.limit)?;
    let room = query.limit.saturating_sub(found.len());
    if room > 0 {
        found.extend(listed(db, query, rest, room)?);
    }
    Ok(found)
}

fn listed(
    db: &Connection,
    query: &ListQuery,
    part: ListPart,
    limit: usize,
) -> Result<Vec<ListedResource>> {
    let sql = list_sql(query, part);
    let after = query
        .name_after()
        .filter(|after| *after >= query.prefix.as_str());
    let from = after.unwrap_or(&query.prefix);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    all(db, &sql, (from, query.prefix_end(), limit), listed_row)
}

/// `CROSS JOIN` keeps SQLite from choosing another order of the tables than the one written.
fn list_sql(query: &ListQuery, part: ListPart) -> String {
    let from = match part {
        ListPart::All | ListPart::Unwaited | ListPart::Free => {
            "resource r CROSS JOIN resource_lock l ON l.resource = r.nr"
        }
        ListPart::Held => "resource_lock l CROSS JOIN resource r ON r.nr = l.resource",
        ListPart::Waited => {
            "(SELECT resource, count(*) AS waiting FROM resource_ticket GROUP BY resource) w \
             CROSS JOIN resource r ON r.nr = w.resource \
             CROSS JOIN resource_lock l ON l.resource = w.resource"
        }
    };
    let after = query
        .name_after()
        .is_some_and(|a| a >= query.prefix.as_str());
    let from_name = if after { "r.name > ?1" } else { "r.name >= ?1" };
    let to_name = match query.prefix_end() {
        Some(_) => "r.name < ?2",
        None => "?2 IS NULL",
    };
    let held = match query.held {
        Some(true) => "l.ticket IS NOT NULL",
        Some(false) => "l.ticket IS NULL",
        None => "TRUE",
    };
    let within = match part {
        ListPart::All | ListPart::Waited => "TRUE",
        ListPart::Unwaited => {
            "NOT EXISTS (SELECT 1 FROM resource_ticket t WHERE t.resource = r.nr)"
        }
        ListPart::Held => "l.ticket IS NOT NULL",
        ListPart::Free => "l.ticket IS NULL",
    };
    let order = match part {
        ListPart::All | ListPart::Unwaited | ListPart::Free => "r.name",
        ListPart::Waited => "w.waiting DESC, r.name",
        ListPart::Held => "l.acquired_at, r.name",
    };
    format!(
        "SELECT r.name, r.id, r.timeout, l.ticket IS NOT NULL, l.owner, l.acquired_at, l.token, \
         l.ttl, (SELECT count(*) FROM resource_ticket t WHERE t.resource = r.nr), \
         (SELECT count(*) FROM resource_data d WHERE d.id_resource = r.id) \
         FROM {from} WHERE {from_name} AND {to_name} AND {held} AND {within} \
         ORDER BY {order} LIMIT ?3"
    )
}

fn listed_row(row: &Row<'_>) -> Result<ListedResource> {
    let held: bool = row.get(3)?;
    let holder = match held {
        false => None,
        true => Some(ListedHolder {
            owner: optional(row, 4, |text| Owner::parse(text).ok())?,
            acquired_at: unsigned(row, 5)?,
            token: FencingToken(unsigned(row, 6)?),
            ttl: optional_seconds(row, 7)?,
        }),
    };
    Ok(ListedResource {
        name: parsed(row, 0, |text| ResourceName::parse(text).ok())?,
        id: parsed(row, 1, |text| Some(ResourceId::new(text)))?,
        timeout: seconds(row, 2)?,
        holder,
        waiting: count(row, 8)?,
        selectors: count(row, 9)?,
    })
}

/// Columns: those of [`ticket_row`], 6 `acquired_at`, 7 `token`.
fn head(row: &Row<'_>) -> Result<HeadRow> {
    let held = row.get_ref(0)?.data_type() != Type::Null;
    let holder = match held {
        false => None,
        true => Some(Box::new(HolderRow {
            ticket: ticket_row(row)?,
            acquired_at: unsigned(row, 6)?,
        })),
    };
    Ok(HeadRow {
        token: FencingToken(unsigned(row, 7)?),
        holder,
    })
}

/// Columns: 0 `ticket`, 1 `seq`, 2 `owner`, 3 `ttl`, 4 `attempt`, 5 `attempt_ttl`.
fn ticket_row(row: &Row<'_>) -> Result<TicketRow> {
    let attempt_ttl = optional_seconds(row, 5)?;
    let key = optional(row, 4, IdempotencyKey::parse)?;
    Ok(TicketRow {
        ticket: ticket(row)?,
        seq: unsigned(row, 1)?,
        owner: optional(row, 2, |text| Owner::parse(text).ok())?,
        ttl: optional_seconds(row, 3)?,
        key: key.map(|key| KeyRow {
            key,
            ttl: attempt_ttl,
        }),
    })
}

/// Columns: 0 `n`, 1 `entries`.
fn ended_run(row: &Row<'_>) -> Result<Vec<EndedRow>> {
    let odd = |error| Error::FromSqlConversionFailure(1, Type::Blob, Box::new(error));
    let entries = row.get_ref(1)?.as_blob().map_err(odd)?;
    let rows = ended::rows(unsigned(row, 0)?, entries);
    rows.ok_or_else(|| odd(FromSqlError::InvalidType))
}

/// The rows of the journal that have something to say, in their order.
pub(super) fn journal(db: &Connection) -> Result<Vec<Vec<u8>>> {
    let done = meta(db, "journal_done")?.unwrap_or_default();
    let sql = "SELECT changes FROM resource_journal WHERE n > ?1 ORDER BY n";
    all(db, sql, [done.cast_signed()], |row| {
        let odd = |error| Error::FromSqlConversionFailure(0, Type::Blob, Box::new(error));
        let stored = row.get_ref(0)?.as_blob().map_err(odd)?;
        let changes = ring::unfilled(stored).ok_or_else(|| odd(FromSqlError::InvalidType))?;
        Ok(changes.to_vec())
    })
}

/// Whether the journal has any rows, with something to say or not.
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

fn ticket(row: &Row<'_>) -> Result<Ticket> {
    let bytes: [u8; 16] = row.get(0)?;
    Ok(Ticket::from_bits(u128::from_be_bytes(bytes)))
}

fn unsigned(row: &Row<'_>, column: usize) -> Result<u64> {
    row.get(column).map(i64::cast_unsigned)
}

fn count(row: &Row<'_>, column: usize) -> Result<usize> {
    let value: i64 = row.get(column)?;
    usize::try_from(value).map_err(|_| Error::IntegralValueOutOfRange(column, value))
}

fn seconds(row: &Row<'_>, column: usize) -> Result<Seconds> {
    let value: i64 = row.get(column)?;
    Seconds::new(value).ok_or(Error::IntegralValueOutOfRange(column, value))
}

fn optional_seconds(row: &Row<'_>, column: usize) -> Result<Option<Seconds>> {
    match row.get_ref(column)?.data_type() {
        Type::Null => Ok(None),
        _ => seconds(row, column).map(Some),
    }
}

fn parsed<T>(row: &Row<'_>, column: usize, parse: fn(&str) -> Option<T>) -> Result<T> {
    let value = row.get_ref(column)?;
    let refused =
        |error| Error::FromSqlConversionFailure(column, value.data_type(), Box::new(error));
    let text = value.as_str().map_err(refused)?;
    parse(text).ok_or_else(|| refused(FromSqlError::InvalidType))
}

fn optional<T>(row: &Row<'_>, column: usize, parse: fn(&str) -> Option<T>) -> Result<Option<T>> {
    match row.get_ref(column)?.data_type() {
        Type::Null => Ok(None),
        _ => parsed(row, column, parse).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::away;
    use super::super::schema;
    use super::*;

    fn plan(query: &ListQuery, part: ListPart) -> String {
        let mut db = Connection::open_in_memory().unwrap();
        schema::migrate(&mut db, away).unwrap();
        let sql = format!("EXPLAIN QUERY PLAN {}", list_sql(query, part));
        let mut statement = db.prepare(&sql).unwrap();
        let values = (&query.prefix, query.prefix_end(), 100);
        let steps = statement.query_map(values, |row| row.get::<_, String>("detail"));
        steps
            .unwrap()
            .collect::<Result<Vec<_>>>()
            .unwrap()
            .join("\n")
    }

    #[test]
    fn a_listing_by_name_walks_the_index_on_names_and_sorts_nothing() {
        for (prefix, after, range) in [
            ("", None, "(name>?)"),
            ("shop:", None, "(name>? AND name<?)"),
            ("shop:", Some("shop:7"), "(name>? AND name<?)"),
        ] {
            let query = ListQuery {
                prefix: prefix.to_owned(),
                after: after.map(str::to_owned),
                ..ListQuery::default()
            };
            for part in [ListPart::All, ListPart::Unwaited, ListPart::Free] {
                let plan = plan(&query, part);
                let search = "SEARCH r USING INDEX sqlite_autoindex_resource_2";
                assert!(plan.starts_with(&format!("{search} {range}")), "{plan}");
                assert!(!plan.contains("TEMP B-TREE"), "{plan}");
                assert!(!plan.contains("SCAN"), "{plan}");
            }
        }
    }
}
