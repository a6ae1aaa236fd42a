//! What the client verbs have in common: the arguments for server and key, durations, exit codes.

use std::env::VarError;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use small_resource_client::{Client, Error};

use crate::config::secret_in;

/// Exit code: the server refused, or what was asked for does not exist.
pub const EXIT_REFUSED: u8 = 1;
/// Exit code (`EX_USAGE` of sysexits.h): the command line was not understood, or something in it cannot be used.
pub const EXIT_USAGE: u8 = 64;
/// Exit code: no server answered, or `lock` failed before its command started.
pub const EXIT_FAILED: u8 = 125;

#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ServerArgs {
    /// The server; several, separated by commas, are tried in turn
    #[arg(
        short,
        long,
        value_name = "URL",
        env = "LOCK_SERVER",
        hide_env_values = true
    )]
    #[arg(default_value = "http://127.0.0.1:9501")]
    pub server: String,

    /// File that holds the key; without this, the key is taken from LOCK_KEY
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

impl ServerArgs {
    /// A client of these servers; or a sentence, if an address or the key cannot be used.
    pub fn client(&self, owner: &str) -> Result<Client, String> {
        let mut servers = self.server.split(',').map(str::trim);
        let mut builder = Client::builder(servers.next().unwrap_or_default()).owner(owner);
        for server in servers {
            builder = builder.server(server);
        }
        if let Some(key) = self.key()? {
            builder = builder.key(key);
        }
        builder.build().map_err(|error| format!("{error}."))
    }

    fn key(&self) -> Result<Option<String>, String> {
        let Some(file) = &self.key_file else {
            return match std::env::var("LOCK_KEY") {
                Ok(key) => Ok(Some(key)),
                Err(VarError::NotPresent) => Ok(None),
                Err(VarError::NotUnicode(_)) => Err("The key in LOCK_KEY is not UTF-8.".into()),
            };
        };
        let read = secret_in(file);
        let key = read.map_err(|why| format!("The key file {}: {why}.", file.display()))?;
        Ok(Some(key))
    }
}

/// Parses a duration: a number of seconds (`30`, `0.5`), or numbers with units (`500ms`, `1m`, `1h30m`).
pub fn duration(text: &str) -> Result<Duration, String> {
    let bare = text.parse::<f64>().ok().map(Duration::try_from_secs_f64);
    match bare {
        Some(Ok(seconds)) => Ok(seconds),
        Some(Err(_)) => Err("the number of seconds is negative or too large".into()),
        None => humantime::parse_duration(text)
            .map_err(|_| "a time is a number of seconds, or has a unit: 500ms, 30s, 5m, 1h".into()),
    }
}

/// `user@host:pid`
pub fn whoami() -> String {
    let user = ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    let user = user.filter(|user| !user.is_empty());
    let user = user.unwrap_or_else(|| rustix::process::getuid().as_raw().to_string());
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    let text = format!("{user}@{host}:{}", std::process::id());
    // The longest owner that the server accepts.
    text.chars().filter(|c| !c.is_control()).take(255).collect()
}

/// Runs the work of a verb to its end, on a runtime on this thread.
pub fn block_on(verb: &str, work: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => fail(verb, EXIT_FAILED, &format!("Cannot start: {error}.")),
    }
}

/// Writes to standard error which verb failed and why; returns the exit code.
pub fn fail(verb: &str, code: u8, sentence: &str) -> ExitCode {
    super::output::say(&format!("{verb}: {sentence}"));
    ExitCode::from(code)
}

/// An error of the client as a sentence for people.
pub fn sentence(error: &Error) -> String {
    let text = match error {
        Error::Refused { message, .. } => message.clone(),
        other => other.to_string(),
    };
    if text.ends_with('.') {
        text
    } else {
        format!("{text}.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_of_seconds_or_has_a_unit() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for refused in ["", "-1", "soon", "1 fortnight", "inf", "NaN"] {
            assert!(duration(refused).is_err(), "{refused}");
        }
    }
}
