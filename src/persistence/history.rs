//! Past leases on their way from memory to the store, beside the commits and after them in importance.

use std::sync::Arc;

use actix::prelude::*;

use crate::persistence::actor::{Persistence, Phase};
use crate::shared::server_state::ServerState;

impl Persistence {
    /// Hands the store what it does not have yet. Where that fails it is tried again the next time: nothing but
    /// the history waits for it.
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
            hand_over(server).await;
        };
        handing.into_actor(self).spawn(ctx);
    }
}

/// By whoever holds [`Persistence::handing_over`]. Not to be cut short: it may be in a transaction.
pub(super) async fn hand_over(server: Arc<ServerState>) {
    let handed = server
        .history
        .hand_over(server.store.as_ref(), server.clock.mono());
    if let Err(error) = handed.await {
        log::debug!("past leases are not stored yet: {error}");
    }
}
