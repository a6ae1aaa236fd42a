//! Settings of servers that tests and benches put together from their parts.

use small_resource_server::config::Settings;
use small_resource_server::shared::server_state::ServerSettings;

/// Of a server on the memory store for which nothing else is set.
pub fn server_settings() -> ServerSettings {
    let pairs = [("API_KEY", "key"), ("STORE", "memory")];
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = Settings::from_pairs(pairs, None);
    settings.expect("settings that are accepted").server
}
