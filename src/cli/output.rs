//! Writes to standard output and standard error, and lays out tables.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

/// A column is not made narrower than this, in characters, to fit a terminal.
const COLUMN_MIN: usize = 8;
/// Between two columns.
const GAP: &str = "  ";

/// Writes a line to standard error. Ignores errors, which could not be reported anywhere.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// As [`say`], for the end of a command that failed.
pub fn say_failure(line: &str) -> ExitCode {
    say(line);
    ExitCode::FAILURE
}

/// Writes text to standard output; the exit code says whether that succeeded. A reader that is gone is not an error
/// to report, a full disk is.
pub fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if error.kind() != io::ErrorKind::BrokenPipe {
                say(&format!("Standard output cannot be written to: {error}."));
            }
            ExitCode::FAILURE
        }
    }
}

/// The text without control characters: a text that somebody else chose must not control the terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// A table whose columns are as wide as their longest cell. On a terminal, cells are cut so that each row fits
/// into one line.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let columns = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| size.ws_col);
    let width = match columns {
        0 => usize::MAX,
        columns => columns.into(),
    };
    let color = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    lay_out(head, rows, width, color)
}

fn lay_out(head: &[&str], rows: &[Vec<String>], width: usize, color: bool) -> String {
    let longest = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells
            .chain([head[column].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..head.len()).map(longest).collect();
    let gaps = GAP.len() * head.len().saturating_sub(1);
    // Makes the widest column narrower until the rows fit, or no column can be narrower.
    while widths.iter().sum::<usize>() + gaps > width
        && let Some(widest) = widths.iter_mut().max()
        && *widest > COLUMN_MIN
    {
        *widest -= 1;
    }
    let line = |cells: Vec<&str>| {
        let fitted = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| fit(cell, *width));
        fitted.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    let mut text = line(head.to_vec());
    if color {
        text = format!("\u{1b}[1m{text}\u{1b}[0m");
    }
    text.push('\n');
    for row in rows {
        text += &line(row.iter().map(String::as_str).collect());
        text.push('\n');
    }
    text
}

/// The cell, padded or cut to exactly `width` characters.
fn fit(cell: &str, width: usize) -> String {
    let cell = printable(cell);
    if cell.chars().count() <= width {
        return format!("{cell:width$}");
    }
    cell.chars()
        .take(width.saturating_sub(1))
        .chain(['…'])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        let row = |name: &str, owner: &str| vec![name.to_owned(), owner.to_owned()];
        vec![
            row("a", "sync-worker"),
            row("shop:42:inventory", "me\u{1b}[2J"),
        ]
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let text = lay_out(&["NAME", "HOLDER"], &rows(), usize::MAX, false);
        assert_eq!(
            text,
            "NAME               HOLDER\na                  sync-worker\nshop:42:inventory  me\u{fffd}[2J\n"
        );
    }

    #[test]
    fn rows_fit_into_the_terminal() {
        let text = lay_out(&["NAME", "HOLDER"], &rows(), 24, true);
        let plain = text.replace("\u{1b}[1m", "").replace("\u{1b}[0m", "");
        assert!(
            plain.lines().all(|line| line.chars().count() <= 24),
            "{text}"
        );
        assert!(
            text.contains("shop:42:in…") && text.starts_with("\u{1b}[1m"),
            "{text}"
        );
    }
}
