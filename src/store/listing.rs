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
#[derive(Clone, Copy)]
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
    let part = |order: ListOrder, held: Option<bool>, unwaited| ListPart {
        walk: match few {
            Some(few) if held == Some(true) && order != ListOrder::Waiting => few,
            _ => order,
        },
        held,
        unwaited,
        order,
    };
    match query.order {
        ListOrder::Name => vec![part(ListOrder::Name, query.held, false)],
        ListOrder::Waiting => vec![
            part(ListOrder::Waiting, query.held, false),
            part(ListOrder::Name, query.held, true),
        ],
        ListOrder::Held => {
            let held = part(ListOrder::Held, Some(true), false);
            let mut parts = vec![held, part(ListOrder::Name, Some(false), false)];
            parts.retain(|part| query.held.is_none_or(|held| part.held == Some(held)));
            parts
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
