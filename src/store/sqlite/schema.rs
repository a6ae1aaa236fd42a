//! Tables and migrations. The version is SQLite's `user_version`.
//!
//! `resource` and `resource_data` have the columns of the PHP server's tables. Lock rows refer to a resource by
//! its number: a resource has up to 64 ended tickets, and its 32-character id would be most of what is written.

use rusqlite::{Connection, TransactionBehavior};

use super::super::StoreError;

/// The migrations that a file may need, each with the version that it makes. An entry is never changed; new ones are
/// added. The first release had version 3.
const MIGRATIONS: [(i64, &str); 2] = [(3, V3), (4, V4)];

/// Names and ids compare by their bytes: `BINARY` is SQLite's default collation. Unsigned 64-bit numbers are
/// stored as signed ones with the same bits.
///
/// `resource_ended_tickets` has no foreign key: without one, SQLite overwrites a row in place without looking it up
/// first, and every unlock writes one.
const V3: &str = "
CREATE TABLE server_meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE resource (
    nr      INTEGER PRIMARY KEY,
    id      TEXT    NOT NULL UNIQUE,
    name    TEXT    NOT NULL UNIQUE,
    timeout INTEGER NOT NULL
) STRICT;

CREATE TABLE resource_data (
    nr          INTEGER PRIMARY KEY,
    id          TEXT    NOT NULL,
    id_resource TEXT    NOT NULL REFERENCES resource (id),
    selector    TEXT    NOT NULL,
    data        TEXT    NOT NULL,
    UNIQUE (id_resource, selector)
) STRICT;

-- The head row of every resource: its highest token, and its lease when `ticket` is set.
CREATE TABLE resource_lock (
    resource    INTEGER PRIMARY KEY REFERENCES resource (nr),
    token       INTEGER NOT NULL,
    ticket      BLOB,
    seq         INTEGER,
    owner       TEXT,
    ttl         INTEGER,
    attempt     TEXT,
    attempt_ttl INTEGER,
    acquired_at INTEGER
) STRICT;

-- Waiting tickets; `attempt` is the Idempotency-Key.
CREATE TABLE resource_ticket (
    resource    INTEGER NOT NULL REFERENCES resource (nr),
    ticket      BLOB    NOT NULL,
    seq         INTEGER NOT NULL,
    owner       TEXT,
    ttl         INTEGER,
    attempt     TEXT,
    attempt_ttl INTEGER,
    PRIMARY KEY (resource, ticket)
) STRICT, WITHOUT ROWID;

-- Ended tickets in runs; see `store::ended`.
CREATE TABLE resource_ended_tickets (
    resource INTEGER NOT NULL,
    n        INTEGER NOT NULL,
    entries  BLOB    NOT NULL,
    PRIMARY KEY (resource, n)
) STRICT, WITHOUT ROWID;

-- The journal; see `store::journal`. Rows are overwritten in place (see `row_slots`) and never deleted. Rows with a
-- number up to `journal_done` in `server_meta` are checkpointed.
CREATE TABLE resource_journal (
    place   INTEGER PRIMARY KEY,
    n       INTEGER NOT NULL,
    changes BLOB    NOT NULL
) STRICT;
";

/// Durations in milliseconds, modes, reasons, several leases per lock, options besides the timeout.
/// `lease_token`: the token of the lease, if it is not the highest token.
const V4: &str = "
ALTER TABLE resource_lock RENAME COLUMN ttl TO ttl_ms;
ALTER TABLE resource_lock RENAME COLUMN attempt_ttl TO attempt_ttl_ms;
ALTER TABLE resource_lock ADD COLUMN mode INTEGER;
ALTER TABLE resource_lock ADD COLUMN reason TEXT;
ALTER TABLE resource_lock ADD COLUMN queued_at INTEGER;
ALTER TABLE resource_lock ADD COLUMN attempt_mode INTEGER;
ALTER TABLE resource_lock ADD COLUMN lease_token INTEGER;
ALTER TABLE resource_lock ADD COLUMN delayed INTEGER NOT NULL DEFAULT 0;
UPDATE resource_lock SET ttl_ms = ttl_ms * 1000, attempt_ttl_ms = attempt_ttl_ms * 1000
    WHERE ticket IS NOT NULL;

ALTER TABLE resource_ticket RENAME COLUMN ttl TO ttl_ms;
ALTER TABLE resource_ticket RENAME COLUMN attempt_ttl TO attempt_ttl_ms;
ALTER TABLE resource_ticket ADD COLUMN mode INTEGER;
ALTER TABLE resource_ticket ADD COLUMN reason TEXT;
ALTER TABLE resource_ticket ADD COLUMN queued_at INTEGER;
ALTER TABLE resource_ticket ADD COLUMN attempt_mode INTEGER;
UPDATE resource_ticket SET ttl_ms = ttl_ms * 1000, attempt_ttl_ms = attempt_ttl_ms * 1000;

-- Held locks, longest held first; a free lock has no entry.
CREATE INDEX resource_lock_held ON resource_lock (acquired_at) WHERE ticket IS NOT NULL;

-- Leases besides the one in resource_lock.
CREATE TABLE resource_holding (
    resource       INTEGER NOT NULL REFERENCES resource (nr),
    ticket         BLOB    NOT NULL,
    seq            INTEGER NOT NULL,
    owner          TEXT,
    ttl_ms         INTEGER,
    mode           INTEGER,
    reason         TEXT,
    queued_at      INTEGER,
    attempt        TEXT,
    attempt_ttl_ms INTEGER,
    attempt_mode   INTEGER,
    token          INTEGER NOT NULL,
    acquired_at    INTEGER NOT NULL,
    PRIMARY KEY (resource, ticket)
) STRICT, WITHOUT ROWID;

-- Options other than the defaults; most resources have no row.
CREATE TABLE resource_options (
    resource   INTEGER PRIMARY KEY REFERENCES resource (nr),
    slots      INTEGER NOT NULL,
    lock_delay INTEGER NOT NULL,
    ephemeral  INTEGER NOT NULL
) STRICT;

-- The last leases of each name; see `store::history`. Keyed by name, because they outlive the resource.
CREATE TABLE resource_history (
    name   TEXT NOT NULL PRIMARY KEY,
    leases BLOB NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Migrates the database to the newest version that this program knows, in one transaction.
///
/// # Errors
/// [`StoreError::Unusable`]: another version of this program, or some other program, made the database. Otherwise
/// what `unopened` makes of an error of SQLite.
pub(super) fn migrate(
    connection: &mut Connection,
    unopened: impl Fn(rusqlite::Error) -> StoreError,
) -> Result<(), StoreError> {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(&unopened)?;
    let version: i64 = transaction
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(&unopened)?;
    // Other programs number their schemas in `user_version`, too. Ours has these three tables in every version.
    let tables = "SELECT count(*),
        count(*) FILTER (WHERE type = 'table' AND name IN ('server_meta', 'resource', 'resource_data'))
        FROM sqlite_schema";
    let (tables, own): (i64, i64) = transaction
        .query_row(tables, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(&unopened)?;
    let is_foreign = if version == 0 { tables > 0 } else { own < 3 };
    if is_foreign {
        return Err(StoreError::Unusable(
            "it is the database of some other program".to_owned(),
        ));
    }
    let [(oldest, _), .., (newest, _)] = MIGRATIONS;
    if version != 0 && !(oldest..=newest).contains(&version) {
        return Err(StoreError::Unusable(format!(
            "its schema has version {version}, and this program knows versions {oldest} to {newest}; \
             another version of it wrote the file"
        )));
    }
    for (made, migration) in MIGRATIONS.iter().filter(|(made, _)| *made > version) {
        transaction.execute_batch(migration).map_err(&unopened)?;
        transaction
            .pragma_update(None, "user_version", made)
            .map_err(&unopened)?;
    }
    transaction.commit().map_err(&unopened)
}
