//! Signals that are passed on to the command, and the names of signals.

use std::io;

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

/// Receives the signals to this process that are meant for the command.
pub struct ForwardedSignals(Vec<(i32, unix::Signal)>);

impl ForwardedSignals {
    /// Listens to all of them that were not ignored when this process began, so that `nohup` keeps its effect.
    ///
    /// # Errors
    /// The system does not let a signal be handled.
    pub fn listen() -> io::Result<ForwardedSignals> {
        let ignored = ignored();
        let heard = PASSED_ON.iter().map(|(_, signal)| signal.as_raw());
        let heard = heard.filter(|number| ignored & (1 << (number - 1)) == 0);
        let listen = |number| Ok((number, unix::signal(SignalKind::from_raw(number))?));
        heard
            .map(listen)
            .collect::<io::Result<_>>()
            .map(ForwardedSignals)
    }

    /// Waits for the next signal and returns its number.
    pub async fn next(&mut self) -> i32 {
        std::future::poll_fn(|context| {
            for (number, signal) in &mut self.0 {
                if let std::task::Poll::Ready(Some(())) = signal.poll_recv(context) {
                    return std::task::Poll::Ready(*number);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// The set of signals that this process ignores, as bits; empty if the system does not tell.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .unwrap_or(0)
}

/// The number of a signal, from its name with or without SIG, or from its number in digits.
///
/// # Errors
/// A sentence: it is none of the signals that are accepted.
pub fn by_name(text: &str) -> Result<i32, String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let known = PASSED_ON.iter().chain(&[("KILL", Signal::KILL)]);
    let mut matching =
        known.filter(|(known, signal)| *known == name || signal.as_raw().to_string() == name);
    let found = matching.next().map(|(_, signal)| signal.as_raw());
    found.ok_or_else(|| "accepted are HUP, INT, QUIT, TERM, USR1, USR2 and KILL".into())
}

/// The signal of a number that [`by_name`] or [`ForwardedSignals::next`] gave.
pub fn signal(number: i32) -> Signal {
    Signal::from_named_raw(number).unwrap_or(Signal::TERM)
}
