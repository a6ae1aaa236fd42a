//! How much is held and waited for, counted without a message to each resource.

use actix::Message;

use crate::lock::ResourceName;
use crate::resource::status::ResourceStatus;

/// To the registry: count what live and dormant resources show of themselves, of the names with this prefix.
#[derive(Message)]
#[rtype(result = "Tally")]
pub struct CountLocks {
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
pub fn tally<'a>(
    live: impl Iterator<Item = (&'a ResourceName, ResourceStatus)>,
    asked: &CountLocks,
) -> Tally {
    let mut tally = Tally::default();
    for (_, status) in live.filter(|(name, _)| name.as_str().starts_with(&asked.prefix)) {
        tally.held += usize::from(status.held_since.is_some());
        tally.reserved += usize::from(status.locked && status.held_since.is_none());
        tally.waiting += status.waiting;
    }
    tally
}
