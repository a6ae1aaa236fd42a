//! Durable storage of resources: the trait [`Store`] and its three implementations.
//!
//! A store keeps rows and knows nothing of actors or HTTP. Its only writer is `persistence`, which commits one
//! batch at a time, so a store does not have to order writes itself. Every store passes the same conformance
//! suite (`tests/store`).
//!
//! | file | what it holds |
//! |---|---|
//! | `snapshot` | the changed rows of one resource, as a batch carries them |
//! | `journal` | write-ahead log of lock changes, for the SQL stores |
//! | `columns` | columns that the tables of both SQL stores have |
//! | `ended` | encoding of ended tickets in the SQL stores |
//! | `history` | the last leases of each name |
//! | `listing` | how the SQL stores find the resources of a listing |
//! | `members` | the instances that share a store, and the slots they own |
//! | `slot_set` | a set of slots |
//! | `shrink` | gives back the memory of a sparse hash table |
//! | `memory` | the store in memory, for tests and for state that may be lost |
//! | `sqlite` | the embedded store |
//! | `mysql` | the production store, shared by several instances |

mod columns;
mod ended;
pub mod history;
mod journal;
mod listing;
pub mod members;
pub mod memory;
pub mod mysql;
pub mod shrink;
pub mod slot_set;
pub mod snapshot;
pub mod sqlite;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::lock::rows::{HolderRow, LockRows};
use crate::lock::{FencingToken, ResourceName, ResourceOptions, Selector};
use history::{PastLease, PastLeases};
pub use members::{InstanceId, PeerAddress};
use members::{Members, Slot};
pub use snapshot::{ResourceId, Snapshot, StoredData};

/// A stored resource with its lock rows. Its documents are read separately, with [`Store::load_data`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResource {
    pub id: ResourceId,
    pub options: ResourceOptions,
    pub lock: LockRows,
    /// Number of documents (selectors that have data).
    pub selectors: usize,
}

/// Selector and size of one document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentSize {
    pub selector: Selector,
    /// Length of its JSON text.
    pub bytes: u64,
}

/// One resource of a listing, from committed rows only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedResource {
    pub name: ResourceName,
    pub id: ResourceId,
    pub options: ResourceOptions,
    /// The lease in the head row; `None`: the lock is free.
    pub holder: Option<HolderRow>,
    pub waiting: usize,
    pub selectors: usize,
}

/// Which resources to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListQuery {
    /// Prefix of the names, compared byte for byte. The empty prefix matches all names.
    pub prefix: String,
    /// Only names strictly after this one, in byte order.
    pub after: Option<String>,
    /// Maximum number of resources; at least 1.
    pub limit: usize,
    /// `true`: only held resources, `false`: only free ones, `None`: both.
    pub held: Option<bool>,
    /// As `held`, for locks that are reserved for a waiter or in their lock-delay. Stores ignore it, because no
    /// row records it.
    pub reserved: Option<bool>,
    pub order: ListOrder,
}

impl ListQuery {
    /// Exclusive upper bound of the names with this prefix. `None`: all names from the prefix on have it. (UTF-8
    /// texts sort by bytes as they sort by characters.)
    pub fn prefix_end(&self) -> Option<String> {
        let mut kept = self.prefix.chars();
        while let Some(last) = kept.next_back() {
            // A range of `char` skips the surrogates, which no text can contain.
            if let Some(next) = (last..=char::MAX).nth(1) {
                return Some(format!("{}{next}", kept.as_str()));
            }
        }
        None
    }

    /// `after`, if the order is by name and `after` excludes more names than the prefix does.
    pub fn name_after(&self) -> Option<&str> {
        let after = self.after.as_deref();
        after.filter(|after| self.order == ListOrder::Name && *after >= self.prefix.as_str())
    }
}

/// The order of a listing. The orders other than by name put the largest value first, break ties by name and
/// ignore `after`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListOrder {
    #[default]
    Name,
    /// Most stored waiters first.
    Waiting,
    /// Longest held first.
    Held,
}

/// Why a store operation failed. The texts are for the log and `/ready`, never for a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another instance has exclusive use of the database, or declared this one dead. This instance waits.
    #[error("another instance has the store")]
    Standby,
    /// The store does not answer, or an outcome is unknown: the operation under way may or may not have
    /// happened.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The content caused the failure: nothing of a change was stored, or a stored row cannot be read.
    #[error("the store refused a request: {0}")]
    Rejected(String),
    /// A read was ended because it reached its time limit.
    #[error("a read took too long: {0}")]
    TooSlow(String),
    /// The store cannot be used as it is, and waiting does not help.
    #[error("the store cannot be used: {0}")]
    Unusable(String),
}

impl StoreError {
    /// The cause alone, without the words that name the kind of error.
    pub fn detail(&self) -> &str {
        match self {
            StoreError::Standby => "another instance has the store",
            StoreError::Unavailable(text)
            | StoreError::Rejected(text)
            | StoreError::TooSlow(text)
            | StoreError::Unusable(text) => text,
        }
    }
}

/// A store of durable rows. All methods may be called from any thread of the runtime that opened the store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// `mysql`, `sqlite` or `memory`.
    fn kind(&self) -> &'static str;

    /// Makes the store ready to serve: creates and migrates the schema and takes ownership. Called again after
    /// [`StoreError::Standby`] or [`StoreError::Unavailable`]. Once it has succeeded, no earlier
    /// [`Store::commit`] can take effect any more.
    ///
    /// Returns the highest fencing token that any deleted resource reached, and the instances that share the
    /// store. `None`: only this process uses it.
    async fn open(&self) -> Result<(FencingToken, Option<Members>), StoreError>;

    /// As [`Store::open`], for a caller that needs the whole store for itself. Waits until silent instances
    /// count as dead.
    ///
    /// # Errors
    /// As of [`Store::open`]. [`StoreError::Standby`]: another instance is alive.
    async fn open_alone(&self) -> Result<(FencingToken, Option<Members>), StoreError> {
        self.open().await
    }

    /// Stores all snapshots in one transaction, durably, or none of them. No two of them have the same name. May
    /// block the calling thread (see [`Store::blocks_for`]), so nothing else should run on it.
    ///
    /// # Errors
    /// - [`StoreError::Rejected`]: nothing was stored; a smaller batch may succeed. Among the reasons: a name
    ///   that another resource has, and rows of a resource that does not exist, which would be lost.
    /// - [`StoreError::Unavailable`]: it is unknown whether the batch was stored. [`Store::open`] must be called
    ///   before anything else.
    async fn commit(&self, batch: &[Snapshot]) -> Result<(), StoreError>;

    /// The resource of this name (compared byte for byte) with its lock rows.
    async fn load(&self, name: &ResourceName) -> Result<Option<StoredResource>, StoreError>;

    /// One document.
    async fn load_data(
        &self,
        id: &ResourceId,
        selector: &Selector,
    ) -> Result<Option<StoredData>, StoreError>;

    /// Sizes of the first `limit` documents of a resource whose selectors come after `after`, in byte order of
    /// the selectors.
    async fn document_sizes(
        &self,
        id: &ResourceId,
        after: &str,
        limit: usize,
    ) -> Result<Vec<DocumentSize>, StoreError>;

    /// A page of resources, as of the last [`Store::checkpoint`]: the database selects and sorts them without the
    /// journal. A listing that takes longer than `limit` is ended, in the database too, with
    /// [`StoreError::TooSlow`].
    async fn list(
        &self,
        query: &ListQuery,
        limit: Duration,
    ) -> Result<Vec<ListedResource>, StoreError>;

    /// Records a heartbeat of this instance and reads which instances there are. Called every
    /// [`members::heartbeat_every`], and when the instances or their slots may have changed. `None`: the store is
    /// not shared.
    ///
    /// # Errors
    /// [`StoreError::Standby`]: this instance was declared dead and owns nothing any more. [`Store::open`]
    /// makes the process a new instance.
    async fn heartbeat(&self) -> Result<Option<Members>, StoreError> {
        Ok(None)
    }

    /// Makes another instance the owner of slots of this one, after a checkpoint. Commits wait meanwhile. No
    /// request or commit of these slots' names may be under way. `false`: nothing was given, because `to` takes
    /// no slots or because conflicting transactions were in the way each time.
    ///
    /// # Errors
    /// As of [`Store::commit`]. A later commit for a name of these slots fails with
    /// [`StoreError::Unavailable`].
    async fn give(&self, _slots: &[Slot], _to: InstanceId) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Takes over from an instance that [`Store::heartbeat`] reported dead: makes sure that none of its
    /// transactions can commit any more, writes its log to the tables as a checkpoint would, and makes this
    /// instance the owner of its slots. Does nothing if that instance turns out to be alive or if another one
    /// is about to take over from it.
    ///
    /// # Errors
    /// As of [`Store::commit`].
    async fn take_over(&self, _dead: InstanceId) -> Result<(), StoreError> {
        Ok(())
    }

    /// Records that this instance is shutting down and takes no slots any more.
    ///
    /// # Errors
    /// As of [`Store::commit`].
    async fn leave(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// How long an instance may be without a heartbeat before another one takes over. `None`: the store is not
    /// shared.
    fn instance_lease(&self) -> Option<Duration> {
        None
    }

    /// Whether the store can take a document of this size. Asked before [`Store::commit`], which would reject
    /// the whole batch because of one document that is too large.
    fn takes_document(&self, _json: &[u8]) -> bool {
        true
    }

    /// Writes the journal to the tables, in small transactions between the commits. Called every few seconds.
    /// The durability of commits does not depend on it.
    ///
    /// # Errors
    /// As of [`Store::commit`]; after [`StoreError::Rejected`] the journal is still to be written.
    async fn checkpoint(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Raises the fencing tokens of all names, so that every later grant gets a token above this one: for a store
    /// that was restored from a backup. To be called right after [`Store::open`].
    ///
    /// # Errors
    /// As of [`Store::commit`].
    async fn raise_tokens(&self, _above: FencingToken) -> Result<(), StoreError> {
        Ok(())
    }

    /// The highest fencing token that is stored, of existing and of deleted resources. To be called right after
    /// [`Store::open`].
    async fn highest_token(&self) -> Result<FencingToken, StoreError> {
        Ok(FencingToken(0))
    }

    /// Number of locks with changes that [`Store::checkpoint`] has yet to write to the tables.
    fn pending(&self) -> usize {
        0
    }

    /// Commits at once on the calling thread and moves rows out of the snapshot; for stores that never wait.
    /// `false`: the store does not support this, and the snapshot is unchanged.
    fn commit_inline(&self, _snapshot: &mut Snapshot) -> bool {
        false
    }

    /// Appends past leases to the history of their names and keeps the last `most` of each name; see
    /// [`history::append`]. Called every few seconds, one call at a time. Nothing else depends on it.
    ///
    /// # Errors
    /// As of a read: none of them means that the store is lost.
    async fn append_history(&self, news: &PastLeases, most: usize) -> Result<(), StoreError>;

    /// The past leases of a name, oldest first.
    async fn history(&self, name: &ResourceName) -> Result<Vec<PastLease>, StoreError>;

    /// For how long the current call of [`Store::commit`] or [`Store::checkpoint`] has blocked its thread, in a
    /// store that works on the calling thread. Zero: no call blocks a thread.
    fn blocks_for(&self) -> Duration {
        Duration::ZERO
    }

    /// Releases ownership, so that the next instance does not have to wait. No method is called afterwards.
    async fn close(&self);
}
