//! The binary: reads the command line, then the settings if the command needs them, and runs the command.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use small_resource_server::app::{App, catch_signals};
use small_resource_server::cli::{self, CliCommand};
use small_resource_server::config::{EXIT_CONFIG, Settings};
use small_resource_server::logging;
use small_resource_server::reload::ReadSettings;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long to wait at the end until the last log lines are written.
const LAST_LINES: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let line = cli::parse();
    let command = line.chosen_command();
    // Read only when needed: commands such as `openapi` or `lock` must work without settings of a server.
    let settings = || line.settings();
    match command {
        CliCommand::Openapi => cli::openapi(),
        CliCommand::HashKey => cli::hash_key(),
        CliCommand::Lock(args) => cli::lock(&args),
        CliCommand::Verb(verb) => verb.run(),
        CliCommand::GuardedCommand { command } => cli::become_command(&command),
        CliCommand::GuardProcess { socket } => cli::watch_over(&socket),
        CliCommand::Healthcheck => with(settings(), cli::healthcheck),
        CliCommand::CheckConfig => with(settings(), cli::check_config),
        CliCommand::AfterRestore { above } => with(settings(), |s| cli::after_restore(s, above)),
        CliCommand::RevertToPhp { yes } => with(settings(), |s| cli::revert_to_php(s, yes)),
        CliCommand::Serve => {
            let settings = settings();
            let load = Box::new(move || line.settings());
            with(settings, |settings| serve(settings.clone(), load))
        }
    }
}

fn with(settings: Result<Settings, String>, act: impl FnOnce(&Settings) -> ExitCode) -> ExitCode {
    match settings {
        Ok(settings) => act(&settings),
        Err(problems) => cli::refuse(&problems),
    }
}

fn serve(settings: Settings, load: ReadSettings) -> ExitCode {
    if let Err(error) = logging::start(&settings.log_filter) {
        // If standard error is closed, there is nowhere to report it.
        let _ = writeln!(std::io::stderr(), "cannot start the log: {error}");
        return ExitCode::FAILURE;
    }
    let result = actix_rt::System::new().block_on(async move {
        let signals = catch_signals()?;
        let app = App::build(settings).await?;
        app.run_until_stopped(signals, load).await
    });
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::end_with(&error.to_string());
            // Lasting: a server that is started again would fail in the same way.
            let lasting = error.is_lasting().then_some(EXIT_CONFIG);
            lasting.map_or(ExitCode::FAILURE, ExitCode::from)
        }
    };
    logging::finish(LAST_LINES);
    code
}
