//! Held resources that sleep, seen from inside: messages that find nobody awake, and a store that cannot
//! be read when they are to wake. What clients see is in `tests/api/sleep`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::prelude::*;
use async_trait::async_trait;
use small_resource_server::actors::messages::{
    AbandonAll, Call, Description, Find, Vanished, Wait,
};
use small_resource_server::actors::registry::Registry;
use small_resource_server::actors::shell::ShellSettings;
use small_resource_server::actors::start::{Started, start};
use small_resource_server::actors::{Caller, Closed, Op, Reply, Router, Shell};
use small_resource_server::lock::{
    Answer, Bearer, Limits, RequestId, ResourceName, Seconds, Selector,
};
use small_resource_server::store::memory::MemoryStore;
use small_resource_server::store::{
    ListQuery, ListedResource, Opened, ResourceId, Snapshot, Store, StoreError, StoredData,
    StoredResource,
};
use tokio::sync::oneshot;

const DEADLINE: Duration = Duration::from_secs(60);

/// Its rows cannot be read while it is `unreadable`; it is not lost for that.
#[derive(Default)]
struct Moody {
    inner: MemoryStore,
    unreadable: AtomicBool,
}

#[async_trait]
impl Store for Moody {
    fn kind(&self) -> &'static str {
        "moody"
    }

    async fn open(&self) -> Result<Opened, StoreError> {
        self.inner.open().await
    }

    async fn commit(&self, batch: &[Snapshot]) -> Result<(), StoreError> {
        self.inner.commit(batch).await
    }

    async fn load(&self, name: &ResourceName) -> Result<Option<StoredResource>, StoreError> {
        if self.unreadable.load(Ordering::SeqCst) {
            return Err(StoreError::Rejected("not now".into()));
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

    async fn list(&self, query: &ListQuery) -> Result<Vec<ListedResource>, StoreError> {
        self.inner.list(query).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

/// Registry, persistence and one resource, all on this thread.
struct Actors {
    store: Arc<Moody>,
    shell: Arc<Shell>,
    registry: Addr<Registry>,
    router: Router,
    name: ResourceName,
}

impl Actors {
    async fn start() -> Actors {
        let settings = ShellSettings {
            compatibility: None,
            limits: Limits::default(),
            wait_ms: 0,
            store_timeout_ms: 60_000,
            waiters_max: 10,
            selectors_max: 10,
            data_cache_bytes: 1 << 20,
            retire_ms: 100,
        };
        let store = Arc::new(Moody::default());
        let shell = Arc::new(Shell::new(settings, store.clone()));
        let Started {
            persistence,
            registry,
            first_open,
        } = start(&shell, &Arbiter::current(), &Arbiter::current());
        first_open.await.unwrap().unwrap();
        let name = ResourceName::parse("printer").unwrap();
        let router = Router::new(shell.clone(), registry.clone(), persistence);
        let timeout = Seconds::ZERO;
        let create = Op::Create { timeout };
        let created = router.ask(&name, &create, &Caller::NOBODY);
        assert!(matches!(*created.await, Reply::Created { .. }));
        Actors {
            store,
            shell,
            registry,
            router,
            name,
        }
    }

    /// Takes the lock; says the request, and the actor that it was granted by.
    async fn hold(&self) -> (RequestId, Recipient<Vanished>) {
        let find = Find {
            name: self.name.clone(),
            home: Arbiter::current(),
        };
        let actor = self.registry.send(find).await.unwrap();
        let (reply, answer) = oneshot::channel();
        let request = self.shell.next_requests(1);
        actor.do_send(Call {
            request,
            op: Op::Acquire {
                selector: None,
                bearer: Bearer::Nobody,
                owner: None,
                ttl: Seconds::new(600),
                key: None,
                wait: Wait::NoQueue,
            },
            caller: Caller::NOBODY,
            reply,
        });
        let answer = answer.await.unwrap();
        assert!(matches!(*answer, Reply::Lock(Answer::Granted(_))));
        (request, actor.recipient())
    }

    async fn until(&self, what: &str, condition: impl Fn(&Shell) -> bool) {
        let held = async {
            while !condition(&self.shell) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, held).await;
        assert!(waited.is_ok(), "never happened: {what}");
    }

    async fn until_asleep(&self) {
        let asleep = |shell: &Shell| shell.metrics.actors.asleep.get() == 1;
        self.until("it sleeps", asleep).await;
    }

    async fn ask(&self) -> Reply {
        let asked = self.router.ask(&self.name, &Op::Describe, &Caller::NOBODY);
        *asked.await
    }

    async fn describe(&self) -> Description {
        match self.ask().await {
            Reply::Described(description) => description,
            other => panic!("{other:?}"),
        }
    }

    fn held(&self) -> i64 {
        self.shell.metrics.locks.held()
    }
}

#[test]
fn a_grant_whose_client_turns_out_to_be_gone_is_taken_back_from_a_sleeper() {
    System::new().block_on(async {
        let actors = Actors::start().await;
        let (request, actor) = actors.hold().await;
        actors.until_asleep().await;
        actor.do_send(Vanished { request });
        let free = |shell: &Shell| shell.metrics.locks.held() == 0;
        actors.until("the lock is free", free).await;
        assert!(!actors.describe().await.locked);
    });
}

#[test]
fn a_lease_goes_on_though_the_store_could_not_be_read_for_a_while() {
    System::new().block_on(async {
        let actors = Actors::start().await;
        let (request, actor) = actors.hold().await;
        let before = actors.describe().await.holder.unwrap();
        actors.until_asleep().await;
        actors.store.unreadable.store(true, Ordering::SeqCst);
        assert_eq!(actors.ask().await, Reply::Closed(Closed::StoreAway));
        actors.until_asleep().await;
        assert_eq!(actors.held(), 1);
        actors.store.unreadable.store(false, Ordering::SeqCst);
        let after = actors.describe().await.holder.unwrap();
        assert_eq!(after.token, before.token);
        // The two clocks are read one after the other.
        let moved = after
            .expires_at
            .unwrap()
            .abs_diff(before.expires_at.unwrap());
        assert!(moved < 50, "by {moved} ms");

        actors.until_asleep().await;
        actors.store.unreadable.store(true, Ordering::SeqCst);
        actor.do_send(Vanished { request });
        assert_eq!(actors.ask().await, Reply::Closed(Closed::StoreAway));
        actors.until_asleep().await;
        actors.store.unreadable.store(false, Ordering::SeqCst);
        assert!(
            !actors.describe().await.locked,
            "that its client is gone is not forgotten"
        );
    });
}

#[test]
fn nothing_that_slept_is_believed_when_the_store_was_in_doubt() {
    System::new().block_on(async {
        let actors = Actors::start().await;
        actors.hold().await;
        let before = actors.describe().await.holder.unwrap();
        actors.until_asleep().await;
        actors.shell.next_incarnation();
        actors.registry.do_send(AbandonAll {
            reply: Reply::Closed(Closed::StoreAway),
        });
        let none = |shell: &Shell| shell.metrics.actors.asleep.get() == 0;
        actors.until("none sleeps", none).await;
        assert_eq!(actors.held(), 0);
        let after = actors.describe().await.holder.unwrap();
        assert_eq!((after.token, actors.held()), (before.token, 1));
        assert!(after.expires_at > before.expires_at, "its TTL runs anew");
    });
}
