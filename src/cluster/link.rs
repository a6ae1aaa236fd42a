//! The asking end of a connection to another instance. Many questions can be open at once.
//!
//! A question is withdrawn at the other end when its asker drops the future, when the connection breaks, and when
//! nothing was received on the connection for too long.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use scopeguard::ScopeGuard;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::connection;
use super::wire::{
    HandshakeOffer, PROTOCOLS, PeerReply, Question, ReplyFrame, RequestFrame, frame, read_frames,
    write_frames,
};
use crate::shared::event_feed::FeedEvent;
use crate::store::PeerAddress;
use crate::store::members::InstanceId;

/// A connection to another instance; dropping it ends the connection.
pub struct Link {
    /// The frames to send. The connection ends when this is dropped.
    frames: UnboundedSender<Vec<u8>>,
    /// Where the answers to open questions go.
    waiting: RefCell<HashMap<u64, oneshot::Sender<PeerReply>>>,
    /// Where events go, which come in many pieces.
    followers: RefCell<HashMap<u64, UnboundedSender<PeerReply>>>,
    next: Cell<u64>,
    /// When the first ping that has no pong yet was sent.
    pinged: Cell<Option<Instant>>,
    /// Time from the last answered ping to its pong.
    round_trip: watch::Sender<Duration>,
    ended: watch::Sender<bool>,
}

impl Link {
    fn send(&self, request: &RequestFrame) {
        // Fails only when the connection has ended, which withdraws every question.
        let _ = self.frames.send(frame(request));
    }

    fn hear(&self, heard: ReplyFrame) {
        let (id, reply) = match heard {
            ReplyFrame::Reply { id, reply } => (id, reply),
            ReplyFrame::Alive => return,
            ReplyFrame::Pong => {
                if let Some(asked) = self.pinged.take() {
                    self.round_trip.send_replace(asked.elapsed());
                }
                return;
            }
        };
        // If the asker is gone, `Gone` is on its way to the other end already.
        if let Some(pieces) = self.followers.borrow().get(&id) {
            let _ = pieces.send(reply);
        } else if let Some(answer) = self.waiting.borrow_mut().remove(&id) {
            let _ = answer.send(reply);
        }
    }

    fn end(&self) {
        self.waiting.borrow_mut().clear();
        self.followers.borrow_mut().clear();
        self.ended.send_replace(true);
    }

    /// Sends a question and returns its number.
    fn put(&self, question: Question) -> u64 {
        let id = self.next.get();
        self.next.set(id + 1);
        let question = Box::new(question);
        self.send(&RequestFrame::Question { id, question });
        id
    }

    fn withdraw(&self, id: u64) {
        self.waiting.borrow_mut().remove(&id);
        self.followers.borrow_mut().remove(&id);
        self.send(&RequestFrame::Gone(id));
    }

    /// Connects. `silence_max`: the connection ends when nothing was received for this long.
    ///
    /// # Errors
    /// No connection within `silence_max`, or as [`connection::open`]. Nothing was asked then.
    pub async fn open(
        to: InstanceId,
        peer: &PeerAddress,
        silence_max: Duration,
    ) -> io::Result<Rc<Link>> {
        let us = HandshakeOffer::new(&peer.secret, to, PROTOCOLS);
        let (read, write) = timeout(silence_max, connection::open(peer, us)).await??;
        let address = peer.address.clone();
        let (frames, to_write) = unbounded_channel();
        let link = Rc::new(Link {
            frames,
            waiting: RefCell::default(),
            followers: RefCell::default(),
            next: Cell::new(0),
            pinged: Cell::new(None),
            round_trip: watch::Sender::new(Duration::ZERO),
            ended: watch::Sender::new(false),
        });
        let used = Rc::downgrade(&link);
        actix_rt::spawn(async move {
            let hear = |heard: ReplyFrame| {
                if let Some(link) = used.upgrade() {
                    link.hear(heard);
                }
            };
            let ended = tokio::select! {
                ended = read_frames(read, silence_max, hear) => ended,
                ended = write_frames(write, to_write) => ended,
                () = pings(&used, silence_max / 4) => Ok(()),
            };
            log::debug!("the connection to the instance at {address} has ended: {ended:?}");
            if let Some(link) = used.upgrade() {
                link.end();
            }
        });
        Ok(link)
    }

    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Resolves when the connection has ended.
    pub async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// The time from ping to pong; a new value after each pong.
    pub fn round_trips(&self) -> watch::Receiver<Duration> {
        self.round_trip.subscribe()
    }

    /// Sends a question without waiting for an answer.
    pub fn tell(&self, question: Question) {
        self.put(question);
    }

    /// Sends a question and waits for its answer. Dropping the future withdraws the question. `None`: the
    /// connection ended before the answer, and the question may have been carried out.
    pub async fn ask(&self, question: Question) -> Option<PeerReply> {
        if self.has_ended() {
            return None;
        }
        let (sender, answer) = oneshot::channel();
        let id = self.put(question);
        self.waiting.borrow_mut().insert(id, sender);
        let open = scopeguard::guard(id, |id| self.withdraw(id));
        let reply = answer.await.ok()?;
        let id = ScopeGuard::into_inner(open);
        if reply.is_tracked() {
            self.send(&RequestFrame::Taken(id));
        }
        Some(reply)
    }

    /// As [`Link::ask`], for [`Question::Follow`], whose answer comes in pieces until the connection ends.
    /// `None`: the connection has ended.
    pub fn follow(self: Rc<Self>, question: Question) -> Option<PeerEvents> {
        if self.has_ended() {
            return None;
        }
        let (sender, pieces) = unbounded_channel();
        let question = self.put(question);
        self.followers.borrow_mut().insert(question, sender);
        Some(PeerEvents {
            link: self,
            question,
            pieces,
            events: std::vec::IntoIter::default(),
        })
    }
}

/// Sends pings for as long as somebody uses the connection.
async fn pings(used: &Weak<Link>, every: Duration) {
    while let Some(link) = used.upgrade() {
        if link.pinged.get().is_none() {
            link.pinged.set(Some(Instant::now()));
        }
        link.send(&RequestFrame::Ping);
        drop(link);
        tokio::time::sleep(every).await;
    }
}

/// The events of another instance. Dropping it withdraws the question.
pub struct PeerEvents {
    link: Rc<Link>,
    /// Number of the question that the events answer.
    question: u64,
    pieces: UnboundedReceiver<PeerReply>,
    /// Those of the last piece that were not handed out yet.
    events: std::vec::IntoIter<FeedEvent>,
}

impl PeerEvents {
    /// Waits for the first piece, which has no events. `None`: the connection has ended.
    pub async fn begin(&mut self) -> Option<PeerReply> {
        let piece = self.pieces.recv().await;
        self.link.send(&RequestFrame::Taken(self.question));
        piece
    }

    /// The next event, without waiting for one.
    ///
    /// # Errors
    /// As a receiver of the other instance's ring.
    pub fn try_next(&mut self) -> Result<Arc<FeedEvent>, TryRecvError> {
        loop {
            if let Some(event) = self.events.next() {
                return Ok(Arc::new(event));
            }
            let piece = self.pieces.try_recv().map_err(|error| match error {
                mpsc::error::TryRecvError::Empty => TryRecvError::Empty,
                mpsc::error::TryRecvError::Disconnected => TryRecvError::Closed,
            })?;
            self.link.send(&RequestFrame::Taken(self.question));
            let PeerReply::Events { missed, events } = piece else {
                // The other instance sends nothing more. Whoever asks again must hear that too.
                self.pieces.close();
                return Err(TryRecvError::Closed);
            };
            self.events = events.into_iter();
            if missed > 0 {
                return Err(TryRecvError::Lagged(missed));
            }
        }
    }
}

impl Drop for PeerEvents {
    fn drop(&mut self) {
        self.link.withdraw(self.question);
    }
}
