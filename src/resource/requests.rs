//! Incoming requests: translated into commands for the lock core, and parked if they have to wait.

use std::sync::Arc;

use actix::prelude::*;
use tokio::sync::oneshot;

use crate::lock::command::Role;
use crate::lock::rows::HeadRow;
use crate::lock::{
    Command, EndReason, LockOptions, LockRequest, LockState, PresentedTicket, Refusal, RequestId,
    ResourceOptions, Ticket, WaitPolicy,
};
use crate::resource::actor::ResourceActor;
use crate::resource::documents::Documents;
use crate::resource::live::Resource;
use crate::resource::messages::{Call, Op, Reply, Wait};
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
            return self.reply(call, *reply, ctx);
        }
        let Some(resource) = self.resource() else {
            return self.reply(call, Reply::Refused(Refusal::NoResource, None), ctx);
        };
        let exists = match call.op.needed_document() {
            None => false,
            Some((selector, json)) => match resource.documents.exists(selector, json) {
                Some(exists) => exists,
                None => return self.load_document(call, ctx),
            },
        };
        self.carry_out(call, exists, ctx);
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
            return Err(Box::new(Reply::Refused(lost.refusal(), None)));
        }
        let options = match &call.op {
            Op::Acquire { create: true, .. } => ResourceOptions::ephemeral(),
            Op::Write { create: true, .. } => ResourceOptions::default(),
            _ => return Err(Box::new(Reply::Refused(Refusal::NoResource, None))),
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
        let lost = self.server.lost_tickets.lock().take(&self.name, now);
        if !lost.is_empty() {
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
    pub(super) fn carry_out(&mut self, call: Box<Call>, exists: bool, ctx: &mut Context<Self>) {
        if let Op::Describe { .. } | Op::Read { .. } = call.op {
            return self.read(call, ctx);
        }
        if let Some(refusal) = self.refused_before_grant(&call, ctx) {
            return self.reply(call, Reply::Refused(refusal, None), ctx);
        }
        let Some(policy) = self.wait_policy(&call.op) else {
            return self.reply(call, Reply::Refused(Refusal::NoResource, None), ctx);
        };
        let request = call.request;
        let translated = match self.refused_as_absent(&call.op, exists) {
            Some(presented) => {
                // Gives up the place that the request took while its document was loaded.
                self.command(Command::Vanished { request }, ctx);
                if self.resource().is_none() {
                    // It is ephemeral, and went with its last lease, whose time was over.
                    return self.reply(call, Reply::Refused(Refusal::NoResource, None), ctx);
                }
                let touch = Command::Touch { request, presented };
                Some((RequestKind::Absent, touch))
            }
            None => self.translate(request, &call.caller, call.op, policy),
        };
        let Some((kind, command)) = translated else {
            return;
        };
        let presented = command.presented();
        self.open(request, call.reply, call.caller, presented, kind);
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

    /// Why a write is refused that the core would grant the lock: its condition does not hold, or there is no room.
    /// The core is not asked, so that the lock stays reserved for the ticket.
    #[inline(never)]
    fn refused_before_grant(&mut self, call: &Call, ctx: &mut Context<Self>) -> Option<Refusal> {
        let Op::Write {
            selector,
            condition,
            presented,
            ..
        } = &call.op
        else {
            return None;
        };
        let (request, presented) = (call.request, *presented);
        let ticket = presented.ticket()?;
        if !matches!(self.resource()?.core.role(ticket), Some(Role::Waiting(_))) {
            return None;
        }
        // As in a write, the ticket is near from now on. This may reserve the lock for it, or let others write.
        self.command(Command::Touch { request, presented }, ctx);
        let max = self.server.settings.selectors_max;
        let resource = self.resource()?;
        if !resource.core.would_grant_write(ticket) {
            return None;
        }
        let documents = &resource.documents;
        let refusal = documents.refusal(selector, condition.as_ref(), max)?;
        // The place is no longer open for this request, as it was while the document was loaded.
        self.command(Command::Vanished { request }, ctx);
        Some(refusal)
    }

    /// The ticket of a GET with lock intent or a deletion that is refused because its document does not exist.
    fn refused_as_absent(&self, op: &Op, exists: bool) -> Option<PresentedTicket> {
        let get_is_refused = !self.server.profile().get_locks_unwritten();
        match op {
            _ if exists => None,
            Op::Acquire {
                selector: Some(_),
                presented,
                ..
            } if get_is_refused => Some(*presented),
            Op::DeleteSelector { presented, .. } => Some(*presented),
            _ => None,
        }
    }

    /// Translates a request into what its reply is made from, and a command for the core. `None`: the request
    /// does not involve the lock.
    #[inline(never)]
    pub(super) fn translate(
        &mut self,
        request: RequestId,
        caller: &Caller,
        op: Op,
        policy: WaitPolicy,
    ) -> Option<(RequestKind, Command)> {
        let fresh = caller.relayed.unwrap_or_else(|| self.server.fresh_ticket());
        let write = |presented| Command::Write {
            request,
            presented,
            fresh,
            policy,
        };
        let write_releases = self.server.profile().write_releases();
        Some(match op {
            Op::Acquire {
                selector,
                presented,
                options,
                ..
            } => {
                let options = LockOptions {
                    client: caller.address,
                    relayed: caller.relayed.is_some(),
                    ..options
                };
                let command = Command::Acquire(LockRequest {
                    request,
                    presented,
                    fresh,
                    options,
                    policy,
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
                let release = release || write_releases;
                let kind = RequestKind::Write(selector, json, condition, release);
                (kind, write(presented))
            }
            Op::DeleteSelector {
                selector,
                presented,
            } => (
                RequestKind::DeleteSelector(selector, write_releases),
                write(presented),
            ),
            Op::Delete { presented } => {
                let (terms, now) = (self.server.terms(), self.now);
                let leases = self
                    .resource()
                    .map(|r| r.core.holders(&terms, now).collect());
                let kind = RequestKind::Delete(leases.unwrap_or_default());
                (kind, Command::Delete { request, presented })
            }
            other => (RequestKind::Plain, ticket_command(request, other)?),
        })
    }

    /// How long a request may wait for the lock. `None`: there is no resource.
    pub(super) fn wait_policy(&mut self, op: &Op) -> Option<WaitPolicy> {
        let now = self.now.mono;
        let server_wait = self.server.settings.wait_ms;
        let timeout_waits = self.server.profile().timeout_is_wait();
        let timeout = self.resource()?.core.options().timeout;
        let wait = match op {
            Op::Acquire { wait, .. } => *wait,
            Op::Write { .. } => Wait::Default,
            _ => return Some(WaitPolicy::Never),
        };
        Some(match wait {
            Wait::NoQueue => WaitPolicy::Never,
            Wait::ThenLeave(wait) => WaitPolicy::UntilThenLeave(now + wait.as_millis() as u64),
            Wait::For(wait) if wait.is_zero() => WaitPolicy::Poll,
            Wait::For(wait) => WaitPolicy::Until(now + wait.as_millis() as u64),
            Wait::Default if timeout_waits => match timeout.limit_ms() {
                Some(limit) => WaitPolicy::Until(now + limit),
                None => WaitPolicy::Forever,
            },
            Wait::Default if server_wait == 0 => WaitPolicy::Poll,
            Wait::Default => WaitPolicy::Until(now + server_wait),
        })
    }

    /// Keeps a request until it is answered.
    pub(super) fn open(
        &mut self,
        request: RequestId,
        reply: oneshot::Sender<Box<Reply>>,
        caller: Arc<Caller>,
        presented: PresentedTicket,
        kind: RequestKind,
    ) {
        let open = OpenRequest {
            reply,
            kind,
            caller,
            presented,
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
                let too_many = Reply::Refused(Refusal::TooManyWaiters, None);
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
        if let Some(open) = live.open.get_mut(&request) {
            open.permit = Some(permit);
            if let (Some(selector), Some(resource)) = (open.kind.document(), &mut live.resource) {
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
            .map(|(request, open)| (*request, open.caller.relayed.is_some()))
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
        let open = self.live().and_then(|live| live.open.remove(&request));
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
            Some(_) => return self.reply(call, Reply::Refused(Refusal::Exists, None), ctx),
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
        let (presented, kind) = (PresentedTicket::Absent, RequestKind::Plain);
        self.open(call.request, call.reply, call.caller, presented, kind);
        let reply = Box::new(Reply::Created { id, options });
        self.store_and_reply(Some(snapshot), vec![(call.request, reply)], ctx);
        // If the new options have more slots, waiters may be granted now.
        self.command(Command::Tick, ctx);
    }

    /// Answers a request that changes nothing, once the state that it read is durable.
    pub(super) fn reply(&mut self, call: Box<Call>, reply: Reply, ctx: &Context<Self>) {
        let Some(live) = self.live() else {
            return;
        };
        if live.sent == live.committed {
            let _ = call.reply.send(Box::new(reply));
            return;
        }
        let (presented, kind) = (PresentedTicket::Absent, RequestKind::Plain);
        self.open(call.request, call.reply, call.caller, presented, kind);
        self.store_and_reply(None, vec![(call.request, Box::new(reply))], ctx);
    }
}

/// The command of a request that needs neither a new ticket nor a document. `None`: as in
/// [`ResourceActor::translate`].
fn ticket_command(request: RequestId, op: Op) -> Option<Command> {
    Some(match op {
        Op::Renew {
            presented,
            ttl,
            exact,
        } => Command::Renew {
            request,
            presented,
            ttl,
            exact,
        },
        Op::Unlock { presented } => Command::Unlock { request, presented },
        Op::ForceUnlock { token, forced } => Command::ForceUnlock {
            request,
            token,
            forced,
        },
        Op::RemoveWaiter { waiter, forced } => Command::RemoveWaiter {
            request,
            waiter,
            forced,
        },
        Op::Touch { presented } => Command::Touch { request, presented },
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
