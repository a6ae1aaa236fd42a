//! Past leases on their way from memory to the store, beside the commits and after them in importance.

use actix::prelude::*;

use crate::persistence::actor::{Persistence, Phase};

impl Persistence {
    /// Hands the store what it does not have yet. Where that fails it is tried again the next time: nothing but
    /// the history waits for it.
    pub(super) fn store_history(&mut self, ctx: &mut Context<Self>) {
        if self.storing_history || self.phase != Phase::Serving {
            return;
        }
        self.storing_history = true;
        let server = self.server.clone();
        // Not cut short: it may be in a transaction.
        async move {
            let handed = server
                .history
                .hand_over(server.store.as_ref(), server.clock.mono());
            if let Err(error) = handed.await {
                log::debug!("past leases are not stored yet: {error}");
            }
        }
        .into_actor(self)
        .map(|(), actor, _| actor.storing_history = false)
        .spawn(ctx);
    }
}
