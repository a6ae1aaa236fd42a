//! One named resource: an actor that owns the lock core, the documents and a timer.
//!
//! It applies one command at a time to the core and carries out the outcome: rows go to the persistence actor,
//! replies wait until the rows that they depend on are stored, and the timer wakes the actor for the core's
//! next deadline. An idle actor retires: it tells the registry, and answers requests that still arrive with
//! [`Reply::Moved`], so that none is lost between the two. If a lease is running, it leaves a
//! [`DormantLease`], with which the next actor of the name goes on.

use std::sync::Arc;

use actix::prelude::*;

use crate::lock::{Command, LockState, Millis, Now, Refusal, RequestId, ResourceName, Ticket};
use crate::persistence::handle::PersistenceHandle;
use crate::persistence::messages::{Load, PersistenceNotice};
use crate::resource::documents::Documents;
use crate::resource::live::{Live, Resource};
use crate::resource::messages::{Call, Reply};
use crate::resource::status::StatusCell;
use crate::shared::dormant::DormantLease;
use crate::shared::gate::Closed;
use crate::shared::registry_notice::RegistryNotice;
use crate::shared::resource_notice::ResourceNotice;
use crate::shared::server_state::ServerState;
use crate::store::{StoreError, StoredResource};

/// The phase that an actor is in.
pub enum Stage {
    /// The rows are being read from the store.
    Loading {
        /// Requests that arrived, each with its arrival time.
        calls: Vec<(Now, Box<Call>)>,
        /// The lease of the resource, if it was suspended.
        dormant: Option<DormantLease>,
        /// When the resource was last asked for, on the monotonic clock; 0: no request started this actor.
        active: Millis,
    },
    Live(Box<Live>),
    /// Takes no requests any more.
    Retired,
}

/// The registry starts it, in [`Stage::Loading`].
pub struct ResourceActor {
    pub name: ResourceName,
    pub status: Arc<StatusCell>,
    pub generation: u64,
    /// The incarnation of the store when this actor was started. In a later one its memory must not be used.
    pub incarnation: u64,
    /// When the current message was taken up. The clocks are read once for everything that a message causes.
    pub now: Now,
    pub server: Arc<ServerState>,
    pub registry: Recipient<RegistryNotice>,
    pub persistence: PersistenceHandle,
    pub stage: Stage,
}

impl ResourceActor {
    pub(super) fn loaded(
        &mut self,
        result: Result<Option<StoredResource>, StoreError>,
        ctx: &mut Context<Self>,
    ) {
        let Stage::Loading {
            calls,
            mut dormant,
            active,
        } = std::mem::replace(&mut self.stage, Stage::Retired)
        else {
            return;
        };
        let stored = match result {
            Ok(stored) if self.incarnation == self.server.incarnation() => stored,
            Ok(_) => return self.refuse(calls, dormant, &Reply::Moved),
            Err(error) => return self.refuse(calls, dormant, &unread(&error)),
        };
        let vanished = dormant.as_mut().map(|d| std::mem::take(&mut d.vanished));
        // Requests that arrived meanwhile are carried out as of their arrival: a lease that was renewed in time
        // must not end because it took long to load it.
        let first = calls.first().map(|(arrived, _)| *arrived);
        self.now = first.unwrap_or_else(|| self.server.now());
        let mut live = match stored {
            Some(stored) => self.restore(stored, dormant, ctx),
            None => Live::new(self.server.clone()),
        };
        live.last_active = active;
        self.stage = Stage::Live(Box::new(live));
        self.show();
        self.command(Command::Tick, ctx);
        for request in vanished.unwrap_or_default() {
            self.command(Command::Vanished { request }, ctx);
        }
        for (arrived, call) in calls {
            self.now = arrived;
            self.call(call, ctx);
        }
        self.read_clocks();
        self.command(Command::Tick, ctx);
        self.schedule(ctx);
    }

    /// Restores the resource from its rows. A suspended lease goes on as `dormant` says.
    pub(super) fn restore(
        &self,
        stored: StoredResource,
        dormant: Option<DormantLease>,
        ctx: &Context<Self>,
    ) -> Live {
        let terms = self.server.terms();
        let now = self.now;
        let of_slot = self.server.slots.leases_from(&self.name);
        let leases_from = self.server.leases_from().max(of_slot).min(now.mono);
        let mut lock = stored.lock;
        if lock.head == Default::default() {
            // Never granted: its tokens must start above those of a deleted resource of the same name.
            lock.head.token = self.server.token_floor();
        }
        let core = match &dormant {
            Some(dormant) => LockState::resume(stored.options, lock, &terms, now, &dormant.lease),
            None => LockState::restore(stored.options, lock, &terms, now, leases_from),
        };
        let mut live = Live::new(self.server.clone());
        if let Some(dormant) = dormant {
            live.held = dormant.held;
        }
        live.held.set(core.held_since());
        live.resource = Some(Resource {
            id: stored.id,
            core,
            documents: Documents::new(
                self.server.clone(),
                ctx.address().downgrade().recipient(),
                stored.selectors,
            ),
        });
        live
    }

    /// Reads the clocks. To be called at the start of each message.
    pub(super) fn read_clocks(&mut self) {
        self.now = self.server.now();
    }

    /// Retires: open requests are answered with `reply`, and those that arrive later with [`Reply::Moved`].
    pub(super) fn retire(&mut self, reply: &Reply) {
        match std::mem::replace(&mut self.stage, Stage::Retired) {
            Stage::Loading { calls, dormant, .. } => self.refuse(calls, dormant, reply),
            Stage::Live(mut live) => {
                live.answer_all(reply);
                let resource = live.resource.as_ref().filter(|_| live.is_leaving);
                let unconfirmed = resource.map(|r| r.core.unconfirmed().collect());
                *self.status.lock() = None;
                self.server.metrics.actors_retired_total.inc();
                self.leave_registry(None, unconfirmed.unwrap_or_default());
            }
            Stage::Retired => {}
        }
    }

    /// Retires an idle actor that has stored everything. A running lease goes on as a [`DormantLease`].
    pub(super) fn leave_memory(&mut self) {
        let Some(lease) = self.resource().and_then(|r| r.core.suspend()) else {
            return self.retire(&Reply::Moved);
        };
        // The status still shows the lease, until the registry shows the dormant lease instead.
        let Stage::Live(live) = std::mem::replace(&mut self.stage, Stage::Retired) else {
            return;
        };
        self.server.metrics.actors_retired_total.inc();
        let dormant = DormantLease {
            lease,
            held: live.held,
            incarnation: self.incarnation,
            home: Arbiter::current(),
            vanished: Vec::new(),
        };
        self.leave_registry(Some(dormant), Vec::new());
    }

    /// Retires, if the name moves to another instance and everything is stored.
    fn leave_if_settled(&mut self) {
        let is_settled = |live: &mut Live| live.is_leaving && live.is_settled();
        if self.live().is_some_and(is_settled) {
            self.retire(&Reply::Closed(Closed::Moving));
        }
    }

    /// The client of this request is gone.
    fn vanished(&mut self, request: RequestId, ctx: &mut Context<Self>) {
        match &mut self.stage {
            Stage::Loading { calls, dormant, .. } => {
                let before = calls.len();
                calls.retain(|(_, call)| call.request != request);
                if calls.len() == before
                    && let Some(dormant) = dormant
                {
                    dormant.vanished.push(request);
                }
            }
            Stage::Live(live) => {
                live.drop_request(request);
                self.command(Command::Vanished { request }, ctx);
                self.schedule(ctx);
            }
            Stage::Retired => self.registry.do_send(RegistryNotice::VanishedLate {
                name: self.name.clone(),
                request,
            }),
        }
    }

    /// Ends an actor that has not loaded: answers its requests with `reply`. A suspended lease stays suspended.
    fn refuse(&self, calls: Vec<(Now, Box<Call>)>, dormant: Option<DormantLease>, reply: &Reply) {
        for (_, call) in calls {
            let _ = call.reply.send(Box::new(reply.clone()));
        }
        self.leave_registry(dormant, Vec::new());
    }

    fn leave_registry(&self, dormant: Option<DormantLease>, unconfirmed: Vec<(RequestId, Ticket)>) {
        self.registry.do_send(RegistryNotice::Retired {
            name: self.name.clone(),
            generation: self.generation,
            dormant,
            unconfirmed,
        });
    }

    /// Whether the incarnation of this actor is over: another instance may have stored newer state.
    pub(super) fn is_stale(&self) -> bool {
        self.incarnation != self.server.incarnation()
    }
}

/// The reply to a request when the store cannot be read.
pub(super) fn unread(error: &StoreError) -> Reply {
    match error {
        StoreError::Standby => Reply::Closed(Closed::Standby),
        // Trying again does not help.
        StoreError::Rejected(_) => Reply::Refused(Refusal::NotStored, None),
        _ => Reply::Closed(Closed::StoreAway),
    }
}

impl Actor for ResourceActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (persistence, name) = (self.persistence.clone(), self.name.clone());
        async move { persistence.read(Load { name }).await }
            .into_actor(self)
            .map(|result, actor, ctx| actor.loaded(result, ctx))
            .spawn(ctx);
    }
}

impl Handler<Box<Call>> for ResourceActor {
    type Result = ();

    fn handle(&mut self, call: Box<Call>, ctx: &mut Self::Context) {
        self.read_clocks();
        if self.is_stale() {
            let _ = call.reply.send(Box::new(Reply::Moved));
            return;
        }
        match &mut self.stage {
            Stage::Loading { calls, .. } => calls.push((self.now, call)),
            Stage::Live(live) if !live.is_leaving => {
                self.call(call, ctx);
                self.schedule(ctx);
            }
            Stage::Live(_) | Stage::Retired => {
                let _ = call.reply.send(Box::new(Reply::Moved));
            }
        }
    }
}

impl Handler<ResourceNotice> for ResourceActor {
    type Result = ();

    fn handle(&mut self, notice: ResourceNotice, ctx: &mut Self::Context) {
        self.read_clocks();
        match notice {
            ResourceNotice::Committed { seq } if !self.is_stale() => {
                let Some(live) = self.live() else {
                    return;
                };
                live.committed = live.committed.max(seq);
                if let Some(resource) = &mut live.resource {
                    resource.documents.give_back(live.committed);
                }
                self.publish();
                while let Some(live) = self.live()
                    && live.held_back.front().is_some_and(|(at, ..)| *at <= seq)
                    && let Some((_, request, reply)) = live.held_back.pop_front()
                {
                    self.deliver(request, reply);
                }
                self.schedule(ctx);
                self.leave_if_settled();
            }
            // This actor's incarnation is over: a `Discard` follows.
            ResourceNotice::Committed { .. } => {}
            ResourceNotice::Discard(closed) => {
                let refused = Reply::Refused(Refusal::NotStored, None);
                self.retire(&closed.map_or(refused, Reply::Closed));
                let stopped = PersistenceNotice::ActorStopped(ctx.address().recipient());
                self.persistence.tell(stopped);
            }
            ResourceNotice::Vanished(request) => self.vanished(request, ctx),
            ResourceNotice::EndWaits => self.end_waits(ctx),
            ResourceNotice::LeaveMemory => {
                match &mut self.stage {
                    Stage::Live(live) => live.is_leaving = true,
                    Stage::Loading { .. } => return self.retire(&Reply::Closed(Closed::Moving)),
                    Stage::Retired => {}
                }
                self.leave_if_settled();
            }
            ResourceNotice::Woken { at } => self.woken(at, ctx),
            ResourceNotice::Evict {
                selector,
                stamp,
                bytes,
            } => {
                self.server.budget.lock().answered(bytes);
                if let Some(live) = self.live()
                    && let Some(resource) = &mut live.resource
                {
                    resource.documents.evict(&selector, stamp, live.committed);
                }
            }
        }
    }
}
