//! Every variable there is. The readers, the help text, the search for misspelt names and the test of
//! the template all go by this list, so that none of them can forget one.

/// One variable, as it is explained to a person.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    pub name: &'static str,
    /// In words or as it would be written; empty for "none".
    pub default: &'static str,
    /// Its value is never shown.
    pub secret: bool,
    /// What it does, in one line.
    pub about: &'static str,
}

const fn plain(name: &'static str, default: &'static str, about: &'static str) -> Variable {
    Variable {
        name,
        default,
        secret: false,
        about,
    }
}

const fn secret(name: &'static str, about: &'static str) -> Variable {
    Variable {
        name,
        default: "",
        secret: true,
        about,
    }
}

/// In the order in which people read about them.
pub const VARIABLES: &[Variable] = &[
    secret(
        "API_KEY",
        "one key to read, lock and write, in the place of the three below",
    ),
    secret("RESOURCE_READ", "key to read; required without API_KEY"),
    secret(
        "RESOURCE_READ_LOCK",
        "key to read and lock; required without API_KEY",
    ),
    secret(
        "RESOURCE_WRITE",
        "key to read, lock and write; required without API_KEY",
    ),
    secret("RESOURCE_ADMIN", "key for all that and force-unlock"),
    secret(
        "RESOURCE_READ_PREVIOUS",
        "accepted beside RESOURCE_READ while keys rotate",
    ),
    secret(
        "RESOURCE_READ_LOCK_PREVIOUS",
        "accepted beside RESOURCE_READ_LOCK while keys rotate",
    ),
    secret(
        "RESOURCE_WRITE_PREVIOUS",
        "accepted beside RESOURCE_WRITE while keys rotate",
    ),
    secret(
        "RESOURCE_ADMIN_PREVIOUS",
        "accepted beside RESOURCE_ADMIN while keys rotate",
    ),
    plain(
        "KEYS_FILE",
        "",
        "TOML file with keys for some names only (see docs/tls-and-proxies.md)",
    ),
    plain(
        "STORE",
        "mysql when MYSQL_HOST is set, else sqlite",
        "mysql, sqlite or memory",
    ),
    plain(
        "SQLITE_PATH",
        "data/resources.db",
        "file of the embedded store",
    ),
    plain("MYSQL_HOST", "", "host name or address of MySQL or MariaDB"),
    plain("MYSQL_PORT", "3306", "its port"),
    plain(
        "MYSQL_DATABASE",
        "small_swoole_resource",
        "its database, created when absent",
    ),
    plain("MYSQL_USER", "root", "its user"),
    secret("MYSQL_PASSWORD", "the user's password"),
    plain("MYSQL_POOL_SIZE", "8", "connections to it at most"),
    plain(
        "MYSQL_TLS",
        "off",
        "off, required, verify-ca or verify-identity",
    ),
    plain(
        "MYSQL_TLS_CA_FILE",
        "the public authorities",
        "PEM file of the authorities to trust for it",
    ),
    plain(
        "STORE_TIMEOUT_SECONDS",
        "5",
        "a change not committed by then is answered 503",
    ),
    plain(
        "INSTANCE_LEASE_SECONDS",
        "4",
        "silence after which a stand-by takes over; the same for all instances",
    ),
    plain("HTTP_HOST", "0.0.0.0", "address to listen on"),
    plain("HTTP_PORT", "9501", "port to listen on; 0: any free one"),
    plain("HTTP_WORKERS", "one per core", "threads that take requests"),
    plain(
        "KEEP_ALIVE_SECONDS",
        "75",
        "how long an idle connection is kept",
    ),
    plain("TLS_CERT_FILE", "", "PEM certificate chain; turns TLS on"),
    plain("TLS_KEY_FILE", "", "PEM private key"),
    plain(
        "MAX_CONNECTIONS",
        "25000",
        "open connections at most; fewer by default in a container with less than 2.4 GB of memory",
    ),
    plain(
        "REQUEST_TIMEOUT_SECONDS",
        "10",
        "time a client has to send a request head",
    ),
    plain(
        "BODY_TIMEOUT_SECONDS",
        "30",
        "time a client has to send a request body",
    ),
    plain("MAX_BODY_BYTES", "2097152", "largest request body"),
    plain(
        "RATE_LIMIT_PER_SECOND",
        "0",
        "requests per second and client; 0: no limit",
    ),
    plain(
        "TRUSTED_PROXIES",
        "",
        "addresses or networks whose X-Forwarded-For is believed",
    ),
    plain(
        "COMPATIBILITY",
        "default, or php on a database of the PHP server",
        "default or php",
    ),
    plain(
        "LOCK_WAIT_SECONDS",
        "0",
        "how long a request without ?wait= waits for a lock (php profile: the resource's timeout instead)",
    ),
    plain("MAX_WAIT_SECONDS", "300", "largest ?wait="),
    plain(
        "CLAIM_SECONDS",
        "5",
        "how long a lock stays reserved for a waiter after its last request",
    ),
    plain(
        "TICKET_TTL_SECONDS",
        "60",
        "a waiting ticket not presented for this long is dropped",
    ),
    plain(
        "MAX_LEASE_SECONDS",
        "0",
        "longest life of any lease; 0: no limit",
    ),
    plain("MAX_WAITERS", "100000", "open requests that wait, in all"),
    plain(
        "MAX_WAITERS_PER_RESOURCE",
        "20000",
        "waiting tickets of one resource",
    ),
    plain("MAX_SELECTORS", "10000", "selectors of one resource"),
    plain(
        "HISTORY_PER_RESOURCE",
        "20",
        "past leases kept of each name; 0: none",
    ),
    plain(
        "DATA_CACHE_BYTES",
        "268435456",
        "selector data kept in memory; by default no more than a quarter of a container's memory",
    ),
    plain(
        "SHUTDOWN_DELAY_SECONDS",
        "0",
        "requests are still taken for this long after SIGTERM",
    ),
    plain(
        "SHUTDOWN_SECONDS",
        "20",
        "time for requests in flight to finish at the end",
    ),
    plain(
        "RUST_LOG",
        "info",
        "log filter: error, warn, info, debug, trace",
    ),
    plain("ACCESS_LOG", "false", "true: one log line per request"),
    plain(
        CONFIG_FILE,
        "/etc/small-swoole-resource-server.conf, else .env, where they exist",
        "the file that variables are read from besides the environment",
    ),
];

/// Names the file; read from the environment only.
pub const CONFIG_FILE: &str = "CONFIG_FILE";

/// The variable of that name, spelt exactly so.
pub fn find(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|v| v.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_variable_is_listed_once() {
        for (index, variable) in VARIABLES.iter().enumerate() {
            assert!(
                VARIABLES[..index].iter().all(|v| v.name != variable.name),
                "{} is listed twice",
                variable.name
            );
        }
    }

    #[test]
    fn keys_and_the_password_are_secret_and_nothing_else_is() {
        for variable in VARIABLES {
            let confidential = variable.name.starts_with("RESOURCE_")
                || ["API_KEY", "MYSQL_PASSWORD"].contains(&variable.name);
            assert_eq!(variable.secret, confidential, "{}", variable.name);
        }
    }
}
