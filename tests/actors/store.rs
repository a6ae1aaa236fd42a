//! A store in memory that does what a test says.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use small_resource_server::lock::{FencingToken, ResourceName, Selector};
use small_resource_server::store::history::{PastLease, PastLeases};
use small_resource_server::store::members::Members;
use small_resource_server::store::memory::MemoryStore;
use small_resource_server::store::{
    DocumentSize, ListQuery, ListedResource, ResourceId, Snapshot, Store, StoreError, StoredData,
    StoredResource,
};

#[derive(Default)]
pub struct Scripted {
    inner: MemoryStore,
    /// Resources cannot be read, and the store is not lost for that.
    pub unreadable: AtomicBool,
    /// How many of the next commits fail, their outcome unknown.
    pub failures: AtomicUsize,
    /// Commits of this name are refused.
    pub refused: Mutex<Option<ResourceName>>,
    /// Commits of this name are held up.
    pub held_up: Mutex<Option<ResourceName>>,
    /// Whoever asks about times and waits panics.
    pub breaks_its_caller: AtomicBool,
    /// The driver panics when a resource or a document is read, and when the store is opened.
    pub driver_panics: AtomicBool,
    /// How many commits were begun.
    pub commits: AtomicUsize,
    /// Documents that are read are held up.
    pub loads_held_up: AtomicBool,
    /// Listings fail.
    pub unlistable: AtomicBool,
    /// Listings take longer than they may.
    pub slow_to_list: AtomicBool,
    /// How many times a document was read.
    pub loads: AtomicUsize,
    /// The number in the document `s` that was committed last; 0: none.
    pub committed: AtomicU64,
}

pub fn number(json: &[u8]) -> u64 {
    std::str::from_utf8(json).unwrap().parse().unwrap()
}

impl Scripted {
    fn call_driver(&self) {
        assert!(
            !self.driver_panics.load(Ordering::SeqCst),
            "the driver's mistake"
        );
    }

    fn is_in(name: &Mutex<Option<ResourceName>>, batch: &[Snapshot]) -> bool {
        let name = name.lock().unwrap();
        name.as_ref()
            .is_some_and(|name| batch.iter().any(|snapshot| snapshot.name == *name))
    }
}

#[async_trait]
impl Store for Scripted {
    fn kind(&self) -> &'static str {
        "scripted"
    }

    async fn open(&self) -> Result<(FencingToken, Option<Members>), StoreError> {
        self.call_driver();
        self.inner.open().await
    }

    async fn commit(&self, batch: &[Snapshot]) -> Result<(), StoreError> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        // Room for others while the outcome is open.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        while Scripted::is_in(&self.held_up, batch) {
            tokio::task::yield_now().await;
        }
        let fails = |n: usize| n.checked_sub(1);
        if self
            .failures
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails)
            .is_ok()
        {
            return Err(StoreError::Unavailable("the test says so".to_owned()));
        }
        if Scripted::is_in(&self.refused, batch) {
            return Err(StoreError::Rejected("the test says so".to_owned()));
        }
        self.inner.commit(batch).await?;
        let documents = batch.iter().flat_map(|snapshot| &snapshot.data);
        for (_, row) in documents.filter(|(selector, _)| selector.as_str() == "s") {
            if let Some(row) = row {
                self.committed.store(number(&row.json), Ordering::SeqCst);
            }
        }
        Ok(())
    }

    async fn load(&self, name: &ResourceName) -> Result<Option<StoredResource>, StoreError> {
        self.call_driver();
        if self.unreadable.load(Ordering::SeqCst) {
            return Err(StoreError::Rejected("not now".into()));
        }
        self.inner.load(name).await
    }

    async fn load_data(
        &self,
        id: &ResourceId,
        selector: &Selector,
    ) -> Result<Option<StoredData>, StoreError> {
        self.call_driver();
        self.loads.fetch_add(1, Ordering::SeqCst);
        let data = self.inner.load_data(id, selector).await;
        while self.loads_held_up.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        data
    }

    async fn document_sizes(
        &self,
        id: &ResourceId,
        after: &str,
        limit: usize,
    ) -> Result<Vec<DocumentSize>, StoreError> {
        self.inner.document_sizes(id, after, limit).await
    }

    async fn list(
        &self,
        query: &ListQuery,
        limit: Duration,
    ) -> Result<Vec<ListedResource>, StoreError> {
        if self.slow_to_list.load(Ordering::SeqCst) {
            return Err(StoreError::TooSlow("not in time".into()));
        }
        if self.unlistable.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("not in time".into()));
        }
        self.inner.list(query, limit).await
    }

    fn instance_lease(&self) -> Option<Duration> {
        assert!(
            !self.breaks_its_caller.load(Ordering::SeqCst),
            "the test says so"
        );
        None
    }

    fn blocks_for(&self) -> Duration {
        assert!(
            !self.breaks_its_caller.load(Ordering::SeqCst),
            "the test says so"
        );
        Duration::ZERO
    }

    async fn append_history(&self, news: &PastLeases, most: usize) -> Result<(), StoreError> {
        self.inner.append_history(news, most).await
    }

    async fn history(&self, name: &ResourceName) -> Result<Vec<PastLease>, StoreError> {
        self.inner.history(name).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
