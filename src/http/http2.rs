//! HTTP/2 clients that are gone.
//!
//! A client of HTTP/1 that gives up closes its connection, and its request ends with that. One of HTTP/2 takes
//! back a single request (RFC 9113, section 5.4.2), and the framework goes on with a request even after its
//! connection has ended. A place in a queue must not outlive its client, though. The stream of the request's body
//! knows: once it has come to its end it says that there is nothing more, or, when the client is gone, that it is
//! broken. Nobody is woken for that, so it is looked at while an answer takes time.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::HttpMessage;
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::error::PayloadError;
use actix_web::http::Version;
use bytes::Bytes;
use futures_util::Stream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// The body of a request, and what was read of it before its handler asked.
struct Body {
    stream: Payload,
    ahead: Option<Bytes>,
}

impl Body {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, PayloadError>>> {
        match self.ahead.take() {
            Some(chunk) => Poll::Ready(Some(Ok(chunk))),
            None => Pin::new(&mut self.stream).poll_next(cx),
        }
    }

    /// With data that nobody takes, there is no telling.
    fn is_broken(&mut self, cx: &mut Context<'_>) -> bool {
        if self.ahead.is_some() {
            return false;
        }
        match Pin::new(&mut self.stream).poll_next(cx) {
            Poll::Ready(Some(Err(_))) => true,
            Poll::Ready(Some(Ok(chunk))) => {
                self.ahead = Some(chunk);
                false
            }
            Poll::Ready(None) | Poll::Pending => false,
        }
    }
}

/// What the handler reads.
struct Reader(Rc<RefCell<Body>>);

impl Stream for Reader {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.borrow_mut().poll_chunk(cx)
    }
}

/// Looks after the client of one request.
pub struct Watch {
    body: Rc<RefCell<Body>>,
    looks: Interval,
}

impl Watch {
    /// `None`: not an HTTP/2 request.
    pub fn over(request: &mut ServiceRequest) -> Option<Watch> {
        if request.version() != Version::HTTP_2 {
            return None;
        }
        let body = Rc::new(RefCell::new(Body {
            stream: request.take_payload(),
            ahead: None,
        }));
        request.set_payload(Payload::Stream {
            payload: Box::pin(Reader(body.clone())),
        });
        let mut looks = interval_at(Instant::now() + LOOK_PAUSE, LOOK_PAUSE);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(Watch { body, looks })
    }

    /// Ready when the client is gone. To be polled by the task that answers the request, each time before the
    /// answer: what is granted to a client that is gone by then must not count as delivered.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut body = self.body.borrow_mut();
        if Rc::strong_count(&self.body) == 1 {
            // Nobody reads it any more.
            body.ahead = None;
        }
        loop {
            if body.is_broken(cx) {
                return Poll::Ready(());
            }
            // Wakes this task to look again.
            ready!(self.looks.poll_tick(cx));
        }
    }
}
