//! Turns all variables into [`Settings`], and checks those that depend on each other.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::parse::default_of;
use super::sources::Reader;
use super::variables::WORKERS_MAX;
use super::{HttpSettings, Settings, StoreKind};
use super::{keys, memory, store, tls};
use crate::lock::{Millis, Profile, Seconds, Terms};
use crate::shared::server_state::ServerSettings;

/// How long a resource that nobody uses stays in memory.
const RETIRE_MS: Millis = 10_000;

impl Settings {
    /// Reads the process environment, and the given file, else the one that `CONFIG_FILE` names, else
    /// `/etc/small-swoole-resource-server.conf` when it exists, else `.env` when it exists.
    ///
    /// # Errors
    /// All problems at once: a file that cannot be read, lines that are not understood, values that are
    /// not accepted, settings that contradict each other. Each is a sentence on a line of its own, which names the
    /// variable, the value unless that is secret, and what is accepted.
    pub fn load(file: Option<PathBuf>) -> Result<Settings, String> {
        Settings::from_reader(Reader::of_process(file)?)
    }

    /// Settings from given variables instead of the process environment, and from the path and text of a file.
    /// The path is for messages only. Reads no other files but those that variables name: certificates, keys
    /// and secrets.
    pub fn from_pairs(
        environment: impl IntoIterator<Item = (String, String)>,
        file: Option<(PathBuf, String)>,
    ) -> Result<Settings, String> {
        Settings::from_reader(Reader::new(environment, file))
    }

    fn from_reader(mut reader: Reader) -> Result<Settings, String> {
        // Variables in lines that could not be read would be reported again, as missing.
        if !reader.problems.is_empty() {
            return Err(reader.problems.join("\n"));
        }
        let keys = keys::read(&mut reader);
        let (mut store, store_timeout, listing_timeout) = store::read(&mut reader);
        let http = http(&mut reader);
        let peer_port = peer_port(&mut reader, http.port);
        let advertise = reader.parsed("ADVERTISE_ADDRESS", ADVERTISED, advertised);
        let profiles = [Profile::Default, Profile::Php].map(|profile| (profile.name(), profile));
        let compatibility = reader.choice("COMPATIBILITY", &profiles);
        if let StoreKind::Mysql(options) = &mut store {
            options.adopt = compatibility;
        }
        let (wait, wait_max) = waits(&mut reader);
        let cache_bytes = memory::share(268_435_456, memory::limit());
        let server = ServerSettings {
            compatibility,
            wait_ms: wait.as_millis() as u64,
            store_timeout_ms: store_timeout.as_millis() as u64,
            listing_timeout_ms: listing_timeout.as_millis() as u64,
            terms: terms(&mut reader, compatibility.unwrap_or_default()),
            waiters_max: reader.integer("MAX_WAITERS"),
            selectors_max: reader.integer("MAX_SELECTORS"),
            history_per_resource: reader.integer("HISTORY_PER_RESOURCE"),
            data_cache_bytes: reader.integer_or("DATA_CACHE_BYTES", cache_bytes),
            retire_ms: RETIRE_MS,
        };
        let shutdown_delay = reader.seconds("SHUTDOWN_DELAY_SECONDS");
        let shutdown_timeout = reader.seconds("SHUTDOWN_SECONDS");
        let log_filter = log_filter(&mut reader);
        let access_log = reader.flag("ACCESS_LOG");
        if !reader.problems.is_empty() {
            return Err(reader.problems.join("\n"));
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

fn peer_port(reader: &mut Reader, http_port: u16) -> u16 {
    let default = match http_port {
        0 | u16::MAX => 0,
        port => u64::from(port) + 1,
    };
    let port = reader.integer_or("PEER_PORT", default);
    if port == http_port && port != 0 {
        let sentence = format!(
            "PEER_PORT and HTTP_PORT are both {port}; accepted is another port, or 0 for any free one."
        );
        reader.problems.push(sentence);
    }
    port
}

const ADVERTISED: &str = "a host name or an IP address, with :port if it is another than PEER_PORT; an IPv6 address with a port in brackets";

/// Parses a host, with a port if there is one.
fn advertised(text: &str) -> Option<(String, Option<u16>)> {
    if let Ok(address) = IpAddr::from_str(text) {
        return Some((address.to_string(), None));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok().filter(|port| *port != 0)?)),
        None => (text, None),
    };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let fits = !host.is_empty() && host.len() <= 240 && store::is_host(bare.unwrap_or(host));
    fits.then(|| (bare.unwrap_or(host).to_owned(), port))
}

fn http(reader: &mut Reader) -> HttpSettings {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    HttpSettings {
        host: http_host(reader),
        port: reader.integer("HTTP_PORT"),
        workers: reader.integer_or("HTTP_WORKERS", cores.clamp(1, WORKERS_MAX)),
        keep_alive: reader.seconds("KEEP_ALIVE_SECONDS"),
        tls: tls::certified(reader),
        connections_max: reader.integer_or("MAX_CONNECTIONS", connections_max()),
        request_head_timeout: reader.seconds("REQUEST_TIMEOUT_SECONDS"),
        body_timeout: reader.seconds("BODY_TIMEOUT_SECONDS"),
        body_bytes_max: reader.integer("MAX_BODY_BYTES"),
        rate_limit_per_second: reader.integer("RATE_LIMIT_PER_SECOND"),
        trusted_proxies: trusted_proxies(reader),
    }
}

/// The default of `MAX_CONNECTIONS`. In a small container it is the number of connections whose unfinished request
/// heads fit into a quarter of the memory.
fn connections_max() -> u64 {
    const HEAD_BYTES: u64 = 24 << 10;
    let most = 25_000 * HEAD_BYTES;
    (memory::share(most, memory::limit()) / HEAD_BYTES).max(64)
}

fn http_host(reader: &mut Reader) -> IpAddr {
    let accepted = "an IP address, such as 0.0.0.0, 127.0.0.1 or ::";
    reader
        .parsed("HTTP_HOST", accepted, |value| {
            let bracketed = value.strip_prefix('[').and_then(|v| v.strip_suffix(']'));
            bracketed.unwrap_or(value).parse().ok()
        })
        .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

fn trusted_proxies(reader: &mut Reader) -> Vec<IpNet> {
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

/// A network; a single address becomes a network of its own.
fn network(text: &str) -> Option<IpNet> {
    let one = || text.parse::<IpAddr>().map(IpNet::from).ok();
    text.parse::<IpNet>()
        .ok()
        .or_else(one)
        .map(|net| net.trunc())
}

/// How long a request without `?wait=` waits, and the largest `?wait=`.
fn waits(reader: &mut Reader) -> (Duration, Duration) {
    let wait = reader.seconds("LOCK_WAIT_SECONDS");
    let wait_max = reader.seconds("MAX_WAIT_SECONDS");
    at_most(
        reader,
        ("LOCK_WAIT_SECONDS", wait),
        ("MAX_WAIT_SECONDS", wait_max),
    );
    (wait, wait_max)
}

fn terms(reader: &mut Reader, profile: Profile) -> Terms {
    let claim = reader.seconds("CLAIM_SECONDS");
    let ticket_ttl = reader.seconds("TICKET_TTL_SECONDS");
    at_most(
        reader,
        ("CLAIM_SECONDS", claim),
        ("TICKET_TTL_SECONDS", ticket_ttl),
    );
    let lease_seconds_max: u32 = reader.integer("MAX_LEASE_SECONDS");
    Terms {
        profile,
        claim_ms: claim.as_millis() as u64,
        ticket_ttl_ms: ticket_ttl.as_millis() as u64,
        lease_seconds_max: Seconds::new(i64::from(lease_seconds_max)).unwrap_or_default(),
        waiters_max: reader.integer("MAX_WAITERS_PER_RESOURCE"),
    }
}

/// Reports a problem if the first time is longer than the second.
fn at_most(
    reader: &mut Reader,
    (shorter, short): (&'static str, Duration),
    (longer, long): (&'static str, Duration),
) {
    if short > long {
        let sentence = format!(
            "{longer} is {} and {shorter} is {}; accepted is a {longer} that is not below {shorter}.",
            long.as_secs_f64(),
            short.as_secs_f64()
        );
        reader.problems.push(sentence);
    }
}

fn log_filter(reader: &mut Reader) -> String {
    let accepted =
        "off, error, warn, info, debug or trace, or module=level pairs separated by commas";
    reader
        .parsed("RUST_LOG", accepted, |value| {
            is_log_filter(value).then(|| value.to_owned())
        })
        .unwrap_or_else(|| default_of("RUST_LOG").to_owned())
}

/// Whether all parts of the filter are understood. `env_logger` only prints a warning about a part that it does not
/// understand, and ignores it.
fn is_log_filter(text: &str) -> bool {
    let directives = text
        .split_once('/')
        .map_or(text, |(directives, _)| directives);
    let is_level = |text: &str| text.is_empty() || log::LevelFilter::from_str(text).is_ok();
    directives.split(',').map(str::trim).all(|directive| {
        // A word that is no level would be taken for a module, and all other modules would be silent.
        directive
            .split_once('=')
            .map_or(is_level(directive), |(module, level)| {
                !module.trim().is_empty() && is_level(level.trim())
            })
    })
}
