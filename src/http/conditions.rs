//! Conditional headers: `If-Match`, `If-None-Match`, `If-Unmodified-Since`.

use actix_web::http::header::{self, HeaderName};

use super::errors::ApiError;
use super::paths::Route;
use super::request::Request;
use crate::lock::names::hex_digits;
use crate::resource::messages::{Condition, EntityTag, EntityTags};

/// The conditional headers that are either supported by a route or refused, never ignored.
static CONDITIONS: [HeaderName; 3] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_UNMODIFIED_SINCE,
];

impl Request {
    /// Refuses a conditional header that the route does not support. Ignored, it would make the client believe
    /// that its condition was met.
    pub(super) fn check_conditions(&self) -> Result<(), ApiError> {
        let of_route = |route: Route| route.conditions(self.http.method());
        let offered = self.route.map_or(&[][..], of_route);
        let mut others = CONDITIONS.iter().filter(|name| !offered.contains(name));
        match others.find(|name| self.http.headers().contains_key(*name)) {
            None => Ok(()),
            Some(name) => Err(ApiError::ConditionNotOffered(name.clone())),
        }
    }

    /// The tags in `If-None-Match`; `None` without the header. Weak tags count (RFC 9110, section 13.1.2),
    /// because a proxy that compresses weakens them.
    pub fn if_none_match(&self) -> Result<Option<EntityTags>, ApiError> {
        self.entity_tags(header::IF_NONE_MATCH, true)
    }

    /// The condition of a write: `If-Match`, compared strongly (RFC 9110, section 13.1.1), or
    /// `If-None-Match: *`. `None` without either header.
    ///
    /// # Errors
    /// [`ApiError::Malformed`] if a header is malformed, both are sent, or `If-None-Match` lists tags.
    pub fn write_condition(&self) -> Result<Option<Condition>, ApiError> {
        let wanted = self.entity_tags(header::IF_MATCH, false)?;
        let unwanted = self.entity_tags(header::IF_NONE_MATCH, true)?;
        match (wanted, unwanted) {
            (None, None) => Ok(None),
            (Some(tags), None) => Ok(Some(Condition::Is(tags))),
            (None, Some(None)) => Ok(Some(Condition::Missing)),
            _ => Err(ApiError::Malformed(
                "The conditions are not accepted: a write takes If-Match, or If-None-Match: *."
                    .to_owned(),
            )),
        }
    }

    /// The tags in a conditional header; `None` without the header. `weak`: weak tags count too. A tag that
    /// this server cannot have made matches nothing.
    fn entity_tags(&self, header: HeaderName, weak: bool) -> Result<Option<EntityTags>, ApiError> {
        let malformed = || {
            ApiError::Malformed(format!(
                "The header {header} is not accepted: send * or tags in quotation marks."
            ))
        };
        let mut tags = None;
        for value in self.http.headers().get_all(&header) {
            let tags: &mut Vec<EntityTag> = tags.get_or_insert_default();
            // A tag may have bytes that are no ASCII (RFC 9110, 8.8.3); it is none of ours.
            let value = String::from_utf8_lossy(value.as_bytes());
            let mut rest = &value[..];
            loop {
                // A list may have empty elements.
                rest = rest.trim_start_matches([',', ' ', '\t']);
                if rest.is_empty() {
                    break;
                }
                if rest.trim_end() == "*" {
                    return Ok(Some(None));
                }
                let (is_weak, inside, after) = first_tag(rest).ok_or_else(malformed)?;
                if weak || !is_weak {
                    tags.extend(parse_tag(inside));
                }
                rest = after;
            }
        }
        Ok(tags.map(Some))
    }
}

/// The tag that this server writes like this; `None` if there is none. Tags are compared byte for byte: capitals,
/// or fewer digits, are another tag.
fn parse_tag(text: &str) -> Option<EntityTag> {
    let tag = EntityTag::from_str_radix(text, 16).ok()?;
    (text.as_bytes() == hex_digits(tag)).then_some(tag)
}

/// Splits a list after its first tag: whether the tag is weak, the text in its quotation marks (which may
/// contain commas), and the rest of the list. `None` if the list does not begin with a tag.
fn first_tag(list: &str) -> Option<(bool, &str, &str)> {
    let (is_weak, quoted) = match list.strip_prefix("W/") {
        Some(quoted) => (true, quoted),
        None => (false, list),
    };
    let (inside, rest) = quoted.strip_prefix('"')?.split_once('"')?;
    let rest = rest.trim_start();
    (rest.is_empty() || rest.starts_with(',')).then_some((is_weak, inside, rest))
}
