//! Lists resources: the committed rows, overlaid by what the actors of live resources know.
//!
//! An actor can know more than a row in two cases: its change is being committed, or no row shows the state (a
//! waiter that was not told its ticket yet, a reserved lock). So if the order or the filter depends on the lock,
//! the status of all live resources is surveyed first, then the rows are read, and then each live resource among
//! both is asked. A resource that is not live cannot have changed since its row was written, with one exception:
//! a lease that was held when the server started may have ended. Such a resource is asked too, and becomes live
//! by that. A dormant resource is as its row says; only the end of its lease comes from the registry.
//!
//! If several instances share the store, each lists its own names only. The rows of other instances are in the same
//! tables and may be outdated: they are left out, and only tell how far the names were read.

use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use crate::lock::command::HolderView;
use crate::lock::{FencingToken, Millis, Now, ResourceName};
use crate::registry::actor::{Inspect, Registry, ResourceLocation};
use crate::registry::client::{Router, confirmed};
use crate::registry::lock_counts::{LockCounts, count};
use crate::resource::messages::{Description, Op, Reply};
use crate::resource::status::ResourceStatus;
use crate::shared::caller::Caller;
use crate::shared::gate::Closed;
use crate::store::members::Slot;
use crate::store::slot_set::SlotSet;
use crate::store::{ListOrder, ListQuery, ListedResource, StoreError};

/// How many times a page is read, at most.
const READ_AGAIN_MAX: usize = 16;
/// Factor by which the limit of rows grows when too many rows are of other instances.
const ROWS_GROW: usize = 4;

/// One page of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    pub resources: Vec<Description>,
    /// The `after` of the next page. `None`: there are no more resources, or the order has no next page.
    pub next: Option<ResourceName>,
}

impl Description {
    fn status(&self) -> ResourceStatus {
        ResourceStatus {
            waiting: self.waiting,
            waits_since: self.waits_since,
            locked: self.locked,
            held_since: self.holders.first().map(|h| h.acquired_at),
        }
    }
}

impl Page {
    /// Merges the pages of several instances, each of which has the resources of its own names.
    pub fn merged(parts: Vec<Page>, query: &ListQuery) -> Page {
        let horizon = parts.iter().filter_map(|part| part.next.clone()).min();
        let mut resources: Vec<Description> =
            parts.into_iter().flat_map(|part| part.resources).collect();
        if let Some(horizon) = &horizon {
            resources.retain(|listed| listed.name <= *horizon);
        }
        Page::cut(resources, horizon, query.order, query.limit)
    }

    /// The first `limit` of these resources. `horizon`: the last name up to which all resources are known.
    fn cut(
        mut resources: Vec<Description>,
        horizon: Option<ResourceName>,
        order: ListOrder,
        limit: usize,
    ) -> Page {
        resources.sort_by_cached_key(|listed| (listed.status().rank(order), listed.name.clone()));
        let next = match order {
            ListOrder::Name if resources.len() > limit => {
                resources.get(limit - 1).map(|last| last.name.clone())
            }
            ListOrder::Name => horizon,
            ListOrder::Waiting | ListOrder::Held => None,
        };
        resources.truncate(limit);
        Page { resources, next }
    }
}

impl Router {
    /// As [`Router::page`], with the slots whose names the page covers, if several instances share the store.
    pub async fn part_of_page(&self, query: ListQuery) -> Result<(Page, SlotSet), Closed> {
        let before = self.server.slots.here();
        let mut page = self.page(query).await?;
        let covered = before.and(self.server.slots.here());
        let resources = &mut page.resources;
        resources.retain(|listed| covered.has(Slot::of(&listed.name)));
        Ok((page, covered))
    }

    /// As [`Router::count_locks`], with the slots whose names were counted, if several instances share the store.
    pub async fn part_of_count(&self, prefix: String) -> Result<(LockCounts, SlotSet), Closed> {
        let before = self.server.slots.here();
        let counts = self.count_locks(prefix).await?;
        Ok((counts, before.and(self.server.slots.here())))
    }

    /// The page that the query asks for, of the names that this instance answers for.
    ///
    /// # Errors
    /// [`Closed::ListingTooLong`]: the store would take too long. [`Closed::StoreAway`]: it does not answer.
    pub async fn page(&self, query: ListQuery) -> Result<Page, Closed> {
        // After a start, rows may show leases as held that have ended since. A page with such rows is read again:
        // their actors have been asked by then.
        for _ in 1..READ_AGAIN_MAX {
            if let (page, false) = self.page_as_stored(query.clone()).await? {
                return Ok(page);
            }
        }
        Ok(self.page_as_stored(query).await?.0)
    }

    /// Reads a page once. `true`: the page lacks resources, because rows wrongly showed others as held.
    async fn page_as_stored(&self, mut query: ListQuery) -> Result<(Page, bool), Closed> {
        let limit = query.limit;
        // One more than asked for, which shows whether there is a next page.
        query.limit += 1;
        let filtered = query.held.is_some() || query.reserved.is_some();
        let by_lock = filtered || query.order != ListOrder::Name;
        let seen = match by_lock {
            true => self.find_names(query.clone()).await?,
            false => Vec::new(),
        };
        let (rows, row_horizon) = match query.reserved {
            // No row shows that a lock is reserved.
            Some(true) => (Vec::new(), None),
            _ => self.own_rows(&query).await?,
        };
        let is_cut_off = rows.len() >= query.limit;
        let horizon = horizon(&query, &seen, row_horizon);
        let mut candidates: BTreeMap<ResourceName, Option<ListedResource>> =
            seen.into_iter().map(|name| (name, None)).collect();
        candidates.extend(rows.into_iter().map(|row| (row.name.clone(), Some(row))));
        if let Some(horizon) = &horizon {
            candidates.retain(|name, _| name <= horizon);
        }
        let mut resources = self.describe_all(candidates).await?;
        let described = resources.len();
        resources.retain(|listed| listed.status().is_wanted(&query));
        let wanted = resources.len();
        let page = Page::cut(resources, horizon, query.order, limit);
        let lacks = is_cut_off && page.next.is_none() && wanted < described.min(limit);
        Ok((page, lacks))
    }

    /// Counts the locks of names with this prefix that this instance answers for.
    ///
    /// # Errors
    /// [`Closed::StoreAway`]: the registry has ended.
    pub async fn count_locks(&self, prefix: String) -> Result<LockCounts, Closed> {
        let _one_at_a_time = self.server.surveys.acquire().await;
        let counted = self.inspect(move |registry| count(registry.statuses(), &prefix));
        let counts = counted.await?;
        let grants = self.server.metrics.grants();
        Ok(LockCounts { grants, ..counts })
    }

    async fn find_names(&self, query: ListQuery) -> Result<Vec<ResourceName>, Closed> {
        let _one_at_a_time = self.server.surveys.acquire().await;
        self.inspect(move |registry| find_names(registry.statuses(), &query))
            .await
    }

    async fn inspect<T: Send + 'static>(
        &self,
        make: impl FnOnce(&Registry) -> T + Send + 'static,
    ) -> Result<T, Closed> {
        let made = self.registry.send(Inspect(Box::new(make))).await;
        made.map_err(|_| Closed::StoreAway)
    }

    /// Reads the first rows of names that this instance answers for, and the last name that was read, if there may be
    /// more after it. There are fewer rows than the query asks for if no more exist, or if rows of other instances were
    /// among them in the order of names.
    async fn own_rows(
        &self,
        query: &ListQuery,
    ) -> Result<(Vec<ListedResource>, Option<ResourceName>), Closed> {
        let mut reading = query.clone();
        loop {
            let mut rows = self.rows(reading.clone()).await?;
            let is_cut_off = rows.len() == reading.limit;
            let last = rows.last().map(|row| row.name.clone());
            rows.retain(|row| self.server.slots.is_here(&row.name));
            let is_enough = query.order == ListOrder::Name || rows.len() >= query.limit;
            if is_enough || !is_cut_off {
                if query.order != ListOrder::Name {
                    rows.truncate(query.limit);
                }
                return Ok((rows, last.filter(|_| is_cut_off)));
            }
            reading.limit *= ROWS_GROW;
        }
    }

    async fn rows(&self, query: ListQuery) -> Result<Vec<ListedResource>, Closed> {
        // Twice the time-out: once for the read, once until a store that hangs is given up.
        let limit = Duration::from_millis(2 * self.server.settings.store_timeout_ms);
        match self.persistence.send(query).timeout(limit).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(StoreError::TooSlow(_))) => Err(Closed::ListingTooLong),
            Ok(Err(_)) | Err(_) => Err(Closed::StoreAway),
        }
    }

    /// Describes the candidates. Asks the actor of each one that is live, or is held by its row and not dormant; the
    /// others are described by their rows.
    async fn describe_all(
        &self,
        candidates: BTreeMap<ResourceName, Option<ListedResource>>,
    ) -> Result<Vec<Description>, Closed> {
        let names: Vec<ResourceName> = candidates.keys().cloned().collect();
        let locate = move |registry: &Registry| {
            let locations = names.iter().map(|name| registry.locate(name));
            locations.collect::<Vec<_>>()
        };
        let locations = self.inspect(locate).await?;
        let asked = candidates
            .into_iter()
            .zip(locations)
            .map(|((name, row), location)| self.describe_one(name, row, location));
        let answers = try_join_all(asked).await?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// Describes one candidate. `None`: it was deleted meanwhile.
    async fn describe_one(
        &self,
        name: ResourceName,
        row: Option<ListedResource>,
        location: ResourceLocation,
    ) -> Result<Option<Description>, Closed> {
        let now = self.server.now();
        let reply = match (location, &row) {
            (ResourceLocation::Stored, Some(row)) if row.holder.is_none() => {
                return Ok(Some(row.expiring(None, now)));
            }
            (ResourceLocation::Dormant { token, expires }, Some(row)) if row.is_held_by(token) => {
                return Ok(Some(row.expiring(expires, now)));
            }
            (ResourceLocation::Live(actor), _) => {
                let asked = self
                    .send(Rc::new(actor), &Op::DESCRIBE, Caller::nobody())
                    .await;
                asked.map_or_else(|| Box::new(Reply::Moved), confirmed)
            }
            // Dormant, without a row or with one that was read before its lease began; or held since before the
            // server started: then only its actor knows whether the lease has ended.
            (ResourceLocation::Dormant { .. } | ResourceLocation::Stored, _) => {
                Box::new(Reply::Moved)
            }
        };
        let reply = match *reply {
            Reply::Moved => confirmed(self.ask(&name, &Op::DESCRIBE, Caller::nobody()).await),
            _ => reply,
        };
        match *reply {
            Reply::Described(description) => Ok(Some(*description)),
            // Only this resource cannot be read: the others must still be listed.
            Reply::Closed(_) if self.server.gate.check_answer().is_ok() => {
                Ok(row.map(|row| row.expiring(None, now)))
            }
            Reply::Closed(closed) => Err(closed),
            _ => Ok(None),
        }
    }
}

impl ListedResource {
    fn is_held_by(&self, token: FencingToken) -> bool {
        self.holder.as_ref().is_some_and(|h| h.token == token)
    }

    /// The description of a row. `expires`: the end of its lease on the monotonic clock, which no row has.
    fn expiring(&self, expires: Option<Millis>, now: Now) -> Description {
        let holder = self.holder.iter();
        let holder =
            holder.map(|h| HolderView::new(&h.ticket, h.token, h.acquired_at, expires, now));
        Description {
            name: self.name.clone(),
            id: self.id.clone(),
            options: self.options,
            locked: self.holder.is_some(),
            holders: holder.collect(),
            waiting: self.waiting,
            waits_since: None,
            queue: Vec::new(),
            selectors: self.selectors,
            you: None,
            fingerprint: 0,
        }
    }
}

/// The names of the resources that pass the filters of the query and come first in its order, at most `limit`, not
/// sorted. `live`: all live and dormant resources.
fn find_names<'a>(
    live: impl Iterator<Item = (&'a ResourceName, ResourceStatus)>,
    query: &ListQuery,
) -> Vec<ResourceName> {
    let mut best: BinaryHeap<(u64, &ResourceName)> = BinaryHeap::new();
    for (name, status) in live {
        let is_past = |after: &str| name.as_str() > after;
        let is_named =
            name.as_str().starts_with(&query.prefix) && query.name_after().is_none_or(is_past);
        if !is_named || !status.is_wanted(query) {
            continue;
        }
        let place = (status.rank(query.order), name);
        if best.len() < query.limit {
            best.push(place);
        } else if best.peek().is_some_and(|worst| place < *worst) {
            best.pop();
            best.push(place);
        }
    }
    best.into_iter().map(|(_, name)| name.clone()).collect()
}

/// In the order of names, the last name up to which all resources are known, because a list was cut off there.
/// `None`: all are known. `last_row`: the last name of the rows, if they were cut off.
fn horizon(
    query: &ListQuery,
    seen: &[ResourceName],
    last_row: Option<ResourceName>,
) -> Option<ResourceName> {
    if query.order != ListOrder::Name {
        return None;
    }
    let last_seen = (seen.len() == query.limit).then(|| seen.iter().max().cloned());
    [last_seen.flatten(), last_row].into_iter().flatten().min()
}
