//! What one commit costs this machine without a lock server: the yardstick for rows that wait for one.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use crate::process::{Mysql, Result};

const COMMITS: usize = 200;

/// Seconds for one small durable append on the file system of the data: two pages and `fdatasync`, which is
/// what a commit of SQLite's write-ahead log with one changed page comes down to.
pub fn file_commit_seconds(folder: &Path) -> Result<f64> {
    let path = folder.join("commits");
    let measure = || {
        let mut file = File::create(&path)?;
        let page = [1; 8192];
        let mut seconds = Vec::with_capacity(COMMITS);
        for _ in 0..COMMITS {
            let begun = Instant::now();
            file.write_all(&page)?;
            file.sync_data()?;
            seconds.push(begun.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        std::io::Result::Ok(seconds[COMMITS / 2])
    };
    measure().map_err(|e| e.to_string())
}

/// A procedure that commits in a loop inside the database server, so that nothing but the commit is in it.
const PROCEDURE: &str = "
DELIMITER //
CREATE DATABASE IF NOT EXISTS bench_commits //
USE bench_commits //
CREATE TABLE IF NOT EXISTS one (id INT PRIMARY KEY, n BIGINT) ENGINE=InnoDB //
REPLACE INTO one VALUES (1, 0) //
DROP PROCEDURE IF EXISTS commits //
CREATE PROCEDURE commits(IN times INT)
BEGIN
  DECLARE i INT DEFAULT 0;
  DECLARE begun DATETIME(6) DEFAULT SYSDATE(6);
  WHILE i < times DO
    START TRANSACTION;
    UPDATE one SET n = n + 1 WHERE id = 1;
    COMMIT;
    SET i = i + 1;
  END WHILE;
  SELECT TIMESTAMPDIFF(MICROSECOND, begun, SYSDATE(6));
END //
DELIMITER ;
";

/// Seconds for one commit of one row, by a client that is alone.
pub fn mysql_commit_seconds(mysql: &Mysql) -> Result<f64> {
    let sql = format!("{PROCEDURE} CALL commits({COMMITS});");
    let micros = mysql.query(&sql)?;
    let micros: f64 = micros.trim().parse().map_err(|_| micros.clone())?;
    Ok(micros / 1e6 / COMMITS as f64)
}

/// Removes the databases that a run makes, as an earlier run may have left them.
pub fn drop_databases(mysql: &Mysql) -> Result<()> {
    for name in [
        "commits",
        "mysql",
        "queue_mysql",
        "profile",
        "several",
        "earlier_mysql",
    ] {
        mysql.query(&format!("DROP DATABASE IF EXISTS bench_{name}"))?;
    }
    Ok(())
}
