//! A request that this instance may be unable to finish by itself: it waits, its name belongs to another
//! instance, or its slot moves meanwhile.

use std::sync::Arc;
use std::time::Duration;

use super::destination::{Destination, of_slot};
use super::hold::Hold;
use super::links::Links;
use super::wire::{PeerReply, Question};
use crate::lock::{Answer, EndReason, PresentedTicket, Refusal, ResourceName};
use crate::registry::client::confirmed;
use crate::resource::messages::{Op, Reply, Wait};
use crate::shared::caller::Caller;
use crate::shared::gate::Closed;
use crate::store::members::{InstanceId, Slot};

/// How long the answer to a refused client may be delayed to give its place in the queue back.
const GIVE_BACK_MAX: Duration = Duration::from_secs(1);
/// Between two tries to give a place back.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// A request that is sent again and again, until it is answered or its hold is over.
pub struct Forwarded<'a> {
    links: &'a Links,
    name: &'a ResourceName,
    op: &'a Op,
    /// The caller, with the ticket that a lock request may make: a copy of the request finds the first one's
    /// place by it.
    caller: Arc<Caller>,
    hold: Hold,
    /// A copy of the request may have been carried out although its answer was lost.
    lost: bool,
    /// The request may have a place in a queue that moved to another instance, and its client was never told
    /// the ticket.
    has_place: bool,
}

fn closed(closed: Closed) -> Box<Reply> {
    Box::new(Reply::Closed(closed))
}

impl<'a> Forwarded<'a> {
    pub fn new(
        links: &'a Links,
        name: &'a ResourceName,
        op: &'a Op,
        caller: &Caller,
    ) -> Forwarded<'a> {
        let makes_ticket = matches!(op, Op::Acquire { .. });
        Forwarded {
            links,
            name,
            op,
            caller: Arc::new(Caller {
                relayed: makes_ticket.then(|| links.router.server.fresh_ticket()),
                ..caller.clone()
            }),
            hold: links.hold(op.wait().unwrap_or_default()),
            lost: false,
            has_place: false,
        }
    }

    pub async fn answer(mut self) -> Box<Reply> {
        loop {
            let reply = match self.destination() {
                Ok(Some(Destination::Here)) => self.ask_here().await,
                Ok(Some(Destination::There(other))) => self.ask_there(other).await,
                Ok(None) => None,
                Err(why) => Some(closed(why)),
            };
            let ended = match reply {
                Some(reply) => Some(self.concluded(reply)),
                None => {
                    let paused = self.hold.pause(&self.links.router.server).await;
                    paused.err().map(closed)
                }
            };
            if let Some(reply) = ended {
                let is_refused = matches!(*reply, Reply::Closed(_));
                if self.has_place && is_refused && !self.can_find_its_place() {
                    self.give_back().await;
                }
                return reply;
            }
        }
    }

    /// Whether the client, which was never told the ticket, finds its place again by an `Idempotency-Key`.
    fn can_find_its_place(&self) -> bool {
        matches!(self.op, Op::Acquire { options, .. } if options.key.is_some())
    }

    /// Gives up the place in the queue that this request may have left at the new owner. No client knows its
    /// ticket, so it would hold up the queue until the ticket expires. Retries, because the new owner may not
    /// know yet that it owns the slot.
    async fn give_back(&self) {
        let Some(ticket) = self.caller.relayed else {
            return;
        };
        let presented = PresentedTicket::Ticket(ticket);
        let giving = async {
            loop {
                let slot = (Slot::of(self.name), false);
                let destination = of_slot(slot, Ok(()), &self.links.view());
                let question = Question::Ask {
                    name: self.name.clone(),
                    op: Op::Unlock { presented },
                    caller: self.caller.clone(),
                };
                if let Ok(Some(Destination::There(other))) = destination
                    && let Some(PeerReply::Reply(reply)) = self.links.ask(other, question).await
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

    fn destination(&self) -> Result<Option<Destination>, Closed> {
        let server = &self.links.router.server;
        let slot = (Slot::of(self.name), server.slots.is_here(self.name));
        of_slot(slot, server.gate.check(), &self.links.view())
    }

    /// Asks this instance. `None`: ask again.
    async fn ask_here(&mut self) -> Option<Box<Reply>> {
        let op = self.remaining();
        let asking = self.links.router.ask(self.name, &op, &self.caller);
        let (reply, call) = tokio::select! {
            biased;
            // Dropping the request gives up its place in the queue; its client gets a 503 and no ticket.
            () = self.hold.stopped(), if op.wait().is_some() => {
                // The place may have moved with its slot before that.
                self.has_place = !self.links.router.server.slots.is_here(self.name);
                return Some(closed(Closed::Stopping));
            }
            replied = asking => replied,
        };
        match &*reply {
            // Nothing was done, or a place in the queue was made and moved to the next owner.
            Reply::Closed(Closed::Moving) => self.has_place = true,
            // Other instances take this one for dead: the request may have been carried out, as by an owner
            // that died.
            Reply::Closed(Closed::Standby) if self.op.may_repeat() => self.lost = true,
            Reply::Closed(Closed::Stopping) => return Some(reply),
            _ => return Some(confirmed((reply, call))),
        }
        drop(confirmed((reply, call)));
        None
    }

    /// Asks another instance. `None`: ask again.
    async fn ask_there(&mut self, other: InstanceId) -> Option<Box<Reply>> {
        let question = Question::Ask {
            name: self.name.clone(),
            op: self.remaining(),
            caller: self.caller.clone(),
        };
        let asking = self.links.ask(other, question);
        let told = tokio::select! {
            biased;
            told = asking => told,
            // When this instance shuts down, waits that were passed on end as its own do.
            () = self.hold.stopped(), if self.op.wait().is_some() => {
                return Some(closed(Closed::Stopping));
            }
        };
        let reply = match told {
            Some(PeerReply::Reply(reply)) => reply,
            Some(PeerReply::NotOwner) => return None,
            _ if self.op.may_repeat() => {
                self.lost = true;
                return None;
            }
            _ => return Some(closed(Closed::AnswerLost)),
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

    /// The reply that the client gets.
    fn concluded(&self, reply: Box<Reply>) -> Box<Reply> {
        match *reply {
            // An earlier copy of this unlock released the lock.
            Reply::Refused(Refusal::Dead(Some(EndReason::Released)), _)
                if self.lost && matches!(self.op, Op::Unlock { .. }) =>
            {
                Box::new(Reply::Lock(Answer::Unlocked { dead: None }))
            }
            _ => reply,
        }
    }

    /// The request with what is left of its wait.
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
