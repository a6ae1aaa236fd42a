//! What the registry is asked.

use actix::{Addr, ArbiterHandle, Message};

use crate::lock::{Expiry, FencingToken, ResourceName};
use crate::resource::actor::ResourceActor;

/// To the registry: where is this resource's actor? Starts one, on the asker's thread, if there is none. `None`: this
/// instance does not answer for the name.
#[derive(Message)]
#[rtype(result = "Option<Addr<ResourceActor>>")]
pub struct Find {
    pub name: ResourceName,
    pub home: ArbiterHandle,
}

/// To the registry: which of these have an actor, and which are dormant?
#[derive(Message)]
#[rtype(result = "Vec<Whereabouts>")]
pub struct Locate {
    pub names: Vec<ResourceName>,
}

/// Where a resource is.
pub enum Whereabouts {
    Live(Addr<ResourceActor>),
    /// Held by the lease with this token; `None`: it does not expire.
    Dormant {
        token: FencingToken,
        expires: Option<Expiry>,
    },
    /// In the store alone, if at all.
    Stored,
}
