//! Hands past leases from memory to the store, beside the commits, which are more important.

use std::sync::Arc;

use actix::prelude::*;

use crate::persistence::actor::{Persistence, Phase};
use crate::shared::server_state::ServerState;

impl Persistence {
    /// Hands the store the past leases that it does not have yet. A failure is tried again the next time: nothing but
    /// the history depends on it.
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

/// Hands past leases to the store. The caller holds [`Persistence::handing_over`]. Not to be cancelled: it may be in a
/// transaction.
pub(super) async fn hand_over(server: Arc<ServerState>) {
    let handed = server
        .history
        .hand_over(server.store.as_ref(), server.clock.mono());
    if let Err(error) = handed.await {
        log::debug!("past leases are not stored yet: {error}");
    }
}
