//! Group commit: everything that is queued becomes one transaction. Beside it the store makes its checkpoints and takes
//! past leases.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use actix::prelude::*;

use crate::persistence::actor::{Persistence, unpanicked, within};
use crate::persistence::queue::Batch;
use crate::shared::resource_notice::ResourceNotice;
use crate::store::{Snapshot, Store, StoreError};

/// The result of a batch: the members that were rejected, by index; or an error that leaves everything in doubt.
type BatchResult = Result<BTreeMap<usize, StoreError>, StoreError>;

impl Persistence {
    /// Commits the next batch, unless a commit is in progress or the store is not open or in doubt.
    pub(super) fn work(&mut self, ctx: &mut Context<Self>) {
        // If the incarnation is another one, the registry gave up a commit that hangs, and its notice is on its way.
        let incarnation = self.server.incarnation();
        let batch = {
            let mut commits = self.commits.lock();
            let may_commit = commits.incarnation == Some(incarnation) && self.in_flight.is_empty();
            may_commit.then(|| commits.take()).flatten()
        };
        let Some(Batch {
            members,
            snapshots,
            places,
            rows,
            ..
        }) = batch
        else {
            return self.count();
        };
        self.in_flight = places;
        let store = self.server.store.clone();
        let limit = self.store_timeout();
        let metrics = &self.server.metrics;
        metrics.commit_batch_rows.observe(rows as f64);
        let resources = &metrics.commit_batch_resources;
        resources.observe(snapshots.len() as f64);
        let sent = Instant::now();
        let storing = async move {
            match within(limit, store.commit(&snapshots)).await {
                Ok(()) => Ok(BTreeMap::new()),
                Err(refused @ StoreError::Rejected(_)) if snapshots.len() == 1 => {
                    Ok(BTreeMap::from([(0, refused)]))
                }
                // Rejected because of one member's content: the others must still be stored.
                Err(StoreError::Rejected(_)) => {
                    store_one_by_one(store.as_ref(), &snapshots, limit).await
                }
                Err(error) => Err(error),
            }
        };
        storing
            .into_actor(self)
            .map(move |result, actor, ctx| {
                actor.in_flight.clear();
                let seconds = &actor.server.metrics.commit_seconds;
                seconds.observe(sent.elapsed().as_secs_f64());
                if actor.server.incarnation() == incarnation {
                    actor.stored(members, result, ctx);
                }
                actor.work(ctx);
                actor.run_deferred();
                actor.finish_if_drained(ctx);
            })
            .spawn(ctx);
        self.count();
    }

    /// Starts a checkpoint. It runs beside the commits, which take turns with it in the store.
    pub(super) fn checkpoint(&mut self, ctx: &mut Context<Self>) {
        if self.checkpointing || !self.is_serving() {
            return;
        }
        self.checkpointing = true;
        let store = self.server.store.clone();
        let incarnation = self.server.incarnation();
        unpanicked(async move { store.checkpoint().await })
            .into_actor(self)
            .map(move |result, actor, ctx| {
                actor.checkpointing = false;
                actor.checkpointed(&result, incarnation, ctx);
            })
            .spawn(ctx);
    }

    /// Handles the result of a checkpoint. `incarnation`: the one in which it began.
    pub(super) fn checkpointed(
        &mut self,
        result: &Result<(), StoreError>,
        incarnation: u64,
        ctx: &mut Context<Self>,
    ) {
        match result {
            Err(refused @ StoreError::Rejected(_)) => {
                log::error!("a checkpoint was refused: {refused}")
            }
            Err(error) if self.server.incarnation() == incarnation => self.lose_store(error, ctx),
            _ => {}
        }
    }

    /// Hands the store the past leases that it does not have yet.
    pub(super) fn store_history(&mut self, ctx: &mut Context<Self>) {
        if !self.is_serving() {
            return;
        }
        let Ok(alone) = self.handing_over.clone().try_lock_owned() else {
            return;
        };
        let server = self.server.clone();
        let handing = async move {
            let _alone = alone;
            server.hand_over_history().await;
        };
        handing.into_actor(self).spawn(ctx);
    }

    /// Updates the metrics of the queue.
    pub(super) fn count(&self) {
        let metrics = &self.server.metrics;
        let (queued, in_flight) = (self.commits.lock().len(), self.in_flight.len());
        metrics.persistence_queue_resources.set(queued as i64);
        metrics
            .persistence_in_flight_resources
            .set(in_flight as i64);
    }

    /// A transaction is done: tells the `members` of its batch.
    fn stored(
        &mut self,
        members: Vec<(Recipient<ResourceNotice>, u64)>,
        result: BatchResult,
        ctx: &mut Context<Self>,
    ) {
        let mut refused = match result {
            Ok(refused) => refused,
            Err(error) => return self.lose_store(&error, ctx),
        };
        for (place, (actor, seq)) in members.into_iter().enumerate() {
            match refused.remove(&place) {
                None => actor.do_send(ResourceNotice::Committed { seq }),
                Some(error) => self.discard(&actor, &error),
            }
        }
    }

    /// Discards an actor whose change was rejected: the next actor of its name starts from the stored state.
    fn discard(&mut self, actor: &Recipient<ResourceNotice>, error: &StoreError) {
        log::error!("{error}");
        self.server.metrics.store_failed(error);
        self.commits.lock().discard(actor);
        self.server.restart_leases();
        actor.do_send(ResourceNotice::Discard(None));
    }
}

async fn store_one_by_one(
    store: &dyn Store,
    snapshots: &[Snapshot],
    limit: Duration,
) -> BatchResult {
    let mut refused = BTreeMap::new();
    for (place, snapshot) in snapshots.iter().enumerate() {
        match within(limit, store.commit(std::slice::from_ref(snapshot))).await {
            Ok(()) => {}
            Err(error @ StoreError::Rejected(_)) => {
                refused.insert(place, error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
}
