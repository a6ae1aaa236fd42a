//! The only writer: takes what was handed in while a commit was under way and stores it as one transaction
//! (group commit), and opens the store again when it was lost.
//!
//! Nothing is answered before [`CommitResult::Committed`] is sent. When the outcome of a commit is not known, no actor's
//! memory can be trusted: the incarnation grows, every actor answers what it has open with 503 and
//! retires, and new ones read from the store once it is open again.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use foldhash::HashMap;
use futures_util::FutureExt;
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;

use crate::lock::ResourceName;
use crate::persistence::messages::{Finish, PersistenceNotice, RegistryOrder};
use crate::persistence::queue::CommitQueue;
use crate::shared::gate::Closed;
use crate::shared::liveness::{LifeSign, PROOF_PAUSE};
use crate::shared::server_state::{PERSISTENCE, ServerState};
use crate::store::StoreError;
use crate::store::members::InstanceId;

/// How often past leases are handed to the store, and what a crash loses of them at most.
const HISTORY_EVERY: Duration = Duration::from_secs(2);
/// How often the store tidies up what commits put off.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Opening,
    Serving,
    /// The store is given back, and must not be taken again.
    Finished,
}

/// Told once whether what somebody waits for went well.
pub(super) type Told = oneshot::Sender<Result<(), StoreError>>;

/// What this instance knows of its part in a shared store.
#[derive(Default)]
pub(super) struct Sharing {
    /// A step is under way.
    pub(super) busy: bool,
    /// Grows with each gift, made or in doubt: a look that was begun before tells of slots that are gone.
    pub(super) gifts: u64,
    /// No step is tried before.
    pub(super) not_before: Option<Instant>,
    pub(super) looking: bool,
    /// Somebody wanted another look while one was under way.
    pub(super) look_again: bool,
    /// This instance ends: told when it has no slot any more that somebody takes.
    pub(super) leaving: Option<oneshot::Sender<()>>,
    pub(super) is_leaving: bool,
    /// Since when this instance knows each of them.
    pub(super) known: HashMap<InstanceId, Instant>,
}

pub struct Persistence {
    pub(super) server: Arc<ServerState>,
    pub(super) registry: Option<Recipient<RegistryOrder>>,
    pub(super) phase: Phase,
    /// In which it serves. Another one is in force when the registry has given up a commit that hangs.
    pub(super) incarnation: u64,
    /// Told once how the first attempt to open the store went.
    pub(super) first_open: Option<Told>,
    pub(super) commits: Arc<CommitQueue>,
    /// Names in the transaction that is under way, with their places in it.
    pub(super) in_flight: HashMap<ResourceName, usize>,
    /// Loads of names that have a commit waiting or in flight, until it is stored.
    pub(super) deferred: Vec<(ResourceName, Told)>,
    pub(super) sharing: Sharing,
    pub(super) checkpointing: bool,
    /// Held by whoever hands past leases to the store: one at a time, and nobody while slots are given.
    pub(super) handing_over: Arc<Mutex<()>>,
    pub(super) last_complaint: String,
    /// When a read that failed was last spoken of: there may be thousands.
    pub(super) read_complaint: Option<Instant>,
    pub(super) drained: Vec<oneshot::Sender<()>>,
    alive: LifeSign,
}

impl Persistence {
    pub fn new(
        server: Arc<ServerState>,
        commits: Arc<CommitQueue>,
        first_open: Told,
    ) -> Persistence {
        Persistence {
            alive: server.liveness.actor(PERSISTENCE),
            server,
            registry: None,
            sharing: Sharing::default(),
            phase: Phase::Opening,
            incarnation: 0,
            first_open: Some(first_open),
            commits,
            in_flight: HashMap::default(),
            deferred: Vec::new(),
            checkpointing: false,
            handing_over: Arc::default(),
            last_complaint: String::new(),
            read_complaint: None,
            drained: Vec::new(),
        }
    }

    pub(super) fn store_timeout(&self) -> Duration {
        Duration::from_millis(self.server.settings.store_timeout_ms)
    }
}

pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    timeout(limit, unpanicked(work))
        .await
        .unwrap_or_else(|_| Err(late(limit)))
}

/// A panic in a database driver is a failure of that call, and of nothing else.
pub(super) async fn unpanicked<T>(
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let caught = AssertUnwindSafe(work).catch_unwind().await;
    caught.unwrap_or_else(|_| {
        let text = "the call broke off by a mistake of the database driver, or of this program";
        Err(StoreError::Unavailable(text.to_owned()))
    })
}

pub(super) fn late(limit: Duration) -> StoreError {
    StoreError::Unavailable(format!("no answer within {} ms", limit.as_millis()))
}

impl Actor for Persistence {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1024);
        ctx.run_interval(PROOF_PAUSE, |actor, _| actor.alive.prove());
        ctx.run_interval(CHECKPOINT_EVERY, |actor, ctx| actor.checkpoint(ctx));
        ctx.run_interval(HISTORY_EVERY, |actor, ctx| actor.store_history(ctx));
        if let Some(times) = self.server.store.heartbeat_ms() {
            let every = Duration::from_millis(times.every_ms);
            ctx.run_interval(every, |actor, ctx| actor.look(ctx));
        }
        self.open_store(ctx);
    }
}

impl Handler<PersistenceNotice> for Persistence {
    type Result = ();

    fn handle(&mut self, msg: PersistenceNotice, ctx: &mut Self::Context) {
        match msg {
            PersistenceNotice::CommitsWait => self.work(ctx),
            PersistenceNotice::CommitTimedOut => {
                if self.incarnation != self.server.incarnation() {
                    self.lose_store(&late(self.store_timeout()), ctx);
                }
            }
            PersistenceNotice::ActorStopped(actor) => self.commits.forget(&actor),
            PersistenceNotice::Look => self.look(ctx),
            PersistenceNotice::Registry(registry) => self.registry = Some(registry),
        }
    }
}

impl Handler<Finish> for Persistence {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Finish, ctx: &mut Self::Context) -> Self::Result {
        let (tx, rx) = oneshot::channel();
        self.drained.push(tx);
        self.work(ctx);
        self.notify_drained();
        // From here on nothing may open the store again: not a heartbeat that finds it closed, nor the
        // next try of one that waits for the database.
        let finish = rx.into_actor(self).then(|_, actor, _| {
            actor.phase = Phase::Finished;
            actor.commits.finish();
            actor.server.gate.close(Closed::Stopping);
            let server = actor.server.clone();
            async move {
                let handed = server
                    .history
                    .hand_over(server.store.as_ref(), server.clock.mono());
                if let Err(error) = handed.await {
                    log::debug!("the last past leases are lost: {error}");
                }
                server.store.close().await;
            }
            .into_actor(actor)
        });
        Box::pin(finish)
    }
}
