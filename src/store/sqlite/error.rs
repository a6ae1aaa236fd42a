//! Maps errors of SQLite to those of a store.

use rusqlite::{Error, ErrorCode};

use super::super::StoreError;

/// An error of the writer: `Rejected` if the content caused it, `Unavailable` if the file did.
pub(super) fn classify(error: Error) -> StoreError {
    use ErrorCode::{ConstraintViolation, TooBig, TypeMismatch};
    match error.sqlite_error_code() {
        Some(ConstraintViolation | TooBig | TypeMismatch) => {
            StoreError::Rejected(error.to_string())
        }
        _ => away(error),
    }
}

/// An error of a reader. A row that does not fit its type is `Rejected`: it concerns only the request that
/// reads it.
pub(super) fn unread(error: Error) -> StoreError {
    use Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
    match (&error, error.sqlite_error_code()) {
        // Of a damaged file other pages may be sound. A commit that meets the damage fails by itself.
        (FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..), _)
        | (_, Some(ErrorCode::DatabaseCorrupt)) => StoreError::Rejected(error.to_string()),
        (_, Some(ErrorCode::OperationInterrupted)) => StoreError::TooSlow(error.to_string()),
        _ => away(error),
    }
}

/// An error after which the outcome is unknown.
pub(super) fn away(error: Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// An error while the file is opened. `has_served`: this process has opened the file before, so most errors may
/// pass.
pub(super) fn unopened(error: Error, has_served: bool) -> StoreError {
    use ErrorCode::{
        DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, NotADatabase, OutOfMemory,
        SystemIoFailure,
    };
    match error.sqlite_error_code() {
        Some(NotADatabase) => StoreError::Unusable("it is not an SQLite database".to_owned()),
        Some(DatabaseCorrupt) => StoreError::Unusable(format!(
            "it is damaged ({error}); restore it from a backup, or move it away to start anew"
        )),
        Some(DatabaseBusy | DatabaseLocked | DiskFull | OutOfMemory | SystemIoFailure) => {
            away(error)
        }
        _ if has_served => away(error),
        _ => StoreError::Unusable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    #[test]
    fn a_file_that_was_usable_before_is_waited_for() {
        let error = || Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CANTOPEN), None);
        assert!(matches!(unopened(error(), false), StoreError::Unusable(_)));
        assert!(matches!(
            unopened(error(), true),
            StoreError::Unavailable(_)
        ));
    }
}
