//! Rows as the server sends them, read column by column.

use mysql_async::Row;
use mysql_async::prelude::FromValue;

use super::error::Fault;

/// Rows of each statement of a text, in order.
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

    pub fn take<T: FromValue>(&mut self) -> Result<T, Fault> {
        let place = self.next;
        self.next += 1;
        let value = self.row.take_opt(place).and_then(Result::ok);
        value.ok_or_else(|| Fault::Away(format!("column {place} of an answer is not as expected")))
    }
}

/// The only column of the only row.
pub(super) fn value<T: FromValue>(rows: Vec<Row>) -> Result<T, Fault> {
    match rows.into_iter().next() {
        Some(row) => Columns::of(row).take(),
        None => Err(Fault::Away("an answer has no row".into())),
    }
}
