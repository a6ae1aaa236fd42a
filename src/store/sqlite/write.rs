//! Writes a batch as one transaction, and the steps of a checkpoint.

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use super::super::columns::ticket_columns;
use super::super::journal::{self, CheckpointStep, Journal};
use super::super::snapshot::{LockChanges, ResourceId, Snapshot, StoredData};
use super::super::{StoreError, ended};
use super::error::{classify, unread};
use super::read;
use super::row_slots::{self, RowSlots};
use crate::lock::rows::{HeadRow, HolderRow, TicketRow};
use crate::lock::{FencingToken, ResourceName, ResourceOptions, Selector, Ticket, Ttl};
use crate::store::history::{self, PastLease};

/// The number of a resource (`resource.nr`), by which lock rows refer to it.
type Nr = i64;

type WriteResult = Result<(), StoreError>;

/// How many names' past leases one transaction writes.
pub(super) const HISTORY_NAMES_MAX: usize = 200;

/// The connection that writes. Everything that an earlier process left in the journal is in the tables.
pub(super) struct SqliteWriter {
    pub connection: Connection,
    row_slots: RowSlots,
}

impl SqliteWriter {
    /// Makes a checkpoint of the journal that an earlier process left.
    pub fn new(
        connection: Connection,
        journal: &Journal,
        unopened: impl Fn(rusqlite::Error) -> StoreError,
    ) -> Result<SqliteWriter, StoreError> {
        let left = journal::read(read::journal(&connection).map_err(&unopened)?)?;
        if read::has_journal(&connection).map_err(&unopened)? {
            transact(&connection, |db| {
                let mut left = left.iter();
                left.try_for_each(|(id, changes)| checkpoint(db, id, changes))?;
                execute(db, "DELETE FROM resource_journal", [])?;
                set_meta(db, "journal_done", 0)
            })?;
        }
        journal.reset(0);
        Ok(SqliteWriter {
            connection,
            row_slots: RowSlots::default(),
        })
    }

    /// Stores all snapshots or none; see [`super::Store::commit`].
    pub fn commit(&mut self, journal: &Journal, batch: &[Snapshot]) -> WriteResult {
        let entry = journal.enter(batch)?;
        let slots = &mut self.row_slots;
        transact(&self.connection, |db| {
            for (id, _) in &entry.removed {
                remove(db, id)?;
            }
            for id in &entry.must_exist {
                must_exist(db, id)?;
            }
            batch.iter().try_for_each(|s| write(db, s))?;
            let mut rows = entry.rows.iter();
            rows.try_for_each(|(n, changes)| {
                // SQLite overwrites the row in place, without reading it first.
                let sql = "REPLACE INTO resource_journal (place, n, changes) VALUES (?1, ?2, ?3)";
                let filled = row_slots::filled(changes);
                execute(db, sql, params![slots.place(*n), same_bits(*n), filled])
            })
        })?;
        entry.committed();
        Ok(())
    }

    /// Appends past leases to the rows of their names in one transaction.
    pub fn append_history(
        &mut self,
        news: &[(ResourceName, Vec<PastLease>)],
        most: usize,
    ) -> WriteResult {
        let sql = "INSERT INTO resource_history (name, leases) VALUES (?1, ?2) \
                   ON CONFLICT (name) DO UPDATE SET leases = excluded.leases";
        transact(&self.connection, |db| {
            for (name, newer) in news {
                let mut leases = read::history(db, name).map_err(unread)?;
                history::append(&mut leases, newer, most);
                execute(db, sql, params![name.as_str(), history::encode(&leases)])?;
            }
            Ok(())
        })
    }

    /// See [`super::Store::raise_tokens`]. Changes the tables only: the journal has to be empty.
    pub fn raise_tokens(&mut self, above: FencingToken) -> WriteResult {
        transact(&self.connection, |db| {
            raise_token_floor(db, above)?;
            let sql = "UPDATE resource_lock SET token = MAX(token, ?1)";
            execute(db, sql, [same_bits(above.0)])
        })
    }

    /// See [`super::Store::highest_token`]. Reads the tables only: the journal has to be empty.
    pub fn highest_token(&mut self) -> Result<FencingToken, StoreError> {
        let token_floor = read::token_floor(&self.connection).map_err(classify)?;
        let sql = "SELECT COALESCE(MAX(token), 0) FROM resource_lock";
        let token: i64 = self
            .connection
            .query_row(sql, [], |row| row.get(0))
            .map_err(classify)?;
        Ok(token_floor.max(FencingToken(token.cast_unsigned())))
    }

    /// Runs the next transaction of a checkpoint up to this row of the journal. `false`: nothing was left to
    /// do.
    pub fn checkpoint_step(&mut self, journal: &Journal, row: u64) -> Result<bool, StoreError> {
        let Some(step) = journal.next_step(row) else {
            return Ok(false);
        };
        transact(&self.connection, |db| match &step {
            CheckpointStep::Write(locks) => {
                let mut locks = locks.iter().map(|(_, lock)| lock);
                locks.try_for_each(|lock| checkpoint(db, &lock.id, &lock.changes))
            }
            CheckpointStep::Truncate { up_to, .. } => set_meta(db, "journal_done", *up_to),
        })?;
        if let CheckpointStep::Truncate { up_to, .. } = step {
            self.row_slots.free(up_to);
        }
        journal.checkpointed(step);
        Ok(true)
    }
}

/// Runs `work` as one transaction. After an error other than [`StoreError::Rejected`] the connection may still
/// be in the transaction and cannot be used any more.
///
/// `BEGIN` and `COMMIT` are prepared statements: the transactions of the library would parse both in every
/// commit.
fn transact(db: &Connection, work: impl FnOnce(&Connection) -> WriteResult) -> WriteResult {
    execute(db, "BEGIN IMMEDIATE", [])?;
    let done = work(db);
    match done {
        Ok(()) => execute(db, "COMMIT", [])?,
        Err(StoreError::Rejected(_)) => execute(db, "ROLLBACK", [])?,
        Err(_) => {}
    }
    done
}

/// Writes changes to the tables, unless their resource is gone.
fn checkpoint(db: &Connection, id: &ResourceId, changes: &LockChanges) -> WriteResult {
    match find(db, id)? {
        Some(nr) => write_lock(db, nr, changes),
        None => Ok(()),
    }
}

fn must_exist(db: &Connection, id: &ResourceId) -> Result<Nr, StoreError> {
    let missing = || StoreError::Rejected(format!("the resource {id} does not exist"));
    find(db, id)?.ok_or_else(missing)
}

/// Writes what of this snapshot is not in the journal.
fn write(db: &Connection, snapshot: &Snapshot) -> WriteResult {
    if let Some(token_floor) = snapshot.token_floor {
        raise_token_floor(db, token_floor)?;
    }
    if let Some(options) = snapshot.created {
        let nr = create(db, snapshot, options)?;
        write_lock(db, nr, &snapshot.lock)?;
    }
    if let Some(options) = snapshot.options {
        let nr = must_exist(db, &snapshot.id)?;
        let sql = "UPDATE resource SET timeout = ?2 WHERE nr = ?1";
        execute(db, sql, params![nr, options.timeout.get()])?;
        write_options(db, nr, options)?;
    }
    for (selector, row) in &snapshot.data {
        match row {
            Some(row) => write_data(db, &snapshot.id, selector, row)?,
            None => remove_data(db, &snapshot.id, selector)?,
        }
    }
    Ok(())
}

fn write_lock(db: &Connection, nr: Nr, changes: &LockChanges) -> WriteResult {
    if let Some(head) = &changes.head {
        write_head(db, nr, head)?;
    }
    for (ticket, row) in &changes.holding {
        match row {
            Some(row) => write_holding(db, nr, row)?,
            None => remove_ticket(db, "resource_holding", nr, *ticket)?,
        }
    }
    for (ticket, row) in &changes.waiting {
        match row {
            Some(row) => write_waiting(db, nr, row)?,
            None => remove_ticket(db, "resource_ticket", nr, *ticket)?,
        }
    }
    let mut runs = ended::runs(&changes.ended)?.into_iter();
    runs.try_for_each(|(n, entries)| write_ended(db, nr, n, &entries))
}

fn execute(db: &Connection, sql: &str, values: impl rusqlite::Params) -> WriteResult {
    let executed = db
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute(values));
    executed.map(drop).map_err(classify)
}

fn find(db: &Connection, id: &ResourceId) -> Result<Option<Nr>, StoreError> {
    db.prepare_cached("SELECT nr FROM resource WHERE id = ?1")
        .and_then(|mut find| find.query_row([id.as_str()], |row| row.get(0)).optional())
        .map_err(classify)
}

/// Removes a resource with all its rows. Does nothing if the resource was created and removed before it was
/// ever stored.
fn remove(db: &Connection, id: &ResourceId) -> WriteResult {
    let Some(nr) = find(db, id)? else {
        return Ok(());
    };
    let data = "DELETE FROM resource_data WHERE id_resource = ?1";
    execute(db, data, [id.as_str()])?;
    let ended = "DELETE FROM resource_ended_tickets WHERE resource = ?1";
    execute(db, ended, [nr])?;
    execute(db, "DELETE FROM resource_ticket WHERE resource = ?1", [nr])?;
    execute(db, "DELETE FROM resource_holding WHERE resource = ?1", [nr])?;
    execute(db, "DELETE FROM resource_options WHERE resource = ?1", [nr])?;
    execute(db, "DELETE FROM resource_lock WHERE resource = ?1", [nr])?;
    execute(db, "DELETE FROM resource WHERE nr = ?1", [nr])
}

fn raise_token_floor(db: &Connection, token_floor: FencingToken) -> WriteResult {
    if token_floor <= read::token_floor(db).map_err(classify)? {
        return Ok(());
    }
    set_meta(db, "floor", token_floor.0)
}

fn set_meta(db: &Connection, key: &str, value: u64) -> WriteResult {
    let sql = "REPLACE INTO server_meta (key, value) VALUES (?1, ?2)";
    execute(db, sql, params![key, value.to_string()])
}

fn create(
    db: &Connection,
    snapshot: &Snapshot,
    options: ResourceOptions,
) -> Result<Nr, StoreError> {
    let sql = "INSERT INTO resource (id, name, timeout) VALUES (?1, ?2, ?3)";
    let (id, name) = (snapshot.id.as_str(), snapshot.name.as_str());
    execute(db, sql, params![id, name, options.timeout.get()])?;
    let nr = db.last_insert_rowid();
    let sql = "INSERT INTO resource_lock (resource, token) VALUES (?1, 0)";
    execute(db, sql, [nr])?;
    if !options.is_plain() {
        write_options(db, nr, options)?;
    }
    Ok(nr)
}

fn write_options(db: &Connection, nr: Nr, options: ResourceOptions) -> WriteResult {
    if options.is_plain() {
        let sql = "DELETE FROM resource_options WHERE resource = ?1";
        return execute(db, sql, [nr]);
    }
    let sql = "REPLACE INTO resource_options (resource, slots, lock_delay, ephemeral) \
               VALUES (?1, ?2, ?3, ?4)";
    let values = params![nr, options.slots, options.lock_delay, options.ephemeral];
    execute(db, sql, values)
}

fn write_head(db: &Connection, nr: Nr, head: &HeadRow) -> WriteResult {
    let sql = concat!(
        "UPDATE resource_lock SET (token, delayed, acquired_at, lease_token, ",
        ticket_columns!(),
        ") = (?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) WHERE resource = ?1"
    );
    let holder = head.holder.as_ref();
    let lease_token = holder.map(|holder| holder.token);
    let lease_token = lease_token.filter(|token| *token != head.token);
    let values = [
        nr.into(),
        same_bits(head.token.0).into(),
        head.delayed.into(),
        or_null(holder.map(|holder| same_bits(holder.acquired_at))),
        or_null(lease_token.map(|token| same_bits(token.0))),
    ];
    let ticket = match holder {
        Some(holder) => ticket_values(&holder.ticket),
        None => [const { ToSqlOutput::Owned(Value::Null) }; 10],
    };
    execute(db, sql, params_from_iter(values.into_iter().chain(ticket)))
}

fn write_waiting(db: &Connection, nr: Nr, row: &TicketRow) -> WriteResult {
    let sql = concat!(
        "REPLACE INTO resource_ticket (resource, ",
        ticket_columns!(),
        ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
    );
    let values = [nr.into()].into_iter().chain(ticket_values(row));
    execute(db, sql, params_from_iter(values))
}

fn write_holding(db: &Connection, nr: Nr, holder: &HolderRow) -> WriteResult {
    let sql = concat!(
        "REPLACE INTO resource_holding (resource, token, acquired_at, ",
        ticket_columns!(),
        ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
    );
    let values = [nr, same_bits(holder.token.0), same_bits(holder.acquired_at)];
    let ticket = ticket_values(&holder.ticket);
    let values = values.map(ToSqlOutput::from).into_iter().chain(ticket);
    execute(db, sql, params_from_iter(values))
}

/// The values of [`ticket_columns`], in their order.
fn ticket_values(row: &TicketRow) -> [ToSqlOutput<'_>; 10] {
    let key = row.key.as_ref();
    let ttl_ms = |ttl: Option<Ttl>| or_null(ttl.map(|ttl| same_bits(ttl.millis())));
    [
        row.ticket.bits().to_be_bytes().to_vec().into(),
        same_bits(row.seq).into(),
        or_null(row.owner.as_ref().map(|owner| owner.as_str())),
        ttl_ms(row.ttl),
        row.mode.number().into(),
        or_null(row.reason.as_ref().map(|reason| reason.as_str())),
        or_null(row.queued_at.map(same_bits)),
        or_null(key.map(|key| key.key.as_str())),
        ttl_ms(key.and_then(|key| key.ttl)),
        or_null(key.map(|key| key.mode.number())),
    ]
}

fn or_null<'a>(value: Option<impl Into<ToSqlOutput<'a>>>) -> ToSqlOutput<'a> {
    value.map_or(ToSqlOutput::Owned(Value::Null), Into::into)
}

fn remove_ticket(db: &Connection, table: &str, nr: Nr, ticket: Ticket) -> WriteResult {
    let sql = format!("DELETE FROM {table} WHERE resource = ?1 AND ticket = ?2");
    execute(db, &sql, params![nr, ticket.bits().to_be_bytes()])
}

fn write_ended(db: &Connection, nr: Nr, n: u64, entries: &[u8]) -> WriteResult {
    let sql = "REPLACE INTO resource_ended_tickets (resource, n, entries) VALUES (?1, ?2, ?3)";
    execute(db, sql, params![nr, same_bits(n), entries])?;
    let Some(outlived) = ended::outlived_by(n) else {
        return Ok(());
    };
    let sql = "DELETE FROM resource_ended_tickets WHERE resource = ?1 AND n <= ?2";
    execute(db, sql, [nr, same_bits(outlived)])
}

fn write_data(
    db: &Connection,
    id: &ResourceId,
    selector: &Selector,
    row: &StoredData,
) -> WriteResult {
    let sql = "INSERT INTO resource_data (id, id_resource, selector, data) \
               VALUES (?1, ?2, ?3, ?4) \
               ON CONFLICT (id_resource, selector) DO UPDATE SET data = excluded.data";
    // Bound as text without a check for UTF-8.
    let json = ToSqlOutput::Borrowed(ValueRef::Text(&row.json));
    execute(
        db,
        sql,
        params![row.id, id.as_str(), selector.as_str(), json],
    )
}

fn remove_data(db: &Connection, id: &ResourceId, selector: &Selector) -> WriteResult {
    let sql = "DELETE FROM resource_data WHERE id_resource = ?1 AND selector = ?2";
    execute(db, sql, [id.as_str(), selector.as_str()])
}

/// The signed number with the same bits, since SQLite has no unsigned ones. [`read`] reverts this.
fn same_bits(number: u64) -> i64 {
    number.cast_signed()
}
