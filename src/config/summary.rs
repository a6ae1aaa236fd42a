//! The lines for the start-up log and for `check-config`.

use std::fmt;

use super::variables::VARIABLES;
use super::{Settings, StoreKind};

/// What was set, where it came from and what is odd about it. Never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Which file was read.
    pub file: String,
    /// Where state is kept.
    pub store: String,
    /// These two, what follows from the settings, then each variable that was set.
    pub lines: Vec<String>,
    /// Worth a warning each.
    pub warnings: Vec<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}

impl Summary {
    /// Everything, what was not set with its default.
    pub fn with_defaults(&self) -> String {
        let is_set = |name: &str| {
            let begin = format!("{name}=");
            self.lines.iter().any(|line| line.starts_with(&begin))
        };
        let unset = VARIABLES.iter().filter(|variable| !is_set(variable.name));
        let defaults = unset.map(|variable| match variable.default {
            "" => format!("{} is not set\n", variable.name),
            default => format!("{}: {default} (default)\n", variable.name),
        });
        let defaults: String = defaults.collect();
        let warnings = self
            .warnings
            .iter()
            .map(|warning| format!("warning: {warning}\n"));
        let lines: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
        lines + &defaults + &warnings.collect::<String>()
    }
}

impl Settings {
    pub fn summary(&self) -> Summary {
        let file = match &self.origins.file {
            Some(path) => format!("settings file: {}", path.display()),
            None => "settings file: none".to_owned(),
        };
        let store = format!("store: {}", self.store_in_words());
        let mut lines = vec![
            file.clone(),
            store.clone(),
            format!("listen: {}", self.listen_in_words()),
            match self.lock.compatibility {
                Some(profile) => format!("compatibility: {}", profile.name()),
                None => "compatibility: not set, the database decides".to_owned(),
            },
        ];
        lines.extend(
            self.origins
                .set
                .iter()
                .map(|set| format!("{}={} ({})", set.name, set.shown, set.origin)),
        );
        Summary {
            file,
            store,
            lines,
            warnings: self.origins.warnings.clone(),
        }
    }

    fn store_in_words(&self) -> String {
        match &self.store.kind {
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
