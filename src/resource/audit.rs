//! Reports what happened to a lock: to the log, the metrics, the history, the event feed and the status.
//!
//! An event of the core does not name the request that caused it. That request is found by the answer in the same
//! outcome.

use std::sync::Arc;

use crate::lock::command::{Event, HolderView};
use crate::lock::rows::Forced;
use crate::lock::{
    Answer, EndReason, FencingToken, Millis, Mode, Now, Outcome, Owner, RequestId, ResourceName,
    Selector, WallMillis,
};
use crate::resource::actor::{ResourceActor, Stage};
use crate::resource::live::Live;
use crate::resource::open_requests::{OpenRequest, RequestKind};
use crate::resource::status::ResourceStatus;
use crate::shared::audit_log::{AuditEvent, AuditKind, Detail};
use crate::shared::caller::Caller;
use crate::shared::event_feed::{EventKind, FeedEvent};
use crate::shared::server_state::ServerState;
use crate::store::history::{LeaseEnd, PastLease};

/// The answers of one outcome of the core.
type Answers = [(RequestId, Answer)];

/// The open request that the first answer which is `like` this goes to.
fn asker<'l>(
    live: &'l Live,
    answers: &Answers,
    like: impl Fn(&Answer) -> bool,
) -> Option<&'l OpenRequest> {
    let (request, _) = answers.iter().find(|(_, answer)| like(answer))?;
    live.open.get(request).map(Box::as_ref)
}

impl ResourceActor {
    /// Reports one outcome of the core. To be called before its answers are sent, while their requests are open.
    pub(super) fn report(&mut self, outcome: &Outcome) {
        let Stage::Live(live) = &mut self.stage else {
            return;
        };
        if outcome.events.is_empty() {
            return;
        }
        let mut writer = AuditWriter::new(&self.name, &self.server, self.now);
        for event in &outcome.events {
            writer.event(live, &outcome.answers, event);
        }
        let held_since = live.resource.as_ref().and_then(|r| r.core.held_since());
        live.held.set(held_since);
        live.happened(writer.happened);
    }

    pub(super) fn report_change(
        &mut self,
        kind: AuditKind,
        caller: &Caller,
        token: Option<FencingToken>,
        selector: Option<&Selector>,
    ) {
        let mut writer = AuditWriter::new(&self.name, &self.server, self.now);
        writer.write(AuditEvent {
            token,
            caller: Some(caller),
            detail: selector.map_or(Detail::Nothing, Detail::Selector),
            ..writer.line(kind)
        });
        if let Stage::Live(live) = &mut self.stage {
            live.happened(writer.happened);
        }
    }

    /// Reports that these leases ended because their resource was deleted.
    pub(super) fn report_end_by_deletion(&self, leases: &[HolderView], ephemeral: bool) {
        let writer = AuditWriter::new(&self.name, &self.server, self.now);
        for lease in leases {
            writer.end(lease, LeaseEnd::Deleted, None, ephemeral);
        }
    }

    /// Writes the status of the resource for listings.
    pub(super) fn show(&self) {
        let live = match &self.stage {
            Stage::Live(live) => Some(live),
            Stage::Loading { .. } | Stage::Retired => None,
        };
        let status = live.and_then(|live| {
            let core = &live.resource.as_ref()?.core;
            Some(ResourceStatus {
                waiting: core.waiting(),
                waits_since: core.waits_since(),
                locked: core.is_locked(),
                held_since: live.held.get(),
            })
        });
        *self.status.lock() = status;
    }
}

/// Writes the events of one resource to the log and the history, and collects them for the event feed.
struct AuditWriter<'a> {
    name: &'a ResourceName,
    server: &'a Arc<ServerState>,
    now: Now,
    /// Events for the feed, to be published once they are durable.
    happened: Vec<Arc<FeedEvent>>,
}

impl<'a> AuditWriter<'a> {
    fn new(name: &'a ResourceName, server: &'a Arc<ServerState>, now: Now) -> AuditWriter<'a> {
        AuditWriter {
            name,
            server,
            now,
            happened: Vec::new(),
        }
    }

    /// A log line without details.
    fn line<'l>(&self, kind: AuditKind) -> AuditEvent<'l>
    where
        'a: 'l,
    {
        AuditEvent {
            kind,
            resource: self.name,
            owner: None,
            token: None,
            reason: None,
            mode: None,
            caller: None,
            detail: Detail::Nothing,
        }
    }

    /// A log line about a lease.
    fn line_of<'l>(&self, kind: AuditKind, lease: &'l HolderView) -> AuditEvent<'l>
    where
        'a: 'l,
    {
        AuditEvent {
            owner: lease.owner.as_ref(),
            token: Some(lease.token),
            reason: lease.reason.as_ref(),
            mode: Some(lease.mode),
            ..self.line(kind)
        }
    }

    /// A log line about a place in the queue.
    fn line_of_place<'l>(
        &self,
        kind: AuditKind,
        owner: Option<&'l Owner>,
        mode: Mode,
        asker: Option<&'l OpenRequest>,
    ) -> AuditEvent<'l>
    where
        'a: 'l,
    {
        AuditEvent {
            owner,
            mode: Some(mode),
            caller: asker.map(|open| &*open.caller),
            ..self.line(kind)
        }
    }

    fn write(&mut self, line: AuditEvent<'_>) {
        self.server.events.write(self.now.mono, &line);
        if self.server.feed.is_read() {
            let event = feed_event(&line, self.now.wall);
            self.happened.push(Arc::new(event));
        }
    }

    /// Counts a lease that has ended and adds it to the history.
    fn end(&self, lease: &HolderView, end: LeaseEnd, forced: Option<&Forced>, ephemeral: bool) {
        self.server.metrics.locks.ended(end, self.held(lease));
        let past = PastLease {
            owner: lease.owner.clone(),
            reason: lease.reason.clone(),
            mode: lease.mode,
            fencing_token: lease.token.0,
            acquired_at: lease.acquired_at,
            ended_at: self.now.wall,
            end,
            forced: forced.cloned().map(Box::new),
            queued_ms: queued(lease),
        };
        self.server
            .history
            .ended(self.name, past, ephemeral, self.now.mono);
    }

    /// How long a lease was held, by the wall clock: an earlier process may have granted it.
    fn held(&self, lease: &HolderView) -> Millis {
        self.now.wall.saturating_sub(lease.acquired_at)
    }

    fn event(&mut self, live: &Live, answers: &Answers, event: &Event) {
        match event {
            Event::Granted(holder) => self.granted(live, answers, holder),
            Event::Ended { reason, holder } => self.ended(live, answers, *reason, holder),
            Event::TakenBack(token) => {
                self.server.metrics.locks.taken_back.inc();
                self.write(AuditEvent {
                    token: Some(*token),
                    ..self.line(AuditKind::TakenBack)
                });
            }
            Event::Promoted { holder, .. } => {
                let like = |answer: &Answer| matches!(answer, Answer::Granted(grant) if grant.holder.token == holder.token);
                let asker = asker(live, answers, like);
                // A grant with a new token, of a lease that goes on.
                self.server.metrics.locks.promoted();
                self.write(AuditEvent {
                    caller: asker.map(|open| &*open.caller),
                    ..self.line_of(AuditKind::Granted, holder)
                });
            }
            Event::Demoted(_) => {}
            Event::Queued {
                request,
                row,
                position,
            } => self.write(AuditEvent {
                reason: row.reason.as_ref(),
                detail: Detail::Position(*position),
                ..self.line_of_place(
                    AuditKind::Queued,
                    row.owner.as_ref(),
                    row.mode,
                    live.open.get(request).map(Box::as_ref),
                )
            }),
            Event::WaiterLeft { owner, mode } => {
                let like = |answer: &Answer| matches!(answer, Answer::Unlocked { dead: None });
                let asker = asker(live, answers, like);
                self.write(self.line_of_place(AuditKind::WaiterLeft, owner.as_ref(), *mode, asker));
            }
            Event::WaiterDropped { owner, mode } => {
                self.server.metrics.locks.waiters_dropped.inc();
                self.write(self.line_of_place(
                    AuditKind::WaiterDropped,
                    owner.as_ref(),
                    *mode,
                    None,
                ));
            }
            Event::WaiterRemoved { owner, mode } => {
                let like = |answer: &Answer| matches!(answer, Answer::WaiterRemoved(true));
                let asker = asker(live, answers, like);
                let why = asker.and_then(why);
                self.write(AuditEvent {
                    detail: why.map_or(Detail::Nothing, |why| Detail::Why(&why.reason)),
                    ..self.line_of_place(AuditKind::WaiterRemoved, owner.as_ref(), *mode, asker)
                });
            }
        }
    }

    fn granted(&mut self, live: &Live, answers: &Answers, holder: &HolderView) {
        let like = |answer: &Answer| match answer {
            Answer::Granted(grant) => grant.new && grant.holder.token == holder.token,
            Answer::Writable { token } => *token == Some(holder.token),
            _ => false,
        };
        let waited = queued(holder);
        self.server.metrics.locks.granted(waited);
        self.write(AuditEvent {
            caller: asker(live, answers, like).map(|open| &*open.caller),
            detail: Detail::Waited(waited),
            ..self.line_of(AuditKind::Granted, holder)
        });
    }

    fn ended(&mut self, live: &Live, answers: &Answers, reason: EndReason, holder: &HolderView) {
        let held = self.held(holder);
        let like = |answer: &Answer| match (reason, answer) {
            (EndReason::Released, Answer::Unlocked { dead: None }) => true,
            (EndReason::Released, Answer::Writable { token }) => *token == Some(holder.token),
            (EndReason::ForcedOff, Answer::Forced(holders)) => !holders.is_empty(),
            _ => false,
        };
        let asker = asker(live, answers, like);
        let why = asker.and_then(why);
        let (kind, detail, end) = match reason {
            EndReason::Released => (AuditKind::Released, Detail::Held(held), LeaseEnd::Released),
            EndReason::Expired => (AuditKind::Expired, Detail::Held(held), LeaseEnd::Expired),
            EndReason::ForcedOff => (
                AuditKind::ForcedOff,
                Detail::Forced(held, why.map(|why| &why.reason)),
                LeaseEnd::ForcedOff,
            ),
        };
        self.write(AuditEvent {
            caller: asker.map(|open| &*open.caller),
            detail,
            ..self.line_of(kind, holder)
        });
        let ephemeral = live
            .resource
            .as_ref()
            .is_some_and(|r| r.core.options().ephemeral);
        self.end(holder, end, why, ephemeral);
    }
}

/// How long the ticket of a lease waited for it, by the wall clock: an earlier process may have queued it.
fn queued(lease: &HolderView) -> Millis {
    let queued = lease.queued_at;
    queued.map_or(0, |at| lease.acquired_at.saturating_sub(at))
}

/// The reason and the caller of a request that ends a lease or a place by force.
fn why(open: &OpenRequest) -> Option<&Forced> {
    match &open.kind {
        RequestKind::Force(why) => Some(why),
        _ => None,
    }
}

/// The event for the feed that corresponds to a log line.
fn feed_event(line: &AuditEvent<'_>, at: WallMillis) -> FeedEvent {
    let kind = match line.kind {
        AuditKind::Created => EventKind::Created,
        AuditKind::Deleted | AuditKind::SelectorDeleted => EventKind::Deleted,
        AuditKind::Queued => EventKind::Queued,
        AuditKind::Granted => EventKind::Granted,
        // Taken back: the client was gone before it was told of the grant.
        AuditKind::Released | AuditKind::TakenBack => EventKind::Released,
        AuditKind::Expired => EventKind::Expired,
        AuditKind::ForcedOff => EventKind::ForcedOff,
        AuditKind::WaiterDropped | AuditKind::WaiterLeft | AuditKind::WaiterRemoved => {
            EventKind::Left
        }
        AuditKind::Written => EventKind::Written,
    };
    let mut event = FeedEvent::new(kind, line.resource.clone(), at);
    event.owner = line.owner.map(|owner| owner.as_str().into());
    event.reason = line.reason.map(|reason| reason.as_str().into());
    event.mode = line.mode;
    event.fencing_token = line.token.map(|token| token.0);
    event.client = line.caller.and_then(|caller| caller.address);
    event.key = line.caller.and_then(|caller| caller.key.clone());
    match line.detail {
        Detail::Selector(selector) => event.selector = Some(selector.as_str().into()),
        Detail::Forced(_, Some(why)) | Detail::Why(why) => event.reason = Some(why.as_str().into()),
        _ => {}
    }
    event
}
