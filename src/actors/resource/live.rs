//! A resource actor at work: requests in, core commands, rows out, answers once they are durable.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::documents::{Documents, Known};
use super::report::Account;
use super::{ResourceActor, Stage, closed};
use crate::actors::caller::Caller;
use crate::actors::events::Kind as Happened;
use crate::actors::gate::Closed;
use crate::actors::messages::{Call, Commit, Description, Document, Evict, Op, Reply, Wait};
use crate::actors::persistence::LoadData;
use crate::actors::shell::Shell;
use crate::lock::rows::HeadRow;
use crate::lock::{
    Answer, Bearer, Command, FencingToken, LockState, Millis, Outcome, Owner, Patience, RequestId,
    Seconds, Selector, Ticket,
};
use crate::store::{ResourceId, Snapshot, StoreError, StoredData};

/// A resource that exists.
pub struct Resource {
    pub id: ResourceId,
    pub core: LockState,
    pub documents: Documents,
}

/// What an open request is about, as far as its answer needs it.
pub(super) enum Kind {
    Plain,
    Get(Selector),
    /// GET `lock=1` of a selector that was never written: answered 404 whatever the lock says.
    GetAbsent(Bearer),
    Write(Selector, Bytes),
    DeleteSelector(Selector),
    Delete,
    /// Why.
    Force(Owner),
}

pub(super) struct Open {
    reply: oneshot::Sender<Reply>,
    pub(super) kind: Kind,
    pub(super) caller: Caller,
    /// When it arrived.
    pub(super) since: Millis,
    /// While it waits for the lock.
    permit: Option<WaiterPermit>,
}

/// One of the `MAX_WAITERS` places; given back when dropped.
struct WaiterPermit(Arc<Shell>);

impl Drop for WaiterPermit {
    fn drop(&mut self) {
        self.0.remove_waiter();
    }
}

pub struct Live {
    /// `None`: no resource of this name exists.
    pub(super) resource: Option<Resource>,
    pub(super) open: BTreeMap<RequestId, Open>,
    pub(super) account: Account,
    /// Replies that wait for a commit, oldest first.
    unsettled: VecDeque<(u64, RequestId, Reply)>,
    /// Requests that wait for a document to be loaded.
    reading: HashMap<Selector, Vec<Call>>,
    /// Requests that waited to read a document which has just been deleted.
    orphans: Vec<RequestId>,
    /// Number of the last commit sent, and of the last one known to be durable.
    sent: u64,
    committed: u64,
    timer: Option<(Millis, SpawnHandle)>,
    last_active: Millis,
}

/// How long an actor stays whose name turned out not to exist.
const ABSENT_STAYS_MS: Millis = 1_000;

impl Live {
    pub fn new(resource: Option<Resource>, account: Account) -> Live {
        Live {
            resource,
            account,
            open: BTreeMap::new(),
            unsettled: VecDeque::new(),
            reading: HashMap::new(),
            orphans: Vec::new(),
            sent: 0,
            committed: 0,
            timer: None,
            last_active: 0,
        }
    }

    /// The client is gone: nobody is to be answered.
    pub fn drop_request(&mut self, request: RequestId) {
        if let Some(open) = self.open.remove(&request) {
            self.unpark(&open);
        }
        for calls in self.reading.values_mut() {
            calls.retain(|call| call.request != request);
        }
    }

    fn unpark(&mut self, open: &Open) {
        if let (Some(_), Kind::Get(selector)) = (&open.permit, &open.kind)
            && let Some(resource) = &mut self.resource
        {
            resource.documents.unpin(selector, self.committed);
        }
    }

    pub fn answer_all(&mut self, reply: &Reply) {
        for (_, open) in std::mem::take(&mut self.open) {
            let _ = open.reply.send(reply.clone());
        }
        for call in self.reading.drain().flat_map(|(_, calls)| calls) {
            let _ = call.reply.send(reply.clone());
        }
        self.unsettled.clear();
    }

    pub fn cancel_timer(&mut self, ctx: &mut Context<ResourceActor>) {
        if let Some((_, handle)) = self.timer.take() {
            ctx.cancel_future(handle);
        }
    }

    pub fn evict(&mut self, evict: &Evict, shell: &Shell) {
        match &mut self.resource {
            Some(resource) => resource.documents.evict(evict, self.committed),
            None => shell.budget.answered(evict.bytes),
        }
    }

    /// When this actor may retire, if it is idle.
    fn retire_at(&self, retire_ms: Millis) -> Option<Millis> {
        let busy = !self.open.is_empty() || !self.unsettled.is_empty() || !self.reading.is_empty();
        match &self.resource {
            _ if busy || self.sent != self.committed => None,
            None => Some(self.last_active + retire_ms.min(ABSENT_STAYS_MS)),
            Some(resource) if resource.core.is_idle() => Some(self.last_active + retire_ms),
            Some(_) => None,
        }
    }
}

impl Resource {
    fn describe(&self, name: &crate::lock::ResourceName, shell: &Shell) -> Description {
        Description {
            name: name.clone(),
            id: self.id.clone(),
            timeout: self.core.timeout(),
            locked: self.core.is_locked(),
            holder: self.core.holder(&shell.terms(), shell.clock.now()),
            waiting: self.core.waiting(),
            selectors: self.documents.total(),
        }
    }

    /// The fencing token of the lease, if this is its holder.
    fn token_of(&self, bearer: Bearer) -> Option<FencingToken> {
        match bearer {
            Bearer::Ticket(ticket) => self.core.token_of(ticket),
            Bearer::Nobody | Bearer::Stranger => None,
        }
    }

    fn live_ticket(&self, bearer: Bearer) -> Option<Ticket> {
        match bearer {
            Bearer::Ticket(ticket) if self.core.is_live(ticket) => Some(ticket),
            _ => None,
        }
    }
}

impl ResourceActor {
    fn live(&mut self) -> Option<&mut Live> {
        match &mut self.stage {
            Stage::Live(live) => Some(live),
            Stage::Loading(_) | Stage::Retired => None,
        }
    }

    fn resource(&mut self) -> Option<&mut Resource> {
        self.live()?.resource.as_mut()
    }

    // ---- requests ----------------------------------------------------------------------------------

    pub(super) fn call(&mut self, call: Call, ctx: &mut Context<Self>) {
        let now = self.shell.clock.mono();
        let Some(live) = self.live() else {
            let _ = call.reply.send(Reply::Moved);
            return;
        };
        live.last_active = now;
        if let Op::Create { timeout } = call.op {
            return self.create(call, timeout, ctx);
        }
        let Some(resource) = live.resource.as_ref() else {
            return self.reply(call, Reply::NoResource, ctx);
        };
        let known = match needed_document(&call.op) {
            None => Known::Absent,
            Some((selector, json)) => match resource.documents.known(selector) {
                Known::Unknown => return self.load_document(call, ctx),
                Known::Evicted if json => return self.load_document(call, ctx),
                known => known,
            },
        };
        self.carry_out(call, known != Known::Absent, ctx);
    }

    /// A request whose document, if it names one, is known to exist or not.
    fn carry_out(&mut self, call: Call, exists: bool, ctx: &mut Context<Self>) {
        let Some(patience) = self.patience(&call.op) else {
            return self.reply(call, Reply::NoResource, ctx);
        };
        let fresh = self.shell.fresh_ticket();
        let (request, caller) = (call.request, call.caller.clone());
        let full = self.is_full();
        let (kind, command) = match call.op {
            Op::Create { .. } => return,
            Op::Describe => return self.describe(call, ctx),
            Op::Read {
                ref selector,
                bearer,
            } => {
                let selector = selector.clone();
                return self.read(call, &selector, bearer, ctx);
            }
            Op::Acquire {
                selector: Some(_),
                bearer,
                ..
            } if !exists && !self.shell.terms().rules.get_locks_unwritten => {
                (Kind::GetAbsent(bearer), Command::Touch { request, bearer })
            }
            Op::Acquire {
                selector,
                bearer,
                owner,
                ttl,
                key,
                ..
            } => (
                selector.map_or(Kind::Plain, Kind::Get),
                Command::Acquire {
                    request,
                    bearer,
                    fresh,
                    owner,
                    ttl,
                    key,
                    patience,
                },
            ),
            Op::Write { .. } if !exists && full => {
                return self.reply(call, Reply::TooManySelectors, ctx);
            }
            Op::Write {
                selector,
                json,
                bearer,
                release,
            } => (
                Kind::Write(selector, json),
                Command::Write {
                    request,
                    bearer,
                    fresh,
                    release,
                    patience,
                },
            ),
            Op::DeleteSelector { bearer, .. } if !exists => {
                let token = self.resource().and_then(|r| r.token_of(bearer));
                return self.reply(call, Reply::NoSelector(token), ctx);
            }
            Op::DeleteSelector { selector, bearer } => (
                Kind::DeleteSelector(selector),
                Command::Write {
                    request,
                    bearer,
                    fresh,
                    release: false,
                    patience: Patience::Never,
                },
            ),
            Op::Delete { bearer } => (Kind::Delete, Command::Delete { request, bearer }),
            Op::Renew { bearer, ttl } => (
                Kind::Plain,
                Command::Renew {
                    request,
                    bearer,
                    ttl,
                },
            ),
            Op::Unlock { bearer } => (Kind::Plain, Command::Unlock { request, bearer }),
            Op::ForceUnlock { token, reason } => {
                (Kind::Force(reason), Command::ForceUnlock { request, token })
            }
            Op::Touch { bearer } => (Kind::Plain, Command::Touch { request, bearer }),
        };
        let open = self.opened(call.reply, kind, caller);
        self.open_and_apply(request, open, command, ctx);
    }

    fn is_full(&mut self) -> bool {
        let max = self.shell.settings.selectors_max;
        self.resource()
            .is_some_and(|resource| resource.documents.total() >= max)
    }

    /// How long a request may wait; `None` when there is no resource.
    fn patience(&mut self, op: &Op) -> Option<Patience> {
        let now = self.shell.clock.mono();
        let server_wait = self.shell.settings.wait_ms;
        let timeout_waits = self.shell.terms().rules.timeout_is_wait;
        let timeout: Seconds = self.resource()?.core.timeout();
        let wait = match op {
            Op::Acquire { wait, .. } => *wait,
            Op::Write { .. } => Wait::Default,
            _ => return Some(Patience::Never),
        };
        Some(match wait {
            Wait::NoQueue => Patience::Never,
            Wait::For(wait) if wait.is_zero() => Patience::Poll,
            Wait::For(wait) => Patience::Until(now + wait.as_millis() as u64),
            Wait::Default if timeout_waits => match timeout.limit_ms() {
                Some(limit) => Patience::Until(now + limit),
                None => Patience::Forever,
            },
            Wait::Default if server_wait == 0 => Patience::Poll,
            Wait::Default => Patience::Until(now + server_wait),
        })
    }

    fn opened(&self, reply: oneshot::Sender<Reply>, kind: Kind, caller: Caller) -> Open {
        Open {
            reply,
            kind,
            caller,
            since: self.shell.clock.mono(),
            permit: None,
        }
    }

    fn open_and_apply(
        &mut self,
        request: RequestId,
        open: Open,
        command: Command,
        ctx: &mut Context<Self>,
    ) {
        let Some(live) = self.live() else {
            return;
        };
        live.open.insert(request, open);
        let Some(outcome) = self.apply(command) else {
            return;
        };
        let answered = outcome.answers.iter().any(|(id, _)| *id == request);
        self.settle(outcome, ctx);
        if !answered {
            self.park(request, ctx);
        }
    }

    /// The request waits for the lock, unless too many do already.
    fn park(&mut self, request: RequestId, ctx: &mut Context<Self>) {
        let permitted = self.shell.add_waiter();
        let permit = permitted.then(|| WaiterPermit(self.shell.clone()));
        let Some(live) = self.live() else {
            return;
        };
        if permit.is_none() {
            if let Some(open) = live.open.remove(&request) {
                let _ = open.reply.send(Reply::TooManyWaiters);
            }
            return self.command(Command::Vanished { request }, ctx);
        }
        if let Some(open) = live.open.get_mut(&request) {
            open.permit = permit;
            if let (Kind::Get(selector), Some(resource)) = (&open.kind, &mut live.resource) {
                resource.documents.pin(selector);
            }
        }
    }

    /// Answers everyone who waits for the lock that the server shuts down.
    pub(super) fn end_waits(&mut self, ctx: &mut Context<Self>) {
        let Some(live) = self.live() else {
            return;
        };
        let waiting = live.open.iter().filter(|(_, open)| open.permit.is_some());
        let waiting: Vec<RequestId> = waiting.map(|(request, _)| *request).collect();
        for request in waiting {
            let open = self.live().and_then(|live| live.open.remove(&request));
            if let Some(open) = open {
                let _ = open.reply.send(Reply::Closed(Closed::Stopping));
            }
            self.command(Command::Vanished { request }, ctx);
        }
    }

    fn create(&mut self, call: Call, timeout: Seconds, ctx: &mut Context<Self>) {
        let floor = self.shell.floor();
        let shell = self.shell.clone();
        let name = self.name.clone();
        let Some(live) = self.live() else {
            return;
        };
        if live.resource.is_some() {
            return self.reply(call, Reply::Exists, ctx);
        }
        let id = ResourceId::random();
        let mut snapshot = Snapshot::empty(name, id.clone());
        snapshot.create(id.clone(), timeout);
        if floor != Default::default() {
            snapshot.head = Some(HeadRow {
                token: floor,
                holder: None,
            });
        }
        live.resource = Some(Resource {
            id: id.clone(),
            core: LockState::new(timeout, floor),
            documents: Documents::new(shell, 0),
        });
        self.report_change(Happened::Created, &call.caller, None, None);
        self.open_call(call.request, call.reply, call.caller);
        self.store(
            snapshot,
            vec![(call.request, Reply::Created { id, timeout })],
            ctx,
        );
    }

    fn open_call(&mut self, request: RequestId, reply: oneshot::Sender<Reply>, caller: Caller) {
        let open = self.opened(reply, Kind::Plain, caller);
        if let Some(live) = self.live() {
            live.open.insert(request, open);
        }
    }

    /// Answers a request that changes nothing, once what it saw is durable.
    fn reply(&mut self, call: Call, reply: Reply, ctx: &mut Context<Self>) {
        let Some(live) = self.live() else {
            return;
        };
        if live.sent == live.committed {
            let _ = call.reply.send(reply);
            return;
        }
        self.open_call(call.request, call.reply, call.caller);
        self.hold_or_deliver(vec![(call.request, reply)], ctx);
    }

    fn describe(&mut self, call: Call, ctx: &mut Context<Self>) {
        let (shell, name) = (self.shell.clone(), self.name.clone());
        self.command(Command::Tick, ctx);
        let reply = match self.resource() {
            Some(resource) => Reply::Described(resource.describe(&name, &shell)),
            None => Reply::NoResource,
        };
        self.reply(call, reply, ctx);
    }

    fn read(&mut self, call: Call, selector: &Selector, bearer: Bearer, ctx: &mut Context<Self>) {
        let found = self.resource().and_then(|resource| {
            let document = resource.documents.get(selector, &resource.id)?;
            let ticket = resource.live_ticket(bearer);
            let ticket = ticket.map(|ticket| (ticket, resource.core.token_of(ticket)));
            Some(Reply::Read { document, ticket })
        });
        let reply = found.unwrap_or_else(|| {
            let token = self.resource().and_then(|r| r.token_of(bearer));
            Reply::NoSelector(token)
        });
        self.reply(call, reply, ctx);
    }

    // ---- documents ---------------------------------------------------------------------------------

    fn load_document(&mut self, call: Call, ctx: &mut Context<Self>) {
        let Some((selector, _)) = needed_document(&call.op) else {
            return;
        };
        let selector = selector.clone();
        let Some(live) = self.live() else {
            return;
        };
        let Some(id) = live.resource.as_ref().map(|resource| resource.id.clone()) else {
            return;
        };
        let calls = live.reading.entry(selector.clone()).or_default();
        calls.push(call);
        if calls.len() > 1 {
            return;
        }
        let load = LoadData {
            id: id.clone(),
            selector: selector.clone(),
        };
        self.persistence
            .send(load)
            .into_actor(self)
            .map(move |result, actor, ctx| {
                let lost = |e: MailboxError| Err(StoreError::Unavailable(e.to_string()));
                actor.document_loaded(&id, &selector, result.unwrap_or_else(lost), ctx);
                actor.schedule(ctx);
            })
            .spawn(ctx);
    }

    fn document_loaded(
        &mut self,
        id: &ResourceId,
        selector: &Selector,
        result: Result<Option<StoredData>, StoreError>,
        ctx: &mut Context<Self>,
    ) {
        let me = ctx.address().downgrade();
        let Some(live) = self.live() else {
            return;
        };
        let calls = live.reading.remove(selector).unwrap_or_default();
        let data = match result {
            Ok(data) => data,
            Err(error) => {
                for call in calls {
                    let _ = call.reply.send(Reply::Closed(closed(&error)));
                }
                return;
            }
        };
        let same = live.resource.as_mut().filter(|resource| resource.id == *id);
        let Some(resource) = same else {
            // Deleted, and perhaps created anew, meanwhile.
            return calls.into_iter().for_each(|call| self.call(call, ctx));
        };
        if let Some(data) = data {
            resource.documents.loaded(selector, data, me);
        }
        for call in calls {
            // Asked anew for each: the one before may have written or deleted it.
            let known = self.resource().map(|r| r.documents.known(selector));
            let exists = matches!(known, Some(Known::Present | Known::Evicted));
            if self.resource().is_some() {
                self.carry_out(call, exists, ctx);
            } else {
                self.reply(call, Reply::NoResource, ctx);
            }
        }
    }

    // ---- commands and their outcome ----------------------------------------------------------------

    /// Applies a command that nobody in particular is answered for.
    pub(super) fn command(&mut self, command: Command, ctx: &mut Context<Self>) {
        if let Some(outcome) = self.apply(command) {
            self.settle(outcome, ctx);
        }
    }

    fn apply(&mut self, command: Command) -> Option<Outcome> {
        let (terms, now) = (self.shell.terms(), self.shell.clock.now());
        let resource = self.resource()?;
        Some(resource.core.apply(&terms, now, command))
    }

    /// Turns the core's outcome into rows and replies.
    fn settle(&mut self, outcome: Outcome, ctx: &mut Context<Self>) {
        self.report(&outcome);
        let name = self.name.clone();
        let Some(id) = self.resource().map(|resource| resource.id.clone()) else {
            return;
        };
        let mut snapshot = Snapshot::empty(name, id);
        for change in outcome.changes {
            snapshot.change(change);
        }
        let mut replies = Vec::with_capacity(outcome.answers.len());
        for (request, answer) in outcome.answers {
            if let Some(reply) = self.reply_to(request, answer, &mut snapshot, ctx) {
                replies.push((request, reply));
            }
        }
        let orphans = self.take_orphans();
        let gone = |request: &RequestId| (*request, Reply::NoSelector(None));
        replies.extend(orphans.iter().map(gone));
        self.store(snapshot, replies, ctx);
        for request in orphans {
            self.command(Command::Vanished { request }, ctx);
        }
    }

    /// Requests whose document was deleted while they waited; they wait no more.
    fn take_orphans(&mut self) -> Vec<RequestId> {
        let Some(live) = self.live() else {
            return Vec::new();
        };
        let orphans = std::mem::take(&mut live.orphans);
        for request in &orphans {
            if let Some(mut open) = live.open.remove(request) {
                live.unpark(&open);
                open.permit = None;
                open.kind = Kind::GetAbsent(Bearer::Nobody);
                live.open.insert(*request, open);
            }
        }
        orphans
    }

    /// The reply to one request, with the changes to data that it allows.
    fn reply_to(
        &mut self,
        request: RequestId,
        answer: Answer,
        snapshot: &mut Snapshot,
        ctx: &mut Context<Self>,
    ) -> Option<Reply> {
        let me = ctx.address().downgrade();
        let shell = self.shell.clone();
        let live = self.live()?;
        let open = live.open.get_mut(&request)?;
        let kind = std::mem::replace(&mut open.kind, Kind::Plain);
        let caller = open.caller.clone();
        if let (Some(_), Kind::Get(selector)) = (open.permit.take(), &kind)
            && let Some(resource) = &mut live.resource
        {
            resource.documents.unpin(selector, live.committed);
        }
        let commit = live.sent + 1;
        let resource = live.resource.as_mut()?;
        Some(match (kind, answer) {
            (Kind::Write(selector, json), Answer::Writable { token }) => {
                let row = resource.documents.write(&selector, json, commit, me);
                snapshot.document(selector.clone(), Some(row));
                self.report_change(Happened::Written, &caller, token, Some(&selector));
                Reply::Written { token }
            }
            (Kind::DeleteSelector(selector), Answer::Writable { token }) => {
                resource.documents.delete(&selector);
                snapshot.document(selector.clone(), None);
                self.end_gets_of(&selector);
                self.report_change(Happened::SelectorDeleted, &caller, token, Some(&selector));
                Reply::Deleted { token }
            }
            (Kind::Delete, Answer::Deletable) => {
                let token = resource.core.token();
                shell.raise_floor(token);
                snapshot.remove(token);
                live.resource = None;
                self.report_end_by_deletion();
                self.report_change(Happened::Deleted, &caller, Some(token), None);
                Reply::Deleted { token: None }
            }
            (Kind::GetAbsent(bearer), _) => Reply::NoSelector(resource.token_of(bearer)),
            (_, Answer::Gone) => Reply::NoResource,
            (_, Answer::TooManyWaiters) => Reply::TooManyWaiters,
            (Kind::Get(selector), answer @ Answer::Granted(_)) => Reply::Locked {
                answer,
                document: resource.documents.get(&selector, &resource.id),
            },
            (Kind::Get(_), answer @ Answer::Queued { .. }) => Reply::Locked {
                answer,
                document: None,
            },
            (_, answer) => Reply::Lock(answer),
        })
    }

    /// Requests that wait to read a document that was deleted: there is nothing to wait for any more.
    fn end_gets_of(&mut self, selector: &Selector) {
        let waits_unwritten = self.shell.terms().rules.get_locks_unwritten;
        let Some(live) = self.live() else {
            return;
        };
        if waits_unwritten {
            return;
        }
        let waits = |open: &Open| open.permit.is_some();
        let orphans = live
            .open
            .iter()
            .filter(|(_, open)| waits(open) && matches!(&open.kind, Kind::Get(s) if s == selector));
        live.orphans = orphans.map(|(request, _)| *request).collect();
    }

    /// Sends rows to the store and holds the replies back until they are durable, together with
    /// everything they rest on.
    fn store(
        &mut self,
        snapshot: Snapshot,
        replies: Vec<(RequestId, Reply)>,
        ctx: &mut Context<Self>,
    ) {
        let changes = !snapshot.is_empty();
        let inline = changes && self.shell.store.commit_inline(&snapshot);
        self.show();
        let incarnation = self.incarnation;
        let Some(live) = self.live() else {
            return;
        };
        let send = changes && !inline;
        if changes {
            live.sent += 1;
        }
        let seq = live.sent;
        if inline {
            live.committed = seq;
            self.shell.metrics.store.inline_commits.inc();
        }
        self.hold_or_deliver(replies, ctx);
        if send {
            self.persistence.do_send(Commit {
                actor: ctx.address(),
                incarnation,
                seq,
                snapshot,
            });
        }
    }

    /// Replies leave when everything that was sent to the store is durable.
    fn hold_or_deliver(&mut self, replies: Vec<(RequestId, Reply)>, ctx: &mut Context<Self>) {
        let Some(live) = self.live() else {
            return;
        };
        let seq = live.sent;
        if live.committed < seq {
            let waiting = replies.into_iter().map(|(id, reply)| (seq, id, reply));
            live.unsettled.extend(waiting);
            return;
        }
        for (request, reply) in replies {
            self.deliver(request, reply, ctx);
        }
    }

    pub(super) fn committed(&mut self, seq: u64, ctx: &mut Context<Self>) {
        let Some(live) = self.live() else {
            return;
        };
        live.committed = live.committed.max(seq);
        if let Some(resource) = &mut live.resource {
            resource.documents.give_back(live.committed);
        }
        while let Some(live) = self.live() {
            let ready = live.unsettled.front().is_some_and(|(at, ..)| *at <= seq);
            let Some((_, request, reply)) = ready.then(|| live.unsettled.pop_front()).flatten()
            else {
                break;
            };
            self.deliver(request, reply, ctx);
        }
    }

    /// Hands a reply to whoever waits for it, and tells the core that it went out.
    fn deliver(&mut self, request: RequestId, reply: Reply, ctx: &mut Context<Self>) {
        let tracked = match &reply {
            Reply::Lock(answer) | Reply::Locked { answer, .. } => answer.is_tracked(),
            Reply::Written { .. } | Reply::Deleted { .. } => true,
            _ => false,
        };
        let Some(open) = self.live().and_then(|live| live.open.remove(&request)) else {
            return;
        };
        // Where nobody takes it, `Vanished` is already on its way.
        if open.reply.send(reply).is_ok() && tracked {
            self.command(Command::Delivered { request }, ctx);
        }
    }

    // ---- time --------------------------------------------------------------------------------------

    /// Sees to it that the actor wakes up for the core's next deadline, or to retire. A timer that fires
    /// too early does no harm, so one that is early enough is left alone.
    pub(super) fn schedule(&mut self, ctx: &mut Context<Self>) {
        let now = self.shell.clock.mono();
        let retire_ms = self.shell.settings.retire_ms;
        let Some(live) = self.live() else {
            return;
        };
        let deadline = live.resource.as_ref().and_then(|r| r.core.deadline());
        let Some(at) = deadline.into_iter().chain(live.retire_at(retire_ms)).min() else {
            return;
        };
        if live.timer.is_some_and(|(set, _)| set <= at) {
            return;
        }
        live.cancel_timer(ctx);
        let pause = Duration::from_millis(at.saturating_sub(now));
        let handle = ctx.run_later(pause, |actor, ctx| actor.woken(ctx));
        live.timer = Some((at, handle));
    }

    fn woken(&mut self, ctx: &mut Context<Self>) {
        if let Some(live) = self.live() {
            live.timer = None;
        }
        if self.is_stale() {
            return self.retire(&Reply::Closed(Closed::StoreAway), ctx);
        }
        self.command(Command::Tick, ctx);
        let now = self.shell.clock.mono();
        let retire_ms = self.shell.settings.retire_ms;
        let retire_at = self.live().and_then(|live| live.retire_at(retire_ms));
        if retire_at.is_some_and(|at| at <= now) {
            return self.retire(&Reply::Moved, ctx);
        }
        self.schedule(ctx);
    }
}

/// The selector whose document this request needs, and whether it needs the JSON or only has to know that
/// it exists.
fn needed_document(op: &Op) -> Option<(&Selector, bool)> {
    match op {
        Op::Read { selector, .. } => Some((selector, true)),
        Op::Acquire {
            selector: Some(selector),
            ..
        } => Some((selector, true)),
        Op::Write { selector, .. } | Op::DeleteSelector { selector, .. } => Some((selector, false)),
        _ => None,
    }
}

impl Reply {
    /// The document in a reply, for callers that only want that.
    pub fn document(&self) -> Option<&Document> {
        match self {
            Reply::Read { document, .. } => Some(document),
            Reply::Locked { document, .. } => document.as_ref(),
            _ => None,
        }
    }
}
