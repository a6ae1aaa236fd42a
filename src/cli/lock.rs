//! `lock NAME… -- COMMAND`: runs a command under a lock. The command is dead before another client can get the
//! lock, even if this process is killed or stopped.
//!
//! Neighbours: `small_resource_client` takes and renews the locks; [`running`] runs the command; [`guard_process`]
//! watches over this process and the command from a process of its own; [`report`] informs people and programs.

mod command;
pub mod guard_process;
mod report;
mod running;
mod signals;
mod terminal;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use rustix::process::Signal;
use small_resource_client::{BootTime, Client, Error, Guard, Guards, Place};

use self::report::Reporter;
use self::signals::ForwardedSignal;
use super::remote::{self, EXIT_FAILED, EXIT_USAGE, ServerArgs, sentence};

pub use self::command::become_command;

/// Exit code: the lock was lost while the command ran.
const EXIT_LOST: u8 = 76;
/// Shortest lease: a shorter one leaves no time to stop a command.
const TTL_MIN: Duration = Duration::from_secs(3);
/// Default of `--kill-after` for a long lease.
const KILL_AFTER_MAX: Duration = Duration::from_secs(5);
/// How long the other locks are given to be released once one was lost.
const RELEASE_AFTER_LOSS: Duration = Duration::from_secs(2);

/// The text below the options in the help of `lock`.
pub const HELP: &str = "\
The command finds in its environment:
  LOCK_NAME LOCK_TICKET LOCK_FENCING_TOKEN LOCK_OWNER LOCK_SERVER   for the first name in byte order
  LOCKS   for all names: [{\"name\", \"ticket\", \"fencingToken\"}]

Exit code: the command's own, or 128 and the number of the signal that ended it;
  64 the arguments cannot be used   75 the lock was not obtained (-E)   76 the lock was lost
  125 it failed before the command started   126 not executable   127 not found

A duration is a number of seconds or has a unit: 500ms, 30s, 5m, 1h. SSL_CERT_FILE names the certificates to trust.";

#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct LockArgs {
    /// Resource to lock; several are locked all or none
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    #[command(flatten)]
    server: ServerArgs,

    /// How long to wait for the lock [default: for ever]
    #[arg(short, long, value_name = "DURATION", value_parser = remote::duration)]
    wait: Option<Duration>,

    /// Do not wait
    #[arg(short, long, conflicts_with = "wait")]
    nonblock: bool,

    /// Exit code when the lock is not obtained
    #[arg(short = 'E', long, value_name = "N", default_value_t = 75)]
    conflict_exit_code: u8,

    /// How long the lock outlives its last renewal; at least 3s
    #[arg(short, long, value_name = "DURATION", default_value = "30s", value_parser = remote::duration)]
    ttl: Duration,

    /// Name of the holder, for others to see [default: user@host:pid]
    #[arg(long)]
    owner: Option<String>,

    /// Why the lock is held, for others to see
    #[arg(long)]
    reason: Option<String>,

    /// Take the lock in shared mode, together with other holders in that mode
    #[arg(long)]
    shared: bool,

    /// Time between the signal and SIGKILL when the lock is lost; less than half the ttl [default: 5s, at most
    /// a third of the ttl]
    #[arg(short, long, value_name = "DURATION", value_parser = remote::duration)]
    kill_after: Option<Duration>,

    /// Signal for the command when the lock is lost
    #[arg(long, value_name = "NAME", default_value = "TERM", value_parser = signals::by_name)]
    signal: Signal,

    /// Command line that is run with `sh -c`
    #[arg(short, value_name = "STRING", conflicts_with_all = ["command", "print_env"])]
    c: Option<OsString>,

    /// Fail when the resource does not exist
    #[arg(long)]
    no_create: bool,

    /// Only take the lock, and print the variables with which other commands go on to use it
    #[arg(long, conflicts_with = "command")]
    print_env: bool,

    /// Print errors only
    #[arg(short, long)]
    quiet: bool,

    /// Print more
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,

    /// Write events to the open file with this number, one line of JSON each
    #[arg(long, value_name = "N")]
    events_fd: Option<u32>,

    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Takes the locks, runs the command, releases the locks. The exit code is the command's own, 128 + n for a
/// signal, or one of those that the help lists.
pub fn lock(args: &LockArgs) -> ExitCode {
    let mut names = args.names.clone();
    names.sort_unstable();
    match prepare(args, &names) {
        Ok(session) => remote::block_on("lock", session.run(&names)),
        Err((code, sentence)) => remote::fail("lock", code, &sentence),
    }
}

/// What `lock` needs before it asks a server; or the exit code and the sentence, if the arguments cannot be used or the
/// command cannot be run. `names`: in order.
fn prepare<'a>(args: &'a LockArgs, names: &[String]) -> Result<LockSession<'a>, (u8, String)> {
    let unusable = |sentence: String| (EXIT_USAGE, sentence);
    let kill_after = args.kill_after.unwrap_or(KILL_AFTER_MAX.min(args.ttl / 3));
    if args.ttl < TTL_MIN {
        return Err(unusable("The ttl must be at least 3s.".into()));
    }
    if kill_after >= args.ttl / 2 {
        let sentence = "--kill-after must be less than half of the ttl.";
        return Err(unusable(sentence.into()));
    }
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(unusable("A name was given twice.".into()));
    }
    let command = match (&args.c, args.command.is_empty(), args.print_env) {
        (Some(script), ..) => {
            let words = vec!["sh".into(), "-c".into(), script.clone()];
            Some(command::look_up(words)?)
        }
        (None, false, _) => Some(command::look_up(args.command.clone())?),
        (None, true, true) => None,
        (None, true, false) => return Err(unusable("No command was given after --.".into())),
    };
    let reporter = Reporter::new(args.quiet, args.verbose, args.events_fd).map_err(unusable)?;
    let owner = args.owner.clone().unwrap_or_else(remote::whoami);
    let client = args.server.client(&owner).map_err(unusable)?;
    Ok(LockSession {
        args,
        command,
        kill_after,
        owner,
        client,
        reporter,
    })
}

struct LockSession<'a> {
    args: &'a LockArgs,
    /// `None`: `--print-env` was given.
    command: Option<Vec<OsString>>,
    kill_after: Duration,
    owner: String,
    client: Client,
    reporter: Reporter,
}

impl LockSession<'_> {
    async fn run(mut self, names: &[String]) -> ExitCode {
        let mut signals = match signals::listen() {
            Ok(signals) => signals,
            Err(error) => {
                return remote::fail("lock", EXIT_FAILED, &format!("Cannot start: {error}."));
            }
        };
        // `Err`: a signal came before the locks were taken.
        let taken = tokio::select! {
            signal = signals::next(&mut signals) => Err(signal),
            taken = self.take(names) => Ok(taken),
        };
        if !matches!(taken, Ok(Ok(_))) {
            // Locks and places that were dropped half-way are given back before this process ends. If the server
            // does not answer, a signal ends this at once.
            tokio::select! {
                () = self.client.given_back() => {}
                _ = signals::next(&mut signals) => {}
            }
        }
        let guards = match taken {
            Ok(Ok(guards)) => guards,
            Ok(Err(error)) => return self.refuse(&error),
            Err(signal) => return ExitCode::from(128 + signal.as_raw() as u8),
        };
        match self.command.take() {
            Some(command) => self.run_under(guards, &command, signals).await,
            None => print_env(guards).await,
        }
    }

    fn refuse(&self, error: &Error) -> ExitCode {
        match error {
            Error::NotObtained { .. } => {
                self.reporter.not_obtained(&sentence(error));
                ExitCode::from(self.args.conflict_exit_code)
            }
            other => {
                self.reporter.say(&sentence(other));
                ExitCode::from(match other {
                    Error::Invalid(_) => EXIT_USAGE,
                    _ => EXIT_FAILED,
                })
            }
        }
    }

    /// Takes all locks, in the byte order of their names.
    async fn take(&mut self, names: &[String]) -> Result<Guards, Error> {
        let until = self.args.wait.map(|wait| BootTime::now() + wait);
        let mut guards = Guards::default();
        for name in names {
            let guard = tokio::select! {
                lost = guards.lost() => return Err(lost.into()),
                guard = self.take_one(name, until) => guard?,
            };
            self.reporter.acquired(&guard);
            guards.push(guard);
        }
        Ok(guards)
    }

    async fn take_one(&mut self, name: &str, until: Option<BootTime>) -> Result<Guard, Error> {
        let (args, client) = (self.args, &self.client);
        let mut lock = client
            .lock(name)
            .ttl(args.ttl)
            .margin(self.kill_after)
            .create(!args.no_create);
        if let Some(reason) = &args.reason {
            lock = lock.reason(reason);
        }
        if args.shared {
            lock = lock.shared();
        }
        if let Some(until) = until {
            lock = lock.wait(until.remaining());
        }
        if args.nonblock {
            let taken = lock.try_acquire().await?;
            return match taken {
                Some(guard) => Ok(guard),
                None => {
                    let known = client.describe(name).await.ok().flatten();
                    let holder = known.and_then(|resource| resource.holder).map(Box::new);
                    Err(Error::NotObtained {
                        name: name.to_owned(),
                        holder,
                        position: None,
                    })
                }
            };
        }
        let mut place: Place = lock.enqueue().await?;
        if let Some(state) = place.changed().await {
            let known = client.describe(name).await.ok().flatten();
            self.reporter.waiting(name, known.as_ref(), state.position);
        }
        place.acquire().await
    }

    async fn run_under(
        self,
        guards: Guards,
        command: &[OsString],
        signals: Vec<ForwardedSignal>,
    ) -> ExitCode {
        let environment = environment(&guards, &self.args.server.server, &self.owner);
        let ended = running::run(
            command,
            &environment,
            &guards,
            (self.args.signal, self.kill_after),
            signals,
            &self.reporter,
        )
        .await;
        let release = guards.release();
        let released = match &ended {
            // Whoever looks after this process learns of the loss by its exit code, and a server that is away frees
            // the locks itself.
            Ok((_, Some(_))) => {
                let release = tokio::time::timeout(RELEASE_AFTER_LOSS, release);
                release.await.unwrap_or(Ok(()))
            }
            _ => release.await,
        };
        match (ended, released) {
            (Err(sentence), _) => {
                self.reporter.say(&sentence);
                ExitCode::from(EXIT_FAILED)
            }
            (Ok((_, Some(lost))), _) | (Ok((_, None)), Err(Error::Lost(lost))) => {
                self.reporter.lost(&lost);
                ExitCode::from(EXIT_LOST)
            }
            (Ok((code, None)), released) => {
                if let Err(error) = released {
                    self.reporter
                        .warn(&format!("The lock was not released: {}", sentence(&error)));
                }
                self.reporter.released();
                ExitCode::from(code)
            }
        }
    }
}

/// The variables that the command finds in its environment.
fn environment(guards: &Guards, server: &str, owner: &str) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("LOCK_SERVER", server.to_owned()),
        ("LOCKS", all_locks(guards)),
    ];
    if let Some(first) = guards.first().map(Guard::ticket) {
        variables.extend([
            ("LOCK_NAME", first.name),
            ("LOCK_TICKET", first.ticket),
            ("LOCK_FENCING_TOKEN", first.fencing_token.to_string()),
            ("LOCK_OWNER", owner.to_owned()),
        ]);
    }
    variables
}

/// The value of `LOCKS`.
fn all_locks(guards: &Guards) -> String {
    let all = guards.iter().map(Guard::ticket).map(|ticket| {
        serde_json::json!({"name": ticket.name, "ticket": ticket.ticket, "fencingToken": ticket.fencing_token})
    });
    serde_json::Value::from_iter(all).to_string()
}

/// Prints the variables with which other commands go on to use the locks, and keeps the locks. Gives them back if the
/// variables cannot be printed: nobody could use or release them.
async fn print_env(guards: Guards) -> ExitCode {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let Some(first) = guards.first().map(Guard::ticket) else {
        return ExitCode::from(EXIT_FAILED);
    };
    let mut line = format!(
        "export LOCK_TICKET={} LOCK_FENCING_TOKEN={} LOCK_NAME={}",
        first.ticket,
        first.fencing_token,
        quoted(&first.name)
    );
    if guards.len() > 1 {
        line += &format!(" LOCKS={}", quoted(&all_locks(&guards)));
    }
    if super::output::print(&format!("{line}\n")) != ExitCode::SUCCESS {
        // A server that is away frees the locks itself.
        let _ = guards.release().await;
        return ExitCode::from(EXIT_FAILED);
    }
    for guard in guards.into_vec() {
        guard.into_ticket();
    }
    ExitCode::SUCCESS
}
