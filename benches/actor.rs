//! The round trip of a request through the actors: router, registry, resource, persistence and back, with
//! the memory store, laid out over threads as the server does it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use criterion::Criterion;
use small_resource_server::app::start_actors;
use small_resource_server::lock::{
    Answer, LockOptions, PresentedTicket, ResourceName, ResourceOptions, Seconds, Selector, Ticket,
};
use small_resource_server::registry::client::{Router, confirmed};
use small_resource_server::resource::messages::Wait;
use small_resource_server::resource::messages::{Op, Reply};
use small_resource_server::shared::caller::Caller;
use small_resource_server::shared::server_state::ServerState;
use small_resource_server::store::memory::MemoryStore;

#[path = "../tests/support/settings.rs"]
mod settings;

/// A router like that of an HTTP worker; commits and the registry have a thread of their own.
async fn router() -> Router {
    let store = Arc::new(MemoryStore::default());
    let server = Arc::new(ServerState::new(settings::server_settings(), store));
    let arbiter = Arbiter::new();
    let (persistence, registry, first_open) =
        start_actors(&server, &arbiter.handle(), &arbiter.handle());
    let opened = first_open.await.expect("an answer");
    opened.expect("an open store");
    Router::new(server, registry, persistence)
}

struct Bed {
    system: SystemRunner,
    router: Router,
    name: ResourceName,
    selector: Selector,
}

impl Bed {
    fn new() -> Bed {
        let system = System::new();
        let router = system.block_on(router());
        let name = ResourceName::parse("bench").expect("a name");
        let selector = Selector::parse("q").expect("a selector");
        let bed = Bed {
            system,
            router,
            name,
            selector,
        };
        bed.system.block_on(bed.prepare());
        bed
    }

    async fn prepare(&self) {
        let timeout = Seconds::new(300).expect("seconds");
        let options = ResourceOptions::plain(timeout);
        let created = self.ask(Op::Create { options }).await;
        assert!(matches!(created, Reply::Created { .. }), "{created:?}");
        let write = Op::Write {
            selector: self.selector.clone(),
            json: "{\"a\":1}".into(),
            condition: None,
            presented: PresentedTicket::Absent,
            release: false,
            create: false,
        };
        let written = self.ask(write).await;
        assert!(matches!(written, Reply::Written { .. }), "{written:?}");
    }

    async fn ask(&self, op: Op) -> Reply {
        *confirmed(self.router.ask(&self.name, &op, Caller::nobody()).await)
    }

    async fn lock(&self) -> Ticket {
        let acquire = Op::Acquire {
            selector: None,
            presented: PresentedTicket::Absent,
            options: LockOptions::default(),
            wait: Wait::Default,
            create: false,
        };
        match self.ask(acquire).await {
            Reply::Lock(Answer::Granted(grant)) => grant.ticket,
            other => panic!("not granted: {other:?}"),
        }
    }

    async fn lock_and_unlock(&self) {
        let presented = PresentedTicket::Ticket(self.lock().await);
        let unlocked = self.ask(Op::Unlock { presented }).await;
        assert!(matches!(unlocked, Reply::Lock(Answer::Unlocked { .. })));
    }

    async fn read(&self) {
        let read = Op::Read {
            selector: self.selector.clone(),
            presented: PresentedTicket::Absent,
            watch: None,
        };
        let reply = self.ask(read).await;
        assert!(matches!(reply, Reply::Read { .. }));
    }

    fn time(&self, times: u64, operation: impl AsyncFn(&Bed)) -> Duration {
        self.system.block_on(async {
            let begun = Instant::now();
            for _ in 0..times {
                operation(self).await;
            }
            begun.elapsed()
        })
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let bed = Bed::new();
    criterion.bench_function("ask_read", |bencher| {
        bencher.iter_custom(|times| bed.time(times, Bed::read));
    });
    criterion.bench_function("ask_lock_unlock", |bencher| {
        bencher.iter_custom(|times| bed.time(times, Bed::lock_and_unlock));
    });
    criterion.final_summary();
}
