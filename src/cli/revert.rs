//! `revert-to-php`: makes the database ready for the PHP server again.

use std::process::ExitCode;

use crate::cli::output::{print, say_failure};
use crate::config::{Settings, StoreKind};
use crate::store::StoreError;
use crate::store::mysql::{self, RevertReport};

/// Makes the changes if `yes`, else only prints what would be done. Exit code 1 if the PHP server cannot hold
/// everything, if an instance still runs, or if the database cannot be reached.
pub fn revert_to_php(settings: &Settings, yes: bool) -> ExitCode {
    let StoreKind::Mysql(options) = &settings.store else {
        return say_failure("revert-to-php works on MySQL: set MYSQL_HOST and STORE=mysql.");
    };
    let reverted = mysql::revert_to_php(options.clone(), !yes);
    let result = actix_rt::System::new().block_on(reverted);
    match result {
        Ok(report) => show(&report, yes),
        Err(error) => {
            let unchanged = matches!(error, StoreError::Standby | StoreError::Unusable(_));
            say_failure(&match unchanged || !yes {
                true => format!("Nothing was changed: {error}."),
                // The database may have gone before the first change.
                false => format!(
                    "Not finished: {error}. Run the command again: it goes on with what was begun, if \
                     anything was."
                ),
            })
        }
    }
}

fn show(report: &RevertReport, yes: bool) -> ExitCode {
    if !report.obstacles.is_empty() {
        let obstacles = report.obstacles.iter();
        let obstacles: String = obstacles.map(|o| format!("- {o}\n")).collect();
        print(&format!(
            "Nothing was changed. The PHP server cannot hold:\n{obstacles}"
        ));
        return ExitCode::FAILURE;
    }
    let RevertReport {
        resources,
        documents,
        leases,
        ..
    } = report;
    print(&if yes {
        format!(
            "The PHP server can take over: {resources} resources, {documents} documents; {leases} \
             leases were given up.\n"
        )
    } else {
        format!(
            "Nothing stands in the way: the PHP server would find {resources} resources and \
             {documents} documents; {leases} leases would be given up. Add --yes to do it.\n"
        )
    })
}
