//! The settings as an operator meets them: variables, the file, the errors, and the files in `config/`.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use small_resource_server::config::variables::{CONFIG_FILE, VARIABLES};
use small_resource_server::config::{EXIT_CONFIG, Right, SettingOrigin, Settings, StoreKind};
use small_resource_server::lock::{Profile, Seconds, Terms};
use small_resource_server::store::mysql::{Options, Tls};

const KEYS: [(&str, &str); 3] = [
    ("RESOURCE_READ", "r-key"),
    ("RESOURCE_READ_LOCK", "l-key"),
    ("RESOURCE_WRITE", "w-key"),
];

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(n, v)| (n.to_string(), v.to_string()))
        .collect()
}

/// Settings from the three keys and the given variables; one given twice has its last value.
fn load(pairs: &[(&str, &str)]) -> Result<Settings, String> {
    let environment: BTreeMap<_, _> = owned(&KEYS).into_iter().chain(owned(pairs)).collect();
    Settings::from_pairs(environment, None)
}

#[track_caller]
fn with(pairs: &[(&str, &str)]) -> Settings {
    load(pairs).unwrap_or_else(|error| panic!("{pairs:?}: {error}"))
}

#[track_caller]
fn refused(pairs: &[(&str, &str)]) -> String {
    match load(pairs) {
        Ok(_) => panic!("{pairs:?} was accepted"),
        Err(error) => error,
    }
}

/// Whether one of the problems names this variable.
fn concerns(error: &str, variable: &str) -> bool {
    let mut words = error.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.any(|word| word == variable)
}

fn from_file(text: &str) -> Result<Settings, String> {
    Settings::from_pairs([], Some((PathBuf::from("test.conf"), text.to_owned())))
}

/// The keys that carry this right and no more, the current one first.
fn keys_with(right: Right, settings: &Settings) -> Vec<&str> {
    let keys = settings.keys.plain();
    let keys = keys.filter(|(of_key, _)| *of_key == right);
    keys.map(|(_, key)| key.expose()).collect()
}

/// Where a variable was set; `None`: it has its default.
fn origin(settings: &Settings, variable: &str) -> Option<SettingOrigin> {
    let mut set = settings.origins.set.iter();
    let set = set.find(|(name, ..)| *name == variable);
    set.map(|(_, origin, _)| *origin)
}

#[track_caller]
fn mysql(settings: &Settings) -> &Options {
    match &settings.store {
        StoreKind::Mysql(mysql) => mysql,
        other => panic!("not mysql: {other:?}"),
    }
}

fn project_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A value that every variable accepts, and that is not its default.
fn some_value(name: &str) -> String {
    let pem = |file: &str| project_file(file).display().to_string();
    match name {
        "STORE" => "memory".into(),
        "SQLITE_PATH" => "other.db".into(),
        "MYSQL_HOST" | "MYSQL_DATABASE" | "MYSQL_USER" => "other".into(),
        "MYSQL_TLS" => "verify-ca".into(),
        "MYSQL_TLS_CA_FILE" | "TLS_CERT_FILE" => pem("tests/data/tls/cert.pem"),
        "TLS_KEY_FILE" => pem("tests/data/tls/key.pem"),
        "HTTP_HOST" => "127.0.0.1".into(),
        "TRUSTED_PROXIES" => "10.0.0.0/8".into(),
        "COMPATIBILITY" => "php".into(),
        "RUST_LOG" => "debug".into(),
        "ACCESS_LOG" => "true".into(),
        "MAX_WAIT_SECONDS" | "TICKET_TTL_SECONDS" => "77".into(),
        secret if secret.starts_with("RESOURCE_") => "topsecret".into(),
        "MYSQL_PASSWORD" | "API_KEY" => "topsecret".into(),
        "KEYS_FILE" => pem("tests/data/keys.toml"),
        "PEER_PORT" => "4".into(),
        _ => "3".into(),
    }
}

fn every_variable_set() -> Vec<(String, String)> {
    let names = VARIABLES
        .iter()
        .map(|v| v.name)
        .filter(|name| ![CONFIG_FILE, "API_KEY"].contains(name));
    names
        .map(|name| (name.to_owned(), some_value(name)))
        .collect()
}

// --- Defaults

#[test]
fn the_defaults_are_those_that_are_documented() {
    let settings = with(&[]);
    let http = &settings.http;
    assert_eq!(http.host, IpAddr::from([0, 0, 0, 0]));
    assert_eq!(http.port, 9501);
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(http.workers, cores);
    assert_eq!(http.keep_alive, Duration::from_secs(75));
    assert!(http.tls.is_none());
    assert_eq!(http.body_bytes_max, 2_097_152);
    assert_eq!(http.connections_max, 25_000);
    assert_eq!(http.request_head_timeout, Duration::from_secs(10));
    assert_eq!(http.body_timeout, Duration::from_secs(30));
    assert_eq!(http.rate_limit_per_second, 0);
    assert_eq!(http.trusted_proxies, []);
    assert!(
        matches!(&settings.store, StoreKind::Sqlite { path } if path == Path::new("data/resources.db"))
    );
    let server = &settings.server;
    assert_eq!(server.store_timeout_ms, 5_000);
    assert_eq!(server.compatibility, None);
    assert_eq!(server.wait_ms, 0);
    assert_eq!(settings.wait_max, Duration::from_secs(300));
    assert_eq!(server.terms, Terms::default());
    assert_eq!(server.waiters_max, 100_000);
    assert_eq!(server.selectors_max, 10_000);
    assert_eq!(server.data_cache_bytes, 268_435_456);
    assert_eq!(settings.shutdown_delay, Duration::ZERO);
    assert_eq!(settings.shutdown_timeout, Duration::from_secs(20));
    assert_eq!(settings.log_filter, "info");
    assert!(!settings.access_log);
    assert!(keys_with(Right::Admin, &settings).is_empty());
}

#[test]
fn the_defaults_of_mysql_are_those_that_are_documented() {
    let settings = with(&[("MYSQL_HOST", "database")]);
    let mysql = mysql(&settings);
    assert_eq!(mysql.host, "database");
    assert_eq!(mysql.port, 3306);
    assert_eq!(mysql.database, "small_swoole_resource");
    assert_eq!(mysql.user, "root");
    assert_eq!(mysql.password, "");
    assert_eq!(mysql.pool_size, 8);
    assert_eq!(mysql.tls, Tls::Off);
    assert_eq!(mysql.timeout, Duration::from_secs(5));
    assert_eq!(mysql.instance_lease, Duration::from_secs(4));
}

#[test]
fn writing_down_a_default_changes_nothing() {
    let without = |mut settings: Settings| {
        settings.origins = Default::default();
        format!("{settings:?}")
    };
    let host = ("MYSQL_HOST", "database");
    for variable in VARIABLES {
        let literal = !variable.default.is_empty() && !variable.default.contains(' ');
        if literal {
            let set = with(&[host, (variable.name, variable.default)]);
            assert_eq!(without(set), without(with(&[host])), "{}", variable.name);
        }
    }
}

#[test]
fn every_variable_has_an_effect() {
    let host = ("MYSQL_HOST", "database");
    let base = |name: &str| match name {
        // What they need beside them to be accepted, or to matter.
        "MYSQL_TLS_CA_FILE" => vec![host, ("MYSQL_TLS", "verify-ca")],
        "RESOURCE_ADMIN_PREVIOUS" => vec![host, ("RESOURCE_ADMIN", "a")],
        "API_KEY" => vec![
            host,
            ("RESOURCE_READ", ""),
            ("RESOURCE_READ_LOCK", ""),
            ("RESOURCE_WRITE", ""),
        ],
        "SQLITE_PATH" => vec![],
        _ => vec![host],
    };
    for variable in VARIABLES {
        // Read elsewhere, and the two that only go together.
        if [CONFIG_FILE, "TLS_CERT_FILE", "TLS_KEY_FILE"].contains(&variable.name) {
            continue;
        }
        let value = some_value(variable.name);
        let mut pairs = base(variable.name);
        let without = match variable.name {
            // It stands for the three that are unset beside it.
            "API_KEY" => &pairs[..1],
            _ => &pairs[..],
        };
        let before = with(without);
        pairs.push((variable.name, &value));
        let after = with(&pairs);
        assert_ne!(
            fingerprint(&before),
            fingerprint(&after),
            "{}",
            variable.name
        );
        assert_eq!(
            origin(&after, variable.name),
            Some(SettingOrigin::Environment)
        );
    }
}

/// All there is, secrets too, without where it came from.
fn fingerprint(settings: &Settings) -> String {
    let keys: Vec<_> = settings.keys.plain().map(|(_, key)| key.expose()).collect();
    let password = match &settings.store {
        StoreKind::Mysql(mysql) => &mysql.password,
        _ => "",
    };
    let mut settings = settings.clone();
    settings.origins = Default::default();
    format!("{settings:?} {keys:?} {password}")
}

// --- Keys

#[test]
fn a_missing_or_empty_key_stops_the_start_and_is_named() {
    for (missing, _) in KEYS {
        let others = KEYS.iter().filter(|(name, _)| *name != missing);
        let others: Vec<_> = others.copied().collect();
        let error = Settings::from_pairs(owned(&others), None).unwrap_err();
        assert_eq!(error.lines().count(), 1);
        assert_eq!(error.split(' ').next(), Some(missing));
        assert!(error.contains(&format!("{missing} is missing or empty")));
        let empty = refused(&[(missing, "")]);
        assert_eq!(empty, error);
        assert!(concerns(&refused(&[(missing, "   ")]), missing));
    }
    let all = Settings::from_pairs([], None).unwrap_err();
    assert_eq!(all.lines().count(), 3, "{all}");
}

#[test]
fn the_current_key_stands_before_the_previous_one() {
    let settings = with(&[
        ("RESOURCE_READ_PREVIOUS", "r-old"),
        ("RESOURCE_READ_LOCK_PREVIOUS", "l-old"),
        ("RESOURCE_WRITE_PREVIOUS", "w-old"),
        ("RESOURCE_ADMIN", "a-key"),
        ("RESOURCE_ADMIN_PREVIOUS", "a-old"),
    ]);
    assert_eq!(keys_with(Right::Read, &settings), ["r-key", "r-old"]);
    assert_eq!(keys_with(Right::Lock, &settings), ["l-key", "l-old"]);
    assert_eq!(keys_with(Right::Write, &settings), ["w-key", "w-old"]);
    assert_eq!(keys_with(Right::Admin, &settings), ["a-key", "a-old"]);
}

#[test]
fn an_empty_previous_or_admin_key_is_no_key() {
    let settings = with(&[
        ("RESOURCE_READ_PREVIOUS", ""),
        ("RESOURCE_ADMIN", ""),
        ("RESOURCE_ADMIN_PREVIOUS", ""),
    ]);
    assert_eq!(keys_with(Right::Read, &settings), ["r-key"]);
    assert!(keys_with(Right::Admin, &settings).is_empty());
}

#[test]
fn a_previous_key_does_not_stand_in_for_a_current_one() {
    let error = refused(&[("RESOURCE_READ", ""), ("RESOURCE_READ_PREVIOUS", "old")]);
    assert!(concerns(&error, "RESOURCE_READ"), "{error}");
    let error = refused(&[("RESOURCE_ADMIN_PREVIOUS", "old")]);
    assert!(concerns(&error, "RESOURCE_ADMIN_PREVIOUS"), "{error}");
}

#[test]
fn a_key_that_no_header_can_carry_is_refused_without_showing_it() {
    for key in [
        "topsecret\n",
        " topsecret",
        "topsecret ",
        "top\u{0}secret",
        "top\tsecret",
    ] {
        let error = refused(&[("RESOURCE_WRITE", key)]);
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(concerns(&error, "RESOURCE_WRITE"));
        assert!(!error.contains("secret\n") && !error.contains("top"));
    }
    let settings = with(&[("RESOURCE_WRITE", "p$HOME#x'y\"z\\ w")]);
    assert_eq!(keys_with(Right::Write, &settings), ["p$HOME#x'y\"z\\ w"]);
}

// --- Store

#[test]
fn the_store_follows_mysql_host_unless_it_is_named() {
    let kind = |pairs: &[(&str, &str)]| with(pairs).store.name();
    let host = ("MYSQL_HOST", "database");
    assert_eq!(kind(&[]), "sqlite");
    assert_eq!(kind(&[host]), "mysql");
    assert_eq!(kind(&[("MYSQL_HOST", "")]), "sqlite");
    assert_eq!(kind(&[host, ("STORE", "")]), "mysql");
    assert_eq!(kind(&[host, ("STORE", "sqlite")]), "sqlite");
    assert_eq!(kind(&[host, ("STORE", "memory")]), "memory");
    assert_eq!(kind(&[host, ("STORE", "MySQL")]), "mysql");
    assert_eq!(kind(&[("STORE", "memory")]), "memory");
}

#[test]
fn mysql_without_its_host_is_refused() {
    let error = refused(&[("STORE", "mysql")]);
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(concerns(&error, "MYSQL_HOST"), "{error}");
}

#[test]
fn a_wrong_mysql_host_is_not_taken_for_a_missing_one_and_back() {
    for store in ["", "mysql"] {
        let error = refused(&[("MYSQL_HOST", "database:3307"), ("STORE", store)]);
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains("MYSQL_PORT"), "{error}");
    }
    for host in ["::1", "10.0.0.1", "db-1.example.org", "my_db", "datenbänk"] {
        assert_eq!(mysql(&with(&[("MYSQL_HOST", host)])).host, host);
    }
    for host in ["a b", "/run/mysqld.sock", "mysql://db", "root@db"] {
        assert!(
            concerns(&refused(&[("MYSQL_HOST", host)]), "MYSQL_HOST"),
            "{host}"
        );
    }
}

#[test]
fn a_password_is_taken_as_it_is_and_not_shown() {
    for password in [
        "p$HOME#x",
        "a'b",
        "a\"b",
        "a\\b",
        "$$",
        "# leading",
        " x ",
        "'",
        "é\n",
    ] {
        let settings = with(&[("MYSQL_HOST", "database"), ("MYSQL_PASSWORD", password)]);
        assert_eq!(mysql(&settings).password, password);
    }
    let settings = with(&[("MYSQL_HOST", "database"), ("MYSQL_PASSWORD", "hunter2")]);
    assert!(!format!("{:?}", mysql(&settings)).contains("hunter2"));
}

#[test]
fn a_port_made_by_a_scheduler_is_explained() {
    let error = refused(&[("MYSQL_PORT", "tcp://10.0.0.1:3306")]);
    assert!(error.contains("enableServiceLinks"), "{error}");
    let other = refused(&[("MYSQL_PORT", "x")]);
    assert!(!other.contains("enableServiceLinks"), "{other}");
}

#[test]
fn mysql_tls_has_four_strengths() {
    let ca = some_value("MYSQL_TLS_CA_FILE");
    let tls = |pairs: &[(&str, &str)]| {
        let pairs: Vec<_> = pairs
            .iter()
            .chain(&[("MYSQL_HOST", "database")])
            .copied()
            .collect();
        mysql(&with(&pairs)).tls.clone()
    };
    let path = Some(PathBuf::from(&ca));
    assert_eq!(tls(&[("MYSQL_TLS", "off")]), Tls::Off);
    assert_eq!(tls(&[("MYSQL_TLS", "required")]), Tls::Required);
    assert_eq!(
        tls(&[("MYSQL_TLS", "verify-ca")]),
        Tls::Verified {
            ca_file: None,
            host: false
        }
    );
    let with_ca = |choice| tls(&[("MYSQL_TLS", choice), ("MYSQL_TLS_CA_FILE", &ca)]);
    assert_eq!(
        with_ca("verify-ca"),
        Tls::Verified {
            ca_file: path.clone(),
            host: false
        }
    );
    assert_eq!(
        with_ca("verify-identity"),
        Tls::Verified {
            ca_file: path,
            host: true
        }
    );
}

#[test]
fn a_trusted_authority_without_a_check_is_refused() {
    let ca = some_value("MYSQL_TLS_CA_FILE");
    for choice in ["", "off", "required"] {
        let error = refused(&[("MYSQL_TLS", choice), ("MYSQL_TLS_CA_FILE", &ca)]);
        assert!(concerns(&error, "MYSQL_TLS"), "{choice}: {error}");
    }
}

#[test]
fn a_path_that_is_no_file_for_sqlite_is_refused() {
    for path in [":memory:", "/", "file::memory:"] {
        assert!(
            concerns(&refused(&[("SQLITE_PATH", path)]), "SQLITE_PATH"),
            "{path}"
        );
    }
}

// --- TLS

#[test]
fn certificate_and_key_go_together() {
    let (cert, key) = (some_value("TLS_CERT_FILE"), some_value("TLS_KEY_FILE"));
    let settings = with(&[("TLS_CERT_FILE", &cert), ("TLS_KEY_FILE", &key)]);
    let (file, certified) = settings.http.tls.unwrap();
    assert_eq!((file, certified.cert.len()), (PathBuf::from(&cert), 1));
    assert_eq!(settings.origins.watched, [&cert, &key].map(PathBuf::from));
    let error = refused(&[("TLS_CERT_FILE", &cert)]);
    assert!(concerns(&error, "TLS_KEY_FILE"), "{error}");
    let error = refused(&[("TLS_KEY_FILE", &key), ("TLS_CERT_FILE", "")]);
    assert!(concerns(&error, "TLS_CERT_FILE"), "{error}");
}

#[test]
fn certificate_files_that_cannot_be_used_are_refused() {
    let (cert, key) = (some_value("TLS_CERT_FILE"), some_value("TLS_KEY_FILE"));
    let error = refused(&[
        ("TLS_CERT_FILE", "/missing/cert.pem"),
        ("TLS_KEY_FILE", &key),
    ]);
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(concerns(&error, "TLS_CERT_FILE") && error.contains("/missing/cert.pem"));
    let swapped = refused(&[("TLS_CERT_FILE", &key), ("TLS_KEY_FILE", &cert)]);
    assert!(
        concerns(&swapped, "TLS_CERT_FILE") && concerns(&swapped, "TLS_KEY_FILE"),
        "{swapped}"
    );
    assert_eq!(swapped.lines().count(), 2, "{swapped}");
}

// --- Values

#[test]
fn seconds_may_have_decimals_and_whole_seconds_may_not() {
    let decimal = [
        "STORE_TIMEOUT_SECONDS",
        "LISTING_TIMEOUT_SECONDS",
        "LOCK_WAIT_SECONDS",
        "MAX_WAIT_SECONDS",
        "CLAIM_SECONDS",
        "TICKET_TTL_SECONDS",
        "INSTANCE_LEASE_SECONDS",
        "SHUTDOWN_DELAY_SECONDS",
        "SHUTDOWN_SECONDS",
        "KEEP_ALIVE_SECONDS",
        "REQUEST_TIMEOUT_SECONDS",
        "BODY_TIMEOUT_SECONDS",
    ];
    let wide = [("CLAIM_SECONDS", "0.5")];
    for name in decimal {
        with(&[wide[0], (name, "1.25")]);
    }
    for variable in VARIABLES {
        let is_time = variable.name.ends_with("_SECONDS") && variable.name != "MAX_LEASE_SECONDS";
        assert_eq!(
            is_time,
            decimal.contains(&variable.name),
            "{}",
            variable.name
        );
    }
    assert!(concerns(
        &refused(&[("MAX_LEASE_SECONDS", "1.5")]),
        "MAX_LEASE_SECONDS"
    ));
    let settings = with(&[
        ("MYSQL_HOST", "database"),
        ("LOCK_WAIT_SECONDS", "0.25"),
        ("CLAIM_SECONDS", "0.5"),
        ("TICKET_TTL_SECONDS", "2.5"),
        ("MAX_LEASE_SECONDS", "2147483647"),
        ("MAX_WAITERS_PER_RESOURCE", "7"),
        ("STORE_TIMEOUT_SECONDS", "0.75"),
        ("INSTANCE_LEASE_SECONDS", "1.5"),
        ("SHUTDOWN_DELAY_SECONDS", "0.1"),
        ("SHUTDOWN_SECONDS", "0"),
    ]);
    assert_eq!(settings.server.wait_ms, 250);
    assert_eq!(settings.server.terms.claim_ms, 500);
    assert_eq!(settings.server.terms.ticket_ttl_ms, 2_500);
    assert_eq!(settings.server.terms.lease_seconds_max.get(), Seconds::MAX);
    assert_eq!(settings.server.terms.waiters_max, 7);
    assert_eq!(settings.server.store_timeout_ms, 750);
    assert_eq!(mysql(&settings).timeout, Duration::from_millis(750));
    assert_eq!(
        mysql(&settings).instance_lease,
        Duration::from_millis(1_500)
    );
    assert_eq!(settings.shutdown_delay, Duration::from_millis(100));
    assert_eq!(settings.shutdown_timeout, Duration::ZERO);
}

#[test]
fn each_value_that_is_not_accepted_is_told_with_variable_value_and_what_is_accepted() {
    for (name, value, accepted) in [
        ("HTTP_PORT", "65536", "an integer from 0 to 65535"),
        ("HTTP_PORT", "-1", "an integer from 0 to 65535"),
        ("HTTP_PORT", "http", "an integer from 0 to 65535"),
        ("HTTP_HOST", "localhost", "an IP address"),
        ("PEER_PORT", "65536", "an integer from 0 to 65535"),
        (
            "ADVERTISE_ADDRESS",
            "node 1",
            "a host name or an IP address",
        ),
        ("ADVERTISE_ADDRESS", "node:0", "a host name"),
        ("ADVERTISE_ADDRESS", ":9502", "a host name"),
        ("HTTP_WORKERS", "0", "an integer from 1 to 512"),
        ("HTTP_WORKERS", "513", "an integer from 1 to 512"),
        ("KEEP_ALIVE_SECONDS", "75s", "seconds from 0 to 86400"),
        ("MAX_BODY_BYTES", "2M", "an integer from 1 to 1073741824"),
        ("MAX_BODY_BYTES", "0", "an integer from 1 to"),
        ("MAX_CONNECTIONS", "0", "an integer from 1 to"),
        ("RATE_LIMIT_PER_SECOND", "1.5", "an integer from 0 to"),
        (
            "TRUSTED_PROXIES",
            "10.0.0.0/8, proxy",
            "IP addresses and networks",
        ),
        (
            "TRUSTED_PROXIES",
            "10.0.0.0/33",
            "IP addresses and networks",
        ),
        ("STORE", "postgres", "mysql, sqlite or memory"),
        ("MYSQL_PORT", "0", "an integer from 1 to 65535"),
        ("MYSQL_POOL_SIZE", "0", "an integer from 1 to 1024"),
        ("MYSQL_DATABASE", "mysql", "a name of 1 to 64 characters"),
        ("MYSQL_DATABASE", "Information_Schema", "a name of 1 to 64"),
        ("MYSQL_DATABASE", "performance_schema", "a name of 1 to 64"),
        ("MYSQL_DATABASE", "sys", "a name of 1 to 64 characters"),
        (
            "MYSQL_TLS",
            "yes",
            "off, required, verify-ca or verify-identity",
        ),
        ("STORE_TIMEOUT_SECONDS", "0", "seconds from 0.001 to 3600"),
        ("LISTING_TIMEOUT_SECONDS", "0", "seconds from 0.001 to 3600"),
        ("INSTANCE_LEASE_SECONDS", "0.9", "seconds from 1 to 3600"),
        ("COMPATIBILITY", "PHP5", "default or php"),
        ("LOCK_WAIT_SECONDS", "-1", "seconds from 0 to 86400"),
        ("LOCK_WAIT_SECONDS", "1e2", "seconds from 0 to 86400"),
        ("CLAIM_SECONDS", "0", "seconds from 0.001 to 3600"),
        (
            "TICKET_TTL_SECONDS",
            "soon",
            "seconds from 0.001 to 2592000",
        ),
        (
            "MAX_LEASE_SECONDS",
            "2147483648",
            "an integer from 0 to 2147483647",
        ),
        ("MAX_WAITERS", "many", "an integer from 1 to"),
        ("DATA_CACHE_BYTES", "256MB", "an integer from 0 to"),
        ("SHUTDOWN_SECONDS", "3601", "seconds from 0 to 3600"),
        (
            "ACCESS_LOG",
            "maybe",
            "true, false, 1, 0, yes, no, on or off",
        ),
        (
            "RUST_LOG",
            "actix=loud",
            "off, error, warn, info, debug or trace",
        ),
        ("RUST_LOG", "inof", "off, error, warn, info, debug or trace"),
        (
            "RUST_LOG",
            "warn,=info",
            "off, error, warn, info, debug or trace",
        ),
        (
            "RUST_LOG",
            "a=info=b",
            "off, error, warn, info, debug or trace",
        ),
    ] {
        let error = refused(&[(name, value)]);
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(
            error.starts_with(&format!("{name} is {value:?} in the environment;")),
            "{error}"
        );
        assert!(
            error.contains(&format!("accepted is {accepted}")),
            "{error}"
        );
    }
}

#[test]
fn the_ends_of_a_range_are_accepted() {
    for (name, value) in [
        ("HTTP_PORT", "0"),
        ("HTTP_PORT", "65535"),
        ("HTTP_WORKERS", "1"),
        ("HTTP_WORKERS", "512"),
        ("INSTANCE_LEASE_SECONDS", "1"),
        ("MAX_WAIT_SECONDS", "0"),
        ("KEEP_ALIVE_SECONDS", "0"),
        ("MAX_LEASE_SECONDS", "0"),
        ("DATA_CACHE_BYTES", "0"),
        ("HTTP_HOST", "::"),
        ("HTTP_HOST", "[::1]"),
        (
            "RUST_LOG",
            "warn,actix_server=debug,small_resource_server=trace/GET",
        ),
    ] {
        with(&[(name, value)]);
    }
}

/// Variables that name a file which is read whole.
const FILES: [&str; 5] = [
    "KEYS_FILE",
    "TLS_CERT_FILE",
    "TLS_KEY_FILE",
    "MYSQL_TLS_CA_FILE",
    "RESOURCE_ADMIN_FILE",
];

#[test]
fn a_file_that_cannot_be_read_is_named() {
    for name in FILES {
        let error = refused(&[(name, "/missing/file")]);
        assert!(error.starts_with(name), "{error}");
        assert!(error.contains("\"/missing/file\""), "{error}");
    }
}

#[test]
fn an_empty_file_of_a_secret_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let shown = path.to_str().unwrap();
    for text in ["", "\n", " \t\r\n\n", "\u{feff}"] {
        fs::write(&path, text).unwrap();
        for variable in VARIABLES.iter().filter(|v| v.secret) {
            let (name, file) = (variable.name, format!("{}_FILE", variable.name));
            let error = refused(&[(name, ""), (&file, shown)]);
            let sentence = format!("{file} names {shown:?}, which is not accepted (it is empty);");
            assert!(error.starts_with(&sentence), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
    // The admin key is not said to be unset while its file is what is wrong.
    let admin = [
        ("RESOURCE_ADMIN_FILE", shown),
        ("RESOURCE_ADMIN_PREVIOUS", "old"),
    ];
    let error = refused(&admin);
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn a_file_without_an_end_is_refused() {
    for name in FILES {
        let error = refused(&[(name, "/dev/zero")]);
        assert!(error.starts_with(name), "{error}");
        assert!(error.contains("it is larger than 1 MiB"), "{error}");
    }
}

#[test]
fn all_problems_are_told_at_once_a_line_each() {
    let text =
        "RESOURCE_READ=r\nRESOURCE_READ_LOCK=\nHTTP_PORT=x\nSTORE=mysql\nSHUTDOWN_SECONDS=-1\n";
    let shown = from_file(text).unwrap_err();
    for name in [
        "RESOURCE_READ_LOCK",
        "RESOURCE_WRITE",
        "HTTP_PORT",
        "MYSQL_HOST",
        "SHUTDOWN_SECONDS",
    ] {
        assert!(concerns(&shown, name), "{name}: {shown}");
    }
    assert!(
        shown.contains("HTTP_PORT is \"x\" in test.conf;"),
        "{shown}"
    );
    assert_eq!(shown.lines().count(), 5, "{shown}");
}

#[test]
fn a_line_that_cannot_be_read_stops_the_start_with_its_number_and_never_its_text() {
    let text = "RESOURCE_READ=r\n# x\nMYSQL_PASSWORD=hunter2 and more\nHTTP_PORT=x\n";
    let shown = from_file(text).unwrap_err();
    assert!(
        shown.starts_with("Line 3 of test.conf cannot be read"),
        "{shown}"
    );
    assert!(
        shown.contains("single") || shown.contains("NAME='value'"),
        "{shown}"
    );
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(
        shown.lines().count(),
        1,
        "what follows was not read: {shown}"
    );
}

#[test]
fn keys_of_the_example_files_and_a_password_with_a_line_end_are_warned_about() {
    for (name, value, part) in [
        ("RESOURCE_ADMIN", "change-me-admin", "example files"),
        ("MYSQL_PASSWORD", "secret\n", "line end"),
    ] {
        let warnings = with(&[(name, value)]).origins.warnings;
        assert!(
            warnings.iter().any(|w| w.contains(part)),
            "{name}: {warnings:?}"
        );
    }
    assert_eq!(with(&[]).origins.warnings, Vec::<String>::new());
}

#[test]
fn instances_reach_each_other_one_port_above_that_of_clients_unless_told_otherwise() {
    let port = |pairs: &[(&str, &str)]| with(pairs).peer_port;
    assert_eq!(port(&[]), 9502);
    assert_eq!(port(&[("HTTP_PORT", "0")]), 0);
    assert_eq!(port(&[("HTTP_PORT", "65535")]), 0);
    assert_eq!(port(&[("PEER_PORT", "7000")]), 7000);
    for (text, host, port) in [
        ("node-1.example", "node-1.example", None),
        ("node:7000", "node", Some(7000)),
        ("10.0.0.1", "10.0.0.1", None),
        ("10.0.0.1:7000", "10.0.0.1", Some(7000)),
        ("fd00::1", "fd00::1", None),
        ("[fd00::1]:7000", "fd00::1", Some(7000)),
    ] {
        let advertised = with(&[("ADVERTISE_ADDRESS", text)]).advertise;
        assert_eq!(advertised, Some((host.to_owned(), port)), "{text}");
    }
}

#[test]
fn an_empty_value_of_an_optional_variable_is_its_default() {
    let required = KEYS.map(|(name, _)| name);
    let optional = VARIABLES.iter().filter(|v| !required.contains(&v.name));
    let empty: Vec<_> = optional.map(|v| (v.name, "")).collect();
    assert_eq!(fingerprint(&with(&empty)), fingerprint(&with(&[])));
    assert_eq!(with(&[("HTTP_PORT", "  ")]).http.port, 9501);
}

#[test]
fn settings_that_contradict_each_other_are_refused_with_both_names() {
    for (pairs, concerned, other) in [
        (vec![("PEER_PORT", "9501")], "PEER_PORT", "HTTP_PORT"),
        (
            vec![("TICKET_TTL_SECONDS", "4.9")],
            "TICKET_TTL_SECONDS",
            "CLAIM_SECONDS",
        ),
        (
            vec![("CLAIM_SECONDS", "61")],
            "TICKET_TTL_SECONDS",
            "CLAIM_SECONDS",
        ),
        (
            vec![("LOCK_WAIT_SECONDS", "301")],
            "MAX_WAIT_SECONDS",
            "LOCK_WAIT_SECONDS",
        ),
    ] {
        let error = refused(&pairs);
        assert!(concerns(&error, concerned), "{error}");
        assert!(error.contains(other), "{error}");
    }
    with(&[("TICKET_TTL_SECONDS", "5"), ("CLAIM_SECONDS", "5")]);
    with(&[("LOCK_WAIT_SECONDS", "300")]);
}

#[test]
fn trusted_proxies_are_addresses_and_networks() {
    let settings = with(&[("TRUSTED_PROXIES", "10.1.2.3/8, 192.168.1.7,fd00::/8  ::1,")]);
    let shown: Vec<_> = settings
        .http
        .trusted_proxies
        .iter()
        .map(|net| net.to_string())
        .collect();
    assert_eq!(
        shown,
        ["10.0.0.0/8", "192.168.1.7/32", "fd00::/8", "::1/128"]
    );
}

#[test]
fn words_are_taken_in_upper_and_lower_case() {
    assert_eq!(
        with(&[("COMPATIBILITY", "PHP")]).server.compatibility,
        Some(Profile::Php)
    );
    assert_eq!(
        with(&[("COMPATIBILITY", "default")]).server.compatibility,
        Some(Profile::Default)
    );
    for (word, flag) in [
        ("1", true),
        ("TRUE", true),
        ("on", true),
        ("0", false),
        ("no", false),
    ] {
        assert_eq!(with(&[("ACCESS_LOG", word)]).access_log, flag);
    }
}

// --- The file

#[test]
fn a_file_of_the_original_is_read_without_complaint() {
    let text = "\
# Database
MYSQL_HOST=database
MYSQL_PORT=3306
MYSQL_DATABASE=small_swoole_resource
MYSQL_USER=root
MYSQL_PASSWORD='p$HOME#x'

###> symfony/framework-bundle ###
APP_ENV=prod
APP_SECRET=0123456789abcdef
DATABASE_URL=\"mysql://${MYSQL_USER}:${MYSQL_PASSWORD}@${MYSQL_HOST}:3306/x\"
###< symfony/framework-bundle ###

export RESOURCE_READ=readkey
RESOURCE_READ_LOCK='lockkey'
RESOURCE_WRITE=writekey # all rights
";
    for text in [
        text.to_owned(),
        text.replace('\n', "\r\n"),
        format!("\u{feff}{text}"),
    ] {
        let settings = from_file(&text).unwrap();
        assert_eq!(mysql(&settings).host, "database");
        assert_eq!(mysql(&settings).password, "p$HOME#x");
        assert_eq!(keys_with(Right::Read, &settings), ["readkey"]);
        assert_eq!(keys_with(Right::Lock, &settings), ["lockkey"]);
        assert_eq!(keys_with(Right::Write, &settings), ["writekey"]);
        assert_eq!(settings.origins.file, Some(PathBuf::from("test.conf")));
        assert_eq!(settings.origins.warnings, Vec::<String>::new());
    }
}

#[test]
fn the_environment_wins_over_the_file_and_both_are_known() {
    let file = "RESOURCE_READ=file\nHTTP_PORT=1111\nHTTP_WORKERS=3\nSHUTDOWN_SECONDS=9";
    let environment = owned(&[
        ("RESOURCE_READ_LOCK", "env"),
        ("RESOURCE_WRITE", "env"),
        ("HTTP_PORT", "2222"),
        ("SHUTDOWN_SECONDS", ""),
    ]);
    let settings = Settings::from_pairs(environment, Some(("x.conf".into(), file.into()))).unwrap();
    assert_eq!(settings.http.port, 2222);
    assert_eq!(settings.http.workers, 3);
    assert_eq!(
        settings.shutdown_timeout,
        Duration::from_secs(20),
        "emptied by the environment"
    );
    let origin = |variable| origin(&settings, variable);
    assert_eq!(origin("RESOURCE_READ"), Some(SettingOrigin::File));
    assert_eq!(origin("RESOURCE_WRITE"), Some(SettingOrigin::Environment));
    assert_eq!(origin("HTTP_PORT"), Some(SettingOrigin::Environment));
    assert_eq!(origin("HTTP_WORKERS"), Some(SettingOrigin::File));
    assert_eq!(origin("SHUTDOWN_SECONDS"), None);
    assert_eq!(origin("STORE"), None);
}

#[test]
fn the_last_of_two_lines_for_one_variable_counts() {
    // The last one ends with a space and without a line end.
    let text = "RESOURCE_READ=r\nRESOURCE_READ_LOCK=l\nRESOURCE_WRITE=w\nHTTP_PORT=1\nHTTP_PORT=2 ";
    assert_eq!(from_file(text).unwrap().http.port, 2);
}

// --- The summary

#[test]
fn the_summary_shows_what_was_set_with_its_origin() {
    let file = "RESOURCE_READ=r\nRESOURCE_READ_LOCK=l\nRESOURCE_WRITE=w\nHTTP_WORKERS=3\n";
    let environment = owned(&[("HTTP_PORT", "9600"), ("STORE", "memory")]);
    let settings = Settings::from_pairs(environment, Some(("x.conf".into(), file.into()))).unwrap();
    let lines = settings.summary();
    for line in [
        "settings file: x.conf",
        "HTTP_PORT=\"9600\" (environment)",
        "HTTP_WORKERS=\"3\" (file)",
        "RESOURCE_READ=(hidden) (file)",
        "listen: http://0.0.0.0:9600",
    ] {
        assert!(
            lines.iter().any(|l| l == line),
            "{line} is not in {lines:#?}"
        );
    }
    assert!(lines.iter().any(|l| l.starts_with("store: memory")));
    assert!(
        !lines.iter().any(|l| l.contains("CLAIM_SECONDS")),
        "defaults are not listed"
    );
    assert!(
        with(&[])
            .summary()
            .contains(&"settings file: none".to_owned())
    );
}

#[test]
fn secrets_are_shown_nowhere() {
    for set in [every_variable_set(), owned(&[("API_KEY", "topsecret")])] {
        let settings = Settings::from_pairs(set, None).unwrap();
        let summary = settings.summary_with_defaults();
        let shown = format!("{settings:?} {settings:#?} {summary}");
        assert!(!shown.contains("topsecret"), "{shown}");
        assert!(shown.contains("(hidden)"));
    }
    let mut broken = every_variable_set();
    broken.push(("HTTP_PORT".into(), "x".into()));
    broken.push(("RESOURCE_READ".into(), "topsecret\n".into()));
    let error = Settings::from_pairs(broken, None).unwrap_err();
    assert!(
        !format!("{error} {error:?}").contains("topsecret"),
        "{error}"
    );
}

#[test]
fn a_misspelt_name_is_warned_about_without_its_value() {
    let file = "MYSQL_PASWORD=topsecret\nAPP_ENV=prod\nHTTP_PROXY=http://proxy\n";
    let environment = owned(&KEYS).into_iter().chain(owned(&[
        ("HTTP_PROT", "9600"),
        ("MYSQL_USER_FILE", "/topsecret"),
    ]));
    let settings = Settings::from_pairs(environment, Some(("x.conf".into(), file.into()))).unwrap();
    let warnings = &settings.origins.warnings;
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(
        warnings[0].contains("HTTP_PROT in the environment") && warnings[0].ends_with("HTTP_PORT?")
    );
    assert!(
        warnings[2].contains("MYSQL_USER_FILE in the environment")
            && warnings[2].ends_with("MYSQL_USER? Only a secret can be in a file of its own.")
    );
    assert!(
        warnings[1].contains("MYSQL_PASWORD in x.conf") && warnings[1].contains("MYSQL_PASSWORD?")
    );
    let printed = settings.summary_with_defaults();
    assert!(
        printed.contains("warning: ") && !printed.contains("topsecret"),
        "{printed}"
    );
}

#[test]
fn a_file_cannot_name_another_file() {
    let text = "RESOURCE_READ=r\nRESOURCE_READ_LOCK=l\nRESOURCE_WRITE=w\nCONFIG_FILE=/other\n";
    let warnings = from_file(text).unwrap().origins.warnings;
    assert!(
        warnings.len() == 1 && warnings[0].contains("CONFIG_FILE"),
        "{warnings:?}"
    );
}

#[test]
fn the_exit_code_is_that_of_a_configuration_error() {
    assert_eq!(EXIT_CONFIG, 78);
}

// --- The files in config/

fn shipped(name: &str) -> (PathBuf, String) {
    let path = project_file("config").join(name);
    let text = fs::read_to_string(&path).unwrap();
    (path, text)
}

#[test]
fn the_template_wants_its_three_keys_and_nothing_else() {
    let template = shipped("small-swoole-resource-server.conf");
    let error = Settings::from_pairs([], Some(template.clone())).unwrap_err();
    let concerned: Vec<_> = error.lines().map(|p| p.split(' ').next()).collect();
    assert_eq!(concerned, KEYS.map(|(name, _)| Some(name)), "{error}");
    let settings = Settings::from_pairs(owned(&KEYS), Some(template)).unwrap();
    assert_eq!(
        fingerprint(&settings),
        fingerprint(&with(&[])),
        "all the rest is default"
    );
}

/// The lines `NAME=value` and `#NAME=value`.
fn template_variables(text: &str) -> Vec<(String, String)> {
    let lines = text
        .lines()
        .map(|line| line.strip_prefix('#').unwrap_or(line));
    let pairs = lines.filter_map(|line| line.split_once('='));
    let named = pairs.filter(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
    });
    named
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn the_template_shows_each_variable_once_with_its_default() {
    let (_, text) = shipped("small-swoole-resource-server.conf");
    let shown = template_variables(&text);
    for variable in VARIABLES.iter().filter(|v| v.name != CONFIG_FILE) {
        let values: Vec<_> = shown
            .iter()
            .filter(|(name, _)| name == variable.name)
            .collect();
        assert_eq!(values.len(), 1, "{}", variable.name);
        if !variable.default.is_empty() && !variable.default.contains(' ') {
            assert_eq!(values[0].1, variable.default, "{}", variable.name);
        }
    }
    for (name, _) in &shown {
        assert!(
            VARIABLES.iter().any(|v| v.name == name),
            "{name} is no variable"
        );
    }
}

#[test]
fn the_template_can_be_uncommented_line_by_line() {
    let (path, text) = shipped("small-swoole-resource-server.conf");
    for (name, value) in template_variables(&text) {
        let one_more = format!("{text}\n{name}={value}\n");
        let loaded = Settings::from_pairs(owned(&KEYS), Some((path.clone(), one_more)));
        assert!(loaded.is_ok(), "{name}: {}", loaded.unwrap_err());
    }
}

#[test]
fn the_development_file_is_ready_to_run() {
    let settings = Settings::from_pairs([], Some(shipped("development.conf"))).unwrap();
    assert!(
        matches!(&settings.store, StoreKind::Sqlite { path } if path == Path::new("data/resources.db"))
    );
    assert_eq!(keys_with(Right::Admin, &settings), ["development-admin"]);
    assert!(settings.http.host.is_loopback());
    let warnings = &settings.origins.warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("everybody knows"));
}

// --- The process

/// Loads the settings of a process with just this environment, in this folder.
fn in_process(folder: &Path, environment: &[(&str, &str)]) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "print_settings_of_this_process",
            "--nocapture",
        ])
        .env_clear()
        .envs(environment.iter().copied())
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
#[ignore = "run by the tests below, in a process of its own"]
fn print_settings_of_this_process() {
    match Settings::load(None) {
        Ok(settings) => println!("{}", settings.summary().join("\n")),
        Err(error) => panic!("{error}"),
    }
    assert!(
        std::env::var_os("HTTP_PORT").is_none(),
        "the environment was changed"
    );
}

const COMPLETE: &str = "RESOURCE_READ=r\nRESOURCE_READ_LOCK=l\nRESOURCE_WRITE=w\nHTTP_PORT=9601\n";

#[test]
fn config_file_names_the_file_that_is_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("my.conf"), COMPLETE).unwrap();
    fs::write(folder.path().join(".env"), "HTTP_PORT=1").unwrap();
    let output = in_process(
        folder.path(),
        &[(CONFIG_FILE, "my.conf"), ("STORE", "memory")],
    );
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(shown.contains("settings file: my.conf"), "{shown}");
    assert!(shown.contains("HTTP_PORT=\"9601\" (file)"), "{shown}");
    assert!(shown.contains("STORE=\"memory\" (environment)"), "{shown}");
}

#[test]
fn a_config_file_that_is_not_there_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".env"), COMPLETE).unwrap();
    let output = in_process(folder.path(), &[(CONFIG_FILE, "missing.conf")]);
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(shown.contains("missing.conf cannot be read"), "{shown}");
}

#[test]
fn without_config_file_the_default_places_are_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".env"), COMPLETE).unwrap();
    // On a machine where the server is installed, its file comes first.
    let installed = "/etc/small-swoole-resource-server.conf";
    let expected = if Path::new(installed).exists() {
        installed
    } else {
        ".env"
    };
    for config_file in [None, Some((CONFIG_FILE, ""))] {
        let environment: Vec<_> = KEYS.into_iter().chain(config_file).collect();
        let output = in_process(folder.path(), &environment);
        let shown = String::from_utf8_lossy(&output.stdout);
        let line = format!("settings file: {expected}");
        assert!(shown.contains(&line), "{output:?}");
    }
}
