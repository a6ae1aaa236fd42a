//! The state of a loaded resource actor, and the timer that wakes it.
//!
//! Neighbours: `requests` takes requests in, `replies` carries out the core's outcomes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::WeakAddr;
use actix::prelude::*;
use tokio_util::task::AbortOnDropHandle;

use crate::lock::{
    Command, FencingToken, LockState, Millis, Now, PresentedTicket, Refusal, RequestId,
    ResourceName, Selector, Terms,
};
use crate::resource::actor::{ResourceActor, Stage};
use crate::resource::documents::Documents;
use crate::resource::messages::{Call, Description, Reply};
use crate::resource::open_requests::{OpenRequests, RequestKind};
use crate::shared::dormant::HeldSince;
use crate::shared::event_feed::FeedEvent;
use crate::shared::gate::Closed;
use crate::shared::resource_notice::ResourceNotice;
use crate::shared::server_state::ServerState;
use crate::store::{ResourceId, Snapshot};

/// A resource that exists.
pub struct Resource {
    pub id: ResourceId,
    pub core: LockState,
    pub documents: Documents,
}

/// Wakes the actor at `at`, unless the handle is dropped before.
///
/// A task of its own: an actor's context polls the futures that it runs at every message.
fn wake(actor: WeakAddr<ResourceActor>, at: Millis, now: Millis) -> AbortOnDropHandle<()> {
    let pause = Duration::from_millis(at.saturating_sub(now));
    AbortOnDropHandle::new(actix_rt::spawn(async move {
        actix_rt::time::sleep(pause).await;
        if let Some(actor) = actor.upgrade() {
            actor.do_send(ResourceNotice::Woken { at });
        }
    }))
}

/// The state of a loaded actor. In memory only, except `resource`, of which the store holds rows.
pub struct Live {
    /// `None`: no resource of this name exists.
    pub(super) resource: Option<Resource>,
    pub(super) open: OpenRequests,
    pub(super) held: HeldSince,
    /// Replies that wait for a commit, oldest first, each with the number of that commit.
    pub(super) held_back: VecDeque<(u64, RequestId, Box<Reply>)>,
    /// Events for the feed, oldest first, each with the number of the commit that makes it durable: the next one at
    /// the time of the event. If that commit is never sent, the event is durable with the last one that was.
    pub(super) unpublished: VecDeque<(u64, Arc<FeedEvent>)>,
    /// The documents that are being read from the store, and for each the requests that wait for it. It is pinned
    /// meanwhile, so that a write or deletion which overtakes the read stays in memory until the read is over.
    #[expect(
        clippy::vec_box,
        reason = "calls arrive boxed, and are handled boxed later"
    )]
    pub(super) reading: HashMap<Selector, Vec<Box<Call>>>,
    /// The rows of a resource that was created for the request in progress; they are stored with the changes of
    /// that request. Boxed: it is checked in every step and nearly always `None`.
    pub(super) unborn: Option<Box<Snapshot>>,
    /// Conditional reads that wait for another version of the description or of a document.
    pub(super) watchers: Vec<RequestId>,
    /// Number of the last commit that was sent to the store.
    pub(super) sent: u64,
    /// Number of the last commit that is known to be durable.
    pub(super) committed: u64,
    /// When the timer wakes the actor, and its task.
    pub(super) timer: Option<(Millis, AbortOnDropHandle<()>)>,
    pub(super) last_active: Millis,
    /// The name moves to another instance: no request is accepted any more.
    pub(super) is_leaving: bool,
}

/// How long an actor stays if there is no resource of its name.
const ABSENT_STAYS_MS: Millis = 1_000;

impl Live {
    /// The state of a name without a resource.
    pub fn new(server: Arc<ServerState>) -> Live {
        Live {
            resource: None,
            held: HeldSince::new(server),
            open: OpenRequests::default(),
            held_back: VecDeque::new(),
            unpublished: VecDeque::new(),
            reading: HashMap::new(),
            unborn: None,
            watchers: Vec::new(),
            sent: 0,
            committed: 0,
            timer: None,
            last_active: 0,
            is_leaving: false,
        }
    }

    /// Takes the resource out: its lock is no longer held.
    pub(super) fn take_resource(&mut self) -> Option<Resource> {
        self.held.set(None);
        self.resource.take()
    }

    /// Keeps events until they are durable.
    pub(super) fn happened(&mut self, events: impl IntoIterator<Item = Arc<FeedEvent>>) {
        let commit = self.sent + 1;
        self.unpublished
            .extend(events.into_iter().map(|event| (commit, event)));
    }

    /// Drops a request whose client is gone, without a reply.
    pub fn drop_request(&mut self, request: RequestId) {
        if let Some(open) = self.open.remove(&request) {
            if let (Some(_), Some(selector)) = (&open.permit, open.kind.document()) {
                self.unpin(selector);
            }
            self.watchers.retain(|watcher| *watcher != request);
        }
        for calls in self.reading.values_mut() {
            calls.retain(|call| call.request != request);
        }
    }

    /// Releases the pin of a request that waited for the lock, or of a read.
    pub(super) fn unpin(&mut self, selector: &Selector) {
        if let Some(resource) = &mut self.resource {
            resource.documents.unpin(selector, self.committed);
        }
    }

    pub fn answer_all(&mut self, reply: &Reply) {
        for open in std::mem::take(&mut self.open).into_values() {
            let _ = open.reply.send(Box::new(reply.clone()));
        }
        for call in self.reading.drain().flat_map(|(_, calls)| calls) {
            let _ = call.reply.send(Box::new(reply.clone()));
        }
        self.held_back.clear();
    }

    /// When the next wait of a watcher ends.
    fn watch_ends(&self) -> Option<Millis> {
        let watchers = self.watchers.iter();
        let ends = watchers.filter_map(|request| match self.open.get(request)?.kind {
            RequestKind::Watch(_, until) => Some(until),
            _ => None,
        });
        ends.min()
    }

    /// Whether every commit is durable and every reply to one was sent.
    pub(super) fn is_settled(&self) -> bool {
        self.held_back.is_empty() && self.sent == self.committed
    }

    /// When this actor may retire. `None`: it has something to do, or its lock cannot be suspended.
    pub(super) fn retire_at(&self, retire_ms: Millis) -> Option<Millis> {
        let busy = !self.open.is_empty() || !self.reading.is_empty() || self.is_leaving;
        match &self.resource {
            _ if busy || !self.is_settled() => None,
            None => Some(self.last_active + retire_ms.min(ABSENT_STAYS_MS)),
            Some(resource) if resource.core.is_idle() || resource.core.can_suspend() => {
                Some(self.last_active + retire_ms)
            }
            Some(_) => None,
        }
    }
}

impl Resource {
    /// The reply to GET `lock=0` of a document that is in memory or does not exist.
    pub(super) fn read(&self, selector: &Selector, presented: PresentedTicket) -> Reply {
        let Some(document) = self.documents.get(selector, &self.id) else {
            return Reply::Refused(Refusal::NoSelector, self.token_of(presented));
        };
        let ticket = presented
            .ticket()
            .and_then(|ticket| Some((ticket, self.core.role(ticket)?.token())));
        Reply::Read { document, ticket }
    }

    pub(super) fn describe(
        &self,
        name: &ResourceName,
        (terms, now): (&Terms, Now),
        presented: PresentedTicket,
        places: usize,
    ) -> Description {
        Description {
            name: name.clone(),
            id: self.id.clone(),
            options: self.core.options(),
            locked: self.core.is_locked(),
            holders: self.core.holders(terms, now).collect(),
            waiting: self.core.waiting(),
            waits_since: self.core.waits_since(),
            queue: self.core.places(now, places),
            selectors: self.documents.total(),
            you: presented.ticket().and_then(|ticket| self.core.role(ticket)),
            fingerprint: self.core.fingerprint(),
        }
    }

    /// The fencing token of the lease that the presented ticket holds.
    pub(super) fn token_of(&self, presented: PresentedTicket) -> Option<FencingToken> {
        let ticket = presented.ticket()?;
        self.core.token_of(ticket)
    }
}

impl ResourceActor {
    pub(super) fn live(&mut self) -> Option<&mut Live> {
        match &mut self.stage {
            Stage::Live(live) => Some(live),
            Stage::Loading { .. } | Stage::Retired => None,
        }
    }

    pub(super) fn resource(&mut self) -> Option<&mut Resource> {
        self.live()?.resource.as_mut()
    }

    /// Answers the watchers that can be answered. Then sets the timer for the core's next deadline, the end of a
    /// watcher's wait or retirement. A timer that is set for an earlier time stays: firing early does no harm.
    pub(super) fn schedule(&mut self, ctx: &mut Context<Self>) {
        self.answer_watchers(ctx);
        let now = self.now.mono;
        let retire_ms = self.server.settings.retire_ms;
        let Some(live) = self.live() else {
            return;
        };
        let core = live.resource.as_ref().and_then(|r| r.core.deadline());
        let all = [core, live.watch_ends(), live.retire_at(retire_ms)];
        let Some(at) = all.into_iter().flatten().min() else {
            return;
        };
        if live.timer.as_ref().is_none_or(|(set, _)| *set > at) {
            live.timer = Some((at, wake(ctx.address().downgrade(), at, now)));
        }
    }

    /// The timer has fired. `at`: the time that it was set for.
    pub(super) fn woken(&mut self, at: Millis, ctx: &mut Context<Self>) {
        if let Some(live) = self.live() {
            // A timer that was replaced since may have sent this.
            live.timer.take_if(|(set, _)| *set == at);
        }
        if self.is_stale() {
            return self.retire(&Reply::Closed(Closed::StoreAway));
        }
        if self.live().is_none_or(|live| live.is_leaving) {
            return;
        }
        self.command(Command::Tick, ctx);
        let now = self.now.mono;
        let retire_ms = self.server.settings.retire_ms;
        let retire_at = self.live().and_then(|live| live.retire_at(retire_ms));
        if retire_at.is_some_and(|at| at <= now) {
            return self.leave_memory();
        }
        self.schedule(ctx);
    }
}
