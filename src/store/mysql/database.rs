//! The database as this process has it: its connections, and what it knows of it.

use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use tokio::sync::Mutex;

use super::commit;
use super::error::Fault;
use super::fence::Tenure;
use super::looks::Looks;
use super::options::Options;
use super::rows::Sets;
use super::schema::ServerRow;
use super::server::Server;
use super::session::{Readers, Session, within};
use super::sql::Sql;
use super::witness::Witness;
use crate::store::StoreError;
use crate::store::journal::Journal;

/// Rows in a MySQL or MariaDB database.
pub struct MysqlStore {
    pub(super) options: Options,
    pub(super) tenure: parking_lot::Mutex<Option<Tenure>>,
    /// The server's `max_allowed_packet` as the last writer found it, bytes.
    pub(super) packet_bytes_max: AtomicUsize,
    /// Of the last try to open, which has to wait for another instance.
    pub(super) waiting_session: Mutex<Option<Session>>,
    pub(super) writer: Mutex<Writer>,
    pub(super) heartbeat_session: Mutex<Option<Session>>,
    pub(super) readers: Readers,
    /// The server on which we came to take part.
    pub(super) home: parking_lot::Mutex<Option<Server>>,
    pub(super) journal: Journal,
    pub(super) witness: parking_lot::Mutex<Witness>,
    pub(super) looks: parking_lot::Mutex<Looks>,
    /// What was said about the database's own settings.
    pub(super) warned: Mutex<Vec<String>>,
}

/// The one connection that commits.
#[derive(Default)]
pub(super) struct Writer {
    pub session: Option<Session>,
    /// A commit began and its outcome is not known: only a new log makes it certain. Also set while a
    /// commit is under way, so that one that is dropped half way leaves it set.
    pub in_doubt: bool,
}

/// A database that we have come to take part in, or that is ours alone: the tenure says which.
pub(super) struct Taken {
    pub session: Session,
    pub row: ServerRow,
    pub tenure: Tenure,
}

/// Between two tries of what someone else's lock or deadlock made fail.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(20);

impl MysqlStore {
    /// Connects to nothing yet.
    pub fn new(options: Options) -> MysqlStore {
        MysqlStore {
            tenure: parking_lot::Mutex::default(),
            packet_bytes_max: AtomicUsize::new(usize::MAX),
            waiting_session: Mutex::default(),
            writer: Mutex::default(),
            heartbeat_session: Mutex::default(),
            readers: Readers::new(options.pool_size),
            home: parking_lot::Mutex::default(),
            journal: Journal::new(commit::LAYOUT),
            witness: parking_lot::Mutex::default(),
            looks: parking_lot::Mutex::default(),
            warned: Mutex::default(),
            options,
        }
    }

    pub(super) fn home(&self) -> Option<Server> {
        let home = self.home.lock();
        home.clone()
    }

    pub(super) fn witness(&self) -> MutexGuard<'_, Witness> {
        self.witness.lock()
    }

    pub(super) fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock()
    }

    pub(super) fn set_home(&self, server: Option<Server>) {
        let mut home = self.home.lock();
        *home = server;
    }

    /// In which we take part in the database; `None`: we do not.
    pub(super) fn tenure(&self) -> Option<Tenure> {
        *self.tenure.lock()
    }

    pub(super) fn set_tenure(&self, tenure: Option<Tenure>) {
        *self.tenure.lock() = tenure;
    }

    pub(super) async fn read(&self, sql: &Sql) -> Result<Sets, StoreError> {
        let home = self.home();
        let reading = self
            .readers
            .read(&self.options, home.as_ref(), sql.as_str());
        within(self.options.timeout, reading)
            .await
            .map_err(Fault::of_read)
    }

    /// As [`MysqlStore::read`], of one SELECT that the server ends at this time.
    pub(super) async fn read_until(
        &self,
        mut sql: Sql,
        deadline: Instant,
    ) -> Result<Sets, StoreError> {
        let left = deadline.saturating_duration_since(Instant::now());
        sql.limit(left.max(Duration::from_millis(1)));
        self.read(&sql).await
    }
}
