//! A store for tests and for state that may be lost: commits never wait.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::snapshot::{ResourceId, Snapshot};
use super::{
    ListOrder, ListQuery, ListedHolder, ListedResource, Opened, Store, StoreError, StoredData,
    StoredResource,
};
use crate::lock::rows::{Change, LockRows};
use crate::lock::{FencingToken, ResourceName, Seconds, Selector};

/// Rows in maps, gone with the process.
#[derive(Default)]
pub struct MemoryStore {
    rows: Mutex<Rows>,
}

#[derive(Default)]
struct Rows {
    by_name: BTreeMap<ResourceName, ResourceId>,
    resources: HashMap<ResourceId, Resource>,
    floor: FencingToken,
}

struct Resource {
    timeout: Seconds,
    lock: LockRows,
    data: BTreeMap<Selector, StoredData>,
}

impl MemoryStore {
    /// A panic while the lock was held can only have left whole rows behind: go on.
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rows {
    fn write(&mut self, snapshot: &Snapshot) {
        for id in &snapshot.removed {
            self.resources.remove(id);
            self.by_name.remove(&snapshot.name);
        }
        self.floor = self.floor.max(snapshot.floor.unwrap_or_default());
        if let Some(timeout) = snapshot.created {
            self.by_name
                .insert(snapshot.name.clone(), snapshot.id.clone());
            let resource = Resource {
                timeout,
                lock: LockRows::default(),
                data: BTreeMap::new(),
            };
            self.resources.insert(snapshot.id.clone(), resource);
        }
        let Some(resource) = self.resources.get_mut(&snapshot.id) else {
            return;
        };
        if let Some(head) = &snapshot.head {
            resource.lock.apply(&Change::Head(head.clone()));
        }
        for (ticket, row) in &snapshot.waiting {
            resource.lock.apply(&match row {
                Some(row) => Change::Waiting(row.clone()),
                None => Change::NotWaiting(*ticket),
            });
        }
        for row in snapshot.ended.values() {
            resource.lock.apply(&Change::Ended(row.clone()));
        }
        for (selector, row) in &snapshot.data {
            match row {
                Some(row) => {
                    let stored = StoredData {
                        id: row.id.clone(),
                        json: row.json.clone(),
                    };
                    resource
                        .data
                        .entry(selector.clone())
                        .and_modify(|data| data.json = row.json.clone())
                        .or_insert(stored);
                }
                None => {
                    resource.data.remove(selector);
                }
            }
        }
    }

    fn listed(&self, name: &ResourceName, id: &ResourceId) -> Option<ListedResource> {
        let resource = self.resources.get(id)?;
        let holder = resource.lock.head.holder.as_ref();
        Some(ListedResource {
            name: name.clone(),
            id: id.clone(),
            timeout: resource.timeout,
            holder: holder.map(|holder| ListedHolder {
                owner: holder.ticket.owner.clone(),
                acquired_at: holder.acquired_at,
                token: resource.lock.head.token,
                ttl: holder.ticket.ttl,
            }),
            waiting: resource.lock.waiting.len(),
            selectors: resource.data.len(),
        })
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn open(&self) -> Result<Opened, StoreError> {
        Ok(Opened {
            floor: self.rows().floor,
            recorded_profile: None,
        })
    }

    async fn commit(&self, batch: &[Snapshot]) -> Result<(), StoreError> {
        let mut rows = self.rows();
        batch.iter().for_each(|snapshot| rows.write(snapshot));
        Ok(())
    }

    fn commit_inline(&self, snapshot: &Snapshot) -> bool {
        self.rows().write(snapshot);
        true
    }

    async fn load(&self, name: &ResourceName) -> Result<Option<StoredResource>, StoreError> {
        let rows = self.rows();
        let Some(id) = rows.by_name.get(name) else {
            return Ok(None);
        };
        Ok(rows.resources.get(id).map(|resource| StoredResource {
            id: id.clone(),
            timeout: resource.timeout,
            lock: resource.lock.clone(),
            selectors: resource.data.len(),
        }))
    }

    async fn load_data(
        &self,
        id: &ResourceId,
        selector: &Selector,
    ) -> Result<Option<StoredData>, StoreError> {
        let rows = self.rows();
        let resource = rows.resources.get(id);
        Ok(resource.and_then(|resource| resource.data.get(selector).cloned()))
    }

    async fn list(&self, query: &ListQuery) -> Result<Vec<ListedResource>, StoreError> {
        let rows = self.rows();
        let after = query.after.as_deref().unwrap_or("");
        let by_name = query.order == ListOrder::Name;
        let mut listed: Vec<ListedResource> = rows
            .by_name
            .iter()
            .filter(|(name, _)| name.as_str().starts_with(&query.prefix))
            .filter(|(name, _)| !by_name || name.as_str() > after)
            .filter_map(|(name, id)| rows.listed(name, id))
            .filter(|resource| query.held.is_none_or(|h| h == resource.holder.is_some()))
            .collect();
        match query.order {
            ListOrder::Name => {}
            ListOrder::Waiting => listed.sort_by_key(|r| std::cmp::Reverse(r.waiting)),
            ListOrder::Held => listed.sort_by_key(|r| {
                r.holder
                    .as_ref()
                    .map_or(u64::MAX, |holder| holder.acquired_at)
            }),
        }
        listed.truncate(query.limit);
        Ok(listed)
    }

    async fn close(&self) {}
}
