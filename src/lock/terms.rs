//! The terms a lock runs under: the compatibility profile, and the limits.

use super::names::{Millis, Seconds};

/// The value of the setting `COMPATIBILITY` (`docs/protocol.md`, "Profiles").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// The documented behaviour.
    #[default]
    Default,
    /// The actual behaviour of the PHP server 1.1.0.
    Php,
}

impl Profile {
    pub fn name(self) -> &'static str {
        match self {
            Profile::Default => "default",
            Profile::Php => "php",
        }
    }

    /// The inverse of [`Profile::name`].
    pub fn parse(text: &str) -> Option<Profile> {
        let all = [Profile::Default, Profile::Php];
        all.into_iter().find(|profile| profile.name() == text)
    }

    // What differs between the profiles: one method for each row of the table in `docs/protocol.md`, "Profiles".

    /// The resource's `timeout` is the TTL of leases that have no `ttl` of their own.
    pub fn timeout_is_lease_ttl(self) -> bool {
        self == Profile::Default
    }

    /// The resource's `timeout` is how long GET `lock=1`, lock and PUT wait on the server.
    pub fn timeout_is_wait(self) -> bool {
        self == Profile::Php
    }

    /// A write by the holder releases the lock.
    pub fn write_releases(self) -> bool {
        self == Profile::Php
    }

    /// GET `lock=1` of a selector that was never written takes the lock and answers 202.
    pub fn get_locks_unwritten(self) -> bool {
        self == Profile::Php
    }

    /// Unlock with a dead ticket answers 200 and names the reason in `code`.
    pub fn dead_unlock_succeeds(self) -> bool {
        self == Profile::Php
    }

    /// A write with a released or unknown ticket counts as a write without a ticket.
    pub fn spent_ticket_writes_as_nobody(self) -> bool {
        self == Profile::Php
    }

    /// A write while someone else holds the lock waits its turn instead of being refused at once.
    pub fn refused_write_waits(self) -> bool {
        self == Profile::Php
    }
}

/// The profile and the limits that [`super::LockState::apply`] works by, each with its setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub profile: Profile,
    /// `CLAIM_SECONDS`: how long a ticket stays near after its last request ended.
    pub claim_ms: Millis,
    /// `TICKET_TTL_SECONDS`: a waiting ticket that is not presented for this long is dropped.
    pub ticket_ttl_ms: Millis,
    /// `MAX_LEASE_SECONDS`: the longest whole life of a lease; 0: without limit.
    pub lease_seconds_max: Seconds,
    /// `MAX_WAITERS_PER_RESOURCE`: the most places in the queue of a resource.
    pub waiters_max: usize,
}

impl Default for Terms {
    fn default() -> Self {
        Terms {
            profile: Profile::Default,
            claim_ms: 5_000,
            ticket_ttl_ms: 60_000,
            lease_seconds_max: Seconds::ZERO,
            waiters_max: 20_000,
        }
    }
}
