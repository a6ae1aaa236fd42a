//! `after-restore`: fencing tokens go on above all that were given out since the backup.

use std::process::ExitCode;

use crate::app;
use crate::config::Settings;
use crate::lock::FencingToken;
use crate::store::StoreError;

/// How far above the highest token that is stored, unless the operator says otherwise: more grants than any
/// name can have had since a backup.
const MARGIN: u64 = 1_000_000_000;

/// Raises the tokens above `above`, or far above all that are stored. Exit code 1 when an instance still runs
/// or the store cannot be reached.
pub fn after_restore(settings: &Settings, above: Option<u64>) -> ExitCode {
    let work = async {
        let store = app::store(settings, None);
        store.open_alone().await?;
        let stored = store.highest_token().await?;
        let above = above.map_or(stored.0.saturating_add(MARGIN), |above| above.max(stored.0));
        let raised = store.raise_tokens(FencingToken(above)).await;
        store.close().await;
        raised.map(|()| above)
    };
    match actix_rt::System::new().block_on(work) {
        Ok(above) => {
            println!("Every fencing token from now on is above {above}.");
            ExitCode::SUCCESS
        }
        Err(StoreError::Standby) => {
            eprintln!(
                "Nothing was changed: an instance serves from the store; stop it, and wait for its lease."
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("It is not done: {error}.");
            ExitCode::FAILURE
        }
    }
}
