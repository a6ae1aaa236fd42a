//! A table's definition as the PHP server made it, in the words of `SHOW CREATE TABLE`: saved when the table is
//! adopted, and restored by a revert, names of keys and indexes included.

use crate::store::StoreError;
use crate::store::mysql::error::{Fault, code};
use crate::store::mysql::session::Session;
use crate::store::mysql::sql::Sql;

/// The PHP server's tables, parents first.
pub(super) const PHP_TABLES: [&str; 2] = ["resource", "resource_data"];

/// The tables that the PHP server 1.1.0 creates, as `SHOW CREATE TABLE` prints them without the table's
/// options. For databases without saved definitions: those that this program created, and those that version
/// 2.0.0 adopted.
const PHP_MADE: [&str; 2] = [
    "CREATE TABLE `resource` (
  `id` varchar(255) NOT NULL,
  `name` varchar(255) NOT NULL,
  `timeout` int NOT NULL DEFAULT 0,
  PRIMARY KEY (`id`),
  UNIQUE KEY `name` (`name`),
  KEY `idx_resource_name` (`name`)
",
    "CREATE TABLE `resource_data` (
  `id` varchar(255) NOT NULL,
  `id_resource` varchar(255) NOT NULL,
  `selector` varchar(255) NOT NULL,
  `locked` tinyint(1) NOT NULL DEFAULT 0,
  `data` longtext NOT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `ux_resource_data_name_selector` (`id_resource`,`selector`),
  CONSTRAINT `fk_resource_data_resource` FOREIGN KEY (`id_resource`) REFERENCES `resource` (`id`)
",
];

/// The table that keeps the saved definitions until a revert.
pub(in crate::store::mysql) const TAKEN_DOWN: &str =
    "CREATE TABLE IF NOT EXISTS resource_php_table (
    name VARCHAR(64) NOT NULL PRIMARY KEY,
    definition LONGTEXT NOT NULL,
    collations TEXT NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

/// The output of `SHOW CREATE TABLE`, parsed; without the primary key, which never changes.
pub(super) struct Definition {
    columns: Vec<String>,
    /// Keys and constraints.
    keys: Vec<String>,
    options: String,
    /// Name and collation of each text column.
    collations: Vec<(String, String)>,
}

impl Definition {
    /// `None`: the text is not the definition of a table.
    fn parse(text: &str, collations: Vec<(String, String)>) -> Option<Definition> {
        let mut definition = Definition {
            columns: Vec::new(),
            keys: Vec::new(),
            options: String::new(),
            collations,
        };
        let mut lines = text.lines();
        lines.next().filter(|line| line.starts_with("CREATE "))?;
        for line in lines.by_ref() {
            if let Some(options) = line.strip_prefix(")") {
                definition.options = options.trim().to_owned();
                break;
            }
            let line = line.trim().trim_end_matches(',').to_owned();
            if line.starts_with('`') {
                definition.columns.push(line);
            } else if !line.starts_with("PRIMARY KEY ") {
                definition.keys.push(line);
            }
        }
        (!definition.columns.is_empty() && !definition.options.is_empty()).then_some(definition)
    }

    /// The PHP server's own definition, with this collation of `utf8mb4`; `None`: it has no such table.
    fn made_by_php(table: &str, collation: &str) -> Option<Definition> {
        let place = PHP_TABLES.iter().position(|name| *name == table)?;
        let text = format!(
            "{}) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE={collation}",
            PHP_MADE[place]
        );
        let columns = ["id", "name", "id_resource", "selector", "data"];
        let collations = columns.map(|column| (column.to_owned(), collation.to_owned()));
        Definition::parse(&text, collations.into())
    }

    /// The column's collation in this definition; `None`: it is not a text column.
    pub fn collation(&self, column: &str) -> Option<&str> {
        let mut collations = self.collations.iter();
        let found = collations.find(|(name, _)| name.eq_ignore_ascii_case(column));
        found.map(|(_, collation)| collation.as_str())
    }

    pub fn has_foreign_key(&self) -> bool {
        let is_foreign =
            |key: &String| key.starts_with("CONSTRAINT ") && key.contains(" FOREIGN KEY ");
        self.keys.iter().any(is_foreign)
    }

    /// One statement that gives `table` this definition again. `added`: the column that its adoption added;
    /// `indexes`: its present indexes, without the primary key.
    pub fn restore(&self, table: &str, added: &str, indexes: &[String]) -> Sql {
        let mut sql = Sql::new("ALTER TABLE ");
        sql.identifier(table)
            .push(" DROP COLUMN ")
            .identifier(added);
        for index in indexes {
            sql.push(", DROP INDEX ").identifier(index);
        }
        for column in &self.columns {
            let column = self.without_default_collation(column);
            sql.push(", MODIFY COLUMN ").push(&column);
        }
        for key in &self.keys {
            sql.push(", ADD ").push(key);
        }
        sql.push(", ").push(&self.options);
        if !self.options.contains("ROW_FORMAT=") {
            sql.push(" ROW_FORMAT=DEFAULT");
        }
        sql
    }

    /// The column without its collation, if that is the table's own. MySQL prints that collation for the
    /// column; set with the column, it would from then on count as the column's own.
    fn without_default_collation(&self, column: &str) -> String {
        let mut options = self.options.split(' ');
        let collation = options.find_map(|option| option.strip_prefix("COLLATE="));
        match collation {
            Some(collation) if !column.contains(" CHARACTER SET ") => {
                column.replacen(&format!(" COLLATE {collation}"), "", 1)
            }
            _ => column.to_owned(),
        }
    }
}

/// Statements that save the present definitions of both tables; to be run in the transaction that records the
/// adoption as begun.
pub(super) async fn take_down(session: &mut Session) -> Result<Sql, Fault> {
    let mut kept = Sql::new("DELETE FROM resource_php_table");
    for table in PHP_TABLES {
        let mut show = Sql::new("SHOW CREATE TABLE ");
        let shown = session.row(show.identifier(table).as_str()).await;
        let (_, text): (String, String) = match shown {
            Err(fault) if fault.is(code::NO_SUCH_TABLE) => continue,
            shown => shown?,
        };
        if Definition::parse(&text, Vec::new()).is_none() {
            let text = format!("the definition of its table `{table}` cannot be parsed");
            return Err(StoreError::Unusable(text).into());
        }
        let collations = collations(session, table).await?;
        kept.push("; INSERT INTO resource_php_table (name, definition, collations) VALUES (");
        kept.text(table).push(", ").text(&text).push(", ");
        kept.text(&collations).push(")");
    }
    Ok(kept)
}

/// A line for each text column: its name, a space, its collation.
async fn collations(session: &mut Session, table: &str) -> Result<String, Fault> {
    let mut sql = Sql::new(
        "SELECT column_name, collation_name FROM information_schema.columns \
         WHERE table_schema = DATABASE() AND collation_name IS NOT NULL AND table_name = ",
    );
    sql.text(table);
    let mut lines = String::new();
    for (column, collation) in session.rows::<(String, String)>(sql.as_str()).await? {
        lines.push_str(&format!("{column} {collation}\n"));
    }
    Ok(lines)
}

/// The saved definition of the table, else the PHP server's own with `collation`.
pub(super) async fn of(
    session: &mut Session,
    table: &str,
    collation: &str,
) -> Result<Definition, Fault> {
    let mut sql = Sql::new("SELECT definition, collations FROM resource_php_table WHERE name = ");
    sql.text(table);
    let mut saved: Vec<(String, String)> = match session.rows(sql.as_str()).await {
        // An earlier attempt to revert has dropped the table.
        Err(fault) if fault.is(code::NO_SUCH_TABLE) => Vec::new(),
        rows => rows?,
    };
    let found = match saved.pop() {
        None => Definition::made_by_php(table, collation),
        Some((text, lines)) => {
            let pairs = lines.lines().filter_map(|line| line.split_once(' '));
            let pairs = pairs.map(|(column, collation)| (column.to_owned(), collation.to_owned()));
            Definition::parse(&text, pairs.collect())
        }
    };
    found.ok_or_else(|| {
        let text = format!("the saved definition of the PHP server's `{table}` cannot be parsed");
        StoreError::Unusable(text).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_gets_no_collation_of_its_own_from_the_one_of_its_table() {
        let shown = "CREATE TABLE `t` (
  `a` varchar(9) COLLATE utf8mb4_bin NOT NULL,
  `b` varchar(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin";
        let sql = Definition::parse(shown, Vec::new())
            .unwrap()
            .restore("t", "a_bytes", &[]);
        for part in [
            "MODIFY COLUMN `a` varchar(9) NOT NULL,",
            "MODIFY COLUMN `b` varchar(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,",
        ] {
            assert!(sql.as_str().contains(part), "{part} is not in {sql:?}");
        }
    }
}
