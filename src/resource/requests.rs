//! Incoming requests: loads the document if one is needed, translates the request into a command for the lock
//! core, and parks a request that has to wait.

use std::sync::Arc;

use actix::prelude::*;
use tokio::sync::oneshot;

use crate::lock::rows::{Forced, HeadRow};
use crate::lock::{
    Command, EndReason, LockRequest, LockState, Patience, PresentedTicket, Refusal, RequestId,
    ResourceOptions, Selector, Ticket, Wish,
};
use crate::resource::actor::ResourceActor;
use crate::resource::documents::{Documents, Known};
use crate::resource::live::Resource;
use crate::resource::messages::{Call, Condition, Op, Reply, Wait};
use crate::resource::open_requests::{OpenRequest, RequestKind};
use crate::shared::audit_log::AuditKind;
use crate::shared::caller::Caller;
use crate::shared::gate::Closed;
use crate::store::{ResourceId, Snapshot};

// For `#[inline(never)]` see "What a request weighs" in docs/architecture.md.
impl ResourceActor {
    /// Handles one request of a loaded actor.
    pub(super) fn call(&mut self, call: Box<Call>, ctx: &mut Context<Self>) {
        let now = self.now.mono;
        let Some(live) = self.live() else {
            let _ = call.reply.send(Box::new(Reply::Moved));
            return;
        };
        live.last_active = now;
        if let Op::Create { options } = call.op {
            return self.create(call, options, ctx);
        }
        if live.resource.is_none()
            && let Err(reply) = self.make(&call, ctx)
        {
            return self.reply(call, *reply);
        }
        let Some(resource) = self.resource() else {
            return self.reply(call, Reply::Refused(Refusal::NoResource));
        };
        let known = match call.op.needed_document() {
            None => Known::Absent,
            Some((selector, json)) => match resource.documents.known(selector) {
                Known::Unknown => return self.load_document(call, ctx),
                Known::Evicted if json => return self.load_document(call, ctx),
                known => known,
            },
        };
        self.carry_out(call, known != Known::Absent, ctx);
    }

    /// Handles a request to a name that has no resource. A request with `create` makes the resource in memory;
    /// it is stored together with the changes of the request. The others are refused: with the reason for the
    /// end of their ticket if that is remembered, else with [`Refusal::NoResource`].
    #[inline(never)]
    fn make(&mut self, call: &Call, ctx: &Context<Self>) -> Result<(), Box<Reply>> {
        let now = self.now.mono;
        let lost = lost_matters(&call.op).and_then(|ticket| {
            let lost_tickets = self.server.lost_tickets.lock();
            lost_tickets.get(&self.name, ticket, now)
        });
        // A released ticket gets the same reply as a ticket of a name that never existed.
        if let Some(lost) = lost.filter(|lost| lost.reason != EndReason::Released) {
            return Err(Box::new(Reply::Refused(lost.refusal())));
        }
        let options = match &call.op {
            Op::Acquire { create: true, .. } => ResourceOptions::ephemeral(),
            Op::Write { create: true, .. } => ResourceOptions::default(),
            _ => return Err(Box::new(Reply::Refused(Refusal::NoResource))),
        };
        let snapshot = self.born(options, ctx);
        if let Some(live) = self.live() {
            live.unborn = Some(Box::new(snapshot));
        }
        Ok(())
    }

    /// Creates the resource in memory. Returns the rows that have to be stored for it.
    fn born(&mut self, options: ResourceOptions, ctx: &Context<Self>) -> Snapshot {
        let (token_floor, now) = (self.server.token_floor(), self.now.mono);
        let id = ResourceId::random();
        let mut core = LockState::new(options, token_floor);
        let mut snapshot = Snapshot::empty(self.name.clone(), id.clone());
        snapshot.create(id.clone(), options);
        if token_floor != Default::default() {
            snapshot.lock.head = Some(HeadRow {
                token: token_floor,
                ..HeadRow::default()
            });
        }
        let lost = self.server.lost_tickets.lock().of(&self.name, now);
        if !lost.is_empty() {
            self.server.lost_tickets.lock().forget(&self.name);
            snapshot.lock.merge(&core.recall(lost));
        }
        let documents = Documents::new(
            self.server.clone(),
            ctx.address().downgrade().recipient(),
            0,
        );
        if let Some(live) = self.live() {
            live.resource = Some(Resource {
                id,
                core,
                documents,
            });
        }
        snapshot
    }

    /// Carries out a request. `exists`: whether the document that it names exists; `false` if it names none.
    pub(super) fn carry_out(&mut self, mut call: Box<Call>, exists: bool, ctx: &mut Context<Self>) {
        let Some(patience) = self.patience(&call.op) else {
            return self.reply(call, Reply::Refused(Refusal::NoResource));
        };
        let request = call.request;
        match call.op {
            Op::Describe {
                presented,
                places,
                watch,
            } => {
                let about = (request, call.reply, call.caller);
                return self.describe(about, presented, places, watch, ctx);
            }
            Op::Read {
                ref selector,
                presented,
                ref mut watch,
            } => {
                let (selector, watch) = (selector.clone(), watch.take());
                return match watch {
                    Some(watch) => self.watch_document(call, selector, presented, watch, ctx),
                    None => self.read(call, &selector, presented),
                };
            }
            Op::DeleteSelector { presented, .. } if !exists => {
                self.command(Command::Vanished { request }, ctx);
                let token = self.resource().and_then(|r| r.token_of(presented));
                return self.reply(call, Reply::Refused(Refusal::NoSelector(token)));
            }
            _ => {}
        }
        let asked = match self.refused_anyway(&call.op, exists) {
            Some((kind, presented)) => {
                // Gives up the place that the request took while its document was loaded.
                self.command(Command::Vanished { request }, ctx);
                Some((kind, Command::Touch { request, presented }))
            }
            None => self.asked(request, &call.caller, call.op, patience),
        };
        let Some((kind, command)) = asked else {
            return;
        };
        self.open(request, call.reply, call.caller, kind);
        let (terms, now) = (self.server.terms(), self.now);
        let Some(resource) = self.resource() else {
            return;
        };
        let outcome = resource.core.apply(&terms, now, command);
        let answered = outcome.answers.iter().any(|(id, _)| *id == request);
        self.conclude(outcome, ctx);
        if !answered {
            self.park(request, ctx);
        }
    }

    /// For a request that is refused whatever the core answers: the kind of refusal and the presented ticket.
    /// `exists`: whether its document exists.
    fn refused_anyway(&mut self, op: &Op, exists: bool) -> Option<(RequestKind, PresentedTicket)> {
        match op {
            _ if exists => None,
            Op::Acquire {
                selector: Some(_),
                presented,
                ..
            } if !self.server.terms().rules.get_locks_unwritten => {
                Some((RequestKind::GetAbsent(*presented), *presented))
            }
            Op::Write { presented, .. } if self.is_full() => {
                Some((RequestKind::WriteBeyond, *presented))
            }
            _ => None,
        }
    }

    /// Translates a request into what its reply is made from, and a command for the core. `None`: the request
    /// does not involve the lock.
    #[inline(never)]
    pub(super) fn asked(
        &mut self,
        request: RequestId,
        caller: &Caller,
        op: Op,
        patience: Patience,
    ) -> Option<(RequestKind, Command)> {
        let fresh = caller.relayed.unwrap_or_else(|| self.server.fresh_ticket());
        let write = |presented, release| Command::Write {
            request,
            presented,
            fresh,
            release,
            patience,
        };
        Some(match op {
            Op::Acquire {
                selector,
                presented,
                wish,
                ..
            } => {
                let wish = Wish {
                    client: caller.address,
                    relayed: caller.relayed.is_some(),
                    ..wish
                };
                let command = Command::Acquire(LockRequest {
                    request,
                    presented,
                    fresh,
                    wish,
                    patience,
                });
                (
                    selector.map_or(RequestKind::Plain, RequestKind::Get),
                    command,
                )
            }
            Op::Write {
                selector,
                json,
                presented,
                release,
                condition,
                ..
            } => {
                // A write that is refused for its condition changes nothing, the lock neither.
                let holds = self.holds(condition.as_ref(), &selector);
                let kind = RequestKind::Write(selector, json, condition);
                (kind, write(presented, (release || !holds).then_some(holds)))
            }
            Op::DeleteSelector {
                selector,
                presented,
            } => (
                RequestKind::DeleteSelector(selector),
                write(presented, None),
            ),
            Op::Delete { presented } => {
                let (terms, now) = (self.server.terms(), self.now);
                let leases = self
                    .resource()
                    .map(|r| r.core.holders(&terms, now).collect());
                let kind = RequestKind::Delete(leases.unwrap_or_default());
                (kind, Command::Delete { request, presented })
            }
            other => return ticket_command(request, other),
        })
    }

    fn is_full(&mut self) -> bool {
        let max = self.server.settings.selectors_max;
        self.resource()
            .is_some_and(|resource| resource.documents.total() >= max)
    }

    /// How long a request may wait for the lock. `None`: there is no resource.
    pub(super) fn patience(&mut self, op: &Op) -> Option<Patience> {
        let now = self.now.mono;
        let server_wait = self.server.settings.wait_ms;
        let timeout_waits = self.server.terms().rules.timeout_is_wait;
        let timeout = self.resource()?.core.options().timeout;
        let wait = match op {
            Op::Acquire { wait, .. } => *wait,
            Op::Write { .. } => Wait::Default,
            _ => return Some(Patience::Never),
        };
        Some(match wait {
            Wait::NoQueue => Patience::Never,
            Wait::ThenLeave(wait) => Patience::UntilThenLeave(now + wait.as_millis() as u64),
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

    /// Keeps a request until it is answered.
    pub(super) fn open(
        &mut self,
        request: RequestId,
        reply: oneshot::Sender<Box<Reply>>,
        caller: Arc<Caller>,
        kind: RequestKind,
    ) {
        let open = OpenRequest {
            reply,
            kind,
            caller,
            since: self.now.mono,
            permit: None,
        };
        if let Some(live) = self.live() {
            live.open.insert(request, Box::new(open));
        }
    }

    /// Lets an open request wait. Refuses it if too many requests wait already or the server shuts down.
    #[inline(never)]
    pub(super) fn park(&mut self, request: RequestId, ctx: &mut Context<Self>) {
        let permit = match self.server.gate.check() {
            // All waits have been ended, or are about to be: none may begin.
            Err(why @ Closed::Stopping) => Err(Reply::Closed(why)),
            _ => {
                let too_many = Reply::Refused(Refusal::TooManyWaiters);
                self.server.add_waiter().ok_or(too_many)
            }
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
            if let (RequestKind::Get(selector) | RequestKind::Write(selector, ..), Some(resource)) =
                (&open.kind, &mut live.resource)
            {
                resource.documents.pin(selector);
            }
        }
    }

    /// Answers all waiting requests that the server shuts down.
    pub(super) fn end_waits(&mut self, ctx: &mut Context<Self>) {
        let Some(live) = self.live() else {
            return;
        };
        let waiting = live.open.iter().filter(|(_, open)| open.permit.is_some());
        let waiting: Vec<(RequestId, bool)> = waiting
            .map(|(request, open)| (request, open.caller.relayed.is_some()))
            .collect();
        for (request, relayed) in waiting {
            if relayed {
                // Its place stays: the instance that forwarded the request asks the next owner.
                self.deliver(request, Box::new(Reply::Closed(Closed::Stopping)));
            } else {
                self.turn_away(request, Reply::Closed(Closed::Stopping), ctx);
            }
        }
    }

    /// Answers a request that would wait, and withdraws it from the core.
    #[inline(never)]
    fn turn_away(&mut self, request: RequestId, reply: Reply, ctx: &mut Context<Self>) {
        let open = self.live().and_then(|live| live.open.remove(request));
        if let Some(open) = open {
            let _ = open.reply.send(Box::new(reply));
        }
        self.command(Command::Vanished { request }, ctx);
    }

    #[inline(never)]
    pub(super) fn create(
        &mut self,
        call: Box<Call>,
        options: ResourceOptions,
        ctx: &mut Context<Self>,
    ) {
        let now_ordinary = match self.resource() {
            Some(resource) if resource.core.options().ephemeral => {
                let changes = resource.core.set_options(options);
                Some((resource.id.clone(), changes))
            }
            Some(_) => return self.reply(call, Reply::Refused(Refusal::Exists)),
            None => None,
        };
        let snapshot = match now_ordinary {
            Some((id, changes)) => Snapshot {
                options: Some(options),
                ..Snapshot::of(self.name.clone(), id, changes)
            },
            None => self.born(options, ctx),
        };
        let id = snapshot.id.clone();
        self.report_change(AuditKind::Created, &call.caller, None, None);
        self.open(call.request, call.reply, call.caller, RequestKind::Plain);
        let reply = Box::new(Reply::Created { id, options });
        self.store(snapshot, vec![(call.request, reply)], ctx);
        // If the new options have more slots, waiters may be granted now.
        self.command(Command::Tick, ctx);
    }

    /// Answers a request that changes nothing, once the state that it read is durable.
    pub(super) fn reply(&mut self, call: Box<Call>, reply: Reply) {
        let Some(live) = self.live() else {
            return;
        };
        if live.sent == live.committed {
            let _ = call.reply.send(Box::new(reply));
            return;
        }
        self.open(call.request, call.reply, call.caller, RequestKind::Plain);
        self.hold_or_deliver(vec![(call.request, Box::new(reply))]);
    }

    /// Whether the condition of a write is met.
    fn holds(&mut self, condition: Option<&Condition>, selector: &Selector) -> bool {
        let resource = self.resource();
        condition.is_none_or(|condition| {
            condition.holds(resource.and_then(|resource| resource.documents.tag(selector)))
        })
    }

    #[inline(never)]
    pub(super) fn read(
        &mut self,
        call: Box<Call>,
        selector: &Selector,
        presented: PresentedTicket,
    ) {
        let reply = match self.resource() {
            Some(resource) => resource.read(selector, presented),
            None => Reply::Refused(Refusal::NoResource),
        };
        self.reply(call, reply);
    }
}

/// As [`ResourceActor::asked`], for requests that need neither a new ticket nor a document.
fn ticket_command(request: RequestId, op: Op) -> Option<(RequestKind, Command)> {
    Some(match op {
        Op::Renew {
            presented,
            ttl,
            exact,
        } => {
            let command = Command::Renew {
                request,
                presented,
                ttl,
                exact,
            };
            (RequestKind::Plain, command)
        }
        Op::Unlock { presented } => (RequestKind::Plain, Command::Unlock { request, presented }),
        Op::ForceUnlock { token, reason, by } => {
            let forced = Box::new(Forced { reason, by });
            let kind = RequestKind::Force(forced.clone());
            let command = Command::ForceUnlock {
                request,
                token,
                forced,
            };
            (kind, command)
        }
        Op::RemoveWaiter { waiter, reason, by } => {
            let forced = Box::new(Forced { reason, by });
            let kind = RequestKind::Force(forced.clone());
            let command = Command::RemoveWaiter {
                request,
                waiter,
                forced,
            };
            (kind, command)
        }
        Op::Touch { presented } => (RequestKind::Plain, Command::Touch { request, presented }),
        _ => return None,
    })
}

/// The ticket of a request that is told how its ticket ended although the resource is gone. `None`: a request
/// that would be given a new ticket, or has none.
fn lost_matters(op: &Op) -> Option<Ticket> {
    match op {
        Op::Write { presented, .. }
        | Op::DeleteSelector { presented, .. }
        | Op::Delete { presented }
        | Op::Renew { presented, .. }
        | Op::Unlock { presented } => presented.ticket(),
        _ => None,
    }
}
