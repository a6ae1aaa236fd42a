//! [`MysqlStore`]: the connections to the database, and what this process knows of it.

use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::cluster_view::ClusterView;
use super::commit;
use super::error::Fault;
use super::fence::Membership;
use super::loss_detector::LossDetector;
use super::options::Options;
use super::rows::Sets;
use super::schema::ServerRow;
use super::server::Server;
use super::session::{Readers, Session, within};
use super::sql::Sql;
use crate::store::StoreError;
use crate::store::journal::Journal;

/// The store in a MySQL or MariaDB database.
pub struct MysqlStore {
    pub(super) options: Options,
    /// Membership in the database; `None`: the store is not open.
    pub(super) membership: parking_lot::Mutex<Option<Membership>>,
    /// The server's `max_allowed_packet` as the last writer found it, bytes.
    pub(super) packet_bytes_max: AtomicUsize,
    /// Connection of the last attempt to open, kept while another instance has to be waited for.
    pub(super) waiting_session: Mutex<Option<Session>>,
    pub(super) writer: Mutex<Writer>,
    pub(super) heartbeat_session: Mutex<Option<Session>>,
    pub(super) readers: Readers,
    /// The server on which the store was opened; all other connections must lead to a server that agrees with
    /// it.
    pub(super) home: parking_lot::Mutex<Option<Server>>,
    pub(super) journal: Journal,
    pub(super) loss_detector: parking_lot::Mutex<LossDetector>,
    pub(super) view: parking_lot::Mutex<ClusterView>,
    /// Warnings about the database's settings that are logged already.
    pub(super) warned: Mutex<Vec<String>>,
}

/// The one connection that commits.
#[derive(Default)]
pub(super) struct Writer {
    pub session: Option<Session>,
    /// The outcome of a commit is unknown; only opening again, with a new log, makes it certain. Also set while
    /// a commit is under way, so that it stays set if the commit's future is dropped.
    pub in_doubt: bool,
}

/// A database that this instance has joined. If the membership has an epoch, it has the database exclusively.
pub(super) struct Joined {
    pub session: Session,
    pub row: ServerRow,
    pub membership: Membership,
}

impl MysqlStore {
    /// Opens no connection yet.
    pub fn new(options: Options) -> MysqlStore {
        MysqlStore {
            membership: parking_lot::Mutex::default(),
            packet_bytes_max: AtomicUsize::new(usize::MAX),
            waiting_session: Mutex::default(),
            writer: Mutex::default(),
            heartbeat_session: Mutex::default(),
            readers: Readers::new(options.pool_size),
            home: parking_lot::Mutex::default(),
            journal: Journal::new(commit::LAYOUT),
            loss_detector: parking_lot::Mutex::default(),
            view: parking_lot::Mutex::default(),
            warned: Mutex::default(),
            options,
        }
    }

    pub(super) fn home(&self) -> Option<Server> {
        self.home.lock().clone()
    }

    pub(super) fn set_home(&self, server: Option<Server>) {
        *self.home.lock() = server;
    }

    pub(super) fn membership(&self) -> Option<Membership> {
        *self.membership.lock()
    }

    pub(super) fn set_membership(&self, membership: Option<Membership>) {
        *self.membership.lock() = membership;
    }

    /// Runs statements that only read.
    pub(super) async fn read(&self, sql: &Sql) -> Result<Sets, StoreError> {
        let home = self.home();
        let reading = self
            .readers
            .read(&self.options, home.as_ref(), sql.as_str());
        within(self.options.timeout, reading)
            .await
            .map_err(Fault::of_read)
    }

    /// As [`MysqlStore::read`], for one SELECT that the server ends at `deadline`.
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
