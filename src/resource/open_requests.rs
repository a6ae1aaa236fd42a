//! The requests of one resource that are not answered yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::lock::command::HolderView;
use crate::lock::rows::Forced;
use crate::lock::{Millis, PresentedTicket, RequestId, Selector};
use crate::resource::messages::{Condition, Op, Reply};
use crate::shared::caller::Caller;

/// What the reply to an open request is made from, besides the core's answer.
pub(super) enum RequestKind {
    /// Nothing: the core's answer is the reply.
    Plain,
    /// GET `lock=1`: the reply has this document.
    Get(Selector),
    /// GET `lock=1` of a document that does not exist: answered 404 whatever the core answers.
    GetAbsent,
    /// `true`: once it is written, the lease is released in the same commit. So is it with [`Self::DeleteSelector`].
    Write(Selector, Bytes, Option<Condition>, bool),
    /// [`Op::Describe`] or [`Op::Read`]: answered when there is another version than the client's, at this time at the
    /// latest.
    Watch(Box<Op>, Millis),
    DeleteSelector(Selector, bool),
    /// Deletes the resource, and so ends these leases.
    Delete(Vec<HolderView>),
    /// Ends a lease or a place by force: the reason, and who asked for it.
    Force(Box<Forced>),
}

impl RequestKind {
    /// Whether the holder's lease is released once the change is made.
    pub(super) fn releases(&self) -> bool {
        match self {
            RequestKind::Write(.., releases) | RequestKind::DeleteSelector(_, releases) => {
                *releases
            }
            _ => false,
        }
    }

    /// The document that is pinned while the request waits for the lock.
    pub(super) fn document(&self) -> Option<&Selector> {
        match self {
            RequestKind::Get(selector) | RequestKind::Write(selector, ..) => Some(selector),
            _ => None,
        }
    }
}

pub(super) struct OpenRequest {
    pub(super) reply: oneshot::Sender<Box<Reply>>,
    pub(super) kind: RequestKind,
    pub(super) caller: Arc<Caller>,
    /// The ticket that it presented to the core; absent if it did not ask the core.
    pub(super) presented: PresentedTicket,
    /// When the request was opened, on the monotonic clock: on arrival, or once its document was loaded.
    pub(super) since: Millis,
    /// One of the `MAX_WAITERS` permits, while the request waits.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// Open requests by id. Most resources have one at a time, which is kept without a tree.
#[derive(Default)]
pub(super) struct OpenRequests {
    /// A request that was inserted when there was no other. Its id may lie anywhere among those in `more`.
    one: Option<(RequestId, Box<OpenRequest>)>,
    /// The values are boxed: an empty tree keeps its first leaf, which has room for eleven values.
    more: BTreeMap<RequestId, Box<OpenRequest>>,
}

impl OpenRequests {
    pub fn is_empty(&self) -> bool {
        self.one.is_none() && self.more.is_empty()
    }

    /// Inserts a request. An id is used only once, so none is replaced.
    pub fn insert(&mut self, request: RequestId, open: Box<OpenRequest>) {
        if self.is_empty() {
            self.one = Some((request, open));
        } else {
            self.more.insert(request, open);
        }
    }

    pub fn get(&self, request: RequestId) -> Option<&OpenRequest> {
        match &self.one {
            Some((one, open)) if *one == request => Some(open),
            _ => self.more.get(&request).map(Box::as_ref),
        }
    }

    pub fn get_mut(&mut self, request: RequestId) -> Option<&mut OpenRequest> {
        match &mut self.one {
            Some((one, open)) if *one == request => Some(open),
            _ => self.more.get_mut(&request).map(Box::as_mut),
        }
    }

    pub fn remove(&mut self, request: RequestId) -> Option<Box<OpenRequest>> {
        match self.one.take_if(|(one, _)| *one == request) {
            Some((_, open)) => Some(open),
            None => self.more.remove(&request),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (RequestId, &OpenRequest)> {
        let more = self.more.iter().map(|(request, open)| (*request, &**open));
        let one = self.one.iter().map(|(request, open)| (*request, &**open));
        one.chain(more)
    }

    /// Removes and returns all requests.
    pub fn take_all(&mut self) -> impl Iterator<Item = Box<OpenRequest>> + use<> {
        let OpenRequests { one, more } = std::mem::take(self);
        one.map(|(_, open)| open)
            .into_iter()
            .chain(more.into_values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(since: Millis) -> Box<OpenRequest> {
        Box::new(OpenRequest {
            reply: oneshot::channel().0,
            kind: RequestKind::Plain,
            caller: Caller::nobody().clone(),
            presented: PresentedTicket::Absent,
            since,
            permit: None,
        })
    }

    fn numbers(requests: &OpenRequests) -> Vec<RequestId> {
        let mut numbers: Vec<_> = requests.iter().map(|(request, _)| request).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn each_request_is_found_wherever_it_is_kept() {
        let mut requests = OpenRequests::default();
        assert!(requests.is_empty());
        // The first request, kept in `one`, has neither the lowest nor the highest id.
        for request in [7, 3, 9] {
            requests.insert(request, open(request));
        }
        assert_eq!(numbers(&requests), [3, 7, 9]);
        for request in [3, 7, 9] {
            assert_eq!(requests.get(request).unwrap().since, request);
            requests.get_mut(request).unwrap().since += 10;
        }
        assert_eq!(requests.remove(7).unwrap().since, 17);
        assert!(requests.remove(7).is_none() && requests.get(7).is_none());
        requests.insert(5, open(5));
        assert_eq!(numbers(&requests), [3, 5, 9]);
        assert_eq!(requests.remove(3).unwrap().since, 13);
        assert_eq!(requests.take_all().count(), 2);
        assert!(requests.is_empty() && requests.get_mut(9).is_none());
    }
}
