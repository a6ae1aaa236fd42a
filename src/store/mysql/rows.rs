//! Rows as the server sends them, read column by column.

use mysql_async::Row;
use mysql_async::prelude::FromValue;

use super::error::Fault;

/// The rows of each statement of an SQL text, in the order of the statements.
pub(super) type Sets = Vec<Vec<Row>>;

/// Takes the columns of a row one after another.
pub(super) struct Columns {
    row: Row,
    next: usize,
}

impl Columns {
    pub fn of(row: Row) -> Columns {
        Columns { row, next: 0 }
    }

    /// The next column. [`Fault::Away`]: there is none, or it has another type.
    pub fn take<T: FromValue>(&mut self) -> Result<T, Fault> {
        let place = self.next;
        self.next += 1;
        let value = self.row.take_opt(place).and_then(Result::ok);
        value.ok_or_else(|| Fault::Away(format!("column {place} of an answer is not as expected")))
    }

    /// The id of an instance or of a log; `None` for `NULL`.
    pub fn uuid_or_null(&mut self) -> Result<Option<[u8; 16]>, Fault> {
        let bytes: Option<Vec<u8>> = self.take()?;
        let id = bytes.map(<[u8; 16]>::try_from).transpose();
        id.map_err(|_| Fault::Away("the id of an instance or a log does not have 16 bytes".into()))
    }

    /// As [`Columns::uuid_or_null`], of a column that is not `NULL`.
    pub fn uuid(&mut self) -> Result<[u8; 16], Fault> {
        let id = self.uuid_or_null()?;
        id.ok_or_else(|| Fault::Away("the id of an instance or a log is missing".into()))
    }
}

/// The only column of the only row. [`Fault::Away`]: there is no row.
pub(super) fn value<T: FromValue>(rows: Vec<Row>) -> Result<T, Fault> {
    match rows.into_iter().next() {
        Some(row) => Columns::of(row).take(),
        None => Err(Fault::Away("an answer has no row".into())),
    }
}
