//! How the store is opened, given up and given back, with a store that takes its time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use actix::prelude::*;
use async_trait::async_trait;
use small_resource_server::app::{FirstOpen, start_actors};
use small_resource_server::lock::rows::Forced;
use small_resource_server::lock::{
    Answer, FencingToken, KeyName, LockOptions, PresentedTicket, Reason, ResourceName,
    ResourceOptions, Selector,
};
use small_resource_server::persistence::actor::Persistence;
use small_resource_server::persistence::messages::{Load, PersistenceNotice};
use small_resource_server::registry::client::{Router, confirmed};
use small_resource_server::resource::messages::Wait;
use small_resource_server::resource::messages::{Op, Reply};
use small_resource_server::shared::caller::Caller;
use small_resource_server::shared::gate::Closed;
use small_resource_server::shared::server_state::{ServerSettings, ServerState};
use small_resource_server::store::history::{PastLease, PastLeases};
use small_resource_server::store::members::Members;
use small_resource_server::store::memory::MemoryStore;
use small_resource_server::store::{
    DocumentSize, ListQuery, ListedResource, ResourceId, Snapshot, Store, StoreError, StoredData,
    StoredResource,
};
use tokio::sync::{Semaphore, oneshot};

use crate::support::{DEADLINE, server_settings};

/// A disk that does not come back: blocks the thread that commits.
#[derive(Default)]
struct Hangs {
    since: Mutex<Option<Instant>>,
    hangs: Mutex<bool>,
    changed: Condvar,
}

impl Hangs {
    fn set(&self, hangs: bool) {
        *self.hangs.lock().unwrap() = hangs;
        self.changed.notify_all();
    }

    fn pass(&self) {
        *self.since.lock().unwrap() = Some(Instant::now());
        let hangs = self.hangs.lock().unwrap();
        drop(self.changed.wait_while(hangs, |hangs| *hangs).unwrap());
        *self.since.lock().unwrap() = None;
    }
}

/// How long an attempt to open the store may take before the log and the gate say that it takes long: 1.5 times the
/// time-out of [`server`].
const OPENING_LIMIT: Duration = Duration::from_millis(30);

/// Opens and closes when it is let.
struct Slow {
    inner: MemoryStore,
    may_open: Semaphore,
    may_close: Semaphore,
    /// A load never ends, and an attempt to open takes [`OPENING_LIMIT`].
    is_slow: AtomicBool,
    hangs: Hangs,
    opens: AtomicUsize,
    closes: AtomicUsize,
    heartbeats: AtomicUsize,
}

impl Slow {
    fn new(may_open: usize, may_close: usize) -> Arc<Slow> {
        Arc::new(Slow {
            inner: MemoryStore::default(),
            may_open: Semaphore::new(may_open),
            may_close: Semaphore::new(may_close),
            is_slow: AtomicBool::new(false),
            hangs: Hangs::default(),
            opens: AtomicUsize::new(0),
            closes: AtomicUsize::new(0),
            heartbeats: AtomicUsize::new(0),
        })
    }
}

async fn take(permits: &Semaphore) {
    permits.acquire().await.unwrap().forget();
}

#[async_trait]
impl Store for Slow {
    fn kind(&self) -> &'static str {
        "slow"
    }

    async fn open(&self) -> Result<(FencingToken, Option<Members>), StoreError> {
        self.opens.fetch_add(1, Ordering::SeqCst);
        take(&self.may_open).await;
        if self.is_slow.load(Ordering::SeqCst) {
            tokio::time::sleep(OPENING_LIMIT).await;
        }
        self.inner.open().await
    }

    async fn commit(&self, batch: &[Snapshot]) -> Result<(), StoreError> {
        self.hangs.pass();
        self.inner.commit(batch).await
    }

    fn blocks_for(&self) -> Duration {
        let since = *self.hangs.since.lock().unwrap();
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    async fn load(&self, name: &ResourceName) -> Result<Option<StoredResource>, StoreError> {
        if self.is_slow.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.inner.load(name).await
    }

    async fn load_data(
        &self,
        id: &ResourceId,
        selector: &Selector,
    ) -> Result<Option<StoredData>, StoreError> {
        self.inner.load_data(id, selector).await
    }

    async fn document_sizes(
        &self,
        id: &ResourceId,
        after: &str,
        limit: usize,
    ) -> Result<Vec<DocumentSize>, StoreError> {
        self.inner.document_sizes(id, after, limit).await
    }

    async fn list(
        &self,
        query: &ListQuery,
        limit: Duration,
    ) -> Result<Vec<ListedResource>, StoreError> {
        self.inner.list(query, limit).await
    }

    /// Fails as soon as closing has begun.
    async fn heartbeat(&self) -> Result<Option<Members>, StoreError> {
        self.heartbeats.fetch_add(1, Ordering::SeqCst);
        match self.closes.load(Ordering::SeqCst) {
            0 => Ok(None),
            _ => Err(StoreError::Unavailable("it is not open".into())),
        }
    }

    fn instance_lease(&self) -> Option<Duration> {
        Some(Duration::from_secs(80))
    }

    async fn append_history(&self, news: &PastLeases, most: usize) -> Result<(), StoreError> {
        self.inner.append_history(news, most).await
    }

    async fn history(&self, name: &ResourceName) -> Result<Vec<PastLease>, StoreError> {
        self.inner.history(name).await
    }

    async fn close(&self) {
        self.closes.fetch_add(1, Ordering::SeqCst);
        take(&self.may_close).await;
        self.inner.close().await;
    }
}

fn server(store: Arc<Slow>) -> Arc<ServerState> {
    let settings = ServerSettings {
        store_timeout_ms: 20,
        listing_timeout_ms: 20,
        retire_ms: 1000,
        ..server_settings()
    };
    Arc::new(ServerState::new(settings, store))
}

fn persistence(store: Arc<Slow>) -> (Arc<ServerState>, Addr<Persistence>, FirstOpen) {
    let server = server(store);
    let (sender, first) = oneshot::channel();
    let actor = Persistence::new(server.clone(), Arc::default(), sender).start();
    (server, actor, first)
}

/// Has the actor close the store; ready when that is done.
fn finish(actor: &Addr<Persistence>) -> oneshot::Receiver<()> {
    let (finished, done) = oneshot::channel();
    actor.do_send(PersistenceNotice::Finish(finished));
    done
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let held = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(DEADLINE, held).await;
    assert!(waited.is_ok(), "never happened: {what}");
}

#[test]
fn a_store_that_takes_long_to_open_is_not_begun_again() {
    System::new().block_on(async {
        let store = Slow::new(0, 1);
        let (server, _actor, first) = persistence(store.clone());
        // The start of the server is not held up by it.
        let told = tokio::time::timeout(DEADLINE, first)
            .await
            .unwrap()
            .unwrap();
        assert!(matches!(told, Err(StoreError::Unavailable(_))), "{told:?}");
        assert!(server.gate.check().is_err());
        store.may_open.add_permits(1);
        until("it serves", || server.gate.check().is_ok()).await;
        assert_eq!(store.opens.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn an_attempt_that_succeeds_at_its_limit_serves() {
    System::new().block_on(async {
        let store = Slow::new(9, 9);
        let (server, actor, _first) = persistence(store.clone());
        until("it serves", || server.gate.check().is_ok()).await;
        store.is_slow.store(true, Ordering::SeqCst);
        let name = ResourceName::parse("printer").unwrap();
        // It is given up while the store is being opened: after that the actor looks at the attempt first, and then
        // at the time.
        let load = actor.send(Load { name });
        // The next heartbeat fails.
        store.closes.store(1, Ordering::SeqCst);
        actor.do_send(PersistenceNotice::Heartbeat);
        until("it is lost", || server.gate.check().is_err()).await;
        store.closes.store(0, Ordering::SeqCst);
        assert!(load.await.unwrap().is_err());
        // The thread is busy until both are due.
        std::thread::sleep(2 * OPENING_LIMIT);
        until("it serves again", || server.gate.check().is_ok()).await;
        assert_eq!(store.opens.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn a_store_that_is_being_given_back_is_not_opened_again() {
    System::new().block_on(async {
        let store = Slow::new(9, 0);
        let (server, actor, _first) = persistence(store.clone());
        until("it serves", || server.gate.check().is_ok()).await;
        let finishing = finish(&actor);
        until("closing begins", || {
            store.closes.load(Ordering::SeqCst) == 1
        })
        .await;
        let before = store.heartbeats.load(Ordering::SeqCst);
        // Time for what a heartbeat would set off, if one were still sent or on its way.
        for _ in 0..20 {
            actor.do_send(PersistenceNotice::Heartbeat);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let after = store.heartbeats.load(Ordering::SeqCst);
        assert!(after <= before + 1, "{before} heartbeats, then {after}");
        store.may_close.add_permits(1);
        finishing.await.unwrap();
        assert_eq!(store.opens.load(Ordering::SeqCst), 1);
        assert!(server.gate.check().is_err());
    });
}

#[test]
fn a_store_that_opens_while_the_server_stops_is_given_back_unused() {
    System::new().block_on(async {
        let store = Slow::new(0, 2);
        let (server, actor, _first) = persistence(store.clone());
        until("opening begins", || store.opens.load(Ordering::SeqCst) == 1).await;
        finish(&actor).await.unwrap();
        store.may_open.add_permits(1);
        until("it was opened", || store.may_open.available_permits() == 0).await;
        // The actor has taken note when it answers again.
        finish(&actor).await.unwrap();
        assert!(server.gate.check().is_err());
        assert_eq!(store.opens.load(Ordering::SeqCst), 1);
    });
}

/// The actors on threads of their own, as the server has them.
async fn served(store: Arc<Slow>) -> (Arc<ServerState>, Router) {
    let server = server(store);
    let [writing, finding] = [Arbiter::new(), Arbiter::new()];
    let (persistence, registry, first_open) =
        start_actors(&server, &writing.handle(), &finding.handle());
    first_open.await.unwrap().unwrap();
    let router = Router::new(server.clone(), registry, persistence);
    (server, router)
}

#[test]
fn a_commit_that_hangs_is_given_up_and_the_store_is_opened_again() {
    System::new().block_on(async {
        let store = Slow::new(9, 9);
        let (server, router) = served(store.clone()).await;
        let ask = async |op: Op| {
            let name = ResourceName::parse("printer").unwrap();
            let asked = router.ask(&name, &op, Caller::nobody());
            confirmed(tokio::time::timeout(DEADLINE, asked).await.unwrap())
        };
        let lock = || Op::Acquire {
            selector: None,
            presented: PresentedTicket::Absent,
            options: LockOptions::default(),
            wait: Wait::NoQueue,
            create: false,
        };
        let options = ResourceOptions::default();
        let created = ask(Op::Create { options }).await;
        assert!(matches!(*created, Reply::Created { .. }), "{created:?}");

        store.hangs.set(true);
        let refused = ask(lock()).await;
        assert_eq!(*refused, Reply::Closed(Closed::StoreAway));
        assert_eq!(server.gate.check(), Err(Closed::StoreAway));
        let listed = router.page(ListQuery {
            limit: 1,
            ..ListQuery::default()
        });
        let listed = tokio::time::timeout(DEADLINE, listed).await.unwrap();
        assert!(listed.is_err(), "{listed:?}");
        assert_eq!(store.opens.load(Ordering::SeqCst), 1);

        store.hangs.set(false);
        until("it serves again", || server.gate.check().is_ok()).await;
        assert_eq!(store.opens.load(Ordering::SeqCst), 2);
        let describe = Op::Describe {
            presented: PresentedTicket::Absent,
            places: 0,
            watch: None,
        };
        let Reply::Described(description) = *ask(describe).await else {
            panic!("it is there");
        };
        // What was under way when it was given up happened: nobody was told so, and nobody that it did not.
        let holder = description.holders.first().expect("a lease");
        let token = Some(holder.token);
        let forced = Box::new(Forced {
            reason: Reason::parse("nobody knows its ticket").unwrap(),
            by: KeyName::parse("admin").unwrap(),
        });
        let forced = ask(Op::ForceUnlock { token, forced }).await;
        assert!(
            matches!(*forced, Reply::Lock(Answer::Forced(ref ended)) if ended.len() == 1),
            "{forced:?}"
        );
        let Reply::Lock(Answer::Granted(grant)) = *ask(lock()).await else {
            panic!("it is free");
        };
        assert!(grant.holder.token > holder.token);
    });
}
