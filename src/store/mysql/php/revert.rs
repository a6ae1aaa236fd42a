//! The way back: makes the tables the PHP server's again, so that it can use them, and a later adoption starts
//! afresh.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::adopt;
use super::selectors;
use crate::store::mysql::error::{Fault, code};
use crate::store::mysql::fence::{self, Membership};
use crate::store::mysql::schema::{self, MigrationStep, OWN_TABLES, ServerRow};
use crate::store::mysql::session::Session;
use crate::store::mysql::sql::Sql;

/// The result of [`crate::store::mysql::revert_to_php`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevertReport {
    /// Resources that the PHP server now finds.
    pub resources: u64,
    /// Documents that the PHP server now finds.
    pub documents: u64,
    /// Leases that are lost: the PHP server does not know our locks.
    pub leases: u64,
    /// What the PHP server's tables cannot hold, a sentence each. Unless empty, nothing was changed.
    pub obstacles: Vec<String>,
}

/// The PHP server's tables, parents first: the column that adoption added, and what the PHP server 1.1.0 creates in
/// its place.
const PHP_TABLES: [(&str, &str, &str); 2] = [
    (
        "resource",
        "name_bytes",
        "MODIFY COLUMN id varchar(255) NOT NULL, MODIFY COLUMN name varchar(255) NOT NULL, \
         MODIFY COLUMN timeout int NOT NULL DEFAULT 0, ADD UNIQUE KEY name (name), \
         ADD KEY idx_resource_name (name)",
    ),
    (
        "resource_data",
        "selector_bytes",
        "MODIFY COLUMN id varchar(255) NOT NULL, MODIFY COLUMN id_resource varchar(255) NOT NULL, \
         MODIFY COLUMN selector varchar(255) NOT NULL, MODIFY COLUMN data longtext NOT NULL, \
         ADD UNIQUE KEY ux_resource_data_name_selector (id_resource, selector), \
         ADD CONSTRAINT fk_resource_data_resource FOREIGN KEY (id_resource) REFERENCES resource (id)",
    ),
];

/// Reverts the database, which the caller must have exclusively in `membership`. `rehearse`: only finds out what
/// would happen.
pub(in crate::store::mysql) async fn revert(
    session: &mut Session,
    row: &ServerRow,
    membership: Membership,
    rehearse: bool,
) -> Result<RevertReport, Fault> {
    let collation = match &row.php_collation {
        Some(collation) if collation.starts_with("utf8mb4_") => collation.clone(),
        _ => default_collation(session).await?,
    };
    let mut report = count(session).await?;
    if row.step != MigrationStep::Reverting {
        report.obstacles = encode(session, membership, &collation, rehearse).await?;
    }
    if rehearse || !report.obstacles.is_empty() {
        return Ok(report);
    }
    for table in PHP_TABLES {
        restore(session, table, &collation).await?;
    }
    for table in OWN_TABLES {
        let mut sql = Sql::new("DROP TABLE IF EXISTS ");
        session.run(sql.identifier(table).as_str()).await?;
    }
    Ok(report)
}

async fn default_collation(session: &mut Session) -> Result<String, Fault> {
    let sql = "SELECT default_collate_name FROM information_schema.character_sets \
               WHERE character_set_name = 'utf8mb4'";
    session.row(sql).await
}

async fn count(session: &mut Session) -> Result<RevertReport, Fault> {
    let mut count = async |sql: &str| -> Result<u64, Fault> {
        match session.row(sql).await {
            // An earlier attempt has dropped the table.
            Err(fault) if fault.is(code::NO_SUCH_TABLE) => Ok(0),
            counted => counted,
        }
    };
    Ok(RevertReport {
        resources: count("SELECT COUNT(*) FROM resource").await?,
        documents: count("SELECT COUNT(*) FROM resource_data WHERE data IS NOT NULL").await?,
        leases: count("SELECT COUNT(*) FROM resource_lock WHERE ticket IS NOT NULL").await?,
        obstacles: Vec::new(),
    })
}

/// Encodes the selectors and marks the revert as begun, in one transaction; or changes nothing and returns the
/// obstacles. As in an adoption, the row of `resource_server` is locked last, so that heartbeats go on.
async fn encode(
    session: &mut Session,
    membership: Membership,
    collation: &str,
    rehearse: bool,
) -> Result<Vec<String>, Fault> {
    // The restored columns take no `NULL`, which counts as no timeout and as no document.
    let sql = "BEGIN; UPDATE resource SET timeout = 0 WHERE timeout IS NULL; \
               DELETE FROM resource_data WHERE data IS NULL";
    session.run(sql).await?;
    let mut obstacles = same_names(session, collation).await?;
    match encoding(session).await? {
        Ok(statements) => {
            adopt::run_all(session, &statements).await?;
            obstacles.extend(same_selectors(session, collation).await?);
            obstacles.extend(orphans(session).await?);
        }
        Err(found) => obstacles.extend(found),
    }
    let mut end = Sql::default();
    if obstacles.is_empty() && !rehearse {
        fence::guard(&mut end, membership);
        end.push("; UPDATE resource_server SET step = 'reverting' WHERE id = 1; COMMIT");
    } else {
        end.push("ROLLBACK");
    }
    session.run(end.as_str()).await?;
    Ok(obstacles)
}

/// The longest text the PHP server's columns hold, in characters.
const COLUMN_CHARACTERS: usize = 255;

/// The statements that give every selector the escapes that it had when it was adopted, else those of a PHP
/// client; or the obstacles.
async fn encoding(session: &mut Session) -> Result<Result<Vec<Sql>, Vec<String>>, Fault> {
    let sql = "SELECT id, selector FROM resource_adopted";
    let adopted: Vec<(String, String)> = session.rows(sql).await?;
    let mut adopted: BTreeMap<_, _> = adopted.into_iter().collect();
    let mut obstacles = Vec::new();
    let mut renamed = Vec::new();
    for (id_resource, ids) in adopt::escaped_selectors(session).await? {
        let mut targets = BTreeSet::new();
        for (selector, id) in ids {
            let target = adopted.remove(&id);
            let target = target.unwrap_or_else(|| selectors::encode(&selector));
            let which = format!("selector {selector:?} of the resource {id_resource}");
            if target.chars().count() > COLUMN_CHARACTERS {
                obstacles.push(format!(
                    "{which} is longer than {COLUMN_CHARACTERS} characters when it is percent-encoded"
                ));
            } else if !targets.insert(target.clone()) {
                obstacles.push(format!(
                    "{which} is {target:?} when it is percent-encoded, the same as another selector"
                ));
            } else if target != selector {
                renamed.push((selector, id, target));
            }
        }
    }
    // Encoding makes text longer. If another row still has the new selector, that row is the longer one: it is
    // renamed first.
    renamed.sort_by_key(|(selector, ..)| Reverse(selector.len()));
    let statements = renamed
        .iter()
        .map(|(_, id, target)| adopt::rename(id, target));
    Ok(match obstacles.is_empty() {
        true => Ok(statements.collect()),
        false => Err(obstacles),
    })
}

/// Obstacles: names that are equal in the PHP server's collation.
async fn same_names(session: &mut Session, collation: &str) -> Result<Vec<String>, Fault> {
    let name = format!("name COLLATE {collation}");
    let sql = format!(
        "SELECT r.name FROM resource r JOIN (SELECT MIN({name}) AS name FROM resource \
         GROUP BY {name} HAVING COUNT(*) > 1) same ON r.{name} = same.name \
         ORDER BY same.name, r.name_bytes"
    );
    let names: Vec<String> = session.rows(&sql).await?;
    let obstacle = |name: &String| {
        format!(
            "resource {name:?} has the same name as another one when letters are compared as the \
             PHP server's tables do ({collation})"
        )
    };
    Ok(names.iter().map(obstacle).collect())
}

/// Obstacles: selectors of one resource that are equal in the PHP server's collation, as they are encoded by
/// now.
async fn same_selectors(session: &mut Session, collation: &str) -> Result<Vec<String>, Fault> {
    let selector = format!("selector COLLATE {collation}");
    let sql = format!(
        "SELECT r.name, d.selector FROM resource_data d JOIN (SELECT id_resource, MIN({selector}) AS \
         selector FROM resource_data GROUP BY id_resource, {selector} HAVING COUNT(*) > 1) same \
         ON d.id_resource = same.id_resource AND d.{selector} = same.selector \
         LEFT JOIN resource r ON r.id = d.id_resource ORDER BY r.name_bytes, d.selector_bytes"
    );
    let rows: Vec<(Option<String>, String)> = session.rows(&sql).await?;
    let obstacle = |(name, selector): (Option<String>, String)| {
        format!(
            "selector {selector:?} (encoded) of resource {:?} is the same as another one when \
             letters are compared as the PHP server's tables do ({collation})",
            name.unwrap_or_default()
        )
    };
    Ok(rows.into_iter().map(obstacle).collect())
}

/// Obstacles: documents without a resource, which the foreign key of the PHP server's tables forbids.
async fn orphans(session: &mut Session) -> Result<Option<String>, Fault> {
    let sql = "SELECT COUNT(*) FROM resource_data d LEFT JOIN resource r ON r.id = d.id_resource \
               WHERE r.id IS NULL";
    let count: u64 = session.row(sql).await?;
    let text = format!("{count} documents belong to resources that do not exist; delete them");
    Ok((count > 0).then_some(text))
}

/// Makes a table the PHP server's again, unless an earlier attempt has done so.
async fn restore(
    session: &mut Session,
    (table, added, definition): (&str, &str, &str),
    collation: &str,
) -> Result<(), Fault> {
    let columns = schema::columns(session, table).await?;
    if !columns.contains(&added.to_owned()) {
        return Ok(());
    }
    let changes = format!(
        "DROP COLUMN {added}, {definition}, \
         ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE={collation} ROW_FORMAT=DEFAULT"
    );
    adopt::alter(session, table, &changes).await
}
