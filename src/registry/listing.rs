//! Listing resources: the committed rows, and for each resource that is live what its actor knows.
//!
//! A row can be older than what an actor knows in two ways: its change is being committed, or it is one
//! that no row shows (a waiter that was not told its ticket yet, a lock that is reserved). So where the
//! order or the filter depends on the lock, the live resources are looked through first, by their status,
//! then the rows are read, and at last every live resource among both is asked itself. What is not live
//! cannot have changed since its row was written, except that a lease which was held when the server was
//! started may have ended: it is asked, too, and becomes live with that. A dormant resource is as its row
//! says, but for the end of its lease, which the registry knows.
//!
//! Where several instances share the store, each lists its own names alone. The rows of others stand in the same
//! tables and may be old: they are left out, and only say how far the names were looked through.

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
use crate::store::members::Slot;
use crate::store::slot_set::SlotSet;
use crate::store::{ListOrder, ListQuery, ListedResource, StoreError};

/// How many times a page is read, at most.
const READ_AGAIN_MAX: usize = 16;
/// So many times the rows are read when too many of them are other instances'.
const ROWS_GROW: usize = 4;

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

impl Page {
    /// One page of several, each of which is what the query asks for of some names.
    pub fn merged(parts: Vec<Page>, query: &ListQuery) -> Page {
        let horizon = parts.iter().filter_map(|part| part.next.clone()).min();
        let mut resources: Vec<Description> =
            parts.into_iter().flat_map(|part| part.resources).collect();
        if let Some(horizon) = &horizon {
            resources.retain(|listed| listed.name <= *horizon);
        }
        Page::cut(resources, horizon, query.order, query.limit)
    }

    /// The first of these. `horizon`: up to here all are known.
    fn cut(
        mut resources: Vec<Description>,
        horizon: Option<ResourceName>,
        order: ListOrder,
        limit: usize,
    ) -> Page {
        resources.sort_by(|a, b| a.compare(b, order));
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
    /// As [`Router::page`], and of which names it is, where several instances share the store.
    ///
    /// # Errors
    /// As [`Router::page`].
    pub async fn part_of_page(&self, query: ListQuery) -> Result<(Page, SlotSet), ListingRefused> {
        let before = self.server.slots.here();
        let mut page = self.page(query).await?;
        let covered = before.and(self.server.slots.here());
        let resources = &mut page.resources;
        resources.retain(|listed| covered.has(Slot::of(&listed.name)));
        Ok((page, covered))
    }

    /// As [`Router::tally`], and of which names it is, where several instances share the store.
    ///
    /// # Errors
    /// As [`Router::tally`].
    pub async fn part_of_tally(&self, prefix: String) -> Result<(Tally, SlotSet), Closed> {
        let before = self.server.slots.here();
        let tally = self.tally(prefix).await?;
        Ok((tally, before.and(self.server.slots.here())))
    }

    /// The page that the query asks for, of the names that this instance answers for.
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
        let (rows, row_horizon) = match query.reserved {
            // No row says so of any.
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

    /// The first rows of names that this instance answers for: as many as the query asks for, unless there are fewer,
    /// or those of other instances are among them in the order of names; and the last name that was looked at, if
    /// there may be others after it.
    async fn own_rows(
        &self,
        query: &ListQuery,
    ) -> Result<(Vec<ListedResource>, Option<ResourceName>), ListingRefused> {
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
                let asked = self
                    .send(Rc::new(actor), &Op::DESCRIBE, Caller::nobody())
                    .await;
                asked.map_or_else(|| Box::new(Reply::Moved), taken)
            }
            // Without a row, or with one that was read before its lease began; or held when the server was
            // started: then only its actor knows whether the lease has ended since.
            (Whereabouts::Dormant { .. } | Whereabouts::Stored, _) => Box::new(Reply::Moved),
        };
        let reply = match *reply {
            Reply::Moved => taken(self.ask(&name, &Op::DESCRIBE, Caller::nobody()).await),
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
/// there may be others. `last_row`: of rows that were cut off.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{ResourceOptions, Seconds};
    use crate::store::ResourceId;

    fn listed(name: &str, waiting: usize) -> Description {
        Description {
            name: ResourceName::parse(name).unwrap(),
            id: ResourceId::new("1"),
            options: ResourceOptions::plain(Seconds::ZERO),
            locked: waiting > 0,
            holders: Vec::new(),
            waiting,
            waits_since: None,
            queue: Vec::new(),
            selectors: 0,
            you: None,
            fingerprint: 0,
        }
    }

    fn page(listed_names: &[&str], next: Option<&str>) -> Page {
        Page {
            resources: listed_names.iter().map(|name| listed(name, 0)).collect(),
            next: next.map(|name| ResourceName::parse(name).unwrap()),
        }
    }

    fn names(page: &Page) -> Vec<&str> {
        let names = page.resources.iter().map(|listed| listed.name.as_str());
        names.collect()
    }

    fn query(limit: usize, order: ListOrder) -> ListQuery {
        ListQuery {
            limit,
            order,
            ..ListQuery::default()
        }
    }

    fn merged(parts: &[Page], limit: usize) -> (Vec<String>, Option<String>) {
        let page = Page::merged(parts.to_vec(), &query(limit, ListOrder::Name));
        let names = names(&page).into_iter().map(str::to_owned).collect();
        (names, page.next.map(|next| next.to_string()))
    }

    #[test]
    fn pages_of_several_instances_end_where_the_first_of_them_ends() {
        let all = [page(&["b", "d"], None), page(&["a", "c"], None)];
        let (found, next) = merged(&all, 10);
        assert_eq!((found.join(""), next), ("abcd".to_owned(), None));
        // What comes after the end of one may not be all there is.
        let cut = [page(&["b", "x"], None), page(&["a", "c"], Some("c"))];
        let (found, next) = merged(&cut, 10);
        assert_eq!((found.join(""), next.as_deref()), ("abc".into(), Some("c")));
        let (found, next) = merged(&cut, 2);
        assert_eq!((found.join(""), next.as_deref()), ("ab".into(), Some("b")));
        // One looked at rows of others alone.
        let empty = [page(&["b", "x"], None), page(&[], Some("m"))];
        let (found, next) = merged(&empty, 10);
        assert_eq!((found.join(""), next.as_deref()), ("b".into(), Some("m")));
    }

    #[test]
    fn whoever_follows_next_sees_every_name_once_however_they_are_spread() {
        let all: Vec<String> = (0..40).map(|n| format!("r{n:02}")).collect();
        // As an instance sees it that reads `limit + 1` rows, of which some are others'.
        let part = |owner: usize, after: &str, limit: usize| {
            let rows = all.iter().filter(|name| name.as_str() > after);
            let rows: Vec<&String> = rows.take(limit + 1).collect();
            let own = rows
                .iter()
                .filter(|name| name.as_bytes()[2] as usize % 3 == owner);
            let own: Vec<&str> = own.map(|name| name.as_str()).collect();
            let is_cut_off = rows.len() == limit + 1;
            page(&own, rows.last().filter(|_| is_cut_off).map(|s| s.as_str()))
        };
        for limit in [1, 2, 7, 40, 100] {
            let (mut seen, mut after) = (Vec::new(), String::new());
            loop {
                let parts: Vec<Page> = (0..3).map(|owner| part(owner, &after, limit)).collect();
                let (found, next) = merged(&parts, limit);
                assert!(found.len() <= limit);
                seen.extend(found);
                match next {
                    Some(next) => after = next,
                    None => break,
                }
            }
            assert_eq!(seen, all, "{limit}");
        }
    }

    #[test]
    fn the_most_waited_for_of_all_instances_come_first() {
        let part = |these: &[(&str, usize)]| Page {
            resources: these.iter().map(|(name, n)| listed(name, *n)).collect(),
            next: None,
        };
        let parts = vec![
            part(&[("a", 1), ("c", 9)]),
            part(&[("b", 5), ("d", 0), ("aa", 1)]),
        ];
        let page = Page::merged(parts, &query(4, ListOrder::Waiting));
        assert_eq!(names(&page), ["c", "b", "a", "aa"]);
        assert_eq!(page.next, None);
    }
}
