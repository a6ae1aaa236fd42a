//! The store in memory, for tests and for state that may be lost. Its commits never wait.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::slice;
use std::time::Duration;

use async_trait::async_trait;
use foldhash::HashMap;
use parking_lot::Mutex;

use super::history::{self, PastLease, PastLeases};
use super::snapshot::{ResourceId, Snapshot};
use super::{
    DocumentSize, ListOrder, ListQuery, ListedResource, Opened, Store, StoreError, StoredData,
    StoredResource, ended,
};
use crate::lock::rows::{ENDED_MAX, EndedRow, HeadRow, HolderRow, LockRows, TicketRow};
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

/// The rows of one resource. There may be a million resources and most are idle, so each part that an idle one
/// lacks costs one pointer.
struct StoredState {
    options: ResourceOptions,
    token: FencingToken,
    delayed: bool,
    holder: Option<Box<HolderRow>>,
    /// Row `n` is at the index `n % ENDED_MAX` if there is such an index; otherwise rows are in any order. Some
    /// may be outlived.
    ended: Box<[EndedRow]>,
    more: Option<Box<More>>,
}

/// The rows that only some resources have.
#[derive(Default)]
struct More {
    holding: BTreeMap<Ticket, HolderRow>,
    waiting: BTreeMap<Ticket, TicketRow>,
    data: BTreeMap<Selector, StoredData>,
}

impl StoredState {
    fn new(options: ResourceOptions) -> StoredState {
        StoredState {
            options,
            token: FencingToken::default(),
            delayed: false,
            holder: None,
            ended: Box::default(),
            more: None,
        }
    }

    fn waiting(&self) -> usize {
        self.more.as_ref().map_or(0, |more| more.waiting.len())
    }

    fn selectors(&self) -> usize {
        self.more.as_ref().map_or(0, |more| more.data.len())
    }

    fn lock_rows(&self) -> LockRows {
        let waiting = self.more.iter().flat_map(|more| more.waiting.values());
        let holding = self.more.iter().flat_map(|more| more.holding.values());
        LockRows {
            head: HeadRow {
                token: self.token,
                delayed: self.delayed,
                holder: self.holder.clone(),
            },
            holding: holding.cloned().collect(),
            waiting: waiting.cloned().collect(),
            ended: ended::newest(self.ended.to_vec()),
        }
    }

    /// Applies a snapshot. Moves the head row and the ended rows out of it.
    fn write(&mut self, snapshot: &mut Snapshot) {
        self.options = snapshot.options.unwrap_or(self.options);
        if let Some(head) = snapshot.lock.head.take() {
            self.token = head.token;
            self.delayed = head.delayed;
            self.holder = head.holder;
        }
        for row in snapshot.lock.ended.drain(..) {
            self.write_ended(row);
        }
        let lock = &snapshot.lock;
        if !(lock.waiting.is_empty() && lock.holding.is_empty() && snapshot.data.is_empty()) {
            let more = self.more.get_or_insert_default();
            more.write(snapshot);
            if more.waiting.is_empty() && more.holding.is_empty() && more.data.is_empty() {
                self.more = None;
            }
        }
    }

    /// Overwrites an outlived row if there is one. So a busy lock allocates nothing here, and usually only one
    /// row is looked at.
    fn write_ended(&mut self, row: EndedRow) {
        let replaced = |old: &EndedRow| old.n == row.n || old.is_outlived_by(row.n);
        let usual = (row.n % ENDED_MAX) as usize;
        let place = match self.ended.get(usual).is_some_and(replaced) {
            true => Some(usual),
            false => self.ended.iter().position(replaced),
        };
        match place {
            Some(place) => self.ended[place] = row,
            None => {
                let mut rows = std::mem::take(&mut self.ended).into_vec();
                rows.reserve_exact(1);
                rows.push(row);
                self.ended = rows.into_boxed_slice();
            }
        }
    }
}

impl More {
    fn write(&mut self, snapshot: &Snapshot) {
        for (ticket, row) in &snapshot.lock.holding {
            match row {
                Some(row) => self.holding.insert(*ticket, row.clone()),
                None => self.holding.remove(ticket),
            };
        }
        for (ticket, row) in &snapshot.lock.waiting {
            match row {
                Some(row) => self.waiting.insert(*ticket, row.clone()),
                None => self.waiting.remove(ticket),
            };
        }
        for (selector, row) in &snapshot.data {
            match row {
                Some(row) => match self.data.get_mut(selector) {
                    Some(stored) => stored.json = row.json.clone(),
                    None => drop(self.data.insert(selector.clone(), row.clone())),
                },
                None => drop(self.data.remove(selector)),
            }
        }
    }
}

impl Rows {
    /// Checks that the batch can be stored: a name has at most one resource, and rows belong to an existing
    /// one.
    ///
    /// # Errors
    /// [`StoreError::Rejected`]: it cannot.
    fn check(&self, batch: &[Snapshot]) -> Result<(), StoreError> {
        // For each name that the batch has changed so far: its resource after these changes.
        let mut named: HashMap<&ResourceName, Option<&ResourceId>> = HashMap::default();
        for snapshot in batch {
            let before = match named.get(&snapshot.name) {
                Some(changed) => *changed,
                None => self.by_name.get(&snapshot.name),
            };
            let kept = before.filter(|id| !snapshot.removed.contains(id));
            if snapshot.created.is_some() && kept.is_some() {
                let why = format!("the name of {} is taken", snapshot.id);
                return Err(StoreError::Rejected(why));
            }
            let after = match snapshot.created {
                Some(_) => Some(&snapshot.id),
                None => kept,
            };
            let has_rows = snapshot.rows() > snapshot.removed.len();
            if has_rows && after != Some(&snapshot.id) {
                let why = format!("the resource {} does not exist", snapshot.id);
                return Err(StoreError::Rejected(why));
            }
            if after != before {
                named.insert(&snapshot.name, after);
            }
        }
        Ok(())
    }

    fn write(&mut self, snapshot: &mut Snapshot) {
        for id in &snapshot.removed {
            self.resources.remove(id);
            if self.by_name.get(&snapshot.name) == Some(id) {
                self.by_name.remove(&snapshot.name);
            }
        }
        self.token_floor = self
            .token_floor
            .max(snapshot.token_floor.unwrap_or_default());
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
            .filter(|(.., resource)| query.held.is_none_or(|h| h == resource.holder.is_some()))
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
        holder: resource.holder.as_deref().cloned(),
        waiting: resource.waiting(),
        selectors: resource.selectors(),
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn open(&self) -> Result<Opened, StoreError> {
        Ok(Opened {
            token_floor: self.rows.lock().token_floor,
            recorded_profile: None,
            members: None,
        })
    }

    async fn commit(&self, batch: &[Snapshot]) -> Result<(), StoreError> {
        let mut rows = self.rows.lock();
        rows.check(batch)?;
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
        let fits = rows.check(slice::from_ref(snapshot)).is_ok();
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
            selectors: resource.selectors(),
        }))
    }

    async fn load_data(
        &self,
        id: &ResourceId,
        selector: &Selector,
    ) -> Result<Option<StoredData>, StoreError> {
        let rows = self.rows.lock();
        let more = rows.resources.get(id).and_then(|r| r.more.as_ref());
        Ok(more.and_then(|more| more.data.get(selector).cloned()))
    }

    async fn document_sizes(
        &self,
        id: &ResourceId,
        after: &str,
        limit: usize,
    ) -> Result<Vec<DocumentSize>, StoreError> {
        let rows = self.rows.lock();
        let more = rows.resources.get(id).and_then(|r| r.more.as_ref());
        let range = (Bound::Excluded(after), Bound::Unbounded);
        let found = more.map(|more| more.data.range::<str, _>(range));
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
            ListOrder::Waiting => rows.listed_by(query, |r| std::cmp::Reverse(r.waiting())),
            ListOrder::Held => rows.listed_by(query, |r| {
                let holder = r.holder.as_ref();
                holder.map_or((true, 0), |holder| (false, holder.acquired_at))
            }),
        })
    }

    async fn close(&self) {}
}
