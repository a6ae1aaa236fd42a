//! Hands past leases from memory to the store, beside the commits, which are more important.

use actix::prelude::*;

use crate::persistence::actor::{Persistence, Phase};

impl Persistence {
    /// Hands the store the past leases that it does not have yet.
    pub(super) fn store_history(&mut self, ctx: &mut Context<Self>) {
        if self.phase != Phase::Serving {
            return;
        }
        let Ok(alone) = self.handing_over.clone().try_lock_owned() else {
            return;
        };
        let server = self.server.clone();
        let handing = async move {
            let _alone = alone;
            let now = server.clock.mono();
            server.history.hand_over(server.store.as_ref(), now).await;
        };
        handing.into_actor(self).spawn(ctx);
    }
}
