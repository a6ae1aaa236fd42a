//! Which other instance answers requests for resources, as this one sees it while it stands by, and whether it can
//! be reached. Nothing here where the store is this process's alone.

use std::time::Duration;

use tokio::sync::watch;

use crate::shared::gate::Closed;
use crate::store::ActiveInstance;

/// For how long beyond `INSTANCE_LEASE_SECONDS` requests are held while nobody is active.
pub const HOLD_BEYOND: Duration = Duration::from_secs(2);

/// Whether the active instance answers this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// It has not, so far.
    #[default]
    NotYet,
    Reached,
    /// It did until a moment ago: requests are held until it does again, or another one.
    Lost,
    /// It has not for longer than requests are held.
    Gone,
    /// It lives, and the link to it is cut.
    CutOff,
    /// It lives, and speaks no version of the protocol that this one speaks.
    OtherProtocol,
}

/// What is known of the active instance.
#[derive(Clone, Default)]
pub struct Owner {
    /// Another instance; `None`: this one, or nobody.
    pub active: Option<ActiveInstance>,
    pub reach: Reach,
    /// This instance ends: whoever waits for another one is told so.
    pub stopping: bool,
}

/// One for each server. Whoever waits for a change follows it.
pub struct OwnerWatch(watch::Sender<Owner>);

impl Default for OwnerWatch {
    fn default() -> OwnerWatch {
        OwnerWatch(watch::Sender::new(Owner::default()))
    }
}

impl OwnerWatch {
    pub fn follow(&self) -> watch::Receiver<Owner> {
        self.0.subscribe()
    }

    /// The store was looked at, or became this instance's: `None`.
    pub fn see(&self, active: Option<ActiveInstance>) {
        self.0.send_modify(|owner| owner.active = active);
    }

    pub fn reach(&self, reach: Reach) {
        self.0.send_if_modified(|owner| {
            let changed = owner.reach != reach;
            owner.reach = reach;
            changed
        });
    }

    pub fn stop(&self) {
        self.0.send_modify(|owner| owner.stopping = true);
    }

    /// May a balancer send requests to an instance that stands by?
    pub fn check_ready(&self) -> Result<(), Closed> {
        match self.0.borrow().reach {
            Reach::Reached | Reach::Lost => Ok(()),
            Reach::NotYet => Err(Closed::Standby),
            Reach::Gone => Err(Closed::Moving),
            Reach::CutOff => Err(Closed::OwnerUnreachable),
            Reach::OtherProtocol => Err(Closed::OtherProtocol),
        }
    }
}
