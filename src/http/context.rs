//! What is known of a request before anything is done about it.

use std::rc::Rc;
use std::sync::Arc;

use super::auth::KnownKey;
use super::connection::ConnectionState;
use super::paths::Route;
use crate::shared::caller::Caller;

/// Found out once, by [`Observed::begin`](super::middleware::observe::Observed::begin), for all that want to know.
pub struct RequestContext {
    pub caller: Arc<Caller>,
    /// `None`: there is nothing at its path.
    pub route: Option<Route>,
    /// The key that it presents, if it is one of those in force.
    pub key: Option<KnownKey>,
    /// `None`: it did not come through a connection of ours.
    pub connection: Option<Rc<ConnectionState>>,
}
