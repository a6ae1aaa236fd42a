//! The store is opened, watched, lost and opened again.

use std::time::Duration;

use actix::prelude::*;

use crate::persistence::actor::{Persistence, Phase, unpanicked};
use crate::persistence::messages::RegistryOrder;
use crate::shared::gate::{Closed, boottime_ms};
use crate::store::{Opened, StoreError};

/// Pause between two attempts to open a store that is away.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);
/// Pause between two looks at a store that another instance serves: less than an eighth of the shortest lease, since
/// whoever looks away for a quarter of it begins to wait anew.
const STANDBY_PAUSE: Duration = Duration::from_millis(100);

impl Persistence {
    /// An attempt is never cut short: a store that is being migrated would begin again each time. What it
    /// asks of a database it bounds itself.
    pub(super) fn open_store(&mut self, ctx: &mut Context<Self>) {
        if self.phase == Phase::Finished {
            return;
        }
        let patience = self.store_timeout().mul_f32(1.5);
        let late = ctx.run_later(patience, move |actor, _| actor.still_opening(patience));
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

    fn still_opening(&mut self, after: Duration) {
        if self.phase != Phase::Opening {
            return;
        }
        let text = format!("opening it takes longer than {} ms", after.as_millis());
        self.server.gate.lose_store(&text);
        self.complain(&format!("waiting for the store: {text}"));
        if let Some(first) = self.first_open.take() {
            let _ = first.send(Err(StoreError::Unavailable(text)));
        }
    }

    pub(super) fn opened(
        &mut self,
        result: Result<Opened, StoreError>,
        sent: u64,
        ctx: &mut Context<Self>,
    ) {
        if self.phase == Phase::Finished {
            return;
        }
        let first = self.first_open.take();
        let told = result.clone().map(|_| ());
        self.act_on(result, sent, ctx);
        // Only now: whoever is told finds the gate as the result left it.
        if let Some(first) = first {
            let _ = first.send(told);
        }
    }

    fn act_on(&mut self, result: Result<Opened, StoreError>, sent: u64, ctx: &mut Context<Self>) {
        let pause = match result {
            Ok(opened) => return self.serve(opened, sent, ctx),
            Err(error @ StoreError::Unusable(_)) => {
                self.server.gate.lose_store(error.detail());
                self.server.metrics.store.failed(&error);
                return self.server.liveness.give_up(error);
            }
            Err(StoreError::Standby) => {
                self.server.gate.close(Closed::Standby);
                self.complain("waiting: another instance prepares the database, or has it alone");
                STANDBY_PAUSE
            }
            Err(error) => {
                self.server.gate.lose_store(error.detail());
                self.server.metrics.store.failed(&error);
                self.complain(&format!("waiting for the store: {error}"));
                REOPEN_PAUSE
            }
        };
        ctx.run_later(pause, |actor, ctx| actor.open_store(ctx));
    }

    /// Logs a state once, not at every attempt.
    fn complain(&mut self, text: &str) {
        if self.last_complaint != text {
            log::warn!("{text}");
            self.last_complaint = text.to_owned();
        }
    }

    fn serve(&mut self, opened: Opened, sent: u64, ctx: &mut Context<Self>) {
        self.server.raise_token_floor(opened.token_floor);
        self.server.use_recorded_profile(opened.recorded_profile);
        self.server.next_incarnation();
        self.incarnation = self.server.incarnation();
        self.phase = Phase::Serving;
        self.commits.open(self.incarnation);
        if let Some(times) = self.server.store.heartbeat_ms() {
            self.server.gate.valid_until(sent + times.valid_ms);
        }
        // Only what the store says is this instance's is answered for.
        if let Some(members) = opened.members {
            self.server.slots.share();
            self.see(members, ctx);
        }
        self.server.gate.open();
        if !self.last_complaint.is_empty() {
            log::warn!("the store is open: serving");
            self.last_complaint.clear();
        }
        // Opening may have taken most of the time that a sign of life is good for.
        self.look(ctx);
    }

    /// From now on nothing that is in memory counts. `why` is what open requests are told.
    pub(super) fn lose_store(&mut self, error: &StoreError, ctx: &mut Context<Self>) {
        if self.phase != Phase::Serving {
            return;
        }
        self.phase = Phase::Opening;
        let why = match error {
            StoreError::Standby => Closed::Standby,
            _ => Closed::StoreAway,
        };
        log::error!("the store was lost: {error}");
        self.server.metrics.store.failed(error);
        match &why {
            Closed::StoreAway => self.server.gate.lose_store(error.detail()),
            _ => self.server.gate.close(why.clone()),
        }
        self.server.next_incarnation();
        self.forget_slots();
        self.commits.close();
        self.count();
        for (_, load) in self.deferred.drain(..) {
            let _ = load.send(Err(error.clone()));
        }
        if let Some(registry) = &self.registry {
            registry.do_send(RegistryOrder::DiscardAll(why));
        }
        self.notify_drained();
        self.open_store(ctx);
    }
}
