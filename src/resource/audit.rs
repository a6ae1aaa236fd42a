//! Reports what happened to a lock: to the log, the metrics, the history, the event feed and the status.
//!
//! Most events of the core do not name the request that caused them: it is found by its answer.

use std::sync::Arc;

use crate::lock::command::{Event, HolderView};
use crate::lock::rows::Forced;
use crate::lock::{
    Answer, EndReason, FencingToken, Millis, Outcome, RequestId, Selector, WallMillis,
};
use crate::resource::actor::{ResourceActor, Stage};
use crate::resource::live::Live;
use crate::resource::status::ResourceStatus;
use crate::shared::audit_log::{AuditEvent, AuditKind};
use crate::shared::caller::Caller;
use crate::shared::event_feed::FeedEvent;
use crate::store::history::{LeaseEnd, PastLease};

/// The answers of one outcome of the core.
type Answers = [(RequestId, Answer)];

/// Who sent this open request.
fn caller_of(live: &Live, request: RequestId) -> Option<&Caller> {
    live.open.get(&request).map(|open| &*open.caller)
}

/// Who sent the request to which the first answer that is `like` this goes.
fn asker<'l>(
    live: &'l Live,
    answers: &Answers,
    like: impl Fn(&Answer) -> bool,
) -> Option<&'l Caller> {
    let (request, _) = answers.iter().find(|(_, answer)| like(answer))?;
    caller_of(live, *request)
}

impl ResourceActor {
    /// Reports one outcome of the core. To be called before its answers are sent, while their requests are open.
    pub(super) fn report(&mut self, outcome: &Outcome) {
        let Stage::Live(live) = &self.stage else {
            return;
        };
        if outcome.events.is_empty() {
            return;
        }
        let events = outcome.events.iter();
        let happened: Vec<Arc<FeedEvent>> = events
            .filter_map(|event| self.report_event(live, &outcome.answers, event))
            .collect();
        let Some(live) = self.live() else {
            return;
        };
        let held_since = live.resource.as_ref().and_then(|r| r.core.held_since());
        live.held.set(held_since);
        live.happened(happened);
    }

    pub(super) fn report_change(
        &mut self,
        kind: AuditKind,
        caller: &Caller,
        token: Option<FencingToken>,
        selector: Option<&Selector>,
    ) {
        let happened = self.write_line(AuditEvent {
            token,
            caller: Some(caller),
            selector,
            ..AuditEvent::new(kind, &self.name)
        });
        if let Some(live) = self.live() {
            live.happened(happened);
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

    /// A log line about a lease.
    fn line_of<'l>(&'l self, kind: AuditKind, lease: &'l HolderView) -> AuditEvent<'l> {
        AuditEvent {
            owner: lease.owner.as_ref(),
            token: Some(lease.token),
            reason: lease.reason.as_ref(),
            mode: Some(lease.mode),
            ..AuditEvent::new(kind, &self.name)
        }
    }

    /// Writes a line to the log. Returns its event for the feed if anybody reads that.
    fn write_line(&self, line: AuditEvent<'_>) -> Option<Arc<FeedEvent>> {
        self.server.events.write(self.now.mono, &line);
        let is_read = self.server.feed.is_read();
        is_read.then(|| Arc::new(feed_event(&line, self.now.wall)))
    }

    /// Counts a lease that has ended and adds it to the history.
    pub(super) fn add_to_history(
        &self,
        lease: &HolderView,
        end: LeaseEnd,
        forced: Option<&Forced>,
        ephemeral: bool,
    ) {
        self.server.metrics.ended(end, self.held_for(lease));
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
        let now = self.now.mono;
        self.server.history.ended(&self.name, past, ephemeral, now);
    }

    /// How long a lease was held, by the wall clock: an earlier process may have granted it.
    fn held_for(&self, lease: &HolderView) -> Millis {
        self.now.wall.saturating_sub(lease.acquired_at)
    }

    fn report_event(
        &self,
        live: &Live,
        answers: &Answers,
        event: &Event,
    ) -> Option<Arc<FeedEvent>> {
        let metrics = &self.server.metrics;
        match event {
            Event::Granted(holder) => self.report_grant(live, answers, holder, false),
            Event::Promoted { holder, .. } => self.report_grant(live, answers, holder, true),
            Event::Ended {
                reason,
                holder,
                forced,
            } => self.report_end(live, answers, *reason, holder, forced.as_deref()),
            Event::TakenBack(token) => {
                metrics.lock_grants_taken_back_total.inc();
                self.write_line(AuditEvent {
                    token: Some(*token),
                    ..AuditEvent::new(AuditKind::TakenBack, &self.name)
                })
            }
            Event::Demoted(_) => None,
            Event::Queued {
                request,
                row,
                position,
            } => self.write_line(AuditEvent {
                owner: row.owner.as_ref(),
                reason: row.reason.as_ref(),
                mode: Some(row.mode),
                caller: caller_of(live, *request),
                position: Some(*position),
                ..AuditEvent::new(AuditKind::Queued, &self.name)
            }),
            Event::PlaceEnded {
                reason,
                owner,
                mode,
                forced,
            } => {
                let (kind, told) = match reason {
                    EndReason::Released => {
                        let told = Answer::Unlocked { dead: None };
                        (AuditKind::WaiterLeft, Some(told))
                    }
                    EndReason::Expired => {
                        metrics.waiters_dropped_total.inc();
                        (AuditKind::WaiterDropped, None)
                    }
                    EndReason::ForcedOff => {
                        let told = Answer::WaiterRemoved(true);
                        (AuditKind::WaiterRemoved, Some(told))
                    }
                };
                self.write_line(AuditEvent {
                    owner: owner.as_ref(),
                    mode: Some(*mode),
                    caller: told.and_then(|told| asker(live, answers, |answer| *answer == told)),
                    forced: forced.as_ref().map(|forced| &forced.reason),
                    ..AuditEvent::new(kind, &self.name)
                })
            }
        }
    }

    fn report_grant(
        &self,
        live: &Live,
        answers: &Answers,
        holder: &HolderView,
        promoted: bool,
    ) -> Option<Arc<FeedEvent>> {
        let like = |answer: &Answer| match answer {
            Answer::Granted(grant) => grant.new != promoted && grant.holder.token == holder.token,
            Answer::Writable { token } => *token == Some(holder.token),
            _ => false,
        };
        let metrics = &self.server.metrics;
        // A promotion is a grant with a new token, of a lease that goes on: its wait is counted already.
        let waited_ms = (!promoted).then(|| queued(holder));
        match waited_ms {
            Some(waited) => metrics.granted(waited),
            None => metrics.lock_grants_total.mine().inc(),
        }
        self.write_line(AuditEvent {
            caller: asker(live, answers, like),
            waited_ms,
            ..self.line_of(AuditKind::Granted, holder)
        })
    }

    fn report_end(
        &self,
        live: &Live,
        answers: &Answers,
        reason: EndReason,
        holder: &HolderView,
        forced: Option<&Forced>,
    ) -> Option<Arc<FeedEvent>> {
        let held = self.held_for(holder);
        let like = |answer: &Answer| match (reason, answer) {
            (EndReason::Released, Answer::Unlocked { dead: None }) => true,
            (EndReason::Released, Answer::Writable { token }) => *token == Some(holder.token),
            (EndReason::ForcedOff, Answer::Forced(holders)) => !holders.is_empty(),
            _ => false,
        };
        let kind = match reason {
            EndReason::Released => AuditKind::Released,
            EndReason::Expired => AuditKind::Expired,
            EndReason::ForcedOff => AuditKind::ForcedOff,
        };
        let resource = live.resource.as_ref();
        let ephemeral = resource.is_some_and(|r| r.core.options().ephemeral);
        self.add_to_history(holder, reason.into(), forced, ephemeral);
        self.write_line(AuditEvent {
            caller: asker(live, answers, like),
            held_ms: Some(held),
            forced: forced.map(|forced| &forced.reason),
            ..self.line_of(kind, holder)
        })
    }
}

/// How long the ticket of a lease waited for it, by the wall clock: an earlier process may have queued it.
fn queued(lease: &HolderView) -> Millis {
    let queued = lease.queued_at;
    queued.map_or(0, |at| lease.acquired_at.saturating_sub(at))
}

/// The event for the feed that corresponds to a log line.
fn feed_event(line: &AuditEvent<'_>, at: WallMillis) -> FeedEvent {
    let mut event = FeedEvent::new(line.kind, line.resource.clone(), at);
    event.owner = line.owner.map(|owner| owner.as_str().into());
    event.reason = line.forced.or(line.reason).map(|why| why.as_str().into());
    event.mode = line.mode;
    event.fencing_token = line.token.map(|token| token.0);
    event.client = line.caller.and_then(|caller| caller.address);
    event.key = line.caller.and_then(|caller| caller.key.clone());
    event.selector = line.selector.map(|selector| selector.as_str().into());
    event
}
