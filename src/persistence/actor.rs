//! The state of the persistence actor, its messages and its end.
//!
//! No change is answered before [`Committed`] is sent. When the outcome of a commit is not known, no actor's memory can
//! be trusted: the incarnation grows, every actor answers its open requests with 503 and retires, and new actors read
//! from the store once it is open again.
//!
//! [`Committed`]: crate::shared::resource_notice::ResourceNotice::Committed

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
use crate::persistence::messages::PersistenceNotice;
use crate::persistence::queue::CommitQueue;
use crate::shared::gate::Closed;
use crate::shared::liveness::{LivenessGuard, PROOF_PAUSE};
use crate::shared::registry_notice::RegistryNotice;
use crate::shared::server_state::{PERSISTENCE, ServerState};
use crate::store::StoreError;
use crate::store::members::{InstanceId, heartbeat_every};

/// Pause between two hand-overs of past leases to the store. A crash loses at most the past leases of that time.
const HISTORY_EVERY: Duration = Duration::from_secs(5);
/// Pause between two checkpoints, in which the store catches up on what commits put off.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

pub struct Persistence {
    pub(super) server: Arc<ServerState>,
    pub(super) registry: Option<Recipient<RegistryNotice>>,
    /// Sends the result of the first attempt to open the store.
    pub(super) first_open: Option<oneshot::Sender<Result<(), StoreError>>>,
    /// Says also whether the store is open.
    pub(super) commits: Arc<parking_lot::Mutex<CommitQueue>>,
    /// Names in the transaction that is in progress, with their indexes in it.
    pub(super) in_flight: HashMap<ResourceName, usize>,
    /// Loads of names that have a commit queued or in progress, until it is stored. Dropped if the store is lost.
    pub(super) deferred: Vec<(ResourceName, oneshot::Sender<()>)>,
    /// A gift or take-over of slots is in progress.
    pub(super) slots_move: bool,
    /// No gift or take-over begins before this time.
    pub(super) no_move_before: Instant,
    /// Number of gifts, made or in doubt. A heartbeat that was sent before the last one shows slots that are
    /// gone.
    pub(super) gifts: u64,
    pub(super) heartbeat_open: bool,
    /// Another heartbeat was asked for while one was in progress.
    pub(super) heartbeat_again: bool,
    /// When this instance first saw each of the instances.
    pub(super) first_seen: HashMap<InstanceId, Instant>,
    /// This instance ends, and takes no slots any more.
    pub(super) is_leaving: bool,
    /// The sender of [`PersistenceNotice::GiveSlots`].
    pub(super) slots_given: Option<oneshot::Sender<()>>,
    pub(super) checkpointing: bool,
    /// Held while past leases are handed to the store: one hand-over at a time, and none while slots are given.
    pub(super) handing_over: Arc<Mutex<()>>,
    /// The last message that was logged about a store that is not open, so that it is logged once.
    pub(super) last_warning: String,
    /// When a failed read was last logged: thousands may fail.
    pub(super) read_failure_logged: Option<Instant>,
    /// The sender of [`PersistenceNotice::Finish`], until no commit is queued or in progress.
    pub(super) finishing: Option<oneshot::Sender<()>>,
    alive: LivenessGuard,
}

impl Persistence {
    pub fn new(
        server: Arc<ServerState>,
        commits: Arc<parking_lot::Mutex<CommitQueue>>,
        first_open: oneshot::Sender<Result<(), StoreError>>,
    ) -> Persistence {
        Persistence {
            alive: server.liveness.actor(PERSISTENCE),
            server,
            registry: None,
            first_open: Some(first_open),
            commits,
            in_flight: HashMap::default(),
            deferred: Vec::new(),
            slots_move: false,
            no_move_before: Instant::now(),
            gifts: 0,
            heartbeat_open: false,
            heartbeat_again: false,
            first_seen: HashMap::default(),
            is_leaving: false,
            slots_given: None,
            checkpointing: false,
            handing_over: Arc::default(),
            last_warning: String::new(),
            read_failure_logged: None,
            finishing: None,
        }
    }

    /// Whether the store is open.
    pub(super) fn is_serving(&self) -> bool {
        self.commits.lock().incarnation.is_some()
    }

    pub(super) fn store_timeout(&self) -> Duration {
        Duration::from_millis(self.server.settings.store_timeout_ms)
    }
}

/// Waits for a call of the store for at most `limit`. A time-out or a panic is [`StoreError::Unavailable`].
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    timeout(limit, unpanicked(work))
        .await
        .unwrap_or_else(|_| Err(late(limit)))
}

/// Turns a panic in a call of the store, as of a database driver, into the failure of that call alone.
pub(super) async fn unpanicked<T>(
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let caught = AssertUnwindSafe(work).catch_unwind().await;
    caught.unwrap_or_else(|_| {
        let text = "the call panicked, because of a bug in the database driver or in this program";
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
        if let Some(lease) = self.server.store.instance_lease() {
            let every = heartbeat_every(lease);
            ctx.run_interval(every, |actor, ctx| actor.send_heartbeat(ctx));
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
                if self.commits.lock().incarnation != Some(self.server.incarnation()) {
                    self.lose_store(&late(self.store_timeout()), ctx);
                }
            }
            PersistenceNotice::ActorStopped(actor) => self.commits.lock().forget(&actor),
            PersistenceNotice::Heartbeat => self.send_heartbeat(ctx),
            PersistenceNotice::Registry(registry) => self.registry = Some(registry),
            PersistenceNotice::GiveSlots(given) => self.give_slots(given, ctx),
            PersistenceNotice::Finish(finished) => {
                self.finishing = Some(finished);
                self.work(ctx);
                self.finish_if_drained(ctx);
            }
        }
    }
}

impl Persistence {
    /// Closes the store if this instance ends and no commit is queued or in progress.
    pub(super) fn finish_if_drained(&mut self, ctx: &mut Context<Self>) {
        if !self.commits.lock().is_empty() || !self.in_flight.is_empty() {
            return;
        }
        let Some(finished) = self.finishing.take() else {
            return;
        };
        // From here on nothing may open the store again: neither a heartbeat that finds it closed, nor a
        // retry that is waiting for the database.
        self.commits.lock().finish();
        self.server.gate.close(Closed::Stopping);
        let (server, handing_over) = (self.server.clone(), self.handing_over.clone());
        let closing = async move {
            let _alone = handing_over.lock().await;
            server.hand_over_history().await;
            server.store.close().await;
            let _ = finished.send(());
        };
        closing.into_actor(self).spawn(ctx);
    }
}
