//! Messages to people on standard error, and events for programs with `--events-fd`.

use std::fs::File;
use std::io::Write;
use std::time::SystemTime;

use serde_json::{Value, json};
use small_resource_client::{Guard, Holder, LossReason, Lost};

use crate::cli::output::{printable, say};

pub struct Reporter {
    quiet: bool,
    verbose: bool,
    events: Option<File>,
}

impl Reporter {
    /// # Errors
    /// A sentence: the file of `--events-fd` is not open for writing.
    pub fn new(quiet: bool, verbose: bool, events_fd: Option<u32>) -> Result<Reporter, String> {
        let open = |number: u32| {
            let file = File::options()
                .append(true)
                .open(format!("/dev/fd/{number}"));
            file.map_err(|error| format!("--events-fd {number} cannot be written to: {error}."))
        };
        let events = events_fd.map(open).transpose()?;
        Ok(Reporter {
            quiet,
            verbose,
            events,
        })
    }

    /// The wait for a lock begins.
    pub fn waiting(&mut self, name: &str, holder: Option<&Holder>, position: u64) {
        self.event(
            "waiting",
            json!({"name": name, "position": position, "holder": holder}),
        );
        let name = printable(name);
        let held = match holder {
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

    pub fn acquired(&mut self, guard: &Guard) {
        let (name, token) = (guard.name(), guard.fencing_token().ok());
        self.event("acquired", json!({"name": name, "fencingToken": token}));
        if self.verbose {
            say(&format!("lock: {:?} is ours", printable(name)));
        }
    }

    pub fn not_obtained(&mut self, sentence: &str) {
        self.event("not_obtained", json!({"error": sentence}));
        self.note(&printable(sentence));
    }

    pub fn started(&mut self, pid: i32) {
        self.event("started", json!({"pid": pid}));
    }

    pub fn renewed(&mut self) {
        self.event("renewed", json!({}));
        if self.verbose {
            say("lock: renewed");
        }
    }

    /// The command is being stopped.
    pub fn stopping(&mut self, lost: &Lost) {
        self.event(
            "stopping",
            json!({"name": lost.name, "code": lost.reason.code()}),
        );
        self.note(&format!(
            "{}; stopping the command",
            printable(&lost.to_string())
        ));
    }

    pub fn killed(&mut self) {
        self.event("killed", json!({}));
        self.note("the command did not end by itself and was killed");
    }

    pub fn exited(&mut self, code: u8) {
        self.event("exited", json!({"code": code}));
    }

    pub fn lost(&mut self, lost: &Lost) {
        let mut fields = json!({"name": lost.name, "code": lost.reason.code()});
        if let LossReason::ForcedOff { reason, by } = &lost.reason {
            fields["forced"] = json!({"reason": reason, "by": by});
        }
        self.event("lost", fields);
        say(&format!("lock: {}", printable(&lost.to_string())));
    }

    pub fn released(&mut self) {
        self.event("released", json!({}));
    }

    pub fn warn(&mut self, sentence: &str) {
        self.event("warning", json!({"warning": sentence}));
        self.note(&printable(sentence));
    }

    fn note(&self, line: &str) {
        if !self.quiet {
            say(&format!("lock: {line}"));
        }
    }

    fn event(&mut self, event: &str, mut fields: Value) {
        let Some(file) = &mut self.events else {
            return;
        };
        fields["event"] = event.into();
        // One write for each line. A reader that has closed the pipe does not keep the command from its end.
        let _ = file.write_all(format!("{fields}\n").as_bytes());
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
