//! How much is held and waited for, counted without a message to each resource.

use actix::Message;

use crate::lock::ResourceName;
use crate::registry::client::Router;
use crate::resource::status::Sight;
use crate::shared::gate::Closed;

/// To the registry: count what live and dormant resources show of themselves, of the names with this prefix.
#[derive(Message)]
#[rtype(result = "Tally")]
pub struct Count {
    pub prefix: String,
}

/// How much is held and waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Resources that are held.
    pub held: usize,
    /// Resources that are reserved for a waiter.
    pub reserved: usize,
    /// Tickets that wait.
    pub waiting: usize,
}

/// Takes time in proportion to their number.
pub fn tally<'a>(live: impl Iterator<Item = (&'a ResourceName, Sight)>, asked: &Count) -> Tally {
    let mut tally = Tally::default();
    for (_, sight) in live.filter(|(name, _)| name.as_str().starts_with(&asked.prefix)) {
        tally.held += usize::from(sight.held_since.is_some());
        tally.reserved += usize::from(sight.locked && sight.held_since.is_none());
        tally.waiting += sight.waiting;
    }
    tally
}

impl Router {
    /// Of the names with this prefix.
    pub async fn tally(&self, prefix: String) -> Result<Tally, Closed> {
        let counted = self.registry.send(Count { prefix }).await;
        counted.map_err(|_| Closed::StoreAway)
    }
}
