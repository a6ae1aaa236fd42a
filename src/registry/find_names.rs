//! Selects the live and dormant resources that a listing asks for by their status, without a message to each.

use std::collections::BinaryHeap;

use crate::lock::ResourceName;
use crate::resource::status::ResourceStatus;
use crate::store::{ListOrder, ListQuery};

/// The names that [`FindNames`](super::messages::FindNames) returns. `live`: all live and dormant resources. Takes time in
/// proportion to their number, and memory in proportion to the page.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(all: &[(&str, usize, Option<u64>)], query: &ListQuery) -> Vec<String> {
        let status = |(name, waiting, held_since): &(&str, usize, Option<u64>)| {
            let status = ResourceStatus {
                waiting: *waiting,
                waits_since: None,
                locked: held_since.is_some(),
                held_since: *held_since,
            };
            (ResourceName::parse(name).unwrap(), status)
        };
        let statuses: Vec<(ResourceName, ResourceStatus)> = all.iter().map(status).collect();
        let seen = find_names(statuses.iter().map(|(name, status)| (name, *status)), query);
        let mut names: Vec<String> = seen.iter().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn a_survey_keeps_the_best_of_many() {
        let all: Vec<(String, usize, Option<u64>)> = (0..500)
            .map(|n| (format!("r{n:03}"), n, Some(10_000 - n as u64)))
            .collect();
        let all: Vec<(&str, usize, Option<u64>)> =
            all.iter().map(|(n, w, h)| (n.as_str(), *w, *h)).collect();
        let query = |order| ListQuery {
            limit: 2,
            order,
            ..ListQuery::default()
        };
        assert_eq!(ask(&all, &query(ListOrder::Waiting)), ["r498", "r499"]);
        assert_eq!(ask(&all, &query(ListOrder::Held)), ["r498", "r499"]);
        assert_eq!(ask(&all, &query(ListOrder::Name)), ["r000", "r001"]);
    }

    #[test]
    fn a_survey_goes_by_prefix_by_the_lock_and_past_a_name() {
        let all = [
            ("a", 0, None),
            ("b1", 3, Some(50)),
            ("b2", 0, None),
            ("b3", 0, Some(40)),
        ];
        let query = ListQuery {
            prefix: "b".to_owned(),
            limit: 10,
            ..ListQuery::default()
        };
        assert_eq!(ask(&all, &query), ["b1", "b2", "b3"]);
        let held = ListQuery {
            held: Some(true),
            ..query.clone()
        };
        assert_eq!(ask(&all, &held), ["b1", "b3"]);
        let after = ListQuery {
            after: Some("b1".to_owned()),
            ..held
        };
        assert_eq!(ask(&all, &after), ["b3"]);
        let free = ListQuery {
            held: Some(false),
            ..query
        };
        assert_eq!(ask(&all, &free), ["b2"]);
    }
}
