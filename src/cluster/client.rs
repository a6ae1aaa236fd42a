//! How a handler reaches a resource: through this instance's own registry if it answers for the name, else
//! through the instance that does. While no instance answers for a name, requests for it are held.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;

use super::destination::{self, Destination};
use super::events::EventReader;
use super::forwarded::Forwarded;
use super::links::Links;
use super::wire::{PeerReply, Question};
use crate::lock::{PresentedTicket, Profile, ResourceName};
use crate::registry::client::{Router, confirmed};
use crate::registry::listing::Page;
use crate::registry::lock_counts::LockCounts;
use crate::resource::messages::{Op, Reply};
use crate::shared::caller::Caller;
use crate::shared::gate::Closed;
use crate::store::history::PastLease;
use crate::store::members::Slot;
use crate::store::{DocumentSize, ListQuery, ResourceId};

/// Sends requests to the instances that answer for them. One per worker.
pub struct ClusterClient {
    /// The way to the names that this instance answers for.
    pub router: Rc<Router>,
    /// Connections to the other instances. `None`: the store belongs to this process alone.
    links: Option<Links>,
}

impl ClusterClient {
    /// `lease`: `INSTANCE_LEASE_SECONDS` if several instances can share the store, else `None`. Must be called
    /// on the worker's thread.
    pub fn new(router: Router, lease: Option<Duration>) -> ClusterClient {
        let router = Rc::new(router);
        let links = lease.map(|lease| Links::new(router.clone(), lease));
        ClusterClient { router, links }
    }

    /// Whether a request may be accepted. An instance that has lost its store accepts requests too if it can
    /// pass them on to other instances.
    pub fn check(&self) -> Result<(), Closed> {
        match (self.router.server.gate.check(), &self.links) {
            (gate @ Err(_), Some(links)) => destination::check(gate, &links.view()),
            (gate, _) => gate,
        }
    }

    /// Whether this instance answers for the name now.
    fn is_here(&self, name: &ResourceName) -> bool {
        let server = &self.router.server;
        server.slots.is_here(name) && server.gate.check().is_ok()
    }

    /// Whether the request may wait for a lock or for a change.
    fn waits(&self, op: &Op) -> bool {
        let server = &self.router.server;
        match op.wait() {
            None => false,
            // The request names no time: the server's setting or, in the `php` profile, the resource's timeout
            // counts.
            Some(Duration::ZERO) => server.settings.wait_ms > 0 || server.profile() == Profile::Php,
            Some(_) => true,
        }
    }

    /// Sends a request to the instance that answers for the name and waits for the reply. Dropping the future
    /// withdraws the request.
    pub async fn ask(&self, name: &ResourceName, op: &Op, caller: &Arc<Caller>) -> Box<Reply> {
        let Some(links) = &self.links else {
            return confirmed(self.router.ask(name, op, caller).await);
        };
        // A request that waits may have to continue at another instance, where a copy of it has to find its
        // place in the queue. So it goes through `Forwarded` from the beginning.
        if !self.waits(op) && self.is_here(name) {
            let reply = confirmed(self.router.ask(name, op, caller).await);
            if !matches!(*reply, Reply::Closed(Closed::Moving)) {
                return reply;
            }
        }
        links.in_flight.fetch_add(1, Ordering::Relaxed);
        let _in_flight = scopeguard::guard(&links.in_flight, |count| {
            count.fetch_sub(1, Ordering::Release);
        });
        let forwarded = Forwarded::new(links, name, op, caller);
        // Boxed: the state of a forwarded request must not make the futures of all requests large.
        forwarded.answer().boxed_local().await
    }

    /// Records a sign of life of this ticket. Does nothing if that would mean waiting for an actor's address or
    /// for a connection.
    pub fn touch(&self, name: &ResourceName, presented: PresentedTicket, caller: &Arc<Caller>) {
        let Some(links) = self.links.as_ref().filter(|_| !self.is_here(name)) else {
            return self.router.touch(name, presented, caller);
        };
        let members = links.view().members.clone();
        if let Some(other) = members
            .as_ref()
            .and_then(|all| all.elsewhere(Slot::of(name)))
        {
            let question = Question::Ask {
                name: name.clone(),
                op: Op::Touch { presented },
                caller: caller.clone(),
            };
            links.tell(other.id, question);
        }
    }

    /// The connections over which all instances are asked. `None`: the store is this process's alone, or the other
    /// instances are not known yet.
    fn links_to_all(&self) -> Option<&Links> {
        let links = self.links.as_ref()?;
        let are_known = links.view().members.is_some();
        are_known.then_some(links)
    }

    /// An answer of this instance alone, which must be allowed to answer before and after it.
    async fn alone<T, E: From<Closed>>(
        &self,
        telling: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let gate = &self.router.server.gate;
        gate.check()?;
        let told = telling.await?;
        gate.check_answer()?;
        Ok(told)
    }

    /// The page that the query asks for, over the names of all instances. Fails if an instance that has names does not
    /// answer in time, or refuses.
    pub async fn page(&self, query: ListQuery) -> Result<Page, Closed> {
        let Some(links) = self.links_to_all() else {
            return self.alone(self.router.page(query)).await;
        };
        let told = |told| match told {
            PeerReply::Page(page, covered) => Some(Ok((page, covered))),
            PeerReply::TooBusy => Some(Err(Closed::ListingTooLong)),
            _ => None,
        };
        let here = || self.router.part_of_page(query.clone());
        let question = || Question::Page(query.clone());
        let pages = Box::pin(links.ask_all(here, question, told)).await?;
        Ok(Page::merged(pages, &query))
    }

    /// Counts held locks and waiting tickets, over the names with this prefix. Fails as [`ClusterClient::page`].
    pub async fn count_locks(&self, prefix: String) -> Result<LockCounts, Closed> {
        let Some(links) = self.links_to_all() else {
            return self.alone(self.router.count_locks(prefix)).await;
        };
        let told = |told| match told {
            PeerReply::LockCounts(counts, covered) => Some(Ok((counts, covered))),
            _ => None,
        };
        let here = || self.router.part_of_count(prefix.clone());
        let question = || Question::LockCounts(prefix.clone());
        let parts = Box::pin(links.ask_all(here, question, told)).await?;
        let none = LockCounts::default();
        Ok(parts.into_iter().fold(none, LockCounts::beside))
    }

    /// As [`Router::history`], from the instance that answers for the name.
    pub async fn history(&self, name: &ResourceName) -> Result<Vec<PastLease>, Closed> {
        let told = |told| match told {
            PeerReply::History(history) => Some(history),
            _ => None,
        };
        let question = || Question::History(name.clone());
        let here = || self.router.history(name);
        self.ask_owner(name, here, question, told).await
    }

    /// As [`Router::document_sizes`], from the instance that answers for the name.
    pub async fn document_sizes(
        &self,
        (name, id): (&ResourceName, &ResourceId),
        after: &str,
        limit: usize,
    ) -> Result<Vec<DocumentSize>, Closed> {
        let told = |told| match told {
            PeerReply::DocumentSizes(sizes) => Some(sizes),
            _ => None,
        };
        let question = || Question::DocumentSizes {
            name: name.clone(),
            id: id.clone(),
            after: after.to_owned(),
            limit,
        };
        let here = || self.router.document_sizes(id, after, limit);
        self.ask_owner(name, here, question, told).await
    }

    /// Follows the events of names with this prefix. Fails if an instance that has names does not answer in time, or
    /// has as many event readers as it allows.
    pub async fn follow(&self, prefix: &str) -> Result<EventReader, Closed> {
        match self.links_to_all() {
            Some(links) => Box::pin(links.follow(prefix)).await,
            None => {
                let server = &self.router.server;
                server.gate.check()?;
                let here = server.feed.follow()?;
                Ok(EventReader::new(server.clone(), here, Vec::new()))
            }
        }
    }

    /// Asks a question about one name that is safe to repeat. `told` takes the answer out of another instance's
    /// reply; `None`: ask again.
    async fn ask_owner<T>(
        &self,
        name: &ResourceName,
        here: impl AsyncFn() -> Result<T, Closed>,
        question: impl Fn() -> Question,
        told: impl Fn(PeerReply) -> Option<T>,
    ) -> Result<T, Closed> {
        let Some(links) = &self.links else {
            return self.alone(here()).await;
        };
        let (server, slot) = (&self.router.server, Slot::of(name));
        let mut hold = links.hold(Duration::ZERO);
        loop {
            let is_here = server.slots.is_here(name);
            let destination =
                destination::of_slot((slot, is_here), server.gate.check(), &links.view())?;
            match destination {
                Some(Destination::There(other)) => {
                    let asking = Box::pin(links.ask(other, question()));
                    if let Some(answer) = asking.await.and_then(&told) {
                        return Ok(answer);
                    }
                }
                Some(Destination::Here) => return self.alone(here()).await,
                None => {}
            }
            hold.pause(server).await?;
        }
    }
}
