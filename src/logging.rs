//! The log of the process, whose filter can be replaced while it runs.
//!
//! Lines go through a bounded queue to a thread of their own that writes them to standard error: a log reader that
//! stalls must not hold up the server. Lines that find the queue full are dropped and counted; the count is written
//! once there is room again.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use env_logger::Target;
use log::{Log, Metadata, Record};

/// Lines that may wait to be written.
const QUEUE_LINES: usize = 4096;

/// Lines that were dropped since the start.
static DROPPED: AtomicU64 = AtomicU64::new(0);
static LOGGER: OnceLock<Replaceable> = OnceLock::new();

struct Replaceable {
    logger: ArcSwap<env_logger::Logger>,
    queue: SyncSender<LogEntry>,
}

/// An entry of the queue to the writing thread.
enum LogEntry {
    Line(Vec<u8>),
    /// The writing thread answers it once everything before it is written.
    Flush(Sender<()>),
}

impl Log for Replaceable {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.load().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.logger.load().log(record);
    }

    fn flush(&self) {
        self.logger.load().flush();
    }
}

/// Puts each write, which is one whole line, into the queue, and never waits.
struct LogQueue(SyncSender<LogEntry>);

impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.0.try_send(LogEntry::Line(line.to_vec())) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts logging to standard error; `filter` is as in `RUST_LOG`. If the process has a logger already, that stays.
/// A panic becomes a line of the log as well.
pub fn start(filter: &str) -> io::Result<()> {
    let (queue, lines) = sync_channel(QUEUE_LINES);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_lines(&lines))?;
    let logger = LOGGER.get_or_init(|| Replaceable {
        logger: ArcSwap::new(build(filter, &queue)),
        queue,
    });
    if log::set_logger(logger).is_ok() {
        set_filter(filter);
        std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    }
    Ok(())
}

/// Replaces the filter. Does nothing in a process whose log was not started here.
pub fn set_filter(filter: &str) {
    if let Some(logger) = LOGGER.get() {
        let new = build(filter, &logger.queue);
        log::set_max_level(new.filter());
        logger.logger.store(new);
    }
}

/// Logs the error with which the process ends, whatever the filter hides: the operator must see why the server does not
/// run.
pub fn end_with(error: &str) {
    set_filter("error");
    log::error!(target: "small_resource_server", "{error}");
}

/// Lines that were dropped since the start because the queue was full.
pub fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Waits until everything logged so far is written, for `limit` at most.
pub fn finish(limit: Duration) {
    let Some(logger) = LOGGER.get() else {
        return;
    };
    let (written, is_written) = channel();
    // If the queue is full, its reader stalls, and waiting would not help.
    if logger.queue.try_send(LogEntry::Flush(written)).is_ok() {
        let _ = is_written.recv_timeout(limit);
    }
}

fn write_lines(entries: &Receiver<LogEntry>) {
    let mut said = 0;
    let mut errors = io::stderr();
    for entry in entries {
        match entry {
            LogEntry::Line(line) => {
                // If standard error is closed, there is nowhere to report it.
                let _ = errors.write_all(&line);
            }
            LogEntry::Flush(written) => {
                let _ = written.send(());
            }
        }
        let dropped = dropped_lines();
        if dropped > said {
            let count = dropped - said;
            let _ = writeln!(
                errors,
                "{count} log lines were dropped here: nobody read them"
            );
            said = dropped;
        }
    }
}

fn build(filter: &str, queue: &SyncSender<LogEntry>) -> Arc<env_logger::Logger> {
    let logger = env_logger::Builder::new()
        // This server logs and counts itself what the framework would log about its start and about malformed
        // requests.
        .filter_module("actix_server", log::LevelFilter::Warn)
        .filter_module("actix_http", log::LevelFilter::Off)
        .parse_filters(filter)
        .target(Target::Pipe(Box::new(LogQueue(queue.clone()))))
        .build();
    Arc::new(logger)
}
