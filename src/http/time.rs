//! Times in JSON bodies.

use std::fmt::Display;
use std::time::{Duration, UNIX_EPOCH};

use crate::lock::WallMillis;

/// The last time that is written out, in ms since 1970: the formatter takes years up to 9999. No TTL reaches
/// beyond that.
const LAST: WallMillis = 253_402_300_799_999;

/// The time as RFC 3339 in UTC with milliseconds.
pub fn rfc3339(at: WallMillis) -> impl Display {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at.min(LAST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_beyond_the_last_is_written_as_the_last() {
        assert_eq!(rfc3339(7).to_string(), "1970-01-01T00:00:00.007Z");
        assert_eq!(rfc3339(LAST).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(u64::MAX).to_string(), rfc3339(LAST).to_string());
    }
}
