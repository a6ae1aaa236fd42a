//! [`MysqlStore`]: the connections to the database, and what this process knows of it.

use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Semaphore};

use super::cluster_view::ClusterView;
use super::commit;
use super::error::Fault;
use super::fence::Membership;
use super::loss_detector::LossDetector;
use super::options::Options;
use super::rows::Sets;
use super::server::Server;
use super::session::{Session, within};
use super::sql::Sql;
use crate::store::StoreError;
use crate::store::journal::Journal;

/// Idle time after which a connection that reads is not used any more: the network may have dropped it without
/// notice.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The store in a MySQL or MariaDB database.
pub struct MysqlStore {
    pub(super) options: Options,
    /// Membership in the database; `None`: the store is not open, or the outcome of a commit is unknown. Only
    /// opening, with a new log, makes that certain.
    pub(super) membership: parking_lot::Mutex<Option<Membership>>,
    /// The server's `max_allowed_packet` as the last writer found it, bytes.
    pub(super) packet_bytes_max: AtomicUsize,
    /// Connection of the last attempt to open, kept while another instance has to be waited for.
    pub(super) waiting_session: Mutex<Option<Session>>,
    /// The one connection that commits.
    pub(super) writer: Mutex<Option<Session>>,
    pub(super) heartbeat_session: Mutex<Option<Session>>,
    /// A permit for each connection that may read.
    reading: Semaphore,
    /// The idle connections that read, after their generation: how often all of them were dropped. One that is
    /// of an earlier generation is not kept: it may lead to a server that was replaced.
    readers: parking_lot::Mutex<(u64, Vec<Session>)>,
    /// The server on which the store was opened; all other connections must lead to a server that agrees with
    /// it.
    pub(super) home: parking_lot::Mutex<Option<Server>>,
    pub(super) journal: Journal,
    pub(super) loss_detector: parking_lot::Mutex<LossDetector>,
    pub(super) view: parking_lot::Mutex<ClusterView>,
    /// Warnings about the database's settings that are logged already.
    pub(super) warned: Mutex<Vec<String>>,
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
            reading: Semaphore::new(options.pool_size.max(1)),
            readers: parking_lot::Mutex::default(),
            home: parking_lot::Mutex::default(),
            journal: commit::new_journal(),
            loss_detector: parking_lot::Mutex::default(),
            view: parking_lot::Mutex::default(),
            warned: Mutex::default(),
            options,
        }
    }

    pub(super) fn home(&self) -> Option<Server> {
        self.home.lock().clone()
    }

    pub(super) fn membership(&self) -> Option<Membership> {
        *self.membership.lock()
    }

    pub(super) fn set_membership(&self, membership: Option<Membership>) {
        *self.membership.lock() = membership;
    }

    /// Drops the idle connections that read; new ones are opened when needed.
    pub(super) fn renew_readers(&self) {
        let mut readers = self.readers.lock();
        readers.0 += 1;
        readers.1.clear();
    }

    /// Runs statements that only read.
    pub(super) async fn read(&self, sql: &Sql) -> Result<Sets, StoreError> {
        let reading = self.read_on_any(sql.as_str());
        let read = within(self.options.timeout, reading).await;
        read.map_err(Fault::of_read)
    }

    /// If a kept connection turns out to be dead, tries again on another one.
    async fn read_on_any(&self, sql: &str) -> Result<Sets, Fault> {
        let home = self.home();
        let _permit = self.reading.acquire().await;
        loop {
            let (generation, idle) = {
                let mut readers = self.readers.lock();
                (readers.0, readers.1.pop())
            };
            let kept = idle.filter(|session| session.used_at.elapsed() < IDLE_MAX);
            let is_new = kept.is_none();
            let mut session = match kept {
                Some(session) => session,
                // The server itself ends a statement when nobody waits for it any more.
                None => {
                    let limit = Some(self.options.timeout);
                    Session::connect(&self.options, home.as_ref(), limit).await?
                }
            };
            match session.run(sql).await {
                Ok(sets) => {
                    let mut readers = self.readers.lock();
                    if readers.0 == generation {
                        readers.1.push(session);
                    }
                    return Ok(sets);
                }
                Err(Fault::Away(text)) if !is_new => {
                    log::debug!("a kept connection to the database was lost: {text}");
                }
                Err(fault) => return Err(fault),
            }
        }
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
