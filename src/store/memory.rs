//! The store in memory, for tests and for state that may be lost. Its commits never wait.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use async_trait::async_trait;
use foldhash::HashMap;
use parking_lot::Mutex;

use super::history::{self, PastLease, PastLeases};
use super::members::Members;
use super::snapshot::{ResourceId, Snapshot};
use super::{
    DocumentSize, ListOrder, ListQuery, ListedResource, Store, StoreError, StoredData,
    StoredResource,
};
use crate::lock::rows::{EndedRow, HeadRow, HolderRow, LockRows, TicketRow};
use crate::lock::{FencingToken, ResourceName, ResourceOptions, Selector, Ticket};

/// Keeps its rows in maps, which are lost when the process ends.
#[derive(Default)]
pub struct MemoryStore {
    rows: Mutex<Rows>,
    history: Mutex<HashMap<ResourceName, Vec<PastLease>>>,
}

#[derive(Default)]
struct Rows {
    by_name: BTreeMap<ResourceName, ResourceId>,
    /// Boxed: a table that grows doubles its size and is then half empty. A box makes an empty place cost a
    /// pointer and not a whole state.
    resources: HashMap<ResourceId, Box<StoredState>>,
    token_floor: FencingToken,
}

/// The rows of one resource.
struct StoredState {
    options: ResourceOptions,
    head: HeadRow,
    /// In the order of their numbers.
    ended: VecDeque<EndedRow>,
    holding: BTreeMap<Ticket, HolderRow>,
    waiting: BTreeMap<Ticket, TicketRow>,
    data: BTreeMap<Selector, StoredData>,
}

impl StoredState {
    fn new(options: ResourceOptions) -> StoredState {
        StoredState {
            options,
            head: HeadRow::default(),
            ended: VecDeque::new(),
            holding: BTreeMap::new(),
            waiting: BTreeMap::new(),
            data: BTreeMap::new(),
        }
    }

    fn lock_rows(&self) -> LockRows {
        LockRows {
            head: self.head.clone(),
            holding: self.holding.values().cloned().collect(),
            waiting: self.waiting.values().cloned().collect(),
            ended: self.ended.clone().into(),
        }
    }

    /// Applies a snapshot. Moves the head row and the ended rows out of it.
    fn write(&mut self, snapshot: &mut Snapshot) {
        self.options = snapshot.options.unwrap_or(self.options);
        if let Some(head) = snapshot.lock.head.take() {
            self.head = head;
        }
        for row in snapshot.lock.ended.drain(..) {
            self.write_ended(row);
        }
        write_rows(&mut self.holding, &snapshot.lock.holding);
        write_rows(&mut self.waiting, &snapshot.lock.waiting);
        for (selector, row) in &snapshot.data {
            match row {
                Some(row) => match self.data.get_mut(selector) {
                    Some(stored) => stored.json = row.json.clone(),
                    None => drop(self.data.insert(selector.clone(), row.clone())),
                },
                None => drop(self.data.remove(selector)),
            }
        }
        free_if_empty(&mut self.data);
    }

    /// Drops what the row outlives before it adds the row: so a busy lock allocates nothing here.
    fn write_ended(&mut self, row: EndedRow) {
        let is_outlived = |old: &EndedRow| old.is_outlived_by(row.n);
        while self.ended.front().is_some_and(is_outlived) {
            self.ended.pop_front();
        }
        // Most resources have few.
        self.ended.reserve_exact(1);
        self.ended.push_back(row);
    }
}

fn write_rows<R: Clone>(rows: &mut BTreeMap<Ticket, R>, changes: &BTreeMap<Ticket, Option<R>>) {
    for (ticket, row) in changes {
        match row {
            Some(row) => rows.insert(*ticket, row.clone()),
            None => rows.remove(ticket),
        };
    }
    free_if_empty(rows);
}

/// Frees the node, with room for eleven entries, that a map keeps when its last entry is removed: a million idle
/// resources may have had a waiter once.
fn free_if_empty<K, V>(map: &mut BTreeMap<K, V>) {
    if map.is_empty() {
        *map = BTreeMap::new();
    }
}

impl Rows {
    /// A name has at most one resource, and rows belong to an existing one. Otherwise [`StoreError::Rejected`].
    fn check(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let stored = self.by_name.get(&snapshot.name);
        let kept = stored.filter(|id| !snapshot.removed.contains(id));
        let has_rows = snapshot.rows() > snapshot.removed.len();
        let why = match (snapshot.created, kept) {
            (Some(_), Some(_)) => format!("the name of {} is taken", snapshot.id),
            (None, kept) if has_rows && kept != Some(&snapshot.id) => {
                format!("the resource {} does not exist", snapshot.id)
            }
            _ => return Ok(()),
        };
        Err(StoreError::Rejected(why))
    }

    fn write(&mut self, snapshot: &mut Snapshot) {
        for id in &snapshot.removed {
            self.resources.remove(id);
            if self.by_name.get(&snapshot.name) == Some(id) {
                self.by_name.remove(&snapshot.name);
            }
        }
        let token_floor = snapshot.token_floor.unwrap_or_default();
        self.token_floor = self.token_floor.max(token_floor);
        if let Some(options) = snapshot.created {
            let (name, id) = (snapshot.name.clone(), snapshot.id.clone());
            self.by_name.insert(name, id.clone());
            self.resources
                .insert(id, Box::new(StoredState::new(options)));
        }
        if let Some(resource) = self.resources.get_mut(&snapshot.id) {
            resource.write(snapshot);
        }
    }

    /// The resources that match the query, in name order.
    fn matching<'a>(
        &'a self,
        query: &'a ListQuery,
    ) -> impl Iterator<Item = (&'a ResourceName, &'a ResourceId, &'a StoredState)> {
        let prefix = query.prefix.as_str();
        let from = match query.name_after() {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        self.by_name
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(move |(name, _)| name.as_str().starts_with(prefix))
            .filter_map(|(name, id)| Some((name, id, &**self.resources.get(id)?)))
            .filter(|(.., state)| query.held.is_none_or(|h| h == state.head.holder.is_some()))
    }

    /// The first `limit` matching resources, smallest `key` first and then by name.
    fn listed_by<K: Ord>(
        &self,
        query: &ListQuery,
        key: impl Fn(&StoredState) -> K,
    ) -> Vec<ListedResource> {
        let mut found: Vec<_> = self.matching(query).collect();
        found.sort_by_key(|(.., resource)| key(resource));
        found.truncate(query.limit);
        found.into_iter().map(listed).collect()
    }
}

fn listed((name, id, resource): (&ResourceName, &ResourceId, &StoredState)) -> ListedResource {
    ListedResource {
        name: name.clone(),
        id: id.clone(),
        options: resource.options,
        holder: resource.head.holder.as_deref().cloned(),
        waiting: resource.waiting.len(),
        selectors: resource.data.len(),
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn open(&self) -> Result<(FencingToken, Option<Members>), StoreError> {
        Ok((self.rows.lock().token_floor, None))
    }

    async fn commit(&self, batch: &[Snapshot]) -> Result<(), StoreError> {
        let mut rows = self.rows.lock();
        batch.iter().try_for_each(|s| rows.check(s))?;
        batch.iter().for_each(|s| rows.write(&mut s.clone()));
        Ok(())
    }

    async fn append_history(&self, news: &PastLeases, most: usize) -> Result<(), StoreError> {
        let mut known = self.history.lock();
        for (name, newer) in news {
            history::append(known.entry(name.clone()).or_default(), newer, most);
        }
        Ok(())
    }

    async fn history(&self, name: &ResourceName) -> Result<Vec<PastLease>, StoreError> {
        let known = self.history.lock();
        Ok(known.get(name).cloned().unwrap_or_default())
    }

    /// Also `false` for a snapshot that [`Store::commit`] would reject; that method then returns the error.
    fn commit_inline(&self, snapshot: &mut Snapshot) -> bool {
        let mut rows = self.rows.lock();
        // Most snapshots change an existing resource and need only one lookup.
        let plain = snapshot.removed.is_empty() && snapshot.created.is_none();
        if plain
            && snapshot.token_floor.is_none()
            && let Some(resource) = rows.resources.get_mut(&snapshot.id)
        {
            resource.write(snapshot);
            return true;
        }
        let fits = rows.check(snapshot).is_ok();
        if fits {
            rows.write(snapshot);
        }
        fits
    }

    async fn load(&self, name: &ResourceName) -> Result<Option<StoredResource>, StoreError> {
        let rows = self.rows.lock();
        let Some(id) = rows.by_name.get(name) else {
            return Ok(None);
        };
        Ok(rows.resources.get(id).map(|resource| StoredResource {
            id: id.clone(),
            options: resource.options,
            lock: resource.lock_rows(),
            selectors: resource.data.len(),
        }))
    }

    async fn load_data(
        &self,
        id: &ResourceId,
        selector: &Selector,
    ) -> Result<Option<StoredData>, StoreError> {
        let rows = self.rows.lock();
        let resource = rows.resources.get(id);
        Ok(resource.and_then(|resource| resource.data.get(selector).cloned()))
    }

    async fn document_sizes(
        &self,
        id: &ResourceId,
        after: &str,
        limit: usize,
    ) -> Result<Vec<DocumentSize>, StoreError> {
        let rows = self.rows.lock();
        let range = (Bound::Excluded(after), Bound::Unbounded);
        let resource = rows.resources.get(id);
        let found = resource.map(|resource| resource.data.range::<str, _>(range));
        let size = |(selector, data): (&Selector, &StoredData)| DocumentSize {
            selector: selector.clone(),
            bytes: data.json.len() as u64,
        };
        Ok(found.into_iter().flatten().take(limit).map(size).collect())
    }

    async fn list(
        &self,
        query: &ListQuery,
        _limit: Duration,
    ) -> Result<Vec<ListedResource>, StoreError> {
        let rows = self.rows.lock();
        Ok(match query.order {
            ListOrder::Name => rows.matching(query).take(query.limit).map(listed).collect(),
            ListOrder::Waiting => rows.listed_by(query, |r| std::cmp::Reverse(r.waiting.len())),
            ListOrder::Held => rows.listed_by(query, |r| {
                let holder = r.head.holder.as_ref();
                holder.map_or((true, 0), |holder| (false, holder.acquired_at))
            }),
        })
    }

    async fn close(&self) {}
}
