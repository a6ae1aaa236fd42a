//! Where variables come from: which file is read, and that the environment wins over it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{dotenv, misspelt, variables};

/// Where the file is looked for, in this order, if `CONFIG_FILE` names none: the place of the original
/// server, then the working directory.
const DEFAULT_FILES: [&str; 2] = ["/etc/small-swoole-resource-server.conf", ".env"];

/// Largest file that is read. Settings, keys and certificates have a few pages; a larger file is some other one.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where a setting came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingOrigin {
    Environment,
    File,
    /// The file that `NAME_FILE` names.
    SecretFile,
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SettingOrigin::Environment => "environment",
            SettingOrigin::File => "file",
            SettingOrigin::SecretFile => "secret file",
        })
    }
}

/// Where each setting came from, for the start-up log.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// The variables that were set, and not to an empty value, in the order in which they were read: the name, the
    /// origin, and the value in quotes, or `(hidden)` for a secret. All others have their defaults.
    pub set: Vec<(&'static str, SettingOrigin, String)>,
    /// Things that look wrong but are no errors, one sentence each.
    pub warnings: Vec<String>,
    /// The file of settings and the files that settings name. When one of them changes, the settings are read
    /// again.
    pub watched: Vec<PathBuf>,
}

/// The sources of variables, and what reading them has found so far: origins and problems. The methods that
/// read one variable are in [`parse`](super::parse).
#[derive(Debug, Default)]
pub(super) struct Reader {
    variables: BTreeMap<String, (SettingOrigin, String)>,
    pub origins: Origins,
    /// Before any variable is read: the line of the file that was not understood, and values that are not UTF-8.
    pub problems: Vec<String>,
}

impl Reader {
    /// `file` is the path of the file, for messages, and its text.
    pub fn new(
        environment: impl IntoIterator<Item = (String, String)>,
        file: Option<(PathBuf, String)>,
    ) -> Reader {
        let mut reader = Reader::default();
        if let Some((path, text)) = file {
            match dotenv::parse(&text) {
                Ok(pairs) => {
                    for (name, value) in pairs {
                        let set = (SettingOrigin::File, value);
                        reader.variables.insert(name, set);
                    }
                }
                Err(line) => reader.problems.push(format!(
                    "Line {line} of {} cannot be read; accepted are NAME=value, NAME='value' where the value has spaces, quotes, $ or #, a comment that begins with #, or a blank line.",
                    path.display(),
                )),
            }
            reader.origins.watched.push(path.clone());
            reader.origins.file = Some(path);
        }
        if reader.variables.contains_key(variables::CONFIG_FILE) {
            let warning = "CONFIG_FILE is read from the environment only.";
            reader.origins.warnings.push(warning.to_owned());
        }
        // The environment wins, even with an empty value, which unsets the value of the file.
        for (name, value) in environment {
            let set = (SettingOrigin::Environment, value);
            reader.variables.insert(name, set);
        }
        reader.warn_of_misspelt_names();
        reader
    }

    /// The process environment, and the file: `named` if given, else the one of `CONFIG_FILE`, else the
    /// first of the default places that exists.
    pub fn of_process(named: Option<PathBuf>) -> Result<Reader, String> {
        let (environment, problems) = utf8_only(std::env::vars_os());
        let is_set =
            |(name, value): &&(String, String)| name == variables::CONFIG_FILE && !value.is_empty();
        let of_environment = environment.iter().find(is_set);
        let named = named.or_else(|| of_environment.map(|(_, value)| PathBuf::from(value)));
        let places = DEFAULT_FILES.map(Path::new);
        let file = find_and_read(named, &places)?;
        let mut reader = Reader::new(environment, file);
        reader.problems.extend(problems);
        Ok(reader)
    }

    /// The value and its origin.
    pub fn get(&self, name: &str) -> Option<(SettingOrigin, &str)> {
        let (origin, value) = self.variables.get(name)?;
        Some((*origin, value))
    }

    /// The origin of a value, in words.
    pub fn place(&self, origin: SettingOrigin) -> String {
        match (origin, &self.origins.file) {
            (SettingOrigin::File, Some(path)) => path.display().to_string(),
            (SettingOrigin::SecretFile, _) => "its secret file".to_owned(),
            (SettingOrigin::Environment | SettingOrigin::File, _) => "the environment".to_owned(),
        }
    }

    fn warn_of_misspelt_names(&mut self) {
        for (name, (origin, _)) in &self.variables {
            let Some(meant) = misspelt::meant(name) else {
                continue;
            };
            let place = self.place(*origin);
            let hint = match name.ends_with("_FILE") && !meant.ends_with("_FILE") {
                true => " Only a secret can be in a file of its own.",
                false => "",
            };
            self.origins.warnings.push(format!(
                "{name} in {place} is not a setting and is ignored; did you mean {meant}?{hint}"
            ));
        }
    }
}

/// The text of a file that holds one secret, without the byte order mark and the line end that editors add.
///
/// # Errors
/// Why it cannot be read, or that it is empty: a file that is overwritten in place is empty for a moment, and that must
/// not turn a key off.
pub fn secret_in(path: &Path) -> Result<String, String> {
    let text = read_text(path).map_err(|error| error.to_string())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    let text = text.strip_suffix('\n').unwrap_or(text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// Leaves out variables that are not UTF-8. That is a problem only if the variable is a setting; others do not
/// concern us.
fn utf8_only(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> (Vec<(String, String)>, Vec<String>) {
    let mut pairs = Vec::new();
    let mut problems = Vec::new();
    for (name, value) in environment {
        let Ok(name) = name.into_string() else {
            continue;
        };
        match value.into_string() {
            Ok(value) => pairs.push((name, value)),
            Err(_) if variables::find(&name).is_some() => problems.push(format!(
                "{name} in the environment is not UTF-8; accepted is UTF-8 text."
            )),
            Err(_) => {}
        }
    }
    (pairs, problems)
}

/// The path and the text of the file to read. A file that was asked for must be readable, and so must one
/// that exists in a default place: to start without its settings would be worse than not to start.
fn find_and_read(
    named: Option<PathBuf>,
    places: &[&Path],
) -> Result<Option<(PathBuf, String)>, String> {
    let found = named.or_else(|| {
        let there = places.iter().find(|place| place.exists())?;
        Some(there.to_path_buf())
    });
    let Some(path) = found else {
        return Ok(None);
    };
    match read_text(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(reason) => Err(format!(
            "The configuration file {} cannot be read: {reason}; accepted is a readable text file (CONFIG_FILE or --config names it).",
            path.display()
        )),
    }
}

pub(super) fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_bytes(path)?).map_err(|_| io::Error::other("it is not UTF-8 text"))
}

/// The whole file. Every file that the settings name is read by this, because one without an end (`/dev/zero`) would
/// be read for ever.
pub(super) fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn a_file_that_is_huge_or_no_text_file_is_a_problem() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (bytes, reason) in [
            (vec![b'#'; FILE_BYTES_MAX as usize + 1], "larger than 1 MiB"),
            (b"A=\xff".to_vec(), "not UTF-8"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let problem = find_and_read(Some(path.clone()), &[]).unwrap_err();
            assert!(problem.contains(reason), "{problem}");
        }
        // A container runtime makes a folder if the source of a mount does not exist.
        let problem = find_and_read(None, &[folder.path()]).unwrap_err();
        assert!(problem.contains("cannot be read"), "{problem}");
    }

    #[test]
    fn values_that_are_not_utf8_matter_only_in_our_variables() {
        let bad = || OsString::from_vec(vec![b'x', 0xff]);
        let (pairs, problems) = utf8_only([
            ("HTTP_PORT".into(), bad()),
            ("OTHER".into(), bad()),
            (bad(), "x".into()),
            ("STORE".into(), "memory".into()),
        ]);
        assert_eq!(pairs, [("STORE".to_owned(), "memory".to_owned())]);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("HTTP_PORT "), "{problems:?}");
    }
}
