//! Where resources outlive the process: one trait, three ways.
//!
//! A store keeps rows and knows nothing of actors or HTTP. It is driven by `persistence`, which is
//! its only writer: one batch at a time, so no store has to order writes itself. Every store passes the
//! same conformance suite (`tests/store`).
//!
//! | file | what it holds |
//! |---|---|
//! | `snapshot` | what a batch carries: the changed rows of one resource, and how two merge |
//! | `journal` | lock changes on their way into the tables of the SQL stores |
//! | `columns` | what tables of both SQL stores have in common |
//! | `ended` | ended tickets as the SQL stores keep them |
//! | `history` | the last leases of each name |
//! | `listing` | how the SQL stores find the resources of a listing |
//! | `members` | how several instances share one store |
//! | `slot_set` | a set of slots |
//! | `memory` | for tests and for state that may be lost |
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
use crate::lock::{FencingToken, Profile, ResourceName, ResourceOptions, Selector};
use history::{PastLease, PastLeases};
pub use members::{InstanceId, PeerAddress};
use members::{Members, Slot};
pub use snapshot::{ResourceId, Snapshot, StoredData};

/// A resource with its lock rows. Data stays in the store until it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResource {
    pub id: ResourceId,
    pub options: ResourceOptions,
    pub lock: LockRows,
    /// How many selectors have data.
    pub selectors: usize,
}

/// A document without its JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentSize {
    pub selector: Selector,
    /// Of its JSON text.
    pub bytes: u64,
}

/// A resource as a listing shows it: committed rows only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedResource {
    pub name: ResourceName,
    pub id: ResourceId,
    pub options: ResourceOptions,
    /// The lease in the head row.
    pub holder: Option<HolderRow>,
    pub waiting: usize,
    pub selectors: usize,
}

/// Which resources to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListQuery {
    /// Compared byte for byte; empty matches all.
    pub prefix: String,
    /// Names strictly after this one, in byte order.
    pub after: Option<String>,
    /// How many at most; at least 1.
    pub limit: usize,
    /// Only those that have (or have not) a holder.
    pub held: Option<bool>,
    /// Only those that are (or are not) kept for a waiter or in their lock-delay, which no row says: not for stores.
    pub reserved: Option<bool>,
    pub order: ListOrder,
}

impl ListQuery {
    /// Names with the prefix are those from the prefix up to, but not including, this one; `None`: all from
    /// the prefix on. (The byte order of UTF-8 is the order of its characters.)
    pub fn prefix_end(&self) -> Option<String> {
        let mut kept = self.prefix.chars();
        while let Some(last) = kept.next_back() {
            // A range of characters steps over the surrogates, which no text can hold.
            if let Some(next) = (last..=char::MAX).nth(1) {
                return Some(format!("{}{next}", kept.as_str()));
            }
        }
        None
    }

    /// `after`, where the order heeds it and it leaves out more than the prefix does.
    pub fn name_after(&self) -> Option<&str> {
        let after = self.after.as_deref();
        after.filter(|after| self.order == ListOrder::Name && *after >= self.prefix.as_str())
    }
}

/// The order of a listing. The orders other than by name put the largest first and then go by name; they
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

/// What a store tells when it is ready to serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The highest fencing token that any deleted resource reached.
    pub token_floor: FencingToken,
    /// The profile that is recorded in the store (a database that the PHP server wrote).
    pub recorded_profile: Option<Profile>,
    /// With whom the store is shared; `None`: it is this process's alone.
    pub members: Option<Members>,
}

/// Why a store did not do what it was asked. The text is for the log, never for a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another instance has this database alone for now, or took this one for dead; this one waits.
    #[error("another instance has the store")]
    Standby,
    /// Away, or in doubt: whatever was under way may or may not have happened.
    #[error("the store is away: {0}")]
    Unavailable(String),
    /// Nothing of it was stored, because of what it contains.
    #[error("the store refused a change: {0}")]
    Rejected(String),
    /// A read that would have taken longer than it may.
    #[error("a read took too long: {0}")]
    TooSlow(String),
    /// It cannot be used as it is, and waiting will not help.
    #[error("the store cannot be used: {0}")]
    Unusable(String),
}

impl StoreError {
    /// What happened, without what that means.
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

/// Durable rows. All methods may be called from any thread of the runtime that opened the store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// `mysql`, `sqlite` or `memory`.
    fn kind(&self) -> &'static str;

    /// Makes the store ready to serve: schema created, migrated, ownership taken. Called again after
    /// [`StoreError::Standby`] and after [`StoreError::Unavailable`] of any method; when it succeeds,
    /// nothing of an earlier [`Store::commit`] can land any more.
    async fn open(&self) -> Result<Opened, StoreError>;

    /// As [`Store::open`], for what has to have the whole store for itself; waits for those that are silent to be so for
    /// long enough. [`StoreError::Standby`]: another instance lives.
    async fn open_alone(&self) -> Result<Opened, StoreError> {
        self.open().await
    }

    /// Stores all snapshots in one transaction, durably, or none of them.
    ///
    /// [`StoreError::Rejected`]: none were stored; a smaller batch may succeed. Among the reasons: a name
    /// that another resource has, and rows of a resource that does not exist, which would be lost.
    /// [`StoreError::Unavailable`]: unknown whether they were; [`Store::open`] must be called before
    /// anything else.
    ///
    /// May block the thread that calls it (see [`Store::blocks_for`]), so nothing else should live there.
    async fn commit(&self, batch: &[Snapshot]) -> Result<(), StoreError>;

    /// The resource of this name (compared byte for byte) with its lock rows.
    async fn load(&self, name: &ResourceName) -> Result<Option<StoredResource>, StoreError>;

    /// One document.
    async fn load_data(
        &self,
        id: &ResourceId,
        selector: &Selector,
    ) -> Result<Option<StoredData>, StoreError>;

    /// The first `limit` documents of a resource whose selectors come after this one, in the order of their bytes.
    async fn document_sizes(
        &self,
        id: &ResourceId,
        after: &str,
        limit: usize,
    ) -> Result<Vec<DocumentSize>, StoreError>;

    /// A page of resources, as of the last [`Store::checkpoint`]: their order and which of them are held is the
    /// database's to say. What would take longer than `limit` is ended, in the database too:
    /// [`StoreError::TooSlow`].
    async fn list(
        &self,
        query: &ListQuery,
        limit: Duration,
    ) -> Result<Vec<ListedResource>, StoreError>;

    /// A sign of life of this instance, and a look at the others. Called about once a second by stores that say so with
    /// [`Store::heartbeat_ms`], and whenever something may have changed. [`StoreError::Standby`]: this instance was
    /// taken for dead, and owns nothing any more; [`Store::open`] makes another one of it.
    async fn heartbeat(&self) -> Result<Option<Members>, StoreError> {
        Ok(None)
    }

    /// Gives slots of this instance to another one, after a checkpoint: commits wait for as long as that takes. Nothing of their
    /// names may be under way. `false`: nothing was given, because that one takes none or others stood in the way.
    ///
    /// Errors as of [`Store::commit`]; a later commit about these names is one.
    async fn give(&self, _slots: &[Slot], _to: InstanceId) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Takes over what an instance owned that is dead, as [`Store::heartbeat`] told: nothing of it can land any more, what
    /// it had committed is stored as if it had been checkpointed, and its slots are this one's. Returns without having
    /// done anything when it turns out to live, or another instance is about to do the same.
    ///
    /// Errors as of [`Store::commit`].
    async fn take_over(&self, _dead: InstanceId) -> Result<(), StoreError> {
        Ok(())
    }

    /// This instance takes no slots from now on, because it ends.
    ///
    /// Errors as of [`Store::commit`].
    async fn leave(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// How often [`Store::heartbeat`] must be called, and for how long after a successful one was *sent*
    /// this instance may go on answering. `None`: the store is this process's alone.
    fn heartbeat_ms(&self) -> Option<HeartbeatTimes> {
        None
    }

    /// Whether a document of this JSON text can be stored at all, as far as its size goes. Asked before
    /// [`Store::commit`], which rejects what is too large, at the cost of whatever else is in that commit.
    fn takes_document(&self, _json: &[u8]) -> bool {
        true
    }

    /// Tidies up what commits put off for the sake of their speed, in small transactions of its own between
    /// them. Called every few seconds; nothing that was committed depends on it.
    ///
    /// Errors as of [`Store::commit`]; with [`StoreError::Rejected`] it is still to be done.
    async fn checkpoint(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Every grant of every name has a token above this one from now on. For a store that has lost some of
    /// what it had: to be called right after [`Store::open`], before anything else.
    ///
    /// Errors as of [`Store::commit`].
    async fn raise_tokens(&self, _above: FencingToken) -> Result<(), StoreError> {
        Ok(())
    }

    /// The highest fencing token that is stored, of resources that exist and of those that did. To be called
    /// as [`Store::raise_tokens`].
    async fn highest_token(&self) -> Result<FencingToken, StoreError> {
        Ok(FencingToken(0))
    }

    /// How many locks have changes that are put off for [`Store::checkpoint`].
    fn pending(&self) -> usize {
        0
    }

    /// Commits at once on the calling thread, for stores that never wait, and takes what it keeps. `false`: not such a
    /// store, and nothing was taken.
    fn commit_inline(&self, _snapshot: &mut Snapshot) -> bool {
        false
    }

    /// Adds past leases to what is kept of their names, of each the last `most`; see [`history::append`]. Called every
    /// few seconds, one call at a time; nothing depends on it.
    ///
    /// Errors as of a read: none of them means that the store is lost.
    async fn append_history(&self, news: &PastLeases, most: usize) -> Result<(), StoreError>;

    /// The past leases of a name, the oldest first.
    async fn history(&self, name: &ResourceName) -> Result<Vec<PastLease>, StoreError>;

    /// For how long a call of [`Store::commit`] or [`Store::checkpoint`] has blocked its thread by now, where a
    /// store works on the thread that calls it. Zero: nothing is blocked.
    fn blocks_for(&self) -> Duration {
        Duration::ZERO
    }

    /// Gives ownership back, so that the next instance need not wait. Nothing is called afterwards.
    async fn close(&self);
}

/// Times of a store that several instances share, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatTimes {
    pub every_ms: u64,
    pub valid_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix_end(prefix: &str) -> Option<String> {
        let query = ListQuery {
            prefix: prefix.to_owned(),
            ..ListQuery::default()
        };
        query.prefix_end()
    }

    #[test]
    fn names_with_a_prefix_end_before_its_successor() {
        assert_eq!(prefix_end("shop:").as_deref(), Some("shop;"));
        assert_eq!(prefix_end("a\u{7f}").as_deref(), Some("a\u{80}"));
        assert_eq!(prefix_end("\u{d7ff}").as_deref(), Some("\u{e000}"));
        assert_eq!(prefix_end("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(prefix_end("\u{10ffff}"), None);
        assert_eq!(prefix_end(""), None);
    }
}
