//! Turns one variable into a typed value. A value that is not accepted becomes a problem, and the default
//! takes its place, so that one run finds every problem.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Secret;
use super::sources::{Reader, SettingOrigin, secret_in};
use super::variables::{self, AcceptedValues, Variable};

impl Reader {
    /// The value as it was set, without white space around it unless it is a secret; `None` when it is
    /// absent or empty.
    fn raw(&mut self, name: &'static str) -> Option<(&'static Variable, SettingOrigin, String)> {
        let variable = variables::find(name).expect("only listed variables are read");
        let own = self.get(name).filter(|(_, value)| !value.is_empty());
        let (origin, value) = match own.map(|(origin, value)| (origin, value.to_owned())) {
            Some(own) if variable.secret => {
                let file = self.get(&format!("{name}_FILE"));
                if file.is_some_and(|(_, path)| !path.is_empty()) {
                    let sentence =
                        format!("{name} and {name}_FILE are both set; accepted is one of them.");
                    self.problems.push(sentence);
                }
                own
            }
            Some((origin, value)) => (origin, value.trim().to_owned()),
            None if variable.secret => (SettingOrigin::SecretFile, self.own_file(name)?),
            None => return None,
        };
        if value.is_empty() {
            return None;
        }
        let shown = match variable.secret {
            true => "(hidden)".to_owned(),
            false => shown(&value),
        };
        self.origins.set.push((name, origin, shown));
        Some((variable, origin, value))
    }

    /// The text of the file that `NAME_FILE` names.
    fn own_file(&mut self, name: &'static str) -> Option<String> {
        let (_, path) = self.get(&format!("{name}_FILE"))?;
        let path = path.trim().to_owned();
        if path.is_empty() {
            return None;
        }
        self.origins.watched.push(PathBuf::from(&path));
        match secret_in(Path::new(&path)) {
            Ok(text) => Some(text),
            Err(why) => {
                let sentence = format!(
                    "{name}_FILE names {}, which is not accepted ({why}); accepted is a file that holds the secret and nothing else, or no {name}_FILE.",
                    shown(&path)
                );
                self.problems.push(sentence);
                None
            }
        }
    }

    /// The value that `parse` makes of the text; `None` from it is a problem. `accepted` completes "accepted is …".
    pub fn parsed<T>(
        &mut self,
        name: &'static str,
        accepted: impl Display,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let (variable, origin, value) = self.raw(name)?;
        let parsed = parse(&value);
        if parsed.is_none() {
            let place = self.place(origin);
            let what = if variable.secret {
                format!("{name} from {place} has a value that cannot be used")
            } else {
                format!("{name} is {} in {place}", shown(&value))
            };
            let sentence = format!("{what}; accepted is {accepted}.");
            self.problems.push(sentence);
        }
        parsed
    }

    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.parsed(name, "text without control characters", |value| {
            (!value.chars().any(char::is_control)).then(|| value.to_owned())
        })
    }

    /// A password: any text is accepted.
    pub fn password(&mut self, name: &'static str) -> Secret {
        let value = self.raw(name).map(|(_, _, value)| value);
        if value
            .as_ref()
            .is_some_and(|value| value.ends_with(['\n', '\r']))
        {
            let warning =
                format!("{name} ends with a line end, which is a part of it; is that intended?");
            self.origins.warnings.push(warning);
        }
        Secret::new(value.unwrap_or_default())
    }

    /// A key that a request header can carry.
    pub fn key(&mut self, name: &'static str) -> Option<Secret> {
        let accepted = "text that a request header can carry: no control characters, no white space at either end";
        self.parsed(name, accepted, |value| {
            let carried = value.trim() == value && !value.chars().any(char::is_control);
            carried.then(|| Secret::new(value))
        })
    }

    /// An integer within the bounds of the table; the table's default if it is not set.
    pub fn integer<T: TryFrom<u64>>(&mut self, name: &'static str) -> T {
        let default = digits(default_of(name)).expect("the table's default is a number");
        self.integer_or(name, default)
    }

    /// As [`Reader::integer`], with a default that depends on other settings or on the machine.
    pub fn integer_or<T: TryFrom<u64>>(&mut self, name: &'static str, default: u64) -> T {
        let Some(AcceptedValues::Integer(least, most)) = variables::find(name).map(|v| v.accepts)
        else {
            unreachable!("{name} is no integer");
        };
        debug_assert!((least..=most).contains(&default));
        let hint = self.hint(name);
        let accepted = format!("an integer from {least} to {most}{hint}");
        let number = self.parsed(name, accepted, |value| {
            digits(value).filter(|number| (least..=most).contains(number))
        });
        let number = T::try_from(number.unwrap_or(default));
        number.unwrap_or_else(|_| unreachable!("the bounds of {name} fit its type"))
    }

    /// Some container schedulers set `MYSQL_PORT` to `tcp://…` when a service is called `mysql`. Without this hint
    /// an operator, who has not set it, could not tell where the value comes from.
    fn hint(&self, name: &str) -> &'static str {
        match self.get(name) {
            Some((_, value)) if value.starts_with("tcp://") => {
                " (a tcp:// value is set by container schedulers for a service of that name; in Kubernetes enableServiceLinks: false turns that off)"
            }
            _ => "",
        }
    }

    /// Decimal seconds within the bounds of the table, rounded to the millisecond; the table's default if not set.
    pub fn seconds(&mut self, name: &'static str) -> Duration {
        let Some(AcceptedValues::Seconds(least, most)) = variables::find(name).map(|v| v.accepts)
        else {
            unreachable!("{name} is no time");
        };
        let range = Duration::from_millis(least)..=Duration::from_millis(most);
        let accepted = format!(
            "seconds from {} to {}, decimals allowed",
            range.start().as_secs_f64(),
            range.end().as_secs_f64()
        );
        let set = self.parsed(name, accepted, |value| {
            decimal_seconds(value).filter(|seconds| range.contains(seconds))
        });
        let default = || decimal_seconds(default_of(name)).expect("the table's default is a time");
        set.unwrap_or_else(default)
    }

    /// One of a few words, in upper or lower case.
    pub fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let accepted = match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => words.join(""),
        };
        self.parsed(name, accepted, |value| {
            choices
                .iter()
                .find(|(word, _)| word.eq_ignore_ascii_case(value))
                .map(|(_, choice)| *choice)
        })
    }

    pub fn flag(&mut self, name: &'static str) -> bool {
        let choices = [
            ("true", true),
            ("false", false),
            ("1", true),
            ("0", false),
            ("yes", true),
            ("no", false),
            ("on", true),
            ("off", false),
        ];
        self.choice(name, &choices)
            .unwrap_or(default_of(name) == "true")
    }
}

/// A value for use in a sentence: quoted, escaped so that it is on one line, and cut after 80 characters.
pub(super) fn shown(value: &str) -> String {
    const CHARACTERS_MAX: usize = 80;
    let mut text: String = value.chars().take(CHARACTERS_MAX).collect();
    if text.len() < value.len() {
        text.push('…');
    }
    format!("{text:?}")
}

/// The variable's default in the table.
pub(super) fn default_of(name: &str) -> &'static str {
    variables::find(name).map_or("", |variable| variable.default)
}

/// An integer of digits and nothing else: no sign, no separators.
fn digits(text: &str) -> Option<u64> {
    let only_digits = text.bytes().all(|b| b.is_ascii_digit());
    only_digits.then(|| text.parse().ok()).flatten()
}

/// `5`, `0.25` or `.5`; rounded to the millisecond. No sign, no exponent.
fn decimal_seconds(text: &str) -> Option<Duration> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let seconds = text.parse::<f64>().ok().filter(|_| is_plain)?;
    let millis = (seconds * 1000.0).round();
    (millis < u64::MAX as f64).then(|| Duration::from_millis(millis as u64))
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

    #[test]
    fn numbers_are_plain_and_times_are_exact_to_the_millisecond() {
        let millis = |text: &str| decimal_seconds(text).map(|time| time.as_millis());
        assert_eq!(millis(".5"), Some(500));
        assert_eq!(millis("5."), Some(5_000));
        assert_eq!(millis("4.35"), Some(4_350));
        assert_eq!(millis("0.0004"), Some(0));
        assert_eq!(millis("0.0005"), Some(1));
        assert_eq!(digits("0042"), Some(42));
        for text in [
            "", ".", "+1", "inf", "NaN", "0,5", "1.2.3", "1 0", "1_000", "0x10", "٣",
        ] {
            assert_eq!(decimal_seconds(text), None, "{text}");
            assert_eq!(digits(text), None, "{text}");
        }
        let long = "9".repeat(23);
        assert_eq!((decimal_seconds(&long), digits(&long)), (None, None));
    }
}
