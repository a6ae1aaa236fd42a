//! A real database server for the tests, and a database for each.

use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Row};
use small_resource_server::store::members::{InstanceId, Members, SLOTS};
use small_resource_server::store::mysql::{MysqlStore, Options, Tls};
use small_resource_server::store::{Store, StoreError};

use super::DEADLINE;

/// A store in this database, of the server that `opts` lead to.
pub fn options(opts: &Opts, database: &str) -> Options {
    Options {
        host: opts.ip_or_hostname().to_owned(),
        port: opts.tcp_port(),
        database: database.to_owned(),
        user: opts.user().unwrap_or_default().to_owned(),
        password: opts.pass().unwrap_or_default().to_owned(),
        pool_size: 2,
        tls: Tls::Off,
        timeout: Duration::from_secs(20),
        instance_lease: Duration::from_secs(3),
        adopt: None,
        peers: None,
    }
}

/// The servers that a variable leads to, which all have the same, with a database of a test's own that does not exist
/// yet. `None`: skipped.
pub fn members(variable: &str, script: &str) -> Option<Vec<Options>> {
    let Ok(urls) = std::env::var(variable) else {
        super::skip(&format!("{variable} is not set: run with {script}"));
        return None;
    };
    let database = format!("test_{}", uuid::Uuid::new_v4().simple());
    let member = |url: &str| Options {
        timeout: Duration::from_secs(60),
        ..options(&Opts::from_url(url).unwrap(), &database)
    };
    Some(urls.split(' ').map(member).collect())
}

/// A connection of an administrator, in no database.
pub async fn admin(member: &Options) -> Conn {
    let opts = OptsBuilder::default()
        .ip_or_hostname(member.host.clone())
        .tcp_port(member.port)
        .user(Some(member.user.clone()))
        .pass(Some(member.password.clone()))
        .prefer_socket(false);
    Conn::new(Opts::from(opts)).await.unwrap()
}

/// Opens a store, and asks again while another instance has the database alone.
pub async fn join(store: &MysqlStore) -> Members {
    let began = Instant::now();
    loop {
        match store.open().await {
            Err(StoreError::Standby) if began.elapsed() < DEADLINE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            result => return result.unwrap().1.unwrap(),
        }
    }
}

/// A sign of life, and what the store sees of the others.
pub async fn heartbeat(store: &MysqlStore) -> Members {
    let began = Instant::now();
    loop {
        match store.heartbeat().await {
            // It waits for no more than a part of a lease.
            Err(StoreError::Unavailable(_)) if began.elapsed() < DEADLINE => {}
            result => return result.unwrap().unwrap(),
        }
    }
}

/// Of an open store: takes over from whoever is dead, until all names are its own.
pub async fn take_all(store: &MysqlStore) -> Members {
    let began = Instant::now();
    loop {
        let members = heartbeat(store).await;
        if slots_of(&members, members.me) == SLOTS {
            return members;
        }
        for dead in members.dead() {
            store.take_over(dead).await.unwrap();
        }
        assert!(began.elapsed() < DEADLINE, "others seem to live");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How many slots are an instance's.
pub fn slots_of(members: &Members, id: InstanceId) -> usize {
    members.owners.iter().filter(|owner| **owner == id).count()
}

/// Opens a store, and waits for all others to be silent for long enough, so that all names are its own.
pub async fn take_over(store: &MysqlStore) -> Members {
    join(store).await;
    take_all(store).await
}

/// A database of its own on the server that `TEST_MYSQL_URL` leads to; dropped with this.
pub struct Database {
    pub name: String,
    opts: Opts,
}

impl Database {
    /// The tests of this store are left out, because `TEST_MYSQL_SKIP` says so.
    pub fn is_skipped() -> bool {
        let skipped = std::env::var_os("TEST_MYSQL_SKIP").is_some();
        if skipped {
            super::skip("TEST_MYSQL_SKIP is set");
        }
        skipped
    }

    /// A name that nothing exists under yet. `None`: skipped.
    pub fn new() -> Option<Database> {
        if Database::is_skipped() {
            return None;
        }
        let url = std::env::var("TEST_MYSQL_URL").expect(
            "TEST_MYSQL_URL is not set: run the tests with `scripts/with-mariadb cargo test`, \
             or set TEST_MYSQL_SKIP=1 to leave out what needs MySQL",
        );
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let opts = Opts::from_url(&url).expect("TEST_MYSQL_URL is mysql://user:password@host:port");
        let opts = OptsBuilder::from_opts(opts).prefer_socket(false).into();
        Some(Database { name, opts })
    }

    pub fn options(&self) -> Options {
        options(&self.opts, &self.name)
    }

    pub fn store(&self) -> MysqlStore {
        MysqlStore::new(self.options())
    }

    /// A connection of an administrator; in the database if it exists.
    pub async fn admin(&self) -> Conn {
        let mut conn = Conn::new(self.opts.clone()).await.unwrap();
        conn.query_drop("SET NAMES utf8mb4").await.unwrap();
        let _may_not_exist = conn.query_drop(format!("USE {}", self.name)).await;
        conn
    }

    /// Made by the PHP server: its own schema, changed by `edit`, and no rows yet.
    pub async fn make_php(&self, edit: impl Fn(&str) -> String) {
        self.make(&edit(include_str!("../data/php-schema.sql")))
            .await;
    }

    /// Made by version 2.0.0 of this program.
    pub async fn make_2_0_0(&self) {
        self.make(include_str!("../data/schema-2.0.0.sql")).await;
    }

    async fn make(&self, schema: &str) {
        let create = format!("CREATE DATABASE {} CHARACTER SET utf8mb4", self.name);
        self.run(&create).await;
        self.run_script(schema).await;
    }

    /// Statements, each with a semicolon at its end and none in it, between lines of comments.
    pub async fn run_script(&self, script: &str) {
        let mut admin = self.admin().await;
        let lines = script.lines().filter(|line| !line.starts_with("--"));
        let text = lines.collect::<Vec<_>>().join("\n");
        let statements = text.split(';').map(str::trim);
        for sql in statements.filter(|sql| !sql.is_empty()) {
            admin.query_drop(sql).await.unwrap();
        }
    }

    /// A table in words of the server.
    pub async fn shape(&self, table: &str) -> String {
        let mut admin = self.admin().await;
        let sql = format!("SHOW CREATE TABLE {table}");
        let row: Row = admin.query_first(sql).await.unwrap().expect("a row");
        row.get(1).expect("a definition")
    }

    /// Nobody else gets at the table until the connection is dropped.
    pub async fn hold_table(&self, table: &str) -> Conn {
        let mut admin = self.admin().await;
        let sql = format!("LOCK TABLES {table} WRITE");
        admin.query_drop(sql).await.unwrap();
        admin
    }

    pub async fn run(&self, sql: &str) {
        self.admin().await.query_drop(sql).await.unwrap();
    }

    /// The first column of every row, as text.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let rows: Vec<Row> = self.admin().await.query(sql).await.unwrap();
        rows.into_iter()
            .map(|row| mysql_async::from_row::<(String,)>(row).0)
            .collect()
    }

    pub async fn number(&self, sql: &str) -> u64 {
        let number: Option<u64> = self.admin().await.query_first(sql).await.unwrap();
        number.expect("a row")
    }

    /// Ends every connection to this database.
    pub async fn kill_all(&self) {
        let sql = format!(
            "SELECT CAST(id AS CHAR) FROM information_schema.processlist \
             WHERE db = '{}' AND id <> CONNECTION_ID()",
            self.name
        );
        let mut admin = self.admin().await;
        // MySQL's list fails while any statement has a character beyond the basic plane.
        let mut ids: Result<Vec<String>, _> = admin.query(&sql).await;
        while ids.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            ids = admin.query(sql.replace("information", "performance")).await;
        }
        let ids = ids.unwrap();
        assert!(!ids.is_empty());
        for id in ids {
            let _may_be_gone = admin.query_drop(format!("KILL CONNECTION {id}")).await;
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (opts, name) = (self.opts.clone(), self.name.clone());
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let mut conn = Conn::new(opts).await.map_err(std::io::Error::other)?;
                conn.query_drop("SET lock_wait_timeout = 5").await.ok();
                let drop = format!("DROP DATABASE IF EXISTS {name}");
                conn.query_drop(drop).await.map_err(std::io::Error::other)
            })
        });
        if let Ok(Err(error)) = dropping.join() {
            eprintln!("{} stays: {error}", self.name);
        }
    }
}
