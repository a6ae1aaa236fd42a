//! Signals that are passed on to the command, and the names of signals.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};

/// The signals that are passed on.
const PASSED_ON: [(&str, Signal); 6] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("TERM", Signal::TERM),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
];

/// A signal that is passed on, and its arrivals at this process.
pub type ForwardedSignal = (Signal, unix::Signal);

/// Listens to the signals that are passed on and were not ignored when this process began, so that `nohup` keeps its
/// effect.
pub fn listen() -> io::Result<Vec<ForwardedSignal>> {
    let ignored = ignored();
    let heard = PASSED_ON.iter().map(|(_, signal)| *signal);
    let heard = heard.filter(|signal| ignored & (1 << (signal.as_raw() - 1)) == 0);
    let listen = |signal: Signal| {
        let heard = unix::signal(SignalKind::from_raw(signal.as_raw()))?;
        Ok((signal, heard))
    };
    heard.map(listen).collect()
}

/// Waits for the next signal.
pub async fn next(signals: &mut [ForwardedSignal]) -> Signal {
    poll_fn(|context| {
        for (signal, heard) in signals.iter_mut() {
            if let Poll::Ready(Some(())) = heard.poll_recv(context) {
                return Poll::Ready(*signal);
            }
        }
        Poll::Pending
    })
    .await
}

/// The set of signals that this process ignores, as bits; empty if the system does not tell.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .unwrap_or(0)
}

/// The signal of a name with or without SIG, or of a number in digits; or a sentence with what is accepted.
pub fn by_name(text: &str) -> Result<Signal, String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let known = PASSED_ON.iter().chain(&[("KILL", Signal::KILL)]);
    let mut matching =
        known.filter(|(known, signal)| *known == name || signal.as_raw().to_string() == name);
    let found = matching.next().map(|(_, signal)| *signal);
    found.ok_or_else(|| "accepted are HUP, INT, QUIT, TERM, USR1, USR2 and KILL".into())
}
