//! Adoption of the PHP server's tables, once for each database.
//!
//! DDL commits by itself, so a crash can come between any two steps: each looks at what is there before it acts.
//! What must happen exactly once, the decoding of selectors, is one transaction with the mark that it is done.

use std::collections::BTreeMap;

use super::selectors;
use crate::lock::Profile;
use crate::store::StoreError;
use crate::store::mysql::error::Fault;
use crate::store::mysql::fence::{self, Membership};
use crate::store::mysql::schema::{self, MigrationStep};
use crate::store::mysql::session::Session;
use crate::store::mysql::sql::Sql;

/// Whether the tables are the PHP server's and have to be adopted.
///
/// # Errors
/// [`StoreError::Unusable`]: they cannot be adopted, or are another program's.
pub(in crate::store::mysql) async fn has_tables_to_adopt(
    session: &mut Session,
) -> Result<bool, Fault> {
    let columns = schema::columns(session, "resource").await?;
    let has = |wanted: &str| columns.iter().any(|c| c.eq_ignore_ascii_case(wanted));
    if columns.is_empty() || has("name_bytes") {
        return Ok(false);
    }
    if !["id", "name", "timeout"].into_iter().all(has) {
        let text =
            "it has a table `resource` that is not the PHP server's; choose another MYSQL_DATABASE";
        return Err(unusable(text.into()));
    }
    refuse_what_cannot_be_adopted(session).await?;
    Ok(true)
}

/// Finds out whether the tables are the PHP server's, and if they are, records that their adoption has begun.
/// `explicit`: the profile that the operator set; without one, the PHP server's profile is recorded.
///
/// # Errors
/// As [`has_tables_to_adopt`].
pub(in crate::store::mysql) async fn begin(
    session: &mut Session,
    membership: Membership,
    explicit: Option<Profile>,
) -> Result<MigrationStep, Fault> {
    if !has_tables_to_adopt(session).await? {
        return Ok(MigrationStep::New);
    }
    let mut sql = Sql::new("BEGIN; ");
    fence::guard(&mut sql, membership);
    sql.push(
        "; UPDATE resource_server SET step = 'adopting', php_collation = (\
         SELECT table_collation FROM information_schema.tables \
         WHERE table_schema = DATABASE() AND table_name = 'resource'), profile = ",
    );
    let profile = explicit.is_none().then_some(Profile::Php);
    sql.or_null(profile, |sql, profile| sql.text(profile.name()));
    sql.push(" WHERE id = 1; COMMIT");
    session.run(sql.as_str()).await?;
    log::warn!("the database was written by the PHP server; its tables are being adopted");
    Ok(MigrationStep::Adopting)
}

/// Columns of the PHP server's tables that hold text. A row with `NULL` in one of them could not be found
/// again.
const TEXT_COLUMNS: [(&str, &[&str]); 2] = [
    ("resource", &["id", "name"]),
    ("resource_data", &["id", "id_resource", "selector"]),
];

/// Refuses tables whose adoption would fail half way, or lose rows; the error says why in a sentence.
async fn refuse_what_cannot_be_adopted(session: &mut Session) -> Result<(), Fault> {
    for (table, columns) in TEXT_COLUMNS {
        refuse_table(session, table, columns).await?;
    }
    let sql = "SELECT constraint_name, table_schema, table_name FROM information_schema.key_column_usage \
               WHERE referenced_table_schema = DATABASE() \
               AND referenced_table_name IN ('resource', 'resource_data') \
               AND NOT (table_schema = DATABASE() AND table_name IN ('resource', 'resource_data'))";
    let mut keys: Vec<(String, String, String)> = session.rows(sql).await?;
    if let Some((key, schema, table)) = keys.pop() {
        return Err(unusable(format!(
            "the foreign key `{key}` of `{schema}`.`{table}` refers to the PHP server's tables, which \
             therefore cannot be adopted; drop the key"
        )));
    }
    Ok(())
}

fn unusable(text: String) -> Fault {
    StoreError::Unusable(text).into()
}

async fn refuse_table(session: &mut Session, table: &str, columns: &[&str]) -> Result<(), Fault> {
    let mut sql = Sql::new(
        "SELECT table_type, create_options FROM information_schema.tables \
         WHERE table_schema = DATABASE() AND table_name = ",
    );
    let mut tables: Vec<(String, Option<String>)> = session.rows(sql.text(table).as_str()).await?;
    // `resource_data` may be missing: then it is created.
    let Some((kind, options)) = tables.pop() else {
        return Ok(());
    };
    if kind != "BASE TABLE" {
        return Err(unusable(format!(
            "`{table}` is of the kind {kind}, and only a plain table can be adopted from the PHP server"
        )));
    }
    if options.unwrap_or_default().contains("partitioned") {
        return Err(unusable(format!(
            "its table `{table}` is partitioned; run ALTER TABLE {table} REMOVE PARTITIONING"
        )));
    }
    for column in columns {
        refuse_column(session, table, column).await?;
    }
    Ok(())
}

async fn refuse_column(session: &mut Session, table: &str, column: &str) -> Result<(), Fault> {
    let mut sql = Sql::new(
        "SELECT data_type FROM information_schema.columns WHERE table_schema = DATABASE() \
         AND table_name = ",
    );
    sql.text(table).push(" AND column_name = ").text(column);
    let Some(kind) = session.rows::<String>(sql.as_str()).await?.pop() else {
        return Err(unusable(format!(
            "its table `{table}` has no column `{column}`, so it is not the PHP server's"
        )));
    };
    if !kind.to_ascii_lowercase().ends_with("char") {
        return Err(unusable(format!(
            "the column `{column}` of its table `{table}` is of the type {kind}, so it is not the PHP \
             server's"
        )));
    }
    let sql = format!("SELECT COUNT(*) FROM {table} WHERE {column} IS NULL");
    let missing: u64 = session.row(&sql).await?;
    if missing > 0 {
        return Err(unusable(format!(
            "{missing} rows of its table `{table}` have no `{column}` (NULL), so no request could reach them; \
             delete them, or set the column"
        )));
    }
    Ok(())
}

/// Drops the foreign keys of the PHP server's tables, which prevent a change of character set, and the removal of a
/// resource that has documents.
pub(in crate::store::mysql) async fn drop_foreign_keys(session: &mut Session) -> Result<(), Fault> {
    let sql = "SELECT table_name, constraint_name FROM information_schema.table_constraints \
               WHERE table_schema = DATABASE() AND constraint_type = 'FOREIGN KEY' \
               AND table_name IN ('resource', 'resource_data')";
    for (table, key) in session.rows::<(String, String)>(sql).await? {
        let mut sql = Sql::new("ALTER TABLE ");
        sql.identifier(&table)
            .push(" DROP FOREIGN KEY ")
            .identifier(&key);
        session.run(sql.as_str()).await?;
    }
    Ok(())
}

/// Converts the PHP server's tables, which have no foreign keys any more, to InnoDB and a binary collation, and
/// adds unique keys on the bytes of names and selectors, so that they compare byte for byte from here on.
pub(in crate::store::mysql) async fn reshape(session: &mut Session) -> Result<(), Fault> {
    for ((table, text), (column, unique)) in TEXT_COLUMNS.into_iter().zip([
        ("name", "name_bytes"),
        ("selector", "id_resource, selector_bytes"),
    ]) {
        let bytes = format!("{column}_bytes");
        let columns = schema::columns(session, table).await?;
        if columns.is_empty() || columns.contains(&bytes) {
            continue;
        }
        let mut changes = String::from(
            "ENGINE = InnoDB, ROW_FORMAT = DYNAMIC, \
             CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        );
        for text in text {
            changes += &format!(
                ", MODIFY COLUMN {text} VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL"
            );
        }
        changes += &format!(
            ", ADD COLUMN {bytes} VARBINARY(1020) GENERATED ALWAYS AS (CAST({column} AS BINARY)) STORED, \
             ADD UNIQUE KEY {bytes} ({unique})"
        );
        alter(session, table, &changes).await?;
    }
    Ok(())
}

/// Makes these changes to a table in one statement, which also drops its indexes, apart from the primary key.
pub(super) async fn alter(session: &mut Session, table: &str, changes: &str) -> Result<(), Fault> {
    let mut sql = Sql::new("ALTER TABLE ");
    sql.push(table).push(" ").push(changes);
    for index in schema::indexes(session, table).await? {
        sql.push(", DROP INDEX ").identifier(&index);
    }
    session.run(sql.as_str()).await?;
    Ok(())
}

/// Decodes the selectors, in the transaction that marks the adoption as done.
pub(in crate::store::mysql) async fn decode_selectors(session: &mut Session) -> Result<(), Fault> {
    let mut statements = Vec::new();
    for (id_resource, ids) in escaped_selectors(session).await? {
        decode(&mut statements, &id_resource, &ids);
    }
    run_all(session, &statements).await
}

/// The ids of documents, by resource id and selector: those of every resource with a selector that has, or had
/// before it was adopted, characters other than letters, digits and `-_.~`.
pub(super) async fn escaped_selectors(
    session: &mut Session,
) -> Result<BTreeMap<String, BTreeMap<String, String>>, Fault> {
    let sql = "SELECT id_resource, selector, id FROM resource_data WHERE id_resource IN \
               (SELECT id_resource FROM resource_data WHERE selector REGEXP '[^-A-Za-z0-9._~]' \
               OR id IN (SELECT id FROM resource_adopted))";
    let mut resources: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (resource, selector, id) in session.rows::<(String, String, String)>(sql).await? {
        resources.entry(resource).or_default().insert(selector, id);
    }
    Ok(resources)
}

/// `ids`: the ids of the resource's documents, by selector.
fn decode(statements: &mut Vec<Sql>, id_resource: &str, ids: &BTreeMap<String, String>) {
    for (stored, text) in selectors::decoded(ids.keys().map(String::as_str)) {
        let id = &ids[stored];
        if text != stored {
            statements.push(rename(id, &text));
        } else if stored.contains('%') {
            log::warn!(
                "resource {id_resource}: selector {stored:?} keeps its escapes, because decoded it is another \
                 row's selector, or not valid"
            );
        }
        // Remember the selectors that encoding would not restore, so that a revert can.
        if selectors::encode(&text) != stored {
            statements.push(remember(id, stored));
        }
    }
}

pub(super) fn rename(id: &str, selector: &str) -> Sql {
    let mut sql = Sql::new("UPDATE resource_data SET selector = ");
    sql.text(selector).push(" WHERE id = ").text(id);
    sql
}

fn remember(id: &str, selector: &str) -> Sql {
    let mut sql = Sql::new("INSERT INTO resource_adopted (id, selector) VALUES (");
    sql.text(id).push(", ").text(selector);
    sql.push(") ON DUPLICATE KEY UPDATE selector = VALUES(selector)");
    sql
}

/// How many small statements one packet has: each has at most 5 KB, and no server accepts less than 1 MB unless
/// it is configured to.
const STATEMENTS_AT_ONCE: usize = 200;

pub(super) async fn run_all(session: &mut Session, statements: &[Sql]) -> Result<(), Fault> {
    for some in statements.chunks(STATEMENTS_AT_ONCE) {
        let texts: Vec<_> = some.iter().map(Sql::as_str).collect();
        session.run(&texts.join("; ")).await?;
    }
    Ok(())
}
