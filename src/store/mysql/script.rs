//! The SQL text of one transaction: multi-row statements, in as few packets as the server takes.

use std::mem;

use super::fence::{self, LogPlace};
use super::sql::Sql;
use crate::store::StoreError;

/// Packets are not made larger than this without need: a server reads a packet whole before it begins.
const PACKET_BYTES: usize = 4 << 20;
/// Nor statements: parsing and range analysis of one take memory on the server.
const STATEMENT_BYTES: usize = 256 << 10;
pub(super) const STATEMENT_ROWS: usize = 1000;
/// Left free in a packet for the command byte and what ends a transaction.
pub(super) const SPARE_BYTES: usize = 64;

/// The packets to send one after another. The first begins the transaction, the last commits it.
#[derive(Debug)]
pub(super) struct Script {
    pub packets: Vec<Sql>,
    /// How often it is tried while others stand in its way; then nothing was done. Where that is not as often as it takes, a
    /// row that is there already may be theirs, too: of a log that is about to be sealed, which its writer goes on with.
    pub tries: u32,
    /// It changes no row where it is refused, instead of failing.
    pub is_guarded_by_its_rows: bool,
    /// The most that a packet may have, bytes.
    packet_bytes_max: usize,
}

/// The parts of a multi-row statement.
pub(super) struct Form {
    head: &'static str,
    between: &'static str,
    tail: &'static str,
}

impl Form {
    /// Rows to insert, or to update where they are.
    pub const fn upsert(head: &'static str, tail: &'static str) -> Form {
        Form {
            head,
            between: ",",
            tail,
        }
    }

    /// A list that begins at the end of `head`.
    pub const fn any_in(head: &'static str) -> Form {
        Form::upsert(head, ")")
    }

    /// Conditions.
    pub const fn any_where(head: &'static str) -> Form {
        Form {
            head,
            between: " OR ",
            tail: "",
        }
    }
}

impl Script {
    /// What most commits are, in one statement: for the database, a statement more costs as much as some
    /// dozens of locks.
    pub fn log_row(place: LogPlace, changes: &[u8]) -> Script {
        let mut sql = Sql::default();
        fence::append_alone(&mut sql, place, changes);
        Script {
            packets: vec![sql],
            tries: u32::MAX,
            is_guarded_by_its_rows: true,
            packet_bytes_max: 0,
        }
    }

    /// A transaction of an instance: a row of its log comes first.
    pub fn begin(place: LogPlace, changes: &[u8]) -> Result<Script, StoreError> {
        let mut script = Script {
            packets: vec![Sql::new("BEGIN")],
            tries: u32::MAX,
            is_guarded_by_its_rows: false,
            packet_bytes_max: place.packet_bytes_max.saturating_sub(SPARE_BYTES),
        };
        let mut sql = Sql::default();
        fence::append(&mut sql, place, changes);
        script.statement(sql)?;
        Ok(script)
    }

    pub fn commit(&mut self) {
        // SPARE_BYTES has room for it.
        if let Some(last) = self.packets.last_mut() {
            last.push("; COMMIT");
        }
    }

    pub fn rows<T>(
        &mut self,
        form: &Form,
        items: impl Iterator<Item = T>,
        write: impl Fn(&mut Sql, T),
    ) -> Result<(), StoreError> {
        let room = STATEMENT_BYTES.min(self.packet_bytes_max);
        let (mut statement, mut rows) = (Sql::default(), 0);
        let mut row = Sql::default();
        for item in items {
            row.clear();
            write(&mut row, item);
            let is_full = statement.len() + row.len() + form.tail.len() + 4 > room;
            if rows > 0 && (is_full || rows == STATEMENT_ROWS) {
                statement.push(form.tail);
                self.statement(mem::take(&mut statement))?;
                rows = 0;
            }
            let before = if rows == 0 { form.head } else { form.between };
            statement.push(before).push(row.as_str());
            rows += 1;
        }
        if rows > 0 {
            statement.push(form.tail);
            self.statement(statement)?;
        }
        Ok(())
    }

    /// Into the last packet, or a new one.
    pub fn statement(&mut self, statement: Sql) -> Result<(), StoreError> {
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
