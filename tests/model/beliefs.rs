//! What clients may rightly believe, judged from outside: the rules that the core cannot see by itself.

use small_resource_server::lock::invariants::Broken;
use small_resource_server::lock::{FencingToken, Millis, Seconds};

/// A client was told of a grant. It counts the TTL from when it *sent* its request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Belief {
    pub token: FencingToken,
    /// The last millisecond in which the client counts on its lease. `None`: it does not expire.
    pub until: Option<Millis>,
}

impl Belief {
    pub fn new(token: FencingToken, sent: Millis, ttl: Seconds) -> Belief {
        Belief {
            token,
            until: ttl.limit_ms().map(|ms| sent + ms),
        }
    }

    /// A renewal never shortens what was promised.
    pub fn extend(&mut self, sent: Millis, ttl: Seconds) {
        let renewed = ttl.limit_ms().map(|ms| sent + ms);
        self.until = match (self.until, renewed) {
            (Some(old), Some(new)) => Some(old.max(new)),
            _ => None,
        };
    }

    pub fn counts(&self, now: Millis) -> bool {
        self.until.is_none_or(|until| now <= until)
    }
}

/// "at most one live lease for a resource": no two clients count on one at the same time.
pub fn at_most_one<'a>(
    beliefs: impl IntoIterator<Item = &'a Belief>,
    now: Millis,
) -> Result<(), Broken> {
    let count = beliefs.into_iter().filter(|b| b.counts(now)).count();
    if count > 1 {
        return Err("two clients rightly believe that they hold the lock");
    }
    Ok(())
}

/// "a lease never ends early": whoever rightly believes that it holds does hold.
pub fn not_early<'a>(
    beliefs: impl IntoIterator<Item = &'a Belief>,
    held: Option<FencingToken>,
    now: Millis,
) -> Result<(), Broken> {
    let all_hold = beliefs
        .into_iter()
        .filter(|belief| belief.counts(now))
        .all(|belief| held == Some(belief.token));
    if all_hold {
        Ok(())
    } else {
        Err("a lease ended while its client rightly counted on it")
    }
}
