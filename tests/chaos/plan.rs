//! What a run is asked to do, and the random numbers that it is made of.

use std::time::Duration;

/// SplitMix64: small, seeded, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64, stream: u64) -> Random {
        let mut random = Random(seed ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93));
        random.next();
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, not including, `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// The settings `CHAOS_SECONDS`, `CHAOS_SEED`, `CHAOS_STORE` and `CHAOS_CLIENTS`.
#[derive(Clone, Debug)]
pub struct Plan {
    pub time: Duration,
    pub seed: u64,
    pub clients: usize,
    store: String,
}

impl Plan {
    /// With a seed of its own when none is given; it is printed, and replays faults and clients.
    pub fn from_env() -> Plan {
        let fresh = uuid::Uuid::new_v4().as_u64_pair().0;
        Plan {
            time: Duration::from_secs(number("CHAOS_SECONDS").unwrap_or(8)),
            seed: number("CHAOS_SEED").unwrap_or(fresh),
            clients: number("CHAOS_CLIENTS").unwrap_or(16) as usize,
            store: std::env::var("CHAOS_STORE").unwrap_or_else(|_| "all".into()),
        }
    }

    pub fn is_wanted(&self, store: &str) -> bool {
        let known = ["all", "sqlite", "mysql", "galera", "group_replication"];
        assert!(
            known.contains(&self.store.as_str()),
            "CHAOS_STORE is one of {known:?}, not {:?}",
            self.store
        );
        self.store == "all" || self.store == store
    }
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {value:?}")),
    )
}
