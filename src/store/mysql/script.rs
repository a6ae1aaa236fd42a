//! The SQL text of one transaction: multi-row statements, in as few packets as the server accepts.

use std::mem;

use super::error::Fault;
use super::fence::{self, LogPlace};
use super::sql::Sql;
use crate::store::{StoreError, journal};

/// Size up to which statements are put into one packet, bytes: a server reads a whole packet before it runs any
/// of it.
const PACKET_BYTES: usize = 4 << 20;
/// Size up to which rows are put into one statement, bytes: parsing and range analysis take memory on the
/// server.
const STATEMENT_BYTES: usize = 256 << 10;
/// How many rows one statement has at most.
pub(super) const STATEMENT_ROWS: usize = 1000;
/// Bytes left free in a packet for the command byte and the end of the transaction.
pub(super) const SPARE_BYTES: usize = 64;

/// The packets to send one after another. The first begins the transaction, the last commits it.
#[derive(Debug)]
pub(super) struct Script {
    pub packets: Vec<Sql>,
    /// How often the transaction is tried while others block it; after that nothing was done. `u32::MAX`: for
    /// as long as it takes. With any other number, a duplicate key also counts as blocked: while its log is
    /// being sealed, the other instance may have appended a row at the same position.
    pub tries: u32,
    /// It is [`fence::append_alone`] alone, which refuses by no changed row or a duplicate key.
    pub appends_alone: bool,
    /// The most bytes that a packet may have.
    packet_bytes_max: usize,
}

/// The fixed parts of a multi-row statement: before, between and after its rows.
pub(super) type Form = [&'static str; 3];

impl Script {
    /// A transaction that only appends a row to the log, as most commits do, in one statement: a second
    /// statement would cost the database as much as some dozens of locks.
    pub fn log_row(place: LogPlace, changes: &[u8]) -> Script {
        Script {
            packets: vec![fence::append_alone(place, changes)],
            tries: u32::MAX,
            appends_alone: true,
            packet_bytes_max: 0,
        }
    }

    /// A transaction of an instance with these statements; its row in the log has no changes.
    ///
    /// # Errors
    /// [`StoreError::Rejected`]: a statement does not fit into a packet.
    pub fn of(place: LogPlace, statements: impl IntoIterator<Item = Sql>) -> Result<Script, Fault> {
        let mut script = Script::begin(place, journal::EMPTY)?;
        for statement in statements {
            script.statement(statement)?;
        }
        script.commit();
        Ok(script)
    }

    /// Begins a transaction of an instance, with the row of its log.
    ///
    /// # Errors
    /// [`StoreError::Rejected`]: the row does not fit into a packet.
    pub fn begin(place: LogPlace, changes: &[u8]) -> Result<Script, StoreError> {
        let mut script = Script {
            packets: vec![Sql::new("BEGIN")],
            tries: u32::MAX,
            appends_alone: false,
            packet_bytes_max: place.packet_bytes_max.saturating_sub(SPARE_BYTES),
        };
        script.statement(fence::append(place, changes))?;
        Ok(script)
    }

    pub fn commit(&mut self) {
        // `SPARE_BYTES` leaves room for it.
        if let Some(last) = self.packets.last_mut() {
            last.push("; COMMIT");
        }
    }

    /// Adds these rows, in as many statements as they need.
    pub fn rows<T>(
        &mut self,
        [head, between, tail]: Form,
        items: impl Iterator<Item = T>,
        write: impl Fn(&mut Sql, T) -> &mut Sql,
    ) -> Result<(), StoreError> {
        let room = STATEMENT_BYTES.min(self.packet_bytes_max);
        let (mut statement, mut rows) = (Sql::default(), 0);
        let mut row = Sql::default();
        for item in items {
            row.clear();
            write(&mut row, item);
            let is_full = statement.len() + row.len() + tail.len() + 4 > room;
            if rows > 0 && (is_full || rows == STATEMENT_ROWS) {
                statement.push(tail);
                self.statement(mem::take(&mut statement))?;
                rows = 0;
            }
            let before = if rows == 0 { head } else { between };
            statement.push(before).push(row.as_str());
            rows += 1;
        }
        if rows > 0 {
            statement.push(tail);
            self.statement(statement)?;
        }
        Ok(())
    }

    /// Adds a statement to the last packet, or to a new one.
    ///
    /// # Errors
    /// [`StoreError::Rejected`]: the statement does not fit into a packet.
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
