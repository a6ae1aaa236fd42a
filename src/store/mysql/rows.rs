//! Rows as the server sends them.

use mysql_async::prelude::{FromRow, FromValue};
use mysql_async::{Row, from_row_opt};

use super::error::Fault;

/// The rows of each statement of an SQL text, in the order of the statements.
pub(super) type Sets = Vec<Vec<Row>>;

/// Takes the columns of a row one after another, for rows with more of them than a tuple should have.
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
}

/// Rows of one column each, or of a few as a tuple. [`Fault::Away`]: they have other columns.
pub(super) fn all<T: FromRow>(rows: impl IntoIterator<Item = Row>) -> Result<Vec<T>, Fault> {
    let parse = |row| {
        let parsed = from_row_opt::<T>(row);
        parsed.map_err(|_| Fault::Away("a row of an answer is not as expected".into()))
    };
    rows.into_iter().map(parse).collect()
}

/// The last row of the last answer that has rows. [`Fault::Away`]: there is none.
pub(super) fn last<T: FromRow>(sets: Sets) -> Result<T, Fault> {
    let row = all::<T>(sets.into_iter().rev().find_map(|mut rows| rows.pop()))?.pop();
    row.ok_or_else(|| Fault::Away("an answer has no row".into()))
}
