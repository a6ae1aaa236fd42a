//! Whether another instance is silent: its heartbeat number stayed the same for a whole lease on our own
//! monotonic clock, and we read it often enough meanwhile. No clock of another machine is compared.

use std::time::{Duration, Instant};

/// Two reads may be at most this part of a lease apart: otherwise the instance may have been silent only
/// because the database was away.
const READS_PER_LEASE: u32 = 4;

/// What was read of another instance: its last sign of life, when that was first read, and when it was last
/// read.
#[derive(Clone, Debug)]
pub(super) struct HeartbeatWatch {
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
    /// Takes note of a read. `before`: the read before, if it succeeded. `sent_at`: when the query for the
    /// sign was sent; `answered_at`: when its answer was there. The database read the sign at some time in
    /// between, so silence is counted from the first answer to the last query: it lasted at least that long.
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
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

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

    fn first_read(start: Instant) -> HeartbeatWatch {
        let seen = read(None, 3, start);
        assert!(!seen.is_silent);
        seen
    }

    #[test]
    fn whoever_is_silent_is_waited_for_a_whole_lease() {
        let seen = first_read(Instant::now());
        let start = seen.at;
        // The lease counts from the first answer to the last query.
        let seen = watched(seen, LEASE / 8, LEASE);
        assert_eq!(seen.at, start);
        assert!(read(Some(&seen), 3, start + LEASE).is_silent);
    }

    #[test]
    fn a_pause_in_reading_begins_the_wait_anew() {
        let most = LEASE / READS_PER_LEASE;
        // The pause is between two reads, or one of them took that long.
        for answer_took in [Duration::ZERO, 2 * LEASE] {
            let seen = watched(first_read(Instant::now()), LEASE / 8, LEASE);
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

    const DEAD: usize = 7;

    /// 100 instances watch each other, each with its own delays; the database is away for a while, for all of
    /// them; one dies. Returns which instance was taken for dead, and when, in ms.
    fn simulated(seed: u64, away: std::ops::Range<u64>, dies_at: u64) -> Vec<(usize, u64)> {
        const COUNT: usize = 100;
        let (start, mut chance) = (Instant::now(), StdRng::seed_from_u64(seed));
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut beats = [0_u64; COUNT];
        let mut next: Vec<u64> = (0..COUNT).map(|_| chance.random_range(0..500)).collect();
        let mut watches: Vec<Vec<Option<HeartbeatWatch>>> = vec![vec![None; COUNT]; COUNT];
        let mut taken = Vec::new();
        for now in 0..30_000 {
            for one in 0..COUNT {
                if next[one] != now || (one == DEAD && now >= dies_at) {
                    continue;
                }
                let latency = 1 + chance.random_range(0..150);
                next[one] = now + 500 + chance.random_range(0..100);
                if away.contains(&now) {
                    watches[one].fill(None);
                    continue;
                }
                beats[one] += 1;
                for other in 0..COUNT {
                    let before = watches[one][other].as_ref();
                    let (sent_at, answered_at) = (at(now), at(now + latency));
                    let seen =
                        HeartbeatWatch::update(before, beats[other], LEASE, sent_at, answered_at);
                    if seen.is_silent && one != other {
                        taken.push((other, now));
                    }
                    watches[one][other] = Some(seen);
                }
            }
        }
        taken
    }

    #[test]
    fn of_100_instances_the_dead_one_alone_is_taken_for_dead_and_soon() {
        for seed in 1..=3 {
            // Nobody is taken for dead, however long the database is away.
            assert_eq!(simulated(seed, 5_000..15_000, 30_000), []);
            let taken = simulated(seed, 0..0, 5_000);
            assert!(taken.iter().all(|(who, _)| *who == DEAD));
            let first = taken.first().unwrap().1;
            // Its last sign of life may be half a second older than its death.
            assert!((5_000 + 3_400..5_000 + 5_500).contains(&first), "{first}");
        }
    }
}
