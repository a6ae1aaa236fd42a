//! `after-restore`: raises the fencing tokens above all that were granted since the backup.

use std::process::ExitCode;

use crate::app;
use crate::cli::output::{print, say_failure};
use crate::config::{Settings, StoreKind};
use crate::lock::FencingToken;
use crate::store::{StoreError, mysql};

/// How far the tokens are raised above the highest stored one if the operator names no number: more than any
/// name can have had grants since a backup.
const MARGIN: u64 = 1_000_000_000;

/// The largest number that `--above` takes. Each reader of JSON reads it exactly, and grants can still follow it.
pub const ABOVE_MAX: u64 = (1 << 53) - 1;

/// Raises the tokens above `above`, without it far above all that are stored. Exit code 1 if an instance still runs,
/// or the store cannot be reached or was never restored.
pub fn after_restore(settings: &Settings, above: Option<u64>) -> ExitCode {
    // To open the store would make the file, or the database, and the operator would believe that its tokens are
    // raised.
    match &settings.store {
        StoreKind::Memory => {
            return say_failure("STORE=memory keeps nothing that could be restored.");
        }
        StoreKind::Sqlite { path } if !path.exists() => {
            let path = path.display();
            return say_failure(&format!("There is no file {path} (SQLITE_PATH)."));
        }
        StoreKind::Sqlite { .. } | StoreKind::Mysql(_) => {}
    }
    let work = async {
        if let StoreKind::Mysql(options) = &settings.store {
            mysql::require_used(options).await?;
        }
        let store = app::store(settings, None);
        store.open_alone().await?;
        let stored = store.highest_token().await?;
        let above = above.map_or(stored.0.saturating_add(MARGIN), |above| above.max(stored.0));
        let raised = store.raise_tokens(FencingToken(above)).await;
        store.close().await;
        raised.map(|()| (stored, above))
    };
    match actix_rt::System::new().block_on(work) {
        Ok((stored, above)) => print(&format!(
            "The highest fencing token in the store was {stored}. Every fencing token from now on is above {above}.\n"
        )),
        Err(StoreError::Standby) => say_failure(
            "Nothing was changed: an instance uses the store; stop it, and wait until its lease is over.",
        ),
        Err(error) => say_failure(&format!("The tokens could not be raised: {error}.")),
    }
}
