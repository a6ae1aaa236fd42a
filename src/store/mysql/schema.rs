//! The tables, and how a database comes to have them.
//!
//! `resource` and `resource_data` are the PHP server's, with columns of our own added. The rest is ours:
//! `resource_server` has one row that says whose the database is and how far its schema is; every write
//! transaction begins by locking it.

use mysql_async::Row;

use super::error::{Fault, code};
use super::session::{Columns, Session, value};
use super::sql::{HELD_INDEX, Sql};
use crate::lock::{FencingToken, Profile};
use crate::store::{ActiveInstance, InstanceId, PeerAddress, ResourceId, StoreError};

/// The newest schema this program knows.
pub(super) const VERSION: u32 = 4;

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
    connection BIGINT UNSIGNED NULL,
    server VARCHAR(255) NULL,
    address VARCHAR(255) NULL,
    peer_secret VARBINARY(255) NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

/// What version 2.0.0 did not have. Added before anything else is read: whoever takes over has to know, and who
/// stands by too.
const NEW_COLUMNS: [&str; 3] = [
    // Which server the connection belongs to.
    "ALTER TABLE resource_server ADD COLUMN server VARCHAR(255) NULL",
    // Where the owner takes requests from other instances, and what both have to know.
    "ALTER TABLE resource_server ADD COLUMN address VARCHAR(255) NULL",
    "ALTER TABLE resource_server ADD COLUMN peer_secret VARBINARY(255) NULL",
];

const SERVER_ROW: &str = "INSERT IGNORE INTO resource_server
    (id, version, step, floor, epoch, heartbeat) VALUES (1, 0, 'new', 0, 0, 0)";

const RESOURCE: &str = "CREATE TABLE IF NOT EXISTS resource (
    id VARCHAR(255) NOT NULL PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    timeout INT NOT NULL,
    name_bytes VARBINARY(1020) GENERATED ALWAYS AS (CAST(name AS BINARY)) STORED,
    UNIQUE KEY name_bytes (name_bytes)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

const RESOURCE_DATA: &str = "CREATE TABLE IF NOT EXISTS resource_data (
    id VARCHAR(255) NOT NULL PRIMARY KEY,
    id_resource VARCHAR(255) NOT NULL,
    selector VARCHAR(255) NOT NULL,
    locked TINYINT(1) NOT NULL DEFAULT 0,
    data LONGTEXT NULL,
    selector_bytes VARBINARY(1020) GENERATED ALWAYS AS (CAST(selector AS BINARY)) STORED,
    UNIQUE KEY selector_bytes (id_resource, selector_bytes)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

/// Lock state, and what reverting needs to know of selectors that do not encode to what they were.
const OWN: [&str; 8] = [
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
    // Leases beside the one in `resource_lock`.
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
    // Of resources that have others than one slot and no lock-delay.
    "CREATE TABLE IF NOT EXISTS resource_options (
    id_resource VARCHAR(255) NOT NULL PRIMARY KEY,
    slots SMALLINT UNSIGNED NOT NULL,
    lock_delay TINYINT UNSIGNED NOT NULL,
    ephemeral TINYINT UNSIGNED NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    // Runs of ended tickets, each named by the number of its last one; see `store::ended`.
    "CREATE TABLE IF NOT EXISTS resource_ended_tickets (
    id_resource VARCHAR(255) NOT NULL,
    n BIGINT UNSIGNED NOT NULL,
    entries MEDIUMBLOB NOT NULL,
    PRIMARY KEY (id_resource, n)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    // See `store::journal`.
    "CREATE TABLE IF NOT EXISTS resource_journal (
    n BIGINT UNSIGNED NOT NULL PRIMARY KEY,
    changes LONGBLOB NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    // See `store::history`. By the bytes of the name, because they outlive the resource.
    "CREATE TABLE IF NOT EXISTS resource_history (
    name VARBINARY(1020) NOT NULL PRIMARY KEY,
    leases MEDIUMBLOB NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS resource_adopted (
    id VARCHAR(255) NOT NULL PRIMARY KEY,
    selector VARCHAR(255) NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
];

/// Version 1 had a row for each ended ticket.
const ENDED_V1: &str = "resource_ended";

/// Everything that reverting removes, the marker last.
pub(super) const OWN_TABLES: [&str; 11] = [
    "resource_journal",
    "resource_lock",
    "resource_waiting",
    "resource_holding",
    "resource_options",
    "resource_ended_tickets",
    ENDED_V1,
    "resource_history",
    "resource_adopted",
    "resource_php_table",
    "resource_server",
];

/// How far the schema is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MigrationStep {
    /// Nothing is decided yet.
    New,
    /// The PHP server's tables are being taken over.
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
        let all = [
            MigrationStep::New,
            MigrationStep::Adopting,
            MigrationStep::Ready,
            MigrationStep::Reverting,
        ];
        all.into_iter().find(|step| step.name() == text)
    }
}

/// The row of `resource_server`.
#[derive(Clone, Debug)]
pub(super) struct ServerRow {
    pub version: u32,
    pub step: MigrationStep,
    pub profile: Option<Profile>,
    pub php_collation: Option<String>,
    pub token_floor: FencingToken,
    pub epoch: u64,
    pub heartbeat: u64,
    pub owner: Option<Vec<u8>>,
    /// The connection that writes, and the server that it belongs to.
    pub connection: Option<u64>,
    pub server: Option<String>,
    /// Where the owner takes requests from other instances, and the secret for that.
    pub address: Option<String>,
    pub peer_secret: Option<Vec<u8>>,
}

impl ServerRow {
    /// Whose the database is.
    pub fn active(&self, me: &InstanceId) -> Option<ActiveInstance> {
        let id = InstanceId::try_from(self.owner.as_deref()?).ok()?;
        let peer = |address: &String| {
            Some(PeerAddress {
                address: address.clone(),
                secret: self.peer_secret.clone()?,
            })
        };
        Some(ActiveInstance {
            id,
            is_here: id == *me,
            peer: self.address.as_ref().and_then(peer),
            heartbeat: self.heartbeat,
            recorded_profile: self.profile,
        })
    }
}

/// Reads the row, which is made when the database is new.
pub(super) async fn server_row(session: &mut Session) -> Result<ServerRow, Fault> {
    match read_server_row(session).await {
        Ok(Some(row)) => Ok(row),
        Err(fault) if fault.is(code::NO_SUCH_COLUMN) => {
            for column in NEW_COLUMNS {
                match session.run(column).await {
                    Ok(_) => {}
                    // There before, or another instance was faster.
                    Err(fault) if fault.is(code::COLUMN_EXISTS) => {}
                    Err(fault) => return Err(fault),
                }
            }
            let row = read_server_row(session).await?;
            row.ok_or_else(|| Fault::Away("the row of resource_server is gone".into()))
        }
        Err(fault) if !fault.is(code::NO_SUCH_TABLE) => Err(fault),
        Ok(None) | Err(_) => {
            session.run(SERVER).await?;
            session.run(SERVER_ROW).await?;
            let row = read_server_row(session).await?;
            row.ok_or_else(|| Fault::Away("the row of resource_server is gone".into()))
        }
    }
}

/// `None`: the table is empty.
pub(super) async fn read_server_row(session: &mut Session) -> Result<Option<ServerRow>, Fault> {
    // A newer schema may have other columns: look at the version before anything else.
    let sql = "SELECT version FROM resource_server WHERE id = 1";
    let rows = session.rows(sql).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let version: u32 = value(rows)?;
    if version > VERSION {
        let text = format!(
            "its schema has version {version} and this program knows versions up to {VERSION}; \
             start a newer program"
        );
        return Err(StoreError::Unusable(text).into());
    }
    let sql = "SELECT version, step, profile, php_collation, floor, epoch, heartbeat, owner, connection, \
               server, address, peer_secret FROM resource_server WHERE id = 1";
    match session.rows(sql).await?.pop() {
        Some(row) => parse(row).map(Some),
        None => Ok(None),
    }
}

fn parse(row: Row) -> Result<ServerRow, Fault> {
    let mut columns = Columns::of(row);
    let version = columns.take()?;
    let step: String = columns.take()?;
    let profile: Option<String> = columns.take()?;
    let unknown = |what: &str, text: &str| {
        StoreError::Unusable(format!("resource_server has the unknown {what} `{text}`"))
    };
    Ok(ServerRow {
        version,
        step: MigrationStep::parse(&step).ok_or_else(|| unknown("step", &step))?,
        profile: match profile {
            Some(text) => Some(Profile::parse(&text).ok_or_else(|| unknown("profile", &text))?),
            None => None,
        },
        php_collation: columns.take()?,
        token_floor: FencingToken(columns.take()?),
        epoch: columns.take()?,
        heartbeat: columns.take()?,
        owner: columns.take()?,
        connection: columns.take()?,
        server: columns.take()?,
        address: columns.take()?,
        peer_secret: columns.take()?,
    })
}

/// Brings the schema to [`VERSION`]. The caller owns the database in `epoch`, and goes on sending
/// heartbeats meanwhile: adopting a large database takes its time. Whatever was begun is gone on with.
pub(super) async fn migrate(
    session: &mut Session,
    row: &ServerRow,
    epoch: Epoch,
    explicit: Option<Profile>,
) -> Result<(), Fault> {
    let mut step = row.step;
    if step == MigrationStep::New {
        step = super::php::adopt::begin(session, epoch, explicit).await?;
    }
    if step == MigrationStep::Adopting {
        super::php::adopt::reshape(session).await?;
    }
    for table in [RESOURCE, RESOURCE_DATA].into_iter().chain(OWN) {
        session.run(table).await?;
    }
    session.run(super::php::definition::TAKEN_DOWN).await?;
    // Of a database that version 2.0.0 adopted.
    super::php::adopt::drop_foreign_keys(session).await?;
    convert_engines(session).await?;
    move_ended(session).await?;
    refine_tickets(session).await?;
    match step {
        MigrationStep::Adopting => super::php::adopt::finish(session, epoch).await,
        _ => set_ready(session, epoch).await,
    }
}

/// From version 1: each ended ticket becomes a run of one. May be begun again.
async fn move_ended(session: &mut Session) -> Result<(), Fault> {
    if columns(session, ENDED_V1).await?.is_empty() {
        return Ok(());
    }
    let copy = format!(
        "INSERT IGNORE INTO resource_ended_tickets (id_resource, n, entries) \
         SELECT id_resource, n, CONCAT(ticket, CHAR(reason)) FROM {ENDED_V1}"
    );
    session.run(&copy).await?;
    session.run(&format!("DROP TABLE {ENDED_V1}")).await?;
    Ok(())
}

/// Up to version 3 durations were whole seconds, and a lock had no more than one lease. May be begun again.
async fn refine_tickets(session: &mut Session) -> Result<(), Fault> {
    const NEW: &str = "ADD COLUMN ttl_ms BIGINT UNSIGNED NULL AFTER owner, \
        ADD COLUMN mode TINYINT UNSIGNED NULL AFTER ttl_ms, \
        ADD COLUMN reason VARCHAR(255) NULL AFTER mode, \
        ADD COLUMN queued_at BIGINT UNSIGNED NULL AFTER reason, \
        ADD COLUMN attempt_ttl_ms BIGINT UNSIGNED NULL AFTER attempt, \
        ADD COLUMN attempt_mode TINYINT UNSIGNED NULL AFTER attempt_ttl_ms";
    const OF_LOCKS: &str = ", ADD COLUMN lease_token BIGINT UNSIGNED NULL, \
        ADD COLUMN is_delayed TINYINT UNSIGNED NOT NULL DEFAULT 0";
    for (table, more) in [("resource_lock", OF_LOCKS), ("resource_waiting", "")] {
        let has = columns(session, table).await?;
        if !has.iter().any(|column| column == "ttl_ms") {
            session
                .run(&format!("ALTER TABLE {table} {NEW}{more}"))
                .await?;
        }
        if has.iter().any(|column| column == "ttl") {
            let copy = format!(
                "UPDATE {table} SET ttl_ms = ttl * 1000, attempt_ttl_ms = attempt_ttl * 1000 \
                 WHERE ticket IS NOT NULL"
            );
            session.run(&copy).await?;
            let drop = format!("ALTER TABLE {table} DROP COLUMN ttl, DROP COLUMN attempt_ttl");
            session.run(&drop).await?;
        }
    }
    if !indexes(session, "resource_lock")
        .await?
        .contains(&HELD_INDEX.to_owned())
    {
        let add = format!("ALTER TABLE resource_lock ADD KEY {HELD_INDEX} (acquired_at)");
        session.run(&add).await?;
    }
    let widen = "ALTER TABLE resource_ended_tickets MODIFY entries MEDIUMBLOB NOT NULL";
    session.run(widen).await?;
    Ok(())
}

async fn set_ready(session: &mut Session, epoch: Epoch) -> Result<(), Fault> {
    let mut sql = Sql::new("UPDATE resource_server SET step = 'ready', version = ");
    sql.number(VERSION);
    sql.push(" WHERE id = 1 AND epoch = ").number(epoch.number);
    match session.change(sql.as_str()).await? {
        0 => Err(StoreError::Standby.into()),
        _ => Ok(()),
    }
}

/// What makes a transaction one of this epoch, and what it begins with: a locking read of the row that fails
/// unless the epoch is still the writer's. (It sets the epoch to itself, or to `NULL`, which strict mode
/// refuses; so the check needs no round trip of its own.) See [`is_fenced`].
pub(super) fn guard(sql: &mut Sql, epoch: Epoch) {
    sql.push("UPDATE resource_server SET ");
    if epoch.is_shared_by_members {
        // What changes nothing is in no write set: a take-over that was committed at another member, and is
        // not applied here yet, would not meet it. Both change this row, so only the first is certified;
        // and whoever takes over has applied everything that was committed before, or is refused.
        sql.push("heartbeat = heartbeat + 1, ");
    }
    sql.push("epoch = IF(epoch = ").number(epoch.number);
    sql.push(", epoch, NULL) WHERE id = 1");
}

/// In which a writer owns the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch {
    pub number: u64,
    /// The database has several servers that take writes (Galera, Group Replication).
    pub is_shared_by_members: bool,
}

/// Whether the guard refused. No other statement of ours can put `NULL` into this column.
pub(super) fn is_fenced(fault: &Fault) -> bool {
    refused_null(fault, "'epoch'")
}

/// Fails unless all of these resources exist; in the same way as [`guard`]. (Foreign keys would say so
/// too, but the PHP server's tables have none, and may have rows that would contradict them.)
pub(super) fn guard_existence(sql: &mut Sql, ids: &[&ResourceId]) {
    sql.push(
        "UPDATE resource_server SET version = IF((SELECT COUNT(*) FROM resource WHERE id IN (",
    );
    for (place, id) in ids.iter().enumerate() {
        sql.push(if place > 0 { "," } else { "" });
        sql.text(id.as_str());
    }
    sql.push(")) = ").number(ids.len() as u64);
    sql.push(", version, NULL) WHERE id = 1");
}

/// Fails unless the journal has this many rows up to this number; in the same way as [`guard`].
pub(super) fn guard_journal(sql: &mut Sql, up_to: u64, rows: u64) {
    sql.push(
        "UPDATE resource_server SET floor = IF((SELECT COUNT(*) FROM resource_journal WHERE n <= ",
    );
    sql.number(up_to).push(") = ").number(rows);
    sql.push(", floor, NULL) WHERE id = 1");
}

/// Whether [`guard_journal`] refused.
pub(super) fn is_miscounted(fault: &Fault) -> bool {
    refused_null(fault, "'floor'")
}

/// Whether [`guard_existence`] refused.
pub(super) fn is_missing_resource(fault: &Fault) -> bool {
    refused_null(fault, "'version'")
}

fn refused_null(fault: &Fault, column: &str) -> bool {
    matches!(fault, Fault::Server { code, text, .. }
        if *code == code::NULL_IN_NOT_NULL && text.contains(column))
}

/// The names of a table's columns; empty when it does not exist.
pub(super) async fn columns(session: &mut Session, table: &str) -> Result<Vec<String>, Fault> {
    let mut sql = Sql::new(
        "SELECT column_name FROM information_schema.columns \
         WHERE table_schema = DATABASE() AND table_name = ",
    );
    sql.text(table).push(" ORDER BY ordinal_position");
    let rows = session.rows(sql.as_str()).await?;
    rows.into_iter()
        .map(|row| Columns::of(row).take())
        .collect()
}

/// The names of a table's indexes, without its primary key.
pub(super) async fn indexes(session: &mut Session, table: &str) -> Result<Vec<String>, Fault> {
    let mut sql = Sql::new(
        "SELECT DISTINCT index_name FROM information_schema.statistics \
         WHERE table_schema = DATABASE() AND index_name <> 'PRIMARY' AND table_name = ",
    );
    let rows = session.rows(sql.text(table).as_str()).await?;
    rows.into_iter()
        .map(|row| Columns::of(row).take())
        .collect()
}

/// Tables of ours, or the PHP server's, that another engine than InnoDB has, and which that is.
async fn foreign_engines(session: &mut Session) -> Result<Vec<(String, String)>, Fault> {
    let mut sql = Sql::new(
        "SELECT table_name, COALESCE(engine, table_type) FROM information_schema.tables \
         WHERE table_schema = DATABASE() AND table_name IN ('resource', 'resource_data'",
    );
    for table in OWN_TABLES {
        sql.push(", ").text(table);
    }
    sql.push(") AND NOT engine <=> 'InnoDB'");
    let rows = session.rows(sql.as_str()).await?;
    let pairs = rows.into_iter().map(|row| {
        let mut row = Columns::of(row);
        Ok((row.take()?, row.take()?))
    });
    pairs.collect()
}

/// Without transactions nothing that is promised holds.
pub(super) async fn refuse_foreign_engines(session: &mut Session) -> Result<(), Fault> {
    let Some((table, engine)) = foreign_engines(session).await?.pop() else {
        return Ok(());
    };
    let text = format!(
        "its table `{table}` has the engine {engine}; run ALTER TABLE {table} ENGINE = InnoDB, \
         ROW_FORMAT = DYNAMIC"
    );
    Err(StoreError::Unusable(text).into())
}

/// Version 2.0.0 took over tables of engines that have no transactions as they were.
async fn convert_engines(session: &mut Session) -> Result<(), Fault> {
    for (table, engine) in foreign_engines(session).await? {
        log::warn!("the table {table} has the engine {engine}; it becomes InnoDB's");
        let mut sql = Sql::new("ALTER TABLE ");
        sql.identifier(&table);
        sql.push(" ENGINE = InnoDB, ROW_FORMAT = DYNAMIC");
        session.run(sql.as_str()).await?;
    }
    Ok(())
}
