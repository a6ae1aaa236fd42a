//! Loads, documents and listings. A load of a name that has a commit under way waits for it.

use std::future::Future;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::oneshot;

use crate::lock::ResourceName;
use crate::persistence::actor::{LoadAnswer, Persistence, Phase, unpanicked, within};
use crate::persistence::messages::{List, Load, LoadData};
use crate::store::{ListedResource, StoreError, StoredData, StoredResource};

impl Persistence {
    fn is_busy(&self, name: &ResourceName) -> bool {
        self.in_flight.contains_key(name) || self.commits.contains(name)
    }

    pub(super) fn run_deferred(&mut self, ctx: &mut Context<Self>) {
        let (busy, ready): (Vec<_>, Vec<_>) = std::mem::take(&mut self.deferred)
            .into_iter()
            .partition(|(name, _)| self.is_busy(name));
        self.deferred = busy;
        for (name, load) in ready {
            self.start_load(name, load, ctx);
        }
    }

    fn start_load(&mut self, name: ResourceName, load: LoadAnswer, ctx: &mut Context<Self>) {
        let store = self.server.store.clone();
        self.read(async move { store.load(&name).await }, load, ctx);
    }

    /// Runs one read within the time-out. A failure is its asker's and nobody else's: whether the store is
    /// lost is for commits and heartbeats to say.
    pub(super) fn read<T: Send + 'static>(
        &mut self,
        read: impl Future<Output = Result<T, StoreError>> + 'static,
        answer: oneshot::Sender<Result<T, StoreError>>,
        ctx: &mut Context<Self>,
    ) {
        if self.phase != Phase::Serving {
            let away = StoreError::Unavailable("not open".to_owned());
            let _ = answer.send(Err(away));
            return;
        }
        within(self.store_timeout(), read)
            .into_actor(self)
            .map(move |result, actor, _| {
                if let Err(error) = &result {
                    actor.complain_of_read(error);
                }
                let _ = answer.send(result);
            })
            .spawn(ctx);
    }

    /// Counts each, and logs at most one a second.
    fn complain_of_read(&mut self, error: &StoreError) {
        self.server.metrics.store.failed(error);
        let pause = Duration::from_secs(1);
        if self.read_complaint.is_none_or(|at| at.elapsed() >= pause) {
            self.read_complaint = Some(Instant::now());
            log::error!("a read failed, for its asker alone: {error}");
        }
    }
}

/// What a read that got no answer comes to: its asker is told that the store is away.
async fn answered<T>(answer: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
    let lost = |_| Err(StoreError::Unavailable("the read was given up".to_owned()));
    answer.await.unwrap_or_else(lost)
}

impl Handler<Load> for Persistence {
    type Result = ResponseFuture<Result<Option<StoredResource>, StoreError>>;

    fn handle(&mut self, msg: Load, ctx: &mut Self::Context) -> Self::Result {
        let (tx, rx) = oneshot::channel();
        // An actor that died may have left a commit.
        if self.is_busy(&msg.name) {
            self.deferred.push((msg.name, tx));
        } else {
            self.start_load(msg.name, tx, ctx);
        }
        Box::pin(answered(rx))
    }
}

impl Handler<LoadData> for Persistence {
    type Result = ResponseFuture<Result<Option<StoredData>, StoreError>>;

    fn handle(&mut self, msg: LoadData, ctx: &mut Self::Context) -> Self::Result {
        let (tx, rx) = oneshot::channel();
        let store = self.server.store.clone();
        let read = async move { store.load_data(&msg.id, &msg.selector).await };
        self.read(read, tx, ctx);
        Box::pin(answered(rx))
    }
}

impl Handler<List> for Persistence {
    type Result = ResponseFuture<Result<Vec<ListedResource>, StoreError>>;

    fn handle(&mut self, msg: List, ctx: &mut Self::Context) -> Self::Result {
        if self.phase != Phase::Serving {
            return Box::pin(answered(oneshot::channel().1));
        }
        let (tx, rx) = oneshot::channel();
        let store = self.server.store.clone();
        let limit = self.store_timeout();
        let listing_limit = Duration::from_millis(self.server.settings.listing_timeout_ms);
        let incarnation = self.server.incarnation();
        // Settling is not cut short.
        let listing = async move {
            let checkpointed = unpanicked(store.checkpoint()).await;
            let listed = match &checkpointed {
                Ok(()) => within(limit, store.list(&msg.0, listing_limit)).await,
                Err(error) => Err(error.clone()),
            };
            (checkpointed, listed)
        };
        listing
            .into_actor(self)
            .map(move |(checkpointed, listed), actor, ctx| {
                actor.checkpointed(&checkpointed, incarnation, ctx);
                // One that takes too long is no sign that the store is lost: heartbeats, loads and commits
                // would tell.
                if let (Ok(()), Err(error)) = (checkpointed, &listed) {
                    log::warn!("a listing failed: {error}");
                    actor.server.metrics.store.failed(error);
                }
                let _ = tx.send(listed);
            })
            .spawn(ctx);
        Box::pin(answered(rx))
    }
}
