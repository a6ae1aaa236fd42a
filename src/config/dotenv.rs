//! Parses the text of a configuration file into names and values, by the rules of `dotenvy`. A value with `$`, `#`,
//! quotes or spaces is written in single quotes.
//!
//! The error of `dotenvy` shows the line, which may hold a password, and has no line number. Our error is only
//! a number.

/// The names and values of a file, in its order. A name may occur more than once; the last one counts.
///
/// # Errors
/// The number of the line that cannot be read, from 1; if a quote was left open, the line in which it was opened.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, usize> {
    // `dotenvy` may take a last line without a line end for one that continues.
    let text = format!("{}\n", text.strip_prefix('\u{feff}').unwrap_or(text));
    read(&text).map_err(|entries| {
        // The bad entry comes after the smallest number of lines that hold all entries before it.
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        let ends: Vec<usize> = std::iter::once(0).chain(ends).collect();
        let held = |end: usize| read(&text[..end]).map_or_else(|held| held, |pairs| pairs.len());
        entry(&text, ends.partition_point(|end| held(*end) < entries))
    })
}

/// # Errors
/// The number of entries before the one that cannot be read.
fn read(text: &str) -> Result<Vec<(String, String)>, usize> {
    let mut pairs = Vec::new();
    for pair in dotenvy::from_read_iter(text.as_bytes()) {
        pairs.push(pair.map_err(|_| pairs.len())?);
    }
    Ok(pairs)
}

/// The number, from 1, of the line with the first entry after the first `after` lines.
fn entry(text: &str, after: usize) -> usize {
    let is_entry = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let skipped = text.lines().skip(after).take_while(|line| !is_entry(line));
    after + skipped.count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn one(text: &str) -> String {
        let pairs = parse(text).unwrap_or_else(|error| panic!("{text:?}: {error:?}"));
        assert_eq!(pairs.len(), 1, "{text:?}");
        pairs[0].1.clone()
    }

    #[test]
    fn what_stands_in_single_quotes_is_literal() {
        for value in [
            "p$HOME#x",
            "a\"b",
            "$(id)",
            "# leading",
            "  spaces  ",
            "a # b",
            "`id`",
            "",
        ] {
            assert_eq!(one(&format!("MYSQL_PASSWORD='{value}'\n")), value);
            assert_eq!(one(&format!("MYSQL_PASSWORD='{value}' # why")), value);
        }
    }

    #[test]
    fn comments_blank_lines_export_crlf_and_a_byte_order_mark_are_read() {
        let text = "\u{feff}# it's a comment\r\n\r\nexport MYSQL_HOST=database\r\nMYSQL_PASSWORD=\"p w \"\r\nHTTP_PORT=9501 # the port";
        let expected = [
            ("MYSQL_HOST", "database"),
            ("MYSQL_PASSWORD", "p w "),
            ("HTTP_PORT", "9501"),
        ];
        let expected = expected.map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(parse(text), Ok(expected.to_vec()));
        assert_eq!(one("RESOURCE_READ=key "), "key");
    }

    #[test]
    fn the_line_that_cannot_be_read_is_named_and_never_shown() {
        for (text, line) in [
            ("HTTP_PORT=1\nhunter2\nSTORE=memory", 2),
            ("# x\n\n  # y\n=hunter2\n", 4),
            ("A=1\nMYSQL_PASSWORD='abc\nHTTP_PORT=9600\n", 2),
            ("A=two words\n", 1),
            ("A='a\nb'\nnonsense", 3),
            ("1A=x", 1),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error, line, "{text:?}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "([A-Z=#'\"$\\\\ \n\r\té]|export ){0,60}") {
            let lines = text.lines().count();
            if let Err(error) = parse(&text) {
                prop_assert!(error <= lines + 1);
            }
        }
    }
}
