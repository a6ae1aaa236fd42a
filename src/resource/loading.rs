//! Requests whose document has to be loaded first, and what they do to the lock before it is.

use std::collections::hash_map::Entry;

use actix::prelude::*;

use crate::lock::{Command, Selector, WaitPolicy};
use crate::persistence::messages::LoadData;
use crate::resource::actor::{ResourceActor, unread};
use crate::resource::live::Live;
use crate::resource::messages::{Call, Op};
use crate::resource::open_requests::RequestKind;
use crate::store::{ResourceId, StoreError, StoredData};

impl ResourceActor {
    /// Loads the document that a request needs. Requests for the same document share one read.
    pub(super) fn load_document(&mut self, call: Box<Call>, ctx: &mut Context<Self>) {
        let Some((selector, _)) = call.op.needed_document() else {
            return;
        };
        let selector = selector.clone();
        let Some(call) = self.arrive(call, ctx) else {
            return;
        };
        let Some(live) = self.live() else {
            return;
        };
        let Some(resource) = &mut live.resource else {
            return;
        };
        match live.reading.entry(selector.clone()) {
            // The read is in progress, even if all requests that waited for it are gone.
            Entry::Occupied(mut calls) => return calls.get_mut().push(call),
            Entry::Vacant(none) => none.insert(vec![call]),
        };
        resource.documents.pin(&selector);
        let id = resource.id.clone();
        let persistence = self.persistence.clone();
        let document = LoadData {
            id: id.clone(),
            selector: selector.clone(),
        };
        async move { persistence.read(document).await }
            .into_actor(self)
            .map(move |result, actor, ctx| {
                actor.document_loaded(&id, &selector, result, ctx);
                actor.schedule(ctx);
            })
            .spawn(ctx);
    }

    /// Presents a request to the lock before its document is loaded: its ticket counts as presented, and it takes
    /// its place in the queue. `None`: the request is answered by this.
    fn arrive(&mut self, call: Box<Call>, ctx: &mut Context<Self>) -> Option<Box<Call>> {
        let request = call.request;
        let op = match &call.op {
            Op::Read { .. } => return Some(call),
            // The document is written, and the lease released, only once the document is loaded.
            Op::Write {
                selector,
                presented,
                ..
            } => Op::DeleteSelector {
                selector: selector.clone(),
                presented: *presented,
            },
            other => other.clone(),
        };
        let translated = self.translate(request, &call.caller, op, WaitPolicy::Loading);
        let Some((_, command)) = translated else {
            return Some(call);
        };
        let presented = command.presented();
        let (terms, now) = (self.server.terms(), self.now);
        let mut outcome = self.resource()?.core.apply(&terms, now, command);
        if matches!(call.op, Op::DeleteSelector { .. }) {
            // Whether the document exists counts before the state of the lock, and is not known yet.
            outcome.answers.retain(|(id, _)| *id != request);
        }
        let answered = outcome.answers.iter().any(|(id, _)| *id == request);
        let call = match answered {
            true => {
                let kind = RequestKind::Plain;
                self.open(request, call.reply, call.caller, presented, kind);
                None
            }
            false => Some(call),
        };
        self.conclude(outcome, ctx);
        call
    }

    pub(super) fn document_loaded(
        &mut self,
        id: &ResourceId,
        selector: &Selector,
        result: Result<Option<StoredData>, StoreError>,
        ctx: &mut Context<Self>,
    ) {
        self.read_clocks();
        let is_same = |live: &Live| {
            let resource = live.resource.as_ref();
            resource.is_some_and(|resource| resource.id == *id)
        };
        let Some(live) = self.live() else {
            return;
        };
        let Some(calls) = live.reading.remove(selector) else {
            return;
        };
        let is_there = is_same(live);
        match result {
            Err(error) => {
                for call in calls {
                    let _ = call.reply.send(Box::new(unread(&error)));
                    let request = call.request;
                    self.command(Command::Vanished { request }, ctx);
                }
            }
            // The resource was deleted meanwhile, and perhaps created anew.
            Ok(_) if !is_there => calls.into_iter().for_each(|call| self.call(call, ctx)),
            Ok(data) => {
                if let (Some(data), Some(resource)) = (data, &mut live.resource) {
                    resource.documents.loaded(selector, data);
                }
                for call in calls {
                    // Checked again for each: the request before may have written or deleted the document.
                    let resource = self.resource();
                    let exists = resource.and_then(|r| r.documents.exists(selector, false));
                    self.carry_out(call, exists == Some(true), ctx);
                }
            }
        }
        // Last: what the requests need must not leave memory before.
        if let Some(live) = self.live().filter(|live| is_same(live)) {
            live.unpin(selector);
        }
    }
}
