//! How the SQL stores find the resources of a listing without reading all the others.
//!
//! A statement can walk along the names, along the held locks in the order in which they were acquired, or
//! through the waiting tickets. The first two also read rows that the listing leaves out, so each listing takes
//! the walk that reads few. Which one that is depends on how many locks are held and on how many names have the
//! prefix; both are counted up to [`FEW`].

use super::{ListOrder, ListQuery};

/// Number of rows that a database reads and sorts in a fraction of a second.
pub(super) const FEW: usize = 10_000;

/// How a [`ListPart`] finds its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walk {
    /// By the index on names.
    Names,
    /// By the index on held locks, longest held first.
    Held,
    /// Through the waiting tickets, grouped by resource.
    Waited,
}

/// One statement of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListPart {
    pub walk: Walk,
    /// `true`: only held resources, `false`: only free ones, `None`: both.
    pub held: Option<bool>,
    /// `true`: only resources without waiting tickets.
    pub unwaited: bool,
    pub order: ListOrder,
}

/// The walks whose rows are to be counted, up to `FEW + 1`, until one has no more than [`FEW`].
pub(super) fn counted(query: &ListQuery) -> impl Iterator<Item = Walk> {
    let names = (!query.prefix.is_empty()).then_some(Walk::Names);
    let is_counted = query.held == Some(true) || query.order == ListOrder::Held;
    let walks = names.into_iter().chain([Walk::Held]);
    walks.filter(move |_| is_counted)
}

/// The statements of a listing, to be run in turn until enough resources are found. The orders other than by
/// name begin with the resources that have waiters or a holder; the rest is read by name and never sorted.
/// `few`: the walk on which few rows were [`counted`].
pub(super) fn parts(query: &ListQuery, few: Option<Walk>) -> Vec<ListPart> {
    let by_name = |held, unwaited| ListPart {
        walk: match (held, few) {
            (Some(true), Some(few)) => few,
            _ => Walk::Names,
        },
        held,
        unwaited,
        order: ListOrder::Name,
    };
    match query.order {
        ListOrder::Name => vec![by_name(query.held, false)],
        ListOrder::Waiting => {
            let waited = ListPart {
                walk: Walk::Waited,
                held: query.held,
                unwaited: false,
                order: ListOrder::Waiting,
            };
            vec![waited, by_name(query.held, true)]
        }
        ListOrder::Held => {
            let held = ListPart {
                walk: few.unwrap_or(Walk::Held),
                held: Some(true),
                unwaited: false,
                order: ListOrder::Held,
            };
            let free = by_name(Some(false), false);
            let all = [held, free].into_iter();
            all.filter(|part| query.held.is_none_or(|held| part.held == Some(held)))
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walks(order: ListOrder, held: Option<bool>, few: Option<Walk>) -> Vec<(Walk, Option<bool>)> {
        let query = ListQuery {
            order,
            held,
            prefix: "a".to_owned(),
            ..ListQuery::default()
        };
        let parts = parts(&query, few).into_iter();
        parts.map(|part| (part.walk, part.held)).collect()
    }

    #[test]
    fn a_listing_goes_the_way_on_which_it_meets_little() {
        use ListOrder::{Held, Name, Waiting};
        let (few_held, few_names) = (Some(Walk::Held), Some(Walk::Names));
        let (held, free) = (Some(true), Some(false));
        assert_eq!(walks(Name, None, None), [(Walk::Names, None)]);
        assert_eq!(walks(Name, held, None), [(Walk::Names, held)]);
        assert_eq!(walks(Name, held, few_held), [(Walk::Held, held)]);
        assert_eq!(walks(Name, held, few_names), [(Walk::Names, held)]);
        assert_eq!(walks(Name, free, few_held), [(Walk::Names, free)]);
        let rest = (Walk::Names, free);
        assert_eq!(walks(Held, None, None), [(Walk::Held, held), rest]);
        assert_eq!(walks(Held, held, few_names), [(Walk::Names, held)]);
        assert_eq!(walks(Held, free, None), [rest]);
        let waited = (Walk::Waited, held);
        assert_eq!(walks(Waiting, held, None), [waited, (Walk::Names, held)]);
        assert_eq!(walks(Waiting, held, few_held), [waited, (Walk::Held, held)]);
    }

    #[test]
    fn nothing_is_counted_that_changes_nothing() {
        let counted = |prefix: &str, order, held| {
            let query = ListQuery {
                prefix: prefix.to_owned(),
                order,
                held,
                ..ListQuery::default()
            };
            super::counted(&query).collect::<Vec<_>>()
        };
        assert_eq!(counted("a", ListOrder::Name, None), []);
        assert_eq!(counted("a", ListOrder::Waiting, Some(false)), []);
        let both = [Walk::Names, Walk::Held];
        assert_eq!(counted("a", ListOrder::Name, Some(true)), both);
        assert_eq!(counted("a", ListOrder::Held, None), both);
        assert_eq!(counted("", ListOrder::Held, None), [Walk::Held]);
    }
}
