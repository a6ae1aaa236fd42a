//! The stream that the HTTP dispatcher reads and writes: a TCP or TLS connection, with what the dispatcher
//! lacks.
//!
//! - Answers that the dispatcher gives by itself, before routing, become answers of ours (see
//!   [`refusal`](super::refusal)).
//! - A peer that closes its side is gone, and what it asked for is broken off. (The dispatcher's own way to
//!   do that, to refuse half-closed connections, also breaks off good requests when one that follows them
//!   or their own body is malformed.)
//! - The dispatcher bounds the time for the first request head of a connection only. Here every head has
//!   `REQUEST_TIMEOUT_SECONDS`, and so has the rest of a body that was answered before it came.
//!
//! [`Activity`] is what the outermost middleware tells this side: whether a request is under way.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use actix_web::rt::net::TcpStream;
use actix_web::rt::time::{Sleep, sleep_until};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::places::Place;
use super::refusal::{Early, Refusal, dispatchers_own};

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
    /// Bytes that came in all, and how many may before the request under way is answered.
    read: Cell<u64>,
    read_max: Cell<u64>,
    /// To be woken when more may be read.
    reader: RefCell<Option<Waker>>,
}

/// What may be read ahead of a request that is under way, besides its body, in bytes; and what is read at once
/// before requests are taken out of it. The dispatcher must not fill its own buffer, which has 128 KiB: it would
/// look at it again and again until it has room.
const AHEAD_MAX: u64 = 32 << 10;
const AT_ONCE_MAX: usize = 64 << 10;

impl Default for Activity {
    fn default() -> Activity {
        Activity {
            under_way: Cell::new(0),
            quiet_since: Cell::new(Instant::now()),
            head_since: Cell::new(None),
            taken: Cell::new(false),
            body_open: Cell::new(false),
            read: Cell::new(0),
            read_max: Cell::new(0),
            reader: RefCell::new(None),
        }
    }
}

impl Activity {
    /// A request was taken; it is under way until the guard is dropped. `body`: its length in bytes, as far as
    /// it was told.
    pub fn begin(self: &Rc<Self>, body: u64) -> UnderWay {
        self.under_way.set(self.under_way.get() + 1);
        self.head_since.set(None);
        self.taken.set(true);
        self.body_open.set(false);
        self.allow(body);
        UnderWay(self.clone())
    }

    /// So much more may be read.
    fn allow(&self, bytes: u64) {
        let read_max = self.read.get().saturating_add(bytes);
        self.read_max.set(read_max.saturating_add(AHEAD_MAX));
        self.wake_reader();
    }

    fn wake_reader(&self) {
        let reader = self.reader.borrow_mut().take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Enough was read ahead: not before the request under way is answered.
    fn is_far_ahead(&self, cx: &Context<'_>) -> bool {
        let far = self.under_way.get() > 0
            && !self.body_open.get()
            && self.read.get() >= self.read_max.get();
        if far {
            *self.reader.borrow_mut() = Some(cx.waker().clone());
        }
        far
    }

    /// Whether the dispatcher may have to wait for the end of the latest request's body after it was
    /// answered.
    pub fn set_body_open(&self, open: bool) {
        self.body_open.set(open);
        if !open {
            self.allow(0);
        }
    }

    fn read_some(&self, bytes: usize) {
        self.read.set(self.read.get() + bytes as u64);
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
            self.0.wake_reader();
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
    /// Bytes that were read since nothing was read last.
    at_once: usize,
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
            at_once: 0,
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
        let quiet_since = activity.quiet_since.get();
        Some(match activity.head_since.get() {
            // What comes is the rest of a body that was answered already.
            _ if activity.body_open.get() => (quiet_since + self.patience.head, false),
            Some(since) => (since + self.patience.head, true),
            None => (quiet_since + self.patience.keep_alive, false),
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
            if this.watched {
                if this.activity.is_far_ahead(cx) {
                    return Poll::Pending;
                }
                if this.at_once >= AT_ONCE_MAX {
                    this.at_once = 0;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            if let Poll::Ready(read) = Pin::new(&mut this.wire).poll_read(cx, buf) {
                if !this.watched {
                    return Poll::Ready(read);
                }
                let bytes = buf.filled().len() - before;
                if read.is_ok() && bytes > 0 {
                    this.at_once += bytes;
                    this.activity.read_some(bytes);
                    return Poll::Ready(read);
                }
                return this.poll_end(cx, read.is_err());
            }
            this.at_once = 0;
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
                let was_blocked = this.blocked;
                this.blocked = !matches!(written, Poll::Ready(Ok(n)) if n == output.len());
                if was_blocked && written.is_ready() {
                    // A peer that takes a long answer slowly is not idle.
                    this.activity.quiet_since.set(Instant::now());
                }
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::poll_fn;

    use super::*;

    const OWN: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n";
    const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{}\r\n";
    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(60),
        keep_alive: Duration::from_secs(60),
    };

    /// A peer that takes as many bytes at a time as it is told (0: none this time), and sends nothing but
    /// its end.
    #[derive(Default)]
    struct Peer {
        takes: VecDeque<usize>,
        taken: Vec<u8>,
        shut: bool,
    }

    impl AsyncRead for Peer {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Peer {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            assert!(!self.shut, "written after the end");
            let takes = self.takes.pop_front().unwrap_or(usize::MAX).min(buf.len());
            if takes == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.taken.extend_from_slice(&buf[..takes]);
            Poll::Ready(Ok(takes))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.shut = true;
            Poll::Ready(Ok(()))
        }
    }

    /// Writes as the dispatcher does: what is left of its buffer, again and again, then a flush. More may
    /// have been added to the buffer when it tries again.
    async fn write(connection: &mut Connection<Peer>, pieces: &[&str]) {
        let mut buffer = Vec::new();
        let mut pieces = pieces.iter();
        loop {
            match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece.as_bytes()),
                None if buffer.is_empty() => break,
                None => {}
            }
            let tried = poll_fn(|cx| {
                let tried = Pin::new(&mut *connection).poll_write(cx, &buffer);
                Poll::Ready(tried)
            });
            match tried.await {
                Poll::Ready(written) => drop(buffer.drain(..written.unwrap())),
                Poll::Pending => actix_web::rt::task::yield_now().await,
            }
        }
        poll_fn(|cx| Pin::new(&mut *connection).poll_flush(cx))
            .await
            .unwrap();
    }

    fn connection(takes: &[usize]) -> Connection<Peer> {
        let peer = Peer {
            takes: takes.iter().copied().collect(),
            ..Peer::default()
        };
        Connection::new(peer, true, PATIENCE, None)
    }

    fn assert_refused_after(connection: &Connection<Peer>, before: &str, case: &str) {
        let text = String::from_utf8(connection.wire.taken.clone()).unwrap();
        let refusal = text.strip_prefix(before).expect(case);
        let (head, body) = refusal.split_once("\r\n\r\n").expect(case);
        assert!(
            head.starts_with("HTTP/1.1 400 Bad Request\r\nContent-Length: "),
            "{case}"
        );
        let body: serde_json::Value = serde_json::from_str(body).expect(case);
        assert_eq!(body["code"], "malformed", "{case}");
        assert!(connection.wire.shut, "{case}");
    }

    #[actix_web::test]
    async fn whatever_the_peer_takes_at_a_time_it_gets_the_answers_and_then_the_refusal() {
        let output = [GOOD, GOOD, OWN].concat();
        for takes in 0..output.len() {
            for again in [0, 1, 7, 1000] {
                let mut connection = connection(&[takes, again, 0, takes, again]);
                write(&mut connection, &[&output]).await;
                let case = format!("{takes} bytes, then {again}");
                assert_refused_after(&connection, &[GOOD, GOOD].concat(), &case);
            }
        }
    }

    #[actix_web::test]
    async fn an_answer_that_is_added_while_the_peer_does_not_take_the_first_is_seen() {
        for takes in 0..GOOD.len() {
            let mut connection = connection(&[takes, 0, 1]);
            write(&mut connection, &[GOOD, OWN]).await;
            assert_refused_after(&connection, GOOD, &format!("{takes} bytes"));
        }
    }

    #[actix_web::test]
    async fn what_is_ours_passes_byte_for_byte() {
        for takes in 0..GOOD.len() {
            let mut connection = connection(&[takes, 1, 0, 2]);
            write(&mut connection, &[GOOD, GOOD, GOOD]).await;
            let passed = String::from_utf8(connection.wire.taken.clone()).unwrap();
            assert_eq!(passed, GOOD.repeat(3), "{takes} bytes");
        }
    }

    #[actix_web::test]
    async fn nothing_is_looked_for_in_http_2() {
        let peer = Peer::default();
        let mut connection = Connection::new(peer, false, PATIENCE, None);
        write(&mut connection, &[OWN]).await;
        assert_eq!(connection.wire.taken, OWN.as_bytes());
    }

    #[actix_web::test]
    async fn the_end_breaks_off_a_request_that_is_under_way_and_lets_a_whole_one_be_taken_first() {
        let read = |connection: &mut Connection<Peer>, cx: &mut Context<'_>| {
            let mut space = [0; 8];
            let mut buffer = ReadBuf::new(&mut space);
            Poll::Ready(Pin::new(connection).poll_read(cx, &mut buffer))
        };
        let mut idle = connection(&[]);
        let end = poll_fn(|cx| read(&mut idle, cx)).await;
        assert!(matches!(end, Poll::Ready(Ok(()))), "{end:?}");

        let mut busy = connection(&[]);
        busy.activity.read_some(1);
        let end = poll_fn(|cx| read(&mut busy, cx)).await;
        assert!(end.is_pending(), "{end:?}");
        let _under_way = busy.activity.begin(0);
        let end = poll_fn(|cx| read(&mut busy, cx)).await;
        assert!(matches!(end, Poll::Ready(Err(_))), "{end:?}");
    }
}
