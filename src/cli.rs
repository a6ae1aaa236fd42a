//! The command line: the commands and their arguments, and the commands that do not run a server.
//!
//! Neighbours: `main` calls [`parse`] and acts on the [`CliCommand`]; `config` reads the settings and knows
//! every variable that the help lists; `app` serves.

mod after_restore;
mod healthcheck;
mod lock;
mod output;
mod remote;
mod revert;
mod verbs;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{BufRead as _, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ContextKind;
use clap::{Parser, Subcommand};

use crate::config::variables::VARIABLES;
use crate::config::{EXIT_CONFIG, Settings, key_hash};
use crate::http::openapi;

pub use after_restore::after_restore;
pub use healthcheck::healthcheck;
pub use lock::guard_process::watch_over;
pub use lock::{LockArgs, become_command, lock};
pub use revert::revert_to_php;
pub use verbs::Verb;

use self::after_restore::ABOVE_MAX;
use self::output::{print, say};

/// A lock server over HTTP: named resources with a first-come queue, leases, fencing tokens and shared
/// JSON data.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "small-resource-server",
    version,
    after_help = "--help also lists the environment variables and the exit codes.",
    after_long_help = environment_and_exit_codes()
)]
pub struct Cli {
    /// File to read settings from; wins over CONFIG_FILE
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<CliCommand>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Subcommand)]
pub enum CliCommand {
    /// Run the server (this is what happens without a command)
    #[default]
    Serve,
    /// Ask the server that runs with these settings whether it serves: exit code 0 or 1
    Healthcheck,
    /// Check the settings and print where each came from; start nothing
    CheckConfig,
    /// Print the OpenAPI document
    Openapi,
    /// Read a key from standard input and print its hash for KEYS_FILE
    HashKey,
    /// After a backup was restored: raise the fencing tokens above all that were granted since that backup
    AfterRestore {
        /// Raise them above this number; without it, 1,000,000,000 above the highest stored token
        #[arg(long, value_name = "TOKEN", value_parser = clap::value_parser!(u64).range(..=ABOVE_MAX))]
        above: Option<u64>,
    },
    /// Make the database ready for the PHP server again
    RevertToPhp {
        /// Make the changes; without this, only print what would be done
        #[arg(long)]
        yes: bool,
    },
    /// Run a command under a lock
    #[command(after_help = lock::HELP)]
    Lock(Box<LockArgs>),
    #[command(flatten)]
    Verb(Verb),
    // The names of hidden commands resemble no other, so that no tip for a misspelt one names them.
    /// Wait until the guard process knows this process, then become the command that `lock` runs
    #[command(hide = true)]
    GuardedCommand {
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// The guard process of `lock`: kill the command when the lock or its holder is gone
    #[command(hide = true)]
    GuardProcess { socket: String },
}

impl Cli {
    /// The command that was given; [`CliCommand::Serve`] if none was.
    pub fn chosen_command(&self) -> CliCommand {
        self.command.clone().unwrap_or_default()
    }

    /// The settings, from `--config` if given; or what [`refuse`] prints.
    pub fn settings(&self) -> Result<Settings, String> {
        Settings::load(self.config.clone())
    }
}

/// Parses the command line. If it asks for the help or the version, or is wrong, prints the text and ends the
/// process.
pub fn parse() -> Cli {
    Cli::try_parse().unwrap_or_else(|mut error| {
        let command = named_command(std::env::args_os().skip(1));
        if command.as_deref() == Some("lock") {
            // The tip to put a name that begins with `-` after `--`, where the command stands.
            error.remove(ContextKind::Suggested);
        }
        // Client verbs exit with 64 and not 2: `lock` passes on the exit code of its command.
        let of_client = command.is_some_and(|name| name == "lock" || Verb::has_subcommand(&name));
        if !error.use_stderr() || !of_client {
            error.exit();
        }
        let _ = error.print();
        std::process::exit(remote::EXIT_USAGE.into());
    })
}

/// The name of the command among the arguments. Only `--config` may stand before it.
fn named_command(mut arguments: impl Iterator<Item = OsString>) -> Option<String> {
    let first = arguments.next()?.to_string_lossy().into_owned();
    let name = match first.as_str() {
        "--config" => arguments.nth(1)?,
        option if option.starts_with("--config=") => arguments.next()?,
        _ => return Some(first),
    };
    Some(name.to_string_lossy().into_owned())
}

/// Prints the problems to standard error, one per line, and returns the exit code [`EXIT_CONFIG`].
pub fn refuse(problems: &str) -> ExitCode {
    say(problems);
    ExitCode::from(EXIT_CONFIG)
}

/// `check-config`: prints the summary of settings that were accepted.
pub fn check_config(settings: &Settings) -> ExitCode {
    print(&settings.summary_with_defaults())
}

/// Longest key that `hash-key` reads. No request head has room for a longer one.
const KEY_BYTES_MAX: u64 = 64 << 10;

/// `hash-key`: prints the hash of a key. The key is read from standard input, so that it is in no shell history and
/// no list of processes.
pub fn hash_key() -> ExitCode {
    let mut line = String::new();
    let input = std::io::stdin().lock();
    let read = input.take(KEY_BYTES_MAX + 1).read_line(&mut line);
    let key = line.trim_end_matches(['\n', '\r']);
    let too_long = key.len() as u64 > KEY_BYTES_MAX;
    if read.is_err() || key.is_empty() || key.trim() != key || too_long {
        say(
            "Send the key as one line of at most 64 KiB on standard input, without white space at either end.",
        );
        return ExitCode::FAILURE;
    }
    print(&format!("{}\n", key_hash(key)))
}

/// `openapi`: prints the OpenAPI document that the server serves.
pub fn openapi() -> ExitCode {
    print(&format!("{}\n", openapi::text()))
}

fn environment_and_exit_codes() -> String {
    let mut text = String::from("Environment variables (the environment wins over the file):\n");
    let width = VARIABLES.iter().map(|v| v.name.len()).max().unwrap_or(0);
    for variable in VARIABLES {
        // Writing to a string cannot fail.
        let _ = write!(text, "  {:width$}  {}", variable.name, variable.about);
        if !variable.default.is_empty() {
            let _ = write!(text, " [default: {}]", variable.default);
        }
        text.push('\n');
    }
    text.push_str(
        "\nExit codes:
  0   ended as asked; healthcheck: the server serves
  1   failed, or there is no such name or document; healthcheck: the server does not serve
  2   the command line was not understood
  64  the same, for lock and the other client commands
  75  lock: the lock was not obtained
  76  lock: the lock was lost, and the command was stopped
  125 no server answered; lock: it failed before the command started
  126, 127 lock: the command is not executable, or was not found
  78  the settings were not accepted, or the store can never be used; standard error says why",
    );
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn config_may_stand_before_and_after_the_command() {
        for arguments in [
            ["x", "--config", "a.conf", "healthcheck"],
            ["x", "healthcheck", "--config", "a.conf"],
        ] {
            let cli = Cli::try_parse_from(arguments).unwrap();
            assert_eq!(cli.config, Some(PathBuf::from("a.conf")));
            assert_eq!(cli.chosen_command(), CliCommand::Healthcheck);
        }
    }

    #[test]
    fn the_command_is_found_behind_the_file_of_settings() {
        let named = |arguments: &[&str]| named_command(arguments.iter().map(OsString::from));
        for arguments in [
            &["lock", "a"][..],
            &["--config", "a.conf", "lock", "a"],
            &["--config=a.conf", "lock"],
        ] {
            assert_eq!(named(arguments).as_deref(), Some("lock"), "{arguments:?}");
        }
        for arguments in [&["--config"][..], &["--config", "lock"], &[]] {
            assert_eq!(named(arguments), None, "{arguments:?}");
        }
    }

    #[test]
    fn the_help_lists_every_variable_and_exit_code() {
        let help = Cli::command().render_long_help().to_string();
        for variable in VARIABLES {
            assert!(help.contains(variable.name), "{} is missing", variable.name);
        }
        for code in [
            "  64  ",
            "  75  ",
            "  76  ",
            "  125 ",
            "  0  ",
            "  1  ",
            "  2  ",
            &format!("  {EXIT_CONFIG}  "),
        ] {
            assert!(help.contains(code), "{code} is missing");
        }
    }

    #[test]
    fn a_file_given_on_the_command_line_is_the_one_that_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing.conf");
        let cli = Cli::try_parse_from(["x", "--config", &path.to_string_lossy()]).unwrap();
        let error = cli.settings().unwrap_err();
        assert!(error.contains("missing.conf"), "{error}");
    }
}
