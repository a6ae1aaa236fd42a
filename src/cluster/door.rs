//! How a handler reaches a resource: through this instance's own registry while it is active, else through the
//! active one. While nobody is, requests are held until somebody is again.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, timeout_at};

use super::events::EventReader;
use super::link::{AnswerPieces, Link};
use super::wire::{PeerReply, Question};
use crate::lock::{Answer, EndReason, PresentedTicket, Refusal, ResourceName};
use crate::registry::client::{Router, taken};
use crate::registry::listing::{ListingRefused, Page};
use crate::registry::tally::Tally;
use crate::resource::messages::{Op, Reply, Wait};
use crate::shared::caller::Caller;
use crate::shared::gate::Closed;
use crate::shared::owner::{HOLD_BEYOND, Owner, Reach};
use crate::store::history::PastLease;
use crate::store::{ActiveInstance, DocumentSize, InstanceId, ListQuery, ResourceId};

/// Between two tries to reach the active instance.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// One per worker.
pub struct FrontDoor {
    pub router: Router,
    /// `None`: the store is this process's alone.
    abroad: Option<Abroad>,
}

/// The way to the active instance.
struct Abroad {
    owner: watch::Receiver<Owner>,
    links: RefCell<Option<(InstanceId, Links)>>,
    lease: Duration,
    in_flight: Arc<AtomicUsize>,
}

type LinkCell = Rc<OnceCell<Link>>;

/// A large document holds up what is behind it on a connection: locks have one of their own.
#[derive(Default)]
struct Links {
    locks: LinkCell,
    documents: LinkCell,
}

/// Where requests are answered now.
enum Place {
    Here,
    There(ActiveInstance),
}

/// What became of a question.
enum Exchange {
    Answered(PeerReply),
    /// Nothing was done.
    NotDone,
    /// It may have been acted on.
    Lost,
}

/// A request, for as long as it is held.
struct Hold {
    until: Instant,
    since: Instant,
    owner: watch::Receiver<Owner>,
}

/// Counts requests that wait for an answer.
struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn new(count: &'a AtomicUsize) -> InFlight<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        InFlight(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Counts requests that are held.
struct Held<'a>(&'a IntGauge);

impl<'a> Held<'a> {
    fn new(count: &'a IntGauge) -> Held<'a> {
        count.inc();
        Held(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl FrontDoor {
    /// `lease`: `INSTANCE_LEASE_SECONDS`, where several instances share the store. Must be called on the worker's
    /// thread.
    pub fn new(router: Router, lease: Option<Duration>) -> FrontDoor {
        let abroad = lease.map(|lease| Abroad {
            owner: router.server.owner.follow(),
            links: RefCell::default(),
            lease,
            in_flight: router.server.count_in_flight(),
        });
        FrontDoor { router, abroad }
    }

    /// May a request be accepted? By an instance that is not active too, which passes it on.
    pub fn check(&self) -> Result<(), Closed> {
        match (self.router.server.gate.check(), &self.abroad) {
            (Err(closed), Some(abroad)) => abroad.place(closed).map(|_| ()),
            (known, _) => known,
        }
    }

    /// Sends one request to wherever its resource is and waits for its reply. Dropping the future withdraws it.
    pub async fn ask(&self, name: &ResourceName, op: &Op, caller: &Caller) -> Box<Reply> {
        let Some(abroad) = &self.abroad else {
            return taken(self.router.ask(name, op, caller).await);
        };
        if self.router.server.gate.check().is_ok() {
            return taken(self.router.ask(name, op, caller).await);
        }
        let _in_flight = InFlight::new(&abroad.in_flight);
        let asked = Forwarded::new(self, op, caller);
        // Apart: what a forwarded request needs must not make the futures of all requests large.
        Box::pin(asked.answer(name)).await
    }

    /// Counts as a sign of life of this ticket, if that can be told without waiting for anything.
    pub fn touch(&self, name: &ResourceName, presented: PresentedTicket, caller: &Caller) {
        match &self.abroad {
            Some(abroad) if self.router.server.gate.check().is_err() => {
                abroad.tell(Question::Touch {
                    name: name.clone(),
                    presented,
                    caller: caller.clone(),
                });
            }
            _ => self.router.touch(name, presented, caller),
        }
    }

    /// As [`Router::page`].
    ///
    /// # Errors
    /// Nobody answers now.
    pub async fn page(&self, query: ListQuery) -> Result<Page, ListingRefused> {
        let told = |told| match told {
            PeerReply::Page(page) => Some(Ok(page)),
            PeerReply::TooBusy => Some(Err(ListingRefused::TooBusy)),
            _ => None,
        };
        let question = || Question::Page(query.clone());
        let here = || self.router.page(query.clone());
        self.look(here, question, told).await
    }

    /// How much is held and waited for, of the names with this prefix.
    ///
    /// # Errors
    /// Nobody answers now.
    pub async fn tally(&self, prefix: String) -> Result<Tally, Closed> {
        let told = |told| match told {
            PeerReply::Tally(tally) => Some(Ok(tally)),
            _ => None,
        };
        let question = || Question::Tally(prefix.clone());
        let here = || self.router.tally(prefix.clone());
        self.look(here, question, told).await
    }

    /// As [`Router::history`].
    ///
    /// # Errors
    /// Nobody answers now.
    pub async fn history(&self, name: &ResourceName) -> Result<Vec<PastLease>, Closed> {
        let told = |told| match told {
            PeerReply::History(history) => Some(Ok(history)),
            _ => None,
        };
        let question = || Question::History(name.clone());
        let here = || self.router.history(name);
        self.look(here, question, told).await
    }

    /// As [`Router::document_sizes`].
    ///
    /// # Errors
    /// Nobody answers now.
    pub async fn document_sizes(
        &self,
        id: &ResourceId,
        after: &str,
        limit: usize,
    ) -> Result<Vec<DocumentSize>, Closed> {
        let told = |told| match told {
            PeerReply::DocumentSizes(sizes) => Some(Ok(sizes)),
            _ => None,
        };
        let question = || Question::DocumentSizes {
            id: id.clone(),
            after: after.to_owned(),
            limit,
        };
        let here = || self.router.document_sizes(id, after, limit);
        self.look(here, question, told).await
    }

    /// Follows what happens to names with this prefix. `None`: as many do as may.
    ///
    /// # Errors
    /// Nobody answers now.
    pub async fn follow(&self, prefix: &str) -> Result<Option<EventReader>, Closed> {
        let mut hold = self.hold(Duration::ZERO);
        loop {
            match self.place()? {
                Some(Place::There(active)) => {
                    let question = Question::Follow(prefix.to_owned());
                    let pieces = match Box::pin(self.link(&active, &question)).await {
                        Some(link) => link.get().and_then(|link| link.ask_on(question).ok()),
                        None => None,
                    };
                    match first_piece(pieces).await {
                        Some((PeerReply::Events { .. }, pieces)) => {
                            let events = Vec::new().into_iter();
                            return Ok(Some(EventReader::There { pieces, events }));
                        }
                        Some((PeerReply::TooBusy, _)) => return Ok(None),
                        _ => {}
                    }
                }
                Some(Place::Here) => {
                    let reader = self.router.server.feed.follow();
                    return Ok(reader.map(EventReader::Here));
                }
                None => {}
            }
            self.pause(&mut hold).await?;
        }
    }

    /// Whether events that are read here are all there are.
    pub fn is_active(&self) -> bool {
        self.router.server.gate.check().is_ok()
    }

    /// Asks something that may be asked again and again. `told`: what is told; `None`: to be asked again.
    async fn look<T, E: From<Closed>>(
        &self,
        here: impl AsyncFn() -> Result<T, E>,
        question: impl Fn() -> Question,
        told: impl Fn(PeerReply) -> Option<Result<T, E>>,
    ) -> Result<T, E> {
        let mut hold = self.hold(Duration::ZERO);
        loop {
            match self.place()? {
                Some(Place::There(active)) => {
                    let exchange = Box::pin(self.exchange(&active, question()));
                    if let Exchange::Answered(answer) = exchange.await
                        && let Some(answer) = told(answer)
                    {
                        return answer;
                    }
                }
                Some(Place::Here) => {
                    let answer = here().await?;
                    self.router.server.gate.check_answer()?;
                    return Ok(answer);
                }
                None => {}
            }
            self.pause(&mut hold).await?;
        }
    }

    /// `None`: nobody is active, as far as one can tell.
    fn place(&self) -> Result<Option<Place>, Closed> {
        match (self.router.server.gate.check(), &self.abroad) {
            (Ok(()), _) => Ok(Some(Place::Here)),
            (Err(closed), None) => Err(closed),
            (Err(closed), Some(abroad)) => abroad.place(closed),
        }
    }

    fn hold(&self, wait: Duration) -> Hold {
        let lease = self.abroad.as_ref().map_or(Duration::ZERO, |a| a.lease);
        let since = Instant::now();
        Hold {
            until: since + wait.max(lease + HOLD_BEYOND),
            since,
            owner: self.router.server.owner.follow(),
        }
    }

    /// Until something has changed, or a moment has passed.
    async fn pause(&self, hold: &mut Hold) -> Result<(), Closed> {
        let now = Instant::now();
        if now >= hold.until {
            return Err(Closed::Moving);
        }
        let peers = &self.router.server.metrics.peers;
        let _held = Held::new(&peers.held);
        let until = hold.until.min(now + RETRY_PAUSE);
        let _ = timeout_at(until, hold.owner.changed()).await;
        peers.retried.inc();
        Ok(())
    }

    /// The connection to the active instance that is for such questions.
    async fn link(&self, active: &ActiveInstance, question: &Question) -> Option<LinkCell> {
        let abroad = self.abroad.as_ref()?;
        let peer = active.peer.as_ref()?;
        let cell = abroad.cell(active.id, question.is_bulky());
        let opening = || Link::open(active, peer, abroad.lease / 2);
        match cell.get_or_try_init(opening).await {
            Ok(link) if !link.has_ended() => Some(cell),
            Ok(_) => {
                abroad.forget(&cell);
                None
            }
            Err(error) => {
                log::debug!(
                    "the active instance at {} cannot be reached: {error}",
                    peer.address
                );
                None
            }
        }
    }

    async fn exchange(&self, active: &ActiveInstance, question: Question) -> Exchange {
        let Some(cell) = self.link(active, &question).await else {
            return Exchange::NotDone;
        };
        let Some(link) = cell.get() else {
            return Exchange::NotDone;
        };
        self.router.server.metrics.peers.sent.inc();
        let mut owner = self.router.server.owner.follow();
        let is_active = |known: &ActiveInstance| known.id == active.id;
        let told = tokio::select! {
            biased;
            told = link.ask(question) => told,
            // It may hang with the request in its hands: what it says now is not the truth any more.
            _ = owner.wait_for(|owner| !owner.active.as_ref().is_some_and(is_active)) => {
                return Exchange::Lost;
            }
        };
        match told {
            Ok(PeerReply::NotActive) => {
                self.router.server.metrics.peers.misdirected.inc();
                Exchange::NotDone
            }
            Ok(told) => Exchange::Answered(told),
            Err(_) => Exchange::Lost,
        }
    }
}

async fn first_piece(pieces: Option<AnswerPieces>) -> Option<(PeerReply, AnswerPieces)> {
    let mut pieces = pieces?;
    let first = pieces.next().await?;
    Some((first, pieces))
}

impl Abroad {
    /// `closed`: why this instance does not answer itself.
    fn place(&self, closed: Closed) -> Result<Option<Place>, Closed> {
        let owner = self.owner.borrow();
        match (closed, &owner.active) {
            (closed @ (Closed::Starting | Closed::Stopping), _) => Err(closed),
            (_, Some(_)) if owner.reach == Reach::CutOff => Err(Closed::OwnerUnreachable),
            (_, Some(_)) if owner.reach == Reach::OtherProtocol => Err(Closed::OtherProtocol),
            (_, Some(active)) if active.peer.is_some() => Ok(Some(Place::There(active.clone()))),
            (Closed::Standby, None) => Ok(None),
            // Of a version that takes nothing from others; or the store is away for all.
            (closed, _) => Err(closed),
        }
    }

    fn cell(&self, id: InstanceId, is_bulky: bool) -> LinkCell {
        let mut links = self.links.borrow_mut();
        links.take_if(|(known, _)| *known != id);
        let (_, links) = links.get_or_insert_with(|| (id, Links::default()));
        match is_bulky {
            true => links.documents.clone(),
            false => links.locks.clone(),
        }
    }

    /// The next request opens another connection.
    fn forget(&self, broken: &LinkCell) {
        if let Some((_, links)) = &mut *self.links.borrow_mut() {
            for cell in [&mut links.locks, &mut links.documents] {
                if Rc::ptr_eq(cell, broken) {
                    *cell = LinkCell::default();
                }
            }
        }
    }

    fn tell(&self, question: Question) {
        let links = self.links.borrow();
        if let Some(link) = links.as_ref().and_then(|(_, links)| links.locks.get()) {
            link.tell(question);
        }
    }
}

impl Hold {
    /// Ready when this instance ends.
    async fn stopped(&mut self) {
        let _ = self.owner.wait_for(|owner| owner.stopping).await;
    }
}

/// A request that is passed on.
struct Forwarded<'a> {
    door: &'a FrontDoor,
    op: &'a Op,
    /// With the ticket to make, so that a copy finds it.
    caller: Caller,
    hold: Hold,
    /// A copy may have been acted on.
    lost: bool,
}

impl Forwarded<'_> {
    fn new<'a>(door: &'a FrontDoor, op: &'a Op, caller: &Caller) -> Forwarded<'a> {
        let makes_ticket = matches!(op, Op::Acquire { .. });
        Forwarded {
            door,
            op,
            caller: Caller {
                relayed: makes_ticket.then(|| door.router.server.fresh_ticket()),
                ..caller.clone()
            },
            hold: door.hold(op.wait().unwrap_or_default()),
            lost: false,
        }
    }

    async fn answer(mut self, name: &ResourceName) -> Box<Reply> {
        loop {
            let place = match self.door.place() {
                Ok(place) => place,
                Err(closed) => return Box::new(Reply::Closed(closed)),
            };
            match place {
                Some(Place::Here) => {
                    let op = self.remaining();
                    return taken(self.door.router.ask(name, &op, &self.caller).await);
                }
                Some(Place::There(active)) => {
                    if let Some(reply) = self.ask(&active, name).await {
                        return reply;
                    }
                }
                None => {}
            }
            if let Err(closed) = self.door.pause(&mut self.hold).await {
                return Box::new(Reply::Closed(closed));
            }
        }
    }

    /// `None`: it may be asked again.
    async fn ask(&mut self, active: &ActiveInstance, name: &ResourceName) -> Option<Box<Reply>> {
        let question = Question::Ask {
            name: name.clone(),
            op: self.remaining(),
            caller: self.caller.clone(),
        };
        let exchange = self.door.exchange(active, question);
        let exchange = match self.op.wait() {
            // As its own waits, those that are passed on end when this instance does.
            Some(_) => tokio::select! {
                exchange = exchange => exchange,
                () = self.hold.stopped() => {
                    return Some(Box::new(Reply::Closed(Closed::Stopping)));
                }
            },
            None => exchange.await,
        };
        let reply = match exchange {
            Exchange::Answered(PeerReply::Reply(reply)) => reply,
            Exchange::NotDone => return None,
            Exchange::Answered(_) | Exchange::Lost if self.op.may_repeat() => {
                self.lost = true;
                return None;
            }
            Exchange::Answered(_) | Exchange::Lost => {
                return Some(Box::new(Reply::Closed(Closed::AnswerLost)));
            }
        };
        match *reply {
            Reply::Closed(_) if self.op.may_repeat() => {
                self.lost = true;
                None
            }
            // The first copy did it.
            Reply::Refused(Refusal::Dead(Some(EndReason::Released)))
                if self.lost && matches!(self.op, Op::Unlock { .. }) =>
            {
                Some(Box::new(Reply::Lock(Answer::Unlocked { dead: None })))
            }
            _ => Some(reply),
        }
    }

    /// With what is left of its wait.
    fn remaining(&self) -> Op {
        let passed = self.hold.since.elapsed();
        let mut op = self.op.clone();
        match &mut op {
            Op::Acquire {
                wait: Wait::For(wait) | Wait::ThenLeave(wait),
                ..
            } => *wait = wait.saturating_sub(passed),
            Op::Read {
                watch: Some(watch), ..
            }
            | Op::Describe {
                watch: Some(watch), ..
            } => watch.wait = watch.wait.saturating_sub(passed),
            _ => {}
        }
        op
    }
}
