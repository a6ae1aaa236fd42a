//! Carries out the core's outcomes: sends rows to the store, and replies once those rows are durable.

use actix::prelude::*;
use bytes::Bytes;

use crate::lock::command::HolderView;
use crate::lock::{
    Answer, Command, FencingToken, Outcome, PresentedTicket, Refusal, RequestId, Selector,
};
use crate::resource::actor::{ResourceActor, Stage};
use crate::resource::live::Live;
use crate::resource::messages::{Condition, Reply};
use crate::resource::open_requests::RequestKind;
use crate::shared::audit_log::AuditKind;
use crate::shared::caller::Caller;
use crate::store::Snapshot;
use crate::store::history::LeaseEnd;

// For `#[inline(never)]` see "What a request weighs" in docs/architecture.md.
impl ResourceActor {
    /// Applies a command that is not a client's request and has no reply of its own.
    pub(super) fn command(&mut self, command: Command, ctx: &mut Context<Self>) {
        let (terms, now) = (self.server.terms(), self.now);
        if let Some(resource) = self.resource() {
            let outcome = resource.core.apply(&terms, now, command);
            self.conclude(outcome, ctx);
        }
    }

    /// Turns the core's outcome into rows and replies.
    pub(super) fn conclude(&mut self, outcome: Outcome, ctx: &mut Context<Self>) {
        let unborn = self.live().and_then(|live| live.unborn.take());
        let is_new = unborn.is_some();
        if outcome.is_empty() && !is_new && !self.is_deserted(false) {
            // Nothing to store or to answer. But a reservation may have ended, which the status shows.
            return self.show();
        }
        self.report(&outcome);
        let name = self.name.clone();
        let Some(id) = self.resource().map(|resource| resource.id.clone()) else {
            return;
        };
        let mut snapshot = match unborn {
            Some(mut created) => {
                created.lock.merge(&outcome.changes);
                *created
            }
            None => Snapshot::of(name, id, outcome.changes),
        };
        let mut replies = Vec::with_capacity(outcome.answers.len());
        let (mut answers, mut releases) = (outcome.answers, Vec::new());
        loop {
            for (request, answer) in answers {
                let reply = self.reply_to(request, answer, &mut snapshot, &mut releases);
                replies.extend(reply.map(|reply| (request, Box::new(reply))));
            }
            let Some((request, presented)) = releases.pop() else {
                break;
            };
            answers = self.release_written(request, presented, &mut snapshot);
        }
        if self.is_deserted(is_new) {
            self.leave_no_rows(&mut snapshot);
        }
        let orphans = self.take_orphans(&snapshot);
        let gone = || Box::new(Reply::Refused(Refusal::NoSelector, None));
        replies.extend(orphans.iter().map(|request| (*request, gone())));
        self.store_and_reply(Some(snapshot), replies, ctx);
        for request in orphans {
            self.command(Command::Vanished { request }, ctx);
        }
    }

    /// Releases the lease of a write or deletion that is done, in the same commit. It is a step of its own: a refused
    /// write changes nothing, the lock neither, and others learn of the write before they learn of the next holder.
    /// Returns the answers to other requests.
    #[inline(never)]
    fn release_written(
        &mut self,
        request: RequestId,
        presented: PresentedTicket,
        snapshot: &mut Snapshot,
    ) -> Vec<(RequestId, Answer)> {
        let (terms, now) = (self.server.terms(), self.now);
        let Some(resource) = self.resource() else {
            return Vec::new();
        };
        let unlock = Command::Unlock { request, presented };
        let mut outcome = resource.core.apply(&terms, now, unlock);
        self.report(&outcome);
        snapshot.lock.merge(&outcome.changes);
        // This request has the reply to its write.
        outcome.answers.retain(|(other, _)| *other != request);
        outcome.answers
    }

    /// Whether the resource has to go: it is ephemeral, or was created for a request that was refused
    /// (`is_new`), and it has no holder, reservation, waiter or document.
    fn is_deserted(&mut self, is_new: bool) -> bool {
        self.resource().is_some_and(|resource| {
            (is_new || resource.core.options().ephemeral)
                && resource.core.is_idle()
                && resource.documents.total() == 0
        })
    }

    /// Removes a deserted resource, in the commit of the change that left it deserted.
    #[inline(never)]
    fn leave_no_rows(&mut self, snapshot: &mut Snapshot) {
        let now = self.now.mono;
        let (name, server) = (self.name.clone(), self.server.clone());
        let Some(live) = self.live() else {
            return;
        };
        let Some(resource) = live.take_resource() else {
            return;
        };
        let token = resource.core.token();
        server.raise_token_floor(token);
        server
            .lost_tickets
            .lock()
            .add(&name, resource.core.lost_tickets(now), now);
        match snapshot.created {
            // The resource was never stored.
            Some(_) => *snapshot = Snapshot::empty(name, resource.id),
            None => snapshot.remove(token),
        }
    }

    /// Ends the waits of the requests for a document that `snapshot` deletes, and returns them: they are refused in
    /// this step. In a profile where GET locks unwritten documents they go on waiting.
    #[inline(never)]
    fn take_orphans(&mut self, snapshot: &Snapshot) -> Vec<RequestId> {
        let deletes = snapshot.data.values().any(Option::is_none);
        let ends_waits = deletes && !self.server.profile().get_locks_unwritten();
        let Some(live) = self.live().filter(|_| ends_waits) else {
            return Vec::new();
        };
        let mut orphans = Vec::new();
        for (request, open) in &mut live.open {
            let open = &mut **open;
            if let RequestKind::Get(selector) = &open.kind
                && matches!(snapshot.data.get(selector), Some(None))
                && open.permit.take().is_some()
            {
                if let Some(resource) = &mut live.resource {
                    resource.documents.unpin(selector, live.committed);
                }
                open.kind = RequestKind::Absent;
                orphans.push(*request);
            }
        }
        orphans
    }

    /// Makes the reply to one request. Adds the document changes that the core's answer allows to `snapshot`, and the
    /// request to `releases` if its change is made and its lease has to be released.
    #[inline(never)]
    pub(super) fn reply_to(
        &mut self,
        request: RequestId,
        answer: Answer,
        snapshot: &mut Snapshot,
        releases: &mut Vec<(RequestId, PresentedTicket)>,
    ) -> Option<Reply> {
        let live = self.live()?;
        let open = live.open.get_mut(&request)?;
        let presented = open.presented;
        let kind = std::mem::replace(&mut open.kind, RequestKind::Plain);
        let release = kind.releases().then_some((request, presented));
        let waited = open.permit.take().is_some();
        let pinned = kind.document().filter(|_| waited).cloned();
        let commit = live.sent + 1;
        let resource = live.resource.as_mut()?;
        let reply = match (kind, answer) {
            (RequestKind::Write(selector, json, condition, _), Answer::Writable { token }) => {
                let caller = open.caller.clone();
                let write = (selector, json, condition);
                self.write_document(write, &caller, token, snapshot)?
            }
            (RequestKind::DeleteSelector(selector, _), Answer::Writable { token }) => {
                let caller = open.caller.clone();
                resource.documents.delete(&selector, commit);
                snapshot.document(selector.clone(), None);
                self.report_change(AuditKind::SelectorDeleted, &caller, token, Some(&selector));
                Reply::Deleted { token }
            }
            (RequestKind::Delete(leases), Answer::Deletable) => {
                let caller = open.caller.clone();
                self.delete(&leases, &caller, snapshot)
            }
            (RequestKind::Absent, _) => {
                Reply::Refused(Refusal::NoSelector, resource.token_of(presented))
            }
            (_, Answer::Refused(refusal)) => Reply::Refused(refusal, resource.token_of(presented)),
            (RequestKind::Get(selector), answer @ Answer::Granted(_)) => Reply::Locked {
                answer,
                document: resource.documents.get(&selector, &resource.id),
            },
            (RequestKind::Get(_), answer @ Answer::Queued { .. }) => Reply::Locked {
                answer,
                document: None,
            },
            (_, answer) => Reply::Lock(answer),
        };
        if let Reply::Written { token: Some(_), .. } | Reply::Deleted { token: Some(_) } = reply {
            releases.extend(release);
        }
        // Last, because the document may leave memory with this.
        if let (Some(selector), Some(live)) = (pinned, self.live()) {
            live.unpin(&selector);
        }
        Some(reply)
    }

    /// Writes a document if its condition is met and there is room for it. `None`: there is no resource.
    #[inline(never)]
    fn write_document(
        &mut self,
        (selector, json, condition): (Selector, Bytes, Option<Condition>),
        caller: &Caller,
        token: Option<FencingToken>,
        snapshot: &mut Snapshot,
    ) -> Option<Reply> {
        let selectors_max = self.server.settings.selectors_max;
        let live = self.live()?;
        let commit = live.sent + 1;
        let documents = &mut live.resource.as_mut()?.documents;
        let refusal = documents.refusal(&selector, condition.as_ref(), selectors_max);
        if let Some(refusal) = refusal {
            return Some(Reply::Refused(refusal, token));
        }
        let (row, tag) = documents.write(&selector, json, commit);
        snapshot.document(selector.clone(), Some(row));
        if snapshot.created.is_some() {
            self.report_change(AuditKind::Created, caller, None, None);
        }
        self.report_change(AuditKind::Written, caller, token, Some(&selector));
        Some(Reply::Written { token, tag })
    }

    /// Deletes the resource, and reports the end of `leases`.
    #[inline(never)]
    fn delete(&mut self, leases: &[HolderView], caller: &Caller, snapshot: &mut Snapshot) -> Reply {
        if let Some(resource) = self.live().and_then(Live::take_resource) {
            let token = resource.core.token();
            snapshot.remove(token);
            self.server.raise_token_floor(token);
            let ephemeral = resource.core.options().ephemeral;
            for lease in leases {
                self.add_to_history(lease, LeaseEnd::Deleted, None, ephemeral);
            }
            self.report_change(AuditKind::Deleted, caller, Some(token), None);
        }
        Reply::Deleted { token: None }
    }

    /// Sends rows to the store, if there are any, and delivers replies once all that was sent is durable.
    #[inline(never)]
    pub(super) fn store_and_reply(
        &mut self,
        mut snapshot: Option<Snapshot>,
        replies: Vec<(RequestId, Box<Reply>)>,
        ctx: &Context<Self>,
    ) {
        let changed = snapshot.as_mut().filter(|snapshot| !snapshot.is_empty());
        let changes = changed.is_some();
        let inline = changed.is_some_and(|snapshot| self.server.store.commit_inline(snapshot));
        self.show();
        let Some(live) = self.live() else {
            return;
        };
        live.sent += u64::from(changes);
        let seq = live.sent;
        if inline {
            live.committed = seq;
            if let Some(resource) = &mut live.resource {
                resource.documents.give_back(seq);
            }
            self.server.metrics.commits_inline_total.mine().inc();
        }
        self.publish();
        let Some(live) = self.live() else {
            return;
        };
        if live.committed < seq {
            let waiting = replies.into_iter().map(|(id, reply)| (seq, id, reply));
            live.held_back.extend(waiting);
        } else {
            for (request, reply) in replies {
                self.deliver(request, reply);
            }
        }
        if changes
            && !inline
            && let Some(snapshot) = snapshot
        {
            let actor = ctx.address().recipient();
            let incarnation = self.incarnation;
            if let Err(closed) = self.persistence.commit(actor, seq, incarnation, snapshot) {
                self.retire(&Reply::Closed(closed));
            }
        }
    }

    /// Publishes the events whose commits are durable.
    pub(super) fn publish(&mut self) {
        let Stage::Live(live) = &mut self.stage else {
            return;
        };
        let (sent, committed) = (live.sent, live.committed);
        let is_durable = |commit: u64| commit.min(sent) <= committed;
        while live
            .unpublished
            .front()
            .is_some_and(|(commit, _)| is_durable(*commit))
            && let Some((_, event)) = live.unpublished.pop_front()
        {
            self.server.feed.publish(event);
        }
    }

    /// Sends a reply to its client, and tells the core that it was sent.
    pub(super) fn deliver(&mut self, request: RequestId, reply: Box<Reply>) {
        let tracked = match &*reply {
            Reply::Lock(answer) | Reply::Locked { answer, .. } => answer.is_tracked(),
            Reply::Written { .. }
            | Reply::Deleted { .. }
            | Reply::Refused(Refusal::ConditionFailed | Refusal::TooManySelectors(_), _) => true,
            // The reply to a forwarded request whose wait was ended: its place stays for the next owner.
            Reply::Closed(_) => true,
            _ => false,
        };
        let Some(open) = self.live().and_then(|live| live.open.remove(&request)) else {
            return;
        };
        // If the client is gone, `Vanished` is already on its way.
        if open.reply.send(reply).is_ok() && tracked {
            let (terms, now) = (self.server.terms(), self.now);
            if let Some(resource) = self.resource() {
                resource.core.delivered(&terms, now, request);
            }
        }
    }
}
