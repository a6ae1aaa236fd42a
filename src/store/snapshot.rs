//! What a batch carries of one resource: the rows that changed, and nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::lock::rows::{Change, EndedRow, HeadRow, HolderRow, LockRows, TicketRow};
use crate::lock::{FencingToken, ResourceName, ResourceOptions, Selector, Ticket};

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

/// The changed rows of one lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockChanges {
    pub head: Option<HeadRow>,
    /// Leases beside the one in the head row, begun or changed (`Some`) and ended (`None`).
    pub holding: BTreeMap<Ticket, Option<HolderRow>>,
    /// Waiting tickets added or changed (`Some`) and removed (`None`).
    pub waiting: BTreeMap<Ticket, Option<TicketRow>>,
    /// In the order of their numbers.
    pub ended: Vec<EndedRow>,
}

impl LockChanges {
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// How many rows it touches.
    pub fn rows(&self) -> usize {
        usize::from(self.head.is_some())
            + self.holding.len()
            + self.waiting.len()
            + self.ended.len()
    }

    /// Adds what the lock core wants stored.
    pub fn change(&mut self, change: Change) {
        match change {
            Change::Head(head) => self.head = Some(head),
            Change::Holding(row) => {
                self.holding.insert(row.ticket.ticket, Some(*row));
            }
            Change::NotHolding(ticket) => {
                self.holding.insert(ticket, None);
            }
            Change::Waiting(row) => {
                self.waiting.insert(row.ticket, Some(row));
            }
            Change::NotWaiting(ticket) => {
                self.waiting.insert(ticket, None);
            }
            Change::Ended(row) => self.end(row),
        }
    }

    fn end(&mut self, row: EndedRow) {
        match self.ended.last() {
            // Out of order only where rows were read in any order.
            Some(last) if last.n > row.n => {
                let place = self.ended.partition_point(|earlier| earlier.n < row.n);
                self.ended.insert(place, row);
            }
            _ => self.ended.push(row),
        }
        if let [oldest, .., newest] = &self.ended[..]
            && oldest.is_outlived_by(newest.n)
        {
            let newest = newest.n;
            let outlived = self.ended.partition_point(|e| e.is_outlived_by(newest));
            self.ended.drain(..outlived);
        }
    }

    /// Adds later changes, so that storing the result equals storing both in turn.
    pub fn merge(&mut self, later: &LockChanges) {
        if later.head.is_some() {
            self.head.clone_from(&later.head);
        }
        for (ticket, row) in &later.holding {
            self.holding.insert(*ticket, row.clone());
        }
        for (ticket, row) in &later.waiting {
            self.waiting.insert(*ticket, row.clone());
        }
        for row in &later.ended {
            self.end(row.clone());
        }
    }

    /// What stored rows look like once these changes are stored, too. Harmless where they are already.
    pub fn overlay(&self, rows: &mut LockRows) {
        if let Some(head) = &self.head {
            rows.head.clone_from(head);
        }
        if !self.holding.is_empty() {
            rows.holding
                .retain(|row| !self.holding.contains_key(&row.ticket.ticket));
            rows.holding
                .extend(self.holding.values().flatten().cloned());
        }
        if !self.waiting.is_empty() {
            rows.waiting
                .retain(|row| !self.waiting.contains_key(&row.ticket));
            rows.waiting
                .extend(self.waiting.values().flatten().cloned());
        }
        if !self.ended.is_empty() {
            let mut ended = LockChanges::default();
            let known = |n| self.ended.binary_search_by_key(&n, |row| row.n).is_ok();
            let stored = std::mem::take(&mut rows.ended).into_iter();
            let stored = stored.filter(|row| !known(row.n));
            stored
                .chain(self.ended.iter().cloned())
                .for_each(|row| ended.end(row));
            rows.ended = ended.ended;
        }
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
    /// Documents written (`Some`) and deleted (`None`).
    pub data: BTreeMap<Selector, Option<DataRow>>,
}

/// A document to write. `id` counts only where no row of this selector exists; an existing row keeps its.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataRow {
    pub id: String,
    pub json: Bytes,
}

impl Snapshot {
    /// Nothing changed.
    pub fn empty(name: ResourceName, id: ResourceId) -> Snapshot {
        Snapshot {
            name,
            id,
            removed: Vec::new(),
            token_floor: None,
            created: None,
            options: None,
            lock: LockChanges::default(),
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

    /// Adds what the lock core wants stored.
    pub fn change(&mut self, change: Change) {
        self.lock.change(change);
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
    pub fn document(&mut self, selector: Selector, mut row: Option<DataRow>) {
        // Had the earlier one been stored by now, the later would find its row and keep its id.
        if let (Some(Some(earlier)), Some(row)) = (self.data.get(&selector), &mut row) {
            row.id.clone_from(&earlier.id);
        }
        self.data.insert(selector, row);
    }
}
