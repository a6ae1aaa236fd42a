//! The clock that leases are counted on: monotonic, and running on while the machine is suspended.
//!
//! A lease goes on at the server while the client's machine sleeps, so a clock that stops meanwhile (`Instant`
//! on Linux) would show a lease that is long gone, and a wall clock can be set.

use std::ops::{Add, Sub};
use std::time::Duration;

/// The timers of the runtime stand still while the machine is suspended: none may run for long.
const NAP_MAX: Duration = Duration::from_millis(500);

/// A moment on the clock that leases are counted on (`CLOCK_BOOTTIME` on Linux and Android). Two processes of one
/// machine read the same clock there; it means nothing on another machine, or after the next boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(Duration);

impl BootTime {
    /// This moment.
    pub fn now() -> BootTime {
        BootTime(since_boot())
    }

    /// The moment that lies `since_boot` after the start of the clock.
    pub fn from_boot(since_boot: Duration) -> BootTime {
        BootTime(since_boot)
    }

    /// How long after the start of the clock this moment lies.
    pub fn since_boot(self) -> Duration {
        self.0
    }

    /// How much time is left until this moment; zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_sub(since_boot())
    }

    /// How much time has passed since this moment.
    pub(crate) fn elapsed(self) -> Duration {
        since_boot().saturating_sub(self.0)
    }

    /// Has this moment passed?
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// Sleeps until this moment. When the machine was suspended past it, wakes half a second after the machine at the
    /// latest.
    pub async fn reached(self) {
        while !self.has_passed() {
            tokio::time::sleep(self.remaining().min(NAP_MAX)).await;
        }
    }
}

/// Resolves at this moment; `None`: never.
pub(crate) async fn reached(moment: Option<BootTime>) {
    match moment {
        Some(moment) => moment.reached().await,
        None => std::future::pending().await,
    }
}

impl Add<Duration> for BootTime {
    type Output = BootTime;

    fn add(self, duration: Duration) -> BootTime {
        BootTime(self.0.saturating_add(duration))
    }
}

impl Sub<Duration> for BootTime {
    type Output = BootTime;

    /// Not before the start of the clock.
    fn sub(self, duration: Duration) -> BootTime {
        BootTime(self.0.saturating_sub(duration))
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn since_boot() -> Duration {
    use std::sync::LazyLock;
    use std::time::Instant;
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_sleeps_until_the_moment_and_not_less() {
        let until = BootTime::now() + Duration::from_millis(30);
        until.reached().await;
        assert!(until.has_passed());
        assert_eq!(until.remaining(), Duration::ZERO);
        // A moment that has passed is reached at once.
        (until - Duration::from_secs(1)).reached().await;
    }
}
