//! A batch as SQL: one transaction, multi-row statements, in as few packets as the server takes.

use std::collections::HashSet;
use std::mem;

use super::schema;
use super::sql::{self, Sql};
use crate::lock::rows::{EndedRow, HeadRow, TicketRow};
use crate::lock::{EndReason, ResourceName};
use crate::store::StoreError;
use crate::store::snapshot::{DataRow, Snapshot};

/// Packets are not made larger than this without need: a server reads a packet whole before it begins.
const PACKET_BYTES: usize = 4 << 20;
/// Nor statements: parsing and range analysis of one take memory on the server.
const STATEMENT_BYTES: usize = 256 << 10;
const STATEMENT_ROWS: usize = 1000;
/// Left free in a packet for the command byte and what ends a transaction.
const SPARE_BYTES: usize = 64;

/// The packets to send one after another. The first begins the transaction, the last commits it.
#[derive(Debug)]
pub(super) struct Script {
    pub packets: Vec<Sql>,
    statement: Sql,
    rows: usize,
    /// The most that a packet may have, bytes.
    packet_bytes_max: usize,
}

/// A document's id, resource, selector, each at most 255 characters and escaped, and the statement.
const DOCUMENT_SPARE_BYTES: usize = 8 << 10;

/// Whether a statement that writes this document fits into a packet.
pub(super) fn fits(json: &[u8], packet_bytes_max: usize) -> bool {
    let room = packet_bytes_max.saturating_sub(SPARE_BYTES + DOCUMENT_SPARE_BYTES);
    // Escaping at most doubles it: most documents need not be looked at.
    json.len().saturating_mul(2) <= room || sql::text_bytes(json) <= room
}

/// The parts of a multi-row statement.
struct Form {
    head: &'static str,
    between: &'static str,
    tail: &'static str,
}

impl Form {
    const fn upsert(head: &'static str, tail: &'static str) -> Form {
        Form {
            head,
            between: ",",
            tail,
        }
    }

    const fn remove(head: &'static str, between: &'static str, tail: &'static str) -> Form {
        Form {
            head,
            between,
            tail,
        }
    }
}

/// With everything that belongs to a resource, whose id is in each of these.
const REMOVED: [Form; 5] = [
    Form::remove("DELETE FROM resource WHERE id IN (", ",", ")"),
    Form::remove("DELETE FROM resource_data WHERE id_resource IN (", ",", ")"),
    Form::remove("DELETE FROM resource_lock WHERE id_resource IN (", ",", ")"),
    Form::remove(
        "DELETE FROM resource_waiting WHERE id_resource IN (",
        ",",
        ")",
    ),
    Form::remove(
        "DELETE FROM resource_ended WHERE id_resource IN (",
        ",",
        ")",
    ),
];
/// Without `ON DUPLICATE KEY`: a row of this name that we do not know of must not be taken for ours.
const CREATED: Form = Form::upsert("INSERT INTO resource (id, name, timeout) VALUES ", "");
const HEADS: Form = Form::upsert(
    "INSERT INTO resource_lock (id_resource, token, ticket, seq, owner, ttl, attempt, attempt_ttl, \
     acquired_at) VALUES ",
    " ON DUPLICATE KEY UPDATE token = VALUES(token), ticket = VALUES(ticket), seq = VALUES(seq), \
     owner = VALUES(owner), ttl = VALUES(ttl), attempt = VALUES(attempt), \
     attempt_ttl = VALUES(attempt_ttl), acquired_at = VALUES(acquired_at)",
);
const NOT_WAITING: Form = Form::remove("DELETE FROM resource_waiting WHERE ", " OR ", "");
const WAITING: Form = Form::upsert(
    "INSERT INTO resource_waiting (id_resource, ticket, seq, owner, ttl, attempt, attempt_ttl) VALUES ",
    " ON DUPLICATE KEY UPDATE seq = VALUES(seq), owner = VALUES(owner), ttl = VALUES(ttl), \
     attempt = VALUES(attempt), attempt_ttl = VALUES(attempt_ttl)",
);
const ENDED: Form = Form::upsert(
    "INSERT INTO resource_ended (id_resource, slot, n, ticket, reason) VALUES ",
    " ON DUPLICATE KEY UPDATE n = VALUES(n), ticket = VALUES(ticket), reason = VALUES(reason)",
);
const NO_DATA: Form = Form::remove("DELETE FROM resource_data WHERE ", " OR ", "");
/// A row whose id belongs to another document fails (`id` cannot be `NULL`) and does not overwrite that one.
const DATA: Form = Form::upsert(
    "INSERT INTO resource_data (id, id_resource, selector, locked, data) VALUES ",
    " ON DUPLICATE KEY UPDATE id = IF(id_resource = VALUES(id_resource) \
     AND selector_bytes = CAST(VALUES(selector) AS BINARY), id, NULL), data = VALUES(data)",
);

/// The whole transaction. [`StoreError::Rejected`]: something in it can never be sent.
pub(super) fn script(
    batch: &[Snapshot],
    epoch: u64,
    packet_bytes_max: usize,
) -> Result<Script, StoreError> {
    let mut script = Script::begin(epoch, packet_bytes_max);
    for run in runs(batch) {
        strangers(&mut script, run)?;
        removals(&mut script, run)?;
        creations(&mut script, run)?;
        lock_rows(&mut script, run)?;
        data_rows(&mut script, run)?;
    }
    script.commit();
    Ok(script)
}

/// Statements go table by table, which is only right as long as no name comes twice.
fn runs(batch: &[Snapshot]) -> Vec<&[Snapshot]> {
    let mut runs = Vec::new();
    let mut names: HashSet<&ResourceName> = HashSet::new();
    let mut begin = 0;
    for (place, snapshot) in batch.iter().enumerate() {
        if !names.insert(&snapshot.name) {
            runs.push(&batch[begin..place]);
            begin = place;
            names.clear();
            names.insert(&snapshot.name);
        }
    }
    runs.push(&batch[begin..]);
    runs
}

/// Ends the transaction if it has rows for a resource that does not exist.
fn strangers(script: &mut Script, batch: &[Snapshot]) -> Result<(), StoreError> {
    let needs_resource = |snapshot: &&Snapshot| {
        snapshot.created.is_none() && snapshot.rows() > snapshot.removed.len()
    };
    let ids: Vec<_> = batch.iter().filter(needs_resource).map(|s| &s.id).collect();
    for ids in ids.chunks(STATEMENT_ROWS) {
        let mut sql = Sql::default();
        schema::guard_existence(&mut sql, ids);
        script.statement(sql)?;
    }
    Ok(())
}

fn removals(script: &mut Script, batch: &[Snapshot]) -> Result<(), StoreError> {
    for form in &REMOVED {
        let ids = batch.iter().flat_map(|snapshot| &snapshot.removed);
        script.rows(form, ids, |sql, id| {
            sql.text(id.as_str());
        })?;
    }
    if let Some(floor) = batch.iter().filter_map(|snapshot| snapshot.floor).max() {
        let mut sql = Sql::new("UPDATE resource_server SET floor = GREATEST(floor, ");
        sql.number(floor.0).push(") WHERE id = 1");
        script.statement(sql)?;
    }
    Ok(())
}

fn creations(script: &mut Script, batch: &[Snapshot]) -> Result<(), StoreError> {
    let created = batch
        .iter()
        .filter_map(|snapshot| snapshot.created.map(|timeout| (snapshot, timeout)));
    script.rows(&CREATED, created, |sql, (snapshot, timeout)| {
        sql.push("(").text(snapshot.id.as_str());
        sql.push(",").text(snapshot.name.as_str());
        sql.push(",").number(timeout.get()).push(")");
    })
}

fn lock_rows(script: &mut Script, batch: &[Snapshot]) -> Result<(), StoreError> {
    let heads = batch
        .iter()
        .filter_map(|snapshot| snapshot.head.as_ref().map(|head| (snapshot, head)));
    script.rows(&HEADS, heads, |sql, (snapshot, head)| {
        head_row(sql, snapshot, head);
    })?;
    let gone = batch.iter().flat_map(|snapshot| {
        let gone: Vec<_> = snapshot
            .waiting
            .iter()
            .filter(|(_, row)| row.is_none())
            .map(|(ticket, _)| ticket.bits().to_be_bytes())
            .collect();
        in_groups(snapshot, gone)
    });
    script.rows(&NOT_WAITING, gone, |sql, (snapshot, tickets)| {
        any_of(sql, snapshot, "ticket", &tickets);
    })?;
    let waiting = batch.iter().flat_map(|snapshot| {
        let rows = snapshot.waiting.values().flatten();
        rows.map(move |row| (snapshot, row))
    });
    script.rows(&WAITING, waiting, |sql, (snapshot, row)| {
        sql.push("(").text(snapshot.id.as_str()).push(",");
        ticket_row(sql, row);
        sql.push(")");
    })?;
    let ended = batch
        .iter()
        .flat_map(|snapshot| snapshot.ended.values().map(move |row| (snapshot, row)));
    script.rows(&ENDED, ended, |sql, (snapshot, row)| {
        ended_row(sql, snapshot, row);
    })
}

fn data_rows(script: &mut Script, batch: &[Snapshot]) -> Result<(), StoreError> {
    let gone = batch.iter().flat_map(|snapshot| {
        let gone: Vec<_> = snapshot
            .data
            .iter()
            .filter(|(_, row)| row.is_none())
            .map(|(selector, _)| selector.as_str())
            .collect();
        in_groups(snapshot, gone)
    });
    script.rows(&NO_DATA, gone, |sql, (snapshot, selectors)| {
        any_of(sql, snapshot, "selector_bytes", &selectors);
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
        &DATA,
        written.iter(),
        |sql, (snapshot, selector, row, json)| {
            sql.push("(").text(&row.id);
            sql.push(",").text(snapshot.id.as_str());
            sql.push(",").text(selector.as_str());
            sql.push(",0,").text(json).push(")");
        },
    )
}

/// JSON is text; what is not would be changed or refused by the server.
fn json_text<'a>(snapshot: &Snapshot, row: &'a DataRow) -> Result<&'a str, StoreError> {
    std::str::from_utf8(&row.json).map_err(|error| {
        StoreError::Rejected(format!("data of {:?} is not UTF-8: {error}", snapshot.name))
    })
}

/// How many keys one `IN` list has at most.
const GROUP: usize = 200;

fn in_groups<K: Clone>(
    snapshot: &Snapshot,
    keys: Vec<K>,
) -> impl Iterator<Item = (&Snapshot, Vec<K>)> {
    let groups: Vec<Vec<K>> = keys.chunks(GROUP).map(<[K]>::to_vec).collect();
    groups.into_iter().map(move |group| (snapshot, group))
}

/// One range of the primary key per resource: MariaDB finds no range in an `IN` of pairs.
fn any_of<K: AsRef<[u8]>>(sql: &mut Sql, snapshot: &Snapshot, column: &str, keys: &[K]) {
    sql.push("(id_resource=").text(snapshot.id.as_str());
    sql.push(" AND ").push(column).push(" IN (");
    for (place, key) in keys.iter().enumerate() {
        sql.push(if place > 0 { "," } else { "" })
            .bytes(key.as_ref());
    }
    sql.push("))");
}

fn head_row(sql: &mut Sql, snapshot: &Snapshot, head: &HeadRow) {
    sql.push("(").text(snapshot.id.as_str());
    sql.push(",").number(head.token.0).push(",");
    match &head.holder {
        Some(holder) => {
            ticket_row(sql, &holder.ticket);
            sql.push(",").number(holder.acquired_at).push(")");
        }
        None => {
            sql.push("NULL,NULL,NULL,NULL,NULL,NULL,NULL)");
        }
    }
}

/// `ticket, seq, owner, ttl, attempt, attempt_ttl`
fn ticket_row(sql: &mut Sql, row: &TicketRow) {
    sql.bytes(&row.ticket.bits().to_be_bytes());
    sql.push(",").number(row.seq).push(",");
    sql.or_null(row.owner.as_ref(), |sql, owner| {
        sql.text(owner.as_str());
    });
    sql.push(",").or_null(row.ttl, |sql, ttl| {
        sql.number(ttl.get());
    });
    sql.push(",");
    sql.or_null(row.key.as_ref(), |sql, key| {
        sql.text(key.key.as_str());
    });
    sql.push(",");
    let attempt_ttl = row.key.as_ref().and_then(|key| key.ttl);
    sql.or_null(attempt_ttl, |sql, ttl| {
        sql.number(ttl.get());
    });
}

fn ended_row(sql: &mut Sql, snapshot: &Snapshot, row: &EndedRow) {
    sql.push("(").text(snapshot.id.as_str());
    sql.push(",").number(row.slot());
    sql.push(",").number(row.n);
    sql.push(",").bytes(&row.ticket.bits().to_be_bytes());
    sql.push(",").number(reason_number(row.reason)).push(")");
}

/// As `resource_ended.reason` holds it.
fn reason_number(reason: EndReason) -> u8 {
    match reason {
        EndReason::Released => 1,
        EndReason::Expired => 2,
        EndReason::ForcedOff => 3,
    }
}

/// The inverse of [`reason_number`].
pub(super) fn reason(number: u8) -> Option<EndReason> {
    let all = [
        EndReason::Released,
        EndReason::Expired,
        EndReason::ForcedOff,
    ];
    all.into_iter()
        .find(|reason| reason_number(*reason) == number)
}

impl Script {
    fn begin(epoch: u64, packet_bytes_max: usize) -> Script {
        let mut first = Sql::new("BEGIN; ");
        schema::guard(&mut first, epoch);
        Script {
            packets: vec![first],
            statement: Sql::default(),
            rows: 0,
            packet_bytes_max: packet_bytes_max.saturating_sub(SPARE_BYTES),
        }
    }

    fn commit(&mut self) {
        // SPARE_BYTES has room for it.
        if let Some(last) = self.packets.last_mut() {
            last.push("; COMMIT");
        }
    }

    fn rows<T>(
        &mut self,
        form: &Form,
        items: impl Iterator<Item = T>,
        write: impl Fn(&mut Sql, T),
    ) -> Result<(), StoreError> {
        let mut row = Sql::default();
        for item in items {
            row.clear();
            write(&mut row, item);
            let room = STATEMENT_BYTES.min(self.packet_bytes_max);
            let full = self.statement.len() + row.len() + form.tail.len() + 4 > room;
            if self.rows > 0 && (full || self.rows == STATEMENT_ROWS) {
                self.end_statement(form)?;
            }
            let before = if self.rows == 0 {
                form.head
            } else {
                form.between
            };
            self.statement.push(before).push(row.as_str());
            self.rows += 1;
        }
        if self.rows > 0 {
            self.end_statement(form)?;
        }
        Ok(())
    }

    fn end_statement(&mut self, form: &Form) -> Result<(), StoreError> {
        self.rows = 0;
        let mut statement = mem::take(&mut self.statement);
        statement.push(form.tail);
        self.statement(statement)
    }

    /// Into the last packet, or a new one.
    fn statement(&mut self, statement: Sql) -> Result<(), StoreError> {
        if statement.len() > self.packet_bytes_max {
            return Err(StoreError::Rejected(format!(
                "a change takes {} bytes as SQL, and `max_allowed_packet` of the database is {}",
                statement.len(),
                self.packet_bytes_max + SPARE_BYTES
            )));
        }
        let room = PACKET_BYTES.min(self.packet_bytes_max);
        match self.packets.last_mut() {
            Some(last) if last.len() + 2 + statement.len() <= room => {
                last.push("; ").push(statement.as_str());
            }
            _ => self.packets.push(statement),
        }
        Ok(())
    }
}
