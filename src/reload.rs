//! Reads the settings again on SIGHUP or when a file changes. What can change while the server runs takes
//! effect: keys, rate limit, trusted proxies, log level, certificate.
//!
//! All or nothing: if anything in the settings is not accepted, all settings in force stay.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::variables::VARIABLES;
use crate::config::{ConfigError, Settings, StoreKind, plain_key_variables};
use crate::http::policy::{Policy, SharedPolicy};
use crate::http::tls::Certificate;
use crate::logging;

/// Reads the settings again, from the same sources.
pub type ReadSettings = Box<dyn Fn() -> Result<Settings, ConfigError>>;

/// Variables that take effect without a restart, besides [`plain_key_variables`].
const RELOADED: [&str; 7] = [
    "API_KEY",
    "KEYS_FILE",
    "RATE_LIMIT_PER_SECOND",
    "TRUSTED_PROXIES",
    "RUST_LOG",
    "TLS_CERT_FILE",
    "TLS_KEY_FILE",
];

/// Files that are checked for changes at intervals: a tool that replaces keys and certificates cannot always send a
/// signal.
pub struct FileWatch(Vec<(PathBuf, Option<FileState>)>);

/// When a file was modified, its size, and its inode: they tell two versions of it apart, whether it was overwritten or
/// replaced.
type FileState = (Option<SystemTime>, u64, u64);

fn state(path: &Path) -> Option<FileState> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok(), metadata.len(), metadata.ino()))
}

impl FileWatch {
    pub fn new(paths: &[PathBuf]) -> FileWatch {
        let mut watch = FileWatch(Vec::new());
        watch.watch(paths);
        watch
    }

    /// Watches these files, also if they are others than before.
    fn watch(&mut self, paths: &[PathBuf]) {
        let known = std::mem::take(&mut self.0);
        let state_of = |path: &PathBuf| {
            let known = known.iter().find(|(known, _)| known == path);
            known.map_or_else(|| state(path), |(_, state)| *state)
        };
        self.0 = paths.iter().map(|p| (p.clone(), state_of(p))).collect();
    }

    /// Whether a file has changed since the last call. A missing file does not count: it is about to be replaced.
    pub fn changed(&mut self) -> bool {
        let mut changed = false;
        for (path, known) in &mut self.0 {
            let now = state(path);
            if now.is_some() && now != *known {
                *known = now;
                changed = true;
            }
        }
        changed
    }
}

/// What a reload needs, and what it replaces.
pub struct Reloader {
    /// The settings at the start, to find changes that need a restart.
    pub started_with: Settings,
    pub policy: SharedPolicy,
    /// `None`: plain HTTP.
    pub certificate: Option<Arc<Certificate>>,
    pub load: ReadSettings,
}

impl Reloader {
    /// Reads the settings again and applies them, and logs the outcome. `files` then watches the files that they
    /// name now.
    pub fn reload(&self, files: &mut FileWatch) {
        match (self.load)() {
            Ok(settings) => match self.apply(&settings) {
                Ok(()) => {
                    files.watch(&settings.origins.watched);
                    log::info!("settings reloaded");
                    for name in self.needs_restart(&settings) {
                        log::warn!("{name} was changed, which needs a restart to take effect");
                    }
                }
                Err(sentence) => refused(&sentence),
            },
            Err(error) => {
                for problem in &error.0 {
                    refused(problem);
                }
            }
        }
    }

    /// Divides the rate limit among so many instances that serve.
    pub fn share_limit(&self, instances: u32) {
        let policy = self.policy.load();
        if policy.instances != instances {
            self.policy.store(Arc::new(policy.shared_by(instances)));
        }
    }

    fn apply(&self, settings: &Settings) -> Result<(), String> {
        if let (Some(certificate), Some(files)) = (&self.certificate, &settings.http.tls) {
            certificate.replace(files)?;
        }
        let policy = Policy::new(settings, Some(&self.policy.load()));
        self.policy.store(Arc::new(policy));
        logging::set_filter(&settings.log_filter);
        Ok(())
    }

    fn needs_restart(&self, new: &Settings) -> Vec<&'static str> {
        let before = &self.started_with;
        let needs_it = |name: &&'static str| match *name {
            "MYSQL_PASSWORD" => password(before) != password(new),
            // A certificate can be replaced; TLS cannot be turned on or off.
            "TLS_CERT_FILE" => self.certificate.is_some() != new.http.tls.is_some(),
            _ if RELOADED.contains(name) || plain_key_variables().any(|key| key == *name) => false,
            _ => shown(before, name) != shown(new, name),
        };
        let names = VARIABLES.iter().map(|variable| variable.name);
        names.filter(needs_it).collect()
    }
}

fn refused(sentence: &str) {
    log::error!("settings not reloaded, those in force stay: {sentence}");
}

/// The value of a variable in a form that may be shown. `None`: it was not set.
fn shown<'a>(settings: &'a Settings, name: &str) -> Option<&'a str> {
    let mut set = settings.origins.set.iter();
    let set = set.find(|set| set.name == name)?;
    Some(&set.shown)
}

fn password(settings: &Settings) -> Option<&str> {
    match &settings.store {
        StoreKind::Mysql(options) => Some(&options.password),
        StoreKind::Sqlite { .. } | StoreKind::Memory => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_named_later_is_watched_too() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
        std::fs::write(&first, "1").unwrap();
        let mut files = FileWatch::new(std::slice::from_ref(&first));
        std::fs::write(&first, "one").unwrap();
        // The change of a file that stays is not forgotten.
        files.watch(&[second.clone(), first.clone()]);
        assert!(files.changed());
        assert!(!files.changed());
        std::fs::write(&second, "2").unwrap();
        assert!(files.changed());
        files.watch(std::slice::from_ref(&second));
        std::fs::write(&first, "another").unwrap();
        assert!(!files.changed());
    }
}
