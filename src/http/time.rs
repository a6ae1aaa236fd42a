//! Times in JSON bodies.

use std::cell::Cell;
use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use crate::lock::WallMillis;

/// A time, serialised as RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Time(pub WallMillis);

/// The last time that is written out, in ms since 1970: the formatter takes years up to 9999. No TTL reaches
/// beyond that.
const LAST: WallMillis = 253_402_300_799_999;

/// A time to the second: `2026-01-31T23:59:59`.
type Date = [u8; 19];

/// Dates that a thread keeps. The grants of one second write the same two dates over and over: now, and the end
/// of the TTL.
const KEPT: usize = 64;

thread_local! {
    /// The dates that this thread wrote last, each with its second since 1970, at the index `second % KEPT`.
    static DATES: [Cell<(u64, Date)>; KEPT] = std::array::from_fn(|_| Cell::new((u64::MAX, Date::default())));
}

fn date(second: u64) -> Date {
    DATES.with(|dates| {
        let kept = &dates[second as usize % KEPT];
        if kept.get().0 != second {
            kept.set((second, write_out(second)));
        }
        kept.get().1
    })
}

fn write_out(second: u64) -> Date {
    let time = UNIX_EPOCH + Duration::from_secs(second);
    let mut date = Date::default();
    // The final `Z` does not fit and is not wanted: this error is expected.
    let _ = write!(&mut date[..], "{}", humantime::format_rfc3339_seconds(time));
    date
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = self.0.min(LAST);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let (second, fraction) = text.split_at_mut(size_of::<Date>());
        second.copy_from_slice(&date(millis / 1000));
        for (place, unit) in [100, 10, 1].into_iter().enumerate() {
            fraction[1 + place] = b'0' + (millis % 1000 / unit % 10) as u8;
        }
        serializer.serialize_str(std::str::from_utf8(&text).unwrap_or_default())
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

    #[test]
    fn every_time_is_as_the_formatter_writes_it_whatever_was_written_before() {
        let start = 1_767_225_599_990;
        // Seconds that share an index take turns, and each second is written several times.
        for millis in (0..5_000).map(|step| start + step * 7) {
            for millis in [millis, millis + KEPT as u64 * 1000, millis + 300_000] {
                let time = UNIX_EPOCH + Duration::from_millis(millis);
                let expected = humantime::format_rfc3339_millis(time).to_string();
                assert_eq!(text(millis), format!("\"{expected}\""));
            }
        }
    }
}
