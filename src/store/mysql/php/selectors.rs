//! Selectors as the PHP server stores them (percent-encoded, as in the path of a request) and as this program
//! stores them (decoded). Only computes; `adopt` and `revert` change the database.

use std::collections::BTreeSet;

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

/// Decodes every selector of one resource once, except where another row has or gets the decoded text. Of several
/// that decode to the same text, the one that is written as PHP clients write it is decoded, else the first in byte
/// order. Returns each stored selector with what it becomes.
pub(super) fn decoded<'s>(
    selectors: impl Iterator<Item = &'s str> + Clone,
) -> Vec<(&'s str, String)> {
    let mut taken: BTreeSet<String> = selectors.clone().map(str::to_owned).collect();
    let mut order: Vec<_> = selectors.map(|stored| (stored, decode(stored))).collect();
    order.sort_by_key(|(stored, text)| {
        let canonical = text.as_ref().is_some_and(|text| encode(text) == *stored);
        (!canonical, *stored)
    });
    let decoded = order.into_iter().map(|(stored, text)| {
        let free = text.filter(|text| taken.insert(text.clone()));
        (stored, free.unwrap_or_else(|| stored.to_owned()))
    });
    decoded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn becomes(selectors: &[&str], expected: &[&str]) {
        let decoded = decoded(selectors.iter().copied());
        let (stored, texts): (Vec<_>, Vec<_>) = decoded.into_iter().unzip();
        assert_eq!(stored, selectors);
        assert_eq!(texts, expected);
    }

    #[test]
    fn escapes_become_text_and_a_plus_is_no_space() {
        becomes(&["caf%C3%A9", "a+b"], &["café", "a+b"]);
    }

    #[test]
    fn what_is_no_text_keeps_its_escapes() {
        let odd = ["%", "%+1", "%2", "%FF", "%zz", "a%00b"];
        becomes(&odd, &odd);
    }

    #[test]
    fn no_row_gets_a_selector_that_another_row_has() {
        becomes(&["%252561", "%2561", "%61"], &["%252561", "%2561", "a"]);
    }

    #[test]
    fn encoding_is_php_rawurlencode() {
        assert_eq!(encode("a/b c~.-_é%+"), "a%2Fb%20c~.-_%C3%A9%25%2B");
        assert_eq!(encode(".."), "..");
    }
}
