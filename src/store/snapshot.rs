//! What a batch carries of one resource: the rows that changed, and nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use crate::lock::rows::LockChanges;
use crate::lock::{FencingToken, ResourceName, ResourceOptions, Selector};

/// The `id` of a resource: up to 255 bytes, made by us or by the PHP server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId(Arc<str>);

impl ResourceId {
    pub fn new(text: &str) -> ResourceId {
        ResourceId(Arc::from(text))
    }

    /// A new one that nobody else has.
    pub fn random() -> ResourceId {
        ResourceId::new(&uuid::Uuid::new_v4().simple().to_string())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for ResourceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ResourceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(ResourceId::new(&String::deserialize(deserializer)?))
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The changed rows of one resource. A store carries them out in the order of the fields: first what is
/// removed, then what is created, then the rest, which belongs to `id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub name: ResourceName,
    /// The resource that exists after this snapshot, or the one that existed last.
    pub id: ResourceId,
    /// Resources to remove with all their rows. All of them had this name.
    pub removed: Vec<ResourceId>,
    /// With `removed`: the recorded floor becomes at least this.
    pub token_floor: Option<FencingToken>,
    /// A resource to create.
    pub created: Option<ResourceOptions>,
    /// Options that an existing resource gets instead of its own.
    pub options: Option<ResourceOptions>,
    pub lock: LockChanges,
    /// Documents written (`Some`) and deleted (`None`). The id counts only where no row of this selector exists; an existing
    /// row keeps its.
    pub data: BTreeMap<Selector, Option<StoredData>>,
}

/// One JSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredData {
    /// The id of its row, as clients see it.
    pub id: String,
    /// The JSON text exactly as it was written.
    pub json: Bytes,
}

impl Snapshot {
    /// Nothing changed.
    pub fn empty(name: ResourceName, id: ResourceId) -> Snapshot {
        Snapshot::of(name, id, LockChanges::default())
    }

    /// Nothing changed but the lock.
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

    /// How many rows it touches, for the cap on a batch.
    pub fn rows(&self) -> usize {
        self.removed.len()
            + usize::from(self.created.is_some())
            + usize::from(self.options.is_some())
            + self.lock.rows()
            + self.data.len()
    }

    /// How many bytes of data it carries, for the cap on a batch.
    pub fn bytes(&self) -> usize {
        self.data.values().flatten().map(|row| row.json.len()).sum()
    }

    /// From here on this is the resource `id`, created with these options.
    pub fn create(&mut self, id: ResourceId, options: ResourceOptions) {
        self.id = id;
        self.created = Some(options);
    }

    /// The resource that this snapshot is about is removed; nothing of it has to be stored any more.
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

    /// Adds a later snapshot of the same name, so that storing the result equals storing both in turn. (But
    /// a document that one deletes and the other writes again keeps its earlier id where it had been stored.)
    pub fn merge(&mut self, later: Snapshot) {
        debug_assert_eq!(self.name, later.name);
        if !later.removed.is_empty() {
            self.forget_rows();
        }
        self.id = later.id;
        self.removed.extend(later.removed);
        self.token_floor = self.token_floor.max(later.token_floor);
        self.created = later.created.or(self.created);
        // Of one that is still to be created they are those it is created with.
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
        // Had the earlier one been stored by now, the later would find its row and keep its id.
        if let (Some(Some(earlier)), Some(row)) = (self.data.get(&selector), &mut row) {
            row.id.clone_from(&earlier.id);
        }
        self.data.insert(selector, row);
    }
}
