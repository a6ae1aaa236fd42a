//! How the SQL stores find the resources of a listing without reading all the others.
//!
//! A statement can walk along the names, along the held locks in the order in which they were acquired, or
//! through the waiting tickets. The first two also read rows that the listing leaves out, so each listing takes
//! the walk that reads few. Which one that is depends on how many locks are held and on how many names have the
//! prefix; both are counted up to [`FEW`].

use super::{ListOrder, ListQuery};

/// Number of rows that a database reads and sorts in a fraction of a second.
pub(super) const FEW: usize = 10_000;

/// One statement of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListPart {
    /// How it finds its rows: by the index on names, by the index on held locks, or through the waiting tickets,
    /// grouped by resource.
    pub walk: ListOrder,
    /// `true`: only held resources, `false`: only free ones, `None`: both.
    pub held: Option<bool>,
    /// `true`: only resources without waiting tickets.
    pub unwaited: bool,
    pub order: ListOrder,
}

/// The walks whose rows are to be counted, up to `FEW + 1`, until one has no more than [`FEW`].
pub(super) fn counted(query: &ListQuery) -> impl Iterator<Item = ListOrder> {
    let names = (!query.prefix.is_empty()).then_some(ListOrder::Name);
    let is_counted = query.held == Some(true) || query.order == ListOrder::Held;
    let walks = names.into_iter().chain([ListOrder::Held]);
    walks.filter(move |_| is_counted)
}

/// The statements of a listing, to be run in turn until enough resources are found. The orders other than by
/// name begin with the resources that have waiters or a holder; the rest is read by name and never sorted.
/// `few`: the walk on which few rows were [`counted`].
pub(super) fn parts(query: &ListQuery, few: Option<ListOrder>) -> Vec<ListPart> {
    let by_name = |held, unwaited| ListPart {
        walk: match (held, few) {
            (Some(true), Some(few)) => few,
            _ => ListOrder::Name,
        },
        held,
        unwaited,
        order: ListOrder::Name,
    };
    match query.order {
        ListOrder::Name => vec![by_name(query.held, false)],
        ListOrder::Waiting => {
            let waited = ListPart {
                walk: ListOrder::Waiting,
                held: query.held,
                unwaited: false,
                order: ListOrder::Waiting,
            };
            vec![waited, by_name(query.held, true)]
        }
        ListOrder::Held => {
            let held = ListPart {
                walk: few.unwrap_or(ListOrder::Held),
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

    fn walks(
        order: ListOrder,
        held: Option<bool>,
        few: Option<ListOrder>,
    ) -> Vec<(ListOrder, Option<bool>)> {
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
        let (few_held, few_names) = (Some(Held), Some(Name));
        let (held, free) = (Some(true), Some(false));
        assert_eq!(walks(Name, None, None), [(Name, None)]);
        assert_eq!(walks(Name, held, None), [(Name, held)]);
        assert_eq!(walks(Name, held, few_held), [(Held, held)]);
        assert_eq!(walks(Name, held, few_names), [(Name, held)]);
        assert_eq!(walks(Name, free, few_held), [(Name, free)]);
        let rest = (Name, free);
        assert_eq!(walks(Held, None, None), [(Held, held), rest]);
        assert_eq!(walks(Held, held, few_names), [(Name, held)]);
        assert_eq!(walks(Held, free, None), [rest]);
        let waited = (Waiting, held);
        assert_eq!(walks(Waiting, held, None), [waited, (Name, held)]);
        assert_eq!(walks(Waiting, held, few_held), [waited, (Held, held)]);
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
        let both = [ListOrder::Name, ListOrder::Held];
        assert_eq!(counted("a", ListOrder::Name, Some(true)), both);
        assert_eq!(counted("a", ListOrder::Held, None), both);
        assert_eq!(counted("", ListOrder::Held, None), [ListOrder::Held]);
    }
}
