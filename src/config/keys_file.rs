//! The keys in `KEYS_FILE`, each for names that begin with its prefixes. The file holds no key in clear.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use toml::value::Datetime;

use super::{Right, ScopedKey, sources};

const DAY: Duration = Duration::from_secs(86_400);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    #[serde(default)]
    key: Vec<KeyEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    name: String,
    sha256: String,
    rights: Right,
    prefixes: Vec<String>,
    expires: Option<Datetime>,
}

/// What stands in the file for a key, in hexadecimal digits.
pub fn key_hash(key: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(key).into();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// # Errors
/// What is wrong, in words; where it is one entry, which. No text of the file.
pub(super) fn read(path: &Path) -> Result<Vec<ScopedKey>, String> {
    parse(&sources::read_text(path).map_err(|error| error.to_string())?)
}

fn parse(text: &str) -> Result<Vec<ScopedKey>, String> {
    let file: KeysFile = toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .map(|span| text[..span.start].lines().count().max(1));
        let line = line.map_or_else(String::new, |line| format!("line {line}: "));
        format!("{line}{}", error.message())
    })?;
    let entries = file.key.into_iter().enumerate();
    let keys = entries.map(|(n, entry)| {
        let name = entry.name.clone();
        scoped(entry).map_err(|why| format!("entry {} ({name:?}): {why}", n + 1))
    });
    keys.collect()
}

fn scoped(entry: KeyEntry) -> Result<ScopedKey, String> {
    let visible = |name: &str| name.bytes().all(|byte| byte.is_ascii_graphic());
    if !(1..=64).contains(&entry.name.len()) || !visible(&entry.name) {
        return Err("name takes 1 to 64 visible ASCII characters".to_owned());
    }
    if entry.prefixes.is_empty() {
        return Err("prefixes is empty; [\"\"] stands for all names".to_owned());
    }
    Ok(ScopedKey {
        name: entry.name.into(),
        sha256: digest(&entry.sha256)
            .ok_or("sha256 takes the 64 hexadecimal digits that hash-key prints")?,
        right: entry.rights,
        prefixes: entry.prefixes,
        expires: entry.expires.map(|date| end_of(&date)).transpose()?,
    })
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let digits = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    for (n, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.then(|| &text[2 * n..2 * n + 2])?, 16).ok()?;
    }
    Some(digest)
}

/// The day is included, in UTC.
fn end_of(date: &Datetime) -> Result<SystemTime, String> {
    let accepted = "expires takes a date such as 2027-01-31";
    let (Some(_), None) = (date.date, date.time) else {
        return Err(accepted.to_owned());
    };
    let begins = humantime::parse_rfc3339(&format!("{date}T00:00:00Z"));
    begins
        .map(|begins| begins + DAY)
        .map_err(|_| accepted.to_owned())
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
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn what_is_not_accepted_is_named() {
        for (more, part) in [
            ("rights = \"all\"\nprefixes = [\"\"]", "line 4"),
            ("rights = \"read\"\nprefixes = []", "entry 1"),
            ("rights = \"read\"", "prefixes"),
            ("rights = \"read\"\nprefixes = [\"\"]\nkey = \"x\"", "key"),
            (
                "rights = \"read\"\nprefixes = [\"\"]\nexpires = 10:00:00",
                "2027-01-31",
            ),
        ] {
            let error = parse(&entry(more)).unwrap_err();
            assert!(error.contains(part), "{more}: {error}");
        }
        let short = "[[key]]\nname = \"a\"\nsha256 = \"ab\"\nrights = \"read\"\nprefixes = [\"\"]";
        assert!(parse(short).unwrap_err().contains("64 hexadecimal"));
    }
}
