//! The lines for the start-up log and for `check-config`.

use std::net::SocketAddr;

use super::variables::VARIABLES;
use super::{Settings, StoreKind};

impl Settings {
    /// The line that names the file that was read.
    pub fn file_line(&self) -> String {
        match &self.origins.file {
            Some(path) => format!("settings file: {}", path.display()),
            None => "settings file: none".to_owned(),
        }
    }

    /// The line that names the store.
    pub fn store_line(&self) -> String {
        match &self.store {
            StoreKind::Mysql(mysql) => format!(
                "store: mysql, database {:?} on {}, port {}",
                mysql.database, mysql.host, mysql.port
            ),
            StoreKind::Sqlite { path } => format!("store: sqlite, file {}", path.display()),
            StoreKind::Memory => "store: memory, nothing outlives the process".to_owned(),
        }
    }

    /// File, store, address and compatibility, then each variable that was set and where it came from. Secrets
    /// are hidden.
    pub fn summary(&self) -> Vec<String> {
        let compatibility = match self.server.compatibility {
            Some(profile) => format!("compatibility: {}", profile.name()),
            None => "compatibility: not set, the database decides".to_owned(),
        };
        let address = SocketAddr::new(self.http.host, self.http.port);
        let mut lines = vec![
            self.file_line(),
            self.store_line(),
            format!("listen: {}://{address}", self.http.scheme()),
            compatibility,
        ];
        let set = self.origins.set.iter();
        lines.extend(set.map(|(name, origin, shown)| format!("{name}={shown} ({origin})")));
        lines
    }

    /// [`Settings::summary`], then each variable that was not set with its default, then the warnings.
    pub fn summary_with_defaults(&self) -> String {
        let set = &self.origins.set;
        let unset = VARIABLES
            .iter()
            .filter(|variable| set.iter().all(|(name, ..)| *name != variable.name));
        let defaults = unset.map(|variable| match variable.default {
            "" => format!("{} is not set", variable.name),
            default => format!("{}: {default} (default)", variable.name),
        });
        let warnings = self.origins.warnings.iter();
        let warnings = warnings.map(|warning| format!("warning: {warning}"));
        let lines = self.summary().into_iter().chain(defaults).chain(warnings);
        lines.map(|line| line + "\n").collect()
    }
}
