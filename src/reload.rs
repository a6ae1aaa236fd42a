//! Reads the settings again on SIGHUP or when a file changes. What can change while the server runs takes
//! effect: keys, rate limit, trusted proxies, log level, certificate.
//!
//! All or nothing: if anything in the settings is not accepted, all settings in force stay.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::variables::VARIABLES;
use crate::config::{Settings, StoreKind, plain_key_variables};
use crate::http::policy::{Policy, SharedPolicy};
use crate::http::tls::Certificate;
use crate::logging;

/// Reads the settings again, from the same sources.
pub type ReadSettings = Box<dyn Fn() -> Result<Settings, String>>;

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

/// When a file was modified, its size, and its inode: they tell two versions of it apart, whether it was overwritten or
/// replaced. `None`: it is missing.
type FileState = Option<(Option<SystemTime>, u64, u64)>;

fn state(path: &Path) -> FileState {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok(), metadata.len(), metadata.ino()))
}

/// These files with their states; of those that are `known` already, the state that is known.
fn watched(paths: &[PathBuf], known: &[(PathBuf, FileState)]) -> Vec<(PathBuf, FileState)> {
    let state_of = |path: &PathBuf| {
        let known = known.iter().find(|(known, _)| known == path);
        known.map_or_else(|| state(path), |(_, state)| *state)
    };
    paths.iter().map(|p| (p.clone(), state_of(p))).collect()
}

/// Whether a file has changed since the last call. A missing file does not count: it is about to be replaced.
fn have_changed(files: &mut [(PathBuf, FileState)]) -> bool {
    let mut changed = false;
    for (path, known) in files {
        let now = state(path);
        if now.is_some() && now != *known {
            *known = now;
            changed = true;
        }
    }
    changed
}

/// What a reload needs, and what it replaces.
pub struct Reloader {
    /// The settings at the start, to find changes that need a restart.
    started_with: Settings,
    policy: SharedPolicy,
    /// `None`: plain HTTP.
    certificate: Option<Arc<Certificate>>,
    load: ReadSettings,
    /// The files that the settings name. They are checked for changes at intervals: a tool that replaces keys and
    /// certificates cannot always send a signal.
    files: Vec<(PathBuf, FileState)>,
}

impl Reloader {
    pub fn new(
        settings: &Settings,
        policy: SharedPolicy,
        certificate: Option<Arc<Certificate>>,
        load: ReadSettings,
    ) -> Reloader {
        Reloader {
            started_with: settings.clone(),
            policy,
            certificate,
            load,
            files: watched(&settings.origins.watched, &[]),
        }
    }

    /// Reads the settings again if a file that they name has changed.
    pub fn reload_if_changed(&mut self) {
        if have_changed(&mut self.files) {
            log::info!("a file of settings, keys or certificates has changed");
            self.reload();
        }
    }

    /// Reads the settings again and applies them, and logs the outcome. From then on the files that they name now are
    /// checked.
    pub fn reload(&mut self) {
        match (self.load)() {
            Ok(settings) => {
                self.apply(&settings);
                self.files = watched(&settings.origins.watched, &self.files);
                log::info!("settings reloaded");
                for name in self.needs_restart(&settings) {
                    log::warn!("{name} was changed, which needs a restart to take effect");
                }
            }
            Err(problems) => {
                for problem in problems.lines() {
                    log::error!("settings not reloaded, those in force stay: {problem}");
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

    fn apply(&self, settings: &Settings) {
        if let (Some(certificate), Some(read)) = (&self.certificate, &settings.http.tls) {
            certificate.replace(read);
        }
        let policy = Policy::new(settings, Some(&self.policy.load()));
        self.policy.store(Arc::new(policy));
        logging::set_filter(&settings.log_filter);
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

/// The value of a variable in a form that may be shown. `None`: it was not set.
fn shown<'a>(settings: &'a Settings, name: &str) -> Option<&'a str> {
    let mut set = settings.origins.set.iter();
    let (_, _, shown) = set.find(|(set, ..)| *set == name)?;
    Some(shown)
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
        let mut files = watched(std::slice::from_ref(&first), &[]);
        std::fs::write(&first, "one").unwrap();
        // The change of a file that stays is not forgotten.
        files = watched(&[second.clone(), first.clone()], &files);
        assert!(have_changed(&mut files));
        assert!(!have_changed(&mut files));
        std::fs::write(&second, "2").unwrap();
        assert!(have_changed(&mut files));
        files = watched(std::slice::from_ref(&second), &files);
        std::fs::write(&first, "another").unwrap();
        assert!(!have_changed(&mut files));
    }
}
