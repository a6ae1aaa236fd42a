//! Request bodies that an answer does not wait for.
//!
//! The framework closes a connection whose request was answered before its body was read to the end, but
//! not if the body is chunked and nobody holds it any more: then it reads on, without a limit in time or
//! bytes, and the connection stays for as long as the client likes. So the body of a chunked request is
//! held here until its answer has left.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::HttpMessage;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::header::TRANSFER_ENCODING;
use bytes::Bytes;
use futures_util::Stream;

/// A body with two owners: the handler that reads it, and the answer.
type Shared = Rc<RefCell<Payload>>;

/// The request's body, if it has to be held until the answer to it has left.
pub struct Unread(Option<Shared>);

impl Unread {
    /// The handler reads the body through this from now on.
    pub fn share(request: &mut ServiceRequest) -> Unread {
        if !request.headers().contains_key(TRANSFER_ENCODING) {
            return Unread(None);
        }
        let shared = Rc::new(RefCell::new(request.take_payload()));
        let reader: Pin<Box<dyn Stream<Item = Result<Bytes, PayloadError>>>> =
            Box::pin(Reader(shared.clone()));
        request.set_payload(Payload::from(reader));
        Unread(Some(shared))
    }

    pub fn hold(self, response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
        match self.0 {
            None => response,
            Some(unread) => response.map_body(|_, body| {
                BoxBody::new(Holding {
                    body,
                    _unread: unread,
                })
            }),
        }
    }
}

struct Reader(Shared);

impl Stream for Reader {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_next(cx)
    }
}

/// An answer's body; as long as it is there, so is that of the request.
struct Holding {
    body: BoxBody,
    _unread: Shared,
}

impl MessageBody for Holding {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_next(cx)
    }
}
