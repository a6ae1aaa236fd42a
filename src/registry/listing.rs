//! Listing resources: the committed rows, and for each resource that is live what its actor knows.
//!
//! A row can be older than what an actor knows in two ways: its change is being committed, or it is one
//! that no row shows (a waiter that was not told its ticket yet, a lock that is reserved). So where the
//! order or the filter depends on the lock, the live resources are looked through first, by their status,
//! then the rows are read, and at last every live resource among both is asked itself. What is not live
//! cannot have changed since its row was written, except that a lease which was held when the server was
//! started may have ended: it is asked, too, and becomes live with that. A dormant resource is as its row
//! says, but for the end of its lease, which the registry knows.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use crate::lock::command::HolderView;
use crate::lock::rows::HolderRow;
use crate::lock::{Expiry, FencingToken, ResourceName};
use crate::persistence::messages::List;
use crate::registry::client::{Router, taken};
use crate::registry::messages::{Locate, Whereabouts};
use crate::registry::survey::Survey;
use crate::registry::tally::{CountLocks, Tally};
use crate::resource::messages::{Description, Op, Reply};
use crate::resource::status::ResourceStatus;
use crate::shared::caller::Caller;
use crate::shared::gate::Closed;
use crate::store::{ListOrder, ListQuery, ListedResource, StoreError};

/// How many times a page is read, at most.
const READ_AGAIN_MAX: usize = 16;

/// One page of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    pub resources: Vec<Description>,
    /// What to ask for `after`; `None`: that is all, or the order knows no next page.
    pub next: Option<ResourceName>,
}

/// Why there is no page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListingRefused {
    Closed(Closed),
    /// It would take too long.
    TooBusy,
}

impl From<Closed> for ListingRefused {
    fn from(closed: Closed) -> ListingRefused {
        ListingRefused::Closed(closed)
    }
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

    fn compare(&self, other: &Description, order: ListOrder) -> Ordering {
        let rank = |listed: &Description| listed.status().rank(order);
        rank(self)
            .cmp(&rank(other))
            .then_with(|| self.name.cmp(&other.name))
    }
}

impl Router {
    /// The page that the query asks for.
    ///
    /// # Errors
    /// The store does not answer, or not in time.
    pub async fn page(&self, query: ListQuery) -> Result<Page, ListingRefused> {
        // After a start the store takes leases for held that have ended since: a page on which some of them
        // were is read again, now that they have been asked.
        for _ in 1..READ_AGAIN_MAX {
            if let (page, false) = self.page_as_stored(query.clone()).await? {
                return Ok(page);
            }
        }
        Ok(self.page_as_stored(query).await?.0)
    }

    /// And whether it lacks others because of those that the store wrongly took for held.
    async fn page_as_stored(&self, mut query: ListQuery) -> Result<(Page, bool), ListingRefused> {
        let limit = query.limit;
        // One more than asked for shows whether there is a next page.
        query.limit += 1;
        let filtered = query.held.is_some() || query.reserved.is_some();
        let by_lock = filtered || query.order != ListOrder::Name;
        let seen = match by_lock {
            true => self.survey(query.clone()).await?,
            false => Vec::new(),
        };
        let rows = match query.reserved {
            // No row says so of any.
            Some(true) => Vec::new(),
            _ => self.rows(query.clone()).await?,
        };
        let is_cut_off = rows.len() == query.limit;
        let horizon = horizon(&query, &seen, &rows);
        let mut candidates: BTreeMap<ResourceName, Option<ListedResource>> =
            seen.into_iter().map(|name| (name, None)).collect();
        candidates.extend(rows.into_iter().map(|row| (row.name.clone(), Some(row))));
        if let Some(horizon) = &horizon {
            candidates.retain(|name, _| name <= horizon);
        }
        let mut resources = self.describe_all(candidates).await?;
        let described = resources.len();
        resources.retain(|listed| listed.status().is_wanted(&query));
        resources.sort_by(|a, b| a.compare(b, query.order));
        let next = match query.order {
            ListOrder::Name if resources.len() > limit => {
                resources.get(limit - 1).map(|last| last.name.clone())
            }
            ListOrder::Name => horizon,
            ListOrder::Waiting | ListOrder::Held => None,
        };
        let lacks = is_cut_off && next.is_none() && resources.len() < described.min(limit);
        resources.truncate(limit);
        Ok((Page { resources, next }, lacks))
    }

    /// Of the names with this prefix.
    pub async fn tally(&self, prefix: String) -> Result<Tally, Closed> {
        let _one_at_a_time = self.server.surveys.acquire().await;
        let counted = self.registry.send(CountLocks { prefix }).await;
        let grants = self.server.metrics.locks.grants();
        let with_grants = |tally| Tally { grants, ..tally };
        counted.map(with_grants).map_err(|_| Closed::StoreAway)
    }

    async fn survey(&self, query: ListQuery) -> Result<Vec<ResourceName>, Closed> {
        let _one_at_a_time = self.server.surveys.acquire().await;
        let seen = self.registry.send(Survey(query)).await;
        seen.map_err(|_| Closed::StoreAway)
    }

    async fn rows(&self, query: ListQuery) -> Result<Vec<ListedResource>, ListingRefused> {
        // One time for the read, and one that a store which hangs has until it is given up.
        let limit = Duration::from_millis(2 * self.server.settings.store_timeout_ms);
        match self.persistence.send(List(query)).timeout(limit).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(StoreError::TooSlow(_))) => Err(ListingRefused::TooBusy),
            Ok(Err(_)) | Err(_) => Err(Closed::StoreAway.into()),
        }
    }

    /// Asks every live one of these, and every one that is stored as held; a row stands for the others.
    async fn describe_all(
        &self,
        candidates: BTreeMap<ResourceName, Option<ListedResource>>,
    ) -> Result<Vec<Description>, Closed> {
        let names = candidates.keys().cloned().collect();
        let places = self.registry.send(Locate { names }).await;
        let places = places.map_err(|_| Closed::StoreAway)?;
        let asked = candidates
            .into_iter()
            .zip(places)
            .map(|((name, row), place)| self.describe_one(name, row, place));
        let answers: Result<Vec<Option<Description>>, Closed> =
            join_all(asked).await.into_iter().collect();
        Ok(answers?.into_iter().flatten().collect())
    }

    /// `None`: deleted since it was seen.
    async fn describe_one(
        &self,
        name: ResourceName,
        row: Option<ListedResource>,
        place: Whereabouts,
    ) -> Result<Option<Description>, Closed> {
        let reply = match (place, &row) {
            (Whereabouts::Stored, Some(row)) if row.holder.is_none() => {
                return Ok(Some(row.expiring(None)));
            }
            (Whereabouts::Dormant { token, expires }, Some(row)) if row.is_held_by(token) => {
                return Ok(Some(row.expiring(expires)));
            }
            (Whereabouts::Live(actor), _) => {
                let asked = self.send(Rc::new(actor), &Op::DESCRIBE, &Caller::NOBODY);
                asked.await.map_or_else(|| Box::new(Reply::Moved), taken)
            }
            // Without a row, or with one that was read before its lease began; or held when the server was
            // started: then only its actor knows whether the lease has ended since.
            (Whereabouts::Dormant { .. } | Whereabouts::Stored, _) => Box::new(Reply::Moved),
        };
        let reply = match *reply {
            Reply::Moved => taken(self.ask(&name, &Op::DESCRIBE, &Caller::NOBODY).await),
            _ => reply,
        };
        match *reply {
            Reply::Described(description) => Ok(Some(*description)),
            // It alone cannot be read: that must not cost the others their place.
            Reply::Closed(_) if self.server.gate.check_answer().is_ok() => {
                Ok(row.map(|row| row.expiring(None)))
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

    /// With the end of its lease, if it is held, which the row does not say.
    fn expiring(&self, expires: Option<Expiry>) -> Description {
        Description {
            name: self.name.clone(),
            id: self.id.clone(),
            options: self.options,
            locked: self.holder.is_some(),
            holders: self.holder.iter().map(|row| holder(row, expires)).collect(),
            waiting: self.waiting,
            waits_since: None,
            queue: Vec::new(),
            selectors: self.selectors,
            you: None,
            fingerprint: 0,
        }
    }
}

fn holder(row: &HolderRow, expires: Option<Expiry>) -> HolderView {
    let ticket = &row.ticket;
    HolderView {
        owner: ticket.owner.clone(),
        reason: ticket.reason.clone(),
        mode: ticket.mode,
        acquired_at: row.acquired_at,
        expires_at: expires.map(|expires| expires.at),
        expires_in_ms: expires.map(|expires| expires.in_ms),
        token: row.token,
        queued_at: ticket.queued_at,
        renewed_at: None,
        client: None,
    }
}

/// By name, only names up to here are known to be all there are: past the end of a list that was cut off
/// there may be others.
fn horizon(
    query: &ListQuery,
    seen: &[ResourceName],
    rows: &[ListedResource],
) -> Option<ResourceName> {
    if query.order != ListOrder::Name {
        return None;
    }
    let last_seen = (seen.len() == query.limit).then(|| seen.iter().max());
    let last_row = (rows.len() == query.limit).then(|| rows.last().map(|row| &row.name));
    let ends = [last_seen.flatten(), last_row.flatten()];
    ends.into_iter().flatten().min().cloned()
}
