//! How many connections may be open, and how long they may take.
//!
//! Beyond `MAX_CONNECTIONS` a few more are accepted, on which only the routes about the server are answered: an
//! operator must be able to see that the server is full.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus::{IntCounterVec, IntGauge};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::metrics::Metrics;

/// Connections beyond the limit, for `/health`, `/ready`, `/metrics` and the other routes about the server.
pub const RESERVED: usize = 64;
/// Files that may be open besides connections: the store, logs, timers, the listener.
const OTHER_FILES: usize = 256;

/// Why a connection was not served, or ended before its request was understood: the values of the metric's
/// label `reason`.
pub const REASONS: [&str; 5] = [TOO_MANY, HANDSHAKE, MALFORMED, TOO_LARGE, TOO_SLOW];
pub const TOO_MANY: &str = "too_many_connections";
pub const HANDSHAKE: &str = "tls_handshake";
pub const MALFORMED: &str = "malformed";
pub const TOO_LARGE: &str = "head_too_large";
pub const TOO_SLOW: &str = "too_slow";

/// The limits of all workers' connections, and the number of those that are open.
pub struct ConnectionLimits {
    max: usize,
    /// How long a client may take for the TLS handshake, then for the first head, and for the rest of a chunked body
    /// after the answer.
    pub head_max: Duration,
    /// How long it may be from one answer to the end of the next request's head.
    pub quiet_max: Duration,
    open: AtomicUsize,
    /// The metric of open connections.
    shown: IntGauge,
    /// The metric of refused connections, by reason.
    refused: IntCounterVec,
}

impl ConnectionLimits {
    pub fn new(
        max: usize,
        head_max: Duration,
        quiet_max: Duration,
        metrics: &Metrics,
    ) -> ConnectionLimits {
        let refused = metrics.connections_refused_total.clone();
        for reason in REASONS {
            refused.with_label_values(&[reason]);
        }
        ConnectionLimits {
            max,
            head_max,
            quiet_max,
            open: AtomicUsize::new(0),
            shown: metrics.connections.clone(),
            refused,
        }
    }

    /// Counts a connection until [`ConnectionLimits::close`]. Returns whether it is beyond the limit; `None` if the
    /// reserve is used up too: then it is not counted.
    pub fn open(&self) -> Option<bool> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        self.shown.inc();
        if before >= self.max + RESERVED {
            self.close();
            return None;
        }
        Some(before >= self.max)
    }

    pub fn close(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.shown.dec();
    }

    /// Counts a connection that was refused. `reason`: one of [`REASONS`].
    pub fn count_refusal(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }
}

/// Raises the soft limit on open files to the hard limit, because many systems start processes with a low soft
/// limit. Returns how many of `wanted` connections fit: with more, the store could not open its own files.
pub fn within_open_files(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        log::warn!("the limit on open files could not be raised: {error}");
    }
    let Some(files) = getrlimit(Resource::Nofile).current else {
        return wanted;
    };
    let fit = fitting(wanted, files as usize);
    if fit < wanted {
        log::warn!(
            "MAX_CONNECTIONS is {wanted}, but the limit on open files is {files}: {fit} connections are served at once; raise the limit (ulimit -n, LimitNOFILE=) or lower MAX_CONNECTIONS"
        );
    }
    fit
}

fn fitting(wanted: usize, files: usize) -> usize {
    let spare = files.saturating_sub(OTHER_FILES + RESERVED);
    // If the limit is below the reserve, clients get half of it.
    wanted.min(spare.max(files / 2).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_store() {
        assert_eq!(fitting(25_000, 1_000_000), 25_000);
        assert_eq!(fitting(25_000, 1024), 1024 - OTHER_FILES - RESERVED);
        assert_eq!(fitting(25_000, 100), 50);
        assert_eq!(fitting(25_000, 0), 1);
    }
}
