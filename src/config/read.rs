//! All variables to [`Settings`], and the checks that concern more than one of them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::parse::{Reader, default_of};
use super::sources::Sources;
use super::tls::{certificates, private_key};
use super::variables::WORKERS_MAX;
use super::{
    ConfigError, HttpSettings, Keys, PlainKey, Right, ScopedKey, Settings, StoreKind, TlsFiles,
};
use super::{keys_file, memory};
use crate::lock::{Limits, Millis, Profile, Seconds};
use crate::shared::server_state::ServerSettings;
use crate::store::mysql::{self, Tls};

/// How long a resource stays in memory that nobody uses.
const RETIRE_MS: Millis = 10_000;

impl Settings {
    /// Reads the process environment and the file that `CONFIG_FILE` names, else
    /// `/etc/small-swoole-resource-server.conf` when it exists, else `.env` when it exists.
    ///
    /// # Errors
    /// All problems at once: a file that cannot be read, lines that are not understood, values that are
    /// not accepted, settings that contradict each other.
    pub fn load() -> Result<Settings, ConfigError> {
        Settings::load_file(None)
    }

    /// As [`Settings::load`], with a file that wins over `CONFIG_FILE`.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn load_file(file: Option<PathBuf>) -> Result<Settings, ConfigError> {
        Settings::from_sources(&Sources::of_process(file)?)
    }

    /// Settings from given variables instead of the process environment, and from the path and text of
    /// a file. The path is for messages only. Reads no other file than the certificates named in it.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn from_pairs(
        environment: impl IntoIterator<Item = (String, String)>,
        file: Option<(PathBuf, String)>,
    ) -> Result<Settings, ConfigError> {
        Settings::from_sources(&Sources::new(environment, file))
    }

    fn from_sources(sources: &Sources) -> Result<Settings, ConfigError> {
        // What could not be read leaves gaps that would be reported as well.
        if !sources.problems.is_empty() {
            return Err(ConfigError::from_problems(sources.problems.clone()));
        }
        let mut reader = Reader::new(sources);
        let keys = keys(&mut reader);
        warn_of_known_keys(&mut reader, &keys);
        let (mut store, store_timeout, listing_timeout) = store(&mut reader);
        let http = http(&mut reader);
        let peer_port = peer_port(&mut reader, http.port);
        let advertise = reader.parsed("ADVERTISE_ADDRESS", ADVERTISED, advertised);
        let compatibility = compatibility(&mut reader);
        if let StoreKind::Mysql(options) = &mut store {
            options.adopt = compatibility;
        }
        let (wait, wait_max) = waits(&mut reader);
        let server = ServerSettings {
            compatibility,
            wait_ms: wait.as_millis() as u64,
            store_timeout_ms: store_timeout.as_millis() as u64,
            listing_timeout_ms: listing_timeout.as_millis() as u64,
            limits: limits(&mut reader),
            waiters_max: reader.integer("MAX_WAITERS"),
            selectors_max: reader.integer("MAX_SELECTORS"),
            history_per_resource: reader.integer("HISTORY_PER_RESOURCE"),
            data_cache_bytes: data_cache_bytes(&mut reader),
            retire_ms: RETIRE_MS,
        };
        let shutdown_delay = reader.seconds("SHUTDOWN_DELAY_SECONDS");
        let shutdown_timeout = reader.seconds("SHUTDOWN_SECONDS");
        let log_filter = log_filter(&mut reader);
        let access_log = reader.flag("ACCESS_LOG");
        if !reader.problems.is_empty() {
            return Err(ConfigError::from_problems(reader.problems));
        }
        Ok(Settings {
            http,
            keys,
            store,
            server,
            wait_max,
            peer_port,
            advertise,
            shutdown_delay,
            shutdown_timeout,
            log_filter,
            access_log,
            origins: reader.origins,
        })
    }
}

/// Keys that stand in files which everybody can read.
fn warn_of_known_keys(reader: &mut Reader<'_>, keys: &Keys) {
    let known = |plain: &PlainKey| {
        let key = plain.key.expose();
        key.contains("change-me") || key.starts_with("development-")
    };
    if keys.plain.iter().any(known) {
        let warning = "A key is one of those in the example files, which everybody knows; make others with `openssl rand -hex 32`.";
        reader.origins.warnings.push(warning.to_owned());
    }
}

fn keys(reader: &mut Reader<'_>) -> Keys {
    let scoped = scoped_keys(reader).into_iter().map(Arc::new).collect();
    let plain = match reader.key("API_KEY") {
        Some(key) => {
            refuse_beside_api_key(reader);
            vec![PlainKey {
                key,
                right: Right::Write,
                previous: false,
            }]
        }
        None => plain_keys(reader),
    };
    Keys { plain, scoped }
}

fn refuse_beside_api_key(reader: &mut Reader<'_>) {
    // Read for what is set, whatever it is.
    let beside = PLAIN_KEYS
        .iter()
        .find(|name| reader.password(name).expose() != "");
    if let Some(beside) = beside {
        let sentence = format!(
            "API_KEY and {beside} are both set; accepted is API_KEY alone, which reads, locks and writes, or keys for each right without it."
        );
        reader.problem("API_KEY", sentence);
    }
}

/// The variables of the keys to all names.
pub const PLAIN_KEYS: [&str; 8] = [
    "RESOURCE_READ",
    "RESOURCE_READ_LOCK",
    "RESOURCE_WRITE",
    "RESOURCE_ADMIN",
    "RESOURCE_READ_PREVIOUS",
    "RESOURCE_READ_LOCK_PREVIOUS",
    "RESOURCE_WRITE_PREVIOUS",
    "RESOURCE_ADMIN_PREVIOUS",
];

fn scoped_keys(reader: &mut Reader<'_>) -> Vec<ScopedKey> {
    let Some(path) = reader.text("KEYS_FILE").map(PathBuf::from) else {
        return Vec::new();
    };
    let keys = keys_file::read(&path);
    reader.origins.watched.push(path);
    keys.unwrap_or_else(|why| {
        reader.problem(
            "KEYS_FILE",
            format!("KEYS_FILE is not accepted ({why}); accepted is a TOML file of [[key]] entries with name, sha256, rights, prefixes and, if wanted, expires."),
        );
        Vec::new()
    })
}

/// For each right its key and the one that it replaces.
fn plain_keys(reader: &mut Reader<'_>) -> Vec<PlainKey> {
    let mut keys = Vec::new();
    for (right, name, name_previous) in [
        (Right::Read, "RESOURCE_READ", "RESOURCE_READ_PREVIOUS"),
        (
            Right::Lock,
            "RESOURCE_READ_LOCK",
            "RESOURCE_READ_LOCK_PREVIOUS",
        ),
        (Right::Write, "RESOURCE_WRITE", "RESOURCE_WRITE_PREVIOUS"),
        (Right::Admin, "RESOURCE_ADMIN", "RESOURCE_ADMIN_PREVIOUS"),
    ] {
        let problems_before = reader.problems.len();
        let current = reader.key(name);
        let is_missing = current.is_none() && reader.problems.len() == problems_before;
        if is_missing && right != Right::Admin {
            let sentence = format!(
                "{name} is missing or empty; accepted is the key that clients send in x-api-key, such as `openssl rand -hex 32` makes (or API_KEY, one key in the place of all)."
            );
            reader.problem(name, sentence);
        }
        let previous = reader.key(name_previous);
        if right == Right::Admin && current.is_none() && previous.is_some() {
            let sentence = "RESOURCE_ADMIN_PREVIOUS is set and RESOURCE_ADMIN is not; accepted are both, RESOURCE_ADMIN alone, or neither.";
            reader.problem(name_previous, sentence.to_owned());
        }
        for (key, previous) in [(current, false), (previous, true)] {
            keys.extend(key.map(|key| PlainKey {
                key,
                right,
                previous,
            }));
        }
    }
    keys
}

/// What is kept where, and how long a commit and a listing may take.
fn store(reader: &mut Reader<'_>) -> (StoreKind, Duration, Duration) {
    let kinds = ["mysql", "sqlite", "memory"];
    let choice = reader.choice("STORE", &kinds.map(|kind| (kind, kind)));
    let path = sqlite_path(reader);
    let mysql = mysql(reader, choice == Some("mysql"));
    let timeout = reader.seconds("STORE_TIMEOUT_SECONDS");
    let listing_timeout = reader.seconds("LISTING_TIMEOUT_SECONDS");
    let instance_lease = reader.seconds("INSTANCE_LEASE_SECONDS");
    let kind = match (choice, mysql) {
        (Some("mysql") | None, Some(options)) => StoreKind::Mysql(mysql::Options {
            timeout,
            instance_lease,
            ..options
        }),
        (Some("memory"), _) => StoreKind::Memory,
        _ => StoreKind::Sqlite { path },
    };
    (kind, timeout, listing_timeout)
}

fn peer_port(reader: &mut Reader<'_>, http_port: u16) -> u16 {
    let default = match http_port {
        0 | u16::MAX => 0,
        port => u64::from(port) + 1,
    };
    let port = reader.integer_or("PEER_PORT", default);
    if port == http_port && port != 0 {
        let sentence = format!(
            "PEER_PORT and HTTP_PORT are both {port}; accepted is another port, or 0 for any free one."
        );
        reader.problem("PEER_PORT", sentence);
    }
    port
}

const ADVERTISED: &str = "a host name or an IP address, with :port if it is another than PEER_PORT; an IPv6 address with a port in brackets";

/// A host, and a port if there is one.
fn advertised(text: &str) -> Option<(String, Option<u16>)> {
    if let Ok(address) = IpAddr::from_str(text) {
        return Some((address.to_string(), None));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok().filter(|port| *port != 0)?)),
        None => (text, None),
    };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let fits = !host.is_empty() && host.len() <= 240 && is_host(bare.unwrap_or(host));
    fits.then(|| (bare.unwrap_or(host).to_owned(), port))
}

fn sqlite_path(reader: &mut Reader<'_>) -> PathBuf {
    let accepted = "the path of a file (STORE=memory keeps nothing)";
    reader
        .parsed("SQLITE_PATH", accepted, |value| {
            let path = PathBuf::from(value);
            let is_file = !value.contains(":memory:") && !value.contains('\0') && !path.is_dir();
            is_file.then_some(path)
        })
        .unwrap_or_else(|| PathBuf::from(default_of("SQLITE_PATH")))
}

/// `None` without `MYSQL_HOST`; the rest is checked all the same. What does not begin with `MYSQL_` is yet to be filled
/// in.
fn mysql(reader: &mut Reader<'_>, is_chosen: bool) -> Option<mysql::Options> {
    let host = reader.parsed(
        "MYSQL_HOST",
        "a host name or an IP address; the port goes to MYSQL_PORT",
        |value| is_host(value).then(|| value.to_owned()),
    );
    if host.is_none() && is_chosen {
        let sentence = "STORE is \"mysql\" and MYSQL_HOST is not set; accepted is MYSQL_HOST with the host name of the database, or another STORE.";
        reader.problem("MYSQL_HOST", sentence.to_owned());
    }
    let port = reader.integer("MYSQL_PORT");
    let database = reader.parsed(
        "MYSQL_DATABASE",
        "a name of 1 to 64 characters without control characters",
        |value| {
            let fits = value.chars().count() <= 64 && !value.chars().any(char::is_control);
            fits.then(|| value.to_owned())
        },
    );
    let user = reader.text("MYSQL_USER");
    let password = reader.password("MYSQL_PASSWORD").expose().to_owned();
    let pool_size = reader.integer("MYSQL_POOL_SIZE");
    let tls = mysql_tls(reader);
    Some(mysql::Options {
        host: host?,
        port,
        database: database.unwrap_or_else(|| default_of("MYSQL_DATABASE").to_owned()),
        user: user.unwrap_or_else(|| default_of("MYSQL_USER").to_owned()),
        password,
        pool_size,
        tls,
        timeout: Duration::ZERO,
        instance_lease: Duration::ZERO,
        adopt: None,
        peers: None,
    })
}

fn is_host(text: &str) -> bool {
    let is_name = text
        .chars()
        .all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
    is_name || IpAddr::from_str(text).is_ok()
}

fn mysql_tls(reader: &mut Reader<'_>) -> Tls {
    type FromCa = fn(Option<PathBuf>) -> Tls;
    let choices: [(&str, FromCa); 4] = [
        ("off", |_| Tls::Off),
        ("required", |_| Tls::Required),
        ("verify-ca", |ca_file| Tls::Verified {
            ca_file,
            host: false,
        }),
        ("verify-identity", |ca_file| Tls::Verified {
            ca_file,
            host: true,
        }),
    ];
    let choice = reader.choice("MYSQL_TLS", &choices);
    let ca = certificate_file(reader, "MYSQL_TLS_CA_FILE");
    let tls = choice.map_or(Tls::Off, |with_ca| with_ca(ca.clone()));
    if ca.is_some() && matches!(tls, Tls::Off | Tls::Required) {
        // Somebody who names an authority believes that certificates are checked.
        let sentence = "MYSQL_TLS_CA_FILE is set and MYSQL_TLS does not check certificates; accepted with it are verify-ca and verify-identity.";
        reader.problem("MYSQL_TLS", sentence.to_owned());
    }
    tls
}

fn http(reader: &mut Reader<'_>) -> HttpSettings {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    HttpSettings {
        host: http_host(reader),
        port: reader.integer("HTTP_PORT"),
        workers: reader.integer_or("HTTP_WORKERS", cores.clamp(1, WORKERS_MAX)),
        keep_alive: reader.seconds("KEEP_ALIVE_SECONDS"),
        tls: tls_files(reader),
        connections_max: reader.integer_or("MAX_CONNECTIONS", connections_max()),
        request_head_timeout: reader.seconds("REQUEST_TIMEOUT_SECONDS"),
        body_timeout: reader.seconds("BODY_TIMEOUT_SECONDS"),
        body_bytes_max: reader.integer("MAX_BODY_BYTES"),
        rate_limit_per_second: reader.integer("RATE_LIMIT_PER_SECOND"),
        trusted_proxies: trusted_proxies(reader),
    }
}

/// In a small container as many as a quarter of its memory is enough for, were each to send an unfinished head.
fn connections_max() -> u64 {
    const HEAD_BYTES: u64 = 24 << 10;
    let most = 25_000 * HEAD_BYTES;
    (memory::share(most, 4, memory::limit()) / HEAD_BYTES).max(64)
}

fn http_host(reader: &mut Reader<'_>) -> IpAddr {
    let accepted = "an IP address, such as 0.0.0.0, 127.0.0.1 or ::";
    reader
        .parsed("HTTP_HOST", accepted, |value| {
            let bracketed = value.strip_prefix('[').and_then(|v| v.strip_suffix(']'));
            bracketed.unwrap_or(value).parse().ok()
        })
        .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

fn tls_files(reader: &mut Reader<'_>) -> Option<TlsFiles> {
    let problems_before = reader.problems.len();
    let cert = certificate_file(reader, "TLS_CERT_FILE");
    let key = pem_file(
        reader,
        "TLS_KEY_FILE",
        "a readable file with a private key in PEM",
        |path| private_key(path).map(drop),
    );
    match (cert, key) {
        (Some(cert), Some(key)) => {
            reader.origins.watched.extend([cert.clone(), key.clone()]);
            let files = TlsFiles { cert, key };
            if let Err(sentence) = files.certified_key() {
                reader.problem(
                    "TLS_KEY_FILE",
                    format!("TLS_KEY_FILE is not accepted: {sentence}"),
                );
            }
            Some(files)
        }
        (None, None) => None,
        (cert, _) => {
            let (set, unset) = match cert {
                Some(_) => ("TLS_CERT_FILE", "TLS_KEY_FILE"),
                None => ("TLS_KEY_FILE", "TLS_CERT_FILE"),
            };
            // Where the other one is set but wrong, that has been said.
            if reader.problems.len() == problems_before {
                let sentence =
                    format!("{set} is set and {unset} is not; accepted are both or neither.");
                reader.problem(unset, sentence);
            }
            None
        }
    }
}

fn certificate_file(reader: &mut Reader<'_>, name: &'static str) -> Option<PathBuf> {
    let accepted = "a readable file with certificates in PEM";
    pem_file(reader, name, accepted, |path| certificates(path).map(drop))
}

/// A file for which `check` has no objection.
fn pem_file(
    reader: &mut Reader<'_>,
    name: &'static str,
    accepted: &str,
    check: impl FnOnce(&Path) -> Result<(), String>,
) -> Option<PathBuf> {
    let mut why = String::new();
    let path = reader.parsed(name, accepted, |value| match check(Path::new(value)) {
        Ok(()) => Some(PathBuf::from(value)),
        Err(reason) => {
            why = reason;
            None
        }
    });
    if let (false, Some(problem)) = (why.is_empty(), reader.problems.last_mut()) {
        let sentence = problem.sentence.trim_end_matches('.');
        problem.sentence = format!("{sentence}: {why}.");
    }
    path
}

fn trusted_proxies(reader: &mut Reader<'_>) -> Vec<IpNet> {
    let accepted =
        "IP addresses and networks separated by commas, such as 10.0.0.0/8, 192.168.1.7, fd00::/8";
    reader
        .parsed("TRUSTED_PROXIES", accepted, |value| {
            value
                .split(|c: char| c == ',' || c.is_whitespace())
                .filter(|part| !part.is_empty())
                .map(network)
                .collect()
        })
        .unwrap_or_default()
}

/// A network, or the one address as a network.
fn network(text: &str) -> Option<IpNet> {
    let one = || text.parse::<IpAddr>().map(IpNet::from).ok();
    text.parse::<IpNet>()
        .ok()
        .or_else(one)
        .map(|net| net.trunc())
}

fn compatibility(reader: &mut Reader<'_>) -> Option<Profile> {
    let profiles = [Profile::Default, Profile::Php].map(|profile| (profile.name(), profile));
    reader.choice("COMPATIBILITY", &profiles)
}

/// How long a request waits that does not say, and how long one may.
fn waits(reader: &mut Reader<'_>) -> (Duration, Duration) {
    let wait = reader.seconds("LOCK_WAIT_SECONDS");
    let wait_max = reader.seconds("MAX_WAIT_SECONDS");
    at_most(
        reader,
        ("LOCK_WAIT_SECONDS", wait),
        ("MAX_WAIT_SECONDS", wait_max),
    );
    (wait, wait_max)
}

fn limits(reader: &mut Reader<'_>) -> Limits {
    let claim = reader.seconds("CLAIM_SECONDS");
    let ticket_ttl = reader.seconds("TICKET_TTL_SECONDS");
    at_most(
        reader,
        ("CLAIM_SECONDS", claim),
        ("TICKET_TTL_SECONDS", ticket_ttl),
    );
    let lease_seconds_max: u32 = reader.integer("MAX_LEASE_SECONDS");
    Limits {
        claim_ms: claim.as_millis() as u64,
        ticket_ttl_ms: ticket_ttl.as_millis() as u64,
        lease_seconds_max: Seconds::new(i64::from(lease_seconds_max)).unwrap_or_default(),
        waiters_max: reader.integer("MAX_WAITERS_PER_RESOURCE"),
        ..Limits::default()
    }
}

/// The first must not be longer than the second.
fn at_most(
    reader: &mut Reader<'_>,
    (shorter, short): (&'static str, Duration),
    (longer, long): (&'static str, Duration),
) {
    if short > long {
        let sentence = format!(
            "{longer} is {} and {shorter} is {}; accepted is a {longer} that is not below {shorter}.",
            long.as_secs_f64(),
            short.as_secs_f64()
        );
        reader.problem(longer, sentence);
    }
}

/// In a small container no more than a quarter of its memory.
fn data_cache_bytes(reader: &mut Reader<'_>) -> usize {
    let default = memory::share(268_435_456, 4, memory::limit());
    reader.integer_or("DATA_CACHE_BYTES", default)
}

fn log_filter(reader: &mut Reader<'_>) -> String {
    let accepted =
        "off, error, warn, info, debug or trace, or module=level pairs separated by commas";
    reader
        .parsed("RUST_LOG", accepted, |value| {
            is_log_filter(value).then(|| value.to_owned())
        })
        .unwrap_or_else(|| default_of("RUST_LOG").to_owned())
}

/// `env_logger` only mutters about what it does not understand and goes on without it.
fn is_log_filter(text: &str) -> bool {
    let directives = text
        .split_once('/')
        .map_or(text, |(directives, _)| directives);
    let is_level = |text: &str| text.is_empty() || log::LevelFilter::from_str(text).is_ok();
    directives.split(',').map(str::trim).all(|directive| {
        // Without a level it would be taken for a module, and everything else be silent.
        directive
            .split_once('=')
            .map_or(is_level(directive), |(module, level)| {
                !module.trim().is_empty() && is_level(level.trim())
            })
    })
}
