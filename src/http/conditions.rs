//! Header fields that make what is asked hang on something.

use actix_web::http::header::{self, HeaderName};

use super::errors::ApiError;
use super::paths::Route;
use super::request::Request;
use crate::resource::messages::{Condition, EntityTag, EntityTags};

/// All that there are.
static CONDITIONS: [HeaderName; 3] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_UNMODIFIED_SINCE,
];

impl Request {
    /// A condition that is not understood must not be ignored: the client would believe that it was met.
    pub(super) fn check_conditions(&self) -> Result<(), ApiError> {
        let headers = self.http.headers();
        // Requests have few headers: to look through them is faster than to look for each condition.
        if !headers.keys().any(|name| CONDITIONS.contains(name)) {
            return Ok(());
        }
        let of_route = |route: Route| route.conditions(self.http.method());
        let offered = self.route.map_or(&[][..], of_route);
        let refused = CONDITIONS
            .iter()
            .filter(|name| headers.contains_key(*name))
            .find(|name| !offered.contains(name));
        match refused {
            None => Ok(()),
            Some(name) => Err(ApiError::ConditionNotOffered(name.clone())),
        }
    }

    /// What `If-None-Match` names. Compared weakly: a proxy that compresses weakens tags.
    ///
    /// # Errors
    /// It is malformed.
    pub fn if_none_match(&self) -> Result<Option<EntityTags>, ApiError> {
        self.entity_tags(header::IF_NONE_MATCH, true)
    }

    /// On which a write depends: `If-Match`, compared strongly, or `If-None-Match: *`.
    ///
    /// # Errors
    /// One is malformed, both are there, or `If-None-Match` names tags.
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

    /// The tags that a conditional header names; `None`: it is not there. Tags that are none of ours match nothing.
    ///
    /// # Errors
    /// It is neither `*` nor a list of tags in quotation marks.
    fn entity_tags(&self, header: HeaderName, weak: bool) -> Result<Option<EntityTags>, ApiError> {
        let malformed = || {
            ApiError::Malformed(format!(
                "The header {header} is not accepted: send * or tags in quotation marks."
            ))
        };
        let mut tags = None;
        for value in self.http.headers().get_all(&header) {
            let tags: &mut Vec<EntityTag> = tags.get_or_insert_default();
            let mut rest = value.to_str().unwrap_or_default();
            loop {
                // Lists may have empty elements.
                rest = rest.trim_start_matches([',', ' ', '\t']);
                if rest.is_empty() {
                    break;
                }
                if rest.trim_end() == "*" {
                    return Ok(Some(None));
                }
                let (is_weak, inside, after) = first_tag(rest).ok_or_else(malformed)?;
                if weak || !is_weak {
                    tags.extend(EntityTag::from_str_radix(inside, 16).ok());
                }
                rest = after;
            }
        }
        Ok(tags.map(Some))
    }
}

/// The first tag of a list: whether it is weak, what stands in its quotation marks, which may have commas, and
/// what follows. `None`: it is none.
fn first_tag(list: &str) -> Option<(bool, &str, &str)> {
    let (is_weak, quoted) = match list.strip_prefix("W/") {
        Some(quoted) => (true, quoted),
        None => (false, list),
    };
    let (inside, rest) = quoted.strip_prefix('"')?.split_once('"')?;
    let rest = rest.trim_start();
    (rest.is_empty() || rest.starts_with(',')).then_some((is_weak, inside, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_ends_with_its_quotation_mark_whatever_is_in_it() {
        assert_eq!(
            first_tag(r#""a,b", W/"c""#),
            Some((false, "a,b", r#", W/"c""#))
        );
        assert_eq!(first_tag(r#"W/"" "#), Some((true, "", "")));
        for none in [
            r#"a"#,
            r#""a"#,
            r#""a"b"#,
            r#"w/"a""#,
            r#"W/a"#,
            r#""a""b""#,
        ] {
            assert_eq!(first_tag(none), None, "{none}");
        }
    }
}
