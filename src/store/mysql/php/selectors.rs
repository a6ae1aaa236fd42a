//! Selectors as the PHP server stores them (percent-encoded, as in the path of a request) and as this program
//! stores them (decoded). Only computes; `adopt` and `revert` change the database.

use std::collections::{BTreeMap, BTreeSet};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::lock::Selector;

/// What PHP's `rawurlencode` escapes: all but letters, digits and `-_.~`.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// The selector as a PHP client puts it into a path.
pub(super) fn encode(selector: &str) -> String {
    utf8_percent_encode(selector, ESCAPED).to_string()
}

/// Decodes a stored selector; `None`: it does not decode to a valid selector.
fn decode(stored: &str) -> Option<String> {
    let is_escape = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let text = percent_decode_str(stored).decode_utf8().ok()?;
    let is_valid = stored.split('%').skip(1).all(is_escape) && Selector::parse(&text).is_ok();
    is_valid.then(|| text.into_owned())
}

/// Decodes every selector of one resource once, except where that would make two rows equal. Of several that
/// decode to the same text, the one that is written as PHP clients write it is decoded, else the first in byte
/// order.
///
/// Returns the selectors to change with what they become, in an order in which no row gets a selector that
/// another row still has; and those that stay although [`encode`] would not restore them: text that was never
/// escaped, and escapes that would make two rows equal or give no valid selector when decoded.
pub(super) fn decoded<'s>(
    selectors: impl Iterator<Item = &'s str>,
) -> (Vec<(&'s str, String)>, Vec<&'s str>) {
    let target = |selector: &'s str| decode(selector).filter(|target| *target != selector);
    let mut order: Vec<(&str, Option<String>)> = selectors
        .map(|selector| (selector, target(selector)))
        .collect();
    order.sort_by_key(|(selector, target)| {
        let canonical = target.as_ref().is_some_and(|t| encode(t) == *selector);
        (!canonical, *selector)
    });
    let mut staying: BTreeSet<&str> = order
        .iter()
        .filter(|(_, target)| target.is_none())
        .map(|(selector, _)| *selector)
        .collect();
    // A row that stays keeps its selector from other rows, which then have to stay too: repeat until none is
    // added.
    let renamed = loop {
        let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
        let before = staying.len();
        for (selector, target) in order.iter().map(|(s, t)| (*s, t.as_deref())) {
            let Some(target) = target.filter(|_| !staying.contains(selector)) else {
                continue;
            };
            if staying.contains(target) || taken.contains_key(target) {
                staying.insert(selector);
            } else {
                taken.insert(target, selector);
            }
        }
        if staying.len() == before {
            break taken;
        }
    };
    let mut renamed: Vec<(&str, String)> = renamed
        .into_iter()
        .map(|(target, selector)| (selector, target.to_owned()))
        .collect();
    // Decoding makes text shorter. If another row still has the new selector, that row is the shorter one: it
    // is renamed first.
    renamed.sort_by_key(|(selector, _)| (selector.len(), *selector));
    let is_kept = |selector: &&str| staying.contains(*selector) && encode(selector) != **selector;
    let kept = order.iter().map(|(selector, _)| *selector);
    (renamed, kept.filter(is_kept).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned<'s>(selectors: &[&'s str]) -> (Vec<(&'s str, String)>, Vec<&'s str>) {
        decoded(selectors.iter().copied())
    }

    fn pair<'s>(from: &'s str, to: &str) -> (&'s str, String) {
        (from, to.to_owned())
    }

    #[test]
    fn escapes_become_text_and_a_plus_is_no_space() {
        let (renamed, kept) = planned(&["caf%C3%A9", "a+b"]);
        assert_eq!(renamed, [pair("caf%C3%A9", "café")]);
        assert_eq!(kept, ["a+b"]);
    }

    #[test]
    fn what_is_no_text_keeps_its_escapes() {
        let (renamed, kept) = planned(&["%FF", "%", "%2", "%zz", "a%00b", "%+1"]);
        assert!(renamed.is_empty());
        assert_eq!(kept, ["%", "%+1", "%2", "%FF", "%zz", "a%00b"]);
    }

    #[test]
    fn a_row_that_has_to_stay_makes_others_stay() {
        // `%61` would become `a`, which is there; so `%2561` cannot become `%61`, nor `%252561` `%2561`.
        let (renamed, kept) = planned(&["a", "%61", "%2561", "%252561"]);
        assert!(renamed.is_empty());
        assert_eq!(kept, ["%252561", "%2561", "%61"]);
    }

    #[test]
    fn a_name_is_free_before_the_next_row_takes_it() {
        let (renamed, kept) = planned(&["%252561", "%61", "%2561"]);
        let expected = [
            pair("%61", "a"),
            pair("%2561", "%61"),
            pair("%252561", "%2561"),
        ];
        assert_eq!(renamed, expected);
        assert!(kept.is_empty());
    }

    #[test]
    fn encoding_is_php_rawurlencode() {
        assert_eq!(encode("a/b c~.-_é%+"), "a%2Fb%20c~.-_%C3%A9%25%2B");
        assert_eq!(encode(".."), "..");
    }
}
