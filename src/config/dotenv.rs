//! The text of a configuration file to names and values.
//!
//! The format is the one of the original server: `NAME=value` lines, comments, blank lines, optional
//! quotes, an optional `export`. What differs is that a value is literal: no `$` is substituted, no
//! backslash escapes anything, and a `#` belongs to the value unless white space stands before it. So
//! a password is written down as it is.
//!
//! `dotenvy` reads the lines, but it substitutes and unescapes. Each value is therefore found here
//! first and handed over in a spelling for which `dotenvy` gives back exactly these characters.
//! Its functions that write to the environment are not used.

use std::iter::Peekable;
use std::str::Lines;

use super::variables;

/// What a file holds, in its order. A name may occur more than once; the last one counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    pub pairs: Vec<(String, String)>,
    pub problems: Vec<LineProblem>,
}

/// A line that was not understood. It does not quote the line, which may hold a password.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LineProblem {
    /// Counted from 1.
    pub line: usize,
    pub sentence: &'static str,
}

const NOT_A_PAIR: &str = "accepted are NAME=value, a comment that begins with #, or a blank line";
const QUOTE_LEFT_OPEN: &str = "its value begins with a quote that is not closed on the line; accepted is the same quote at the end";

/// Reads the text of a file. CRLF line ends and a byte order mark are taken as they come.
pub(super) fn parse(text: &str) -> Parsed {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parsed = Parsed::default();
    let mut lines = text.lines().peekable();
    let mut line_number = 0;
    while let Some(line) = lines.next() {
        line_number += 1;
        let first = line_number;
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        match pair(content, &mut lines, &mut line_number) {
            Ok(pair) => parsed.pairs.push(pair),
            Err(sentence) => parsed.problems.push(LineProblem {
                line: first,
                sentence,
            }),
        }
    }
    parsed
}

/// One `NAME=value`, which may go on over the following lines.
fn pair(
    line: &str,
    following: &mut Peekable<Lines<'_>>,
    line_number: &mut usize,
) -> Result<(String, String), &'static str> {
    let (head, raw) = line.split_once('=').ok_or(NOT_A_PAIR)?;
    let value = match literal(raw) {
        Some(value) => value,
        // A quote that somebody forgot to close must not swallow the settings below it; only values
        // that mean nothing here, such as a key in PEM, may be longer than their line.
        None if is_ours(head) => return Err(QUOTE_LEFT_OPEN),
        None => continued(raw.trim_start_matches(is_blank), following, line_number)
            .ok_or(QUOTE_LEFT_OPEN)?,
    };
    let canonical = format!("{head}={}", quoted(&value));
    match dotenvy::from_read_iter(canonical.as_bytes()).next() {
        Some(Ok(pair)) => Ok(pair),
        // The reason is dropped on purpose: dotenvy's error quotes the line.
        Some(Err(_)) | None => Err(NOT_A_PAIR),
    }
}

fn is_ours(head: &str) -> bool {
    let name = head.split_whitespace().next_back().unwrap_or("");
    variables::find(name).is_some()
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

/// The value that stands after `=`, or `None` when it begins with a quote that the line does not close.
fn literal(raw: &str) -> Option<String> {
    let value = raw.trim_start_matches(is_blank);
    match value.chars().next() {
        None => Some(String::new()),
        Some(quote @ ('"' | '\'')) => {
            let inside = &value[1..];
            closing(inside, quote).map(|end| inside[..end].to_owned())
        }
        Some('#') if value.len() < raw.len() || begins_comment(value) => Some(String::new()),
        Some(_) => Some(without_comment(value).trim_end_matches(is_blank).to_owned()),
    }
}

/// Whether a `#` right after `=` is a comment: `NAME=# text` is, as it is for the original, and
/// `NAME=#text` is a value.
fn begins_comment(value: &str) -> bool {
    value[1..].chars().next().is_none_or(is_blank)
}

/// Cuts an unquoted value where a `#` follows white space, as the original does.
fn without_comment(value: &str) -> &str {
    let mut before = None;
    for (index, c) in value.char_indices() {
        if c == '#' && before.is_some_and(is_blank) {
            return &value[..index];
        }
        before = Some(c);
    }
    value
}

/// Where a quoted value ends: at the first such quote with nothing but a comment after it. So the same
/// quote may stand inside the value as well.
fn closing(inside: &str, quote: char) -> Option<usize> {
    inside
        .match_indices(quote)
        .map(|(index, _)| index)
        .find(|index| {
            let rest = &inside[index + 1..];
            let after = rest.trim_start();
            after.is_empty() || (after.len() < rest.len() && after.starts_with('#'))
        })
}

/// A quoted value that ends on a later line.
fn continued(
    begun: &str,
    following: &mut Peekable<Lines<'_>>,
    line_number: &mut usize,
) -> Option<String> {
    let quote = begun.chars().next()?;
    let length = following
        .clone()
        .position(|line| closing(line, quote).is_some())?
        + 1;
    let mut value = begun[1..].to_owned();
    for line in following.by_ref().take(length) {
        *line_number += 1;
        value.push('\n');
        value.push_str(&line[..closing(line, quote).unwrap_or(line.len())]);
    }
    Some(value)
}

/// Spells a value so that dotenvy reads back the same characters. Within single quotes it changes
/// nothing, but its search for the end of a line takes a backslash there for an escape; so backslashes
/// and single quotes stand outside of them.
fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('\'');
    for c in value.chars() {
        match c {
            '\'' => text.push_str(r#"'"'"'"#),
            '\\' => text.push_str(r"'\\'"),
            other => text.push(other),
        }
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The value of the only variable in the text.
    #[track_caller]
    fn one(text: &str) -> String {
        let parsed = parse(text);
        assert_eq!(parsed.problems, [], "{text:?}");
        assert_eq!(parsed.pairs.len(), 1, "{text:?}");
        parsed.pairs[0].1.clone()
    }

    #[track_caller]
    fn problem_lines(text: &str) -> Vec<usize> {
        parse(text).problems.iter().map(|p| p.line).collect()
    }

    #[test]
    fn unquoted_values_are_literal() {
        for value in [
            "p$HOME#x",
            "a'b",
            "a\"b",
            r"a\b",
            "$$",
            "${HOME}",
            "$(id)",
            "#secret",
            "pass#word",
            "a=b",
            "=",
            r"\",
            r"\\",
            r"a\'",
            "two words",
            "tail$",
            "ünïcödé",
            "a'b'c\"d\"",
            "`id`",
            "%41",
            "!",
            "x'",
            "x\"",
            "\u{a0}x",
        ] {
            assert_eq!(one(&format!("MYSQL_PASSWORD={value}\n")), value);
        }
    }

    #[test]
    fn everything_inside_quotes_is_literal() {
        for value in [
            "p$HOME#x",
            "a'b",
            "a\"b",
            r"a\b",
            "$$",
            "# leading",
            "  spaces around  ",
            "a # b",
            r"\",
            r"end\",
            r"\n",
            "tab\there",
            "",
            " ",
            "a''b",
            r#"a"b"c"#,
            r#"a\"b"#,
        ] {
            for quote in ['"', '\''] {
                let line = format!("MYSQL_PASSWORD={quote}{value}{quote}");
                assert_eq!(one(&line), value, "{line}");
                let commented = format!("{line}\t# what it is for");
                assert_eq!(one(&commented), value, "{commented}");
            }
        }
    }

    #[test]
    fn a_hash_after_white_space_begins_a_comment_in_an_unquoted_value() {
        assert_eq!(one("HTTP_PORT=9501 # the port"), "9501");
        assert_eq!(one("HTTP_PORT=9501\t#the port"), "9501");
        assert_eq!(one("RESOURCE_ADMIN= # none"), "");
        assert_eq!(one("RESOURCE_ADMIN=# none"), "");
        assert_eq!(one("RESOURCE_ADMIN=#"), "");
        assert_eq!(one("RESOURCE_ADMIN= #none"), "");
    }

    #[test]
    fn white_space_around_an_unquoted_value_is_not_part_of_it() {
        assert_eq!(one("RESOURCE_READ=key  \t "), "key");
        assert_eq!(one("RESOURCE_READ=  key"), "key");
        assert_eq!(one("  RESOURCE_READ = key"), "key");
        assert_eq!(one("RESOURCE_READ=   "), "");
    }

    #[test]
    fn export_blank_lines_comments_crlf_and_byte_order_mark_are_read() {
        let text = "\u{feff}# a comment with it's quote\r\n\r\nexport MYSQL_HOST=database\r\n   # $x\r\nMYSQL_PASSWORD=\"p w \"\r\nMYSQL_USER=root\r\n";
        let parsed = parse(text);
        assert_eq!(parsed.problems, []);
        let expected = [
            ("MYSQL_HOST", "database"),
            ("MYSQL_PASSWORD", "p w "),
            ("MYSQL_USER", "root"),
        ];
        assert_eq!(parsed.pairs, expected.map(|(n, v)| (n.into(), v.into())));
        assert_eq!(one("\u{feff}HTTP_PORT=1"), "1");
    }

    #[test]
    fn other_variables_may_span_lines_and_refer_to_others() {
        let text = "APP_ENV=prod\nAPP_PEM=\"-----BEGIN\nabc=\n# inside\n-----END\" # done\nAPP_URL=\"http://${HOST}:$PORT/\"\nHTTP_PORT=1\n";
        let parsed = parse(text);
        assert_eq!(parsed.problems, []);
        assert_eq!(parsed.pairs[1].1, "-----BEGIN\nabc=\n# inside\n-----END");
        assert_eq!(parsed.pairs[2].1, "http://${HOST}:$PORT/");
        assert_eq!(parsed.pairs[3], ("HTTP_PORT".into(), "1".into()));
    }

    #[test]
    fn lines_that_are_no_pairs_are_named_by_number_and_never_quoted() {
        let text = "HTTP_PORT=1\nhunter2\n=hunter2\n1A=hunter2\nA B=hunter2\nA-B=hunter2\nexport HTTP_HOST\nit's=hunter2\nSTORE=memory";
        let parsed = parse(text);
        assert_eq!(problem_lines(text), [2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(parsed.pairs.len(), 2, "the other lines still count");
        assert!(!format!("{:?}", parsed.problems).contains("hunter2"));
    }

    #[test]
    fn an_unclosed_quote_of_ours_swallows_nothing() {
        let text = "A=1\nMYSQL_PASSWORD='abc\nHTTP_PORT=9600\nB='x'\n";
        assert_eq!(problem_lines(text), [2]);
        assert!(
            parse(text)
                .pairs
                .contains(&("HTTP_PORT".into(), "9600".into()))
        );
        assert_eq!(problem_lines("export STORE=\"memory\nX=\"\"\n"), [1]);
        assert_eq!(problem_lines("APP_X=\"never closed\nHTTP_PORT=1"), [1]);
        assert_eq!(problem_lines("APP=\"a\nb\"\nnonsense"), [3]);
    }

    #[test]
    fn reading_a_file_does_not_touch_the_environment() {
        let name = "SMALL_RESOURCE_SERVER_TEST_ONLY";
        assert_eq!(one(&format!("{name}=1")), "1");
        assert!(std::env::var_os(name).is_none());
    }

    proptest! {
        #[test]
        fn any_text_survives_quotes_and_dotenvy(value in "[^\r\n]{0,40}") {
            // Only a quote with ` #` after it, or blanks up to the end, ends the value early.
            let quote = if closing(&value, '\'').is_none() { '\'' } else { '"' };
            prop_assume!(closing(&value, quote).is_none());
            prop_assert_eq!(one(&format!("X={quote}{value}{quote}")), value);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(?s).{0,200}") {
            let parsed = parse(&text);
            prop_assert!(parsed.pairs.len() + parsed.problems.len() <= text.lines().count());
        }

        #[test]
        fn no_likely_text_makes_the_parser_panic(text in "([A-Z=#'\"$\\\\ \n\r\té]|export ){0,60}") {
            let parsed = parse(&text);
            prop_assert!(parsed.pairs.len() + parsed.problems.len() <= text.lines().count());
        }
    }
}
