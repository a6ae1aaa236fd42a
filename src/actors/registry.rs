//! Finds the actor of a name, starts it when there is none, replaces it when it is gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::board::Board;
use super::gate::Closed;
use super::listing::{Survey, survey};
use super::messages::{Abandon, AbandonAll, EndWaits, Find, FindLive, Reply, Retired};
use super::persistence::Persistence;
use super::resource::ResourceActor;
use super::shell::Shell;
use crate::lock::ResourceName;

/// Between two lines that say which events were not logged one by one.
const SUMMARY_PAUSE: Duration = Duration::from_secs(1);

/// One address per live name. Strong: the others hold theirs only for a moment.
pub struct Registry {
    shell: Arc<Shell>,
    persistence: Addr<Persistence>,
    live: HashMap<ResourceName, Entry>,
    generation: u64,
}

struct Entry {
    addr: Addr<ResourceActor>,
    board: Arc<Board>,
    generation: u64,
    incarnation: u64,
}

impl Registry {
    pub fn new(shell: Arc<Shell>, persistence: Addr<Persistence>) -> Registry {
        Registry {
            shell,
            persistence,
            live: HashMap::new(),
            generation: 0,
        }
    }

    fn start_actor(&mut self, find: &Find, registry: Addr<Registry>) -> Addr<ResourceActor> {
        self.generation += 1;
        let incarnation = self.shell.incarnation();
        let board = Arc::new(Board::default());
        let actor = ResourceActor::new(
            find.name.clone(),
            board.clone(),
            self.generation,
            incarnation,
            self.shell.clone(),
            registry,
            self.persistence.clone(),
        );
        // On the thread that asks: most resources are used over few connections, and a message within a
        // thread costs a fraction of one between threads.
        let addr = ResourceActor::start_in_arbiter(&find.home, move |_| actor);
        self.live.insert(
            find.name.clone(),
            Entry {
                addr: addr.clone(),
                board,
                generation: self.generation,
                incarnation,
            },
        );
        self.count();
        addr
    }

    fn count(&self) {
        self.shell.metrics.actors.live.set(self.live.len() as i64);
    }
}

impl Actor for Registry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1024);
        ctx.run_interval(SUMMARY_PAUSE, |registry, _| {
            registry.shell.events.summarise()
        });
    }
}

impl Handler<Find> for Registry {
    type Result = MessageResult<Find>;

    fn handle(&mut self, msg: Find, ctx: &mut Self::Context) -> Self::Result {
        if let Some(entry) = self.live.get(&msg.name) {
            if entry.addr.connected() && entry.incarnation == self.shell.incarnation() {
                return MessageResult(entry.addr.clone());
            }
            if entry.addr.connected() {
                // Its memory is of an earlier incarnation: whoever still waits there is told so.
                entry.addr.do_send(Abandon {
                    reply: Reply::Closed(Closed::StoreAway),
                });
            } else {
                // It died in the middle of something. What its lease had left to run is not known.
                log::error!("the actor of resource {} is gone; replaced", msg.name);
                self.shell.restart_leases();
            }
        }
        MessageResult(self.start_actor(&msg, ctx.address()))
    }
}

impl Handler<FindLive> for Registry {
    type Result = MessageResult<FindLive>;

    fn handle(&mut self, msg: FindLive, _: &mut Self::Context) -> Self::Result {
        let find = |name| self.live.get(name).map(|entry| entry.addr.clone());
        MessageResult(msg.names.iter().map(find).collect())
    }
}

impl Handler<Survey> for Registry {
    type Result = MessageResult<Survey>;

    fn handle(&mut self, msg: Survey, _: &mut Self::Context) -> Self::Result {
        let boards = self.live.iter().map(|(name, entry)| (name, &entry.board));
        MessageResult(survey(boards, &msg.0))
    }
}

impl Handler<Retired> for Registry {
    type Result = ();

    fn handle(&mut self, msg: Retired, _: &mut Self::Context) {
        let current = self.live.get(&msg.name).map(|entry| entry.generation);
        if current == Some(msg.generation) {
            self.live.remove(&msg.name);
            self.count();
            if self.live.capacity() > 1024 && self.live.len() < self.live.capacity() / 8 {
                self.live.shrink_to_fit();
            }
        }
    }
}

impl Handler<AbandonAll> for Registry {
    type Result = ();

    fn handle(&mut self, msg: AbandonAll, _: &mut Self::Context) {
        for (_, entry) in self.live.drain() {
            entry.addr.do_send(Abandon {
                reply: msg.reply.clone(),
            });
        }
        self.count();
    }
}

impl Handler<EndWaits> for Registry {
    type Result = ();

    fn handle(&mut self, msg: EndWaits, _: &mut Self::Context) {
        for entry in self.live.values() {
            entry.addr.do_send(msg);
        }
    }
}
