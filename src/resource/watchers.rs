//! Conditional reads: requests for a description or document that are answered at once, or when it differs from the
//! version that the client has.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;

use crate::lock::{
    Command, Now, PresentedTicket, Refusal, RequestId, ResourceName, Selector, Terms,
};
use crate::resource::actor::ResourceActor;
use crate::resource::live::Resource;
use crate::resource::messages::{Call, Reply, Watch};
use crate::resource::open_requests::RequestKind;
use crate::shared::caller::Caller;

// For `#[inline(never)]` see "What a request weighs" in docs/architecture.md.
impl ResourceActor {
    /// Answers with a description, at once or when it differs from the client's version.
    #[inline(never)]
    pub(super) fn describe(
        &mut self,
        (request, reply, caller): (RequestId, oneshot::Sender<Box<Reply>>, Arc<Caller>),
        presented: PresentedTicket,
        places: usize,
        watch: Option<Watch>,
        ctx: &mut Context<Self>,
    ) {
        self.command(Command::Tick, ctx);
        let now = self.now.mono;
        let watch = watch.unwrap_or(Watch {
            known: Some(Vec::new()),
            wait: Duration::ZERO,
        });
        let wait = watch.wait;
        let kind = RequestKind::Describe {
            presented,
            places,
            until: now + wait.as_millis() as u64,
            watch,
        };
        self.open(request, reply, caller, kind);
        self.watch(request, ctx);
    }

    /// Answers the watchers whose description or document differs from the client's version, and those whose wait
    /// is over.
    pub(super) fn answer_watchers(&mut self) {
        let (now, terms, name) = (self.now, self.server.terms(), self.name.clone());
        let Some(live) = self.live().filter(|live| !live.watchers.is_empty()) else {
            return;
        };
        let mut replies = Vec::new();
        for request in std::mem::take(&mut live.watchers) {
            let Some(open) = live.open.get_mut(request) else {
                continue;
            };
            let resource = live.resource.as_ref();
            match watched(&open.kind, resource, &name, (&terms, now)) {
                Some(reply) => {
                    open.permit = None;
                    replies.push((request, Box::new(reply)));
                }
                None => live.watchers.push(request),
            }
        }
        self.hold_or_deliver(replies);
    }

    /// Answers with a document, at once or when it differs from the client's version.
    #[inline(never)]
    pub(super) fn watch_document(
        &mut self,
        call: Box<Call>,
        selector: Selector,
        presented: PresentedTicket,
        watch: Watch,
        ctx: &mut Context<Self>,
    ) {
        let kind = RequestKind::Watch {
            selector,
            presented,
            until: self.now.mono + watch.wait.as_millis() as u64,
            watch,
        };
        self.open(call.request, call.reply, call.caller, kind);
        self.watch(call.request, ctx);
    }

    /// Answers an open conditional read if that can be done now, else lets it wait.
    fn watch(&mut self, request: RequestId, ctx: &mut Context<Self>) {
        let Some(live) = self.live() else {
            return;
        };
        live.watchers.push(request);
        self.answer_watchers();
        let waits = self
            .live()
            .is_some_and(|live| live.watchers.contains(&request));
        if waits {
            self.park(request, ctx);
        }
    }
}

/// The reply to a watcher. `None`: it goes on waiting.
fn watched(
    kind: &RequestKind,
    resource: Option<&Resource>,
    name: &ResourceName,
    (terms, now): (&Terms, Now),
) -> Option<Reply> {
    let Some(resource) = resource else {
        return Some(Reply::Refused(Refusal::NoResource));
    };
    let unchanged = |tag, until| (now.mono >= until).then_some(Reply::Unchanged(tag));
    match kind {
        RequestKind::Describe {
            presented,
            places,
            watch,
            until,
        } => {
            let tag = resource.core.fingerprint().into();
            if watch.knows(tag) {
                return unchanged(tag, *until);
            }
            let described = resource.describe(name, (terms, now), *presented, *places);
            Some(Reply::Described(Box::new(described)))
        }
        RequestKind::Watch {
            selector,
            presented,
            watch,
            until,
        } => match resource.documents.tag(selector) {
            Some(tag) if watch.knows(tag) => unchanged(tag, *until),
            _ => Some(resource.read(selector, *presented)),
        },
        _ => Some(Reply::Refused(Refusal::NotStored)),
    }
}
