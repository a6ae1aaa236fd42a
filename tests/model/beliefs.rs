//! What clients may rightly believe, judged from outside: the rules that the core cannot see by itself.

use small_resource_server::lock::invariants::Broken;
use small_resource_server::lock::{FencingToken, Millis, Mode, Ttl};

/// A client was told of a grant. It counts the TTL from when it *sent* its request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Belief {
    pub token: FencingToken,
    pub mode: Mode,
    /// The client counts on its lease until then. `None`: it does not expire.
    pub until: Option<Millis>,
}

impl Belief {
    pub fn new(token: FencingToken, mode: Mode, sent: Millis, ttl: Ttl) -> Belief {
        Belief {
            token,
            mode,
            until: ttl.limit_ms().map(|ms| sent + ms),
        }
    }

    /// A renewal never shortens what was promised.
    pub fn extend(&mut self, sent: Millis, ttl: Ttl) {
        let renewed = ttl.limit_ms().map(|ms| sent + ms);
        self.until = match (self.until, renewed) {
            (Some(old), Some(new)) => Some(old.max(new)),
            _ => None,
        };
    }

    /// Its client asked for less and does not know yet from when on that counts.
    pub fn cut(&mut self, until: Millis) {
        self.until = Some(self.until.map_or(until, |old| old.min(until)));
    }

    pub fn counts(&self, now: Millis) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// "leases that stand together are all shared, or at most `slots` exclusive ones": so do those that clients
/// count on.
pub fn stand_together<'a>(
    beliefs: impl IntoIterator<Item = &'a Belief>,
    slots: usize,
    now: Millis,
) -> Result<(), Broken> {
    let counted: Vec<_> = beliefs.into_iter().filter(|b| b.counts(now)).collect();
    let exclusive = counted.iter().filter(|b| b.mode == Mode::Exclusive).count();
    if exclusive > slots {
        return Err("more clients rightly believe that they hold the lock than may");
    }
    if exclusive > 0 && exclusive < counted.len() {
        return Err("a client rightly believes that it shares what another has to itself");
    }
    Ok(())
}

/// "a lease never ends early": whoever rightly believes that it holds does hold.
pub fn not_early<'a>(
    beliefs: impl IntoIterator<Item = &'a Belief>,
    held: &[FencingToken],
    now: Millis,
) -> Result<(), Broken> {
    let all_hold = beliefs
        .into_iter()
        .filter(|belief| belief.counts(now))
        .all(|belief| held.contains(&belief.token));
    if all_hold {
        Ok(())
    } else {
        Err("a lease ended while its client rightly counted on it")
    }
}
