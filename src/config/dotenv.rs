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

    #[test]
    fn the_line_that_cannot_be_read_is_named() {
        for (text, line) in [
            ("HTTP_PORT=1\nhunter2\nSTORE=memory", 2),
            ("# x\n\n  # y\n=hunter2\n", 4),
            ("A=1\nMYSQL_PASSWORD='abc\nHTTP_PORT=9600\n", 2),
            ("A=two words\n", 1),
            ("A='a\nb'\nnonsense", 3),
            ("1A=x", 1),
        ] {
            assert_eq!(parse(text), Err(line), "{text:?}");
        }
    }
}
