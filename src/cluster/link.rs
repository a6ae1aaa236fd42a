//! The asking end of a connection to another instance. Many questions can be open at once.
//!
//! A question is withdrawn at the other end when its asker drops the future, when the connection breaks, and when
//! nothing was received on the connection for too long.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::connection::PeerConnection;
use super::wire::{
    HandshakeOffer, PeerReply, Protocols, Question, ReplyFrame, RequestFrame, frame, read_frames,
    write_frames,
};
use crate::store::PeerAddress;
use crate::store::members::InstanceId;

/// Where the answer to an open question goes: one answer, or many pieces.
enum Waiting {
    One(oneshot::Sender<PeerReply>),
    Many(UnboundedSender<PeerReply>),
}

struct LinkState {
    frames: UnboundedSender<Vec<u8>>,
    waiting: RefCell<HashMap<u64, Waiting>>,
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
        let mut waiting = self.waiting.borrow_mut();
        // If the asker is gone, `Gone` is on its way to the other end already.
        if let Some(Waiting::Many(pieces)) = waiting.get(&id) {
            let _ = pieces.send(reply);
        } else if let Some(Waiting::One(answer)) = waiting.remove(&id) {
            let _ = answer.send(reply);
        }
    }

    fn end(&self) {
        self.waiting.borrow_mut().clear();
        self.ended.send_replace(true);
    }

    fn next_id(&self) -> u64 {
        let id = self.next.get();
        self.next.set(id + 1);
        id
    }
}

impl Link {
    /// Connects. `silence_max`: the connection ends when nothing was received for this long.
    ///
    /// # Errors
    /// No connection within `silence_max`, or as [`PeerConnection::open`]. Nothing was asked then.
    pub async fn open(
        to: InstanceId,
        peer: &PeerAddress,
        silence_max: Duration,
    ) -> io::Result<Link> {
        let us = HandshakeOffer::new(&peer.secret, to, Protocols::OURS);
        let opened = timeout(silence_max, PeerConnection::open(peer, us)).await??;
        let PeerConnection {
            read,
            write,
            protocol,
        } = opened;
        let address = peer.address.clone();
        log::debug!("speaks version {protocol} of the protocol with the instance at {address}");
        let (frames, to_write) = unbounded_channel();
        let state = Rc::new(LinkState {
            frames,
            waiting: RefCell::default(),
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
        let id = self.state.next_id();
        let question = Box::new(question);
        self.state.send(&RequestFrame::Question { id, question });
    }

    /// Sends a question and waits for its answer. Dropping the future withdraws the question. `None`: the
    /// connection ended before the answer, and the question may have been carried out.
    pub async fn ask(&self, question: Question) -> Option<PeerReply> {
        let (sender, answer) = oneshot::channel();
        let mut open = self.open_question(question, Waiting::One(sender))?;
        let reply = answer.await.ok()?;
        open.answered = true;
        if reply.is_tracked() {
            self.state.send(&RequestFrame::Taken(open.id));
        }
        Some(reply)
    }

    /// As [`Link::ask`], for a question whose answer comes in pieces until the connection ends. `None`: the
    /// connection has ended.
    pub fn ask_on(&self, question: Question) -> Option<AnswerStream> {
        let (sender, pieces) = unbounded_channel();
        let open = self.open_question(question, Waiting::Many(sender))?;
        Some(AnswerStream { pieces, open })
    }

    fn open_question(&self, question: Question, waiting: Waiting) -> Option<OpenQuestion> {
        if self.has_ended() {
            return None;
        }
        let id = self.state.next_id();
        self.state.waiting.borrow_mut().insert(id, waiting);
        let question = Box::new(question);
        self.state.send(&RequestFrame::Question { id, question });
        Some(OpenQuestion {
            state: self.state.clone(),
            id,
            answered: false,
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

/// The pieces of an answer. Dropping it withdraws the question.
pub struct AnswerStream {
    pieces: UnboundedReceiver<PeerReply>,
    open: OpenQuestion,
}

impl AnswerStream {
    /// Waits for the next piece. `None`: the connection has ended.
    pub async fn next(&mut self) -> Option<PeerReply> {
        let piece = self.pieces.recv().await;
        self.open.state.send(&RequestFrame::Taken(self.open.id));
        piece
    }

    /// The next piece, without waiting for one.
    ///
    /// # Errors
    /// [`TryRecvError::Empty`]: it is not there yet. [`TryRecvError::Disconnected`]: the connection has ended.
    pub fn try_next(&mut self) -> Result<PeerReply, TryRecvError> {
        let piece = self.pieces.try_recv()?;
        self.open.state.send(&RequestFrame::Taken(self.open.id));
        Ok(piece)
    }
}

/// An open question; dropped before its answer was taken, it withdraws the question.
struct OpenQuestion {
    state: Rc<LinkState>,
    id: u64,
    answered: bool,
}

impl Drop for OpenQuestion {
    fn drop(&mut self) {
        if !self.answered {
            self.state.waiting.borrow_mut().remove(&self.id);
            self.state.send(&RequestFrame::Gone(self.id));
        }
    }
}
