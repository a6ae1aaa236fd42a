//! Settings that may change while the server runs: keys, trusted proxies, the rate limit.

use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use super::auth::Keys;
use super::limit::RateLimit;
use crate::config::Settings;

/// The changeable settings, as they were last read.
#[derive(Clone, Default)]
pub struct Policy {
    pub keys: Keys,
    pub trusted_proxies: Vec<IpNet>,
    /// This instance's share of `RATE_LIMIT_PER_SECOND`; `None`: no limit.
    pub rate: Option<Arc<RateLimit>>,
    per_second: u32,
    /// The number of instances that share the limit.
    pub instances: u32,
}

/// The policy in force, shared by all workers. Loading it costs a request next to nothing.
pub type SharedPolicy = Arc<ArcSwap<Policy>>;

impl Policy {
    /// The policy of these settings. Keeps the counters of `before` if limit and keys are the same: a counter
    /// belongs to the index of a key.
    pub fn new(settings: &Settings, before: Option<&Policy>) -> Policy {
        let counted = before.filter(|policy| policy.keys == settings.keys);
        let counted = counted.and_then(|policy| policy.rate.clone());
        let instances = before.map_or(1, |policy| policy.instances);
        let per_second = settings.http.rate_limit_per_second;
        Policy {
            keys: settings.keys.clone(),
            trusted_proxies: settings.http.trusted_proxies.clone(),
            rate: part(per_second, instances, counted),
            per_second,
            instances,
        }
    }

    /// The same policy when `instances` instances serve, each of which allows its share of the requests.
    pub fn shared_by(&self, instances: u32) -> Policy {
        Policy {
            rate: part(self.per_second, instances, self.rate.clone()),
            instances,
            ..self.clone()
        }
    }
}

/// One instance's share of the limit, rounded up, so that it is 0 (no limit) only if the limit is. Keeps
/// `counted` if its limit is the same.
fn part(
    per_second: u32,
    instances: u32,
    counted: Option<Arc<RateLimit>>,
) -> Option<Arc<RateLimit>> {
    let part = per_second.div_ceil(instances.max(1));
    match counted {
        Some(rate) if rate.per_second() == part => Some(rate),
        _ => RateLimit::new(part).map(Arc::new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_shared_out_among_the_instances_and_never_nothing() {
        let limit =
            |per_second, instances| part(per_second, instances, None).map(|r| r.per_second());
        assert_eq!(limit(0, 3), None);
        assert_eq!(limit(90, 3), Some(30));
        assert_eq!(limit(100, 3), Some(34));
        assert_eq!(limit(2, 3), Some(1));
        let alone = part(9, 1, None);
        let still = part(9, 1, alone.clone()).unwrap();
        assert!(
            Arc::ptr_eq(&still, &alone.unwrap()),
            "the counters are kept"
        );
    }
}
