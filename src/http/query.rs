//! The query of a request, decoded strictly.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::errors::ApiError;
use super::paths::{decode_strictly, position};
use super::request_bodies::decimal;

/// Splits the text at the first `byte`, which belongs to neither part.
fn cut(text: &str, byte: u8) -> (&str, &str) {
    match position(text, byte) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    }
}

fn decode_query(text: &str) -> Result<Cow<'_, str>, ApiError> {
    let decoded = if position(text, b'+').is_some() {
        let spaced = text.replace('+', " ");
        decode_strictly(&spaced).map(|decoded| Cow::Owned(decoded.into_owned()))
    } else {
        decode_strictly(text)
    };
    decoded.map_err(|why| ApiError::Malformed(format!("The query {why}.")))
}

/// The decoded query. Unknown parameters are ignored; of a repeated parameter the last value counts.
pub struct Query<'r>(Vec<(Cow<'r, str>, Cow<'r, str>)>);

impl<'r> Query<'r> {
    /// Decodes a query. `text`: what follows the question mark.
    ///
    /// # Errors
    /// [`ApiError::Malformed`] for an invalid escape or invalid UTF-8.
    pub fn parse(text: &'r str) -> Result<Query<'r>, ApiError> {
        let mut pairs = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (pair, left) = cut(rest, b'&');
            rest = left;
            if !pair.is_empty() {
                let (name, value) = cut(pair, b'=');
                pairs.push((decode_query(name)?, decode_query(value)?));
            }
        }
        Ok(Query(pairs))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let last = self.0.iter().rev().find(|(key, _)| key == name);
        last.map(|(_, value)| &**value)
    }

    /// A flag: `0`, `1`, `true` or `false`; `None` if it is not sent.
    ///
    /// # Errors
    /// [`ApiError::Malformed`] for anything else.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some("1" | "true") => Ok(Some(true)),
            Some("0" | "false") => Ok(Some(false)),
            Some(_) => Err(ApiError::Malformed(format!(
                "The query parameter {name} is not accepted: it takes 0, 1, true or false."
            ))),
        }
    }

    /// The parameter `wait`: decimal seconds from 0 to `max`; `None` if it is not sent.
    ///
    /// # Errors
    /// [`ApiError::Malformed`] for anything else.
    pub fn wait(&self, max: Duration) -> Result<Option<Duration>, ApiError> {
        let Some(text) = self.get("wait") else {
            return Ok(None);
        };
        let most = max.as_secs_f64();
        match decimal(text, most) {
            Some(millis) => Ok(Some(Duration::from_millis(millis))),
            None => Err(ApiError::Malformed(format!(
                "The query parameter wait is not accepted: it takes decimal seconds from 0 to {most}."
            ))),
        }
    }

    /// A whole number in `range`; `default` if it is not sent.
    ///
    /// # Errors
    /// [`ApiError::Malformed`] for anything else.
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
        count.ok_or_else(|| {
            ApiError::Malformed(format!(
                "The query parameter {name} is not accepted: it takes a whole number from {} to {}.",
                range.start(),
                range.end()
            ))
        })
    }
}
