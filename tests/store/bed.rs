//! How each store is made fresh, reopened, and found again after a crash.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use small_resource_server::store::Store;
use small_resource_server::store::memory::MemoryStore;
use small_resource_server::store::mysql::MysqlStore;
use small_resource_server::store::sqlite::SqliteStore;
use tempfile::TempDir;

use crate::support::{Database, take_over};

/// One store on data of its own.
#[async_trait(?Send)]
pub trait Bed: Sized {
    /// The operator of the tests chose to leave this store out.
    fn is_skipped() -> bool {
        false
    }

    /// An opened store without any rows.
    async fn fresh() -> Self;

    fn store(&self) -> &dyn Store;

    /// The store is closed; another value of it is opened on the same data.
    async fn reopened(self) -> Self;

    /// As after `kill -9`: another value of the store is opened on what the first one left, unclosed.
    async fn crashed(self) -> Self;
}

/// Drives one claim on a runtime of its own.
pub fn run(claim: impl AsyncFnOnce()) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().expect("a runtime");
    runtime.block_on(claim());
}

/// The memory store keeps rows for as long as its value lives; it is opened again instead.
pub struct MemoryBed(Arc<MemoryStore>);

#[async_trait(?Send)]
impl Bed for MemoryBed {
    async fn fresh() -> Self {
        let store = MemoryStore::default();
        store.open().await.unwrap();
        MemoryBed(Arc::new(store))
    }

    fn store(&self) -> &dyn Store {
        &*self.0
    }

    async fn reopened(self) -> Self {
        self.0.close().await;
        self.crashed().await
    }

    async fn crashed(self) -> Self {
        self.0.open().await.unwrap();
        self
    }
}

pub struct SqliteBed {
    folder: TempDir,
    store: SqliteStore,
}

impl SqliteBed {
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("resources.db")
    }

    /// SQLite's write-ahead log.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("resources.db-wal")
    }

    async fn in_folder(folder: TempDir) -> Self {
        let store = SqliteStore::new(folder.path().join("resources.db"));
        store.open().await.unwrap();
        SqliteBed { folder, store }
    }
}

#[async_trait(?Send)]
impl Bed for SqliteBed {
    async fn fresh() -> Self {
        SqliteBed::in_folder(tempfile::tempdir().unwrap()).await
    }

    fn store(&self) -> &dyn Store {
        &self.store
    }

    async fn reopened(self) -> Self {
        self.store.close().await;
        let log = self.folder.path().join("resources.db-wal");
        assert!(!log.exists(), "closing moves the log into the file");
        SqliteBed::in_folder(self.folder).await
    }

    /// The files as they are while the first store still has them open are what a crash leaves.
    async fn crashed(self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["resources.db", "resources.db-wal"] {
            fs::copy(self.folder.path().join(name), folder.path().join(name)).unwrap();
        }
        SqliteBed::in_folder(folder).await
    }
}

pub struct MysqlBed {
    // Closes its connections before the database is dropped.
    store: MysqlStore,
    database: Database,
}

impl MysqlBed {
    /// Waits for a previous owner that was not closed to be silent for long enough.
    async fn on(database: Database) -> Self {
        let store = database.store();
        take_over(&store).await;
        MysqlBed { store, database }
    }
}

#[async_trait(?Send)]
impl Bed for MysqlBed {
    fn is_skipped() -> bool {
        Database::is_skipped()
    }

    async fn fresh() -> Self {
        MysqlBed::on(Database::new().expect("is_skipped was asked")).await
    }

    fn store(&self) -> &dyn Store {
        &self.store
    }

    async fn reopened(self) -> Self {
        self.store.close().await;
        MysqlBed::on(self.database).await
    }

    /// The first store goes without a word; the next one finds the row taken.
    async fn crashed(self) -> Self {
        drop(self.store);
        MysqlBed::on(self.database).await
    }
}
