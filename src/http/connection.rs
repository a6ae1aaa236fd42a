//! The stream under HTTP: a TCP or TLS connection with limits that actix-http does not have.
//!
//! - Time: actix-http limits the time for the first head of a connection and for an idle connection. A later
//!   head that stalls, or the rest of a body that was answered before it arrived, would keep the connection
//!   open for ever. [`Connection`] ends it.
//! - Size: actix-http buffers up to 128 KiB of a head, and of requests that arrive before the last one is
//!   answered. With a full buffer it wakes itself in a busy loop. [`Connection`] reads at most 16 KiB of a head
//!   and 64 KiB ahead.
//!
//! Through [`ConnectionState`] the middleware tells the connection how far the request under way is.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use actix_web::rt::time::{Sleep, sleep_until};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::connection_limits::{ConnectionLimits, TOO_SLOW};

/// Largest head of a request, in bytes. A single read may go beyond it.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Bytes that a client may send, besides the body, before its request is answered.
const AHEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes that are still read of a chunked body whose request was answered before its end.
const CHUNKED_REST_BYTES_MAX: usize = 64 << 10;

/// Send buffer of an event stream, in bytes; the kernel doubles it. By default the kernel buffers up to 4 MiB
/// for each reader that takes nothing, which counts towards the memory limit of this process.
const STREAM_BUFFER_BYTES: usize = 64 << 10;

/// Resolution of actix-http's clock: its time-outs may come this much early.
const FRAMEWORK_CLOCK: Duration = Duration::from_millis(500);

/// The stream below: TCP, or TLS over TCP.
pub type Wire = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// An open connection and the state of its latest request, shared by the middleware and the [`Connection`]. It counts
/// as open until this is dropped.
pub struct ConnectionState {
    limits: Arc<ConnectionLimits>,
    /// Beyond the limit: only the routes about the server are answered on this connection.
    pub reserved: bool,
    /// Since when no request is under way and nothing was written; `None` while a request is under way.
    quiet_since: Cell<Option<Instant>>,
    /// Bytes of the latest request's body that may still arrive.
    body_left: Cell<usize>,
    /// Bytes that may be read besides the body, until the next request begins, waits or ends.
    allowance: Cell<usize>,
    /// The allowance is used up, and actix-http was woken once to parse its buffer.
    exhausted: Cell<bool>,
    /// The latest request has a chunked body that was not read to its end. The rest may arrive after the answer too.
    chunked: Cell<bool>,
    /// A first request was taken. Also set by the shutdown, so that it counts a missing first head only once.
    begun: Cell<bool>,
    /// The answer is an endless stream, and the send buffer was not limited yet.
    streams: Cell<bool>,
}

impl ConnectionState {
    /// Counts a new connection; `None` if both the limit and the reserve are used up.
    pub fn open(limits: &Arc<ConnectionLimits>) -> Option<ConnectionState> {
        let reserved = limits.open()?;
        Some(ConnectionState {
            limits: limits.clone(),
            reserved,
            quiet_since: Cell::default(),
            body_left: Cell::default(),
            allowance: Cell::new(HEAD_BYTES_MAX),
            exhausted: Cell::default(),
            chunked: Cell::default(),
            begun: Cell::default(),
            streams: Cell::default(),
        })
    }

    fn allow(&self, body: usize, besides: usize) {
        self.body_left.set(body);
        self.allowance.set(besides);
        self.exhausted.set(false);
    }

    /// A request was taken. `body`: the length of its body in bytes; `None` if it is chunked.
    pub fn begin_request(&self, body: Option<usize>) {
        self.quiet_since.set(None);
        self.begun.set(true);
        self.chunked.set(body.is_none());
        self.allow(body.unwrap_or(usize::MAX), AHEAD_BYTES_MAX);
    }

    /// The body was read to its end.
    pub fn end_body(&self) {
        self.chunked.set(false);
    }

    /// The handler needs no more of the body; from now on the request may wait for its answer.
    pub fn begin_wait(&self) {
        self.allow(0, AHEAD_BYTES_MAX);
    }

    /// The answer is an endless stream: bytes that its reader does not take must not pile up in the kernel.
    pub fn begin_stream(&self) {
        self.streams.set(true);
    }

    /// The request was answered at `now`. True if the rest of its chunked body may still arrive: the caller
    /// then has to wake the connection.
    pub fn end_request(&self, now: Instant) -> bool {
        self.quiet_since.set(Some(now));
        let chunked = self.chunked.get();
        // The length of a chunked body is not known.
        let rest = if chunked {
            CHUNKED_REST_BYTES_MAX
        } else {
            self.body_left.get()
        };
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

impl Drop for ConnectionState {
    fn drop(&mut self) {
        self.limits.close();
    }
}

fn bound_send_buffer(wire: &Wire) {
    let stream = match wire {
        Either::Left(stream) => stream,
        Either::Right(stream) => stream.get_ref().0,
    };
    if let Err(error) = SockRef::from(stream).set_send_buffer_size(STREAM_BUFFER_BYTES) {
        log::debug!("the send buffer of an event stream could not be limited: {error}");
    }
}

/// One accepted connection.
pub struct Connection {
    wire: Wire,
    state: Rc<ConnectionState>,
    opened: Instant,
    /// These two are copied from [`ConnectionLimits`]: every thread that opens a connection writes beside them there,
    /// which would make reading them slow.
    head_max: Duration,
    quiet_max: Duration,
    /// May fire before the deadline: it is then set again, instead of with every request.
    timer: Pin<Box<Sleep>>,
}

impl Connection {
    pub fn new(wire: Wire, state: ConnectionState) -> Connection {
        let now = Instant::now();
        state.quiet_since.set(Some(now));
        let (head_max, quiet_max) = (state.limits.head_max, state.limits.quiet_max);
        Connection {
            wire,
            state: Rc::new(state),
            opened: now,
            head_max,
            quiet_max,
            timer: Box::pin(sleep_until(now + quiet_max)),
        }
    }

    pub fn state(&self) -> &Rc<ConnectionState> {
        &self.state
    }

    /// Ready when there was no request for too long. Reads the clock only when the timer fires.
    fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = if self.state.chunked.get() {
            self.head_max
        } else {
            self.quiet_max
        };
        let quiet_since = self.state.quiet_since.get();
        if let Some(deadline) = quiet_since.map(|since| since + limit)
            && self.timer.deadline() > deadline
        {
            self.timer.as_mut().reset(deadline);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let deadline = quiet_since.unwrap_or(now) + limit;
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
            // actix-http may have whole requests in its buffer: wake it to parse them.
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
        // A client that takes its answer slowly is not idle.
        if written.is_ready() && self.state.quiet_since.get().is_some() {
            self.state.quiet_since.set(Some(Instant::now()));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // actix-http does not report that it gave up on a first head.
        let slow = self.opened.elapsed() + FRAMEWORK_CLOCK >= self.head_max;
        if !self.state.begun.replace(true) && slow {
            self.state.limits.count_refusal(TOO_SLOW);
        }
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}
