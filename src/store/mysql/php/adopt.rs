//! Taking over the tables that the PHP server wrote, once.
//!
//! DDL commits by itself, so a crash can come between any two steps. Each step looks at what is there
//! before it acts; what must happen exactly once (selectors are decoded once) is one transaction with the
//! mark that it happened.

use std::collections::BTreeMap;

use super::selectors::{self, Stored};
use crate::lock::Profile;
use crate::store::StoreError;
use crate::store::mysql::error::Fault;
use crate::store::mysql::schema::{self, Step, VERSION};
use crate::store::mysql::session::{Columns, Session};
use crate::store::mysql::sql::Sql;

/// Looks at what the database holds and records what is to be done with it.
pub(in crate::store::mysql) async fn begin(
    session: &mut Session,
    epoch: u64,
    explicit: Option<Profile>,
) -> Result<Step, Fault> {
    let columns = schema::columns(session, "resource").await?;
    let has = |wanted: &str| columns.iter().any(|c| c.eq_ignore_ascii_case(wanted));
    if columns.is_empty() || has("name_bytes") {
        return Ok(Step::New);
    }
    if !["id", "name", "timeout"].into_iter().all(has) {
        let text =
            "it has a table `resource` that is not the PHP server's; choose another database";
        return Err(StoreError::Unusable(text.into()).into());
    }
    let mut sql = Sql::new("UPDATE resource_server SET step = 'adopting', php_collation = (");
    sql.push(
        "SELECT table_collation FROM information_schema.tables \
         WHERE table_schema = DATABASE() AND table_name = 'resource'), profile = ",
    );
    let profile = explicit.is_none().then_some(Profile::Php);
    sql.or_null(profile, |sql, profile| {
        sql.text(profile.name());
    });
    sql.push(" WHERE id = 1 AND epoch = ").number(epoch);
    if session.change(sql.as_str()).await? == 0 {
        return Err(StoreError::Standby.into());
    }
    log::warn!("the database was written by the PHP server; its tables are being taken over");
    Ok(Step::Adopting)
}

/// Names compare by their bytes from here on. Converting to a binary collation keeps what is unique
/// unique, and converts text of another character set.
pub(in crate::store::mysql) async fn reshape(session: &mut Session) -> Result<(), Fault> {
    reshape_table(session, "resource", "name", "name", "name_bytes").await?;
    reshape_table(
        session,
        "resource_data",
        "selector",
        "id_resource,selector",
        "id_resource, selector_bytes",
    )
    .await
}

async fn reshape_table(
    session: &mut Session,
    table: &str,
    column: &str,
    unique: &str,
    unique_bytes: &str,
) -> Result<(), Fault> {
    let bytes = format!("{column}_bytes");
    let columns = schema::columns(session, table).await?;
    if columns.is_empty() || columns.iter().any(|c| c.eq_ignore_ascii_case(&bytes)) {
        return Ok(());
    }
    let mut sql = Sql::new("ALTER TABLE ");
    sql.identifier(table);
    sql.push(" CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin");
    for index in schema::unique_indexes(session, table, unique).await? {
        sql.push(", DROP INDEX ").identifier(&index);
    }
    sql.push(&format!(
        ", ADD COLUMN {bytes} VARBINARY(1020) GENERATED ALWAYS AS (CAST({column} AS BINARY)) STORED, \
         ADD UNIQUE KEY {bytes} ({unique_bytes})"
    ));
    session.run(sql.as_str()).await?;
    Ok(())
}

/// Decodes the selectors and marks the adoption as done, in one transaction. The row that says whose the
/// database is gets locked last: heartbeats go on until then, however much there is to decode.
pub(in crate::store::mysql) async fn finish(
    session: &mut Session,
    epoch: u64,
) -> Result<(), Fault> {
    session.run("BEGIN").await?;
    let mut script = Statements::default();
    for (id_resource, rows) in escaped_selectors(session).await? {
        decode(&mut script, &id_resource, &rows);
    }
    script.run(session).await?;
    let mut sql = Sql::default();
    schema::guard(&mut sql, epoch);
    sql.push("; UPDATE resource_server SET step = 'ready', version = ");
    sql.number(VERSION).push(" WHERE id = 1; COMMIT");
    session.run(sql.as_str()).await?;
    Ok(())
}

/// The rows of every resource of which some selector is, or was, more than letters, digits and `-_.~`.
pub(super) async fn escaped_selectors(
    session: &mut Session,
) -> Result<BTreeMap<String, Vec<Stored>>, Fault> {
    let sql = "SELECT id_resource, id, selector FROM resource_data WHERE id_resource IN \
               (SELECT id_resource FROM resource_data WHERE selector REGEXP '[^-A-Za-z0-9._~]' \
               OR id IN (SELECT id FROM resource_adopted))";
    let mut resources: BTreeMap<String, Vec<Stored>> = BTreeMap::new();
    for row in session.rows(sql).await? {
        let mut row = Columns::of(row);
        let id_resource: String = row.take()?;
        let stored = Stored {
            id: row.take()?,
            selector: row.take()?,
        };
        resources.entry(id_resource).or_default().push(stored);
    }
    Ok(resources)
}

fn decode(script: &mut Statements, id_resource: &str, rows: &[Stored]) {
    let plan = selectors::plan(rows);
    for row in plan.kept.iter().filter(|row| row.selector.contains('%')) {
        log::warn!(
            "resource {id_resource}: selector {:?} keeps its escapes, because decoded it is another \
             row's selector, or none",
            row.selector
        );
    }
    for (row, target) in &plan.renamed {
        script.rename(&row.id, target);
    }
    // What encoding would not bring back is remembered, so that reverting can.
    let renamed = plan.renamed.iter();
    let changed = renamed
        .filter(|(row, target)| selectors::encode(target) != row.selector)
        .map(|(row, _)| row);
    for row in plan.kept.iter().chain(changed) {
        script.remember(row);
    }
}

/// Many small statements, to be sent some hundred at a time.
#[derive(Default)]
pub(super) struct Statements {
    texts: Vec<Sql>,
}

const BYTES_AT_ONCE: usize = 200_000;

impl Statements {
    fn next(&mut self) -> &mut Sql {
        if self.texts.last().is_none_or(|t| t.len() > BYTES_AT_ONCE) {
            self.texts.push(Sql::new("DO 0"));
        }
        let last = self.texts.len() - 1;
        self.texts[last].push("; ")
    }

    pub fn rename(&mut self, id: &str, selector: &str) {
        let sql = self.next().push("UPDATE resource_data SET selector = ");
        sql.text(selector).push(" WHERE id = ").text(id);
    }

    fn remember(&mut self, row: &Stored) {
        let sql = self.next();
        sql.push("INSERT INTO resource_adopted (id, selector) VALUES (");
        sql.text(&row.id).push(", ").text(&row.selector);
        sql.push(") ON DUPLICATE KEY UPDATE selector = VALUES(selector)");
    }

    pub async fn run(self, session: &mut Session) -> Result<(), Fault> {
        for text in &self.texts {
            session.run(text.as_str()).await?;
        }
        Ok(())
    }
}
