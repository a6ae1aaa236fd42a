//! The lines for the start-up log and for `check-config`.

use super::variables::VARIABLES;
use super::{Settings, StoreKind};

impl Settings {
    /// Which file was read.
    pub fn file_line(&self) -> String {
        match &self.origins.file {
            Some(path) => format!("settings file: {}", path.display()),
            None => "settings file: none".to_owned(),
        }
    }

    /// Where state is kept.
    pub fn store_line(&self) -> String {
        format!("store: {}", self.store_in_words())
    }

    /// Those two, what follows from the settings, then each variable that was set, and where it came from. Never a
    /// secret.
    pub fn summary(&self) -> Vec<String> {
        let compatibility = match self.server.compatibility {
            Some(profile) => format!("compatibility: {}", profile.name()),
            None => "compatibility: not set, the database decides".to_owned(),
        };
        let mut lines = vec![
            self.file_line(),
            self.store_line(),
            format!("listen: {}", self.listen_in_words()),
            compatibility,
        ];
        let set = self.origins.set.iter();
        lines.extend(set.map(|set| format!("{}={} ({})", set.name, set.shown, set.origin)));
        lines
    }

    /// Everything: what was not set with its default, and what is odd.
    pub fn summary_with_defaults(&self) -> String {
        let set = &self.origins.set;
        let unset = VARIABLES
            .iter()
            .filter(|variable| set.iter().all(|set| set.name != variable.name));
        let defaults = unset.map(|variable| match variable.default {
            "" => format!("{} is not set", variable.name),
            default => format!("{}: {default} (default)", variable.name),
        });
        let warnings = self.origins.warnings.iter();
        let warnings = warnings.map(|warning| format!("warning: {warning}"));
        let lines = self.summary().into_iter().chain(defaults).chain(warnings);
        lines.map(|line| line + "\n").collect()
    }

    fn store_in_words(&self) -> String {
        match &self.store {
            StoreKind::Mysql(mysql) => format!(
                "mysql, database {:?} on {}, port {}",
                mysql.database, mysql.host, mysql.port
            ),
            StoreKind::Sqlite { path } => format!("sqlite, file {}", path.display()),
            StoreKind::Memory => "memory, nothing outlives the process".to_owned(),
        }
    }

    fn listen_in_words(&self) -> String {
        let scheme = if self.http.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let address = std::net::SocketAddr::new(self.http.host, self.http.port);
        format!("{scheme}://{address}")
    }
}
