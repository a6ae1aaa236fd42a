//! What waits becomes one transaction (group commit), and the store settles beside it.

use std::time::{Duration, Instant};

use actix::prelude::*;

use crate::persistence::actor::{Persistence, Phase, within};
use crate::persistence::batch::{Batch, Member};
use crate::persistence::messages::{Abandon, Committed};
use crate::resource::actor::ResourceActor;
use crate::resource::messages::Reply;
use crate::shared::gate::Closed;
use crate::store::{Snapshot, Store, StoreError};

/// How a batch went: each member stored or refused, or everything in doubt.
type BatchResult = Result<Vec<Result<(), StoreError>>, StoreError>;

impl Persistence {
    /// Takes in what was handed in and stores it, until a commit is under way or there is nothing to do.
    pub(super) fn work(&mut self, ctx: &mut Context<Self>) {
        loop {
            self.take_in();
            self.flush(ctx);
            if !self.in_flight.is_empty() || self.shell.commits.rest() {
                return;
            }
        }
    }

    /// Knows of everything that was handed in by now.
    pub(super) fn look(&mut self, ctx: &mut Context<Self>) {
        if self.in_flight.is_empty() {
            self.work(ctx);
        } else {
            self.take_in();
        }
    }

    fn take_in(&mut self) {
        for commit in self.shell.commits.take() {
            // One of an earlier incarnation, or of an abandoned actor, rests on state that is not stored; its
            // actor has been told, or is about to be.
            let stale = commit.incarnation != self.shell.incarnation();
            if self.phase == Phase::Finished && !stale {
                let reply = Reply::Closed(Closed::Stopping);
                commit.actor.do_send(Abandon { reply });
            } else if !stale
                && self.phase == Phase::Serving
                && !self.abandoned.contains(&commit.actor)
            {
                let (actor, seq) = (commit.actor, commit.seq);
                self.waiting.add(Member { actor, seq }, commit.snapshot);
            }
        }
        self.count();
    }

    fn flush(&mut self, ctx: &mut Context<Self>) {
        let given_up = self.incarnation != self.shell.incarnation();
        let serves = self.phase == Phase::Serving && !given_up;
        if !serves || !self.in_flight.is_empty() {
            return;
        }
        let Some(batch) = self.waiting.take() else {
            return;
        };
        let rows = batch.rows();
        let Batch {
            members,
            snapshots,
            places,
            ..
        } = batch;
        self.in_flight = places;
        let store = self.shell.store.clone();
        let limit = self.store_timeout();
        let incarnation = self.shell.incarnation();
        self.shell.metrics.store.batch(snapshots.len(), rows);
        self.count();
        let sent = Instant::now();
        async move { store_batch(store.as_ref(), &snapshots, limit).await }
            .into_actor(self)
            .map(move |result, actor, ctx| {
                actor.in_flight.clear();
                actor.shell.metrics.store.committed(sent.elapsed());
                actor.count();
                if actor.shell.incarnation() == incarnation {
                    actor.stored(members, result, ctx);
                }
                actor.work(ctx);
                actor.run_deferred(ctx);
                actor.notify_drained();
            })
            .spawn(ctx);
    }

    /// Beside the commits, which take turns with it in the store.
    pub(super) fn settle(&mut self, ctx: &mut Context<Self>) {
        if self.settling || self.phase != Phase::Serving {
            return;
        }
        self.settling = true;
        let store = self.shell.store.clone();
        let incarnation = self.shell.incarnation();
        async move { store.settle().await }
            .into_actor(self)
            .map(move |result, actor, ctx| {
                actor.settling = false;
                actor.settled(&result, incarnation, ctx);
            })
            .spawn(ctx);
    }

    /// `incarnation`: of the store when settling began.
    pub(super) fn settled(
        &mut self,
        result: &Result<(), StoreError>,
        incarnation: u64,
        ctx: &mut Context<Self>,
    ) {
        match result {
            Err(refused @ StoreError::Rejected(_)) => log::error!("settling: {refused}"),
            Err(error) if self.shell.incarnation() == incarnation => self.lose_store(error, ctx),
            _ => {}
        }
    }

    pub(super) fn count(&self) {
        let metrics = &self.shell.metrics.store;
        metrics.queue.set(self.waiting.len() as i64);
        metrics.in_flight.set(self.in_flight.len() as i64);
    }

    pub(super) fn stored(
        &mut self,
        members: Vec<Member>,
        result: BatchResult,
        ctx: &mut Context<Self>,
    ) {
        let verdicts = match result {
            Ok(verdicts) => verdicts,
            Err(error) => return self.lose_store(&error, ctx),
        };
        for (Member { actor, seq }, verdict) in members.into_iter().zip(verdicts) {
            match verdict {
                Ok(()) => actor.do_send(Committed { seq }),
                Err(error) => self.abandon(actor, &error),
            }
        }
    }

    /// One actor's change was refused: it starts over from what is stored.
    fn abandon(&mut self, actor: Addr<ResourceActor>, error: &StoreError) {
        log::error!("{error}");
        self.shell.metrics.store.failed(error);
        self.waiting.forget(&actor);
        self.shell.restart_leases();
        actor.do_send(Abandon {
            reply: Reply::Refused,
        });
        self.abandoned.insert(actor);
    }

    pub(super) fn notify_drained(&mut self) {
        if self.waiting.is_empty() && self.in_flight.is_empty() {
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
