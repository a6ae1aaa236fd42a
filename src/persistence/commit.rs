//! What waits becomes one transaction (group commit), and the store makes its checkpoints beside it.

use std::time::{Duration, Instant};

use actix::prelude::*;

use crate::persistence::actor::{Persistence, Phase, unpanicked, within};
use crate::persistence::messages::CommitResult;
use crate::persistence::queue::{Batch, BatchMember};
use crate::store::{Snapshot, Store, StoreError};

/// How a batch went: each member stored or refused, or everything in doubt.
type BatchResult = Result<Vec<Result<(), StoreError>>, StoreError>;

impl Persistence {
    /// Stores what was handed in, unless a commit is under way or the store is not to be trusted.
    pub(super) fn work(&mut self, ctx: &mut Context<Self>) {
        // Another incarnation: the registry gave up a commit that hangs, and has yet to be heard.
        let incarnation = self.server.incarnation();
        let serves = self.phase == Phase::Serving && self.incarnation == incarnation;
        let batch = match serves && self.in_flight.is_empty() {
            true => self.commits.take(),
            false => None,
        };
        let Some(batch) = batch else {
            return self.count();
        };
        let rows = batch.rows();
        let Batch {
            members,
            snapshots,
            places,
            ..
        } = batch;
        self.in_flight = places;
        let store = self.server.store.clone();
        let limit = self.store_timeout();
        self.server.metrics.store.batch(snapshots.len(), rows);
        let sent = Instant::now();
        async move { store_batch(store.as_ref(), &snapshots, limit).await }
            .into_actor(self)
            .map(move |result, actor, ctx| {
                actor.in_flight.clear();
                actor.server.metrics.store.committed(sent.elapsed());
                if actor.server.incarnation() == incarnation {
                    actor.stored(members, result, ctx);
                }
                actor.work(ctx);
                actor.run_deferred(ctx);
                actor.notify_drained();
            })
            .spawn(ctx);
        self.count();
    }

    /// Beside the commits, which take turns with it in the store.
    pub(super) fn checkpoint(&mut self, ctx: &mut Context<Self>) {
        if self.checkpointing || self.phase != Phase::Serving {
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

    /// `incarnation`: of the store when the checkpoint began.
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

    pub(super) fn count(&self) {
        let metrics = &self.server.metrics.store;
        metrics.queue.set(self.commits.len() as i64);
        metrics.in_flight.set(self.in_flight.len() as i64);
    }

    pub(super) fn stored(
        &mut self,
        members: Vec<BatchMember>,
        result: BatchResult,
        ctx: &mut Context<Self>,
    ) {
        let verdicts = match result {
            Ok(verdicts) => verdicts,
            Err(error) => return self.lose_store(&error, ctx),
        };
        for (BatchMember { actor, seq }, verdict) in members.into_iter().zip(verdicts) {
            match verdict {
                Ok(()) => actor.do_send(CommitResult::Committed { seq }),
                Err(error) => self.discard(&actor, &error),
            }
        }
    }

    /// One actor's change was refused: it starts over from what is stored.
    fn discard(&mut self, actor: &Recipient<CommitResult>, error: &StoreError) {
        log::error!("{error}");
        self.server.metrics.store.failed(error);
        self.commits.discard(actor);
        self.server.restart_leases();
        actor.do_send(CommitResult::Discard(None));
    }

    pub(super) fn notify_drained(&mut self) {
        if self.commits.is_empty() && self.in_flight.is_empty() {
            for drained in self.drained.drain(..) {
                let _ = drained.send(());
            }
        }
    }
}

/// Stores a batch as one transaction. When it is refused for what one member contains, each member is
/// stored by itself, so that one does not cost the others.
async fn store_batch(store: &dyn Store, snapshots: &[Snapshot], limit: Duration) -> BatchResult {
    match within(limit, store.commit(snapshots)).await {
        Ok(()) => return Ok(snapshots.iter().map(|_| Ok(())).collect()),
        Err(refused @ StoreError::Rejected(_)) if snapshots.len() == 1 => {
            return Ok(vec![Err(refused)]);
        }
        Err(StoreError::Rejected(_)) => {}
        Err(error) => return Err(error),
    }
    let mut verdicts = Vec::with_capacity(snapshots.len());
    for snapshot in snapshots {
        match within(limit, store.commit(std::slice::from_ref(snapshot))).await {
            Ok(()) => verdicts.push(Ok(())),
            Err(refused @ StoreError::Rejected(_)) => verdicts.push(Err(refused)),
            Err(error) => return Err(error),
        }
    }
    Ok(verdicts)
}
