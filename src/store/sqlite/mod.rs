//! The embedded store: one SQLite file that serves one process.
//!
//! Three threads, each with a connection of its own: one writes, one loads, one lists, so that a long
//! listing delays no load and no load delays a commit (WAL readers see the last commit and block nobody).
//! A commit is on disk when it returns: `synchronous=FULL` syncs the log in every transaction.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod` | the store: its threads, how it is opened again and closed |
//! | `worker` | a thread that owns a connection and does jobs on it |
//! | `file` | the file on disk: its folder, its lock, its connections |
//! | `schema` | tables and migrations |
//! | `write` | a batch as one transaction |
//! | `read` | rows back into types |
//! | `error` | what a failure of SQLite means to the caller |

mod error;
mod file;
mod read;
mod schema;
mod worker;
mod write;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;

use super::journal::Journal;
use super::snapshot::{ResourceId, Snapshot};
use super::{ListQuery, ListedResource, Opened, Store, StoreError, StoredData, StoredResource};
use crate::lock::{ResourceName, Selector};
use file::{DatabaseFile, FileLock};
use worker::{Ended, Jobs, closed};

/// How long [`Store::open`] and [`Store::close`] wait for a statement of an earlier connection to end.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// What can be chosen about the file.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a statement waits for a lock that some other program (a shell, a backup) has on the file.
    pub busy_timeout: Duration,
    /// Keeps the file at or under this many pages of 4096 bytes; a commit that needs more fails as on a full
    /// disk. `None`: bounded by the disk alone.
    pub pages_max: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            busy_timeout: Duration::from_secs(2),
            pages_max: None,
        }
    }
}

/// Rows in one SQLite file.
pub struct SqliteStore {
    path: PathBuf,
    options: Mutex<Options>,
    /// `None` before the first `open`, after `close`, and after a commit with unknown outcome.
    serving: Mutex<Option<Serving>>,
    /// Held while opening and closing; what is left of the threads of the last `open`.
    threads: tokio::sync::Mutex<Threads>,
    lock: Arc<FileLock>,
    /// How often it was opened with success.
    opened: AtomicU64,
    journal: Arc<Journal>,
}

#[derive(Clone)]
struct Serving {
    writer: Jobs,
    loader: Jobs,
    lister: Jobs,
}

#[derive(Default)]
struct Threads {
    readers: Vec<Ended>,
    writer: Vec<Ended>,
}

impl SqliteStore {
    /// A store in this file. Nothing is touched before [`Store::open`].
    pub fn new(path: impl Into<PathBuf>) -> SqliteStore {
        SqliteStore::with_options(path, Options::default())
    }

    pub fn with_options(path: impl Into<PathBuf>, options: Options) -> SqliteStore {
        SqliteStore {
            path: path.into(),
            options: Mutex::new(options),
            serving: Mutex::new(None),
            threads: tokio::sync::Mutex::default(),
            lock: Arc::default(),
            opened: AtomicU64::new(0),
            journal: Arc::default(),
        }
    }

    /// Takes effect at the next [`Store::open`].
    pub fn set_options(&self, options: Options) {
        *self.options.lock().unwrap_or_else(PoisonError::into_inner) = options;
    }

    fn serving(&self) -> MutexGuard<'_, Option<Serving>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `job` on one of the connections. Holds no sender while it waits, so that `open` and `close` can
    /// end the threads.
    async fn ask<T: Send + 'static>(
        &self,
        pick: fn(&Serving) -> &Jobs,
        job: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let answer = match &*self.serving() {
            Some(serving) => pick(serving).submit(job),
            None => return Err(closed()),
        };
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// One transaction. When its outcome is not known, nobody is served any more.
    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let opened = self.opened.load(Ordering::Relaxed);
        let written = self.ask(|s| &s.writer, job).await;
        if let Err(StoreError::Unavailable(_)) = written {
            // What these connections believe is in doubt: nobody is served from them any more.
            let mut serving = self.serving();
            if self.opened.load(Ordering::Relaxed) == opened {
                *serving = None;
            }
        }
        written
    }

    /// Ends the threads of an earlier `open`, the writer last: the connection that is closed last moves the
    /// log into the file, which a reader may not.
    async fn drain(&self, threads: &mut Threads) -> Result<(), StoreError> {
        let writer = self.serving().take().map(|serving| serving.writer);
        let drained = async {
            worker::all_ended(&mut threads.readers).await;
            drop(writer);
            worker::all_ended(&mut threads.writer).await;
        };
        let waited = tokio::time::timeout(DRAIN_MAX, drained).await;
        waited.map_err(|_| {
            StoreError::Unavailable("an earlier statement is still under way".to_owned())
        })
    }

    fn serve(&self, opened: file::OpenedFile) -> Result<(Serving, Threads), StoreError> {
        let spawn = |name: &str, connection| worker::spawn(name, connection, self.lock.clone());
        let (writer, writer_ended) = spawn("sqlite-writer", opened.writer)?;
        let (loader, loader_ended) = spawn("sqlite-loader", opened.loader)?;
        let (lister, lister_ended) = spawn("sqlite-lister", opened.lister)?;
        let serving = Serving {
            writer,
            loader,
            lister,
        };
        let threads = Threads {
            readers: vec![loader_ended, lister_ended],
            writer: vec![writer_ended],
        };
        Ok((serving, threads))
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    async fn open(&self) -> Result<Opened, StoreError> {
        let mut threads = self.threads.lock().await;
        self.drain(&mut threads).await?;
        let file = DatabaseFile {
            path: self.path.clone(),
            options: *self.options.lock().unwrap_or_else(PoisonError::into_inner),
            lock: self.lock.clone(),
            has_served: self.opened.load(Ordering::Relaxed) > 0,
            journal: self.journal.clone(),
        };
        let opened = worker::once("sqlite-open", move || file.open()).await?;
        let floor = opened.floor;
        let (serving, started) = self.serve(opened)?;
        *threads = started;
        self.opened.fetch_add(1, Ordering::Relaxed);
        *self.serving() = Some(serving);
        Ok(Opened {
            floor,
            recorded_profile: None,
        })
    }

    async fn commit(&self, batch: &[Snapshot]) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let (batch, journal) = (batch.to_vec(), self.journal.clone());
        self.write(move |c| write::commit(c, &journal, &batch))
            .await
    }

    async fn settle(&self) -> Result<(), StoreError> {
        let row = self.journal.last();
        loop {
            let journal = self.journal.clone();
            let step = self.write(move |c| write::settle_step(c, &journal, row));
            if !step.await? {
                return Ok(());
            }
        }
    }

    async fn load(&self, name: &ResourceName) -> Result<Option<StoredResource>, StoreError> {
        let read = || {
            let name = name.clone();
            self.ask(|s| &s.loader, move |c| read::resource(c, &name))
        };
        self.journal.load(name, read).await
    }

    async fn load_data(
        &self,
        id: &ResourceId,
        selector: &Selector,
    ) -> Result<Option<StoredData>, StoreError> {
        let (id, selector) = (id.clone(), selector.clone());
        self.ask(|s| &s.loader, move |c| read::data(c, &id, &selector))
            .await
    }

    async fn list(&self, query: &ListQuery) -> Result<Vec<ListedResource>, StoreError> {
        // Its order and its filter are the database's to apply.
        self.settle().await?;
        let query = query.clone();
        self.ask(|s| &s.lister, move |c| read::list(c, &query))
            .await
    }

    async fn close(&self) {
        if self.serving().is_some()
            && let Err(error) = self.settle().await
        {
            log::debug!("the journal is left to the next start: {error}");
        }
        let mut threads = self.threads.lock().await;
        if let Err(error) = self.drain(&mut threads).await {
            // The file's own log makes up for it at the next start.
            log::warn!("closing {}: {error}", self.path.display());
        }
        self.lock.release();
    }
}
