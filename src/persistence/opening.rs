//! Opens the store, and opens it again when it was lost.

use std::time::Duration;

use actix::prelude::*;

use crate::lock::FencingToken;
use crate::persistence::actor::{Persistence, unpanicked};
use crate::shared::gate::{Closed, boottime_ms};
use crate::shared::registry_notice::RegistryNotice;
use crate::store::StoreError;
use crate::store::members::Members;

/// Pause between two attempts to open a store that is away.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);
/// Pause between two attempts to open a store that another instance has. Less than an eighth of the shortest instance
/// lease: an instance that does not read the others' heartbeats for a quarter of a lease has to wait for their end
/// anew.
const STANDBY_PAUSE: Duration = Duration::from_millis(100);

impl Persistence {
    /// Starts an attempt to open the store. The attempt has no time-out: a migration would begin again each time. The
    /// store itself bounds its calls to the database.
    pub(super) fn open_store(&mut self, ctx: &mut Context<Self>) {
        if self.commits.lock().is_finished {
            return;
        }
        let limit = self.store_timeout().mul_f32(1.5);
        let late = ctx.run_later(limit, move |actor, _| actor.still_opening(limit));
        let store = self.server.store.clone();
        let sent = boottime_ms();
        unpanicked(async move { store.open().await })
            .into_actor(self)
            .map(move |result, actor, ctx| {
                ctx.cancel_future(late);
                actor.opened(result, sent, ctx);
            })
            .spawn(ctx);
    }

    /// The attempt takes long: closes the gate with that reason, and lets the start of the server go on.
    fn still_opening(&mut self, after: Duration) {
        // The attempt may have succeeded at the same moment, and a timer that has fired is not cancelled any more.
        if self.is_serving() || self.commits.lock().is_finished {
            return;
        }
        let text = format!("opening it takes longer than {} ms", after.as_millis());
        self.server.gate.lose_store(&text);
        self.warn_once(&format!("waiting for the store: {text}"));
        if let Some(first) = self.first_open.take() {
            let _ = first.send(Err(StoreError::Unavailable(text)));
        }
    }

    pub(super) fn opened(
        &mut self,
        result: Result<(FencingToken, Option<Members>), StoreError>,
        sent: u64,
        ctx: &mut Context<Self>,
    ) {
        if self.commits.lock().is_finished {
            return;
        }
        let first = self.first_open.take();
        let outcome = result.clone().map(|_| ());
        self.act_on(result, sent, ctx);
        // Last: the receiver must find the gate as the result left it.
        if let Some(first) = first {
            let _ = first.send(outcome);
        }
    }

    fn act_on(
        &mut self,
        result: Result<(FencingToken, Option<Members>), StoreError>,
        sent: u64,
        ctx: &mut Context<Self>,
    ) {
        let pause = match result {
            Ok((token_floor, members)) => return self.serve(token_floor, members, sent, ctx),
            Err(error @ StoreError::Unusable(_)) => {
                self.server.gate.lose_store(error.detail());
                self.server.metrics.store_failed(&error);
                return self.server.liveness.give_up(error);
            }
            Err(StoreError::Standby) => {
                self.server.gate.close(Closed::Standby);
                self.warn_once("waiting: another instance prepares the database, or uses it alone");
                STANDBY_PAUSE
            }
            Err(error) => {
                self.server.gate.lose_store(error.detail());
                self.server.metrics.store_failed(&error);
                self.warn_once(&format!("waiting for the store: {error}"));
                REOPEN_PAUSE
            }
        };
        ctx.run_later(pause, |actor, ctx| actor.open_store(ctx));
    }

    /// Logs a message once, not at every attempt.
    fn warn_once(&mut self, text: &str) {
        if self.last_warning != text {
            log::warn!("{text}");
            self.last_warning = text.to_owned();
        }
    }

    /// The store is open: begins a new incarnation and opens the gate. `sent`: when the attempt began, in
    /// [`boottime_ms`].
    fn serve(
        &mut self,
        token_floor: FencingToken,
        members: Option<Members>,
        sent: u64,
        ctx: &mut Context<Self>,
    ) {
        self.server.raise_token_floor(token_floor);
        let recorded = members.as_ref().and_then(|all| all.recorded_profile);
        self.server.use_recorded_profile(recorded);
        self.server.next_incarnation();
        self.server.metrics.store_opened_count.inc();
        self.commits.lock().incarnation = Some(self.server.incarnation());
        self.extend_validity(sent);
        // From here on this instance answers only for the slots that the store says it owns.
        if let Some(members) = members {
            self.server.slots.share();
            self.handle_members(members, ctx);
        }
        self.server.gate.open();
        if !self.last_warning.is_empty() {
            log::warn!("the store is open: serving");
            self.last_warning.clear();
        }
        // Opening may have taken most of the time for which a heartbeat is valid.
        self.send_heartbeat(ctx);
    }

    /// The store is lost: begins a new incarnation, discards the memory of all actors, and opens the store again.
    pub(super) fn lose_store(&mut self, error: &StoreError, ctx: &mut Context<Self>) {
        if !self.is_serving() {
            return;
        }
        let why = match error {
            StoreError::Standby => Closed::Standby,
            _ => Closed::StoreAway,
        };
        let text = format!("the store was lost: {error}");
        log::error!("{text}");
        // So that the log says when it is open again.
        self.last_warning = text;
        self.server.metrics.store_failed(error);
        match &why {
            Closed::StoreAway => self.server.gate.lose_store(error.detail()),
            _ => self.server.gate.close(why.clone()),
        }
        self.server.next_incarnation();
        self.forget_slots();
        self.commits.lock().close();
        self.count();
        self.deferred.clear();
        if let Some(registry) = &self.registry {
            registry.do_send(RegistryNotice::DiscardAll(why));
        }
        self.finish_if_drained(ctx);
        self.open_store(ctx);
    }
}
