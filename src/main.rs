//! The binary: settings, log, then the server until it is stopped.

use std::process::ExitCode;

use small_resource_server::app::App;
use small_resource_server::config::{EXIT_CONFIG, Settings};

fn main() -> ExitCode {
    let settings = match Settings::load() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(EXIT_CONFIG as u8);
        }
    };
    env_logger::Builder::new()
        .parse_filters(&settings.log_filter)
        .init();
    actix_rt::System::new().block_on(async move {
        match App::build(settings).await {
            Ok(app) => {
                log::info!("listening on http://{}", app.address());
                match app.run_until_stopped().await {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => {
                        log::error!("{error}");
                        ExitCode::FAILURE
                    }
                }
            }
            Err(error) => {
                log::error!("{error}");
                ExitCode::FAILURE
            }
        }
    })
}
