//! Whether another instance is silent: its heartbeat number stayed the same for a whole lease on our own
//! monotonic clock, and we read it often enough meanwhile.

use std::time::{Duration, Instant};

/// Two reads may be at most this part of a lease apart: otherwise the instance may have been silent only
/// because the database was away.
const READS_PER_LEASE: u32 = 4;

/// What was read of another instance.
#[derive(Debug)]
pub(super) struct HeartbeatWatch {
    /// Its last sign of life.
    sign: u64,
    /// When this sign was first read.
    at: Instant,
    read_at: Instant,
    /// The read before found another sign.
    pub is_beating: bool,
    /// It has been silent for a whole lease.
    pub is_silent: bool,
}

impl HeartbeatWatch {
    /// Takes note of a read. `before`: the read before, if it succeeded. The database read the sign at some time
    /// between `sent_at` and `answered_at`, so silence is counted from the first answer to the last query.
    pub fn update(
        before: Option<&HeartbeatWatch>,
        sign: u64,
        lease: Duration,
        sent_at: Instant,
        answered_at: Instant,
    ) -> HeartbeatWatch {
        let is_watched = |before: &&HeartbeatWatch| {
            let away = answered_at.saturating_duration_since(before.read_at);
            before.sign == sign && away <= lease / READS_PER_LEASE
        };
        let at = before.filter(is_watched).map(|before| before.at);
        HeartbeatWatch {
            sign,
            at: at.unwrap_or(answered_at),
            read_at: answered_at,
            is_beating: before.is_some_and(|before| before.sign != sign),
            is_silent: at.is_some_and(|at| sent_at.saturating_duration_since(at) >= lease),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(4);

    fn read(before: Option<&HeartbeatWatch>, sign: u64, sent_at: Instant) -> HeartbeatWatch {
        let answered_at = sent_at + Duration::from_millis(5);
        HeartbeatWatch::update(before, sign, LEASE, sent_at, answered_at)
    }

    /// Reads the same sign at intervals of `every`, until the time `until` has passed.
    fn watched(mut seen: HeartbeatWatch, every: Duration, until: Duration) -> HeartbeatWatch {
        let start = seen.at;
        let mut sent_at = start + every;
        while sent_at < start + until {
            seen = read(Some(&seen), seen.sign, sent_at);
            assert!(
                !seen.is_silent,
                "taken over {:?} after the first read",
                sent_at - start
            );
            sent_at += every;
        }
        seen
    }

    #[test]
    fn a_pause_in_reading_begins_the_wait_anew() {
        let most = LEASE / READS_PER_LEASE;
        // The pause is between two reads, or one of them took that long.
        for answer_took in [Duration::ZERO, 2 * LEASE] {
            let seen = watched(read(None, 3, Instant::now()), LEASE / 8, LEASE);
            let answered_at = seen.read_at + most.max(answer_took) + Duration::from_millis(1);
            let sent_at = answered_at - answer_took;
            let again = HeartbeatWatch::update(Some(&seen), 3, LEASE, sent_at, answered_at);
            assert!(
                !again.is_silent,
                "after a pause: an answer that took {answer_took:?}"
            );
            assert_eq!(again.at, answered_at);
            // After that, a whole lease has to be waited for again.
            let seen = watched(again, LEASE / 8, LEASE);
            assert!(read(Some(&seen), 3, answered_at + LEASE).is_silent);
        }
    }
}
