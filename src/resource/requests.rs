//! Requests in: what has to be known first, what the core is asked, who waits.

use std::collections::hash_map::Entry;

use actix::prelude::*;
use tokio::sync::oneshot;

use crate::lock::rows::HeadRow;
use crate::lock::{Command, LockState, Patience, PresentedTicket, RequestId, Seconds, Selector};
use crate::resource::actor::{ResourceActor, closed};
use crate::resource::documents::{Documents, Known};
use crate::resource::live::{DocumentRead, Resource};
use crate::resource::messages::{Call, Op, Reply, Wait};
use crate::resource::open_requests::{OpenRequest, RequestKind, WaiterPermit};
use crate::shared::audit_log::AuditKind;
use crate::shared::caller::Caller;
use crate::shared::gate::Closed;
use crate::store::{ResourceId, Snapshot, StoreError, StoredData};

impl ResourceActor {
    pub(super) fn call(&mut self, call: Call, ctx: &mut Context<Self>) {
        let now = self.now.mono;
        let Some(live) = self.live() else {
            let _ = call.reply.send(Box::new(Reply::Moved));
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
    pub(super) fn carry_out(&mut self, call: Call, exists: bool, ctx: &mut Context<Self>) {
        let Some(patience) = self.patience(&call.op) else {
            return self.reply(call, Reply::NoResource, ctx);
        };
        let (request, caller) = (call.request, call.caller.clone());
        let (kind, command) = match call.op {
            Op::Create { .. } => return,
            Op::Describe => return self.describe(call, ctx),
            Op::Read {
                ref selector,
                presented,
            } => {
                let selector = selector.clone();
                return self.read(call, &selector, presented, ctx);
            }
            Op::Acquire {
                selector: Some(_),
                presented,
                ..
            } if !exists && !self.shell.terms().rules.get_locks_unwritten => (
                RequestKind::GetAbsent(presented),
                Command::Touch { request, presented },
            ),
            Op::Acquire {
                selector,
                presented,
                owner,
                ttl,
                key,
                ..
            } => (
                selector.map_or(RequestKind::Plain, RequestKind::Get),
                Command::Acquire {
                    request,
                    presented,
                    fresh: self.shell.fresh_ticket(),
                    owner,
                    ttl,
                    key,
                    patience,
                },
            ),
            Op::Write { presented, .. } if !exists && self.is_full() => (
                RequestKind::WriteBeyond,
                Command::Touch { request, presented },
            ),
            Op::Write {
                selector,
                json,
                presented,
                release,
            } => (
                RequestKind::Write(selector, json),
                Command::Write {
                    request,
                    presented,
                    fresh: self.shell.fresh_ticket(),
                    release,
                    patience,
                },
            ),
            Op::DeleteSelector { presented, .. } if !exists => {
                let token = self.resource().and_then(|r| r.token_of(presented));
                return self.reply(call, Reply::NoSelector(token), ctx);
            }
            Op::DeleteSelector {
                selector,
                presented,
            } => (
                RequestKind::DeleteSelector(selector),
                Command::Write {
                    request,
                    presented,
                    fresh: self.shell.fresh_ticket(),
                    release: false,
                    patience: Patience::Never,
                },
            ),
            Op::Delete { presented } => {
                (RequestKind::Delete, Command::Delete { request, presented })
            }
            Op::Renew { presented, ttl } => (
                RequestKind::Plain,
                Command::Renew {
                    request,
                    presented,
                    ttl,
                },
            ),
            Op::Unlock { presented } => {
                (RequestKind::Plain, Command::Unlock { request, presented })
            }
            Op::ForceUnlock { token, reason } => (
                RequestKind::Force(reason),
                Command::ForceUnlock { request, token },
            ),
            Op::Touch { presented } => (RequestKind::Plain, Command::Touch { request, presented }),
        };
        let open = self.opened(call.reply, kind, caller);
        self.open_and_apply(request, open, command, ctx);
    }

    pub(super) fn is_full(&mut self) -> bool {
        let max = self.shell.settings.selectors_max;
        self.resource()
            .is_some_and(|resource| resource.documents.total() >= max)
    }

    /// How long a request may wait; `None` when there is no resource.
    pub(super) fn patience(&mut self, op: &Op) -> Option<Patience> {
        let now = self.now.mono;
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

    pub(super) fn opened(
        &self,
        reply: oneshot::Sender<Box<Reply>>,
        kind: RequestKind,
        caller: Caller,
    ) -> OpenRequest {
        OpenRequest {
            reply,
            kind,
            caller,
            since: self.now.mono,
            permit: None,
        }
    }

    pub(super) fn open_and_apply(
        &mut self,
        request: RequestId,
        open: OpenRequest,
        command: Command,
        ctx: &mut Context<Self>,
    ) {
        let Some(live) = self.live() else {
            return;
        };
        live.open.insert(request, Box::new(open));
        let Some(outcome) = self.apply(command) else {
            return;
        };
        let answered = outcome.answers.iter().any(|(id, _)| *id == request);
        self.settle(outcome, ctx);
        if !answered {
            self.park(request, ctx);
        }
    }

    /// The request waits for the lock, unless too many do already or nobody may any more.
    pub(super) fn park(&mut self, request: RequestId, ctx: &mut Context<Self>) {
        let permit = match self.shell.gate.check() {
            // Those that wait were ended, or are about to be.
            Err(why @ Closed::Stopping) => Err(Reply::Closed(why)),
            _ if self.shell.add_waiter() => Ok(WaiterPermit(self.shell.clone())),
            _ => Err(Reply::TooManyWaiters),
        };
        let permit = match permit {
            Ok(permit) => permit,
            Err(reply) => return self.turn_away(request, reply, ctx),
        };
        let Some(live) = self.live() else {
            return;
        };
        if let Some(open) = live.open.get_mut(request) {
            open.permit = Some(permit);
            if let (RequestKind::Get(selector), Some(resource)) = (&open.kind, &mut live.resource) {
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
        let waiting: Vec<RequestId> = waiting.map(|(request, _)| request).collect();
        for request in waiting {
            self.turn_away(request, Reply::Closed(Closed::Stopping), ctx);
        }
    }

    /// Answers a request that would wait, and lets the core know that it does not.
    fn turn_away(&mut self, request: RequestId, reply: Reply, ctx: &mut Context<Self>) {
        let open = self.live().and_then(|live| live.open.remove(request));
        if let Some(open) = open {
            let _ = open.reply.send(Box::new(reply));
        }
        self.command(Command::Vanished { request }, ctx);
    }

    pub(super) fn create(&mut self, call: Call, timeout: Seconds, ctx: &mut Context<Self>) {
        let floor = self.shell.floor();
        let shell = self.shell.clone();
        let name = self.name.clone();
        let owner = ctx.address().downgrade().recipient();
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
            snapshot.lock.head = Some(HeadRow {
                token: floor,
                holder: None,
            });
        }
        live.resource = Some(Resource {
            id: id.clone(),
            core: LockState::new(timeout, floor),
            documents: Documents::new(shell, owner, 0),
        });
        self.report_change(AuditKind::Created, &call.caller, None, None);
        self.open_call(call.request, call.reply, call.caller);
        self.store(
            snapshot,
            vec![(call.request, Box::new(Reply::Created { id, timeout }))],
            ctx,
        );
    }

    pub(super) fn open_call(
        &mut self,
        request: RequestId,
        reply: oneshot::Sender<Box<Reply>>,
        caller: Caller,
    ) {
        let open = self.opened(reply, RequestKind::Plain, caller);
        if let Some(live) = self.live() {
            live.open.insert(request, Box::new(open));
        }
    }

    /// Answers a request that changes nothing, once what it saw is durable.
    pub(super) fn reply(&mut self, call: Call, reply: Reply, ctx: &mut Context<Self>) {
        let Some(live) = self.live() else {
            return;
        };
        if live.sent == live.committed {
            let _ = call.reply.send(Box::new(reply));
            return;
        }
        self.open_call(call.request, call.reply, call.caller);
        self.hold_or_deliver(vec![(call.request, Box::new(reply))], ctx);
    }

    pub(super) fn describe(&mut self, call: Call, ctx: &mut Context<Self>) {
        let (shell, name) = (self.shell.clone(), self.name.clone());
        self.command(Command::Tick, ctx);
        let reply = match self.resource() {
            Some(resource) => Reply::Described(resource.describe(&name, &shell)),
            None => Reply::NoResource,
        };
        self.reply(call, reply, ctx);
    }

    pub(super) fn read(
        &mut self,
        call: Call,
        selector: &Selector,
        presented: PresentedTicket,
        ctx: &mut Context<Self>,
    ) {
        let found = self.live().and_then(|live| {
            let resource = live.resource.as_mut()?;
            let document = resource.documents.get(selector, &resource.id)?;
            let ticket = resource.live_ticket(presented);
            let ticket = ticket.map(|ticket| (ticket, resource.core.token_of(ticket)));
            Some(Reply::Read { document, ticket })
        });
        let reply = found.unwrap_or_else(|| {
            let token = self.resource().and_then(|r| r.token_of(presented));
            Reply::NoSelector(token)
        });
        self.reply(call, reply, ctx);
    }

    pub(super) fn load_document(&mut self, call: Call, ctx: &mut Context<Self>) {
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
        match live.reading.entry(selector.clone()) {
            // Under way, even when everybody who waited for it has left.
            Entry::Occupied(mut read) => return read.get_mut().calls.push(call),
            Entry::Vacant(none) => none.insert(DocumentRead {
                calls: vec![call],
                overtaken: false,
            }),
        };
        let persistence = self.persistence.clone();
        let read = (id.clone(), selector.clone());
        async move { persistence.load_data(read.0, read.1).await }
            .into_actor(self)
            .map(move |result, actor, ctx| {
                actor.document_loaded(&id, &selector, result, ctx);
                actor.schedule(ctx);
            })
            .spawn(ctx);
    }

    pub(super) fn document_loaded(
        &mut self,
        id: &ResourceId,
        selector: &Selector,
        result: Result<Option<StoredData>, StoreError>,
        ctx: &mut Context<Self>,
    ) {
        self.look_at_clocks();
        let Some(live) = self.live() else {
            return;
        };
        let Some(DocumentRead { calls, overtaken }) = live.reading.remove(selector) else {
            return;
        };
        let data = match result {
            Ok(data) => data,
            Err(error) => {
                for call in calls {
                    let _ = call.reply.send(Box::new(Reply::Closed(closed(&error))));
                }
                return;
            }
        };
        let same = |resource: &&mut Resource| resource.id == *id && !overtaken;
        let Some(resource) = live.resource.as_mut().filter(same) else {
            // Changed, or its resource deleted and perhaps created anew, meanwhile.
            return calls.into_iter().for_each(|call| self.call(call, ctx));
        };
        if let Some(data) = data {
            resource.documents.loaded(selector, data);
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
