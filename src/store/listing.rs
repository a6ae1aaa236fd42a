//! How the SQL stores find the resources of a listing without a look at all the others.
//!
//! There are three ways: along the names, along what is held in the order in which it was acquired, and through
//! whoever waits. The first two meet what they leave out, so each listing takes the way on which it meets
//! little: that depends on how much is held, and on how many names there are with the prefix, which is counted up
//! to [`FEW`].

use super::{ListOrder, ListQuery};

/// So many rows are looked through, and sorted, in a fraction of a second.
pub(super) const FEW: usize = 10_000;

/// What the rows of a part are found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walk {
    Names,
    Held,
    Waited,
}

/// One statement of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListPart {
    pub walk: Walk,
    /// Only those that have (or have not) a holder.
    pub held: Option<bool>,
    /// Without those for which somebody waits.
    pub unwaited: bool,
    pub order: ListOrder,
}

/// Whether there are no more than [`FEW`] of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FewRows {
    /// Names with the prefix.
    pub names: bool,
    /// Resources that are held.
    pub held: bool,
}

/// Does the way depend on what is few?
pub(super) fn is_counted(query: &ListQuery) -> bool {
    query.held == Some(true) || query.order == ListOrder::Held
}

/// What to read one after another until there are as many as were asked for. The orders other than by name begin
/// with what has something to be ordered by; the rest is never sorted.
pub(super) fn parts(query: &ListQuery, few: FewRows) -> Vec<ListPart> {
    let by_name = |held, unwaited| ListPart {
        walk: match held == Some(true) && few.held && !few.names {
            true => Walk::Held,
            false => Walk::Names,
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
                walk: match few.names {
                    true => Walk::Names,
                    false => Walk::Held,
                },
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

    fn walks(order: ListOrder, held: Option<bool>, few: FewRows) -> Vec<(Walk, Option<bool>)> {
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
        let few = |held, names| FewRows { held, names };
        let (held, free) = (Some(true), Some(false));
        let many = few(false, false);
        assert_eq!(walks(Name, None, many), [(Walk::Names, None)]);
        assert_eq!(walks(Name, held, many), [(Walk::Names, held)]);
        assert_eq!(walks(Name, held, few(true, false)), [(Walk::Held, held)]);
        assert_eq!(walks(Name, held, few(true, true)), [(Walk::Names, held)]);
        assert_eq!(walks(Name, free, few(true, false)), [(Walk::Names, free)]);
        let rest = (Walk::Names, free);
        assert_eq!(walks(Held, None, many), [(Walk::Held, held), rest]);
        assert_eq!(walks(Held, held, few(false, true)), [(Walk::Names, held)]);
        assert_eq!(walks(Held, free, many), [rest]);
        let waited = (Walk::Waited, held);
        assert_eq!(walks(Waiting, held, many), [waited, (Walk::Names, held)]);
        assert_eq!(
            walks(Waiting, held, few(true, false)),
            [waited, (Walk::Held, held)]
        );
    }

    #[test]
    fn nothing_is_counted_that_changes_nothing() {
        let is_counted = |order, held| {
            super::is_counted(&ListQuery {
                order,
                held,
                ..ListQuery::default()
            })
        };
        assert!(!is_counted(ListOrder::Name, None));
        assert!(!is_counted(ListOrder::Waiting, Some(false)));
        assert!(is_counted(ListOrder::Name, Some(true)));
        assert!(is_counted(ListOrder::Held, None));
    }
}
