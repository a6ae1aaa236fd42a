//! The command while it runs: passes signals on to it, waits for its end, and stops it when the lock is lost.

use std::ffi::OsString;
use std::fs::File;
use std::io::IsTerminal;
use std::process::ExitStatus;
use std::time::Duration;

use futures_util::future::select_all;
use rustix::process::{
    Pid, Signal, WaitOptions, getpgrp, kill_process_group, test_kill_process_group, waitpid,
};
use small_resource_client::{BootTime, Guard, Guards, LossReason, Lost};
use tokio::signal::unix::{SignalKind, signal as listen};

use super::command::start;
use super::guard_process::{GuardProcess, reached};
use super::report::Reporter;
use super::signals::{self, ForwardedSignal};
use super::terminal;

/// How often to check whether the processes that the command left behind have ended: there is no signal for that.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long before the deadline the group is killed, at most: killed processes still have to be scheduled to end,
/// which takes time on a busy machine.
const KILL_TAKES: Duration = Duration::from_millis(250);

/// A command that runs.
struct Running<'a> {
    group: Pid,
    guard: GuardProcess,
    guards: &'a Guards,
    /// The terminal, if there is one.
    tty: Option<File>,
    /// The signal that asks the command to end when the lock is lost.
    stop_signal: Signal,
    /// Time between that signal and SIGKILL.
    kill_after: Duration,
    lost: Option<Lost>,
    /// When its group is killed; set when the lock is lost.
    kill_at: Option<BootTime>,
}

/// Runs the command until it and all processes that it left in its process group have ended. `kill_after`: time between
/// `stop_signal` and SIGKILL. Fails with a sentence if the command was not started.
pub async fn run(
    command: &[OsString],
    environment: &[(&str, String)],
    guards: &Guards,
    (stop_signal, kill_after): (Signal, Duration),
    mut signals: Vec<ForwardedSignal>,
    reporter: &Reporter,
) -> Result<(u8, Option<Lost>), String> {
    let not_started = |error: std::io::Error| format!("The command was not started: {error}.");
    let mut children = listen(SignalKind::child()).map_err(not_started)?;
    let mut continued = listen(SignalKind::from_raw(Signal::CONT.as_raw())).map_err(not_started)?;
    let mut guard = GuardProcess::start().map_err(not_started)?;
    guard
        .deadline(kill_by(guards, kill_after))
        .map_err(not_started)?;
    let child = start(command, environment, &guard.socket).map_err(not_started)?;
    let group = Pid::from_child(&child);
    let tty = terminal::of_this_process();
    // In a pipeline the terminal may be for another part of it, such as a pager. A command that needs the
    // terminal is stopped when it uses it, and gets it then.
    if let Some(tty) = tty.as_ref().filter(|_| is_alone_on_terminal()) {
        terminal::give_to(tty, group);
    }
    guard.let_run(group).map_err(not_started)?;
    reporter.started(group.as_raw_pid());
    let mut running = Running {
        group,
        guard,
        guards,
        tty,
        stop_signal,
        kill_after,
        lost: None,
        kill_at: None,
    };
    let status = loop {
        if let Some(status) = running.ended() {
            break status;
        }
        tokio::select! {
            signal = signals::next(&mut signals) => running.send(signal),
            _ = children.recv() => {}
            _ = continued.recv() => running.resume(),
            lost = guards.lost(), if running.lost.is_none() => running.lose(lost, reporter),
            () = renewed(guards), if running.lost.is_none() => reporter.renewed(),
            () = reached(running.kill_at), if running.kill_at.is_some() => running.kill(),
        }
        running.tell_deadline(reporter);
    };
    let code = exit_code(status);
    // Killed by this process or by the guard process, whichever was first.
    if running.lost.is_some() && code == 128 + Signal::KILL.as_raw() as u8 {
        reporter.killed();
    }
    reporter.exited(code);
    running.clear_up(&mut signals, reporter).await;
    let Running {
        guard, tty, lost, ..
    } = running;
    guard.done();
    if let Some(tty) = tty {
        terminal::take_back(&tty, group);
    }
    Ok((code, lost))
}

impl Running<'_> {
    /// How the command ended, if it has.
    fn ended(&mut self) -> Option<ExitStatus> {
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
        let (_, status) = waitpid(Some(self.group), options).ok().flatten()?;
        let Some(stopped_by) = status.stopping_signal() else {
            return Some(std::os::unix::process::ExitStatusExt::from_raw(
                status.as_raw(),
            ));
        };
        let wants_terminal = [Signal::TTIN, Signal::TTOU].map(Signal::as_raw);
        self.stopped(wants_terminal.contains(&stopped_by));
        None
    }

    /// The command was stopped at the terminal. If it only wants the terminal, and this process has it, the
    /// command gets it. Else this process stops too, so that the shell sees one job; no renewal is sent
    /// meanwhile, and the guard process kills the command at the deadline.
    fn stopped(&mut self, wants_terminal: bool) {
        let Some(tty) = &self.tty else {
            return;
        };
        if !(wants_terminal && terminal::is_ours(tty)) {
            terminal::take_back(tty, self.group);
            // Returns when the shell has continued this process, or at once if there is no shell to do so.
            let _ = kill_process_group(getpgrp(), Signal::TSTP);
        }
        // A command in the background that wants the terminal would only be stopped again.
        if !wants_terminal || terminal::is_ours(tty) {
            self.resume();
        }
    }

    /// Continues the command; it gets the terminal if the shell has given that to this process.
    fn resume(&self) {
        if let Some(tty) = &self.tty {
            terminal::give_to(tty, self.group);
        }
        self.send(Signal::CONT);
    }

    fn send(&self, signal: Signal) {
        let _ = kill_process_group(self.group, signal);
    }

    fn lose(&mut self, lost: Lost, reporter: &Reporter) {
        reporter.stopping(&lost);
        let deadline = kill_by(self.guards, self.kill_after);
        self.kill_at = match lost.reason {
            LossReason::NotRenewed => deadline,
            // Another client may hold the lock already: do not wait for the deadline.
            _ => {
                let soon = BootTime::now() + self.kill_after;
                Some(deadline.map_or(soon, |deadline| deadline.min(soon)))
            }
        };
        self.lost = Some(lost);
        self.send(self.stop_signal);
    }

    fn kill(&mut self) {
        self.kill_at = None;
        self.send(Signal::KILL);
    }

    fn tell_deadline(&mut self, reporter: &Reporter) {
        let deadline = self
            .kill_at
            .or_else(|| kill_by(self.guards, self.kill_after));
        if self.guard.deadline(deadline).is_err() && self.lost.is_none() {
            reporter.warn("The guard process is gone: if this process dies, the command goes on.");
        }
    }

    /// Ends the processes that the command left behind in its group, before the lock is released.
    async fn clear_up(&mut self, signals: &mut [ForwardedSignal], reporter: &Reporter) {
        let remains = |group| test_kill_process_group(group).is_ok();
        if !remains(self.group) {
            return;
        }
        self.send(self.stop_signal);
        let latest = BootTime::now() + self.kill_after;
        let kill_at = self
            .kill_at
            .or(kill_by(self.guards, self.kill_after))
            .map_or(latest, |end| end.min(latest));
        while remains(self.group) && !kill_at.has_passed() {
            tokio::select! {
                signal = signals::next(signals) => self.send(signal),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            self.tell_deadline(reporter);
        }
        self.send(Signal::KILL);
    }
}

/// When the command has to be killed at the latest, so that it is dead before the first of the locks can end.
fn kill_by(guards: &Guards, kill_after: Duration) -> Option<BootTime> {
    let deadlines = guards.iter().filter_map(Guard::deadline);
    // At most half of `kill_after` before the deadline: the signal comes `kill_after` before it, and has to
    // come first.
    Some(deadlines.min()? - KILL_TAKES.min(kill_after / 2))
}

/// Resolves when one of the locks has been renewed.
async fn renewed(guards: &Guards) {
    let renewals = guards.iter().map(|guard| {
        Box::pin(async {
            if guard.renewed().await.is_err() {
                // `Guards::lost` reports the loss.
                std::future::pending::<()>().await;
            }
        })
    });
    select_all(renewals).await;
}

/// Whether standard input and output are both a terminal, so that the command is probably not part of a pipeline.
fn is_alone_on_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

fn exit_code(status: ExitStatus) -> u8 {
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let code = status
        .code()
        .or(signal.map(|number| 128 + number))
        .unwrap_or(1);
    code as u8
}
