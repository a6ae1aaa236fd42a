//! The answering end of a connection between two instances. Questions are answered like those of this
//! instance's own clients. A reply that the asker did not take, and every request that is open when the
//! connection ends, are treated as those of clients that are gone.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Arbiter;
use actix_server::ServerBuilder;
use actix_service::fn_service;
use foldhash::HashMap;
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::client::ClusterClient;
use super::connection;
use super::reachability::monitor_all;
use super::wire::{
    HandshakeOffer, PROTOCOLS, PeerReply, Question, ReplyFrame, RequestFrame, frame, read_frames,
    write_frames,
};
use crate::lock::{PresentedTicket, Refusal, ResourceName};
use crate::registry::client::{OpenCall, Router};
use crate::resource::messages::{Op, Reply};
use crate::shared::caller::Caller;
use crate::shared::event_feed::FeedEvent;
use crate::shared::gate::Closed;
use crate::shared::members::View;
use crate::shared::server_state::ServerState;
use crate::store::PeerAddress;
use crate::store::members::InstanceId;

/// How often new events are sent to another instance that follows them.
const EVENTS_PAUSE: Duration = Duration::from_millis(200);
/// Most events in one message: as many as the ring of the feed holds.
const EVENTS_MAX: usize = 8192;

/// Adds the socket at which other instances ask this one to the HTTP server, so that its worker threads, on which the
/// resources live, answer other instances too. With `tls`, only TLS is accepted. `lease`: `INSTANCE_LEASE_SECONDS`.
pub fn listen_to_peers(
    builder: ServerBuilder,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    lease: Duration,
    router: impl Fn() -> Router + Send + Clone + 'static,
) -> io::Result<ServerBuilder> {
    let stopping = builder.graceful_shutdown_signal();
    builder.listen("peers", listener, move || {
        let (router, tls) = (Rc::new(router()), tls.clone());
        let stopping = stopping.clone();
        fn_service(move |stream: TcpStream| {
            let (router, tls, stopping) = (router.clone(), tls.clone(), stopping.clone());
            async move {
                let ended = tokio::select! {
                    ended = serve(stream, tls, router.clone(), lease / 2) => ended,
                    () = stopping.notified() => Ok(()),
                };
                match ended {
                    Err(error) if was_given_up(&error) => {
                        log::debug!("a connection to the peer port was given up: {error}");
                    }
                    Err(error) => {
                        router.server.metrics.peer_connections_refused_total.inc();
                        log::warn!("a connection from another instance was refused: {error}");
                    }
                    Ok(()) => {}
                }
                Ok::<(), Infallible>(())
            }
        })
    })
}

/// Whether the other end closed the connection during the handshake: an instance that wanted another one than this, as
/// it does until it has read that this one has a new id, or a port check.
fn was_given_up(error: &io::Error) -> bool {
    let kind = error.kind();
    matches!(
        kind,
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
    )
}

/// Starts a thread that keeps a connection to each of the other instances. `lease`: `INSTANCE_LEASE_SECONDS`.
pub fn start_monitoring(
    server: &Arc<ServerState>,
    router: impl Fn() -> Router + Send + 'static,
    lease: Duration,
) -> Arbiter {
    let (arbiter, server) = (Arbiter::new(), server.clone());
    arbiter.spawn_fn(move || {
        actix_rt::spawn(server.liveness.worker().prove_on());
        actix_rt::spawn(monitor_all(server, lease));
        actix_rt::spawn(release_undelivered(ClusterClient::new(
            router(),
            Some(lease),
        )));
    });
    arbiter
}

/// Releases grants whose clients turned out to be gone after the name had moved, at the instance that has the
/// name now.
async fn release_undelivered(cluster: ClusterClient) {
    let cluster = Rc::new(cluster);
    let Some(mut undelivered_grants) = cluster.router.server.undelivered_grants.to_release() else {
        return;
    };
    while let Some((name, ticket)) = undelivered_grants.recv().await {
        log::debug!("the client of a grant of {name} is gone: releasing it where the name is now");
        let cluster = cluster.clone();
        actix_rt::spawn(async move {
            let presented = PresentedTicket::Ticket(ticket);
            let unlock = Op::Unlock { presented };
            cluster.ask(&name, &unlock, Caller::nobody()).await;
        });
    }
}

/// Serves one connection until it ends. Fails if the handshake does, or takes longer than `silence_max`: the other end
/// may be no instance on this database.
async fn serve(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Rc<Router>,
    silence_max: Duration,
) -> io::Result<()> {
    let mut view = router.server.members.subscribe();
    let Some((id, peer)) = me(&view.borrow()) else {
        log::debug!("another instance connects before this one has joined the database");
        return Ok(());
    };
    let us = HandshakeOffer::new(&peer.secret, id, PROTOCOLS);
    let taking = connection::take(stream, tls.as_ref(), us);
    let (read, write) = timeout(silence_max, taking).await??;
    let (frames, to_write) = unbounded_channel();
    let answering = Rc::new(PeerRequests {
        router,
        frames,
        running: RefCell::default(),
        unconfirmed: RefCell::default(),
        followers: RefCell::default(),
    });
    let ended = tokio::select! {
        ended = read_frames(read, silence_max, |heard| answering.hear(heard)) => ended,
        ended = write_frames(write, to_write) => ended,
        () = answering.prove_alive(silence_max / 4) => Ok(()),
        // This instance has another id now, and the other end asks for the former one.
        _ = view.wait_for(|view| me(view).is_none_or(|(now, _)| now != id)) => Ok(()),
    };
    log::debug!("a connection from another instance has ended: {ended:?}");
    answering.withdraw_all();
    Ok(())
}

/// This instance's id and peer address. `None`: it has not joined the database yet.
fn me(view: &View) -> Option<(InstanceId, PeerAddress)> {
    let members = view.members.as_ref()?;
    let peer = members.member(members.me)?.peer.clone();
    Some((members.me, peer?))
}

/// The questions that came over one connection.
struct PeerRequests {
    router: Rc<Router>,
    frames: UnboundedSender<Vec<u8>>,
    running: RefCell<HashMap<u64, actix_rt::task::JoinHandle<()>>>,
    /// Calls whose answer was sent and not confirmed with `Taken` yet.
    unconfirmed: RefCell<HashMap<u64, OpenCall>>,
    /// For each event stream, whether the events that were sent last are confirmed.
    followers: RefCell<HashMap<u64, Rc<Cell<bool>>>>,
}

impl PeerRequests {
    fn hear(self: &Rc<Self>, heard: RequestFrame) {
        match heard {
            RequestFrame::Question { id, question } => self.begin(id, *question),
            RequestFrame::Taken(id) => {
                if let Some(call) = self.unconfirmed.borrow_mut().remove(&id) {
                    call.confirm();
                } else if let Some(is_confirmed) = self.followers.borrow().get(&id) {
                    is_confirmed.set(true);
                }
            }
            RequestFrame::Gone(id) => self.withdraw(id),
            RequestFrame::Ping => {
                let _ = self.frames.send(frame(&ReplyFrame::Pong));
            }
        }
    }

    async fn prove_alive(&self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            let _ = self.frames.send(frame(&ReplyFrame::Alive));
        }
    }

    fn begin(self: &Rc<Self>, id: u64, question: Question) {
        let metrics = &self.router.server.metrics;
        metrics.forwarded_requests_received_total.inc();
        let requests = self.clone();
        let task = actix_rt::spawn(async move {
            requests.answer(id, question).await;
            requests.running.borrow_mut().remove(&id);
        });
        self.running.borrow_mut().insert(id, task);
    }

    fn tell(&self, id: u64, reply: PeerReply) {
        let _ = self.frames.send(frame(&ReplyFrame::Reply { id, reply }));
    }

    async fn answer(&self, id: u64, question: Question) {
        let router = &self.router;
        let is_here = |name| router.server.slots.is_here(name);
        let answers = router.server.gate.check().is_ok() && question.name().is_none_or(is_here);
        // All but requests to resources are boxed, so that the futures of those do not get as large.
        let reply = match question {
            Question::Look => return router.refresh_members(),
            _ if !answers => PeerReply::NotOwner,
            Question::Ask {
                name,
                op: Op::Touch { presented },
                caller,
            } => return router.touch(&name, presented, &caller),
            Question::Ask { name, op, caller } => self.ask(id, (name, op, caller)).await,
            Question::Page(query) => {
                let told = |(page, covered)| PeerReply::Page(page, covered);
                self.checked(Box::pin(router.part_of_page(query)).await, told)
            }
            Question::LockCounts(prefix) => {
                let told = |(counts, covered)| PeerReply::LockCounts(counts, covered);
                self.checked(Box::pin(router.part_of_count(prefix)).await, told)
            }
            Question::History(name) => {
                let history = Box::pin(router.history(&name)).await;
                self.checked(history, PeerReply::History)
            }
            Question::DocumentSizes {
                id, after, limit, ..
            } => {
                let sizes = Box::pin(router.document_sizes(&id, &after, limit)).await;
                self.checked(sizes, PeerReply::DocumentSizes)
            }
            Question::Follow(prefix) => return Box::pin(self.follow(id, &prefix)).await,
        };
        self.tell(id, reply);
    }

    async fn ask(&self, id: u64, (name, op, caller): (ResourceName, Op, Arc<Caller>)) -> PeerReply {
        let router = &self.router;
        if let Op::Write { json, .. } = &op
            && !router.server.store.takes_document(json)
        {
            return PeerReply::Reply(Box::new(Reply::Refused(Refusal::TooLargeToStore, None)));
        }
        let (reply, call) = router.ask(&name, &op, &caller).await;
        let reply = PeerReply::Reply(reply);
        if let Some(call) = call {
            match reply.is_tracked() {
                true => drop(self.unconfirmed.borrow_mut().insert(id, call)),
                false => call.confirm(),
            }
        }
        reply
    }

    /// The reply to a question that reads only. No answer leaves when the store may no longer be this instance's.
    fn checked<T>(
        &self,
        answer: Result<T, Closed>,
        reply: impl FnOnce(T) -> PeerReply,
    ) -> PeerReply {
        let is_ours = self.router.server.gate.check_answer().is_ok();
        match answer {
            Ok(answer) if is_ours => reply(answer),
            Err(Closed::ListingTooLong) => PeerReply::TooBusy,
            Ok(_) | Err(_) => PeerReply::NotOwner,
        }
    }

    /// Sends events for as long as this instance's gate is open. An asker that has not confirmed the last ones is
    /// sent nothing, and misses what the ring of the feed cannot hold meanwhile, like a slow reader of this
    /// instance.
    async fn follow(&self, id: u64, prefix: &str) {
        let server = &self.router.server;
        let Ok((mut ring, _place)) = server.feed.follow() else {
            return self.tell(id, PeerReply::TooBusy);
        };
        let is_confirmed = Rc::new(Cell::new(false));
        self.followers.borrow_mut().insert(id, is_confirmed.clone());
        self.tell(
            id,
            PeerReply::Events {
                missed: 0,
                events: Vec::new(),
            },
        );
        while server.gate.check().is_ok() {
            tokio::time::sleep(EVENTS_PAUSE).await;
            if is_confirmed.get()
                && let Some(events) = events(&mut ring, prefix)
            {
                is_confirmed.set(false);
                self.tell(id, events);
            }
        }
        self.tell(id, PeerReply::NotOwner);
    }

    fn withdraw(&self, id: u64) {
        if let Some(task) = self.running.borrow_mut().remove(&id) {
            task.abort();
        }
        // Dropping the call tells the actor that the client is gone.
        self.unconfirmed.borrow_mut().remove(&id);
        self.followers.borrow_mut().remove(&id);
    }

    fn withdraw_all(&self) {
        for (_, task) in self.running.borrow_mut().drain() {
            task.abort();
        }
        self.unconfirmed.borrow_mut().clear();
    }
}

/// The events since the last ones, at most [`EVENTS_MAX`]; `None`: there are none.
fn events(ring: &mut broadcast::Receiver<Arc<FeedEvent>>, prefix: &str) -> Option<PeerReply> {
    let (mut missed, mut events) = (0, Vec::new());
    while events.len() < EVENTS_MAX {
        match ring.try_recv() {
            Ok(event) if event.name.as_str().starts_with(prefix) => {
                events.push(event.as_ref().clone());
            }
            Ok(_) => {}
            Err(TryRecvError::Lagged(count)) => missed += count,
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        }
    }
    (missed > 0 || !events.is_empty()).then_some(PeerReply::Events { missed, events })
}
