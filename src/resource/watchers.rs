//! Reads of a description or document. A conditional one may wait until that differs from the client's version.

use actix::prelude::*;

use crate::lock::{Command, Millis, Now, PresentedTicket, Refusal, ResourceName, Terms};
use crate::resource::actor::{ResourceActor, Stage};
use crate::resource::live::Resource;
use crate::resource::messages::{Call, Op, Reply, Watch};
use crate::resource::open_requests::RequestKind;

// For `#[inline(never)]` see "What a request weighs" in docs/architecture.md.
impl ResourceActor {
    /// Answers [`Op::Describe`] or [`Op::Read`], or lets it wait for another version than the client's.
    #[inline(never)]
    pub(super) fn read(&mut self, call: Box<Call>, ctx: &mut Context<Self>) {
        if let Op::Describe { .. } = call.op {
            self.command(Command::Tick, ctx);
        }
        let Stage::Live(live) = &self.stage else {
            return;
        };
        let wait = call.op.wait().unwrap_or_default();
        let until = self.now.mono + wait.as_millis() as u64;
        let (terms, now) = (self.server.terms(), self.now);
        let resource = live.resource.as_ref();
        if let Some(reply) = watched(&call.op, until, resource, &self.name, (&terms, now)) {
            return self.reply(call, reply, ctx);
        }
        let request = call.request;
        let kind = RequestKind::Watch(Box::new(call.op), until);
        let presented = PresentedTicket::Absent;
        self.open(request, call.reply, call.caller, presented, kind);
        if let Some(live) = self.live() {
            live.watchers.push(request);
        }
        self.park(request, ctx);
    }

    /// Answers the reads that need not wait any more.
    pub(super) fn answer_watchers(&mut self, ctx: &Context<Self>) {
        if self.live().is_none_or(|live| live.watchers.is_empty()) {
            return;
        }
        let (now, terms, name) = (self.now, self.server.terms(), self.name.clone());
        let Some(live) = self.live() else {
            return;
        };
        let mut replies = Vec::new();
        for request in std::mem::take(&mut live.watchers) {
            let Some(open) = live.open.get_mut(&request) else {
                continue;
            };
            let RequestKind::Watch(op, until) = &open.kind else {
                continue;
            };
            let resource = live.resource.as_ref();
            match watched(op, *until, resource, &name, (&terms, now)) {
                Some(reply) => {
                    open.permit = None;
                    replies.push((request, Box::new(reply)));
                }
                None => live.watchers.push(request),
            }
        }
        self.store_and_reply(None, replies, ctx);
    }
}

/// The reply to a read, which waits until `until` at the latest. `None`: it waits.
fn watched(
    op: &Op,
    until: Millis,
    resource: Option<&Resource>,
    name: &ResourceName,
    (terms, now): (&Terms, Now),
) -> Option<Reply> {
    let Some(resource) = resource else {
        return Some(Reply::Refused(Refusal::NoResource, None));
    };
    let unchanged = |tag, presented| {
        let token = resource.token_of(presented);
        (now.mono >= until).then_some(Reply::Unchanged { tag, token })
    };
    let knows = |watch: &Option<Watch>, tag| watch.as_ref().is_some_and(|watch| watch.knows(tag));
    match op {
        Op::Describe {
            presented,
            places,
            watch,
        } => {
            let tag = resource.core.fingerprint().into();
            if knows(watch, tag) {
                return unchanged(tag, *presented);
            }
            let described = resource.describe(name, (terms, now), *presented, *places);
            Some(Reply::Described(Box::new(described)))
        }
        Op::Read {
            selector,
            presented,
            watch,
        } => {
            let tag = || resource.documents.tag(selector);
            match watch.as_ref().and_then(|_| tag()) {
                Some(tag) if knows(watch, tag) => unchanged(tag, *presented),
                _ => Some(resource.read(selector, *presented)),
            }
        }
        _ => Some(Reply::Refused(Refusal::NotStored, None)),
    }
}
