//! How an HTTP worker reaches a resource.
//!
//! The registry knows every address; each worker remembers those that it used lately, to spare the registry's
//! thread a message per request. An actor that has retired answers [`Reply::Moved`]; an address that nobody
//! uses is forgotten soon, so that it keeps no such actor in memory for long.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::ops::Range;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::{Addr, Arbiter};
use foldhash::HashMap;
use futures_util::FutureExt;
use tokio::sync::oneshot;

use crate::lock::{PresentedTicket, RequestId, ResourceName};
use crate::persistence::actor::Persistence;
use crate::persistence::messages::PersistenceNotice;
use crate::registry::actor::Registry;
use crate::registry::messages::Find;
use crate::resource::actor::ResourceActor;
use crate::resource::messages::{Call, Op, Reply, ResourceNotice};
use crate::shared::caller::Caller;
use crate::shared::gate::Closed;
use crate::shared::server_state::ServerState;
use crate::store::history::PastLease;
use crate::store::shrink::shrink_if_sparse;
use crate::store::{DocumentSize, ResourceId, StoreError};

/// Addresses a worker remembers; past that it forgets them all.
const ADDRESSES_MAX: usize = 65_536;
/// Request numbers that a worker takes at once.
const NUMBERS_AT_ONCE: u64 = 1024;
/// How often a request asks for a new address before it gives up.
const MOVES_MAX: usize = 16;
/// An address that was not used for so long is forgotten, at the latest after twice this time.
const SWEEP_PAUSE: Duration = Duration::from_secs(2);

/// Addresses by name.
type AddressCache = RefCell<HashMap<ResourceName, CachedAddress>>;

struct CachedAddress {
    /// Counted by this thread alone: a copy of an [`Addr`] costs two allocations.
    actor: Rc<Addr<ResourceActor>>,
    /// Since the last sweep.
    used: Cell<bool>,
}

/// One per worker.
pub struct Router {
    pub server: Arc<ServerState>,
    pub(super) registry: Addr<Registry>,
    pub(super) persistence: Addr<Persistence>,
    addresses: Rc<AddressCache>,
    in_flight: Arc<AtomicUsize>,
    /// Numbers for requests to come, so that workers do not fight over the count of all.
    numbers: Cell<Range<RequestId>>,
}

/// A request that was sent, until its client has the reply: dropped before that, it tells the actor that the client
/// is gone.
pub struct OpenCall {
    request: RequestId,
    actor: Rc<Addr<ResourceActor>>,
    is_taken: bool,
    in_flight: Arc<AtomicUsize>,
}

impl OpenCall {
    /// The client has it.
    pub fn taken(mut self) {
        self.is_taken = true;
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Release);
        if !self.is_taken {
            self.actor.do_send(ResourceNotice::Vanished(self.request));
        }
    }
}

/// A reply, and the call that it ends. `None`: no actor has a part in it.
pub type Replied = (Box<Reply>, Option<OpenCall>);

/// The reply, for one who has it with that.
pub fn taken((reply, call): Replied) -> Box<Reply> {
    call.into_iter().for_each(OpenCall::taken);
    reply
}

impl Router {
    /// Must be called on the worker's thread, inside its runtime.
    pub fn new(
        server: Arc<ServerState>,
        registry: Addr<Registry>,
        persistence: Addr<Persistence>,
    ) -> Router {
        let addresses = Rc::new(AddressCache::default());
        actix_rt::spawn(sweep(Rc::downgrade(&addresses)));
        Router {
            in_flight: server.count_in_flight(),
            server,
            registry,
            persistence,
            addresses,
            numbers: Cell::new(0..0),
        }
    }

    fn next_request(&self) -> RequestId {
        let mut numbers = self.numbers.take();
        let next = numbers.next().unwrap_or_else(|| {
            let first = self.server.next_requests(NUMBERS_AT_ONCE);
            numbers = first + 1..first + NUMBERS_AT_ONCE;
            first
        });
        self.numbers.set(numbers);
        next
    }

    /// Sends one request and waits for its reply. Dropping the future withdraws the request, and so does a gate
    /// that is closed when the reply comes: then that is the reply. The call is to be told once the client has it.
    pub async fn ask(&self, name: &ResourceName, op: &Op, caller: &Arc<Caller>) -> Replied {
        let closed = |closed| (Box::new(Reply::Closed(closed)), None);
        for _ in 0..MOVES_MAX {
            let actor = match self.cached(name) {
                Some(actor) => actor,
                // Apart: most requests find it in the cache, and all would be as large.
                None => match self.find(name).boxed_local().await {
                    Ok(actor) => actor,
                    Err(why) => return closed(why),
                },
            };
            match self.send(actor, op, caller).await {
                Some(replied) if *replied.0 == Reply::Moved => drop(taken(replied)),
                Some(replied) => return replied,
                None => continue,
            }
            self.addresses.borrow_mut().remove(name);
        }
        log::error!("resource {name} moved {MOVES_MAX} times during one request");
        closed(Closed::StoreAway)
    }

    /// As [`Router::ask`], of the actor at this address. `None`: it is gone.
    pub(super) async fn send(
        &self,
        actor: Rc<Addr<ResourceActor>>,
        op: &Op,
        caller: &Arc<Caller>,
    ) -> Option<Replied> {
        if !actor.connected() {
            return None;
        }
        let (sender, reply) = oneshot::channel();
        // Counted before it is sent: whoever waits for the last answer must not miss it.
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let call = OpenCall {
            request: self.next_request(),
            actor,
            is_taken: false,
            in_flight: self.in_flight.clone(),
        };
        // Boxed: it changes hands several times on its way.
        call.actor.do_send(Box::new(Call {
            request: call.request,
            op: op.clone(),
            caller: caller.clone(),
            reply: sender,
        }));
        let reply = reply.await;
        // No reply leaves when the store may no longer be ours, and nobody was told of a lease then.
        if let Err(closed) = self.server.gate.check_answer() {
            return Some((Box::new(Reply::Closed(closed)), None));
        }
        // Without a reply the actor died with the request in its hands; whether it happened is not known.
        let reply = reply.unwrap_or_else(|_| Box::new(Reply::Closed(Closed::StoreAway)));
        Some((reply, Some(call)))
    }

    /// Somebody answers for other names than this instance thought.
    pub fn look(&self) {
        self.persistence.do_send(PersistenceNotice::Look);
    }

    /// Counts as a sign of life of this ticket, if this worker knows the actor's address; nothing is started or
    /// loaded for it, and nobody waits for the reply.
    pub fn touch(&self, name: &ResourceName, presented: PresentedTicket, caller: &Arc<Caller>) {
        if let Some(actor) = self.cached(name) {
            actor.do_send(Box::new(Call {
                request: self.next_request(),
                op: Op::Touch { presented },
                caller: caller.clone(),
                reply: oneshot::channel().0,
            }));
        }
    }

    /// The last leases of a name, newest first.
    ///
    /// # Errors
    /// The store cannot be read now.
    pub async fn history(&self, name: &ResourceName) -> Result<Vec<PastLease>, Closed> {
        // In this order: what is handed to the store between the two is seen twice, not missed.
        let known = self.server.history.known(name);
        let stored = self.read(self.server.store.history(name)).await?;
        Ok(self.server.history.merged(&known, stored))
    }

    /// The first `limit` documents of a resource whose selectors come after this one, in their order.
    ///
    /// # Errors
    /// The store cannot be read now.
    pub async fn document_sizes(
        &self,
        id: &ResourceId,
        after: &str,
        limit: usize,
    ) -> Result<Vec<DocumentSize>, Closed> {
        let sizes = self.server.store.document_sizes(id, after, limit);
        self.read(sizes).await
    }

    /// One read of the store on the asker's thread: of what no actor knows.
    async fn read<T>(
        &self,
        reading: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Closed> {
        let limit = Duration::from_millis(self.server.settings.store_timeout_ms);
        match actix_rt::time::timeout(limit, reading).await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(error)) => {
                log::warn!("the store cannot be read: {error}");
                Err(Closed::StoreAway)
            }
            Err(_) => Err(Closed::StoreAway),
        }
    }

    fn cached(&self, name: &ResourceName) -> Option<Rc<Addr<ResourceActor>>> {
        let addresses = self.addresses.borrow();
        let cached = addresses
            .get(name)
            .filter(|known| known.actor.connected())?;
        cached.used.set(true);
        Some(cached.actor.clone())
    }

    /// Asks the registry, which starts an actor where there is none.
    ///
    /// # Errors
    /// The server stops, or does not answer for this name.
    async fn find(&self, name: &ResourceName) -> Result<Rc<Addr<ResourceActor>>, Closed> {
        let find = Find {
            name: name.clone(),
            home: Arbiter::current(),
        };
        let found = self.registry.send(find).await;
        let found = found.map_err(|_| Closed::Stopping)?;
        let actor = Rc::new(found.ok_or(Closed::Moving)?);
        let mut addresses = self.addresses.borrow_mut();
        if addresses.len() >= ADDRESSES_MAX {
            addresses.clear();
        }
        let cached = CachedAddress {
            actor: actor.clone(),
            used: Cell::new(true),
        };
        addresses.insert(name.clone(), cached);
        Ok(actor)
    }
}

/// Forgets the addresses that were not used since the last time, as long as the router exists.
async fn sweep(addresses: Weak<AddressCache>) {
    loop {
        actix_rt::time::sleep(SWEEP_PAUSE).await;
        let Some(addresses) = addresses.upgrade() else {
            return;
        };
        let mut addresses = addresses.borrow_mut();
        addresses.retain(|_, cached| cached.used.take());
        shrink_if_sparse(&mut addresses);
    }
}
