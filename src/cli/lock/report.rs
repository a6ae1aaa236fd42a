//! Messages to people on standard error, and events for programs with `--events-fd`.
//!
//! Whoever reads them may stop reading and leave the pipe open. Each stream is written by a thread of its own, so that
//! nothing that renews a lock or stops a command waits for a reader.

use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use small_resource_client::{Guard, LossReason, Lost, Resource};

use crate::cli::output::printable;

/// Lines that wait for their thread. More are left out.
const LINES_MAX: usize = 1024;
/// How long the end of this process waits for a reader.
const FLUSH_MAX: Duration = Duration::from_millis(500);

/// Dropping it waits until all lines are written, at most [`FLUSH_MAX`].
pub struct Reporter {
    quiet: bool,
    verbose: bool,
    /// Lines for people; `None` while it is dropped.
    people: Option<SyncSender<String>>,
    /// Lines for a program, if one wants them.
    events: Option<SyncSender<String>>,
    /// Disconnected once both threads have ended.
    ended: Receiver<()>,
}

/// Begins a thread that writes lines to this stream, and holds `alive` for as long as it runs.
fn begin(
    mut stream: impl Write + Send + 'static,
    alive: Sender<()>,
) -> io::Result<SyncSender<String>> {
    let (sender, lines) = mpsc::sync_channel::<String>(LINES_MAX);
    thread::Builder::new().spawn(move || {
        let _alive = alive;
        for line in lines {
            // One write for each line. That the stream is closed could not be reported anywhere.
            let _ = stream.write_all(line.as_bytes());
        }
    })?;
    Ok(sender)
}

fn write(to: Option<&SyncSender<String>>, line: &str) {
    if let Some(sender) = to {
        let _left_out = sender.try_send(format!("{line}\n"));
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        (self.people, self.events) = (None, None);
        let _ = self.ended.recv_timeout(FLUSH_MAX);
    }
}

impl Reporter {
    /// # Errors
    /// A sentence: the file of `--events-fd` is not open for writing, or a thread cannot be started.
    pub fn new(quiet: bool, verbose: bool, events_fd: Option<u32>) -> Result<Reporter, String> {
        let open = |number: u32| {
            let file = File::options()
                .append(true)
                .open(format!("/dev/fd/{number}"));
            file.map_err(|error| format!("--events-fd {number} cannot be written to: {error}."))
        };
        let started = |error: io::Error| format!("Cannot start: {error}.");
        let (alive, ended) = mpsc::channel();
        let events = events_fd.map(open).transpose()?;
        let events = events.map(|file| begin(file, alive.clone()));
        Ok(Reporter {
            quiet,
            verbose,
            events: events.transpose().map_err(started)?,
            people: Some(begin(io::stderr(), alive).map_err(started)?),
            ended,
        })
    }

    /// The wait for a lock begins. `known`: the resource, if the server told of it.
    pub fn waiting(&self, name: &str, known: Option<&Resource>, position: u64) {
        let told = known.and_then(|known| serde_json::from_str::<Value>(&known.json).ok());
        let holder = told.as_ref().and_then(|told| told.get("holder"));
        self.event(
            "waiting",
            json!({"name": name, "position": position, "holder": holder}),
        );
        let name = printable(name);
        let held = match known.and_then(|known| known.holder.as_ref()) {
            None => format!("{name:?} is taken"),
            Some(holder) => {
                let owner = holder.owner.as_deref().unwrap_or("somebody");
                let since = holder.acquired_at.as_deref().map(since).unwrap_or_default();
                format!("{name:?} is held by {}{since}", printable(owner))
            }
        };
        self.note(&format!(
            "waiting: {held}; our place in the queue is {position}"
        ));
    }

    pub fn acquired(&self, guard: &Guard) {
        let (name, token) = (guard.name(), guard.fencing_token().ok());
        self.event("acquired", json!({"name": name, "fencingToken": token}));
        if self.verbose {
            self.say(&format!("{:?} is ours", printable(name)));
        }
    }

    pub fn not_obtained(&self, sentence: &str) {
        self.event("not_obtained", json!({"error": sentence}));
        self.note(&printable(sentence));
    }

    pub fn started(&self, pid: i32) {
        self.event("started", json!({"pid": pid}));
    }

    pub fn renewed(&self) {
        self.event("renewed", json!({}));
        if self.verbose {
            self.say("renewed");
        }
    }

    /// The command is being stopped.
    pub fn stopping(&self, lost: &Lost) {
        self.event(
            "stopping",
            json!({"name": lost.name, "code": lost.reason.code()}),
        );
        self.note(&format!(
            "{}; stopping the command",
            printable(&lost.to_string())
        ));
    }

    pub fn killed(&self) {
        self.event("killed", json!({}));
        self.note("the command did not end by itself and was killed");
    }

    pub fn exited(&self, code: u8) {
        self.event("exited", json!({"code": code}));
    }

    pub fn lost(&self, lost: &Lost) {
        let mut fields = json!({"name": lost.name, "code": lost.reason.code()});
        if let LossReason::ForcedOff { reason, by } = &lost.reason {
            fields["forced"] = json!({"reason": reason, "by": by});
        }
        self.event("lost", fields);
        self.say(&printable(&lost.to_string()));
    }

    pub fn released(&self) {
        self.event("released", json!({}));
    }

    pub fn warn(&self, sentence: &str) {
        self.event("warning", json!({"warning": sentence}));
        self.note(&printable(sentence));
    }

    fn note(&self, line: &str) {
        if !self.quiet {
            self.say(line);
        }
    }

    /// Tells people, also those who want to hear of errors only.
    pub fn say(&self, line: &str) {
        write(self.people.as_ref(), &format!("lock: {line}"));
    }

    fn event(&self, event: &str, fields: Value) {
        if let (Some(_), Value::Object(mut fields)) = (&self.events, fields) {
            fields.shift_insert(0, "event".to_owned(), event.into());
            write(self.events.as_ref(), &Value::Object(fields).to_string());
        }
    }
}

/// ` since <time> (4m 12s ago)`. The age is by this machine's clock, so it is for people only.
fn since(time: &str) -> String {
    let begun = humantime::parse_rfc3339(time).ok();
    let age = begun.and_then(|begun| SystemTime::now().duration_since(begun).ok());
    let seconds = age.map(|age| std::time::Duration::from_secs(age.as_secs()));
    let ago = seconds.map(|age| format!(" ({} ago)", humantime::format_duration(age)));
    format!(" since {}{}", printable(time), ago.unwrap_or_default())
}
