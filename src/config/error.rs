//! Why the settings were refused: all problems at once, as sentences a person can act on.

use std::fmt;

/// The exit code when the settings prevent the start (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: i32 = 78;

/// One problem, as one sentence. It names the variable, the value unless that is secret, and what is
/// accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `None` when the file itself is the problem.
    pub variable: Option<&'static str>,
    pub sentence: String,
}

/// Every problem that was found; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn from_problems(problems: Vec<Problem>) -> ConfigError {
        debug_assert!(!problems.is_empty());
        ConfigError { problems }
    }

    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether one of the problems is about this variable.
    pub fn concerns(&self, variable: &str) -> bool {
        self.problems.iter().any(|p| p.variable == Some(variable))
    }
}

/// One line per problem.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentences = self.problems.iter().map(|problem| &*problem.sentence);
        f.write_str(&sentences.collect::<Vec<_>>().join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// A value for use in a sentence: quoted, escaped so that it is on one line, and cut after 80 characters.
pub(super) fn shown(value: &str) -> String {
    const CHARACTERS_MAX: usize = 80;
    let mut text: String = value.chars().take(CHARACTERS_MAX).collect();
    if text.len() < value.len() {
        text.push('…');
    }
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_value_stays_on_one_line_and_is_cut() {
        assert_eq!(shown("a\nb"), r#""a\nb""#);
        let long = shown(&"x".repeat(500));
        assert!(long.chars().count() < 90 && long.contains('…'), "{long}");
    }
}
