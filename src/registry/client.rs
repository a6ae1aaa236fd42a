//! How an HTTP worker reaches a resource.
//!
//! The registry knows all addresses. Each worker caches those that it used lately, which saves a message to the
//! registry's thread per request. An actor that has retired answers [`Reply::Moved`]. An address keeps even a
//! retired actor in memory, so unused ones are soon dropped from the cache.

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
use crate::registry::actor::{Find, Registry};
use crate::resource::actor::ResourceActor;
use crate::resource::messages::{Call, Op, Reply};
use crate::shared::caller::Caller;
use crate::shared::gate::Closed;
use crate::shared::resource_notice::ResourceNotice;
use crate::shared::server_state::ServerState;
use crate::store::history::PastLease;
use crate::store::shrink::shrink_if_sparse;
use crate::store::{DocumentSize, ResourceId, StoreError};

/// Most addresses in the cache of a worker. A full cache is emptied.
const ADDRESSES_MAX: usize = 65_536;
/// Number of request ids that a worker reserves at once.
const NUMBERS_AT_ONCE: u64 = 1024;
/// How often a request asks for a new address before it gives up.
const MOVES_MAX: usize = 16;
/// Pause between two sweeps of the cache. An address that is not used is dropped after one to two of them.
const SWEEP_PAUSE: Duration = Duration::from_secs(2);

/// In an [`Rc`], because a copy of an [`Addr`] costs two allocations.
type Address = Rc<Addr<ResourceActor>>;

/// Addresses by name, and whether each was used since the last sweep.
type AddressCache = RefCell<HashMap<ResourceName, (Address, Cell<bool>)>>;

/// Sends requests to resource actors. One per worker.
pub struct Router {
    pub server: Arc<ServerState>,
    pub(super) registry: Addr<Registry>,
    pub(super) persistence: Addr<Persistence>,
    addresses: Rc<AddressCache>,
    in_flight: Arc<AtomicUsize>,
    /// Reserved request ids, so that workers do not contend for the shared counter.
    numbers: Cell<Range<RequestId>>,
}

/// A request that was sent and whose reply the client does not have yet. If it is dropped without
/// [`OpenCall::confirm`], it tells the actor that the client is gone.
pub struct OpenCall {
    request: RequestId,
    actor: Address,
    is_confirmed: bool,
    in_flight: Arc<AtomicUsize>,
}

impl OpenCall {
    /// The client has the reply.
    pub fn confirm(mut self) {
        self.is_confirmed = true;
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Release);
        if !self.is_confirmed {
            self.actor.do_send(ResourceNotice::Vanished(self.request));
        }
    }
}

/// A reply, and the call that it answers. `None`: the reply comes from no actor.
pub type Replied = (Box<Reply>, Option<OpenCall>);

/// Returns the reply, after confirming that the client has it.
pub fn confirmed((reply, call): Replied) -> Box<Reply> {
    call.into_iter().for_each(OpenCall::confirm);
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

    /// Sends one request and waits for its reply. Dropping the future withdraws the request. If the gate is closed
    /// when the reply comes, the request is withdrawn too, and the reply is [`Reply::Closed`]. The caller has to
    /// call [`OpenCall::confirm`] once the client has the reply.
    pub async fn ask(&self, name: &ResourceName, op: &Op, caller: &Arc<Caller>) -> Replied {
        let closed = |closed| (Box::new(Reply::Closed(closed)), None);
        for _ in 0..MOVES_MAX {
            let actor = match self.cached(name) {
                Some(actor) => actor,
                // Boxed: most requests find the address in the cache, and this would make all futures larger.
                None => match self.find(name).boxed_local().await {
                    Ok(actor) => actor,
                    Err(why) => return closed(why),
                },
            };
            match self.send(actor, op, caller).await {
                Some(replied) if *replied.0 == Reply::Moved => drop(confirmed(replied)),
                Some(replied) => return replied,
                None => continue,
            }
            self.addresses.borrow_mut().remove(name);
        }
        log::error!("resource {name} moved {MOVES_MAX} times during one request");
        closed(Closed::StoreAway)
    }

    /// As [`Router::ask`], with the actor at this address. `None`: that actor has stopped.
    pub(super) async fn send(
        &self,
        actor: Address,
        op: &Op,
        caller: &Arc<Caller>,
    ) -> Option<Replied> {
        if !actor.connected() {
            return None;
        }
        let (sender, reply) = oneshot::channel();
        // Counted before it is sent, so that a shutdown which waits for the last reply does not miss it.
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let call = OpenCall {
            request: self.next_request(),
            actor,
            is_confirmed: false,
            in_flight: self.in_flight.clone(),
        };
        // Boxed: the message is moved several times on its way.
        call.actor.do_send(Box::new(Call {
            request: call.request,
            op: op.clone(),
            caller: caller.clone(),
            reply: sender,
        }));
        let reply = reply.await;
        // No reply leaves when this instance may have lost the store. `call` is dropped here, so the actor learns that
        // the client was not told.
        if let Err(closed) = self.server.gate.check_answer() {
            return Some((Box::new(Reply::Closed(closed)), None));
        }
        // Without a reply, the actor died while it had the request. Whether it took effect is not known.
        let reply = reply.unwrap_or_else(|_| Box::new(Reply::Closed(Closed::StoreAway)));
        Some((reply, Some(call)))
    }

    /// Has the persistence actor read at once which instance owns each slot.
    pub fn refresh_members(&self) {
        self.persistence.do_send(PersistenceNotice::Heartbeat);
    }

    /// Sends [`Op::Touch`] for this ticket, if the actor's address is cached. Nothing is started or loaded for it.
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
    /// [`Closed::StoreAway`]: the store cannot be read now.
    pub async fn history(&self, name: &ResourceName) -> Result<Vec<PastLease>, Closed> {
        // Memory first: a lease that is handed to the store between the two reads is seen twice, not missed.
        let known = self.server.history.known(name);
        let stored = self.read(self.server.store.history(name)).await?;
        Ok(self.server.history.merged(&known, stored))
    }

    /// The sizes of the first `limit` documents of a resource whose selectors come after `after`, in byte order.
    ///
    /// # Errors
    /// [`Closed::StoreAway`]: the store cannot be read now.
    pub async fn document_sizes(
        &self,
        id: &ResourceId,
        after: &str,
        limit: usize,
    ) -> Result<Vec<DocumentSize>, Closed> {
        let sizes = self.server.store.document_sizes(id, after, limit);
        self.read(sizes).await
    }

    /// Reads something from the store that no actor has in memory, on the calling thread.
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

    fn cached(&self, name: &ResourceName) -> Option<Address> {
        let addresses = self.addresses.borrow();
        let (actor, used) = addresses.get(name)?;
        used.set(true);
        actor.connected().then(|| actor.clone())
    }

    /// Asks the registry for the actor of a name; the registry starts one if there is none.
    ///
    /// # Errors
    /// [`Closed::Stopping`]: the registry has ended. [`Closed::Moving`]: this instance does not answer for the name.
    async fn find(&self, name: &ResourceName) -> Result<Address, Closed> {
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
        addresses.insert(name.clone(), (actor.clone(), Cell::new(true)));
        Ok(actor)
    }
}

/// Drops the addresses that were not used since the last sweep, again and again until the router is gone.
async fn sweep(addresses: Weak<AddressCache>) {
    loop {
        actix_rt::time::sleep(SWEEP_PAUSE).await;
        let Some(addresses) = addresses.upgrade() else {
            return;
        };
        let mut addresses = addresses.borrow_mut();
        addresses.retain(|_, (_, used)| used.take());
        shrink_if_sparse(&mut addresses);
    }
}
