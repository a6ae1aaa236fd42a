//! Times in JSON bodies.

use std::time::{Duration, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use crate::lock::WallMillis;

/// A time, serialised as RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Time(pub WallMillis);

/// The last time that is written out, in ms since 1970: the formatter takes years up to 9999. No TTL reaches
/// beyond that.
const LAST: WallMillis = 253_402_300_799_999;

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = UNIX_EPOCH + Duration::from_millis(self.0.min(LAST));
        serializer.collect_str(&humantime::format_rfc3339_millis(time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(millis: WallMillis) -> String {
        serde_json::to_string(&Time(millis)).unwrap()
    }

    #[test]
    fn a_time_is_rfc_3339_with_milliseconds() {
        assert_eq!(text(0), "\"1970-01-01T00:00:00.000Z\"");
        assert_eq!(text(1_795_449_984_007), "\"2026-11-23T16:06:24.007Z\"");
        assert_eq!(text(951_827_696_789), "\"2000-02-29T12:34:56.789Z\"");
        assert_eq!(text(LAST), "\"9999-12-31T23:59:59.999Z\"");
        assert_eq!(text(u64::MAX), text(LAST));
    }
}
