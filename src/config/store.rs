//! The variables about the store.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::StoreKind;
use super::parse::default_of;
use super::sources::Reader;
use super::tls::certificate_file;
use crate::store::mysql::{self, Tls};

/// The store, and how long a commit and a listing may take. The variables of all stores are checked, whichever is
/// chosen.
pub(super) fn read(reader: &mut Reader) -> (StoreKind, Duration, Duration) {
    let kinds = ["mysql", "sqlite", "memory"];
    let choice = reader.choice("STORE", &kinds.map(|kind| (kind, kind)));
    let path = sqlite_path(reader);
    let host = mysql_host(reader, choice == Some("mysql"));
    let port = reader.integer("MYSQL_PORT");
    let database = mysql_database(reader);
    let user = reader.text("MYSQL_USER");
    let password = reader.password("MYSQL_PASSWORD").expose().to_owned();
    let pool_size = reader.integer("MYSQL_POOL_SIZE");
    let tls = mysql_tls(reader);
    let timeout = reader.seconds("STORE_TIMEOUT_SECONDS");
    let listing_timeout = reader.seconds("LISTING_TIMEOUT_SECONDS");
    let instance_lease = reader.seconds("INSTANCE_LEASE_SECONDS");
    let kind = match (choice, host) {
        (Some("mysql") | None, Some(host)) => StoreKind::Mysql(mysql::Options {
            host,
            port,
            database,
            user: user.unwrap_or_else(|| default_of("MYSQL_USER").to_owned()),
            password,
            pool_size,
            tls,
            timeout,
            instance_lease,
            adopt: None,
            peers: None,
        }),
        (Some("memory"), _) => StoreKind::Memory,
        _ => StoreKind::Sqlite { path },
    };
    (kind, timeout, listing_timeout)
}

fn sqlite_path(reader: &mut Reader) -> PathBuf {
    let accepted = "the path of a file (STORE=memory keeps nothing)";
    reader
        .parsed("SQLITE_PATH", accepted, |value| {
            let path = PathBuf::from(value);
            let is_file = !value.contains(":memory:") && !value.contains('\0') && !path.is_dir();
            is_file.then_some(path)
        })
        .unwrap_or_else(|| PathBuf::from(default_of("SQLITE_PATH")))
}

fn mysql_host(reader: &mut Reader, is_needed: bool) -> Option<String> {
    let problems_before = reader.problems.len();
    let host = reader.parsed(
        "MYSQL_HOST",
        "a host name or an IP address; the port goes to MYSQL_PORT",
        |value| is_host(value).then(|| value.to_owned()),
    );
    let is_missing = host.is_none() && reader.problems.len() == problems_before;
    if is_missing && is_needed {
        let sentence = "STORE is \"mysql\" and MYSQL_HOST is not set; accepted is MYSQL_HOST with the host name of the database, or another STORE.";
        reader.problems.push(sentence.to_owned());
    }
    host
}

/// The databases in which a server of MySQL or MariaDB keeps what it needs itself.
const SYSTEM_DATABASES: [&str; 4] = ["information_schema", "mysql", "performance_schema", "sys"];

fn mysql_database(reader: &mut Reader) -> String {
    let accepted = format!(
        "a name of 1 to 64 characters without control characters, and none of the database server's own ({})",
        SYSTEM_DATABASES.join(", ")
    );
    reader
        .parsed("MYSQL_DATABASE", accepted, |value| {
            let fits = value.chars().count() <= 64 && !value.chars().any(char::is_control);
            let is_system = SYSTEM_DATABASES
                .iter()
                .any(|name| name.eq_ignore_ascii_case(value));
            (fits && !is_system).then(|| value.to_owned())
        })
        .unwrap_or_else(|| default_of("MYSQL_DATABASE").to_owned())
}

pub(super) fn is_host(text: &str) -> bool {
    let is_name = text
        .chars()
        .all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
    is_name || IpAddr::from_str(text).is_ok()
}

fn mysql_tls(reader: &mut Reader) -> Tls {
    let words = ["off", "required", "verify-ca", "verify-identity"];
    let choice = reader.choice("MYSQL_TLS", &words.map(|word| (word, word)));
    let ca_file = certificate_file(reader, "MYSQL_TLS_CA_FILE").map(|(path, _)| path);
    let host = choice == Some("verify-identity");
    if host || choice == Some("verify-ca") {
        return Tls::Verified { ca_file, host };
    }
    if ca_file.is_some() {
        // An operator who names an authority expects that certificates are checked.
        let sentence = "MYSQL_TLS_CA_FILE is set and MYSQL_TLS does not check certificates; accepted with it are verify-ca and verify-identity.";
        reader.problems.push(sentence.to_owned());
    }
    match choice {
        Some("required") => Tls::Required,
        _ => Tls::Off,
    }
}
