//! The embedded store: one SQLite file, used by one process.
//!
//! There are three connections: one writes, one loads, one lists, so that a long listing delays no load and no
//! load delays a commit (in WAL mode a reader sees the last commit and blocks nobody). Each reader has a thread
//! of its own. The writer works on the calling thread and blocks it: a commit takes about a tenth of a
//! millisecond, and handing it to another thread and back would take longer than that on a busy machine. A
//! commit is on disk when it returns: `synchronous=FULL` syncs the write-ahead log in every transaction.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod` | the store: its connections, how it is opened again and closed |
//! | `worker` | a thread that owns a connection and runs jobs on it |
//! | `file` | the file on disk: its folder, its lock, its connections |
//! | `schema` | tables and migrations |
//! | `write` | a batch as one transaction, and checkpointing the journal |
//! | `row_slots` | the places of the journal rows in their table |
//! | `read` | reading rows |
//! | `error` | maps errors of SQLite to those of a store |

mod error;
mod file;
mod read;
mod row_slots;
mod schema;
mod worker;
mod write;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::members::Members;
use super::snapshot::{ResourceId, Snapshot};
use super::{
    DocumentSize, ListQuery, ListedResource, Store, StoreError, StoredData, StoredResource,
};
use crate::lock::{FencingToken, ResourceName, Selector};
use crate::store::history::{PastLease, PastLeases};
use file::DatabaseFile;
use worker::{Jobs, WorkerEnded, closed};
use write::SqliteWriter;

/// How long [`Store::open`] and [`Store::close`] wait for a statement of an earlier connection to end.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Keeps its rows in one SQLite file.
pub struct SqliteStore {
    file: Arc<DatabaseFile>,
    /// `None` before the first `open`, after `close`, and after a commit with unknown outcome.
    writer: tokio::sync::Mutex<Option<SqliteWriter>>,
    /// `Some` when `writer` is.
    loader: Jobs,
    /// As `loader`.
    lister: Jobs,
    /// Reader threads that have not ended yet. Locked while the store is opened or closed.
    threads: tokio::sync::Mutex<Vec<WorkerEnded>>,
    /// Since when the writer has blocked its calling thread; `None`: it does not.
    blocks_since: Mutex<Option<Instant>>,
}

impl SqliteStore {
    /// A store in this file, which is not touched before [`Store::open`].
    pub fn new(path: impl Into<PathBuf>) -> SqliteStore {
        SqliteStore::with_pages_max(path, None)
    }

    /// `pages_max`: maximum size of the file, in pages of 4096 bytes; a commit that needs more fails as on a full
    /// disk. `None`: bounded by the disk alone.
    pub fn with_pages_max(path: impl Into<PathBuf>, pages_max: Option<u32>) -> SqliteStore {
        SqliteStore {
            file: Arc::new(DatabaseFile::new(path.into(), pages_max)),
            writer: tokio::sync::Mutex::default(),
            loader: Jobs::default(),
            lister: Jobs::default(),
            threads: tokio::sync::Mutex::default(),
            blocks_since: Mutex::default(),
        }
    }

    /// Lets the threads of the readers end once their jobs are done.
    fn end_readers(&self) {
        *self.loader.lock() = None;
        *self.lister.lock() = None;
    }

    /// Runs one transaction on the calling thread. If its outcome is unknown, every call fails until the next
    /// [`Store::open`].
    async fn write<T>(
        &self,
        job: impl FnOnce(&mut SqliteWriter) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = self.writer.lock().await;
        let Some(open) = writer.as_mut() else {
            return Err(closed());
        };
        *self.blocks_since.lock() = Some(Instant::now());
        let written = catch_unwind(AssertUnwindSafe(|| {
            let written = job(open)?;
            // Checked after the write: a commit is lost too if the file was deleted right after it.
            self.file.check()?;
            Ok(written)
        }));
        *self.blocks_since.lock() = None;
        let written = written.unwrap_or_else(|_| {
            let text = "a write to it panicked, which is a bug of this program";
            Err(StoreError::Unavailable(text.to_owned()))
        });
        if let Err(StoreError::Unavailable(_)) = written {
            // The state of these connections is in doubt: they are not used any more.
            *writer = None;
            self.end_readers();
        }
        written
    }

    /// Closes the connections of an earlier `open`, the writer last: the last connection to close moves the
    /// write-ahead log into the file, which a read-only connection cannot do.
    async fn drain(&self, threads: &mut Vec<WorkerEnded>) -> Result<(), StoreError> {
        let drained = async {
            self.end_readers();
            // Removes each one as it ends, so that a wait that was cut short can be continued.
            while let Some(ended) = threads.last_mut() {
                let _ = ended.await;
                threads.pop();
            }
            *self.writer.lock().await = None;
        };
        let waited = tokio::time::timeout(DRAIN_MAX, drained).await;
        waited.map_err(|_| {
            StoreError::Unavailable("an earlier statement is still running".to_owned())
        })
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    async fn open(&self) -> Result<(FencingToken, Option<Members>), StoreError> {
        let mut threads = self.threads.lock().await;
        self.drain(&mut threads).await?;
        let file = self.file.clone();
        let (opened, [loader, lister], token_floor) = worker::once(move || file.open()).await?;
        let spawn = |name, jobs, reader| worker::spawn(name, jobs, reader, self.file.clone());
        threads.push(spawn("sqlite-loader", &self.loader, loader)?);
        threads.push(spawn("sqlite-lister", &self.lister, lister)?);
        *self.writer.lock().await = Some(opened);
        Ok((token_floor, None))
    }

    async fn commit(&self, batch: &[Snapshot]) -> Result<(), StoreError> {
        self.write(|writer| writer.commit(&self.file.journal, batch))
            .await
    }

    async fn checkpoint(&self) -> Result<(), StoreError> {
        let journal = &self.file.journal;
        let row = journal.last_with_changes();
        let step = |writer: &mut SqliteWriter| writer.checkpoint_step(journal, row);
        while self.write(step).await? {
            // Waiting commits go first.
            tokio::task::yield_now().await;
        }
        // Checks the file even if there was nothing to do, so that an idle server notices that it is gone.
        self.write(|_| Ok(())).await
    }

    async fn append_history(&self, news: &PastLeases, most: usize) -> Result<(), StoreError> {
        for some in news.chunks(write::HISTORY_NAMES_MAX) {
            self.write(|writer| writer.append_history(some, most))
                .await?;
            // Waiting commits go first.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn history(&self, name: &ResourceName) -> Result<Vec<PastLease>, StoreError> {
        let name = name.clone();
        worker::run(&self.loader, move |db| read::history(db, &name)).await
    }

    async fn raise_tokens(&self, above: FencingToken) -> Result<(), StoreError> {
        self.write(|writer| writer.raise_tokens(above)).await
    }

    async fn highest_token(&self) -> Result<FencingToken, StoreError> {
        self.write(SqliteWriter::highest_token).await
    }

    fn pending(&self) -> usize {
        self.file.journal.len()
    }

    fn blocks_for(&self) -> Duration {
        let since = *self.blocks_since.lock();
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    async fn load(&self, name: &ResourceName) -> Result<Option<StoredResource>, StoreError> {
        let read = || {
            let name = name.clone();
            worker::run(&self.loader, move |db| read::resource(db, &name))
        };
        self.file.journal.load(name, read).await
    }

    async fn load_data(
        &self,
        id: &ResourceId,
        selector: &Selector,
    ) -> Result<Option<StoredData>, StoreError> {
        let (id, selector) = (id.clone(), selector.clone());
        worker::run(&self.loader, move |db| read::data(db, &id, &selector)).await
    }

    async fn document_sizes(
        &self,
        id: &ResourceId,
        after: &str,
        limit: usize,
    ) -> Result<Vec<DocumentSize>, StoreError> {
        let (id, after) = (id.clone(), after.to_owned());
        worker::run(&self.lister, move |db| {
            read::document_sizes(db, &id, &after, limit)
        })
        .await
    }

    async fn list(
        &self,
        query: &ListQuery,
        limit: Duration,
    ) -> Result<Vec<ListedResource>, StoreError> {
        let (query, deadline) = (query.clone(), Instant::now() + limit);
        worker::run(&self.lister, move |db| read::list(db, &query, deadline)).await
    }

    async fn close(&self) {
        let is_open = self.loader.lock().is_some();
        if is_open && let Err(error) = self.checkpoint().await {
            log::debug!("no checkpoint was made; the next start makes it: {error}");
        }
        let mut threads = self.threads.lock().await;
        if let Err(error) = self.drain(&mut threads).await {
            // SQLite replays its write-ahead log at the next start.
            log::warn!("cannot close {}: {error}", self.file.path.display());
        }
        self.file.release();
    }
}
