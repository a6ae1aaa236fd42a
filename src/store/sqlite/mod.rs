//! The embedded store: one SQLite file that serves one process.
//!
//! Three connections: one writes, one loads, one lists, so that a long listing delays no load and no load
//! delays a commit (WAL readers see the last commit and block nobody). The readers have a thread each. The
//! writer works on the thread that calls it, and blocks it: a commit is a matter of a tenth of a millisecond,
//! and two threads that hand it to each other and back would take longer than that on a busy machine.
//! A commit is on disk when it returns: `synchronous=FULL` syncs the log in every transaction.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod` | the store: its connections, how it is opened again and closed |
//! | `worker` | a thread that owns a connection and does jobs on it |
//! | `file` | the file on disk: its folder, its lock, its connections |
//! | `schema` | tables and migrations |
//! | `write` | a batch as one transaction, and checkpointing the journal |
//! | `row_slots` | where the rows of the journal are |
//! | `read` | rows back into types |
//! | `error` | what a failure of SQLite means to the caller |

mod error;
mod file;
mod history;
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
use rusqlite::Connection;

use super::snapshot::{ResourceId, Snapshot};
use super::{
    DocumentSize, ListQuery, ListedResource, Opened, Store, StoreError, StoredData, StoredResource,
};
use crate::lock::{FencingToken, ResourceName, Selector};
use crate::store::history::{PastLease, PastLeases};
use file::DatabaseFile;
pub use file::SqliteOptions;
use worker::{Jobs, WorkerEnded, closed};
use write::SqliteWriter;

/// How long [`Store::open`] and [`Store::close`] wait for a statement of an earlier connection to end.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Rows in one SQLite file.
pub struct SqliteStore {
    file: Arc<DatabaseFile>,
    /// `None` before the first `open`, after `close`, and after a commit with unknown outcome.
    writer: tokio::sync::Mutex<Option<SqliteWriter>>,
    /// There when the writer is.
    readers: Mutex<Option<ReadThreads>>,
    /// Held while opening and closing; what is left of the readers' threads of the last `open`.
    threads: tokio::sync::Mutex<Vec<WorkerEnded>>,
    /// Since when the writer blocks the thread that called it.
    blocks_since: Mutex<Option<Instant>>,
}

struct ReadThreads {
    loader: Jobs,
    lister: Jobs,
}

impl SqliteStore {
    /// A store in this file. Nothing is touched before [`Store::open`].
    pub fn new(path: impl Into<PathBuf>) -> SqliteStore {
        SqliteStore::with_options(path, SqliteOptions::default())
    }

    pub fn with_options(path: impl Into<PathBuf>, options: SqliteOptions) -> SqliteStore {
        SqliteStore {
            file: Arc::new(DatabaseFile::new(path.into(), options)),
            writer: tokio::sync::Mutex::default(),
            readers: Mutex::default(),
            threads: tokio::sync::Mutex::default(),
            blocks_since: Mutex::default(),
        }
    }

    /// Takes effect at the next [`Store::open`].
    pub fn set_options(&self, options: SqliteOptions) {
        *self.file.options.lock() = options;
    }

    /// Does `job` on one of the connections that read. Holds no sender while it waits, so that `open` and
    /// `close` can end the threads.
    async fn read<T: Send + 'static>(
        &self,
        pick: fn(&ReadThreads) -> &Jobs,
        job: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let answer = match &*self.readers.lock() {
            Some(readers) => pick(readers).submit(job),
            None => return Err(closed()),
        };
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// One transaction, on this thread. When its outcome is not known, nobody is served any more.
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
            // Afterwards: what was written before it was deleted is lost too.
            self.file.check()?;
            Ok(written)
        }));
        *self.blocks_since.lock() = None;
        let written = written.unwrap_or_else(|_| {
            let text = "writing to it broke off by a mistake of this program";
            Err(StoreError::Unavailable(text.to_owned()))
        });
        if let Err(StoreError::Unavailable(_)) = written {
            // What these connections believe is in doubt: nobody is served from them any more.
            *writer = None;
            *self.readers.lock() = None;
        }
        written
    }

    /// Closes the connections of an earlier `open`, the writer last: the one that is closed last moves the
    /// log into the file, which a reader may not.
    async fn drain(&self, threads: &mut Vec<WorkerEnded>) -> Result<(), StoreError> {
        let drained = async {
            self.readers.lock().take();
            worker::all_ended(threads).await;
            *self.writer.lock().await = None;
        };
        let waited = tokio::time::timeout(DRAIN_MAX, drained).await;
        waited.map_err(|_| {
            StoreError::Unavailable("an earlier statement is still under way".to_owned())
        })
    }

    async fn serve(
        &self,
        opened: file::OpenedFile,
        threads: &mut Vec<WorkerEnded>,
    ) -> Result<(), StoreError> {
        let spawn = |name: &str, connection| worker::spawn(name, connection, self.file.clone());
        let (loader, loader_ended) = spawn("sqlite-loader", opened.loader)?;
        threads.push(loader_ended);
        let (lister, lister_ended) = spawn("sqlite-lister", opened.lister)?;
        threads.push(lister_ended);
        let mut writer = self.writer.lock().await;
        *self.readers.lock() = Some(ReadThreads { loader, lister });
        *writer = Some(opened.writer);
        Ok(())
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
        let file = self.file.clone();
        let opened = worker::once("sqlite-open", move || file.open()).await?;
        let token_floor = opened.token_floor;
        self.serve(opened, &mut threads).await?;
        Ok(Opened {
            token_floor,
            recorded_profile: None,
            members: None,
        })
    }

    async fn commit(&self, batch: &[Snapshot]) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.write(|writer| writer.commit(&self.file.journal, batch))
            .await
    }

    async fn checkpoint(&self) -> Result<(), StoreError> {
        let journal = &self.file.journal;
        let row = journal.last_told();
        let step = |writer: &mut SqliteWriter| writer.checkpoint_step(journal, row);
        while self.write(step).await? {
            // Commits that wait come first.
            tokio::task::yield_now().await;
        }
        // Also when there was nothing to do: an idle server is to notice too.
        self.write(|_| Ok(())).await
    }

    async fn append_history(&self, news: &PastLeases, most: usize) -> Result<(), StoreError> {
        for some in news.chunks(history::NAMES_AT_ONCE) {
            self.write(|writer| writer.append_history(some, most))
                .await?;
            // Commits that wait come first.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn history(&self, name: &ResourceName) -> Result<Vec<PastLease>, StoreError> {
        let name = name.clone();
        self.read(|r| &r.loader, move |c| history::read(c, &name))
            .await
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
            self.read(|r| &r.loader, move |c| read::resource(c, &name))
        };
        self.file.journal.load(name, read).await
    }

    async fn load_data(
        &self,
        id: &ResourceId,
        selector: &Selector,
    ) -> Result<Option<StoredData>, StoreError> {
        let (id, selector) = (id.clone(), selector.clone());
        self.read(|r| &r.loader, move |c| read::data(c, &id, &selector))
            .await
    }

    async fn document_sizes(
        &self,
        id: &ResourceId,
        after: &str,
        limit: usize,
    ) -> Result<Vec<DocumentSize>, StoreError> {
        let (id, after) = (id.clone(), after.to_owned());
        let sizes = move |c: &mut Connection| read::document_sizes(c, &id, &after, limit);
        self.read(|r| &r.lister, sizes).await
    }

    async fn list(
        &self,
        query: &ListQuery,
        limit: Duration,
    ) -> Result<Vec<ListedResource>, StoreError> {
        let (query, deadline) = (query.clone(), Instant::now() + limit);
        self.read(|r| &r.lister, move |c| read::list(c, &query, deadline))
            .await
    }

    async fn close(&self) {
        let is_open = self.readers.lock().is_some();
        if is_open && let Err(error) = self.checkpoint().await {
            log::debug!("the journal is left to the next start: {error}");
        }
        let mut threads = self.threads.lock().await;
        if let Err(error) = self.drain(&mut threads).await {
            // The file's own log makes up for it at the next start.
            log::warn!("closing {}: {error}", self.file.path.display());
        }
        self.file.release();
    }
}
