//! How a handler reaches a resource: through this instance's own registry where it answers for the name, else through
//! the instance that does. While nobody does, requests are held until somebody does again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;

use super::events::EventReader;
use super::forwarded::Forwarded;
use super::gather::Gathering;
use super::links::{Exchange, Links};
use super::place::{self, Place};
use super::wire::{PeerReply, Question};
use crate::lock::{PresentedTicket, Profile, ResourceName};
use crate::registry::client::{Router, taken};
use crate::registry::listing::{ListingRefused, Page};
use crate::registry::tally::Tally;
use crate::resource::messages::{Op, Reply};
use crate::shared::caller::Caller;
use crate::shared::gate::Closed;
use crate::store::history::PastLease;
use crate::store::members::Slot;
use crate::store::{DocumentSize, ListQuery, ResourceId};

/// One per worker.
pub struct FrontDoor {
    pub router: Router,
    /// `None`: the store is this process's alone.
    links: Option<Links>,
}

impl FrontDoor {
    /// `lease`: `INSTANCE_LEASE_SECONDS`, where several instances share the store. Must be called on the worker's
    /// thread.
    pub fn new(router: Router, lease: Option<Duration>) -> FrontDoor {
        let links = lease.map(|lease| Links::new(&router.server, lease));
        FrontDoor { router, links }
    }

    /// May a request be accepted? By an instance that has lost its store too, which passes it on.
    ///
    /// # Errors
    /// Nobody would answer it.
    pub fn check(&self) -> Result<(), Closed> {
        match (self.router.server.gate.check(), &self.links) {
            (gate @ Err(_), Some(links)) => place::check(gate, &links.view()),
            (gate, _) => gate,
        }
    }

    /// Whether this instance answers for a name now.
    fn is_here(&self, name: &ResourceName) -> bool {
        let server = &self.router.server;
        server.slots.is_here(name) && server.gate.check().is_ok()
    }

    fn waits(&self, op: &Op) -> bool {
        let server = &self.router.server;
        match op.wait() {
            None => false,
            // As the server says, or the resource.
            Some(Duration::ZERO) => server.settings.wait_ms > 0 || server.profile() == Profile::Php,
            Some(_) => true,
        }
    }

    /// Sends one request to wherever its resource is and waits for its reply. Dropping the future withdraws it.
    pub async fn ask(&self, name: &ResourceName, op: &Op, caller: &Arc<Caller>) -> Box<Reply> {
        let Some(links) = &self.links else {
            return taken(self.router.ask(name, op, caller).await);
        };
        // What waits may have to go on at another instance, where a copy of it has to find its place.
        if !self.waits(op) && self.is_here(name) {
            let reply = taken(self.router.ask(name, op, caller).await);
            if !matches!(*reply, Reply::Closed(Closed::Moving)) {
                return reply;
            }
        }
        links.in_flight.fetch_add(1, Ordering::Relaxed);
        let _in_flight = scopeguard::guard(&links.in_flight, |count| {
            count.fetch_sub(1, Ordering::Release);
        });
        let hold = links.hold(op.wait().unwrap_or_default());
        let asked = Forwarded::new((&self.router, links), (name, op, caller), hold);
        // Apart: what a forwarded request needs must not make the futures of all requests large.
        asked.answer().boxed_local().await
    }

    /// Counts as a sign of life of this ticket, if that can be told without waiting for anything.
    pub fn touch(&self, name: &ResourceName, presented: PresentedTicket, caller: &Arc<Caller>) {
        let Some(links) = self.links.as_ref().filter(|_| !self.is_here(name)) else {
            return self.router.touch(name, presented, caller);
        };
        let members = links.view().members.clone();
        if let Some(other) = members
            .as_ref()
            .and_then(|all| all.elsewhere(Slot::of(name)))
        {
            let question = Question::Touch {
                name: name.clone(),
                presented,
                caller: caller.clone(),
            };
            links.tell(other.id, question);
        }
    }

    /// What all instances are asked with. `None`: there are no others.
    fn gathering(&self) -> Option<Gathering<'_>> {
        let links = self.links.as_ref()?;
        let is_shared = links.view().members.is_some();
        is_shared.then(|| Gathering {
            router: &self.router,
            links,
            hold: links.hold(Duration::ZERO),
        })
    }

    /// What this instance alone tells.
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

    /// The page that the query asks for, of the names of all instances.
    ///
    /// # Errors
    /// Somebody does not answer now.
    pub async fn page(&self, query: ListQuery) -> Result<Page, ListingRefused> {
        let Some(gathering) = self.gathering() else {
            return self.alone(self.router.page(query)).await;
        };
        let told = |told| match told {
            PeerReply::Page(page, covered) => Some(Ok((page, covered))),
            PeerReply::TooBusy => Some(Err(ListingRefused::TooBusy)),
            _ => None,
        };
        let here = || self.router.part_of_page(query.clone());
        let question = || Question::Page(query.clone());
        let pages = Box::pin(gathering.ask_all(here, question, told)).await?;
        Ok(Page::merged(pages, &query))
    }

    /// How much is held and waited for, of the names with this prefix.
    ///
    /// # Errors
    /// Somebody does not answer now.
    pub async fn tally(&self, prefix: String) -> Result<Tally, Closed> {
        let Some(gathering) = self.gathering() else {
            return self.alone(self.router.tally(prefix)).await;
        };
        let told = |told| match told {
            PeerReply::Tally(tally, covered) => Some(Ok((tally, covered))),
            _ => None,
        };
        let here = async || Ok(self.router.part_of_tally(prefix.clone()).await?);
        let question = || Question::Tally(prefix.clone());
        match Box::pin(gathering.ask_all(here, question, told)).await {
            Ok(parts) => Ok(parts.into_iter().fold(Tally::default(), Tally::beside)),
            Err(ListingRefused::Closed(closed)) => Err(closed),
            Err(ListingRefused::TooBusy) => Err(Closed::Moving),
        }
    }

    /// As [`Router::history`].
    ///
    /// # Errors
    /// Nobody answers now.
    pub async fn history(&self, name: &ResourceName) -> Result<Vec<PastLease>, Closed> {
        let told = |told| match told {
            PeerReply::History(history) => Some(history),
            _ => None,
        };
        let question = || Question::History(name.clone());
        let here = || self.router.history(name);
        self.look(name, here, question, told).await
    }

    /// As [`Router::document_sizes`], of the resource of this name.
    ///
    /// # Errors
    /// Nobody answers now.
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
        self.look(name, here, question, told).await
    }

    /// Follows what happens to names with this prefix. `None`: as many do as may.
    ///
    /// # Errors
    /// Somebody does not answer now.
    pub async fn follow(&self, prefix: &str) -> Result<Option<EventReader>, Closed> {
        match self.gathering() {
            Some(gathering) => Box::pin(gathering.follow(prefix)).await,
            None => {
                let server = &self.router.server;
                server.gate.check()?;
                let reader = server.feed.follow();
                Ok(reader.map(|here| EventReader::new(server.clone(), here, Vec::new())))
            }
        }
    }

    /// Asks something about one name that may be asked again and again. `told`: what another instance tells; `None`: to
    /// be asked again.
    async fn look<T>(
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
            let place = place::of_slot((slot, is_here), server.gate.check(), &links.view())?;
            match place {
                Some(Place::There(other)) => {
                    let asked = Box::pin(links.ask(&self.router, &other, question()));
                    if let Exchange::Answered(answer) = asked.await
                        && let Some(answer) = told(answer)
                    {
                        return Ok(answer);
                    }
                }
                Some(Place::Here) => return self.alone(here()).await,
                None => {}
            }
            hold.pause(server).await?;
        }
    }
}
