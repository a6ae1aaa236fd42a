//! All actors on the thread of the test, and what a handler would ask them.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::prelude::*;
use small_resource_server::app::start_actors;
use small_resource_server::lock::{
    Answer, LockOptions, Millis, PresentedTicket, RequestId, ResourceName, ResourceOptions,
    Seconds, Selector, Ticket,
};
use small_resource_server::registry::actor::{Find, Registry};
use small_resource_server::registry::client::{Router, confirmed};
use small_resource_server::resource::actor::ResourceActor;
use small_resource_server::resource::messages::{Description, Op, Reply, Wait};
use small_resource_server::shared::caller::Caller;
use small_resource_server::shared::resource_notice::ResourceNotice;
use small_resource_server::shared::server_state::{ServerSettings, ServerState};
use tokio::task::JoinHandle;

use crate::settings::server_settings;
use crate::store::Scripted;

pub const DEADLINE: Duration = Duration::from_secs(60);
/// So long does nothing retire in these tests.
pub const NEVER: Millis = 600_000;

pub fn name(text: &str) -> ResourceName {
    ResourceName::parse(text).expect("a name")
}

pub fn selector(text: &str) -> Selector {
    Selector::parse(text).expect("a selector")
}

pub fn acquire(selector: Option<Selector>, wait: Wait) -> Op {
    Op::Acquire {
        selector,
        presented: PresentedTicket::Absent,
        options: LockOptions {
            ttl: Seconds::new(600).map(Into::into),
            ..LockOptions::default()
        },
        wait,
        create: false,
    }
}

pub const DESCRIBE: Op = Op::Describe {
    presented: PresentedTicket::Absent,
    places: 20,
    watch: None,
};

pub fn write(at: &str, json: &'static str) -> Op {
    Op::Write {
        selector: selector(at),
        json: json.into(),
        presented: PresentedTicket::Absent,
        release: false,
        create: false,
        condition: None,
    }
}

pub fn read(at: &str) -> Op {
    Op::Read {
        selector: selector(at),
        presented: PresentedTicket::Absent,
        watch: None,
    }
}

pub struct Bed {
    pub store: Arc<Scripted>,
    pub server: Arc<ServerState>,
    pub registry: Addr<Registry>,
    pub router: Rc<Router>,
}

impl Bed {
    pub async fn start(data_cache_bytes: usize, retire_ms: Millis) -> Bed {
        let store = Arc::new(Scripted::default());
        let settings = ServerSettings {
            store_timeout_ms: 60_000,
            listing_timeout_ms: 60_000,
            data_cache_bytes,
            retire_ms,
            ..server_settings()
        };
        let server = Arc::new(ServerState::new(settings, store.clone()));
        let (persistence, registry, first_open) =
            start_actors(&server, &Arbiter::current(), &Arbiter::current());
        first_open.await.unwrap().unwrap();
        let router = Rc::new(Router::new(server.clone(), registry.clone(), persistence));
        Bed {
            store,
            server,
            registry,
            router,
        }
    }

    pub async fn ask(&self, to: &str, op: Op) -> Reply {
        let reply = async { *confirmed(self.router.ask(&name(to), &op, Caller::nobody()).await) };
        let in_time = tokio::time::timeout(DEADLINE, reply).await;
        in_time.unwrap_or_else(|_| panic!("no answer to {op:?}"))
    }

    /// Asks without waiting for the answer.
    pub fn send(&self, to: &str, op: Op) -> JoinHandle<Reply> {
        let (router, name) = (self.router.clone(), name(to));
        actix_rt::spawn(async move { *confirmed(router.ask(&name, &op, Caller::nobody()).await) })
    }

    pub async fn actor(&self, of: &str) -> Addr<ResourceActor> {
        let find = Find {
            name: name(of),
            home: Arbiter::current(),
        };
        let found = self.registry.send(find).await.unwrap();
        found.expect("the name is here")
    }

    /// Asks without waiting for the answer; the actor has the request in hand when this is over.
    pub async fn begin(&self, to: &str, op: Op) -> JoinHandle<Reply> {
        let reply = self.send(to, op);
        let actor = self.actor(to).await;
        // It takes messages in their order. This one is about no request that there is.
        let request = RequestId::MAX;
        actor.send(ResourceNotice::Vanished(request)).await.unwrap();
        reply
    }

    pub async fn create(&self, text: &str) {
        let options = ResourceOptions::default();
        let reply = self.ask(text, Op::Create { options }).await;
        assert!(matches!(reply, Reply::Created { .. }), "{reply:?}");
    }

    pub async fn put(&self, to: &str, at: &str, json: &'static str) {
        let reply = self.ask(to, write(at, json)).await;
        assert!(matches!(reply, Reply::Written { .. }), "{reply:?}");
    }

    /// Takes the lock.
    pub async fn hold(&self, to: &str) -> Ticket {
        match self.ask(to, acquire(None, Wait::NoQueue)).await {
            Reply::Lock(Answer::Granted(grant)) => grant.ticket,
            other => panic!("{other:?}"),
        }
    }

    pub async fn describe(&self, to: &str) -> Description {
        match self.ask(to, DESCRIBE).await {
            Reply::Described(description) => *description,
            other => panic!("{other:?}"),
        }
    }

    pub async fn until(&self, what: &str, condition: impl Fn(&ServerState) -> bool) {
        let held = async {
            while !condition(&self.server) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, held).await;
        assert!(waited.is_ok(), "never happened: {what}");
    }

    /// Whoever comes next knows only what is stored.
    pub async fn until_nobody_is_live(&self) {
        let nobody = |server: &ServerState| server.metrics.actors_live.get() == 0;
        self.until("nobody is live", nobody).await;
    }

    pub fn loads(&self) -> usize {
        self.store.loads.load(Ordering::SeqCst)
    }
}
