//! One worker's connections to the other instances: two to each, opened when there is a question.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::sync::{OnceCell, watch};

use super::hold::Hold;
use super::link::Link;
use super::wire::{PeerReply, Question};
use crate::registry::client::Router;
use crate::shared::members::{HOLD_BEYOND, View};
use crate::store::members::{InstanceId, MemberState};

/// A connection. The first question opens it; questions that come meanwhile wait for it.
type LinkCell = Rc<OnceCell<Rc<Link>>>;

/// The connections to all other instances.
pub struct Links {
    /// The worker's way to this instance's own resources.
    pub router: Rc<Router>,
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
    pub fn new(router: Rc<Router>, lease: Duration) -> Links {
        Links {
            view: router.server.members.subscribe(),
            cells: RefCell::default(),
            lease,
            in_flight: router.server.count_in_flight(),
            router,
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
    pub async fn link(&self, id: InstanceId, question: &Question) -> Option<Rc<Link>> {
        let cell = self.cell(id, question.is_bulky());
        let link = cell.get_or_try_init(|| self.open(id)).await.ok()?.clone();
        if link.has_ended() {
            self.forget(&cell);
            return None;
        }
        Some(link)
    }

    async fn open(&self, id: InstanceId) -> io::Result<Rc<Link>> {
        let members = self.view.borrow().members.clone();
        let member = members.as_ref().and_then(|members| members.member(id));
        let Some(peer) = member.and_then(|member| member.peer.as_ref()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let opened = Link::open(id, peer, self.lease / 2).await;
        let address = &peer.address;
        opened.inspect_err(|error| {
            log::debug!("the instance at {address} cannot be reached: {error}");
        })
    }

    /// Sends a question without waiting for an answer, if there is a connection.
    pub fn tell(&self, id: InstanceId, question: Question) {
        let cells = self.cells.borrow();
        if let Some(link) = cells.get(&(id, false)).and_then(|cell| cell.get()) {
            link.tell(question);
        }
    }

    /// Asks another instance one question and waits for the answer. [`PeerReply::NotOwner`]: the question was not
    /// carried out; also said when there is no connection. `None`: no answer came, and the question may have been
    /// carried out.
    pub async fn ask(&self, id: InstanceId, question: Question) -> Option<PeerReply> {
        let Some(link) = self.link(id, &question).await else {
            return Some(PeerReply::NotOwner);
        };
        let metrics = &self.router.server.metrics;
        metrics.forwarded_requests_total.inc();
        let told = tokio::select! {
            biased;
            told = link.ask(question) => told,
            () = self.no_answer_counts(id) => None,
        };
        if matches!(told, Some(PeerReply::NotOwner)) {
            metrics.forwarded_requests_refused_total.inc();
            self.router.refresh_members();
        }
        told
    }

    /// Resolves when the asked instance is dead or gone, and answers that it sent before have arrived. It may
    /// hang with the question, and an answer that it sends after its death is not valid any more. (An instance
    /// that gives a slot away answers first.)
    async fn no_answer_counts(&self, id: InstanceId) {
        let state = |view: &View| {
            let members = view.members.as_ref()?;
            members.member(id).map(|member| member.state)
        };
        let mut view = self.view.clone();
        let is_gone = |view: &View| !state(view).is_some_and(MemberState::is_alive);
        let gone = view.wait_for(is_gone).await;
        let was_fenced = gone.is_ok_and(|view| state(&view).is_some());
        if !was_fenced {
            // Its row is gone: it may have shut down in order, with its last answers still on their way.
            tokio::time::sleep(self.lease / 4).await;
        }
    }
}
