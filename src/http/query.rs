//! The query of a request, decoded strictly.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::errors::ApiError;
use super::paths::decode_strictly;
use super::request_bodies::decimal;

fn decode_query(text: &str) -> Result<Cow<'_, str>, ApiError> {
    let decoded = if text.contains('+') {
        let spaced = text.replace('+', " ");
        decode_strictly(&spaced).map(|decoded| Cow::Owned(decoded.into_owned()))
    } else {
        decode_strictly(text)
    };
    decoded.map_err(|why| ApiError::Malformed(format!("The query {why}.")))
}

/// The refusal of a parameter. `takes`: what it accepts.
pub fn not_accepted(name: &str, takes: impl Display) -> ApiError {
    ApiError::Malformed(format!(
        "The query parameter {name} is not accepted: it takes {takes}."
    ))
}

/// The decoded query. Unknown parameters are ignored; of a repeated parameter the last value counts.
pub struct Query<'r>(Vec<(Cow<'r, str>, Cow<'r, str>)>);

impl<'r> Query<'r> {
    /// Decodes a query. `text`: what follows the question mark.
    pub fn parse(text: &'r str) -> Result<Query<'r>, ApiError> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode_query(name)?, decode_query(value)?));
        }
        Ok(Query(pairs))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let last = self.0.iter().rev().find(|(key, _)| key == name);
        last.map(|(_, value)| &**value)
    }

    /// A flag: `0`, `1`, `true` or `false`; `None` if it is not sent.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some("1" | "true") => Ok(Some(true)),
            Some("0" | "false") => Ok(Some(false)),
            Some(_) => Err(not_accepted(name, "0, 1, true or false")),
        }
    }

    /// The parameter `wait`: decimal seconds from 0 to `max`; `None` if it is not sent.
    pub fn wait(&self, max: Duration) -> Result<Option<Duration>, ApiError> {
        let Some(text) = self.get("wait") else {
            return Ok(None);
        };
        let most = max.as_secs_f64();
        let wait = decimal(text, most).map(Duration::from_millis);
        wait.map(Some)
            .ok_or_else(|| not_accepted("wait", format_args!("decimal seconds from 0 to {most}")))
    }

    /// A whole number in `range`; `default` if it is not sent.
    pub fn count(
        &self,
        name: &str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> Result<usize, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(default);
        };
        let count = text.parse().ok().filter(|n| range.contains(n));
        let (least, most) = (range.start(), range.end());
        count.ok_or_else(|| {
            not_accepted(name, format_args!("a whole number from {least} to {most}"))
        })
    }
}
