//! The stream that the HTTP dispatcher reads and writes: a TCP or TLS connection, with what the dispatcher
//! lacks.
//!
//! - Answers that the dispatcher gives by itself, before routing, become answers of ours (see
//!   [`refusal`](super::refusal)).
//! - A peer that closes its side is gone, and what it asked for is broken off. (The dispatcher's own way to
//!   do that, to refuse half-closed connections, also breaks off good requests when one that follows them
//!   or their own body is malformed.)
//! - The dispatcher bounds the time for the first request head of a connection only. Here every head has
//!   `REQUEST_TIMEOUT_SECONDS`, and a connection on which nothing is asked ends.
//!
//! [`Activity`] is what the outermost middleware tells this side: whether a request is under way.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use actix_web::rt::net::TcpStream;
use actix_web::rt::time::{Sleep, sleep_until};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::places::Place;
use super::refusal::{Early, Refusal, dispatchers_own};

/// The dispatcher closes idle connections by itself; this much later they are closed here if it did not,
/// because a request body never came to its end.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// The bytes as they travel.
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

macro_rules! on_wire {
    ($wire:expr, $stream:ident => $call:expr) => {
        match &mut *$wire {
            Wire::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Wire::Tls(stream) => {
                let $stream = Pin::new(&mut **stream);
                $call
            }
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_wire!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_wire!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, stream => stream.poll_shutdown(cx))
    }
}

/// What happens on one connection.
#[derive(Debug)]
pub struct Activity {
    under_way: Cell<usize>,
    /// When the last request ended, or the connection began.
    quiet_since: Cell<Instant>,
    /// When the first byte came that belongs to no request yet.
    head_since: Cell<Option<Instant>>,
    taken: Cell<bool>,
    /// The chunked body of the latest request was not read to its end.
    body_open: Cell<bool>,
}

impl Default for Activity {
    fn default() -> Activity {
        Activity {
            under_way: Cell::new(0),
            quiet_since: Cell::new(Instant::now()),
            head_since: Cell::new(None),
            taken: Cell::new(false),
            body_open: Cell::new(false),
        }
    }
}

impl Activity {
    /// A request was taken; it is under way until the guard is dropped.
    pub fn begin(self: &Rc<Self>) -> UnderWay {
        self.under_way.set(self.under_way.get() + 1);
        self.head_since.set(None);
        self.taken.set(true);
        self.body_open.set(false);
        UnderWay(self.clone())
    }

    /// Whether the dispatcher may have to wait for the end of the latest request's body after it was
    /// answered.
    pub fn set_body_open(&self, open: bool) {
        self.body_open.set(open);
    }

    fn read_some(&self) {
        if self.under_way.get() == 0 && self.head_since.get().is_none() {
            self.head_since.set(Some(Instant::now()));
        }
    }
}

/// A request that is under way on a connection.
pub struct UnderWay(Rc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let left = self.0.under_way.get().saturating_sub(1);
        self.0.under_way.set(left);
        if left == 0 {
            self.0.quiet_since.set(Instant::now());
        }
    }
}

/// How long a connection may take for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub head: Duration,
    pub keep_alive: Duration,
}

enum Stage {
    Serving,
    /// What is written counts as `bytes` of the dispatcher's output.
    Refusing {
        refusal: Refusal,
        bytes: usize,
    },
    Ended,
}

/// One accepted connection.
pub struct Connection<S = Wire> {
    wire: S,
    /// HTTP/1; HTTP/2 has frames and time-outs of its own.
    watched: bool,
    patience: Patience,
    activity: Rc<Activity>,
    stage: Stage,
    /// The peer did not take all that was written last.
    blocked: bool,
    /// The peer was seen to have ended its direction.
    ended: bool,
    timer: Option<Pin<Box<Sleep>>>,
    _place: Option<Place>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub fn new(wire: S, watched: bool, patience: Patience, place: Option<Place>) -> Self {
        Connection {
            wire,
            watched,
            patience,
            activity: Rc::default(),
            stage: Stage::Serving,
            blocked: false,
            ended: false,
            timer: None,
            _place: place,
        }
    }

    pub fn activity(&self) -> &Rc<Activity> {
        &self.activity
    }

    /// When the peer has to have done something, and whether it is told when it has not.
    fn deadline(&self) -> Option<(Instant, bool)> {
        let activity = &self.activity;
        // The time for the first head is the dispatcher's to measure.
        if !self.watched || !activity.taken.get() || activity.under_way.get() > 0 {
            return None;
        }
        Some(match activity.head_since.get() {
            Some(since) => (since + self.patience.head, true),
            None => {
                let since = activity.quiet_since.get();
                (since + self.patience.keep_alive + IDLE_GRACE, false)
            }
        })
    }

    /// Ready when the peer took too long. The timer runs to a deadline that may be past its time: it is
    /// set again when it fires, not with every request.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        while let Some((deadline, told)) = self.deadline() {
            let due = deadline.into();
            match &mut self.timer {
                Some(timer) if timer.deadline() <= due => {}
                Some(timer) => timer.as_mut().reset(due),
                None => {
                    // Early rather than late: a head that comes next has less time than the idle have.
                    let soon = Instant::now() + self.patience.head;
                    let due = deadline.min(soon).into();
                    self.timer = Some(Box::pin(sleep_until(due)));
                }
            }
            if let Some(timer) = &mut self.timer {
                ready!(timer.as_mut().poll(cx));
            }
            if Instant::now() >= deadline {
                return Poll::Ready(told);
            }
            if let Some(timer) = &mut self.timer {
                timer.as_mut().reset(due);
            }
        }
        Poll::Pending
    }

    /// The peer sends no more. With that it is gone: its place in a queue must go with it, so a request
    /// that is under way is broken off, which a plain end would not do.
    fn poll_end(&mut self, cx: &mut Context<'_>, failed: bool) -> Poll<io::Result<()>> {
        if failed || self.activity.under_way.get() > 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if self.activity.head_since.get().is_some() && !self.ended {
            // What came right before the end may be a whole request, which is about to be taken.
            self.ended = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_refuse(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let Stage::Refusing { refusal, bytes } = &mut self.stage else {
            return Poll::Ready(0);
        };
        ready!(refusal.poll(&mut self.wire, cx));
        let bytes = *bytes;
        self.stage = Stage::Ended;
        Poll::Ready(bytes)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Stage::Serving = this.stage {
            let before = buf.filled().len();
            if let Poll::Ready(read) = Pin::new(&mut this.wire).poll_read(cx, buf) {
                if !this.watched {
                    return Poll::Ready(read);
                }
                if read.is_ok() && buf.filled().len() > before {
                    this.activity.read_some();
                    return Poll::Ready(read);
                }
                return this.poll_end(cx, read.is_err());
            }
            let told = ready!(this.poll_overdue(cx));
            let refusal = if told && !this.blocked {
                Refusal::new(Early::HeadTooSlow)
            } else {
                Refusal::silent()
            };
            this.stage = Stage::Refusing { refusal, bytes: 0 };
        }
        // Nothing read: the end, as far as the dispatcher is concerned.
        this.poll_refuse(cx).map(|_| Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        output: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut ours = output;
        if let (Stage::Serving, true) = (&this.stage, this.watched) {
            match dispatchers_own(output) {
                None => {}
                Some((0, why)) => {
                    let refusal = Refusal::new(why);
                    let bytes = output.len();
                    this.stage = Stage::Refusing { refusal, bytes };
                }
                Some((start, _)) => ours = &output[..start],
            }
        }
        match this.stage {
            Stage::Refusing { .. } => this.poll_refuse(cx).map(Ok),
            Stage::Ended => Poll::Ready(Ok(output.len())),
            Stage::Serving => {
                let written = Pin::new(&mut this.wire).poll_write(cx, ours);
                this.blocked = !matches!(written, Poll::Ready(Ok(n)) if n == output.len());
                if this.activity.body_open.get() {
                    // The dispatcher waits for the end of the body, for however long: see that it is
                    // woken.
                    let _ = this.poll_overdue(cx);
                }
                written
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.stage {
            Stage::Serving => Pin::new(&mut this.wire).poll_flush(cx),
            Stage::Refusing { .. } => this.poll_refuse(cx).map(|_| Ok(())),
            Stage::Ended => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_refuse(cx));
        Pin::new(&mut this.wire).poll_shutdown(cx)
    }
}
