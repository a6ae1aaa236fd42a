//! What may change while the server runs: keys, trusted proxies, the rate limit.

use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use smol_str::SmolStr;

use super::auth::{Keys, Right, ScopedGrants};
use super::limit::RateLimit;
use crate::config::{KeyRight, Settings};

/// As the settings were last read.
#[derive(Default)]
pub struct Policy {
    pub keys: Keys,
    pub trusted_proxies: Vec<IpNet>,
    /// `None`: off.
    pub rate: Option<Arc<RateLimit>>,
}

/// The policy in force, shared by all workers. To load it costs a request next to nothing.
pub type SharedPolicy = Arc<ArcSwap<Policy>>;

impl Policy {
    /// Keeps what `before` has counted where limit and keys are the same: it is counted by key.
    pub fn new(settings: &Settings, before: Option<&Policy>) -> Policy {
        let per_second = settings.http.rate_limit_per_second;
        let keys = keys(settings);
        let counted = before.filter(|policy| policy.keys == keys);
        let counted = counted.and_then(|policy| policy.rate.clone());
        let rate = match counted {
            Some(rate) if rate.per_second() == per_second => Some(rate),
            _ => RateLimit::new(per_second).map(Arc::new),
        };
        Policy {
            keys,
            trusted_proxies: settings.http.trusted_proxies.clone(),
            rate,
        }
    }
}

fn keys(settings: &Settings) -> Keys {
    let mut keys = Keys::default();
    if let Some(api) = &settings.keys.api {
        keys.add(api.expose(), Right::Write, false);
    }
    let by_right = [
        (&settings.keys.read, Right::Read),
        (&settings.keys.read_lock, Right::Lock),
        (&settings.keys.write, Right::Write),
        (&settings.keys.admin, Right::Admin),
    ];
    for (secrets, right) in by_right {
        for (n, secret) in secrets.iter().enumerate() {
            keys.add(secret.expose(), right, n > 0);
        }
    }
    for key in &settings.keys.scoped {
        keys.add_scoped(ScopedGrants {
            name: SmolStr::new(&key.name),
            sha256: key.sha256,
            right: match key.right {
                KeyRight::Read => Right::Read,
                KeyRight::ReadLock => Right::Lock,
                KeyRight::Write => Right::Write,
                KeyRight::Admin => Right::Admin,
            },
            prefixes: key.prefixes.clone(),
            expires: key.expires,
        });
    }
    keys
}
