//! One worker's connections to the other instances: two to each, opened when there is a question.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::sync::{OnceCell, watch};

use super::hold::Hold;
use super::link::{AnswerPieces, Link};
use super::place::OtherMember;
use super::wire::{PeerReply, Question};
use crate::registry::client::Router;
use crate::shared::members::{HOLD_BEYOND, View};
use crate::shared::server_state::ServerState;
use crate::store::members::{InstanceId, MemberState};

/// A connection. The first question opens it; questions that come meanwhile wait for it.
type LinkCell = Rc<OnceCell<Link>>;

/// The outcome of a question to another instance.
pub enum Exchange {
    Answered(PeerReply),
    /// The question was not carried out: there was no connection, or the other instance does not answer for the
    /// name.
    NotDone,
    /// No answer came, and the question may have been carried out.
    Lost,
}

/// The connections to all other instances.
pub struct Links {
    view: watch::Receiver<View>,
    /// By instance, and by whether the connection is for bulky questions: a large document holds up every frame
    /// behind it on its connection.
    cells: RefCell<HashMap<(InstanceId, bool), LinkCell>>,
    lease: Duration,
    /// Requests that wait or are passed on, and are not answered yet.
    pub in_flight: Arc<AtomicUsize>,
}

impl Links {
    /// `lease`: `INSTANCE_LEASE_SECONDS`.
    pub fn new(server: &ServerState, lease: Duration) -> Links {
        Links {
            view: server.members.follow(),
            cells: RefCell::default(),
            lease,
            in_flight: server.count_in_flight(),
        }
    }

    pub fn view(&self) -> watch::Ref<'_, View> {
        self.view.borrow()
    }

    /// The hold of a request that may itself wait for `wait`.
    pub fn hold(&self, wait: Duration) -> Hold {
        let limit = wait.max(self.lease + HOLD_BEYOND);
        Hold::new(limit, self.view.clone())
    }

    fn cell(&self, id: InstanceId, is_bulky: bool) -> LinkCell {
        let mut cells = self.cells.borrow_mut();
        if !cells.contains_key(&(id, is_bulky)) {
            let members = self.view.borrow().members.clone();
            let is_known =
                |id: &InstanceId| members.as_ref().is_some_and(|m| m.member(*id).is_some());
            cells.retain(|(id, _), _| is_known(id));
        }
        cells.entry((id, is_bulky)).or_default().clone()
    }

    /// Removes a broken connection; the next question opens another one.
    fn forget(&self, broken: &LinkCell) {
        let mut cells = self.cells.borrow_mut();
        cells.retain(|_, cell| !Rc::ptr_eq(cell, broken));
    }

    /// The connection to this instance for questions of this kind. `None`: it cannot be opened, or has ended.
    async fn link(&self, other: &OtherMember, question: &Question) -> Option<LinkCell> {
        let peer = other.peer()?;
        let cell = self.cell(other.id, question.is_bulky());
        let opening = || Link::open(other.id, peer, self.lease / 2);
        match cell.get_or_try_init(opening).await {
            Ok(link) if !link.has_ended() => Some(cell),
            Ok(_) => {
                self.forget(&cell);
                None
            }
            Err(error) => {
                log::debug!(
                    "the instance at {} cannot be reached: {error}",
                    peer.address
                );
                None
            }
        }
    }

    /// Sends a question without waiting for an answer, if there is a connection.
    pub fn tell(&self, id: InstanceId, question: Question) {
        let cells = self.cells.borrow();
        if let Some(link) = cells.get(&(id, false)).and_then(|cell| cell.get()) {
            link.tell(question);
        }
    }

    /// Asks another instance one question and waits for the outcome.
    pub async fn ask(&self, router: &Router, other: &OtherMember, question: Question) -> Exchange {
        let Some(cell) = self.link(other, &question).await else {
            return Exchange::NotDone;
        };
        let Some(link) = cell.get() else {
            return Exchange::NotDone;
        };
        let peers = &router.server.metrics.peers;
        peers.sent.inc();
        let told = tokio::select! {
            biased;
            told = link.ask(question) => told,
            () = self.no_answer_counts(other.id) => return Exchange::Lost,
        };
        match told {
            Some(PeerReply::NotOwner) => {
                peers.misdirected.inc();
                router.look();
                Exchange::NotDone
            }
            Some(told) => Exchange::Answered(told),
            None => Exchange::Lost,
        }
    }

    /// Resolves when the asked instance is dead or gone, and answers that it sent before have arrived. It may
    /// hang with the question, and an answer that it sends after its death is not valid any more. (An instance
    /// that gives a slot away answers first.)
    async fn no_answer_counts(&self, id: InstanceId) {
        let mut view = self.view.clone();
        let gone = view.wait_for(|view| !is_alive(view, id)).await;
        let was_fenced = gone.is_ok_and(|view| state(&view, id).is_some());
        if !was_fenced {
            // Its row is gone: it may have shut down in order, with its last answers still on their way.
            tokio::time::sleep(self.lease / 4).await;
        }
    }

    /// Asks another instance a question whose answer comes in pieces until the connection ends. `None`: no
    /// connection.
    pub async fn ask_on(&self, other: &OtherMember, question: Question) -> Option<AnswerPieces> {
        let cell = self.link(other, &question).await?;
        cell.get()?.ask_on(question)
    }
}

fn state(view: &View, id: InstanceId) -> Option<MemberState> {
    let members = view.members.as_ref()?;
    members.member(id).map(|member| member.state)
}

fn is_alive(view: &View, id: InstanceId) -> bool {
    state(view, id).is_some_and(MemberState::is_alive)
}
