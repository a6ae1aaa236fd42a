//! Names in paths, and times as the server takes them.

use std::time::Duration;

use crate::error::Error;

/// Where locks are asked for: the selector says nothing there, since a name has one lock.
const LOCK_SELECTOR: &str = "lock";

/// A resource's path.
pub(crate) fn resource(name: &str) -> Result<String, Error> {
    Ok(format!("/resource/{}", segment(name)?))
}

/// A document's path.
pub(crate) fn document(name: &str, selector: &str) -> Result<String, Error> {
    Ok(format!("{}/{}", resource(name)?, segment(selector)?))
}

/// The path of `lock`, `renew` or `unlock`.
pub(crate) fn action(name: &str, action: &str) -> Result<String, Error> {
    Ok(format!("{}/{action}", document(name, LOCK_SELECTOR)?))
}

/// A name as one segment of a path.
pub(crate) fn segment(name: &str) -> Result<String, Error> {
    let refused = |why: &str| Err(Error::Invalid(format!("the name {name:?} {why}")));
    match name {
        "" => refused("is empty"),
        // Encoded or not, the parser of addresses takes it for a step in the path (`%2E` means `.` in the URL Standard).
        "." | ".." => refused("cannot stand in the path of a request"),
        _ if name.chars().count() > 255 => refused("is longer than 255 characters"),
        _ if name.chars().any(char::is_control) => refused("has a control character"),
        _ => Ok(escaped(name)),
    }
}

/// Every byte that is not plainly a letter, a digit or one of `-._~:` as `%XX`.
pub(crate) fn escaped(text: &str) -> String {
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            path.push(byte.into());
        } else {
            path += &format!("%{byte:02X}");
        }
    }
    path
}

/// Seconds, rounded up to the millisecond: never less than was meant, and 0 only where 0 was meant.
pub(crate) fn seconds(duration: Duration) -> serde_json::Number {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    if millis.is_multiple_of(1000) {
        return u64::try_from(millis / 1000).unwrap_or(u64::MAX).into();
    }
    serde_json::Number::from_f64(millis as f64 / 1000.0).unwrap_or(0.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment_whatever_is_in_it() {
        assert_eq!(segment("shop:42:inventory").unwrap(), "shop:42:inventory");
        assert_eq!(segment("a/b c%").unwrap(), "a%2Fb%20c%25");
        assert_eq!(segment("grün").unwrap(), "gr%C3%BCn");
        assert_eq!(segment("...").unwrap(), "...");
        for refused in ["", ".", "..", "a\nb", &"x".repeat(256)] {
            assert!(segment(refused).is_err(), "{refused:?}");
        }
        assert!(segment(&"ü".repeat(255)).is_ok());
    }

    #[test]
    fn times_are_rounded_up_to_the_millisecond_and_never_to_0() {
        let text = |duration| seconds(duration).to_string();
        assert_eq!(text(Duration::from_secs(30)), "30");
        assert_eq!(text(Duration::from_millis(1500)), "1.5");
        assert_eq!(text(Duration::from_nanos(1)), "0.001");
        assert_eq!(text(Duration::from_micros(999_001)), "1");
        assert_eq!(text(Duration::ZERO), "0");
    }
}
