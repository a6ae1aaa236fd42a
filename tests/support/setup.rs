//! The settings of a server under test, and the place where it keeps what it stores.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use small_resource_server::store::mysql::Options;
use tempfile::TempDir;

use super::database::Database;
use super::group::ControlGroup;

pub const READ: &str = "key-to-read";
pub const LOCK: &str = "key-to-lock";
pub const WRITE: &str = "key-to-write";
pub const ADMIN: &str = "key-to-force";
/// From the one with the fewest rights to the one with all.
pub const KEYS: [&str; 4] = [READ, LOCK, WRITE, ADMIN];

/// The variables of the keys, in the order of `KEYS`.
const KEY_VARIABLES: [&str; 4] = [
    "RESOURCE_READ",
    "RESOURCE_READ_LOCK",
    "RESOURCE_WRITE",
    "RESOURCE_ADMIN",
];

/// The stores that there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Store {
    Memory,
    Sqlite,
    Mysql,
}

/// A server to be started, once or several times, one after another or side by side. What it stores is
/// removed with the last setup, server and program that knows of it.
#[derive(Clone)]
pub struct Setup {
    /// Of two values for one name the later one counts.
    settings: Vec<(String, String)>,
    place: Arc<Place>,
    /// As [`Setup::patient`] says.
    pub(super) is_patient: bool,
    /// The control group that its processes are put in.
    group: Option<PathBuf>,
}

struct Place {
    folder: TempDir,
    database: Option<Database>,
}

impl Setup {
    /// The memory store, any free port of 127.0.0.1 and four keys; the rest are defaults, but for the time of a listing.
    pub fn new() -> Setup {
        let place = Place {
            folder: tempfile::tempdir().expect("a temporary folder"),
            database: None,
        };
        let setup = Setup {
            settings: Vec::new(),
            place: Arc::new(place),
            is_patient: false,
            group: None,
        };
        let setup = setup.with_all(&[
            ("CONFIG_FILE", "/dev/null"),
            ("HTTP_HOST", "127.0.0.1"),
            ("HTTP_PORT", "0"),
            ("HTTP_WORKERS", "2"),
            ("STORE", "memory"),
            // Others may use the machine, too.
            ("LISTING_TIMEOUT_SECONDS", "60"),
        ]);
        KEY_VARIABLES
            .into_iter()
            .zip(KEYS)
            .fold(setup, |setup, (name, key)| setup.with(name, key))
    }

    /// A settings file as it stands, but for the port, which is any free one.
    pub fn of_file(path: &Path) -> Setup {
        let mut setup = Setup::new();
        setup.settings.clear();
        let path = path.to_str().expect("a path in UTF-8");
        setup.with("CONFIG_FILE", path).with("HTTP_PORT", "0")
    }

    /// A store of its own, and times so long that a machine that stalls for seconds changes nothing.
    pub fn on(store: Store) -> Setup {
        let setup = Setup::new().with_all(&[
            ("HTTP_WORKERS", "1"),
            ("SHUTDOWN_SECONDS", "5"),
            ("STORE_TIMEOUT_SECONDS", "60"),
            ("CLAIM_SECONDS", "600"),
            ("TICKET_TTL_SECONDS", "600"),
            ("INSTANCE_LEASE_SECONDS", "30"),
        ]);
        match store {
            Store::Memory => setup,
            Store::Sqlite => setup.sqlite(),
            Store::Mysql => {
                let database = Database::new().expect("no test of MySQL is left out");
                let options = database.options();
                let mut setup = setup.mysql(&options);
                let place = Arc::get_mut(&mut setup.place).expect("nobody else has it yet");
                place.database = Some(database);
                setup
            }
        }
    }

    pub fn with(mut self, name: &str, value: &str) -> Setup {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn with_all(self, settings: &[(&str, &str)]) -> Setup {
        let with = |setup: Setup, (name, value): &(&str, &str)| setup.with(name, value);
        settings.iter().fold(self, with)
    }

    /// The client of its programs is patient.
    pub fn patient(mut self) -> Setup {
        self.is_patient = true;
        self
    }

    pub fn sqlite(self) -> Setup {
        let path = self.folder().join("resources.db");
        self.with("STORE", "sqlite")
            .with("SQLITE_PATH", path.to_str().expect("a path in UTF-8"))
    }

    /// This database, which may be another one's too.
    pub fn mysql(self, options: &Options) -> Setup {
        self.with_all(&[
            ("STORE", "mysql"),
            ("MYSQL_HOST", &options.host),
            ("MYSQL_PORT", &options.port.to_string()),
            ("MYSQL_DATABASE", &options.database),
            ("MYSQL_USER", &options.user),
            ("MYSQL_PASSWORD", &options.password),
            ("MYSQL_POOL_SIZE", &options.pool_size.to_string()),
        ])
    }

    /// HTTPS, with a certificate that nobody trusts.
    pub fn tls(self) -> Setup {
        let file = |name: &str| certificate_file(name).to_str().unwrap().to_owned();
        self.with("TLS_CERT_FILE", &file("cert.pem"))
            .with("TLS_KEY_FILE", &file("key.pem"))
    }

    /// Under a clock that libfaketime makes of these variables. `None`: skipped, there is none here.
    pub fn faketime(self, variables: &[(&str, &str)]) -> Option<Setup> {
        let Some(library) = faketime() else {
            super::skip("libfaketime (Debian's package faketime) is not installed");
            return None;
        };
        let library = library.to_str().expect("a path in UTF-8");
        Some(self.with("LD_PRELOAD", library).with_all(variables))
    }

    /// In a control group, as in a container.
    pub fn within(mut self, group: &ControlGroup) -> Setup {
        self.group = Some(group.path().to_owned());
        self
    }

    /// A settings file with this text in the place of the keys in the environment.
    pub fn conf(mut self, text: &str) -> Setup {
        self.settings
            .retain(|(name, _)| !KEY_VARIABLES.contains(&name.as_str()));
        let path = self.conf_path();
        std::fs::write(&path, text).unwrap();
        self.with("CONFIG_FILE", path.to_str().expect("a path in UTF-8"))
    }

    pub fn conf_path(&self) -> PathBuf {
        self.folder().join("server.conf")
    }

    /// Where its processes run and its SQLite store is.
    pub fn folder(&self) -> &Path {
        self.place.folder.path()
    }

    /// Of a setup on MySQL.
    pub fn database(&self) -> &Database {
        self.place.database.as_ref().expect("a setup on MySQL")
    }

    pub fn settings(&self) -> Vec<(String, String)> {
        self.settings.clone()
    }

    /// The built binary with these settings and no others.
    pub fn command(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_small-resource-server");
        let mut command = match &self.group {
            None => Command::new(binary),
            Some(group) => {
                let mut command = Command::new("/bin/sh");
                let enter = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
                command.args(["-c", enter]).arg(group).arg(binary);
                command
            }
        };
        command
            .env_clear()
            .envs(self.settings())
            .current_dir(self.folder())
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end.
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }
}

/// The library beneath the command `faketime`, which itself leaves its child behind when it is killed.
fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let folders = folders.map(|entry| entry.path());
    folders
        .chain([PathBuf::from("/usr/lib")])
        .map(|folder| folder.join("faketime/libfaketimeMT.so.1"))
        .find(|file| file.exists())
}

/// A file of `tests/data/tls`.
pub fn certificate_file(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
    folder.join(name)
}

/// Writes a file in one step, as a tool that renews certificates or keys does.
pub fn replace_file(path: &Path, text: impl AsRef<[u8]>) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}
