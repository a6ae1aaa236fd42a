//! How an HTTP worker reaches a resource.
//!
//! The registry knows every address; each worker remembers some of them (weakly, so that a remembered
//! address keeps no actor alive) to spare the registry's thread a message per request.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::{Addr, Arbiter, WeakAddr};
use tokio::sync::oneshot;

use super::caller::Caller;
use super::gate::Closed;
use super::messages::{Call, Find, Op, Reply, Vanished};
use super::persistence::Persistence;
use super::registry::Registry;
use super::resource::ResourceActor;
use super::shell::Shell;
use crate::lock::{RequestId, ResourceName};
use crate::slack;

/// Addresses a worker remembers; past that it forgets them all.
const REMEMBERED_MAX: usize = 65_536;
/// Request numbers that a worker takes at once.
const NUMBERS_AT_ONCE: u64 = 1024;
/// How often a request asks for a new address before it gives up.
const MOVES_MAX: usize = 16;
/// Pause between two looks for addresses of actors that have retired.
const SWEEP_PAUSE: Duration = Duration::from_secs(5);

type Remembered = RefCell<HashMap<ResourceName, WeakAddr<ResourceActor>>>;

/// One per worker.
pub struct Router {
    pub shell: Arc<Shell>,
    pub(super) registry: Addr<Registry>,
    pub(super) persistence: Addr<Persistence>,
    remembered: Rc<Remembered>,
    in_flight: Arc<AtomicUsize>,
    /// Numbers for requests to come, so that workers do not fight over the count of all.
    numbers: Cell<Range<RequestId>>,
}

/// Tells the actor when the request's future is dropped before it took its reply: the client is gone.
struct Presence {
    request: RequestId,
    actor: Addr<ResourceActor>,
    answered: bool,
    in_flight: Arc<AtomicUsize>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Release);
        if !self.answered {
            self.actor.do_send(Vanished {
                request: self.request,
            });
        }
    }
}

impl Router {
    /// Must be called on the worker's thread, inside its runtime.
    pub fn new(
        shell: Arc<Shell>,
        registry: Addr<Registry>,
        persistence: Addr<Persistence>,
    ) -> Router {
        let remembered = Rc::new(Remembered::default());
        actix_rt::spawn(sweep(Rc::downgrade(&remembered)));
        Router {
            in_flight: shell.count_in_flight(),
            shell,
            registry,
            persistence,
            remembered,
            numbers: Cell::new(0..0),
        }
    }

    fn next_request(&self) -> RequestId {
        let mut numbers = self.numbers.take();
        let next = numbers.next().unwrap_or_else(|| {
            let first = self.shell.next_requests(NUMBERS_AT_ONCE);
            numbers = first + 1..first + NUMBERS_AT_ONCE;
            first
        });
        self.numbers.set(numbers);
        next
    }

    /// Sends one request and waits for its reply. Dropping the future withdraws the request.
    pub async fn ask(&self, name: &ResourceName, op: Op, caller: Caller) -> Reply {
        for _ in 0..MOVES_MAX {
            let Some(actor) = self.actor(name).await else {
                return Reply::Closed(Closed::Stopping);
            };
            match self.ask_actor(actor, op.clone(), caller.clone()).await {
                Reply::Moved => self.remembered.borrow_mut().remove(name),
                reply => return reply,
            };
        }
        log::error!("resource {name} moved {MOVES_MAX} times during one request");
        Reply::Closed(Closed::StoreAway)
    }

    pub(super) async fn ask_actor(
        &self,
        actor: Addr<ResourceActor>,
        op: Op,
        caller: Caller,
    ) -> Reply {
        let (reply, answer) = oneshot::channel();
        let request = self.next_request();
        let call = Call {
            request,
            op,
            caller,
            reply,
        };
        if !actor.connected() {
            return Reply::Moved;
        }
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let mut presence = Presence {
            request,
            actor,
            answered: false,
            in_flight: self.in_flight.clone(),
        };
        presence.actor.do_send(call);
        let reply = answer.await;
        presence.answered = true;
        match reply {
            Ok(reply) => reply,
            // The actor died with the request in its hands; whether it happened is not known.
            Err(_) => Reply::Closed(Closed::StoreAway),
        }
    }

    async fn actor(&self, name: &ResourceName) -> Option<Addr<ResourceActor>> {
        let remembered = self
            .remembered
            .borrow()
            .get(name)
            .and_then(WeakAddr::upgrade);
        if let Some(actor) = remembered.filter(Addr::connected) {
            return Some(actor);
        }
        let find = Find {
            name: name.clone(),
            home: Arbiter::current(),
        };
        let actor = self.registry.send(find).await.ok()?;
        let mut remembered = self.remembered.borrow_mut();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(name.clone(), actor.downgrade());
        Some(actor)
    }
}

/// Forgets actors that are gone, as long as the router exists: an address, even a weak one, keeps the
/// memory of its actor's mailbox.
async fn sweep(remembered: Weak<Remembered>) {
    loop {
        actix_rt::time::sleep(SWEEP_PAUSE).await;
        let Some(remembered) = remembered.upgrade() else {
            return;
        };
        let mut remembered = remembered.borrow_mut();
        remembered.retain(|_, actor| actor.upgrade().is_some_and(|actor| actor.connected()));
        slack::give_back(&mut remembered);
    }
}
