//! Keys, and the right of each. A key for all names has a variable; a key in `KEYS_FILE` is for names that
//! begin with its prefixes. The file holds hashes, no key in clear.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};
use smol_str::SmolStr;
use toml::value::Datetime;

use super::Secret;
use super::parse::shown;
use super::sources::{self, Reader};

const DAY: Duration = Duration::from_secs(86_400);

/// What a key allows; each right includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    Read,
    #[serde(rename = "read_lock")]
    Lock,
    Write,
    Admin,
}

impl Right {
    /// The name, in log lines and events, of the key for all names with this right; it comes from the key's
    /// variable.
    pub fn key_name(self) -> &'static str {
        match self {
            Right::Read => "read",
            Right::Lock => "read_lock",
            Right::Write => "write",
            Right::Admin => "admin",
        }
    }

    /// The name of the right in error sentences.
    pub fn name(self) -> &'static str {
        match self {
            Right::Read => "READ",
            Right::Lock => "LOCK",
            Right::Write => "WRITE",
            Right::Admin => "ADMIN",
        }
    }
}

/// One entry of `KEYS_FILE`. If several entries have the same key, it has the rights of all of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopedKey {
    /// Name of the key in log lines and events.
    #[serde(deserialize_with = "name")]
    pub name: SmolStr,
    /// SHA-256 of the key.
    #[serde(deserialize_with = "digest")]
    pub sha256: [u8; 32],
    #[serde(rename = "rights")]
    pub right: Right,
    /// The key is for names that begin with one of these, byte for byte. An empty prefix matches every name.
    #[serde(deserialize_with = "prefixes")]
    pub prefixes: Vec<String>,
    /// From this moment on the key is not accepted: the end, in UTC, of the day in the file.
    #[serde(default, deserialize_with = "end_of_day")]
    pub expires: Option<SystemTime>,
}

/// The keys that are accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// The keys for all names, none of them empty: `API_KEY` alone, or one for each right. READ, LOCK and WRITE have
    /// theirs.
    pub current: Vec<(Right, Secret)>,
    /// The keys of `*_PREVIOUS` variables, which are being replaced.
    pub previous: Vec<(Right, Secret)>,
    /// The entries of `KEYS_FILE`.
    pub scoped: Vec<Arc<ScopedKey>>,
}

/// For each right the variable of the key for all names, and that of the key which it replaces. Besides them there is
/// `API_KEY`.
const PLAIN_KEYS: [(Right, &str, &str); 4] = [
    (Right::Read, "RESOURCE_READ", "RESOURCE_READ_PREVIOUS"),
    (
        Right::Lock,
        "RESOURCE_READ_LOCK",
        "RESOURCE_READ_LOCK_PREVIOUS",
    ),
    (Right::Write, "RESOURCE_WRITE", "RESOURCE_WRITE_PREVIOUS"),
    (Right::Admin, "RESOURCE_ADMIN", "RESOURCE_ADMIN_PREVIOUS"),
];

/// The variables of the keys for all names, besides `API_KEY`.
pub fn plain_key_variables() -> impl Iterator<Item = &'static str> {
    let pairs = PLAIN_KEYS.into_iter();
    pairs.flat_map(|(_, name, name_previous)| [name, name_previous])
}

impl Keys {
    /// The keys for all names, the current ones first.
    pub fn plain(&self) -> impl Iterator<Item = &(Right, Secret)> {
        self.current.iter().chain(&self.previous)
    }
}

/// Reads all keys and reports what is wrong with them.
pub(super) fn read(reader: &mut Reader) -> Keys {
    let mut keys = Keys {
        scoped: scoped_keys(reader),
        ..Keys::default()
    };
    match reader.key("API_KEY") {
        Some(key) => {
            refuse_beside_api_key(reader);
            keys.current.push((Right::Write, key));
        }
        None => plain_keys(reader, &mut keys),
    }
    refuse_one_key_twice(reader, &keys);
    warn_of_known_keys(reader, &keys);
    keys
}

fn refuse_beside_api_key(reader: &mut Reader) {
    // `password` accepts any value: here it only matters whether there is one.
    let beside = plain_key_variables().find(|name| reader.password(name).expose() != "");
    if let Some(beside) = beside {
        let sentence = format!(
            "API_KEY and {beside} are both set; accepted is API_KEY alone, which reads, locks and writes, or a key for each right without API_KEY."
        );
        reader.problems.push(sentence);
    }
}

/// A key for all names has no entry in `KEYS_FILE` beside it, so that its rights are told in one place.
fn refuse_one_key_twice(reader: &mut Reader, keys: &Keys) {
    for (right, key) in keys.plain() {
        let digest: [u8; 32] = Sha256::digest(key.expose()).into();
        for entry in keys.scoped.iter().filter(|e| e.sha256 == digest) {
            let sentence = format!(
                "KEYS_FILE has the {} key, which is for all names, as {:?}; accepted in KEYS_FILE are keys that no RESOURCE_* variable has, nor API_KEY.",
                right.key_name(),
                entry.name
            );
            reader.problems.push(sentence);
        }
    }
}

/// Warns of keys that are in the published example files.
fn warn_of_known_keys(reader: &mut Reader, keys: &Keys) {
    let known = |(_, key): &(Right, Secret)| {
        let key = key.expose();
        key.contains("change-me") || key.starts_with("development-")
    };
    if keys.plain().any(known) {
        let warning = "A key is one of those in the example files, which everybody knows; make others with `openssl rand -hex 32`.";
        reader.origins.warnings.push(warning.to_owned());
    }
}

fn scoped_keys(reader: &mut Reader) -> Vec<Arc<ScopedKey>> {
    let Some(path) = reader.text("KEYS_FILE").map(PathBuf::from) else {
        return Vec::new();
    };
    let keys = read_file(&path);
    let shown = shown(&path.to_string_lossy());
    reader.origins.watched.push(path);
    keys.unwrap_or_else(|why| {
        reader.problems.push(format!("KEYS_FILE names {shown}, which is not accepted ({why}); accepted is a TOML file of [[key]] entries with name, sha256, rights, prefixes and, if wanted, expires."));
        Vec::new()
    })
}

/// Reads the keys of all rights, and their `*_PREVIOUS` keys.
fn plain_keys(reader: &mut Reader, keys: &mut Keys) {
    for (right, name, name_previous) in PLAIN_KEYS {
        let problems_before = reader.problems.len();
        let current = reader.key(name);
        let is_missing = current.is_none() && reader.problems.len() == problems_before;
        if is_missing && right != Right::Admin {
            let sentence = format!(
                "{name} is missing or empty; accepted is the key that clients send in x-api-key, such as `openssl rand -hex 32` makes (or API_KEY, one key in the place of all)."
            );
            reader.problems.push(sentence);
        }
        let previous = reader.key(name_previous);
        if right == Right::Admin && is_missing && previous.is_some() {
            let sentence = "RESOURCE_ADMIN_PREVIOUS is set and RESOURCE_ADMIN is not; accepted are both, RESOURCE_ADMIN alone, or neither.";
            reader.problems.push(sentence.to_owned());
        }
        keys.current.extend(current.map(|key| (right, key)));
        keys.previous.extend(previous.map(|key| (right, key)));
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    #[serde(default)]
    key: Vec<Arc<ScopedKey>>,
}

/// The SHA-256 of a key in hexadecimal digits, as `KEYS_FILE` has it.
pub fn key_hash(key: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(key).into();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// # Errors
/// A sentence. It has no value of the file: that may be a key in the wrong place.
fn read_file(path: &Path) -> Result<Vec<Arc<ScopedKey>>, String> {
    parse(&sources::read_text(path).map_err(|error| error.to_string())?)
}

fn parse(text: &str) -> Result<Vec<Arc<ScopedKey>>, String> {
    let file: KeysFile = toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or_else(String::new, |before| {
            format!("line {}: ", before.matches('\n').count() + 1)
        });
        line + &without_value(error.message())
    })?;
    if file.key.is_empty() {
        // A file that is rewritten in place is empty for a moment; that must not revoke every key in it.
        return Err("it has no [[key]] entry; for no keys, leave KEYS_FILE unset".to_owned());
    }
    Ok(file.key)
}

/// The message of the parser, without the value that it is about.
fn without_value(message: &str) -> String {
    let has_value = message.starts_with("invalid ") || message.starts_with("unknown variant ");
    match message.rsplit_once(", expected ") {
        _ if !has_value => message.to_owned(),
        Some((_, expected)) => format!("this value is not accepted; accepted is {expected}"),
        None => "this value is not accepted".to_owned(),
    }
}

fn name<'de, D: Deserializer<'de>>(value: D) -> Result<SmolStr, D::Error> {
    let name = SmolStr::deserialize(value)?;
    let is_visible = name.bytes().all(|byte| byte.is_ascii_graphic());
    let fits = (1..=64).contains(&name.len()) && is_visible;
    fits.then_some(name)
        .ok_or_else(|| D::Error::custom("name takes 1 to 64 visible ASCII characters"))
}

fn digest<'de, D: Deserializer<'de>>(value: D) -> Result<[u8; 32], D::Error> {
    let text = String::deserialize(value)?;
    let refused =
        || D::Error::custom("sha256 takes the 64 hexadecimal digits that hash-key prints");
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(refused());
    }
    let mut digest = [0; 32];
    for (n, byte) in digest.iter_mut().enumerate() {
        let digits = &text[2 * n..2 * n + 2];
        *byte = u8::from_str_radix(digits, 16).map_err(|_| refused())?;
    }
    Ok(digest)
}

fn prefixes<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<String>, D::Error> {
    let prefixes = Vec::deserialize(value)?;
    let fits = !prefixes.is_empty();
    fits.then_some(prefixes)
        .ok_or_else(|| D::Error::custom("prefixes is empty; [\"\"] stands for all names"))
}

/// The end of this day in UTC: a key is still accepted on the day on which it expires.
fn end_of_day<'de, D: Deserializer<'de>>(value: D) -> Result<Option<SystemTime>, D::Error> {
    let refused = || D::Error::custom("expires takes a date such as 2027-01-31");
    let date = Datetime::deserialize(value)?;
    let (Some(_), None) = (date.date, date.time) else {
        return Err(refused());
    };
    let begins = humantime::parse_rfc3339(&format!("{date}T00:00:00Z"));
    begins
        .map(|begins| Some(begins + DAY))
        .map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(more: &str) -> String {
        let hash = key_hash("secret");
        format!("[[key]]\nname = \"billing\"\nsha256 = \"{hash}\"\n{more}")
    }

    #[test]
    fn an_entry_has_a_name_a_hash_a_right_prefixes_and_a_last_day() {
        let text =
            entry("rights = \"read_lock\"\nprefixes = [\"billing:\"]\nexpires = 2027-01-31\n");
        let [key] = &parse(&text).unwrap()[..] else {
            panic!("one entry");
        };
        assert_eq!((key.name.as_str(), key.right), ("billing", Right::Lock));
        assert_eq!(key.prefixes, ["billing:"]);
        let after = humantime::parse_rfc3339("2027-02-01T00:00:00Z").unwrap();
        assert_eq!(key.expires, Some(after));
    }

    #[test]
    fn a_key_for_all_names_has_no_entry_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.toml");
        let text = entry("rights = \"write\"\nprefixes = [\"w:\"]\n");
        std::fs::write(&file, text).unwrap();
        let problems = |key: &str| {
            let pairs = [("KEYS_FILE", file.to_str().unwrap()), ("API_KEY", key)];
            let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
            crate::config::Settings::from_pairs(pairs, None).err()
        };
        assert!(problems("secret").unwrap().contains("\"billing\""));
        assert_eq!(problems("another-key"), None);
    }

    #[test]
    fn a_key_in_the_wrong_place_is_not_shown() {
        for line in [
            "rights = \"clear-key\"",
            "rights = \"clear\\u002dkey\"",
            "rights = \"\"\"\nclear-key\"\"\"",
            "rights = \"read\"\nprefixes = \"clear-key\"",
        ] {
            let refused = parse(&entry(line)).unwrap_err();
            assert!(!refused.contains("clear-key"), "{refused}");
            assert!(refused.contains("line "), "{refused}");
        }
    }

    #[test]
    fn what_is_not_accepted_is_named() {
        for (more, part) in [
            (
                "rights = \"all\"\nprefixes = [\"\"]",
                "line 4: this value is not accepted; accepted is one of `read`",
            ),
            (
                "rights = \"read\"\nprefixes = []",
                "line 5: prefixes is empty",
            ),
            (
                "rights = \"read\"\nprefixes = \"all\"",
                "line 5: this value is not accepted; accepted is a sequence",
            ),
            ("rights = \"read\"", "line 1: missing field `prefixes`"),
            (
                "rights = \"read\"\nprefixes = [\"\"]\nkey = \"x\"",
                "line 6: unknown field `key`",
            ),
            (
                "rights = \"read\"\nprefixes = [\"\"]\nexpires = 10:00:00",
                "line 6: expires takes a date such as 2027-01-31",
            ),
        ] {
            let error = parse(&entry(more)).unwrap_err();
            assert!(error.contains(part), "{more}: {error}");
        }
        let with = |sound: &str, broken: &str| {
            let text = entry("rights = \"read\"\nprefixes = [\"\"]");
            parse(&text.replace(sound, broken)).unwrap_err()
        };
        let refused = with(&key_hash("secret"), "ab");
        assert!(refused.contains("line 3: sha256 takes the 64 hexadecimal digits"));
        let refused = with("billing", "a b");
        assert!(refused.contains("line 2: name takes 1 to 64 visible ASCII characters"));
    }
}
