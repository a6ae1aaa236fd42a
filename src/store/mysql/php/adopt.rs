//! Adoption of the PHP server's tables, once for each database.
//!
//! DDL commits by itself, so a crash can come between any two steps. Each step looks at what is there before it
//! acts. What must happen exactly once, the decoding of selectors, is one transaction with the mark that it is
//! done.

use std::collections::BTreeMap;

use super::definition;
use super::selectors;
use crate::lock::Profile;
use crate::store::StoreError;
use crate::store::mysql::error::Fault;
use crate::store::mysql::fence::{self, Membership};
use crate::store::mysql::schema::{self, MigrationStep, VERSION};
use crate::store::mysql::session::Session;
use crate::store::mysql::sql::Sql;

/// Whether the tables are the PHP server's and have to be adopted.
///
/// # Errors
/// [`StoreError::Unusable`]: they cannot be adopted.
pub(in crate::store::mysql) async fn has_tables_to_adopt(
    session: &mut Session,
) -> Result<bool, Fault> {
    let columns = schema::resource_columns(session).await?;
    let is_ours = |column: &String| column.eq_ignore_ascii_case("name_bytes");
    if columns.is_empty() || columns.iter().any(is_ours) {
        return Ok(false);
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
    session.run(definition::TAKEN_DOWN).await?;
    let mut sql = Sql::new("BEGIN; ");
    fence::guard(&mut sql, membership);
    sql.push("; ");
    sql.push(definition::take_down(session).await?.as_str());
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

/// Engines whose tables can be converted to InnoDB without a loss.
const CONVERTED_ENGINES: [&str; 4] = ["InnoDB", "MyISAM", "Aria", "MEMORY"];

/// Columns of the PHP server's tables that hold text. A row with `NULL` in one of them could not be found
/// again.
const TEXT_COLUMNS: [(&str, &[&str]); 2] = [
    ("resource", &["id", "name"]),
    ("resource_data", &["id", "id_resource", "selector"]),
];

/// Refuses tables whose adoption would fail half way, or lose rows; the error says why in a sentence.
async fn refuse_what_cannot_be_adopted(session: &mut Session) -> Result<(), Fault> {
    for (table, columns) in TEXT_COLUMNS {
        refuse_kind(session, table).await?;
        for column in columns {
            refuse_column(session, table, column).await?;
        }
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

async fn refuse_kind(session: &mut Session, table: &str) -> Result<(), Fault> {
    let mut sql = Sql::new(
        "SELECT table_type, engine, create_options FROM information_schema.tables \
         WHERE table_schema = DATABASE() AND table_name = ",
    );
    let mut tables: Vec<(String, Option<String>, Option<String>)> =
        session.rows(sql.text(table).as_str()).await?;
    let Some((kind, engine, options)) = tables.pop() else {
        return Ok(());
    };
    let engine = engine.unwrap_or_default();
    if kind != "BASE TABLE" {
        return Err(unusable(format!(
            "`{table}` is of the kind {kind}, and only a plain table can be adopted from the PHP server"
        )));
    }
    if !CONVERTED_ENGINES
        .iter()
        .any(|known| known.eq_ignore_ascii_case(&engine))
    {
        return Err(unusable(format!(
            "its table `{table}` has the engine {engine}, and only tables of the engines {} can be \
             adopted from the PHP server",
            CONVERTED_ENGINES.join(", ")
        )));
    }
    if options.unwrap_or_default().contains("partitioned") {
        return Err(unusable(format!(
            "its table `{table}` is partitioned; run ALTER TABLE {table} REMOVE PARTITIONING"
        )));
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
        return match table {
            // This table may be missing: then it is created.
            "resource_data" if schema::columns(session, table).await?.is_empty() => Ok(()),
            _ => Err(unusable(format!(
                "its table `{table}` has no column `{column}`, so it is not the PHP server's"
            ))),
        };
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

/// Drops the foreign keys of the PHP server's tables. They prevent a change of character set, and the removal
/// of a resource that has documents; this program keeps the references valid without them. A revert restores
/// those that were saved.
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
/// adds unique keys on the bytes of names and selectors, so that they compare byte for byte from here on. What
/// is unique stays unique in a binary collation; text of another character set is converted.
pub(in crate::store::mysql) async fn reshape(session: &mut Session) -> Result<(), Fault> {
    for ((table, text), (column, unique)) in TEXT_COLUMNS.into_iter().zip([
        ("name", "name_bytes"),
        ("selector", "id_resource, selector_bytes"),
    ]) {
        reshape_table(session, table, text, column, unique).await?;
    }
    Ok(())
}

async fn reshape_table(
    session: &mut Session,
    table: &str,
    text: &[&str],
    column: &str,
    unique: &str,
) -> Result<(), Fault> {
    let bytes = format!("{column}_bytes");
    let columns = schema::columns(session, table).await?;
    if columns.is_empty() || columns.iter().any(|c| c.eq_ignore_ascii_case(&bytes)) {
        return Ok(());
    }
    let mut sql = Sql::new("ALTER TABLE ");
    sql.identifier(table);
    sql.push(
        " ENGINE = InnoDB, ROW_FORMAT = DYNAMIC, CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    );
    for index in schema::indexes(session, table).await? {
        sql.push(", DROP INDEX ").identifier(&index);
    }
    for text in text {
        sql.push(", MODIFY COLUMN ").identifier(text);
        sql.push(" VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL");
    }
    sql.push(&format!(
        ", ADD COLUMN {bytes} VARBINARY(1020) GENERATED ALWAYS AS (CAST({column} AS BINARY)) STORED, \
         ADD UNIQUE KEY {bytes} ({unique})"
    ));
    session.run(sql.as_str()).await?;
    Ok(())
}

/// Decodes the selectors and marks the adoption as done, in one transaction. It locks the row of
/// `resource_server` last: heartbeats change that row, and go on until then, however much there is to decode.
pub(in crate::store::mysql) async fn finish(
    session: &mut Session,
    membership: Membership,
) -> Result<(), Fault> {
    session.run("BEGIN").await?;
    let mut statements = Vec::new();
    for (id_resource, ids) in escaped_selectors(session).await? {
        decode(&mut statements, &id_resource, &ids);
    }
    run_all(session, &statements).await?;
    let mut sql = Sql::default();
    fence::guard(&mut sql, membership);
    sql.push("; UPDATE resource_server SET step = 'ready', version = ");
    sql.number(VERSION).push(" WHERE id = 1; COMMIT");
    session.run(sql.as_str()).await?;
    Ok(())
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
    let (renamed, kept) = selectors::decoded(ids.keys().map(String::as_str));
    for selector in kept.iter().filter(|selector| selector.contains('%')) {
        log::warn!(
            "resource {id_resource}: selector {selector:?} keeps its escapes, because decoded it is another \
             row's selector, or not valid"
        );
    }
    let renaming = renamed.iter();
    statements.extend(renaming.map(|(selector, target)| rename(&ids[*selector], target)));
    // Remember the selectors that encoding would not restore, so that a revert can.
    let changed = renamed
        .iter()
        .filter(|(selector, target)| selectors::encode(target) != *selector)
        .map(|(selector, _)| selector);
    let remembered = kept.iter().chain(changed);
    statements.extend(remembered.map(|selector| remember(&ids[*selector], selector)));
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
