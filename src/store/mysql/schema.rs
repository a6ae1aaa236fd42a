//! The tables, and their rows as this program reads them.
//!
//! `resource` and `resource_data` are the PHP server's, with columns of our own added. The rest is ours:
//! `resource_server` has one row, with the state of the schema and the instance that has the database
//! exclusively, if there is one. Each instance has a row in `resource_instance` and a log of its own in
//! `resource_log`, and owns slots of names in `resource_slot`; see `instance` and `slots`.

use std::ops::Range;
use std::time::Instant;

use mysql_async::Row;

use super::error::Fault;
use super::fence::{LogId, Membership};
use super::rows::{Columns, Sets};
use super::session::Session;
use super::sql::Sql;
use crate::lock::{FencingToken, Profile};
use crate::store::{InstanceId, StoreError};

/// The newest schema version that this program knows.
pub(super) const VERSION: u32 = 4;

/// The same columns as in version 2.0.0, so that nothing has to be altered before one instance has the
/// database: where several servers accept writes, two instances that altered the table at once would be refused
/// at the other's server.
const SERVER: &str = "CREATE TABLE IF NOT EXISTS resource_server (
    id TINYINT UNSIGNED NOT NULL PRIMARY KEY,
    version INT UNSIGNED NOT NULL,
    step VARCHAR(16) NOT NULL,
    profile VARCHAR(16) NULL,
    php_collation VARCHAR(64) NULL,
    floor BIGINT UNSIGNED NOT NULL,
    epoch BIGINT UNSIGNED NOT NULL,
    heartbeat BIGINT UNSIGNED NOT NULL,
    owner BINARY(16) NULL,
    connection BIGINT UNSIGNED NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

/// Instances, and the log that each writes. Ids of instances and logs are never used again. `state`: 1 serves,
/// 2 leaves, 3 is fenced; then `executor` is the instance that takes over from it, if there is one. `floor`:
/// the highest token of names that it deleted. `address` and `peer_secret`: where others pass requests on to,
/// and the secret that both sides must know.
const INSTANCE: &str = "CREATE TABLE IF NOT EXISTS resource_instance (
    id BINARY(16) NOT NULL PRIMARY KEY,
    state TINYINT UNSIGNED NOT NULL,
    heartbeat BIGINT UNSIGNED NOT NULL,
    log BINARY(16) NOT NULL,
    server VARCHAR(255) NOT NULL,
    connection BIGINT UNSIGNED NOT NULL,
    address VARCHAR(255) NULL,
    peer_secret VARBINARY(255) NOT NULL,
    executor BINARY(16) NULL,
    floor BIGINT UNSIGNED NOT NULL,
    lease_ms BIGINT UNSIGNED NOT NULL,
    version VARCHAR(255) NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

/// See `store::journal`. The rows of each log are numbered without a gap; the first ones may have been deleted.
const LOG: &str = "CREATE TABLE IF NOT EXISTS resource_log (
    log BINARY(16) NOT NULL,
    n BIGINT UNSIGNED NOT NULL,
    changes LONGBLOB NOT NULL,
    PRIMARY KEY (log, n)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

/// The journal of version 2.0.0. Migration makes it a log that nobody writes.
pub(super) const OLD_JOURNAL: &str = "resource_journal";

const SERVER_ROW: &str = "INSERT IGNORE INTO resource_server
    (id, version, step, floor, epoch, heartbeat) VALUES (1, 0, 'new', 0, 0, 0)";

/// All other tables: the PHP server's two; slot owners, locks, options, past leases, and the selectors that encoding
/// would not restore in a revert.
pub(super) const TABLES: [&str; 10] = [
    "CREATE TABLE IF NOT EXISTS resource (
    id VARCHAR(255) NOT NULL PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    timeout INT NOT NULL,
    name_bytes VARBINARY(1020) GENERATED ALWAYS AS (CAST(name AS BINARY)) STORED,
    UNIQUE KEY name_bytes (name_bytes)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS resource_data (
    id VARCHAR(255) NOT NULL PRIMARY KEY,
    id_resource VARCHAR(255) NOT NULL,
    selector VARCHAR(255) NOT NULL,
    locked TINYINT(1) NOT NULL DEFAULT 0,
    data LONGTEXT NULL,
    selector_bytes VARBINARY(1020) GENERATED ALWAYS AS (CAST(selector AS BINARY)) STORED,
    UNIQUE KEY selector_bytes (id_resource, selector_bytes)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    // One row for each slot; each has an owner at any time.
    "CREATE TABLE IF NOT EXISTS resource_slot (
    slot SMALLINT UNSIGNED NOT NULL PRIMARY KEY,
    owner BINARY(16) NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS resource_lock (
    id_resource VARCHAR(255) NOT NULL PRIMARY KEY,
    token BIGINT UNSIGNED NOT NULL,
    ticket BINARY(16) NULL,
    seq BIGINT UNSIGNED NULL,
    owner VARCHAR(255) NULL,
    ttl_ms BIGINT UNSIGNED NULL,
    mode TINYINT UNSIGNED NULL,
    reason VARCHAR(255) NULL,
    queued_at BIGINT UNSIGNED NULL,
    attempt VARBINARY(255) NULL,
    attempt_ttl_ms BIGINT UNSIGNED NULL,
    attempt_mode TINYINT UNSIGNED NULL,
    acquired_at BIGINT UNSIGNED NULL,
    lease_token BIGINT UNSIGNED NULL,
    is_delayed TINYINT UNSIGNED NOT NULL DEFAULT 0,
    KEY acquired_at (acquired_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS resource_waiting (
    id_resource VARCHAR(255) NOT NULL,
    ticket BINARY(16) NOT NULL,
    seq BIGINT UNSIGNED NOT NULL,
    owner VARCHAR(255) NULL,
    ttl_ms BIGINT UNSIGNED NULL,
    mode TINYINT UNSIGNED NULL,
    reason VARCHAR(255) NULL,
    queued_at BIGINT UNSIGNED NULL,
    attempt VARBINARY(255) NULL,
    attempt_ttl_ms BIGINT UNSIGNED NULL,
    attempt_mode TINYINT UNSIGNED NULL,
    PRIMARY KEY (id_resource, ticket)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    // All leases but the one in `resource_lock`.
    "CREATE TABLE IF NOT EXISTS resource_holding (
    id_resource VARCHAR(255) NOT NULL,
    ticket BINARY(16) NOT NULL,
    seq BIGINT UNSIGNED NOT NULL,
    owner VARCHAR(255) NULL,
    ttl_ms BIGINT UNSIGNED NULL,
    mode TINYINT UNSIGNED NULL,
    reason VARCHAR(255) NULL,
    queued_at BIGINT UNSIGNED NULL,
    attempt VARBINARY(255) NULL,
    attempt_ttl_ms BIGINT UNSIGNED NULL,
    attempt_mode TINYINT UNSIGNED NULL,
    acquired_at BIGINT UNSIGNED NOT NULL,
    token BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (id_resource, ticket)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    // Only for resources with other options than the default, apart from the timeout.
    "CREATE TABLE IF NOT EXISTS resource_options (
    id_resource VARCHAR(255) NOT NULL PRIMARY KEY,
    slots SMALLINT UNSIGNED NOT NULL,
    lock_delay TINYINT UNSIGNED NOT NULL,
    ephemeral TINYINT UNSIGNED NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    // Runs of ended tickets, each keyed by the number of its last one; see `store::ended`.
    "CREATE TABLE IF NOT EXISTS resource_ended_tickets (
    id_resource VARCHAR(255) NOT NULL,
    n BIGINT UNSIGNED NOT NULL,
    entries MEDIUMBLOB NOT NULL,
    PRIMARY KEY (id_resource, n)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    // See `store::history`. Keyed by the bytes of the name, because past leases outlive the resource.
    "CREATE TABLE IF NOT EXISTS resource_history (
    name VARBINARY(1020) NOT NULL PRIMARY KEY,
    leases MEDIUMBLOB NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS resource_adopted (
    id VARCHAR(255) NOT NULL PRIMARY KEY,
    selector VARCHAR(255) NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
];

/// All tables that a revert drops; `resource_server`, by which a database is known to be ours, is the last.
pub(super) const OWN_TABLES: [&str; 12] = [
    OLD_JOURNAL,
    "resource_lock",
    "resource_waiting",
    "resource_holding",
    "resource_options",
    "resource_ended_tickets",
    "resource_history",
    "resource_adopted",
    "resource_slot",
    "resource_log",
    "resource_instance",
    "resource_server",
];

/// Progress of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MigrationStep {
    /// It is not decided yet whether there are tables of the PHP server to adopt.
    New,
    /// The PHP server's tables are being adopted.
    Adopting,
    Ready,
    /// The tables are being made the PHP server's again.
    Reverting,
}

impl MigrationStep {
    pub fn name(self) -> &'static str {
        match self {
            MigrationStep::New => "new",
            MigrationStep::Adopting => "adopting",
            MigrationStep::Ready => "ready",
            MigrationStep::Reverting => "reverting",
        }
    }

    fn parse(text: &str) -> Option<MigrationStep> {
        use MigrationStep::{Adopting, New, Ready, Reverting};
        let all = [New, Adopting, Ready, Reverting];
        all.into_iter().find(|step| step.name() == text)
    }
}

/// The row of `resource_server`, and the rows of `resource_instance`.
#[derive(Clone, Debug)]
pub(super) struct ServerRow {
    pub version: u32,
    pub step: MigrationStep,
    pub profile: Option<Profile>,
    pub php_collation: Option<String>,
    /// The highest floor in any of these rows.
    pub token_floor: FencingToken,
    /// Grows whenever an instance gets the database exclusively, joins or goes, and whenever a slot changes
    /// hands.
    pub epoch: u64,
    /// Heartbeat of an owner that has the database exclusively: version 2.0.0 knows no other.
    pub heartbeat: u64,
    /// The instance that has the database exclusively. `None`: it is shared, or no instance has it yet.
    pub owner: Option<InstanceId>,
    /// In the order of their ids.
    pub instances: Vec<InstanceRow>,
    /// When the query for the rows was sent, and when its answer was there.
    pub sent_at: Instant,
    pub answered_at: Instant,
}

impl ServerRow {
    pub fn instance(&self, id: &InstanceId) -> Option<&InstanceRow> {
        self.instances.iter().find(|instance| instance.id == *id)
    }

    /// The row of the instance that has the database exclusively.
    pub fn owner_row(&self) -> Option<&InstanceRow> {
        self.instance(self.owner.as_ref()?)
    }

    /// Whether the membership has the database exclusively.
    pub fn is_alone(&self, membership: Membership) -> bool {
        Some(self.epoch) == membership.epoch
            && self.owner == Some(membership.id)
            && self.owner_row().map(|instance| instance.log) == Some(membership.log)
    }

    /// Whether the database is ready and shared, so that any instance may join.
    pub fn is_shared(&self) -> bool {
        self.version == VERSION && self.step == MigrationStep::Ready && self.owner.is_none()
    }
}

/// A row of `resource_instance`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InstanceRow {
    pub id: InstanceId,
    /// See [`INSTANCE`].
    pub state: u8,
    pub heartbeat: u64,
    pub log: LogId,
    /// The connection on which it writes, and the id of the server that the connection belongs to.
    pub connection: u64,
    pub server: String,
    /// Where it takes requests from other instances, and the secret that both sides must know.
    pub address: Option<String>,
    pub peer_secret: Vec<u8>,
    /// The instance that takes over from it.
    pub executor: Option<InstanceId>,
    pub lease_ms: u64,
    /// Version of its program.
    pub version: String,
}

/// Creates what is missing of `resource_server` with its row, `resource_log` and `resource_instance`, and reads
/// the rows.
pub(super) async fn create_server_row(session: &mut Session) -> Result<ServerRow, Fault> {
    for sql in [SERVER, SERVER_ROW, LOG, INSTANCE] {
        session.run(sql).await?;
    }
    let row = read_server_row(session).await?;
    row.ok_or_else(|| Fault::Away("the row of resource_server is gone".into()))
}

/// The version of the schema; `None`: the table is empty.
pub(super) async fn version(session: &mut Session) -> Result<Option<u32>, Fault> {
    let sql = "SELECT version FROM resource_server WHERE id = 1";
    Ok(session.rows(sql).await?.pop())
}

/// Reads the rows; `None`: the table is empty.
///
/// # Errors
/// [`StoreError::Unusable`]: a newer program wrote the schema.
pub(super) async fn read_server_row(session: &mut Session) -> Result<Option<ServerRow>, Fault> {
    // A newer schema may have other columns: look at the version before anything else.
    let Some(version) = version(session).await? else {
        return Ok(None);
    };
    if version > VERSION {
        let text = format!(
            "its schema has version {version} and this program knows versions up to {VERSION}; \
             start a newer program"
        );
        return Err(StoreError::Unusable(text).into());
    }
    Ok(run_and_read(session, Sql::default()).await?.1)
}

/// Two SELECTs, whose answers [`parse`] reads.
const ROWS: &str = "SELECT version, step, profile, php_collation, floor, epoch, heartbeat, owner \
    FROM resource_server WHERE id = 1; \
    SELECT id, state, heartbeat, log, connection, server, address, peer_secret, executor, lease_ms, version, floor \
    FROM resource_instance ORDER BY id";

/// Runs these statements, each of which must end with a semicolon, and reads the rows after them. Returns the
/// statements' answers, and the rows; `None`: the table is empty.
pub(super) async fn run_and_read(
    session: &mut Session,
    mut statements: Sql,
) -> Result<(Sets, Option<ServerRow>), Fault> {
    let sent_at = Instant::now();
    let mut sets = session.run(statements.push(ROWS).as_str()).await?;
    let read = sent_at..Instant::now();
    let (instances, server) = (sets.pop().unwrap_or_default(), sets.pop());
    let server = server.unwrap_or_default().pop();
    let row = server.map(|server| parse(server, instances, read));
    Ok((sets, row.transpose()?))
}

fn parse(server: Row, instances: Vec<Row>, read: Range<Instant>) -> Result<ServerRow, Fault> {
    let mut columns = Columns::of(server);
    let version = columns.take()?;
    let step: String = columns.take()?;
    let profile: Option<String> = columns.take()?;
    let unknown = |what: &str, text: &str| {
        StoreError::Unusable(format!("resource_server has the unknown {what} `{text}`"))
    };
    let mut row = ServerRow {
        version,
        step: MigrationStep::parse(&step).ok_or_else(|| unknown("step", &step))?,
        profile: profile
            .map(|text| Profile::parse(&text).ok_or_else(|| unknown("profile", &text)))
            .transpose()?,
        php_collation: columns.take()?,
        token_floor: FencingToken(columns.take()?),
        epoch: columns.take()?,
        heartbeat: columns.take()?,
        owner: columns.take()?,
        instances: Vec::new(),
        sent_at: read.start,
        answered_at: read.end,
    };
    for instance in instances {
        let mut columns = Columns::of(instance);
        row.instances.push(InstanceRow {
            id: columns.take()?,
            state: columns.take()?,
            heartbeat: columns.take()?,
            log: columns.take()?,
            connection: columns.take()?,
            server: columns.take()?,
            address: columns.take()?,
            peer_secret: columns.take()?,
            executor: columns.take()?,
            lease_ms: columns.take()?,
            version: columns.take()?,
        });
        let floor = FencingToken(columns.take()?);
        row.token_floor = row.token_floor.max(floor);
    }
    Ok(row)
}

/// The names of a table's columns; empty when it does not exist.
pub(super) async fn columns(session: &mut Session, table: &str) -> Result<Vec<String>, Fault> {
    let mut sql = Sql::new(
        "SELECT column_name FROM information_schema.columns \
         WHERE table_schema = DATABASE() AND table_name = ",
    );
    sql.text(table).push(" ORDER BY ordinal_position");
    session.rows(sql.as_str()).await
}

/// The names of a table's indexes, without its primary key.
pub(super) async fn indexes(session: &mut Session, table: &str) -> Result<Vec<String>, Fault> {
    let mut sql = Sql::new(
        "SELECT DISTINCT index_name FROM information_schema.statistics \
         WHERE table_schema = DATABASE() AND index_name <> 'PRIMARY' AND table_name = ",
    );
    session.rows(sql.text(table).as_str()).await
}

/// Refuses tables of another engine than InnoDB, without transactions: then nothing that this store promises holds.
pub(super) async fn refuse_foreign_engines(session: &mut Session) -> Result<(), Fault> {
    let mut sql = Sql::new(
        "SELECT table_name, COALESCE(engine, table_type) FROM information_schema.tables \
         WHERE table_schema = DATABASE() AND table_name IN ('resource', 'resource_data'",
    );
    for table in OWN_TABLES {
        sql.push(", ").text(table);
    }
    sql.push(") AND NOT engine <=> 'InnoDB'");
    let mut foreign: Vec<(String, String)> = session.rows(sql.as_str()).await?;
    let Some((table, engine)) = foreign.pop() else {
        return Ok(());
    };
    let text = format!(
        "its table `{table}` has the engine {engine}; run ALTER TABLE {table} ENGINE = InnoDB, \
         ROW_FORMAT = DYNAMIC"
    );
    Err(StoreError::Unusable(text).into())
}
