//! The registry actor: finds the actor of a name, starts one if there is none, replaces one that died.
//!
//! A resource whose lease runs and that is not used is dormant: it has no actor, and is resumed by the next
//! request or when its lease ends.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;

use crate::lock::{FencingToken, Millis, ResourceName};
use crate::persistence::handle::PersistenceHandle;
use crate::persistence::messages::PersistenceNotice;
use crate::registry::dormant::DormantLeases;
use crate::resource::actor::{ResourceActor, Stage};
use crate::resource::status::{ResourceStatus, StatusCell};
use crate::shared::dormant::DormantLease;
use crate::shared::gate::Closed;
use crate::shared::liveness::{LivenessGuard, PROOF_PAUSE};
use crate::shared::registry_notice::RegistryNotice;
use crate::shared::resource_notice::ResourceNotice;
use crate::shared::server_state::{REGISTRY, ServerState};
use crate::store::members::Slot;
use crate::store::shrink::shrink_if_sparse;
use crate::store::slot_set::SlotSet;

/// Pause between two summaries of events that were not logged, and between two checks whether the store hangs.
const CHECK_PAUSE: Duration = Duration::from_secs(1);

/// Pause between two looks for dormant resources whose leases are over.
const RESUME_PAUSE: Duration = Duration::from_millis(100);
/// How many of them are resumed at once, at most. When a million leases end in one second, requests must not wait
/// behind them.
const RESUMES_MAX: usize = 256;
/// Pause between two such batches.
const BATCH_PAUSE: Duration = Duration::from_millis(25);
/// Pause after a resumed resource could not be read from the store, in milliseconds.
const RETRY_PAUSE_MS: Millis = 1_000;

/// Returns the address of a resource's actor. If there is none, starts one on the thread `home`. `None`: this instance
/// does not answer for the name.
#[derive(Message)]
#[rtype(result = "Option<Addr<ResourceActor>>")]
pub struct Find {
    pub name: ResourceName,
    pub home: ArbiterHandle,
}

/// Returns what this function makes of the registry, on its thread.
#[derive(Message)]
#[rtype(result = "T")]
pub struct Inspect<T: Send + 'static>(pub Box<dyn FnOnce(&Registry) -> T + Send>);

/// Where a resource is.
pub enum ResourceLocation {
    /// It has this actor.
    Live(Addr<ResourceActor>),
    /// It has no actor, and is held by the lease with this token. `expires`: `None` if the lease does not expire.
    Dormant {
        token: FencingToken,
        expires: Option<Millis>,
    },
    /// In the store only, if it exists.
    Stored,
}

/// The actors of all live names, which its addresses keep alive, and the dormant leases.
pub struct Registry {
    server: Arc<ServerState>,
    persistence: PersistenceHandle,
    live: HashMap<ResourceName, LiveActor>,
    dormant: DormantLeases,
    /// Names that move to another instance and still have an actor here.
    leaving: HashSet<ResourceName>,
    /// Sent once `leaving` is empty.
    left: Option<oneshot::Sender<()>>,
    /// Generation of the actor that was started last.
    generation: u64,
    /// No dormant resource is resumed before this time, unless a request asks for it.
    resume_from: Millis,
    alive: LivenessGuard,
}

struct LiveActor {
    addr: Addr<ResourceActor>,
    status: Arc<StatusCell>,
    generation: u64,
    incarnation: u64,
}

impl Registry {
    /// The status of all live and dormant resources.
    pub fn statuses(&self) -> impl Iterator<Item = (&ResourceName, ResourceStatus)> {
        let status = |(name, entry): (_, &LiveActor)| Some((name, (*entry.status.lock())?));
        let live = self.live.iter().filter_map(status);
        live.chain(self.dormant.statuses())
    }

    pub fn new(server: Arc<ServerState>, persistence: PersistenceHandle) -> Registry {
        Registry {
            alive: server.liveness.actor(REGISTRY),
            server,
            persistence,
            live: HashMap::new(),
            dormant: DormantLeases::default(),
            leaving: HashSet::new(),
            left: None,
            generation: 0,
            resume_from: 0,
        }
    }

    /// Starts the actor of a name, which takes its dormant lease along. `active`: as in [`Stage::Loading`].
    fn start_actor(
        &mut self,
        find: &Find,
        active: Millis,
        registry: Addr<Registry>,
    ) -> Addr<ResourceActor> {
        self.generation += 1;
        let incarnation = self.server.incarnation();
        let status = Arc::new(StatusCell::default());
        let dormant = self.dormant.remove(&find.name);
        let dormant = dormant.filter(|dormant| dormant.incarnation == incarnation);
        if let Some(dormant) = &dormant {
            *status.lock() = Some(dormant.status());
        }
        let actor = ResourceActor {
            name: find.name.clone(),
            status: status.clone(),
            generation: self.generation,
            incarnation,
            now: self.server.now(),
            server: self.server.clone(),
            registry: registry.recipient(),
            persistence: self.persistence.clone(),
            stage: Stage::Loading {
                calls: Vec::new(),
                dormant,
                active,
            },
        };
        // On the thread of the request: most resources are used over few connections, and a message within a
        // thread costs a fraction of one between threads.
        let addr = ResourceActor::start_in_arbiter(&find.home, move |_| actor);
        self.live.insert(
            find.name.clone(),
            LiveActor {
                addr: addr.clone(),
                status,
                generation: self.generation,
                incarnation,
            },
        );
        self.count();
        addr
    }

    /// Starts the actor of a dormant resource without a request. `None`: the resource is not dormant.
    fn resume(
        &mut self,
        name: ResourceName,
        ctx: &mut Context<Self>,
    ) -> Option<Addr<ResourceActor>> {
        let home = self.dormant.get(&name)?.home.clone();
        Some(self.start_actor(&Find { name, home }, 0, ctx.address()))
    }

    /// Resumes dormant resources whose leases are over, now and later again.
    fn resume_due(&mut self, ctx: &mut Context<Self>) {
        let now = self.server.mono();
        let mut resumed = 0;
        while resumed < RESUMES_MAX
            && now >= self.resume_from
            && let Some(name) = self.dormant.due(now)
        {
            self.resume(name, ctx);
            resumed += 1;
        }
        let pause = if resumed < RESUMES_MAX {
            RESUME_PAUSE
        } else {
            BATCH_PAUSE
        };
        ctx.run_later(pause, Registry::resume_due);
    }

    /// Keeps the lease of an actor that has retired.
    fn suspend(&mut self, name: ResourceName, dormant: DormantLease) {
        if dormant.incarnation != self.server.incarnation() {
            return;
        }
        let now = self.server.mono();
        if dormant.lease.deadline().is_some_and(|at| at <= now) {
            // The lease is over. Its actor was started for that, and could not read the store.
            self.resume_from = now + RETRY_PAUSE_MS;
        }
        self.dormant.insert(name, dormant);
    }

    pub fn locate(&self, name: &ResourceName) -> ResourceLocation {
        if let Some(entry) = self.live.get(name) {
            return ResourceLocation::Live(entry.addr.clone());
        }
        match self.dormant.get(name) {
            Some(dormant) => ResourceLocation::Dormant {
                token: dormant.lease.token,
                expires: dormant.lease.expires,
            },
            None => ResourceLocation::Stored,
        }
    }

    /// Discards all actors if the store hangs. A store that works on the persistence actor's thread blocks that actor
    /// too, so the registry has to notice.
    fn watch(&mut self) {
        let limit = Duration::from_millis(self.server.settings.store_timeout_ms);
        let gate = &self.server.gate;
        if self.server.store.blocks_for() <= limit || gate.check_answer().is_err() {
            return;
        }
        log::error!("the store hangs: no answer within {} ms", limit.as_millis());
        gate.close(Closed::StoreAway);
        self.server.next_incarnation();
        self.discard_all(&Closed::StoreAway);
        self.persistence.tell(PersistenceNotice::CommitTimedOut);
    }

    fn discard_all(&mut self, closed: &Closed) {
        for (_, entry) in self.live.drain() {
            let discard = ResourceNotice::Discard(Some(closed.clone()));
            entry.addr.do_send(discard);
        }
        // Dormant leases are of an incarnation that is over. After loading, these leases get their full TTL again.
        self.dormant = DormantLeases::default();
        self.leaving.clear();
        self.left = None;
        self.count();
    }

    /// Lets the actors of names in these slots retire. `left` is sent when none is left.
    fn leave(&mut self, slots: Vec<Slot>, left: oneshot::Sender<()>) {
        let slots = SlotSet::of(slots.into_iter());
        let leaves = |name: &ResourceName| slots.has(Slot::of(name));
        self.dormant.retain(|name| !leaves(name));
        self.live
            .retain(|name, entry| !leaves(name) || entry.addr.connected());
        let leaving = self.live.iter().filter(|(name, _)| leaves(name));
        let names = leaving.map(|(name, entry)| {
            entry.addr.do_send(ResourceNotice::LeaveMemory);
            name.clone()
        });
        self.leaving = names.collect();
        self.left = Some(left);
        self.tell_if_left();
        self.count();
    }

    fn tell_if_left(&mut self) {
        if self.leaving.is_empty()
            && let Some(left) = self.left.take()
        {
            let _ = left.send(());
        }
    }

    fn count(&self) {
        let metrics = &self.server.metrics;
        metrics.actors_live.set(self.live.len() as i64);
        metrics.actors_asleep.set(self.dormant.len() as i64);
    }
}

impl Actor for Registry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1024);
        ctx.run_interval(PROOF_PAUSE, |registry, _| registry.alive.prove());
        ctx.run_interval(CHECK_PAUSE, |registry, _| {
            registry.server.events.summarise();
            registry.watch();
        });
        self.resume_due(ctx);
    }
}

impl Handler<Find> for Registry {
    type Result = MessageResult<Find>;

    fn handle(&mut self, msg: Find, ctx: &mut Self::Context) -> Self::Result {
        if !self.server.slots.is_here(&msg.name) {
            return MessageResult(None);
        }
        if let Some(entry) = self.live.get(&msg.name) {
            if entry.addr.connected() && entry.incarnation == self.server.incarnation() {
                return MessageResult(Some(entry.addr.clone()));
            }
            if entry.addr.connected() {
                // The actor is of an earlier incarnation: it has to answer its open requests and retire.
                let discard = ResourceNotice::Discard(Some(Closed::StoreAway));
                entry.addr.do_send(discard);
            } else {
                // The actor died. How long its lease still had to run is not known.
                log::error!("the actor of resource {} died; replaced", msg.name);
                self.server.restart_leases();
            }
        }
        let now = self.server.mono();
        MessageResult(Some(self.start_actor(&msg, now, ctx.address())))
    }
}

impl<T: Send + 'static> Handler<Inspect<T>> for Registry {
    type Result = MessageResult<Inspect<T>>;

    fn handle(&mut self, Inspect(make): Inspect<T>, _: &mut Self::Context) -> Self::Result {
        MessageResult(make(self))
    }
}

impl Handler<RegistryNotice> for Registry {
    type Result = ();

    fn handle(&mut self, notice: RegistryNotice, ctx: &mut Self::Context) {
        match notice {
            RegistryNotice::Retired {
                name,
                generation,
                dormant,
                unconfirmed,
            } => {
                let current = self.live.get(&name).map(|entry| entry.generation);
                if current == Some(generation) {
                    self.live.remove(&name);
                    let is_here = self.server.slots.is_here(&name);
                    let now = self.server.mono();
                    self.server.undelivered_grants.left(&name, unconfirmed, now);
                    self.leaving.remove(&name);
                    self.tell_if_left();
                    if let Some(dormant) = dormant.filter(|_| is_here) {
                        self.suspend(name, dormant);
                    }
                    self.count();
                    shrink_if_sparse(&mut self.live);
                }
            }
            RegistryNotice::VanishedLate { name, request } => {
                let live = self.live.get(&name).map(|entry| entry.addr.clone());
                match live.or_else(|| self.resume(name, ctx)) {
                    Some(actor) => actor.do_send(ResourceNotice::Vanished(request)),
                    None => self.server.undelivered_grants.vanished(request),
                }
            }
            RegistryNotice::DiscardAll(closed) => self.discard_all(&closed),
            RegistryNotice::Leave { slots, left } => self.leave(slots, left),
            RegistryNotice::EndWaits => {
                for entry in self.live.values() {
                    entry.addr.do_send(ResourceNotice::EndWaits);
                }
            }
        }
    }
}
