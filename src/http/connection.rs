//! The stream under HTTP: a TCP or TLS connection, with the bounds that the framework lacks.
//!
//! - It bounds the time for the first head of a connection and for idle ones. A later head that stalls, or the
//!   rest of a body that was answered before it came, would keep a connection for ever: here it ends.
//! - It reads up to 128 KiB of a head, and of requests that come before the last one is answered; there it asks
//!   again and again whether its buffer has room. Here a head has 16 KiB, and what comes ahead 64 KiB.
//!
//! [`ConnectionState`] is what the middleware tells this side of the request under way.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use actix_web::rt::time::{Sleep, sleep_until};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::connection_limit::{Permit, TOO_SLOW};

/// Largest head of a request, give or take what is read at once.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// What a client may send before it has its answer, besides the body.
const AHEAD_BYTES_MAX: usize = 64 << 10;
/// What is taken of a chunked body that was answered before its end.
const CHUNKED_REST_BYTES_MAX: usize = 64 << 10;

/// What the kernel keeps of a stream that its reader does not take; it takes twice of what it is told. Left to
/// itself it keeps up to 4 MiB for each reader, of the memory that this process may have.
const STREAM_BUFFER_BYTES: usize = 64 << 10;

/// The framework looks at its watch so often: its time-outs may come so much early.
const FRAMEWORK_CLOCK: Duration = Duration::from_millis(500);

/// The bytes as they travel.
pub type Wire = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// What is known of the requests on a connection.
pub struct ConnectionState {
    /// No request is under way, and since when nothing was written. `None`: one is.
    quiet_since: Cell<Option<Instant>>,
    /// Bytes that may still come of the latest request's body.
    body_left: Cell<usize>,
    /// Bytes that may be read besides, until something happens to a request.
    allowance: Cell<usize>,
    /// The allowance is used up, and the framework was asked to look at what it has.
    exhausted: Cell<bool>,
    /// The latest request was answered, and the rest of its body may still come.
    rest_open: Cell<bool>,
    /// The latest request has a chunked body whose end was not seen.
    chunked: Cell<bool>,
    /// A first request was taken.
    begun: Cell<bool>,
    /// It was answered just now, and nothing of that was written yet.
    answered: Cell<bool>,
    /// The answer is a stream that goes on and on, and this side does not know it yet.
    streams: Cell<bool>,
    /// Only the routes that watch the server are answered on it.
    pub reserved: bool,
}

impl ConnectionState {
    fn allow(&self, body: usize, besides: usize) {
        self.body_left.set(body);
        self.allowance.set(besides);
        self.exhausted.set(false);
    }

    /// A request was taken. `body`: its length in bytes; `None`: it is chunked.
    pub fn begin_request(&self, body: Option<usize>) {
        self.quiet_since.set(None);
        self.begun.set(true);
        self.rest_open.set(false);
        self.chunked.set(body.is_none());
        self.allow(body.unwrap_or(usize::MAX), AHEAD_BYTES_MAX);
    }

    /// The body was read to its end.
    pub fn end_body(&self) {
        self.chunked.set(false);
    }

    /// The body was read, if it was wanted at all; now the answer may take its time.
    pub fn begin_wait(&self) {
        self.allow(0, AHEAD_BYTES_MAX);
    }

    /// The answer is a stream that goes on and on: what its reader does not take must not pile up.
    pub fn begin_stream(&self) {
        self.streams.set(true);
    }

    /// It was answered at `now`. True: the rest of its body may still come, so that the connection has to be looked at
    /// anew.
    pub fn end_request(&self, now: Instant) -> bool {
        self.quiet_since.set(Some(now));
        self.answered.set(true);
        let chunked = self.chunked.get();
        // Nobody counted the bytes of a chunked body.
        let rest = if chunked {
            CHUNKED_REST_BYTES_MAX
        } else {
            self.body_left.get()
        };
        self.rest_open.set(chunked);
        self.allow(rest, HEAD_BYTES_MAX);
        chunked
    }

    fn count_read(&self, bytes: usize) {
        let body = self.body_left.get();
        self.body_left.set(body.saturating_sub(bytes));
        let besides = bytes.saturating_sub(body);
        self.allowance
            .set(self.allowance.get().saturating_sub(besides));
    }
}

fn bound_send_buffer(wire: &Wire) {
    let stream = match wire {
        Either::Left(stream) => stream,
        Either::Right(stream) => stream.get_ref().0,
    };
    if let Err(error) = SockRef::from(stream).set_send_buffer_size(STREAM_BUFFER_BYTES) {
        log::debug!("the buffer of a stream cannot be bounded: {error}");
    }
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionTimeouts {
    /// For its TLS handshake, and then for its first head.
    pub head: Duration,
    /// Between two requests, and for the head of the next.
    pub quiet: Duration,
}

/// One accepted connection.
pub struct Connection {
    wire: Wire,
    state: Rc<ConnectionState>,
    opened: Instant,
    patience: ConnectionTimeouts,
    /// Runs to a moment that may be past the deadline: it is set again when it fires, not with every request.
    timer: Pin<Box<Sleep>>,
    permit: Permit,
}

impl Connection {
    pub fn new(wire: Wire, permit: Permit, patience: ConnectionTimeouts) -> Connection {
        let now = Instant::now();
        Connection {
            wire,
            state: Rc::new(ConnectionState {
                quiet_since: Cell::new(Some(now)),
                body_left: Cell::new(0),
                allowance: Cell::new(HEAD_BYTES_MAX),
                exhausted: Cell::new(false),
                rest_open: Cell::new(false),
                chunked: Cell::new(false),
                begun: Cell::new(false),
                answered: Cell::new(false),
                streams: Cell::new(false),
                reserved: permit.reserved,
            }),
            opened: now,
            patience,
            timer: Box::pin(sleep_until(now + patience.quiet)),
            permit,
        }
    }

    pub fn state(&self) -> &Rc<ConnectionState> {
        &self.state
    }

    /// Ready when there was no request for too long. The clock is looked at only when the timer fires.
    fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let patience = if self.state.rest_open.get() {
            self.patience.head
        } else {
            self.patience.quiet
        };
        let quiet_since = self.state.quiet_since.get();
        if let Some(deadline) = quiet_since.map(|since| since + patience)
            && self.timer.deadline() > deadline
        {
            self.timer.as_mut().reset(deadline);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let deadline = quiet_since.unwrap_or(now) + patience;
            if now >= deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut read = Poll::Pending;
        if self.state.allowance.get() > 0 {
            let before = buf.filled().len();
            read = Pin::new(&mut self.wire).poll_read(cx, buf);
            self.state.count_read(buf.filled().len() - before);
        } else if self.state.exhausted.replace(true) {
            return Poll::Ready(Err(io::Error::other("more was sent than is read ahead")));
        } else {
            // There may be whole requests in what was read.
            cx.waker().wake_by_ref();
        }
        if read.is_pending() && self.poll_quiet(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.state.streams.replace(false) {
            bound_send_buffer(&self.wire);
        }
        let written = Pin::new(&mut self.wire).poll_write(cx, bytes);
        // Whoever takes an answer slowly is not idle. Most take it at once.
        let at_once = self.state.answered.replace(false);
        if written.is_ready() && !at_once && self.state.quiet_since.get().is_some() {
            self.state.quiet_since.set(Some(Instant::now()));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The framework tells nobody that it gave up on a first head.
        let slow = self.opened.elapsed() + FRAMEWORK_CLOCK >= self.patience.head;
        if !self.state.begun.replace(true) && slow {
            self.permit.count_refusal(TOO_SLOW);
        }
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}
