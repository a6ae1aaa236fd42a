//! Selects the live and dormant resources that a listing asks for by their status, without a message to each.

use std::collections::BinaryHeap;

use crate::lock::ResourceName;
use crate::resource::status::ResourceStatus;
use crate::store::{ListOrder, ListQuery};

/// The names of the resources that pass the filters of the query and come first in its order, at most `limit`. The
/// names themselves are not sorted. `live`: all live and dormant resources. Takes time in proportion to their number,
/// and memory in proportion to the page.
pub fn find_names<'a>(
    live: impl Iterator<Item = (&'a ResourceName, ResourceStatus)>,
    query: &ListQuery,
) -> Vec<ResourceName> {
    let mut best: BinaryHeap<(u64, &ResourceName)> = BinaryHeap::new();
    for (name, status) in live {
        if !status.is_wanted(query) || !query.names(name) {
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

impl ListQuery {
    /// Whether the name has the prefix and, if the order is by name, comes after `after`.
    fn names(&self, name: &ResourceName) -> bool {
        let past = self.order != ListOrder::Name
            || self
                .after
                .as_deref()
                .is_none_or(|after| name.as_str() > after);
        past && name.as_str().starts_with(&self.prefix)
    }
}
