//! The list of all variables. The readers, the help text, the search for misspelt names and the test of
//! the template all use this list, so that none of them can forget one. Defaults and bounds are defined here only.

use crate::lock::{Millis, Seconds};

/// One variable, as it is explained to a person.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    pub name: &'static str,
    /// As it would be written, or in words; empty if there is none.
    pub default: &'static str,
    /// Its value is never shown.
    pub secret: bool,
    pub accepts: AcceptedValues,
    /// What it does, in one line.
    pub about: &'static str,
}

/// Which values a variable accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptedValues {
    /// Text; the reader of the variable decides.
    Text,
    /// From the first number to the second, both included.
    Integer(u64, u64),
    /// Decimal seconds; the bounds are in milliseconds.
    Seconds(Millis, Millis),
}

const MILLISECOND: Millis = 1;
const HOUR: Millis = 3_600_000;
const DAY: Millis = 24 * HOUR;
const COUNT_MAX: u64 = 1_000_000_000;
/// The most worker threads that `actix-server` allows.
pub(super) const WORKERS_MAX: u64 = 512;

const fn plain(name: &'static str, default: &'static str, about: &'static str) -> Variable {
    Variable {
        name,
        default,
        secret: false,
        accepts: AcceptedValues::Text,
        about,
    }
}

const fn integer(
    name: &'static str,
    default: &'static str,
    least: u64,
    most: u64,
    about: &'static str,
) -> Variable {
    Variable {
        accepts: AcceptedValues::Integer(least, most),
        ..plain(name, default, about)
    }
}

const fn seconds(
    name: &'static str,
    default: &'static str,
    least: Millis,
    most: Millis,
    about: &'static str,
) -> Variable {
    Variable {
        accepts: AcceptedValues::Seconds(least, most),
        ..plain(name, default, about)
    }
}

const fn secret(name: &'static str, about: &'static str) -> Variable {
    Variable {
        secret: true,
        ..plain(name, "", about)
    }
}

/// In the order of the help and of the documentation.
#[rustfmt::skip]
pub const VARIABLES: &[Variable] = &[
    secret("API_KEY", "one key to read, lock and write, in the place of the three below"),
    secret("RESOURCE_READ", "key to read; required without API_KEY"),
    secret("RESOURCE_READ_LOCK", "key to read and lock; required without API_KEY"),
    secret("RESOURCE_WRITE", "key to read, lock and write; required without API_KEY"),
    secret("RESOURCE_ADMIN", "key for all that and force-unlock"),
    secret("RESOURCE_READ_PREVIOUS", "accepted beside RESOURCE_READ while keys rotate"),
    secret("RESOURCE_READ_LOCK_PREVIOUS", "accepted beside RESOURCE_READ_LOCK while keys rotate"),
    secret("RESOURCE_WRITE_PREVIOUS", "accepted beside RESOURCE_WRITE while keys rotate"),
    secret("RESOURCE_ADMIN_PREVIOUS", "accepted beside RESOURCE_ADMIN while keys rotate"),
    plain("KEYS_FILE", "", "TOML file with keys for some names only (see docs/tls-and-proxies.md)"),
    plain("STORE", "mysql when MYSQL_HOST is set, else sqlite", "mysql, sqlite or memory"),
    plain("SQLITE_PATH", "data/resources.db", "file of the embedded store"),
    plain("MYSQL_HOST", "", "host name or address of MySQL or MariaDB"),
    integer("MYSQL_PORT", "3306", 1, 65_535, "its port"),
    plain("MYSQL_DATABASE", "small_swoole_resource", "its database, created when absent"),
    plain("MYSQL_USER", "root", "its user"),
    secret("MYSQL_PASSWORD", "the user's password"),
    integer("MYSQL_POOL_SIZE", "8", 1, 1024, "connections to it at most"),
    plain("MYSQL_TLS", "off", "off, required, verify-ca or verify-identity"),
    plain("MYSQL_TLS_CA_FILE", "the public authorities", "PEM file of the authorities to trust for it"),
    seconds("STORE_TIMEOUT_SECONDS", "5", MILLISECOND, HOUR, "a change not committed by then is answered 503"),
    seconds("LISTING_TIMEOUT_SECONDS", "1", MILLISECOND, HOUR, "a listing that takes longer is answered 503 too_busy"),
    seconds("INSTANCE_LEASE_SECONDS", "4", 1_000, HOUR,
        "silence after which other instances take over an instance's names; the same value for all"),
    integer("PEER_PORT", "HTTP_PORT + 1", 0, 65_535, "port for the other instances on one MySQL; 0: any free one"),
    plain("ADVERTISE_ADDRESS", "the local address of the connection to the database",
        "host or host:port where other instances reach this one"),
    plain("HTTP_HOST", "0.0.0.0", "address to listen on"),
    integer("HTTP_PORT", "9501", 0, 65_535, "port to listen on; 0: any free one"),
    integer("HTTP_WORKERS", "one per core", 1, WORKERS_MAX, "threads that take requests"),
    seconds("KEEP_ALIVE_SECONDS", "75", 0, DAY, "how long an idle connection is kept"),
    plain("TLS_CERT_FILE", "", "PEM certificate chain; turns TLS on"),
    plain("TLS_KEY_FILE", "", "PEM private key"),
    integer("MAX_CONNECTIONS", "25000", 1, COUNT_MAX,
        "open connections at most; fewer by default in a container with less than 2.4 GB of memory"),
    seconds("REQUEST_TIMEOUT_SECONDS", "10", MILLISECOND, HOUR, "time a client has to send a request head"),
    seconds("BODY_TIMEOUT_SECONDS", "30", MILLISECOND, HOUR, "time a client has to send a request body"),
    integer("MAX_BODY_BYTES", "2097152", 1, 1 << 30, "largest request body"),
    integer("RATE_LIMIT_PER_SECOND", "0", 0, COUNT_MAX, "requests per second and client; 0: no limit"),
    plain("TRUSTED_PROXIES", "", "addresses or networks whose X-Forwarded-For is believed"),
    plain("COMPATIBILITY", "default, or php on a database of the PHP server", "default or php"),
    seconds("LOCK_WAIT_SECONDS", "0", 0, DAY,
        "how long a request without ?wait= waits for a lock (php profile: the resource's timeout instead)"),
    seconds("MAX_WAIT_SECONDS", "300", 0, DAY, "largest ?wait="),
    seconds("CLAIM_SECONDS", "5", MILLISECOND, HOUR,
        "how long a lock stays reserved for a waiter after its last request"),
    seconds("TICKET_TTL_SECONDS", "60", MILLISECOND, 30 * DAY,
        "a waiting ticket not presented for this long is dropped"),
    integer("MAX_LEASE_SECONDS", "0", 0, Seconds::MAX as u64, "longest life of any lease; 0: no limit"),
    integer("MAX_WAITERS", "100000", 1, COUNT_MAX, "open requests that wait, in all"),
    integer("MAX_WAITERS_PER_RESOURCE", "20000", 1, COUNT_MAX, "waiting tickets of one resource"),
    integer("MAX_SELECTORS", "10000", 1, COUNT_MAX, "selectors of one resource"),
    integer("HISTORY_PER_RESOURCE", "20", 0, 1_000, "past leases kept of each name; 0: none"),
    integer("DATA_CACHE_BYTES", "268435456", 0, 1 << 50,
        "selector data kept in memory; by default no more than a quarter of a container's memory"),
    seconds("SHUTDOWN_DELAY_SECONDS", "0", 0, HOUR, "requests are still taken for this long after SIGTERM"),
    seconds("SHUTDOWN_SECONDS", "20", 0, HOUR, "time for requests in flight to finish at the end"),
    plain("RUST_LOG", "info", "log filter: error, warn, info, debug, trace"),
    plain("ACCESS_LOG", "false", "true: one log line per request"),
    plain(CONFIG_FILE, "/etc/small-swoole-resource-server.conf, else .env, where they exist",
        "the file that variables are read from besides the environment"),
];

/// The variable that names the file of settings; read from the environment only.
pub const CONFIG_FILE: &str = "CONFIG_FILE";

/// The variable with exactly this name.
pub fn find(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|v| v.name == name)
}
