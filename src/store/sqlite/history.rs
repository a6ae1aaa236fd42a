//! Past leases: one row per name, which is read, extended and written back.

use rusqlite::{Connection, OptionalExtension, params};

use super::error::{classify, unread};
use crate::lock::ResourceName;
use crate::store::StoreError;
use crate::store::history::{self, PastLease};

/// Number of names whose rows one transaction writes.
pub(super) const NAMES_AT_ONCE: usize = 200;

/// The past leases of a name, the oldest first.
pub(super) fn read(
    connection: &Connection,
    name: &ResourceName,
) -> Result<Vec<PastLease>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT leases FROM resource_history WHERE name = ?1")
        .map_err(unread)?;
    let bytes: Option<Vec<u8>> = statement
        .query_row([name.as_str()], |row| row.get(0))
        .optional()
        .map_err(unread)?;
    Ok(bytes
        .map(|bytes| history::decode(&bytes))
        .unwrap_or_default())
}

/// Appends to the rows of these names, inside the caller's transaction.
pub(super) fn append(
    connection: &Connection,
    news: &[(ResourceName, Vec<PastLease>)],
    most: usize,
) -> Result<(), StoreError> {
    for (name, newer) in news {
        let mut leases = read(connection, name)?;
        history::append(&mut leases, newer, most);
        let mut statement = connection
            .prepare_cached(
                "INSERT INTO resource_history (name, leases) VALUES (?1, ?2) \
                 ON CONFLICT (name) DO UPDATE SET leases = excluded.leases",
            )
            .map_err(classify)?;
        statement
            .execute(params![name.as_str(), history::encode(&leases)])
            .map_err(classify)?;
    }
    Ok(())
}
