//! The asking end of a connection to another instance. Many questions can be open at once.
//!
//! A question is withdrawn at the other end when its asker drops the future, when the connection breaks, and when
//! nothing was received on the connection for too long.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use scopeguard::ScopeGuard;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::connection;
use super::wire::{
    HandshakeOffer, PROTOCOLS, PeerReply, Question, ReplyFrame, RequestFrame, frame, read_frames,
    write_frames,
};
use crate::shared::event_feed::{FeedEvent, NextEvent};
use crate::store::PeerAddress;
use crate::store::members::InstanceId;

struct LinkState {
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

/// A connection to another instance; dropping it ends the connection.
pub struct Link {
    state: Rc<LinkState>,
    task: actix_rt::task::JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
        self.state.end();
    }
}

impl LinkState {
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
}

impl Link {
    /// Connects. `silence_max`: the connection ends when nothing was received for this long.
    ///
    /// # Errors
    /// No connection within `silence_max`, or as [`connection::open`]. Nothing was asked then.
    pub async fn open(
        to: InstanceId,
        peer: &PeerAddress,
        silence_max: Duration,
    ) -> io::Result<Link> {
        let us = HandshakeOffer::new(&peer.secret, to, PROTOCOLS);
        let (read, write) = timeout(silence_max, connection::open(peer, us)).await??;
        let address = peer.address.clone();
        let (frames, to_write) = unbounded_channel();
        let state = Rc::new(LinkState {
            frames,
            waiting: RefCell::default(),
            followers: RefCell::default(),
            next: Cell::new(0),
            pinged: Cell::new(None),
            round_trip: watch::Sender::new(Duration::ZERO),
            ended: watch::Sender::new(false),
        });
        let shared = state.clone();
        let task = actix_rt::spawn(async move {
            let ended = tokio::select! {
                ended = read_frames(read, silence_max, |heard| shared.hear(heard)) => ended,
                ended = write_frames(write, to_write) => ended,
                () = pings(&shared, silence_max / 4) => Ok(()),
            };
            log::debug!("the connection to the instance at {address} has ended: {ended:?}");
            shared.end();
        });
        Ok(Link { state, task })
    }

    pub fn has_ended(&self) -> bool {
        *self.state.ended.borrow()
    }

    /// Resolves when the connection has ended.
    pub async fn ended(&self) {
        let mut ended = self.state.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// The time from ping to pong; a new value after each pong.
    pub fn round_trips(&self) -> watch::Receiver<Duration> {
        self.state.round_trip.subscribe()
    }

    /// Sends a question without waiting for an answer.
    pub fn tell(&self, question: Question) {
        self.state.put(question);
    }

    /// Sends a question and waits for its answer. Dropping the future withdraws the question. `None`: the
    /// connection ended before the answer, and the question may have been carried out.
    pub async fn ask(&self, question: Question) -> Option<PeerReply> {
        if self.has_ended() {
            return None;
        }
        let (sender, answer) = oneshot::channel();
        let id = self.state.put(question);
        self.state.waiting.borrow_mut().insert(id, sender);
        let open = scopeguard::guard(id, |id| self.state.withdraw(id));
        let reply = answer.await.ok()?;
        let id = ScopeGuard::into_inner(open);
        if reply.is_tracked() {
            self.state.send(&RequestFrame::Taken(id));
        }
        Some(reply)
    }

    /// As [`Link::ask`], for [`Question::Follow`], whose answer comes in pieces until the connection ends.
    /// `None`: the connection has ended.
    pub fn follow(&self, question: Question) -> Option<PeerEvents> {
        if self.has_ended() {
            return None;
        }
        let (sender, pieces) = unbounded_channel();
        let question = self.state.put(question);
        self.state.followers.borrow_mut().insert(question, sender);
        Some(PeerEvents {
            state: self.state.clone(),
            question,
            pieces,
            events: std::vec::IntoIter::default(),
        })
    }
}

async fn pings(state: &LinkState, every: Duration) {
    loop {
        if state.pinged.get().is_none() {
            state.pinged.set(Some(Instant::now()));
        }
        state.send(&RequestFrame::Ping);
        tokio::time::sleep(every).await;
    }
}

/// The events of another instance. Dropping it withdraws the question.
pub struct PeerEvents {
    state: Rc<LinkState>,
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
        self.state.send(&RequestFrame::Taken(self.question));
        piece
    }

    /// The next event, without waiting for one.
    pub fn try_next(&mut self) -> NextEvent {
        loop {
            if let Some(event) = self.events.next() {
                return NextEvent::Event(Arc::new(event));
            }
            let piece = match self.pieces.try_recv() {
                Ok(piece) => piece,
                Err(TryRecvError::Empty) => return NextEvent::Nothing,
                Err(TryRecvError::Disconnected) => return NextEvent::End,
            };
            self.state.send(&RequestFrame::Taken(self.question));
            let PeerReply::Events { missed, events } = piece else {
                return NextEvent::End;
            };
            self.events = events.into_iter();
            if missed > 0 {
                return NextEvent::Missed(missed);
            }
        }
    }
}

impl Drop for PeerEvents {
    fn drop(&mut self) {
        self.state.withdraw(self.question);
    }
}
