//! The changed rows of one resource, as a batch carries them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use crate::lock::rows::LockChanges;
use crate::lock::{FencingToken, ResourceName, ResourceOptions, Selector};

/// The `id` of a resource: up to 255 bytes, made by this server or by the PHP server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceId(Arc<str>);

impl ResourceId {
    pub fn new(text: &str) -> ResourceId {
        ResourceId(Arc::from(text))
    }

    /// A new random id.
    pub fn random() -> ResourceId {
        ResourceId::new(&uuid::Uuid::new_v4().simple().to_string())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The changed rows of one resource. A store applies them in the order of the fields: it removes, then creates,
/// then writes the rest to the resource `id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub name: ResourceName,
    /// The resource that exists after this snapshot, or the one that existed last.
    pub id: ResourceId,
    /// Resources to remove with all their rows. All of them had this name.
    pub removed: Vec<ResourceId>,
    /// Set together with `removed`: the stored token floor is raised to at least this token.
    pub token_floor: Option<FencingToken>,
    /// Options of the resource to create; `None`: none is created.
    pub created: Option<ResourceOptions>,
    /// New options of an existing resource; `None`: unchanged.
    pub options: Option<ResourceOptions>,
    pub lock: LockChanges,
    /// Documents written (`Some`) and deleted (`None`). A row that exists for the selector keeps its id; the id
    /// given here is for a new row.
    pub data: BTreeMap<Selector, Option<StoredData>>,
}

/// One JSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredData {
    /// Id of its row, as clients see it.
    pub id: String,
    /// The JSON text exactly as it was written.
    pub json: Bytes,
}

impl Snapshot {
    /// A snapshot without changes.
    pub fn empty(name: ResourceName, id: ResourceId) -> Snapshot {
        Snapshot::of(name, id, LockChanges::default())
    }

    /// A snapshot that changes only the lock.
    pub fn of(name: ResourceName, id: ResourceId, lock: LockChanges) -> Snapshot {
        Snapshot {
            name,
            id,
            removed: Vec::new(),
            token_floor: None,
            created: None,
            options: None,
            lock,
            data: BTreeMap::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// Number of rows that it changes, for the limit of a batch.
    pub fn rows(&self) -> usize {
        self.removed.len()
            + usize::from(self.created.is_some())
            + usize::from(self.options.is_some())
            + self.lock.rows()
            + self.data.len()
    }

    /// Size of the documents that it carries, in bytes, for the limit of a batch.
    pub fn bytes(&self) -> usize {
        self.data.values().flatten().map(|row| row.json.len()).sum()
    }

    /// Makes this the snapshot of the resource `id`, to be created with these options.
    pub fn create(&mut self, id: ResourceId, options: ResourceOptions) {
        self.id = id;
        self.created = Some(options);
    }

    /// Removes the resource `id` and drops the other changes, which need not be stored any more. `token`: the
    /// highest fencing token of the resource.
    pub fn remove(&mut self, token: FencingToken) {
        let id = self.id.clone();
        self.removed.push(id);
        self.token_floor = self.token_floor.max(Some(token));
        self.forget_rows();
    }

    fn forget_rows(&mut self) {
        self.created = None;
        self.options = None;
        self.lock = LockChanges::default();
        self.data.clear();
    }

    /// Merges a later snapshot of the same name: storing the result has the effect of storing both in turn.
    /// (One exception: a stored document that the first one deletes and the later one writes again keeps its
    /// earlier id.)
    pub fn merge(&mut self, later: Snapshot) {
        debug_assert_eq!(self.name, later.name);
        if !later.removed.is_empty() {
            self.forget_rows();
        }
        self.id = later.id;
        self.removed.extend(later.removed);
        self.token_floor = self.token_floor.max(later.token_floor);
        self.created = later.created.or(self.created);
        // A resource that is still to be created is created with the later options.
        match &mut self.created {
            Some(created) => *created = later.options.unwrap_or(*created),
            None => self.options = later.options.or(self.options),
        }
        self.lock.merge(&later.lock);
        for (selector, row) in later.data {
            self.document(selector, row);
        }
    }

    /// Adds a document to write (`Some`) or to delete (`None`).
    pub fn document(&mut self, selector: Selector, mut row: Option<StoredData>) {
        // If the earlier document were stored by now, the later one would find its row and keep its id.
        if let (Some(Some(earlier)), Some(row)) = (self.data.get(&selector), &mut row) {
            row.id.clone_from(&earlier.id);
        }
        self.data.insert(selector, row);
    }
}
