//! One request that does not simply end here: it waits, or belongs to another instance, or changes hands meanwhile.

use std::sync::Arc;
use std::time::Duration;

use super::hold::Hold;
use super::links::{Exchange, Links};
use super::place::{OtherMember, Place, of_slot};
use super::wire::{PeerReply, Question};
use crate::lock::{Answer, EndReason, PresentedTicket, Refusal, ResourceName};
use crate::registry::client::{Router, taken};
use crate::resource::messages::{Op, Reply, Wait};
use crate::shared::caller::Caller;
use crate::shared::gate::Closed;
use crate::shared::server_state::ServerState;
use crate::store::members::Slot;

/// How long a client that is refused may wait until its place is given back.
const GIVE_BACK_MAX: Duration = Duration::from_secs(1);
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Asked again and again, until it is answered or may not be held any longer.
pub struct Forwarded<'a> {
    router: &'a Router,
    links: &'a Links,
    name: &'a ResourceName,
    op: &'a Op,
    /// With the ticket to make, so that a copy finds it.
    caller: Arc<Caller>,
    hold: Hold,
    /// A copy may have been acted on.
    lost: bool,
    /// It may have a place in a queue that has gone to another instance, and whose ticket its client was never told.
    has_place: bool,
}

fn closed(closed: Closed) -> Box<Reply> {
    Box::new(Reply::Closed(closed))
}

impl<'a> Forwarded<'a> {
    pub fn new(
        (router, links): (&'a Router, &'a Links),
        (name, op, caller): (&'a ResourceName, &'a Op, &Caller),
        hold: Hold,
    ) -> Forwarded<'a> {
        let makes_ticket = matches!(op, Op::Acquire { .. });
        Forwarded {
            router,
            links,
            name,
            op,
            caller: Arc::new(Caller {
                relayed: makes_ticket.then(|| router.server.fresh_ticket()),
                ..caller.clone()
            }),
            hold,
            lost: false,
            has_place: false,
        }
    }

    fn server(&self) -> &Arc<ServerState> {
        &self.router.server
    }

    pub async fn answer(mut self) -> Box<Reply> {
        loop {
            let reply = match self.place() {
                Ok(Some(Place::Here)) => self.ask_here().await,
                Ok(Some(Place::There(other))) => self.ask_there(&other).await,
                Ok(None) => None,
                Err(why) => Some(closed(why)),
            };
            let ended = match reply {
                Some(reply) => Some(self.concluded(reply)),
                None => self.hold.pause(&self.router.server).await.err().map(closed),
            };
            if let Some(reply) = ended {
                if self.has_place && matches!(*reply, Reply::Closed(_)) {
                    self.give_back().await;
                }
                return reply;
            }
        }
    }

    /// Nobody can take the place, and it would hold up the queue for as long as its ticket lives. Whoever was given the name
    /// may not have heard of it yet.
    async fn give_back(&self) {
        let Some(ticket) = self.caller.relayed else {
            return;
        };
        let presented = PresentedTicket::Ticket(ticket);
        let giving = async {
            loop {
                let slot = (Slot::of(self.name), false);
                let place = of_slot(slot, Ok(()), &self.links.view());
                let question = Question::Ask {
                    name: self.name.clone(),
                    op: Op::Unlock { presented },
                    caller: self.caller.clone(),
                };
                if let Ok(Some(Place::There(other))) = place
                    && let Exchange::Answered(PeerReply::Reply(reply)) =
                        self.links.ask(self.router, &other, question).await
                    && !matches!(*reply, Reply::Closed(_))
                {
                    return;
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        };
        if tokio::time::timeout(GIVE_BACK_MAX, giving).await.is_err() {
            log::warn!(
                "a place in the queue of {} could not be given back",
                self.name
            );
        }
    }

    fn place(&self) -> Result<Option<Place>, Closed> {
        let server = self.server();
        let slot = (Slot::of(self.name), server.slots.is_here(self.name));
        of_slot(slot, server.gate.check(), &self.links.view())
    }

    /// `None`: it may be asked again.
    async fn ask_here(&mut self) -> Option<Box<Reply>> {
        let op = self.remaining();
        let asking = self.router.ask(self.name, &op, &self.caller);
        let (reply, call) = match op.wait() {
            // Dropped, it loses its place: its client is told that there is none.
            Some(_) => tokio::select! {
                biased;
                () = self.hold.stopped() => {
                    // It may have gone already.
                    self.has_place = !self.router.server.slots.is_here(self.name);
                    return Some(closed(Closed::Stopping));
                }
                replied = asking => replied,
            },
            None => asking.await,
        };
        match &*reply {
            // Nothing was done, or what was done stays for the next owner.
            Reply::Closed(Closed::Moving) => self.has_place = true,
            // Taken for dead: as if it had been asked of another instance that died.
            Reply::Closed(Closed::Standby) if self.op.may_repeat() => self.lost = true,
            Reply::Closed(Closed::Stopping) => return Some(reply),
            _ => return Some(taken((reply, call))),
        }
        drop(taken((reply, call)));
        None
    }

    /// `None`: it may be asked again.
    async fn ask_there(&mut self, other: &OtherMember) -> Option<Box<Reply>> {
        let question = Question::Ask {
            name: self.name.clone(),
            op: self.remaining(),
            caller: self.caller.clone(),
        };
        let exchange = self.links.ask(self.router, other, question);
        let exchange = match self.op.wait() {
            // As its own waits, those that are passed on end when this instance does.
            Some(_) => tokio::select! {
                exchange = exchange => exchange,
                () = self.hold.stopped() => return Some(closed(Closed::Stopping)),
            },
            None => exchange.await,
        };
        let reply = match exchange {
            Exchange::Answered(PeerReply::Reply(reply)) => reply,
            Exchange::NotDone => return None,
            Exchange::Answered(_) | Exchange::Lost if self.op.may_repeat() => {
                self.lost = true;
                return None;
            }
            Exchange::Answered(_) | Exchange::Lost => return Some(closed(Closed::AnswerLost)),
        };
        match *reply {
            Reply::Closed(Closed::Moving) => None,
            Reply::Closed(_) if self.op.may_repeat() => {
                self.lost = true;
                None
            }
            _ => Some(reply),
        }
    }

    /// What the client is told.
    fn concluded(&self, reply: Box<Reply>) -> Box<Reply> {
        match *reply {
            // The first copy did it.
            Reply::Refused(Refusal::Dead(Some(EndReason::Released)))
                if self.lost && matches!(self.op, Op::Unlock { .. }) =>
            {
                Box::new(Reply::Lock(Answer::Unlocked { dead: None }))
            }
            _ => reply,
        }
    }

    /// With what is left of its wait.
    fn remaining(&self) -> Op {
        let passed = self.hold.elapsed();
        let mut op = self.op.clone();
        match &mut op {
            Op::Acquire {
                wait: Wait::For(wait) | Wait::ThenLeave(wait),
                ..
            } => *wait = wait.saturating_sub(passed),
            Op::Read {
                watch: Some(watch), ..
            }
            | Op::Describe {
                watch: Some(watch), ..
            } => watch.wait = watch.wait.saturating_sub(passed),
            _ => {}
        }
        op
    }
}
