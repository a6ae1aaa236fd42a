//! Reads while serving: a resource with its lock, a document, a page of a listing.

use std::collections::HashSet;

use mysql_async::Row;
use mysql_async::prelude::FromValue;

use super::error::Fault;
use super::rows::{self, Columns, Sets};
use super::session::Session;
use super::sql::Sql;
use crate::lock::rows::{EndedRow, HeadRow, HolderRow, KeyRow, LockRows, TicketRow};
use crate::lock::{
    FencingToken, IdempotencyKey, Mode, Owner, Reason, ResourceName, ResourceOptions, Seconds,
    Selector, Ticket, Ttl, WallMillis,
};
use crate::store::columns::{self, ticket_columns};
use crate::store::listing::{self, ListPart};
use crate::store::{
    DocumentSize, ListOrder, ListQuery, ListedResource, ResourceId, StoreError, StoredData,
    StoredResource, ended,
};

/// The error for a column with a value that this program never writes.
fn odd(what: &str) -> Fault {
    StoreError::Rejected(format!("a stored {what} cannot be read")).into()
}

impl Columns {
    fn id(&mut self) -> Result<ResourceId, Fault> {
        Ok(ResourceId::new(&self.take::<String>()?))
    }

    /// The PHP server accepted any integer, and `NULL`; what is out of our range counts as 0.
    fn timeout(&mut self) -> Result<Seconds, Fault> {
        let seconds: Option<i64> = self.take()?;
        Ok(seconds.and_then(Seconds::new).unwrap_or_default())
    }

    /// Takes the columns `timeout, slots, lock_delay, ephemeral`.
    fn options(&mut self) -> Result<ResourceOptions, Fault> {
        let (timeout, slots, lock_delay) = (self.timeout()?, self.take()?, self.take()?);
        Ok(columns::options(timeout, slots, lock_delay, self.take()?))
    }

    /// Takes and parses a column; `None` for `NULL`. `what` names the content in the error.
    fn parsed<C: FromValue, T>(
        &mut self,
        what: &str,
        parse: impl FnOnce(C) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let stored: Option<C> = self.take()?;
        let parsed = stored.map(|stored| parse(stored).ok_or_else(|| odd(what)));
        parsed.transpose()
    }

    fn ttl(&mut self) -> Result<Option<Ttl>, Fault> {
        self.parsed("ttl", Ttl::from_millis)
    }

    /// `NULL`, the default mode, in rows that version 2.0.0 wrote.
    fn mode(&mut self) -> Result<Mode, Fault> {
        let mode = self.parsed("mode", Mode::of_number)?;
        Ok(mode.unwrap_or_default())
    }

    /// Takes the columns of [`ticket_columns`]; `None` when they are all `NULL`.
    fn ticket_row(&mut self) -> Result<Option<TicketRow>, Fault> {
        let ticket = self.parsed("ticket", |bytes: Vec<u8>| {
            let bits = u128::from_be_bytes(bytes.try_into().ok()?);
            Some(Ticket::from_bits(bits))
        })?;
        let seq: Option<u64> = self.take()?;
        let owner = self.parsed("owner", |text: String| Owner::parse(&text).ok())?;
        let (ttl, mode) = (self.ttl()?, self.mode()?);
        let reason = self.parsed("reason", |text: String| Reason::parse(&text).ok())?;
        let queued_at: Option<WallMillis> = self.take()?;
        let key = self.parsed("idempotency key", |bytes: Vec<u8>| {
            IdempotencyKey::parse(std::str::from_utf8(&bytes).ok()?)
        })?;
        let (attempt_ttl, attempt_mode) = (self.ttl()?, self.mode()?);
        let key = key.map(|key| {
            Box::new(KeyRow {
                key,
                ttl: attempt_ttl,
                mode: attempt_mode,
            })
        });
        Ok(ticket.zip(seq).map(|(ticket, seq)| TicketRow {
            ticket,
            seq,
            owner,
            ttl,
            mode,
            reason,
            queued_at,
            key,
        }))
    }

    /// Takes `token, delayed`, the columns of [`Columns::ticket_row`], `acquired_at, lease_token`; all are
    /// `NULL` if the lock was never taken.
    fn head(&mut self) -> Result<HeadRow, Fault> {
        let token = FencingToken(self.take::<Option<u64>>()?.unwrap_or_default());
        let delayed: Option<bool> = self.take()?;
        let ticket = self.ticket_row()?;
        let acquired_at: Option<WallMillis> = self.take()?;
        let lease_token: Option<u64> = self.take()?;
        Ok(HeadRow {
            token,
            delayed: delayed.unwrap_or_default(),
            holder: ticket.map(|ticket| {
                Box::new(HolderRow {
                    ticket,
                    token: lease_token.map_or(token, FencingToken),
                    acquired_at: acquired_at.unwrap_or_default(),
                })
            }),
        })
    }
}

/// The columns that [`Columns::head`] takes.
const HEAD: &str = concat!(
    "token, is_delayed, ",
    ticket_columns!(),
    ", acquired_at, lease_token"
);
/// The columns that [`Columns::options`] takes.
const OPTIONS: &str = "r.timeout, o.slots, o.lock_delay, o.ephemeral";

/// Four SELECTs in one snapshot: the resource with its head row, the other leases, the waiting tickets, the
/// ended tickets.
pub(super) fn load_sql(name: &ResourceName) -> Sql {
    let mut sql = Sql::new(
        "START TRANSACTION WITH CONSISTENT SNAPSHOT; \
         SELECT r.id, (SELECT COUNT(*) FROM resource_data d WHERE d.id_resource = r.id), ",
    );
    sql.push(OPTIONS).push(", ").push(HEAD);
    sql.push(
        " FROM resource r LEFT JOIN resource_lock l ON l.id_resource = r.id \
         LEFT JOIN resource_options o ON o.id_resource = r.id WHERE r.name_bytes = ",
    );
    sql.bytes(name.as_str().as_bytes());
    for (columns, table) in [
        (
            concat!(ticket_columns!(), ", acquired_at, token"),
            "resource_holding",
        ),
        (ticket_columns!(), "resource_waiting"),
        ("n, entries", "resource_ended_tickets"),
    ] {
        sql.push("; SELECT ").push(columns);
        sql.push(" FROM resource r JOIN ").push(table);
        sql.push(" ON id_resource = r.id WHERE r.name_bytes = ");
        sql.bytes(name.as_str().as_bytes());
    }
    sql.push("; COMMIT");
    sql
}

/// Parses the answers to [`load_sql`]; `None`: there is no such resource.
pub(super) fn loaded(sets: Sets) -> Result<Option<StoredResource>, Fault> {
    let mut sets = sets.into_iter().skip(1);
    let mut next = || sets.next().unwrap_or_default();
    let (resource, holding, waiting, ended) = (next(), next(), next(), next());
    let Some(row) = resource.into_iter().next() else {
        return Ok(None);
    };
    let mut columns = Columns::of(row);
    Ok(Some(StoredResource {
        id: columns.id()?,
        selectors: columns.take()?,
        options: columns.options()?,
        lock: LockRows {
            head: columns.head()?,
            holding: holding.into_iter().map(holder).collect::<Result<_, _>>()?,
            waiting: waiting.into_iter().map(waiter).collect::<Result<_, _>>()?,
            ended: ended_rows(ended)?,
        },
    }))
}

fn holder(row: Row) -> Result<HolderRow, Fault> {
    let mut columns = Columns::of(row);
    let ticket = columns.ticket_row()?;
    Ok(HolderRow {
        ticket: ticket.ok_or_else(|| odd("holding ticket"))?,
        acquired_at: columns.take()?,
        token: FencingToken(columns.take()?),
    })
}

fn waiter(row: Row) -> Result<TicketRow, Fault> {
    let ticket = Columns::of(row).ticket_row()?;
    ticket.ok_or_else(|| odd("waiting ticket"))
}

fn ended_rows(runs: Vec<Row>) -> Result<Vec<EndedRow>, Fault> {
    let mut all = Vec::new();
    for (n, entries) in rows::all::<(u64, Vec<u8>)>(runs)? {
        all.extend(ended::rows(n, &entries).ok_or_else(|| odd("run of ended tickets"))?);
    }
    Ok(ended::newest(all))
}

/// Those of these resources that exist.
pub(super) async fn existing(
    session: &mut Session,
    ids: impl Iterator<Item = &ResourceId>,
) -> Result<HashSet<ResourceId>, Fault> {
    let mut sql = Sql::new("SELECT id FROM resource WHERE id IN (");
    sql.list(ids, |sql, id| sql.text(id.as_str()));
    let ids: Vec<String> = session.rows(sql.push(")").as_str()).await?;
    Ok(ids.iter().map(|id| ResourceId::new(id)).collect())
}

pub(super) fn data_sql(id: &ResourceId, selector: &Selector) -> Sql {
    let mut sql =
        Sql::new("SELECT id, data FROM resource_data WHERE data IS NOT NULL AND id_resource = ");
    sql.text(id.as_str()).push(" AND selector_bytes = ");
    sql.bytes(selector.as_str().as_bytes());
    sql
}

pub(super) fn data(sets: Sets) -> Result<Option<StoredData>, Fault> {
    let found = rows::all::<(String, Vec<u8>)>(sets.into_iter().flatten())?.pop();
    Ok(found.map(|(id, json)| StoredData {
        id,
        json: json.into(),
    }))
}

pub(super) fn document_sizes_sql(id: &ResourceId, after: &str, limit: usize) -> Sql {
    let mut sql = Sql::new(
        "SELECT selector, LENGTH(data) FROM resource_data WHERE data IS NOT NULL AND id_resource = ",
    );
    sql.text(id.as_str()).push(" AND selector_bytes > ");
    sql.bytes(after.as_bytes())
        .push(" ORDER BY selector_bytes LIMIT ");
    sql.number(limit as u64);
    sql
}

/// Parses an answer whose first column is a name or selector. `read` gets that column and the others, and
/// returns `None` for a row that no request can name: the PHP server accepted the empty name and the empty
/// selector. Those rows are left out. Also returns the name or selector in the last row, if there are `limit`
/// rows, so that more may follow.
fn page<T>(
    mut sets: Sets,
    limit: usize,
    read: impl Fn(&str, Columns) -> Result<Option<T>, Fault>,
) -> Result<(Vec<T>, Option<String>), Fault> {
    let rows = sets.pop().unwrap_or_default();
    let is_full = rows.len() == limit;
    let (mut items, mut last) = (Vec::new(), None);
    for row in rows {
        let mut columns = Columns::of(row);
        let text: String = columns.take()?;
        items.extend(read(&text, columns)?);
        last = Some(text);
    }
    Ok((items, last.filter(|_| is_full)))
}

/// Parses the answer to [`document_sizes_sql`], as [`page`] does.
pub(super) fn document_sizes(
    sets: Sets,
    limit: usize,
) -> Result<(Vec<DocumentSize>, Option<String>), Fault> {
    page(sets, limit, |text, mut columns| {
        let bytes = columns.take()?;
        let selector = Selector::parse(text).ok();
        Ok(selector.map(|selector| DocumentSize { selector, bytes }))
    })
}

/// Counts the names with the prefix, or the held locks, up to [`listing::FEW`] + 1.
pub(super) fn count_sql(query: &ListQuery, walk: ListOrder) -> Sql {
    let mut sql = Sql::new("SELECT COUNT(*) FROM (SELECT 1 FROM ");
    match walk {
        ListOrder::Name => push_range(sql.push("resource r WHERE "), query),
        _ => {
            sql.push("resource_lock FORCE INDEX (acquired_at) WHERE acquired_at IS NOT NULL");
        }
    }
    sql.push(" LIMIT ").number(listing::FEW as u64 + 1);
    sql.push(") few");
    sql
}

/// Whether [`count_sql`] counted no more than [`listing::FEW`] rows.
pub(super) fn is_few(sets: Sets) -> Result<bool, Fault> {
    Ok(rows::last::<usize>(sets)? <= listing::FEW)
}

/// The condition that a name is in the range of the query.
fn push_range(sql: &mut Sql, query: &ListQuery) {
    sql.push("r.name_bytes >= ").bytes(query.prefix.as_bytes());
    if let Some(end) = query.prefix_end() {
        sql.push(" AND r.name_bytes < ").bytes(end.as_bytes());
    }
    if let Some(after) = query.name_after() {
        sql.push(" AND r.name_bytes > ").bytes(after.as_bytes());
    }
}

/// Selects when the last lock of a page was acquired, for locks in the order of `acquired_at`. [`list_sql`]
/// uses it as a bound: without one the server would sort all held locks, because it can stop early only in the
/// order of one index. `NULL`: nothing is held.
pub(super) fn last_held_sql(query: &ListQuery) -> Sql {
    let mut sql = Sql::new("SELECT MAX(at) FROM (SELECT STRAIGHT_JOIN l.acquired_at AS at FROM ");
    push_walk(&mut sql, ListOrder::Held);
    sql.push(" WHERE l.acquired_at IS NOT NULL AND ");
    push_range(&mut sql, query);
    sql.push(" ORDER BY l.acquired_at LIMIT ");
    sql.number(query.limit as u64).push(") first");
    sql
}

/// One statement of a listing. Finding the resources is what takes long, so a subquery does that first, on
/// indexes alone where possible; `STRAIGHT_JOIN` keeps the server from choosing another order.
///
/// `last`: leaves out locks that were acquired later.
pub(super) fn list_sql(query: &ListQuery, part: ListPart, last: Option<WallMillis>) -> Sql {
    let mut sql = Sql::new(
        "SELECT STRAIGHT_JOIN r.name, r.id, \
         (SELECT COUNT(*) FROM resource_waiting w WHERE w.id_resource = r.id) AS places, \
         (SELECT COUNT(*) FROM resource_data d WHERE d.id_resource = r.id), ",
    );
    sql.push(OPTIONS).push(", ").push(HEAD).push(" FROM (");
    push_found(&mut sql, query, part, last);
    sql.push(
        ") found JOIN resource r ON r.id = found.id \
         LEFT JOIN resource_lock l ON l.id_resource = r.id \
         LEFT JOIN resource_options o ON o.id_resource = r.id ORDER BY ",
    );
    sql.push(order_by(part.order));
    sql
}

fn order_by(order: ListOrder) -> &'static str {
    match order {
        ListOrder::Name => "r.name_bytes",
        ListOrder::Waiting => "places DESC, r.name_bytes",
        ListOrder::Held => "l.acquired_at, r.name_bytes",
    }
}

/// The subquery that finds the ids of the resources.
fn push_found(sql: &mut Sql, query: &ListQuery, part: ListPart, last: Option<WallMillis>) {
    sql.push("SELECT STRAIGHT_JOIN r.id AS id FROM ");
    push_walk(sql, part.walk);
    sql.push(" WHERE ");
    push_range(sql, query);
    sql.push(match part.held {
        Some(true) => " AND l.acquired_at IS NOT NULL",
        Some(false) => " AND l.acquired_at IS NULL",
        None => "",
    });
    if part.unwaited {
        sql.push(" AND NOT EXISTS (SELECT 1 FROM resource_waiting w WHERE w.id_resource = r.id)");
    }
    if let Some(last) = last {
        sql.push(" AND l.acquired_at <= ").number(last);
    }
    sql.push(" ORDER BY ").push(order_by(part.order));
    sql.push(" LIMIT ").number(query.limit as u64);
}

fn push_walk(sql: &mut Sql, walk: ListOrder) {
    match walk {
        ListOrder::Name => sql.push(
            "resource r FORCE INDEX (name_bytes) LEFT JOIN resource_lock l ON l.id_resource = r.id",
        ),
        ListOrder::Held => sql.push(
            "resource_lock l FORCE INDEX (acquired_at) JOIN resource r ON r.id = l.id_resource",
        ),
        ListOrder::Waiting => sql.push(
            "(SELECT id_resource, COUNT(*) AS places FROM resource_waiting GROUP BY id_resource) q \
             JOIN resource r ON r.id = q.id_resource LEFT JOIN resource_lock l ON l.id_resource = r.id",
        ),
    };
}

/// Parses the answer to [`list_sql`], as [`page`] does.
pub(super) fn listed(
    sets: Sets,
    limit: usize,
) -> Result<(Vec<ListedResource>, Option<String>), Fault> {
    page(sets, limit, |text, mut columns| {
        let Ok(name) = ResourceName::parse(text) else {
            return Ok(None);
        };
        Ok(Some(ListedResource {
            name,
            id: columns.id()?,
            waiting: columns.take()?,
            selectors: columns.take()?,
            options: columns.options()?,
            holder: columns.head()?.holder.map(|holder| *holder),
        }))
    })
}
