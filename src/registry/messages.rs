//! Messages to the registry.

use actix::{Addr, ArbiterHandle, Message};

use crate::lock::{FencingToken, Millis, ResourceName};
use crate::registry::lock_counts::LockCounts;
use crate::resource::actor::ResourceActor;
use crate::store::ListQuery;

/// Returns the address of a resource's actor. If there is none, starts one on the thread `home`. `None`: this instance
/// does not answer for the name.
#[derive(Message)]
#[rtype(result = "Option<Addr<ResourceActor>>")]
pub struct Find {
    pub name: ResourceName,
    pub home: ArbiterHandle,
}

/// Returns where each of these resources is, in the order of `names`.
#[derive(Message)]
#[rtype(result = "Vec<ResourceLocation>")]
pub struct Locate {
    pub names: Vec<ResourceName>,
}

/// Where a resource is.
pub enum ResourceLocation {
    /// It has this actor.
    Live(Addr<ResourceActor>),
    /// It has no actor, and is held by the lease with this token. `expires`: on the monotonic clock; `None` if the lease
    /// does not expire.
    Dormant {
        token: FencingToken,
        expires: Option<Millis>,
    },
    /// In the store only, if it exists.
    Stored,
}

/// Returns the names of the live and dormant resources that pass the filters of the query and come first in its order,
/// at most `limit`. The names themselves are not sorted.
#[derive(Message)]
#[rtype(result = "Vec<ResourceName>")]
pub struct FindNames(pub ListQuery);

/// Counts the live and dormant resources whose names have this prefix.
#[derive(Message)]
#[rtype(result = "LockCounts")]
pub struct CountLocks {
    pub prefix: String,
}
