//! The connections of one worker to the other instances: opened when somebody has a question, two to each.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{OnceCell, watch};

use super::link::{AnswerPieces, Link};
use super::place::OtherMember;
use super::wire::{PeerReply, Question};
use crate::registry::client::Router;
use crate::shared::members::View;
use crate::store::members::{InstanceId, MemberState};

/// The connection is opened by whoever comes first.
type LinkCell = Rc<OnceCell<Link>>;

/// A large document holds up what is behind it on a connection: locks have one of their own.
#[derive(Default)]
struct LinkPair {
    locks: LinkCell,
    documents: LinkCell,
}

/// What became of a question.
pub enum Exchange {
    Answered(PeerReply),
    /// Nothing was done.
    NotDone,
    /// It may have been acted on.
    Lost,
}

/// To all others.
pub struct Links {
    view: watch::Receiver<View>,
    pairs: RefCell<HashMap<InstanceId, LinkPair>>,
    lease: Duration,
}

impl Links {
    /// `lease`: `INSTANCE_LEASE_SECONDS`.
    pub fn new(view: watch::Receiver<View>, lease: Duration) -> Links {
        Links {
            view,
            pairs: RefCell::default(),
            lease,
        }
    }

    pub fn view(&self) -> watch::Ref<'_, View> {
        self.view.borrow()
    }

    pub fn follow(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    fn cell(&self, id: InstanceId, is_bulky: bool) -> LinkCell {
        let mut pairs = self.pairs.borrow_mut();
        if !pairs.contains_key(&id) {
            let members = self.view.borrow().members.clone();
            let is_known =
                |id: &InstanceId| members.as_ref().is_some_and(|m| m.member(*id).is_some());
            pairs.retain(|id, _| is_known(id));
        }
        let pair = pairs.entry(id).or_default();
        match is_bulky {
            true => pair.documents.clone(),
            false => pair.locks.clone(),
        }
    }

    /// The next request opens another connection.
    fn forget(&self, broken: &LinkCell) {
        for pair in self.pairs.borrow_mut().values_mut() {
            for cell in [&mut pair.locks, &mut pair.documents] {
                if Rc::ptr_eq(cell, broken) {
                    *cell = LinkCell::default();
                }
            }
        }
    }

    /// The connection to this instance that is for such questions.
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

    /// Sends a question that nobody waits for, if there is a connection.
    pub fn tell(&self, id: InstanceId, question: Question) {
        let pairs = self.pairs.borrow();
        if let Some(link) = pairs.get(&id).and_then(|pair| pair.locks.get()) {
            link.tell(question);
        }
    }

    /// Asks another instance.
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
            Ok(PeerReply::NotOwner) => {
                peers.misdirected.inc();
                router.look();
                Exchange::NotDone
            }
            Ok(told) => Exchange::Answered(told),
            Err(_) => Exchange::Lost,
        }
    }

    /// Ready when the one that was asked does not live any more, and what it may have said before has come: it may hang with
    /// the question in its hands, and what it says later is not the truth any more. (Whoever gives a slot away answers
    /// first.)
    async fn no_answer_counts(&self, id: InstanceId) {
        let mut view = self.view.clone();
        let gone = view.wait_for(|view| !is_alive(view, id)).await;
        let was_fenced = gone.is_ok_and(|view| state(&view, id).is_some());
        if !was_fenced {
            // It may have left in order.
            tokio::time::sleep(self.lease / 4).await;
        }
    }

    /// Asks another instance something that is answered in pieces, until the connection ends.
    pub async fn ask_on(&self, other: &OtherMember, question: Question) -> Option<AnswerPieces> {
        let cell = self.link(other, &question).await?;
        cell.get()?.ask_on(question).ok()
    }
}

fn state(view: &View, id: InstanceId) -> Option<MemberState> {
    let members = view.members.as_ref()?;
    members.member(id).map(|member| member.state)
}

fn is_alive(view: &View, id: InstanceId) -> bool {
    state(view, id).is_some_and(MemberState::is_alive)
}
