//! Reads of resources, documents and listings. A load of a name that has a pending commit waits for it.

use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::oneshot;

use crate::lock::ResourceName;
use crate::persistence::actor::{Persistence, unpanicked, within};
use crate::persistence::messages::{Load, LoadData};
use crate::store::{ListQuery, ListedResource, StoreError, StoredData, StoredResource};

/// A read of the store: the future of its result.
type Reading<T> = ResponseActFuture<Persistence, Result<T, StoreError>>;

impl Persistence {
    /// Whether a commit of this name is queued or in progress.
    fn is_busy(&self, name: &ResourceName) -> bool {
        self.in_flight.contains_key(name) || self.commits.lock().contains(name)
    }

    /// Lets deferred loads go on whose names have no pending commit any more.
    pub(super) fn run_deferred(&mut self) {
        let (busy, ready): (Vec<_>, Vec<_>) = std::mem::take(&mut self.deferred)
            .into_iter()
            .partition(|(name, _)| self.is_busy(name));
        self.deferred = busy;
        for (_, load) in ready {
            let _ = load.send(());
        }
    }

    /// Runs one read within the time-out. A failure is returned to the caller and changes nothing else: only commits,
    /// checkpoints and heartbeats decide whether the store is lost.
    fn read<T: 'static>(
        &self,
        read: impl Future<Output = Result<T, StoreError>> + 'static,
    ) -> Reading<T> {
        if !self.is_serving() {
            return not_read("not open");
        }
        let reading = within(self.store_timeout(), read).into_actor(self);
        Box::pin(reading.map(|result, actor, _| {
            if let Err(error) = &result {
                actor.log_failed_read(error);
            }
            result
        }))
    }

    /// Counts each failed read, and logs at most one per second.
    fn log_failed_read(&mut self, error: &StoreError) {
        self.server.metrics.store_failed(error);
        let pause = Duration::from_secs(1);
        if self
            .read_failure_logged
            .is_none_or(|at| at.elapsed() >= pause)
        {
            self.read_failure_logged = Some(Instant::now());
            log::error!("a read failed; only its request is affected: {error}");
        }
    }
}

/// The result of a read that cannot be made now: [`StoreError::Unavailable`].
fn not_read<T: 'static>(why: &str) -> Reading<T> {
    let away = StoreError::Unavailable(why.to_owned());
    Box::pin(actix::fut::err(away))
}

impl Handler<Load> for Persistence {
    type Result = Reading<Option<StoredResource>>;

    fn handle(&mut self, Load { name }: Load, _: &mut Self::Context) -> Self::Result {
        let store = self.server.store.clone();
        if !self.is_busy(&name) {
            return self.read(async move { store.load(&name).await });
        }
        // An actor of this name that died may have left a commit.
        let (sender, stored) = oneshot::channel();
        self.deferred.push((name.clone(), sender));
        let waiting = stored.into_actor(self);
        Box::pin(waiting.then(move |stored, actor, _| match stored {
            Ok(()) => actor.read(async move { store.load(&name).await }),
            Err(_) => not_read("it was lost"),
        }))
    }
}

impl Handler<LoadData> for Persistence {
    type Result = Reading<Option<StoredData>>;

    fn handle(&mut self, msg: LoadData, _: &mut Self::Context) -> Self::Result {
        let store = self.server.store.clone();
        self.read(async move { store.load_data(&msg.id, &msg.selector).await })
    }
}

impl Handler<ListQuery> for Persistence {
    type Result = Reading<Vec<ListedResource>>;

    fn handle(&mut self, query: ListQuery, _: &mut Self::Context) -> Self::Result {
        if !self.is_serving() {
            return not_read("not open");
        }
        let store = self.server.store.clone();
        let limit = self.store_timeout();
        let listing_limit = Duration::from_millis(self.server.settings.listing_timeout_ms);
        let incarnation = self.server.incarnation();
        // The checkpoint has no time-out.
        let listing = async move {
            let checkpointed = unpanicked(store.checkpoint()).await;
            let listed = match &checkpointed {
                Ok(()) => within(limit, store.list(&query, listing_limit)).await,
                Err(error) => Err(error.clone()),
            };
            (checkpointed, listed)
        };
        let listing = listing.into_actor(self);
        Box::pin(listing.map(move |(checkpointed, listed), actor, ctx| {
            actor.checkpointed(&checkpointed, incarnation, ctx);
            // A listing that takes too long does not mean that the store is lost: heartbeats and commits decide
            // that.
            if let (Ok(()), Err(error)) = (checkpointed, &listed) {
                log::warn!("a listing failed: {error}");
                actor.server.metrics.store_failed(error);
            }
            listed
        }))
    }
}
