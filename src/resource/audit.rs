//! What happened to a lock, told to the log, to the metrics and to the board.
//!
//! The core says what happened; who asked for it is found by the answer that tells of it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::lock::command::{Event, HolderView};
use crate::lock::rows::Change;
use crate::lock::{
    Answer, EndReason, FencingToken, Millis, Now, Outcome, RequestId, Selector, Ticket, WallMillis,
};
use crate::resource::actor::{ResourceActor, Stage};
use crate::resource::dormant::HeldLease;
use crate::resource::live::Live;
use crate::resource::open_requests::{OpenRequest, RequestKind};
use crate::resource::status::ResourceStatus;
use crate::shared::audit_log::{AuditEvent, AuditKind, Detail};
use crate::shared::caller::Caller;
use crate::shared::server_state::Shell;

/// What the reports of one resource need besides the lock itself.
#[derive(Default)]
pub struct Account {
    held: Option<HeldLease>,
    /// Since when each stored ticket waits. `None` for most resources, where nobody does.
    waiting: Option<HashMap<Ticket, Millis>>,
}

impl Account {
    /// Of a resource as it was loaded.
    pub fn restored(
        held_since: Option<WallMillis>,
        waiting: impl Iterator<Item = Ticket>,
        now: Millis,
        shell: &Arc<Shell>,
    ) -> Account {
        let mut account = Account {
            held: held_since.map(|since| HeldLease::new(since, shell.clone())),
            waiting: None,
        };
        for ticket in waiting {
            account.queued(ticket, now);
        }
        account
    }

    /// The lease, which is not this account's any more.
    pub fn take_held(&mut self) -> Option<HeldLease> {
        self.held.take()
    }

    /// The lock is held since then, or not at all.
    fn hold(&mut self, since: Option<WallMillis>, shell: &Arc<Shell>) {
        if self.held.as_ref().map(|held| held.since) != since {
            self.held = since.map(|since| HeldLease::new(since, shell.clone()));
        }
    }

    /// True when this ticket was not known to wait.
    fn queued(&mut self, ticket: Ticket, now: Millis) -> bool {
        let waiting = self.waiting.get_or_insert_default();
        let known = waiting.len();
        waiting.entry(ticket).or_insert(now);
        waiting.len() > known
    }

    fn waits_since(&self, ticket: Ticket) -> Option<Millis> {
        self.waiting.as_ref()?.get(&ticket).copied()
    }

    fn left(&mut self, ticket: Ticket) {
        if let Some(waiting) = &mut self.waiting {
            waiting.remove(&ticket);
            if waiting.is_empty() {
                self.waiting = None;
            }
        }
    }
}

/// What a step is reported with.
struct ReportedStep<'a> {
    answers: &'a [(RequestId, Answer)],
    now: Now,
}

impl ReportedStep<'_> {
    /// The open request whose answer is like this, with the answer.
    fn asker<'l>(
        &self,
        live: &'l Live,
        like: impl Fn(&Answer) -> bool,
    ) -> Option<(&'l OpenRequest, &Answer)> {
        let (request, answer) = self.answers.iter().find(|(_, answer)| like(answer))?;
        Some((live.open.get(*request)?, answer))
    }
}

impl ResourceActor {
    /// Reports one step of the core. To be called before its answers leave.
    pub(super) fn report(&mut self, outcome: &Outcome) {
        let Stage::Live(live) = &mut self.stage else {
            return;
        };
        if outcome.events.is_empty() && outcome.changes.is_empty() {
            return;
        }
        let step = ReportedStep {
            answers: &outcome.answers,
            now: self.now,
        };
        let writer = AuditWriter {
            actor_name: &self.name,
            shell: &self.shell,
            now: step.now.mono,
        };
        for change in &outcome.changes {
            if let Change::Waiting(row) = change
                && live.account.queued(row.ticket, step.now.mono)
            {
                writer.queued(live, &step, row.ticket);
            }
        }
        for event in &outcome.events {
            writer.event(live, &step, event);
        }
        let held_since = live.resource.as_ref().and_then(|r| r.core.held_since());
        live.account.hold(held_since, &self.shell);
        for change in &outcome.changes {
            if let Change::NotWaiting(ticket) = change {
                live.account.left(*ticket);
            }
        }
    }

    pub(super) fn report_change(
        &self,
        kind: AuditKind,
        caller: &Caller,
        token: Option<FencingToken>,
        selector: Option<&Selector>,
    ) {
        let writer = AuditWriter {
            actor_name: &self.name,
            shell: &self.shell,
            now: self.now.mono,
        };
        writer.write(AuditEvent {
            kind,
            resource: &self.name,
            owner: None,
            token,
            caller: Some(caller),
            detail: selector.map_or(Detail::Nothing, Detail::Selector),
        });
    }

    /// The resource is gone, and with it whatever lease it had.
    pub(super) fn report_end_by_deletion(&mut self) {
        let now = self.now;
        if let Stage::Live(live) = &mut self.stage {
            let account = std::mem::take(&mut live.account);
            if let Some(held) = &account.held {
                let metrics = &self.shell.metrics.locks;
                metrics.deleted(now.wall.saturating_sub(held.since));
            }
        }
    }

    /// Shows on the board how the resource stands.
    pub(super) fn show(&self) {
        let Stage::Live(live) = &self.stage else {
            return self.status.show_absent();
        };
        match &live.resource {
            None => self.status.show_absent(),
            Some(resource) => self.status.show(ResourceStatus {
                waiting: resource.core.waiting(),
                locked: resource.core.is_locked(),
                held_since: live.account.held.as_ref().map(|held| held.since),
            }),
        }
    }
}

struct AuditWriter<'a> {
    actor_name: &'a crate::lock::ResourceName,
    shell: &'a Arc<Shell>,
    now: Millis,
}

impl AuditWriter<'_> {
    fn write(&self, line: AuditEvent<'_>) {
        self.shell.events.write(self.now, &line);
    }

    fn queued(&self, live: &Live, step: &ReportedStep<'_>, ticket: Ticket) {
        let told =
            |answer: &Answer| matches!(answer, Answer::Queued { ticket: t, .. } if *t == ticket);
        if let Some((open, Answer::Queued { position, .. })) = step.asker(live, told) {
            self.write(AuditEvent {
                kind: AuditKind::Queued,
                resource: self.actor_name,
                owner: None,
                token: None,
                caller: Some(&open.caller),
                detail: Detail::Position(*position),
            });
        }
    }

    fn event(&self, live: &mut Live, step: &ReportedStep<'_>, event: &Event) {
        match event {
            Event::Granted(holder) => self.granted(live, step, holder),
            Event::Ended { reason, holder } => self.ended(live, step, *reason, holder),
            Event::TakenBack(token) => {
                self.shell.metrics.locks.taken_back();
                self.write(AuditEvent {
                    kind: AuditKind::TakenBack,
                    resource: self.actor_name,
                    owner: None,
                    token: Some(*token),
                    caller: None,
                    detail: Detail::Nothing,
                });
            }
            Event::Promoted { .. } | Event::Demoted(_) => {}
            Event::WaiterDropped => {
                self.shell.metrics.locks.waiter_dropped();
                self.write(AuditEvent {
                    kind: AuditKind::WaiterDropped,
                    resource: self.actor_name,
                    owner: None,
                    token: None,
                    caller: None,
                    detail: Detail::Nothing,
                });
            }
        }
    }

    fn granted(&self, live: &mut Live, step: &ReportedStep<'_>, holder: &HolderView) {
        let told = |answer: &Answer| match answer {
            Answer::Granted(grant) => grant.new && grant.holder.token == holder.token,
            Answer::Writable { token } => *token == Some(holder.token),
            _ => false,
        };
        let asker = step.asker(live, told);
        let asked = asker.map(|(open, _)| open.since);
        let queued = asker.and_then(|(_, answer)| match answer {
            Answer::Granted(grant) => live.account.waits_since(grant.ticket),
            _ => None,
        });
        let since = queued.into_iter().chain(asked).min();
        let waited = since.map_or(0, |since| step.now.mono.saturating_sub(since));
        self.shell.metrics.locks.granted(waited);
        self.write(AuditEvent {
            kind: AuditKind::Granted,
            resource: self.actor_name,
            owner: holder.owner.as_ref(),
            token: Some(holder.token),
            caller: asker.map(|(open, _)| &open.caller),
            detail: Detail::Waited(waited),
        });
    }

    fn ended(
        &self,
        live: &mut Live,
        step: &ReportedStep<'_>,
        reason: EndReason,
        holder: &HolderView,
    ) {
        // By the wall clock, which also tells it of a lease that an earlier process granted.
        let held = step.now.wall.saturating_sub(holder.acquired_at);
        self.shell.metrics.locks.ended(reason, held);
        let asked = |answer: &Answer| match (reason, answer) {
            (EndReason::Released, Answer::Unlocked { dead: None }) => true,
            (EndReason::Released, Answer::Writable { token }) => *token == Some(holder.token),
            (EndReason::ForcedOff, Answer::Forced(holders)) => !holders.is_empty(),
            _ => false,
        };
        let asker = step.asker(live, asked).map(|(open, _)| open);
        let why = asker.and_then(|open| match &open.kind {
            RequestKind::Force(why) => Some(why),
            _ => None,
        });
        let (kind, detail) = match reason {
            EndReason::Released => (AuditKind::Released, Detail::Held(held)),
            EndReason::Expired => (AuditKind::Expired, Detail::Held(held)),
            EndReason::ForcedOff => (AuditKind::ForcedOff, Detail::Forced(held, why)),
        };
        self.write(AuditEvent {
            kind,
            resource: self.actor_name,
            owner: holder.owner.as_ref(),
            token: Some(holder.token),
            caller: asker.map(|open| &open.caller),
            detail,
        });
    }
}
