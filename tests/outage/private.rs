//! A database server of a test's own, to be killed and started again.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use small_resource_server::store::mysql::{Options, Tls};
use tempfile::TempDir;

use crate::support::{Database, skip, until};

pub struct PrivateServer {
    folder: TempDir,
    program: PathBuf,
    is_mysql: bool,
    port: u16,
    running: Option<Child>,
    settings: Vec<String>,
}

impl PrivateServer {
    /// Ready to be started. `None`: skipped, with a word about why.
    pub fn new(settings: &[&str]) -> Option<PrivateServer> {
        if Database::is_skipped() {
            return None;
        }
        let mysql = std::env::var_os("MYSQLD").map(PathBuf::from);
        let is_mysql = mysql.is_some();
        let Some(program) = mysql.or_else(|| program("mariadbd")) else {
            skip("there is no mariadbd here to be killed");
            return None;
        };
        let folder = TempDir::new().unwrap();
        let mut install = match is_mysql {
            true => Command::new(&program),
            false => Command::new(program_beside(&program, "mariadb-install-db")),
        };
        install.env("TMPDIR", folder.path()).arg("--no-defaults");
        install.arg(format!(
            "--datadir={}",
            folder.path().join("data").display()
        ));
        install.arg(format!("--user={}", user()));
        install.args(match is_mysql {
            true => &["--initialize-insecure"][..],
            false => &["--skip-test-db", "--auth-root-authentication-method=normal"],
        });
        let installed = install.output().unwrap();
        assert!(installed.status.success(), "{installed:?}");
        let users = "CREATE USER IF NOT EXISTS 'test'@'%' IDENTIFIED BY 'secret'; \
                     GRANT ALL PRIVILEGES ON *.* TO 'test'@'%'; \
                     CREATE USER IF NOT EXISTS 'app'@'%' IDENTIFIED BY 'secret'; \
                     GRANT ALL PRIVILEGES ON resources.* TO 'app'@'%';\n";
        // Each server has its own, so they are not replicated.
        let users = format!("SET sql_log_bin = 0; {users}").replace("; ", ";\n");
        fs::write(folder.path().join("users.sql"), users).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        Some(PrivateServer {
            folder,
            program,
            is_mysql,
            port: free.local_addr().unwrap().port(),
            running: None,
            settings: settings.iter().map(|s| s.to_string()).collect(),
        })
    }

    pub fn start(&mut self) {
        let folder = self.folder.path();
        let log = fs::File::create(folder.join("log")).unwrap();
        let at = |name: &str, file: &str| format!("--{name}={}", folder.join(file).display());
        // A file that may not grow is to be an error for it, as a full disk is, and not its end.
        let child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(&self.program)
            .arg("--no-defaults")
            .args([
                at("datadir", "data"),
                at("socket", "socket"),
                at("pid-file", "pid"),
            ])
            .arg(at("init-file", "users.sql"))
            .arg(format!("--user={}", user()))
            .arg(format!("--port={}", self.port))
            .args([
                "--bind-address=127.0.0.1",
                "--skip-name-resolve",
                "--skip-log-bin",
            ])
            .args(match self.is_mysql {
                true => &["--mysqlx=OFF", "--secure-file-priv=NULL"][..],
                false => &[],
            })
            .args([
                "--innodb-flush-log-at-trx-commit=1",
                "--innodb-buffer-pool-size=32M",
            ])
            .args(&self.settings)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.running = Some(child);
        let port = self.port;
        until("the database listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }

    /// No file of it can grow past this, as on a full disk; `None`: there is room again.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let child = self.running.as_ref().unwrap();
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(Some(Pid::from_child(child)), Resource::Fsize, limit).unwrap();
    }

    /// As a crash: nothing is finished, nothing is flushed.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// As an administrator.
    pub async fn run(&self, sql: &str) {
        let ran = self.admin().await.query_drop(sql).await;
        assert!(ran.is_ok(), "{sql}: {ran:?}");
    }

    /// For all sessions from now on. `false`: this server has no such variable.
    pub async fn set_global(&self, setting: &str) -> bool {
        const UNKNOWN_VARIABLE: u16 = 1193;
        let mut admin = self.admin().await;
        match admin.query_drop(format!("SET GLOBAL {setting}")).await {
            Err(mysql_async::Error::Server(error)) if error.code == UNKNOWN_VARIABLE => false,
            result => {
                result.unwrap();
                true
            }
        }
    }

    /// Those of clients.
    pub async fn end_all_connections(&self) {
        let mut admin = self.admin().await;
        let sql = "SELECT id FROM information_schema.processlist \
                   WHERE user IN ('test', 'app') AND id <> CONNECTION_ID()";
        let ids: Vec<u64> = admin.query(sql).await.unwrap();
        assert!(!ids.is_empty());
        for id in ids {
            let _may_be_gone = admin.query_drop(format!("KILL CONNECTION {id}")).await;
        }
    }

    /// The only column of the only row.
    pub async fn text(&self, sql: &str) -> String {
        let text: Option<String> = self.admin().await.query_first(sql).await.unwrap();
        text.expect("a row")
    }

    async fn admin(&self) -> Conn {
        let options = self.options();
        let opts = OptsBuilder::default()
            .ip_or_hostname(options.host)
            .tcp_port(options.port)
            .user(Some(options.user))
            .pass(Some(options.password))
            .prefer_socket(false);
        let mut conn = Conn::new(opts).await.unwrap();
        // Whatever is set for all sessions.
        conn.query_drop(match self.is_mysql {
            true => "SET autocommit = 1, transaction_read_only = 0, max_execution_time = 0",
            false => "SET autocommit = 1, tx_read_only = 0, max_statement_time = 0",
        })
        .await
        .unwrap();
        conn
    }

    /// With an account that may do nothing outside its database, as in production.
    pub fn app_options(&self) -> Options {
        Options {
            user: "app".into(),
            ..self.options()
        }
    }

    /// Follows `primary`, and takes writes of nobody else.
    pub async fn replicate(&self, primary: &PrivateServer) {
        let port = primary.port;
        let [source, start] = match self.is_mysql {
            true => [
                format!(
                    "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, \
                     SOURCE_USER = 'test', SOURCE_PASSWORD = 'secret', SOURCE_AUTO_POSITION = 1, \
                     SOURCE_CONNECT_RETRY = 1, GET_SOURCE_PUBLIC_KEY = 1"
                ),
                "START REPLICA".to_owned(),
            ],
            false => [
                format!(
                    "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, \
                     MASTER_USER = 'test', MASTER_PASSWORD = 'secret', \
                     MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1"
                ),
                "START SLAVE".to_owned(),
            ],
        };
        self.run(&source).await;
        self.run(&start).await;
        self.run("SET GLOBAL read_only = ON").await;
    }

    /// Hears of nothing more that its primary does.
    pub async fn stop_replicating(&self) {
        self.run(match self.is_mysql {
            true => "STOP REPLICA",
            false => "STOP SLAVE",
        })
        .await;
    }

    /// Becomes the primary in the place of `old`, which stays up and becomes read-only; nothing is lost.
    pub async fn take_the_place_of(&self, old: &PrivateServer) {
        old.run("SET GLOBAL read_only = ON").await;
        let [position, wait] = match self.is_mysql {
            true => ["@@gtid_executed", "WAIT_FOR_EXECUTED_GTID_SET"],
            false => ["@@gtid_current_pos", "MASTER_GTID_WAIT"],
        };
        let position = old.text(&format!("SELECT {position}")).await;
        let wait = format!("SELECT CAST({wait}('{position}', 30) AS CHAR)");
        assert_eq!(self.text(&wait).await, "0", "the replica lags");
        self.stop_replicating().await;
        self.run("SET GLOBAL read_only = OFF").await;
    }

    pub fn options(&self) -> Options {
        Options {
            host: "127.0.0.1".into(),
            port: self.port,
            database: "resources".into(),
            user: "test".into(),
            password: "secret".into(),
            pool_size: 2,
            tls: Tls::Off,
            timeout: Duration::from_secs(20),
            instance_lease: Duration::from_secs(1),
            adopt: None,
            peers: None,
        }
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path
        .split(':')
        .chain(["/usr/sbin", "/usr/local/sbin", "/usr/libexec"]);
    folders
        .map(|folder| Path::new(folder).join(name))
        .find(|file| file.exists())
}

fn program_beside(server: &Path, name: &str) -> PathBuf {
    let beside = server.parent().unwrap().join("../bin").join(name);
    if beside.exists() {
        beside
    } else {
        PathBuf::from(name)
    }
}
